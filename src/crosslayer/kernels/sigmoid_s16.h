/* y = sigmoid(x) or tanh(x) = 2 sigmoid(2 x) - 1, scale 1/32768, linear between the entries of a table; int16 codes.
   x, y (count); y may be x. */
#include "arithmetic.h"

struct sigmoid_s16 {
    int32_t count, tanh, mult, shift;
    const uint16_t *table; /* sigmoid(i / 24) in Q16 for i = 0 ... 255 */
};

CL_KERNEL void sigmoid_s16(const struct sigmoid_s16 *p, const int16_t *x, int16_t *y)
{
    const int32_t bits = p->tanh ? 8 : 9; /* of the distance from one entry to the next */
    const int64_t half = ((int64_t)1 << p->shift) >> 1;
    for (int32_t i = 0; i < p->count; i++) {
        const int32_t steps = (int32_t)(((int64_t)x[i] * p->mult + half) >> p->shift);
        const uint32_t size = steps < 0 ? 0U - (uint32_t)steps : (uint32_t)steps;
        const uint32_t place = size >> bits;
        uint32_t value = p->tanh ? 0xFFFFU << 8 : 0x7FFFU << 10;
        if (place < 255U) {
            const uint32_t first = p->table[place];
            value = (first << bits) + (size & ((1U << bits) - 1U)) * (p->table[place + 1U] - first);
        }
        if (p->tanh) {
            const int32_t share = (int32_t)value - (1 << 23);
            y[i] = (int16_t)((steps < 0 ? 127 - share : share + 128) >> 8);
        } else {
            y[i] = (int16_t)((steps < 0 ? (1U << 25) - value + 511U : value + 512U) >> 10);
        }
    }
}
