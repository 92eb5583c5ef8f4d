#include "pool_quad.h"

#include "vectors.h"

#include <stddef.h>

/* total / count, halves away from zero: the same work for all values; of magnitudes of at most 128 count. */
static inline int32_t mean(int32_t total, int32_t count)
{
    const int32_t sign = total >> 31;
    uint32_t left = (uint32_t)((total ^ sign) - sign + count / 2);
    uint32_t result;
#if defined(__ARM_ARCH) && !defined(__ARM_FEATURE_IDIV)
    result = 0;
    for (int32_t bit = 7; bit >= 0; bit--) {
        const uint32_t part = (uint32_t)count << bit;
        const int32_t less = (int32_t)(left - part) >> 31; /* all ones if the bit is 0 */
        left -= part - (uint32_t)cl_masked((int32_t)part, less);
        result += result + 1U + (uint32_t)less;
    }
#else
    result = left / (uint32_t)count;
#endif
    return ((int32_t)result ^ sign) - sign;
}

#if CL_MVE
/* One window, of which the places `from` to `to` of a row lie inside: four means from a channel on, or of sixteen
   channels the largest codes. */
static void summarize(const struct pool_quad *p, const void *const *rows, int32_t left, int32_t from, int32_t to,
                      int32_t channel, int8_t *code)
{
    const int32_t step = p->dilation_w * p->channels;
    const uint32_t channels = (uint32_t)(p->channels - channel);
    int32x4_t sums = vdupq_n_s32(0);
    int8x16_t peaks = vdupq_n_s8(INT8_MIN);
    int32_t count = 0;
    for (int32_t ky = 0; ky < p->kernel_h; ky++) {
        const int8_t *x = p->whole ? (const int8_t *)rows[0] + ky * p->in_w * p->channels : rows[ky];
        if (x == NULL) {
            continue;
        }
        x += (left + from * p->dilation_w) * p->channels + channel;
        count += to - from;
        if (p->largest) {
            for (int32_t kx = from; kx < to; kx++, x += step) {
                peaks = vmaxq_s8(peaks, vldrbq_z_s8(x, vctp8q(channels)));
            }
        } else {
            for (int32_t kx = from; kx < to; kx++, x += step) {
                sums = vaddq_s32(sums, vldrbq_s32(x));
            }
        }
    }
    if (p->largest) {
        vstrbq_p_s8(code, peaks, vctp8q(channels));
        return;
    }
    int32_t sum[4];
    vst1q_s32(sum, sums);
    for (int32_t i = 0; i < 4; i++) {
        code[i] = (int8_t)mean(sum[i], count);
    }
}
#else
#if CL_DSP
/* Sums of codes 0 and 2, or 1 and 3, of which 255 fit. */
static inline uint32_t plus_even(uint32_t sums, uint32_t codes)
{
    __asm__("sxtab16 %0, %0, %1" : "+r"(sums) : "r"(codes));
    return sums;
}

static inline uint32_t plus_odd(uint32_t sums, uint32_t codes)
{
    __asm__("sxtab16 %0, %0, %1, ror #8" : "+r"(sums) : "r"(codes));
    return sums;
}

/* The larger of each of four codes. */
static inline uint32_t larger(uint32_t a, uint32_t b)
{
    uint32_t result;
    __asm__("ssub8 %0, %1, %2\n\tsel %0, %1, %2" : "=&r"(result) : "r"(a), "r"(b));
    return result;
}
#endif

/* One window, of which the places `from` to `to` of a row lie inside. */
static void summarize(const struct pool_quad *p, const void *const *rows, int32_t left, int32_t from, int32_t to,
                      int32_t channel, int8_t *code)
{
    const int32_t step = p->dilation_w * p->channels;
    const int32_t largest = p->largest;
    int32_t sums[4] = {0, 0, 0, 0};
    int32_t count = 0;
#if CL_DSP
    uint32_t peaks = 0x80808080U;
#else
    int8_t peaks[4] = {INT8_MIN, INT8_MIN, INT8_MIN, INT8_MIN};
#endif
    for (int32_t ky = 0; ky < p->kernel_h; ky++) {
        const int8_t *x = p->whole ? (const int8_t *)rows[0] + ky * p->in_w * p->channels : rows[ky];
        if (x == NULL) {
            continue;
        }
        x += (left + from * p->dilation_w) * p->channels + channel;
        count += to - from;
#if CL_DSP
        uint32_t even = 0, odd = 0;
        for (int32_t kx = from; kx < to; kx++, x += step) {
            uint32_t codes;
            __builtin_memcpy(&codes, x, 4);
            if (largest) {
                peaks = larger(codes, peaks);
            } else {
                even = plus_even(even, codes);
                odd = plus_odd(odd, codes);
            }
        }
        sums[0] += (int16_t)even;
        sums[1] += (int16_t)odd;
        sums[2] += (int32_t)even >> 16;
        sums[3] += (int32_t)odd >> 16;
#else
        for (int32_t kx = from; kx < to; kx++, x += step) {
            for (int32_t i = 0; i < 4; i++) {
                sums[i] += x[i];
                peaks[i] = (int8_t)cl_larger(x[i], peaks[i]);
            }
        }
#endif
    }
    for (int32_t i = 0; i < 4; i++) {
#if CL_DSP
        code[i] = largest ? (int8_t)(peaks >> (8 * i)) : (int8_t)mean(sums[i], count);
#else
        code[i] = largest ? peaks[i] : (int8_t)mean(sums[i], count);
#endif
    }
}
#endif

void cl_pool_quad(const void *constants, const void *const *rows, void *y, void *scratch, int32_t row)
{
    const struct pool_quad *p = constants;
    int8_t *code = y;
    int32_t left = -p->pad_left;
    (void)scratch;
    (void)row;
    for (int32_t ox = 0; ox < p->out_w; ox++, left += p->stride_w, code += p->channels) {
        int32_t from = 0, to = p->kernel_w;
        CL_ROLLED
        while (left + from * p->dilation_w < 0) {
            from++;
        }
        CL_ROLLED
        while (left + (to - 1) * p->dilation_w >= p->in_w) {
            to--;
        }
        const int32_t together = CL_MVE && p->largest ? 16 : 4;
        for (int32_t channel = 0; channel < p->channels; channel += together) {
            const int32_t first = together > 4 || channel + 4 <= p->channels ? channel : p->channels - 4;
            summarize(p, rows, left, from, to, first, code + first);
        }
    }
}
