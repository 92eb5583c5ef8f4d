/* y = softmax of each row, scale 1/256, zero -128: in fixed point (gemmlowp exponential), or from a table of powers.
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
#else
struct softmax_s8 {
    int32_t rows, depth, mult, shift, diff_min;
};

/* e^v for v in [-1/4, 0), v in Q5.26 scaled to Q0.31. */
static inline int32_t softmax_exp_quarter(int32_t v)
{
    const int32_t x = v + (1 << 28);
    const int32_t x2 = cl_high(x, x);
    const int32_t x3 = cl_high(x2, x);
    const int32_t x4 = cl_divide(cl_high(x2, x2), 2);
    const int32_t tail = cl_divide(cl_high(x4 + x3, 715827883) + x2, 1);
    return 1895147668 + cl_high(1895147668, x + tail);
}

/* e^v for v <= 0 in Q5.26; the result is Q0.31. */
static inline int32_t softmax_exp(int32_t v)
{
    static const int32_t factors[7] = {1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242};
    if (v == 0) {
        return INT32_MAX;
    }
    const int32_t remainder = (v & ((1 << 24) - 1)) - (1 << 24);
    const int32_t beyond = remainder - v;
    int32_t result = softmax_exp_quarter(cl_left(remainder, 5));
    for (int32_t i = 0; i < 7; i++) {
        if ((beyond & (1 << (24 + i))) != 0) {
            result = cl_high(result, factors[i]);
        }
    }
    return result;
}

/* 1 / (1 + v) for v in [0, 1), Q0.31, by three Newton steps in Q2.29. */
static inline int32_t softmax_reciprocal(int32_t v)
{
    const int32_t half = (int32_t)(((int64_t)v + INT32_MAX + 1) >> 1);
    int32_t x = 1515870810 + cl_high(half, -1010580540);
    for (int32_t i = 0; i < 3; i++) {
        const int32_t missing = (1 << 29) - cl_high(half, x);
        x += cl_left(cl_high(x, missing), 2);
    }
    return x >= (1 << 30) ? INT32_MAX : cl_left(x, 1);
}

CL_KERNEL void softmax_s8(const struct softmax_s8 *p, const int8_t *x, int8_t *y)
{
    for (int32_t row = 0; row < p->rows; row++, x += p->depth, y += p->depth) {
        int32_t peak = x[0];
        for (int32_t i = 1; i < p->depth; i++) {
            peak = x[i] > peak ? x[i] : peak;
        }
        int32_t total = 0;
        for (int32_t i = 0; i < p->depth; i++) {
            const int32_t diff = x[i] - peak;
            if (diff >= p->diff_min) {
                total += cl_divide(softmax_exp(cl_high(cl_left(diff, p->shift), p->mult)), 12);
            }
        }
        int32_t headroom = 0;
        while (((uint32_t)total << headroom) < 0x80000000U) {
            headroom++;
        }
        const int32_t exponent = 12 - headroom + 31 - 8; /* beyond 31 the share is below half a code */
        const int32_t share = softmax_reciprocal((int32_t)(((uint32_t)total << headroom) - 0x80000000U));
        for (int32_t i = 0; i < p->depth; i++) {
            const int32_t diff = x[i] - peak;
            int32_t code = INT8_MIN;
            if (diff >= p->diff_min && exponent <= 31) {
                const int32_t power = softmax_exp(cl_high(cl_left(diff, p->shift), p->mult));
                code = cl_divide(cl_high(share, power), exponent) - 128;
            }
            y[i] = (int8_t)cl_clamp(code, INT8_MIN, INT8_MAX);
        }
    }
}
#endif
