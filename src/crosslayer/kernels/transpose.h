/* y = x with its axes in another order: `count` runs of `run` bytes, which lie `steps` bytes apart in x along each of
   the `rank` outer sides of y. x and y do not overlap. */
#include "arithmetic.h"

struct transpose {
    int32_t count, run, rank;
    const int32_t *sides, *steps;
};

CL_KERNEL void transpose(const struct transpose *p, const void *x, void *y)
{
    const uint8_t *source = x;
    uint8_t *result = y;
    int32_t at[8] = {0};
    int32_t from = 0;
    for (int32_t i = 0; i < p->count; i++) {
        for (int32_t j = 0; j < p->run; j++) {
            *result++ = source[from + j];
        }
        for (int32_t axis = p->rank - 1; axis >= 0; axis--) {
            from += p->steps[axis];
            if (++at[axis] < p->sides[axis]) {
                break;
            }
            from -= p->steps[axis] * p->sides[axis];
            at[axis] = 0;
        }
    }
}
