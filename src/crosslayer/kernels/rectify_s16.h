/* y = clamp(scale(x)), by another factor for x < 0; int16 codes with zero 0.
   x, y (count); y may be x. */
#include "arithmetic.h"

struct rectify_s16 {
    int32_t count, low, high;
    const cl_fixed *rescale, *rescale_negative;
};

CL_KERNEL void rectify_s16(const struct rectify_s16 *p, const int16_t *x, int16_t *y)
{
    for (int32_t i = 0; i < p->count; i++) {
        const cl_fixed factor = x[i] < 0 ? p->rescale_negative[0] : p->rescale[0];
        y[i] = (int16_t)cl_clamp(cl_scale_fixed(x[i], factor), p->low, p->high);
    }
}
