/* y = scale (x - zero).
   x (count), y float (count), not overlapping x. */
#include "arithmetic.h"

struct dequantize_s8 {
    int32_t count, zero, low, high;
    float scale;
};

CL_KERNEL void dequantize_s8(const struct dequantize_s8 *p, const int8_t *x, float *y)
{
    for (int32_t i = 0; i < p->count; i++) {
        y[i] = p->scale * (float)(x[i] - p->zero);
    }
}
