/* Fixed-point arithmetic to the bit. CL_RULE_FLOAT and CL_DENSE_SINGLE are set by model.c. */
#ifndef CL_ARITHMETIC_H
#define CL_ARITHMETIC_H

#include <stdint.h>

#ifndef CL_RULE_FLOAT
#define CL_RULE_FLOAT 0
#endif
#ifndef CL_DENSE_SINGLE
#define CL_DENSE_SINGLE 0
#endif

/* A kernel is inlined where it is called, so that the compiler sees the constants of the call; each call is a function. */
#if defined(__GNUC__) || defined(__clang__)
#define CL_KERNEL static inline __attribute__((always_inline))
#define CL_NODE static __attribute__((noinline))
#else
#define CL_KERNEL static inline
#define CL_NODE static
#endif

/* A positive real factor: a float, or a Q31 mantissa and a power of two (positive shifts left).
   Dense layers that round once have a double. */
#if CL_RULE_FLOAT
typedef struct {
    float factor;
} cl_rescale;
#else
typedef struct {
    int32_t mult;
    int32_t shift;
} cl_rescale;
#endif
#if CL_DENSE_SINGLE
typedef struct {
    double factor;
} cl_rescale_dense;
#else
typedef cl_rescale cl_rescale_dense;
#endif

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

#if CL_RULE_FLOAT
/* acc times factor in float, nearest even. */
static inline int32_t cl_scale(int32_t acc, cl_rescale r)
{
    return cl_round_even((float)acc * r.factor);
}
#else
/* acc times factor, rounded at 2^-31 and again after the shift. */
static inline int32_t cl_scale(int32_t acc, cl_rescale r)
{
    const int32_t left = r.shift > 0 ? r.shift : 0;
    const int32_t right = r.shift > 0 ? 0 : -r.shift;
    return cl_divide(cl_high(cl_left(acc, left), r.mult), right);
}
#endif

#if CL_DENSE_SINGLE
/* acc times factor in double, halves away from zero. */
static inline int32_t cl_scale_dense(int32_t acc, cl_rescale_dense r)
{
    const double scaled = (double)acc * r.factor;
    const double bounded = scaled < -1e6 ? -1e6 : (scaled > 1e6 ? 1e6 : scaled);
    const int32_t whole = (int32_t)bounded;
    const double rest = bounded - (double)whole;
    return whole + (rest >= 0.5 ? 1 : 0) - (rest <= -0.5 ? 1 : 0);
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
