/* y = softmax of each row, scale 1/32768, from two tables, linear between their entries; int16 codes.
   x, y (rows, depth); y may be x. */
#include "arithmetic.h"

struct softmax_s16 {
    int32_t rows, depth;
    const cl_fixed *rescale;              /* of differences, to 65535 steps from -10 to 0 */
    const int16_t *powers, *reciprocals; /* e^v for v = -10 ... 0, 1 / (1 + v) for v = 0 ... 1, in Q15 */
};

/* The value of a table of 513 at an int16 code. */
static inline int32_t softmax_look_up(const int16_t *table, int32_t code)
{
    const int32_t bounded = cl_clamp(code, INT16_MIN, INT16_MAX);
    const int16_t *place = table + 256 + (bounded >> 7);
    return place[0] + (((place[1] - place[0]) * (bounded & 127) + 64) >> 7);
}

CL_KERNEL void softmax_s16(const struct softmax_s16 *p, const int16_t *x, int16_t *y)
{
    for (int32_t row = 0; row < p->rows; row++, x += p->depth, y += p->depth) {
        int32_t peak = x[0];
        for (int32_t i = 1; i < p->depth; i++) {
            peak = x[i] > peak ? x[i] : peak;
        }
        int32_t total = 0;
        for (int32_t i = 0; i < p->depth; i++) {
            const int32_t power = softmax_look_up(p->powers, cl_scale_fixed(x[i] - peak, p->rescale[0]) + 32767);
            y[i] = (int16_t)power;
            total += power;
        }
        int32_t headroom = 0;
        while (((uint32_t)total << headroom) < 0x40000000U) {
            headroom++;
        }
        const int32_t place = ((((total << headroom) - 0x40000000) + (1 << 13)) >> 14) - (1 << 15);
        const int32_t share = softmax_look_up(p->reciprocals, place);
        for (int32_t i = 0; i < p->depth; i++) {
            const int64_t product = (int64_t)y[i] * share + ((int64_t)1 << (29 - headroom));
            y[i] = (int16_t)cl_clamp((int32_t)(product >> (30 - headroom)), 0, INT16_MAX);
        }
    }
}
