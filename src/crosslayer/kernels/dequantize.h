/* y = scale (x - zero).
   x (count), y float (count), not overlapping x. */
#include "arithmetic.h"

struct dequantize {
    int32_t count, wide, zero, low, high;
    float scale;
};

CL_KERNEL void dequantize(const struct dequantize *p, const void *x, float *y)
{
    for (int32_t i = 0; i < p->count; i++) {
        y[i] = p->scale * (float)(cl_code(x, i, p->wide) - p->zero);
    }
}
