/* Products of codes with rows of weights that are mostly zero. A row has a mask for each 32 inputs, the first input in
   the highest bit, and one after the other the weights whose bits are set. Which instructions run depends on the masks
   alone. */
#ifndef CL_SPARSE_H
#define CL_SPARSE_H

#include "requant.h"

/* Whether one instruction finds the next bit; else bits are looked at one by one. */
#if defined(__ARM_FEATURE_CLZ) || defined(__riscv_zbb) || defined(__aarch64__) || defined(__x86_64__)
#define CL_CLZ 1
#else
#define CL_CLZ 0
#endif

/* sum + row · x, where inputs are `apart` codes apart. */
CL_KERNEL int32_t cl_sparse_one(const uint32_t *mask, int32_t words, const int8_t *weight, const int8_t *x,
                                int32_t apart, int32_t sum)
{
    CL_ROLLED
    for (; words > 0; words--, x += 32 * apart) {
        uint32_t left = *mask++;
#if CL_CLZ
        CL_ROLLED
        while (left != 0) {
            const int32_t at = __builtin_clz(left);
            left &= ~(0x80000000U >> at);
            sum += x[at * apart] * *weight++;
        }
#else
        const int8_t *v = x;
        CL_ROLLED
        for (; left != 0; left <<= 1, v += apart) {
            if (left >> 31 != 0) {
                sum += *v * *weight++;
            }
        }
#endif
    }
    return sum;
}

/* sum[i] = bias + row · x_i for four x whose codes alternate. */
CL_KERNEL void cl_sparse_four(const uint32_t *mask, int32_t words, const int8_t *weight, const int8_t *x, int32_t bias,
                              int32_t *sum)
{
    int32_t s0 = bias, s1 = bias, s2 = bias, s3 = bias;
    CL_ROLLED
    for (; words > 0; words--, x += 32 * 4) {
        uint32_t left = *mask++;
        const int8_t *v = x;
#if CL_CLZ
        CL_ROLLED
        while (left != 0) {
            const int32_t at = __builtin_clz(left);
            left &= ~(0x80000000U >> at);
            v = x + 4 * at;
#else
        CL_ROLLED
        for (; left != 0; left <<= 1, v += 4) {
            if (left >> 31 == 0) {
                continue;
            }
#endif
            const int32_t w = *weight++;
#if CL_DSP
            int32_t even, odd; /* codes 0 and 2, 1 and 3 */
            __builtin_memcpy(&odd, v, 4);
            __asm__("sxtb16 %0, %1\n\tsxtb16 %1, %1, ror #8" : "=&r"(even), "+r"(odd));
            s0 += (int16_t)even * w;
            s1 += (int16_t)odd * w;
            s2 += (even >> 16) * w;
            s3 += (odd >> 16) * w;
#else
            s0 += v[0] * w;
            s1 += v[1] * w;
            s2 += v[2] * w;
            s3 += v[3] * w;
#endif
        }
    }
    sum[0] = s0;
    sum[1] = s1;
    sum[2] = s2;
    sum[3] = s3;
}

#endif
