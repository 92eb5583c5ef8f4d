/* y[c m + j] = clamp(scale(b + sum (x[c] - zero_in) w[c m + j]) + zero_out), channel by channel.
   x (in_h, in_w, in_c), weight of `bits` bits (kernel_h, kernel_w, out_c), y (out_h, out_w, out_c), not overlapping x. */
#include "arithmetic.h"

struct depthwise_s8 {
    int32_t in_h, in_w, in_c, out_h, out_w, out_c;
    int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left, multiplier;
    int32_t zero_in, zero_out, low, high, per_channel, bits;
    const void *weight;
    const int32_t *bias;
    const cl_rescale *rescale;
};

CL_KERNEL void depthwise_s8(const struct depthwise_s8 *p, const int8_t *x, int8_t *y)
{
    const cl_taps weights = {p->weight, 0, p->bits};
    for (int32_t oy = 0; oy < p->out_h; oy++) {
        const int32_t top = oy * p->stride_h - p->pad_top;
        const int32_t ky_from = cl_from(top, p->dilation_h);
        const int32_t ky_to = cl_to(top, p->dilation_h, p->in_h, p->kernel_h);
        for (int32_t ox = 0; ox < p->out_w; ox++) {
            const int32_t left = ox * p->stride_w - p->pad_left;
            const int32_t kx_from = cl_from(left, p->dilation_w);
            const int32_t kx_to = cl_to(left, p->dilation_w, p->in_w, p->kernel_w);
            for (int32_t o = 0; o < p->out_c; o++) {
                const int8_t *channel = x + o / p->multiplier;
                int32_t acc = p->bias[o];
                for (int32_t ky = ky_from; ky < ky_to; ky++) {
                    const int32_t row = (top + ky * p->dilation_h) * p->in_w;
                    for (int32_t kx = kx_from; kx < kx_to; kx++) {
                        const int32_t pixel = row + left + kx * p->dilation_w;
                        const int32_t tap = cl_tap(weights, (ky * p->kernel_w + kx) * p->out_c + o);
                        acc += (channel[pixel * p->in_c] - p->zero_in) * tap;
                    }
                }
                const int32_t code = cl_scale(acc, p->rescale[o * p->per_channel]) + p->zero_out;
                *y++ = (int8_t)cl_clamp(code, p->low, p->high);
            }
        }
    }
}
