/* y = softmax of each row, scale 1/256, zero -128, from a table of powers in float. In fixed point softmax_table.c runs.
   x, y (rows, depth); y may be x. */
#include "arithmetic.h"

#if CL_RULE_FLOAT
struct softmax_s8 {
    int32_t rows, depth;
    const float *powers; /* e^(-scale d) for d = 0 ... 255 */
};

CL_KERNEL void softmax_s8(const struct softmax_s8 *p, const int8_t *x, int8_t *y)
{
    for (int32_t row = 0; row < p->rows; row++, x += p->depth, y += p->depth) {
        int32_t peak = x[0];
        for (int32_t i = 1; i < p->depth; i++) {
            peak = x[i] > peak ? x[i] : peak;
        }
        float total = 0.0F;
        for (int32_t i = 0; i < p->depth; i++) {
            total += p->powers[peak - x[i]];
        }
        const float factor = 1.0F / (total * (1.0F / 256.0F));
        for (int32_t i = 0; i < p->depth; i++) {
            const int32_t share = cl_round_away(p->powers[peak - x[i]] * factor);
            y[i] = (int8_t)cl_clamp(share - 128, INT8_MIN, INT8_MAX);
        }
    }
}
#endif
