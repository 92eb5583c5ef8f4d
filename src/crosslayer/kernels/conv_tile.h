/* conv2d_s8 for int8 weights without groups, two places and two channels at a time. */
#ifndef CL_CONV_TILE_H
#define CL_CONV_TILE_H

#include "tile.h"

struct conv_tile {
    int32_t in_w, in_c, out_w, out_c, kernel_h, kernel_w, stride_w, dilation_w, pad_left;
    int32_t blocks; /* of four codes in a patch */
    int32_t zero_out;
    const int8_t *padding;  /* zeros of x, one for each channel */
    const int8_t *weight;   /* (pairs, blocks, 2, 4); the last pair is that of the last two channels */
    const cl_pair *records; /* with the zeros of x in the biases */
};

void cl_conv_tile(const void *constants, const void *const *rows, void *y, void *scratch, int32_t row);

#endif
