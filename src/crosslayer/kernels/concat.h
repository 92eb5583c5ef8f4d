/* y = `outer` times: runs[0] bytes of x[0], runs[1] bytes of x[1], ...
   No x overlaps y. */
#include "arithmetic.h"

struct concat {
    int32_t outer, parts;
    const int32_t *runs;
};

CL_KERNEL void concat(const struct concat *p, const void *const *x, void *y)
{
    int8_t *to = y;
    for (int32_t i = 0; i < p->outer; i++) {
        for (int32_t part = 0; part < p->parts; part++) {
            const int8_t *source = (const int8_t *)x[part] + i * p->runs[part];
            for (int32_t j = 0; j < p->runs[part]; j++) {
                *to++ = source[j];
            }
        }
    }
}
