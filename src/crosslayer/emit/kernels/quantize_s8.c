/* y = clamp(round(x / scale) + zero), halves away from zero.
   x float (count), y (count), not overlapping x. */
#include "arithmetic.h"

struct quantize_s8 {
    int32_t count, zero, low, high;
    float scale;
};

CL_KERNEL void quantize_s8(const struct quantize_s8 *p, const float *x, int8_t *y)
{
    for (int32_t i = 0; i < p->count; i++) {
        y[i] = (int8_t)cl_clamp(cl_round_away(x[i] / p->scale) + p->zero, p->low, p->high);
    }
}
