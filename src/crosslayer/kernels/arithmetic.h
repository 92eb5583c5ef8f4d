/* Fixed-point arithmetic to the bit. */
#ifndef CL_ARITHMETIC_H
#define CL_ARITHMETIC_H

#include "rules.h"

#include <stdint.h>

/* A kernel is inlined where it is called, so that the compiler sees the constants of the call. */
#if defined(__GNUC__) || defined(__clang__)
#define CL_KERNEL static inline __attribute__((always_inline))
#define CL_APART __attribute__((noinline))
#define CL_WORDS __attribute__((aligned(4))) /* a table that a unit reads by the word */
#else
#define CL_KERNEL static inline
#define CL_APART
#define CL_WORDS
#endif

/* Before a loop that is too seldom to be worth unrolled code. */
#if defined(__clang__)
#define CL_ROLLED _Pragma("nounroll")
#else
#define CL_ROLLED
#endif

/* A positive real factor: a float, a double, or a mantissa (Q31, or Q15) and a power of two (positive shifts left). */
typedef struct {
    float factor;
} cl_float;
typedef struct {
    double factor;
} cl_double;
typedef struct {
    int32_t mult;
    int32_t shift;
} cl_fixed;

/* That of int8 codes. Dense layers that round once have a double. */
#if CL_RULE_FLOAT
typedef cl_float cl_rescale;
#else
typedef cl_fixed cl_rescale;
#endif
#if CL_DENSE_SINGLE
typedef cl_double cl_rescale_dense;
#else
typedef cl_rescale cl_rescale_dense;
#endif

/* How sums of int16 codes are rescaled. */
enum { CL_DOUBLE, CL_SINGLE, CL_FLOAT, CL_REDUCED };

/* v << n without undefined behaviour for negative v; wraps like int32. */
static inline int32_t cl_left(int32_t v, int32_t n)
{
    return (int32_t)((uint32_t)v << n);
}

/* Rounding doubling high product: (a b + 2^30) >> 31, saturated. */
static inline int32_t cl_high(int32_t a, int32_t b)
{
    if (a == INT32_MIN && b == INT32_MIN) {
        return INT32_MAX;
    }
    return (int32_t)(((int64_t)a * b + ((int64_t)1 << 30)) >> 31);
}

/* v / 2^n, halves away from zero. */
static inline int32_t cl_divide(int32_t v, int32_t n)
{
    const int32_t mask = (int32_t)((1U << n) - 1U);
    const int32_t rest = v & mask;
    const int32_t threshold = (mask >> 1) + (v < 0 ? 1 : 0);
    return (v >> n) + (rest > threshold ? 1 : 0);
}

static inline int32_t cl_clamp(int32_t v, int32_t low, int32_t high)
{
    return v < low ? low : (v > high ? high : v);
}

/* A place in a table of weights of `bits` bits: int8, int16, or fewer than 8 bits each in a little-endian stream. */
typedef struct {
    const void *table;
    int32_t first, bits;
} cl_taps;

static inline cl_taps cl_skip(cl_taps taps, int32_t n)
{
    if (taps.bits < 8) {
        taps.first += n;
    } else if (taps.bits == 8) {
        taps.table = (const int8_t *)taps.table + n;
    } else {
        taps.table = (const int16_t *)taps.table + n;
    }
    return taps;
}

/* The i-th weight from a place on; in 1 bit -1 or +1. `bits` is a constant of the call: one branch is left. */
static inline int32_t cl_tap(cl_taps taps, int32_t i)
{
    if (taps.bits == 8) {
        return ((const int8_t *)taps.table)[i];
    }
    if (taps.bits > 8) {
        return ((const int16_t *)taps.table)[i];
    }
    const uint32_t at = (uint32_t)(taps.first + i) * (uint32_t)taps.bits;
    const uint8_t *byte = (const uint8_t *)taps.table + (at >> 3);
    uint32_t code = byte[0];
    if (8 % taps.bits != 0) { /* else no code lies across two bytes */
        code |= (uint32_t)byte[1] << 8;
    }
    code >>= at & 7U;
    return taps.bits == 1 ? (int32_t)(code & 1U) * 2 - 1 : (int32_t)(code << (32 - taps.bits)) >> (32 - taps.bits);
}

/* A sum of products of 32 bits each, kept in 32 bits where it fits; `bits` is a constant of the call. */
typedef struct {
    int64_t wide;
    int32_t narrow, bits;
} cl_sum;

static inline cl_sum cl_start(const void *bias, int32_t i, int32_t bias_bits, int32_t bits)
{
    const int64_t first = bias_bits == 64 ? ((const int64_t *)bias)[i] : ((const int32_t *)bias)[i];
    const cl_sum sum = {bits == 64 ? first : 0, bits == 64 ? 0 : (int32_t)first, bits};
    return sum;
}

static inline cl_sum cl_add(cl_sum sum, int32_t product)
{
    if (sum.bits == 64) {
        sum.wide += product;
    } else {
        sum.narrow += product;
    }
    return sum;
}

