#ifndef DENSE_H
#define DENSE_H

#include <stdint.h>

static void dense_s8(const int8_t *x, int8_t *y, const int8_t *w, int n_in, int n_out, int32_t multiplier) {
    for (int o = 0; o < n_out; o++) {
        int32_t sum = 0;
        for (int i = 0; i < n_in; i++) {
            sum += x[i] * w[o * n_in + i];
        }
        const int64_t scaled = ((int64_t)sum * multiplier + ((int64_t)1 << 36)) >> 37;
        const int64_t low = scaled < -128 ? -128 : scaled;
        y[o] = (int8_t)(low > 127 ? 127 : low);
    }
}

#endif
