/* y = table[x + 128].
   x, y (count); y may be x. */
#include "arithmetic.h"

struct lookup_s8 {
    int32_t count;
    const int8_t *table;
};

CL_KERNEL void lookup_s8(const struct lookup_s8 *p, const int8_t *x, int8_t *y)
{
    for (int32_t i = 0; i < p->count; i++) {
        y[i] = p->table[x[i] + 128];
    }
}
