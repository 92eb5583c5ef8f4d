/* y = clamp(scale(x - zero_in) + zero_out).
   x, y (count); y may be x. */
#include "arithmetic.h"

struct requantize_s8 {
    int32_t count, zero_in, zero_out, low, high;
    const cl_rescale *rescale;
};

CL_KERNEL void requantize_s8(const struct requantize_s8 *p, const int8_t *x, int8_t *y)
{
    for (int32_t i = 0; i < p->count; i++) {
        y[i] = (int8_t)cl_clamp(cl_scale(x[i] - p->zero_in, p->rescale[0]) + p->zero_out, p->low, p->high);
    }
}
