/* y[c] = clamp(scale(sum (x[., c] - zero_in)) + zero_out), with 1 / pixels in the scale.
   x (pixels, channels), y (channels), not overlapping x. */
#include "arithmetic.h"

struct global_mean_s8 {
    int32_t pixels, channels, low, high;
#if CL_RULE_FLOAT
    float factor, offset; /* the zeros are in the offset */
#else
    int32_t zero_in, zero_out;
    const cl_rescale *rescale;
#endif
};

CL_KERNEL void global_mean_s8(const struct global_mean_s8 *p, const int8_t *x, int8_t *y)
{
    for (int32_t c = 0; c < p->channels; c++) {
        int32_t acc = 0;
        for (int32_t i = 0; i < p->pixels; i++) {
            acc += x[i * p->channels + c];
        }
#if CL_RULE_FLOAT
        const volatile float scaled = (float)acc * p->factor; /* volatile: a fused multiply-add would round once */
        const int32_t mean = cl_round_even(scaled + p->offset);
#else
        const int32_t mean = cl_scale(acc - p->zero_in * p->pixels, p->rescale[0]) + p->zero_out;
#endif
        y[c] = (int8_t)cl_clamp(mean, p->low, p->high);
    }
}
