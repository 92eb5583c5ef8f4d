/* y = clamp(scale(a b)); int16 codes with zero 0.
   a, b, y (count); y may be a or b. */
#include "arithmetic.h"

struct mul_s16 {
    int32_t count, zero_a, zero_b, zero_out, low, high;
    const cl_fixed *rescale;
};

CL_KERNEL void mul_s16(const struct mul_s16 *p, const int16_t *a, const int16_t *b, int16_t *y)
{
    for (int32_t i = 0; i < p->count; i++) {
        y[i] = (int16_t)cl_clamp(cl_scale_fixed(a[i] * b[i], p->rescale[0]), p->low, p->high);
    }
}
