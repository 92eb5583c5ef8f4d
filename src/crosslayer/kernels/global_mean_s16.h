/* y[c] = clamp(scale(sum x[., c])), with 1 / pixels in the scale; int16 codes with zero 0.
   x (pixels, channels), y (channels), not overlapping x. */
#include "arithmetic.h"

struct global_mean_s16 {
    int32_t pixels, channels, low, high, zero_in, zero_out;
    const cl_fixed *rescale;
};

CL_KERNEL void global_mean_s16(const struct global_mean_s16 *p, const int16_t *x, int16_t *y)
{
    for (int32_t c = 0; c < p->channels; c++) {
        int32_t sum = 0;
        for (int32_t i = 0; i < p->pixels; i++) {
            sum += x[i * p->channels + c];
        }
        y[c] = (int16_t)cl_clamp(cl_scale_fixed(sum, p->rescale[0]), p->low, p->high);
    }
}
