/* y = clamp(scale(W (x - zero_in) + b) + zero_out).
   x (size_in), weight of `bits` bits (size_out, size_in), y (size_out), not overlapping x. */
#include "arithmetic.h"

struct dense_s8 {
    int32_t size_in, size_out, zero_in, zero_out, low, high, per_channel, bits;
    const void *weight;
    const int32_t *bias;
    const cl_rescale_dense *rescale;
};

CL_KERNEL void dense_s8(const struct dense_s8 *p, const int8_t *x, int8_t *y)
{
    cl_taps taps = {p->weight, 0, p->bits};
    for (int32_t o = 0; o < p->size_out; o++) {
        int32_t acc = p->bias[o];
        for (int32_t i = 0; i < p->size_in; i++) {
            acc += (x[i] - p->zero_in) * cl_tap(taps, 0);
            taps = cl_skip(taps, 1);
        }
        const int32_t code = cl_scale_dense(acc, p->rescale[o * p->per_channel]) + p->zero_out;
        y[o] = (int8_t)cl_clamp(code, p->low, p->high);
    }
}
