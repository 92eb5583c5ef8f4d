/* Sums to int8 codes in few instructions, where the factor is below 1/2, the sum below 2^30 in magnitude and the code's
   range is that of int8. */
#ifndef CL_REQUANT_H
#define CL_REQUANT_H

#include "arithmetic.h"

/* Cores with vectors have the DSP instructions too. */
#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)
#define CL_MVE 1
#else
#define CL_MVE 0
#endif

#if defined(__ARM_FEATURE_DSP) && __ARM_FEATURE_DSP
#define CL_DSP 1
#ifdef __GNUC__
#pragma GCC diagnostic ignored "-Wunused-parameter" /* naked functions find theirs in registers */
#endif
#else
#define CL_DSP 0
#endif

#if CL_RULE_FLOAT
typedef struct {
    float factor;
} cl_requant;
#else
/* acc * mult / 2^31 / 2^shift + zero_out; `offset` is 2^(shift - 1) + zero_out * 2^shift, so that one shift rounds both. */
typedef struct {
    int32_t mult, offset, shift;
} cl_requant;
#endif

/* `v` where `mask` is all ones, 0 where it is 0. Without a branch, so that every value takes the same instructions: the
   compiler must not know what a mask is. */
static inline int32_t cl_masked(int32_t v, int32_t mask)
{
#if defined(__GNUC__)
    __asm__("" : "+r"(mask));
#endif
    return v & mask;
}

/* The larger and the smaller of two values that are less than 2^31 apart. */
static inline int32_t cl_larger(int32_t a, int32_t b)
{
    return a - cl_masked(a - b, (a - b) >> 31);
}

static inline int32_t cl_smaller(int32_t a, int32_t b)
{
    return b + cl_masked(a - b, (a - b) >> 31);
}

/* The nearest int8, for magnitudes below 2^30. */
static inline int32_t cl_saturate(int32_t v)
{
#if CL_DSP
    int32_t code;
    __asm__("ssat %0, #8, %1" : "=r"(code) : "r"(v));
    return code;
#else
    return cl_larger(cl_smaller(v, INT8_MAX), INT8_MIN);
#endif
}

/* (a b + 2^31) >> 32: the rounding doubling high product of a / 2 and b. */
static inline int32_t cl_high_doubled(int32_t a, int32_t b)
{
#if CL_DSP
    int32_t high;
    __asm__("smmulr %0, %1, %2" : "=r"(high) : "r"(a), "r"(b));
    return high;
#else
    return (int32_t)(((int64_t)a * b + ((int64_t)1 << 31)) >> 32);
#endif
}

/* acc * factor + zero_out, halves to even. */
#if CL_RULE_FLOAT
static inline int32_t cl_scaled(int32_t acc, float factor, int32_t zero_out)
{
#if CL_MVE && defined(__ARM_FP)
    float v = (float)acc * factor;
    int32_t code;
    __asm__("vcvtn.s32.f32 %0, %0\n\tvmov %1, %0\n\tqadd %1, %1, %2" : "+t"(v), "=&r"(code) : "r"(zero_out));
    return code;
#else
    return cl_round_even((float)acc * factor) + zero_out;
#endif
}
#endif

static inline int8_t cl_requantize(int32_t acc, const cl_requant *r, int32_t zero_out)
{
#if CL_RULE_FLOAT
    return (int8_t)cl_saturate(cl_scaled(acc, r->factor, zero_out));
#else
    (void)zero_out; /* it is in the offset */
    const int32_t high = cl_high_doubled(cl_left(acc, 1), r->mult);
    return (int8_t)cl_saturate((high + (high >> 31) + r->offset) >> r->shift);
#endif
}

#endif
