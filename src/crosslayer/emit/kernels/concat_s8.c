/* y = `outer` times: runs[0] bytes of x[0], runs[1] bytes of x[1], ...
   No x overlaps y. */
#include "arithmetic.h"

struct concat_s8 {
    int32_t outer, parts;
    const int32_t *runs;
};

CL_KERNEL void concat_s8(const struct concat_s8 *p, const int8_t *const *x, int8_t *y)
{
    for (int32_t i = 0; i < p->outer; i++) {
        for (int32_t part = 0; part < p->parts; part++) {
            const int8_t *source = x[part] + i * p->runs[part];
            for (int32_t j = 0; j < p->runs[part]; j++) {
                *y++ = source[j];
            }
        }
    }
}
