/* depthwise_s8 for int8 weights, one output for each of at least four channels: four channels at a time. */
#ifndef CL_DEPTHWISE_QUAD_H
#define CL_DEPTHWISE_QUAD_H

#include "requant.h"

typedef struct {
    int32_t bias[4];
    cl_requant requant[4];
} cl_quad;

struct depthwise_quad {
    int32_t in_w, channels, out_w, kernel_h, kernel_w, stride_w, dilation_w, pad_left;
    int32_t zero_out;
    const int8_t *padding;  /* a row of zeros of x */
    const int16_t *weight;  /* (quads, taps, 4): channels 0, 2, 1, 3; the last quad is that of the last four channels */
    const cl_quad *records; /* with the zeros of x in the biases */
};

void cl_depthwise_quad(const void *constants, const void *const *rows, void *y, void *scratch, int32_t row);

#endif
