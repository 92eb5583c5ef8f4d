/* y[c] = clamp(scale(sum (x[., c] - zero_in)) / pixels + zero_out), halves away from zero.
   x (pixels, channels), y (channels), not overlapping x. */
#include "arithmetic.h"

struct global_mean_s8 {
    int32_t pixels, channels, zero_in, zero_out;
    const cl_rescale *rescale;
};

CL_KERNEL void global_mean_s8(const struct global_mean_s8 *p, const int8_t *x, int8_t *y)
{
    for (int32_t c = 0; c < p->channels; c++) {
        int32_t acc = 0;
        for (int32_t i = 0; i < p->pixels; i++) {
            acc += x[i * p->channels + c] - p->zero_in;
        }
        const int32_t mean = cl_mean(cl_scale(acc, p->rescale[0]), p->pixels);
        y[c] = (int8_t)cl_clamp(mean + p->zero_out, INT8_MIN, INT8_MAX);
    }
}
