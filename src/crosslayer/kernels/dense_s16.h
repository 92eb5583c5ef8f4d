/* y = clamp(scale(W x + b)); int16 codes with zero 0.
   x (size_in), weight of `bits` bits (size_out, size_in), y (size_out), not overlapping x. */
#include "arithmetic.h"

struct dense_s16 {
    int32_t size_in, size_out, rule, sum_bits, bias_bits, zero_in, zero_out, low, high, per_channel, bits;
    const void *weight, *bias, *rescale;
};

CL_KERNEL void dense_s16(const struct dense_s16 *p, const int16_t *x, int16_t *y)
{
    cl_taps taps = {p->weight, 0, p->bits};
    for (int32_t o = 0; o < p->size_out; o++) {
        cl_sum sum = cl_start(p->bias, o, p->bias_bits, p->sum_bits);
        for (int32_t i = 0; i < p->size_in; i++) {
            sum = cl_add(sum, x[i] * cl_tap(taps, 0));
            taps = cl_skip(taps, 1);
        }
        const int32_t code = cl_scale_wide(cl_total(sum), p->rescale, o * p->per_channel, p->rule);
        y[o] = (int16_t)cl_clamp(code, p->low, p->high);
    }
}
