#ifndef DENSE_H
#define DENSE_H

/* y = clamp(round(W x * multiplier / 2^37)). W is row-major (n_out, n_in). x and y do not overlap. */
static void dense_s8(const int8_t *x, int8_t *y, const int8_t *w, int n_in, int n_out, int32_t multiplier);

#endif
