/* y = clamp(a + b), both brought to a common scale.
   a, b, y (count); y may be a or b. */
#include "arithmetic.h"

struct add_s8 {
    int32_t count, zero_out, low, high;
#if CL_RULE_FLOAT
    int32_t mult_a, mult_b, shift, bias;
#else
    int32_t headroom, zero_a, zero_b;
    const cl_rescale *rescale_a, *rescale_b, *rescale;
#endif
};

CL_KERNEL void add_s8(const struct add_s8 *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    for (int32_t i = 0; i < p->count; i++) {
#if CL_RULE_FLOAT
        const int32_t sum = (p->bias + a[i] * p->mult_a + b[i] * p->mult_b) >> p->shift;
#else
        const int32_t left = cl_scale(cl_left(a[i] - p->zero_a, p->headroom), p->rescale_a[0]);
        const int32_t right = cl_scale(cl_left(b[i] - p->zero_b, p->headroom), p->rescale_b[0]);
        const int32_t sum = cl_scale(left + right, p->rescale[0]);
#endif
        y[i] = (int8_t)cl_clamp(sum + p->zero_out, p->low, p->high);
    }
}
