/* y = clamp(a + b), both brought to a common scale; int16 codes with zero 0.
   a, b, y (count); y may be a or b. */
#include "arithmetic.h"

struct add_s16 {
    int32_t count, zero_out, low, high, headroom, zero_a, zero_b;
    const cl_fixed *rescale_a, *rescale_b, *rescale;
};

CL_KERNEL void add_s16(const struct add_s16 *p, const int16_t *a, const int16_t *b, int16_t *y)
{
    for (int32_t i = 0; i < p->count; i++) {
        const int32_t left = cl_scale_fixed(cl_left(a[i], p->headroom), p->rescale_a[0]);
        const int32_t right = cl_scale_fixed(cl_left(b[i], p->headroom), p->rescale_b[0]);
        y[i] = (int16_t)cl_clamp(cl_scale_fixed(left + right, p->rescale[0]), p->low, p->high);
    }
}
