/* y = clamp(scale(x - zero_in) + zero_out); x or y or both int16.
   x, y (count), not overlapping. */
#include "arithmetic.h"

struct requantize_s16 {
    int32_t wide_in, wide_out, count, zero_in, zero_out, low, high;
    const cl_fixed *rescale;
};

CL_KERNEL void requantize_s16(const struct requantize_s16 *p, const void *x, void *y)
{
    for (int32_t i = 0; i < p->count; i++) {
        const int32_t code = cl_scale_fixed(cl_code(x, i, p->wide_in) - p->zero_in, p->rescale[0]) + p->zero_out;
        y = cl_put(y, p->wide_out, cl_clamp(code, p->low, p->high));
    }
}
