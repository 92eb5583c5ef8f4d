/* y = clamp(round(x / scale) + zero), halves away from zero.
   x float (count), y (count), not overlapping x. */
#include "arithmetic.h"

struct quantize {
    int32_t count, wide, zero, low, high;
    float scale;
};

CL_KERNEL void quantize(const struct quantize *p, const float *x, void *y)
{
    for (int32_t i = 0; i < p->count; i++) {
        y = cl_put(y, p->wide, cl_clamp(cl_round_away(x[i] / p->scale) + p->zero, p->low, p->high));
    }
}
