#include "softmax_table.h"

/* (a b + 2^30) >> 31 for values other than -2^31. */
static inline int32_t high(int32_t a, int32_t b)
{
    return (int32_t)(((int64_t)a * b + ((int64_t)1 << 30)) >> 31);
}

/* 1 / (1 + v) for v in [0, 1), Q0.31, by three Newton steps in Q2.29. */
static int32_t reciprocal(int32_t v)
{
    const int32_t half = (int32_t)(((int64_t)v + INT32_MAX + 1) >> 1);
    int32_t x = 1515870810 + high(half, -1010580540);
    for (int32_t i = 0; i < 3; i++) {
        const int32_t missing = (1 << 29) - high(half, x);
        x += cl_left(high(x, missing), 2);
    }
    const int32_t over = (1 << 30) - 1 - x; /* below 0, the result is INT32_MAX */
    return 2 * (x + cl_masked(over, over >> 31)) - (over >> 31);
}

/* Of a value other than 0. */
static int32_t leading_zeros(uint32_t v)
{
#if defined(__ARM_FEATURE_CLZ)
    return __builtin_clz(v);
#else
    int32_t zeros = 0;
    for (int32_t step = 16; step > 0; step >>= 1) {
        const int32_t empty = (int32_t)((v >> (32 - step)) - 1U) >> 31; /* all ones if the upper bits are 0 */
        const int32_t moved = cl_masked(step, empty);
        zeros += moved;
        v <<= moved;
    }
    return zeros;
#endif
}

void cl_softmax_table(const void *constants, const void *const *rows, void *y, void *scratch, int32_t row)
{
    const struct softmax_table *p = constants;
    const int8_t *x = rows[0];
    int8_t *share = y;
    (void)scratch;
    (void)row;
    for (int32_t r = 0; r < p->rows; r++, x += p->depth, share += p->depth) {
        int32_t peak = x[0];
        uint32_t total = 0;
        for (int32_t i = 1; i < p->depth; i++) {
            peak = cl_larger(x[i], peak);
        }
        for (int32_t i = 0; i < p->depth; i++) {
            const int32_t apart = peak - x[i];
            const int32_t power = p->powers[cl_smaller(apart, p->last)];
            total += ((uint32_t)power + (1U << 11)) >> 12; /* no power is negative: halves go up */
        }
        const int32_t headroom = leading_zeros(total);
        const int32_t factor = reciprocal((int32_t)((total << headroom) - 0x80000000U));
        const int32_t less = cl_smaller(12 - headroom + 31 - 8 - 1, 31); /* one bit is left to round; at least 22 */
        for (int32_t i = 0; i < p->depth; i++) {
            const int32_t apart = peak - x[i];
            const int32_t power = p->powers[cl_smaller(apart, p->last)];
            share[i] = (int8_t)cl_saturate((((high(factor, power) >> less) + 1) >> 1) - 128);
        }
    }
}
