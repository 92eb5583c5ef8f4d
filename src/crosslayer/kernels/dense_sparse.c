#include "dense_sparse.h"

#include "sparse.h"

void cl_dense_sparse(const void *constants, const void *const *rows, void *y, void *scratch, int32_t row)
{
    const struct dense_sparse *p = constants;
    const uint32_t *mask = p->mask;
    const int8_t *weight = p->weight;
    const cl_requant *requant = p->requant;
    const int32_t next = p->per_channel != 0;
    int8_t *code = y;
    (void)scratch;
    (void)row;
    CL_ROLLED
    for (int32_t o = 0; o < p->size_out; o++) {
        const int32_t sum = cl_sparse_one(mask, p->words, weight, rows[0], 1, p->bias[o]);
        code[o] = cl_requantize(sum, requant, p->zero_out);
        mask += p->words;
        weight += p->stored[o];
        requant += next;
    }
}
