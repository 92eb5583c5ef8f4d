/* y = clamp(scale((a - zero_a) (b - zero_b)) + zero_out).
   a, b, y (count); y may be a or b. */
#include "arithmetic.h"

struct mul_s8 {
    int32_t count, zero_a, zero_b, zero_out, low, high;
    const cl_rescale *rescale;
};

CL_KERNEL void mul_s8(const struct mul_s8 *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    for (int32_t i = 0; i < p->count; i++) {
        const int32_t product = (a[i] - p->zero_a) * (b[i] - p->zero_b);
        y[i] = (int8_t)cl_clamp(cl_scale(product, p->rescale[0]) + p->zero_out, p->low, p->high);
    }
}