static inline int64_t cl_total(cl_sum sum)
{
    return sum.bits == 64 ? sum.wide : sum.narrow;
}

/* Code i of an array of int16 codes if `wide`, else of int8 codes; `wide` is a constant of the call. */
static inline int32_t cl_code(const void *codes, int32_t i, int32_t wide)
{
    return wide ? ((const int16_t *)codes)[i] : ((const int8_t *)codes)[i];
}

/* Writes a code; returns the place after it. */
static inline void *cl_put(void *codes, int32_t wide, int32_t code)
{
    if (wide) {
        int16_t *place = codes;
        *place = (int16_t)code;
        return place + 1;
    }
    int8_t *place = codes;
    *place = (int8_t)code;
    return place + 1;
}

/* total / count, halves away from zero. */
static inline int32_t cl_mean(int32_t total, int32_t count)
{
    return total > 0 ? (total + count / 2) / count : (total - count / 2) / count;
}

/* The nearest integer, halves away from zero, saturated far beyond any code; the lowest for what is not a number. */
static inline int32_t cl_round_away(float v)
{
    const float bounded = v > -1e6F ? (v > 1e6F ? 1e6F : v) : -1e6F;
    const int32_t whole = (int32_t)bounded;
    const float rest = bounded - (float)whole;
    return whole + (rest >= 0.5F ? 1 : 0) - (rest <= -0.5F ? 1 : 0);
}

/* The nearest integer, halves to even, saturated far beyond any code. */
static inline int32_t cl_round_even(float v)
{
    const float bounded = v < -1e6F ? -1e6F : (v > 1e6F ? 1e6F : v);
    const int32_t whole = (int32_t)bounded;
    const float rest = bounded - (float)whole;
    const int32_t odd = whole & 1;
    const int32_t up = rest > 0.5F || (rest == 0.5F && odd != 0);
    const int32_t down = rest < -0.5F || (rest == -0.5F && odd != 0);
    return whole + up - down;
}

/* acc times factor, rounded at 2^-31 and again after the shift. */
static inline int32_t cl_scale_fixed(int32_t acc, cl_fixed r)
{
    const int32_t left = r.shift > 0 ? r.shift : 0;
    const int32_t right = r.shift > 0 ? 0 : -r.shift;
    return cl_divide(cl_high(cl_left(acc, left), r.mult), right);
}

#if CL_RULE_FLOAT
/* acc times factor in float, nearest even. */
static inline int32_t cl_scale(int32_t acc, cl_rescale r)
{
    return cl_round_even((float)acc * r.factor);
}
#else
static inline int32_t cl_scale(int32_t acc, cl_rescale r)
{
    return cl_scale_fixed(acc, r);
}
#endif

/* The nearest integer, halves away from zero, saturated far beyond any code. */
static inline int32_t cl_round_double(double v)
{
    const double bounded = v < -1e6 ? -1e6 : (v > 1e6 ? 1e6 : v);
    const int32_t whole = (int32_t)bounded;
    const double rest = bounded - (double)whole;
    return whole + (rest >= 0.5 ? 1 : 0) - (rest <= -0.5 ? 1 : 0);
}

/* acc times factor, a Q15 mantissa, halves up, saturated; |acc| < 2^47. */
static inline int32_t cl_scale_reduced(int64_t acc, cl_fixed r)
{
    const int64_t code = (acc * r.mult + ((int64_t)1 << (14 - r.shift))) >> (15 - r.shift);
    return code < INT32_MIN ? INT32_MIN : (code > INT32_MAX ? INT32_MAX : (int32_t)code);
}

/* acc times the i-th factor of a table, by a rule that is a constant of the call; it has 32 bits under CL_DOUBLE. */
static inline int32_t cl_scale_wide(int64_t acc, const void *factors, int32_t i, int32_t rule)
{
    if (rule == CL_REDUCED) {
        return cl_scale_reduced(acc, ((const cl_fixed *)factors)[i]);
    }
    if (rule == CL_SINGLE) {
        return cl_round_double((double)acc * ((const cl_double *)factors)[i].factor);
    }
    return cl_scale_fixed((int32_t)acc, ((const cl_fixed *)factors)[i]);
}

#if CL_DENSE_SINGLE
static inline int32_t cl_scale_dense(int32_t acc, cl_rescale_dense r)
{
    return cl_round_double((double)acc * r.factor);
}
#else
static inline int32_t cl_scale_dense(int32_t acc, cl_rescale_dense r)
{
    return cl_scale(acc, r);
}
#endif

/* The kernel places [from, to) of a window that starts at `start` and lie inside [0, size). */
static inline int32_t cl_from(int32_t start, int32_t dilation)
{
    return start < 0 ? (dilation - 1 - start) / dilation : 0;
}

static inline int32_t cl_to(int32_t start, int32_t dilation, int32_t size, int32_t kernel)
{
    const int32_t inside = start < size ? (size - start + dilation - 1) / dilation : 0;
    return inside < kernel ? inside : kernel;
}

#endif
