/* Vectors of the M-profile extension (MVE, "Helium") for integers: four sums of 32 bits, eight or sixteen codes. */
#ifndef CL_VECTORS_H
#define CL_VECTORS_H

#include "requant.h"

#if CL_MVE
#include <arm_mve.h>

/* Copies `count` codes; returns where the next one goes. */
static inline int8_t *cl_copy_codes(int8_t *to, const int8_t *from, int32_t count)
{
    int8_t *const end = to + count;
    for (; count > 0; count -= 16, to += 16, from += 16) {
        const mve_pred16_t inside = vctp8q((uint32_t)count);
        vstrbq_p_s8(to, vldrbq_z_s8(from, inside), inside);
    }
    return end;
}

/* The same code `count` times. */
static inline int8_t *cl_repeat_code(int8_t *to, int8_t code, int32_t count)
{
    int8_t *const end = to + count;
    for (; count > 0; count -= 16, to += 16) {
        vstrbq_p_s8(to, vdupq_n_s8(code), vctp8q((uint32_t)count));
    }
    return end;
}

/* The address of each of four values, `at` bytes from `first` on. */
static inline uint32x4_t cl_places(const void *first, uint32x4_t at)
{
    return vaddq_n_u32(at, (uint32_t)(uintptr_t)first);
}

/* Eight values as codes, saturated; `even` are values 0, 2, 4 and 6. */
static inline void cl_store_eight(int8_t *code, int32x4_t even, int32x4_t odd)
{
    int16x8_t eight = vqmovnbq_s32(vdupq_n_s16(0), even);
    eight = vqmovntq_s32(eight, odd);
    vstrbq_s16(code, vreinterpretq_s16_s8(vqmovnbq_s16(vreinterpretq_s8_s16(eight), eight)));
}

/* Four values, saturated, as the low bytes of four words. */
static inline int32x4_t cl_saturate_four(int32x4_t v)
{
    const int16x8_t halves = vqmovnbq_s32(vreinterpretq_s16_s32(v), v);
    return vreinterpretq_s32_s8(vqmovnbq_s16(vreinterpretq_s8_s16(halves), halves));
}

/* Four products' high words and an offset, shifted: the end of cl_requantize. */
static inline int32x4_t cl_shift_four(int32x4_t high, int32x4_t offset, int32x4_t shift)
{
    return vshlq_s32(vaddq_s32(vaddq_s32(high, vshrq_n_s32(high, 31)), offset), vnegq_s32(shift));
}

/* cl_requantize of four sums, not saturated yet; `requant` are the addresses of their factors. */
static inline int32x4_t cl_requantize_four(int32x4_t sums, uint32x4_t requant, int32_t zero_out)
{
#if CL_RULE_FLOAT
    /* by scalars: vectors of floats flush subnormals */
    int32_t sum[4];
    uint32_t place[4];
    vst1q_s32(sum, sums);
    vst1q_u32(place, requant);
    for (int32_t i = 0; i < 4; i++) {
        sum[i] = cl_requantize(sum[i], (const cl_requant *)(uintptr_t)place[i], zero_out);
    }
    return vld1q_s32(sum);
#else
    (void)zero_out;
    const int32x4_t high = vqrdmulhq_s32(sums, vldrwq_gather_base_s32(requant, 0));
    return cl_shift_four(high, vldrwq_gather_base_s32(requant, 4), vldrwq_gather_base_s32(requant, 8));
#endif
}
#endif

#endif
