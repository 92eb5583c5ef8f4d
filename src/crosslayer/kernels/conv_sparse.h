/* conv2d_s8 for int8 weights that are mostly zero (sparse.h), without groups, four places at a time. */
#ifndef CL_CONV_SPARSE_H
#define CL_CONV_SPARSE_H

#include "requant.h"

struct conv_sparse {
    int32_t in_w, in_c, out_w, out_c, kernel_h, kernel_w, stride_w, dilation_w, pad_left;
    int32_t zero_out, per_channel;
    int32_t words;                 /* masks of a row */
    int32_t filled, walked, codes; /* masks that are not 0, bits up to the last in each, weights: only to be counted */
    const int8_t *padding;         /* zeros of x, one for each channel */
    const uint32_t *mask;          /* (out_c, words) */
    const uint16_t *stored;        /* (out_c): how many weights of each row */
    const int8_t *weight;
    const int32_t *bias;       /* (out_c), with the zero of x */
    const cl_requant *requant; /* one, or (out_c) */
};

void cl_conv_sparse(const void *constants, const void *const *rows, void *y, void *scratch, int32_t row);

#endif
