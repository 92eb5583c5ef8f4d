/* dense_s8 for int8 weights and at least four outputs: four outputs at a time. */
#ifndef CL_DENSE_QUAD_H
#define CL_DENSE_QUAD_H

#include "requant.h"

struct dense_quad {
    int32_t blocks, size_out; /* blocks of four inputs */
    int32_t zero_out, per_channel;
    const int8_t *weight;      /* (quads, blocks, 4, 4), inputs last; the last quad is that of the last four outputs */
    const int32_t *bias;       /* (quads, 4), with the zero of x */
    const cl_requant *requant; /* one, or (quads, 4) */
};

void cl_dense_quad(const void *constants, const void *const *rows, void *y, void *scratch, int32_t row);

#endif
