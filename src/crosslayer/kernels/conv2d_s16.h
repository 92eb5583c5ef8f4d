/* y = clamp(scale(b + sum x w)): grouped, strided, dilated, padded with zeros; int16 codes with zero 0.
   x (in_h, in_w, in_c), weight of `bits` bits (out_c, kernel_h, kernel_w, in_c / groups), y (out_h, out_w, out_c), not
   overlapping x. */
#include "arithmetic.h"

struct conv2d_s16 {
    int32_t in_h, in_w, in_c, out_h, out_w, out_c;
    int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left, groups;
    int32_t rule, sum_bits, bias_bits, zero_in, zero_out, low, high, per_channel, bits;
    const void *weight, *bias, *rescale;
};

CL_KERNEL void conv2d_s16(const struct conv2d_s16 *p, const int16_t *x, int16_t *y)
{
    const cl_taps weights = {p->weight, 0, p->bits};
    const int32_t depth = p->in_c / p->groups;
    const int32_t per_group = p->out_c / p->groups;
    const int32_t whole_rows = p->dilation_w == 1 && p->groups == 1;
    for (int32_t oy = 0; oy < p->out_h; oy++) {
        const int32_t top = oy * p->stride_h - p->pad_top;
        const int32_t ky_from = cl_from(top, p->dilation_h);
        const int32_t ky_to = cl_to(top, p->dilation_h, p->in_h, p->kernel_h);
        for (int32_t ox = 0; ox < p->out_w; ox++) {
            const int32_t left = ox * p->stride_w - p->pad_left;
            const int32_t kx_from = cl_from(left, p->dilation_w);
            const int32_t kx_to = cl_to(left, p->dilation_w, p->in_w, p->kernel_w);
            const int32_t places = kx_to > kx_from ? kx_to - kx_from : 0;
            const int32_t runs = whole_rows ? 1 : places;
            const int32_t length = whole_rows ? places * depth : depth;
            for (int32_t o = 0; o < p->out_c; o++) {
                const int32_t first = o / per_group * depth;
                cl_sum sum = cl_start(p->bias, o, p->bias_bits, p->sum_bits);
                for (int32_t ky = ky_from; ky < ky_to; ky++) {
                    const int16_t *row = x + (top + ky * p->dilation_h) * p->in_w * p->in_c + first;
                    const cl_taps taps = cl_skip(weights, (o * p->kernel_h + ky) * p->kernel_w * depth);
                    for (int32_t run = 0; run < runs; run++) {
                        const int32_t kx = kx_from + run;
                        const int16_t *source = row + (left + kx * p->dilation_w) * p->in_c;
                        const cl_taps tap = cl_skip(taps, kx * depth);
                        for (int32_t i = 0; i < length; i++) {
                            sum = cl_add(sum, source[i] * cl_tap(tap, i));
                        }
                    }
                }
                const int32_t code = cl_scale_wide(cl_total(sum), p->rescale, o * p->per_channel, p->rule);
                *y++ = (int16_t)cl_clamp(code, p->low, p->high);
            }
        }
    }
}
