/* max_pool or average_pool of int8 codes, four channels at a time. */
#ifndef CL_POOL_QUAD_H
#define CL_POOL_QUAD_H

#include "requant.h"

struct pool_quad {
    int32_t in_w, channels, out_w, kernel_h, kernel_w, stride_w, dilation_w, pad_left;
    int32_t largest; /* or the mean */
    int32_t whole;   /* the only row of results: x[0] is all of the input */
};

void cl_pool_quad(const void *constants, const void *const *rows, void *y, void *scratch, int32_t row);

#endif
