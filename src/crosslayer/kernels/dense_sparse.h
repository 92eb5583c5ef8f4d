/* dense_s8 for int8 weights that are mostly zero (sparse.h). */
#ifndef CL_DENSE_SPARSE_H
#define CL_DENSE_SPARSE_H

#include "requant.h"

struct dense_sparse {
    int32_t words, size_out; /* masks of a row */
    int32_t zero_out, per_channel;
    int32_t filled, walked, codes; /* masks that are not 0, bits up to the last in each, weights: only to be counted */
    const uint32_t *mask;          /* (size_out, words) */
    const uint16_t *stored;        /* (size_out): how many weights of each row */
    const int8_t *weight;
    const int32_t *bias;       /* (size_out), with the zero of x */
    const cl_requant *requant; /* one, or (size_out) */
};

void cl_dense_sparse(const void *constants, const void *const *rows, void *y, void *scratch, int32_t row);

#endif
