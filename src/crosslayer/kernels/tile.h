/* Products of two patches with packed weights, in int32: the inner part of convolutions.

   A patch is int16 codes in blocks of four, each as two pairs (codes 0 and 2, codes 1 and 3); the blocks of two patches
   alternate. Weights are int8 in blocks of four for two channels in turn. A record of two channels follows the weights'
   order: biases, then the factors of each. */
#ifndef CL_TILE_H
#define CL_TILE_H

#include "requant.h"

typedef struct {
    int32_t bias[2];
    cl_requant requant[2];
} cl_pair;

#if CL_MVE
/* Here a patch is `count` codes in order, whatever lies behind.
   y[o] and y[o + step] for `pairs` pairs of channels o from two patches. */
void cl_tile_two(const int8_t *first, const int8_t *second, int32_t count, const int8_t *weight, const cl_pair *records,
                 int32_t pairs, int8_t *y, int32_t step, int32_t zero_out);

/* y[o] for `pairs` pairs of channels o from one patch. */
void cl_tile_one(const int8_t *patch, int32_t count, const int8_t *weight, const cl_pair *records, int32_t pairs,
                 int8_t *y, int32_t zero_out);
#else
/* y[o] and y[o + step] for `pairs` pairs of channels o from two patches. */
void cl_tile_two(const int16_t *x, const int8_t *weight, const cl_pair *records, int32_t pairs, int32_t blocks, int8_t *y,
                 int32_t step, int32_t zero_out);

/* y[o] for `pairs` pairs of channels o from the first of two patches. */
void cl_tile_one(const int16_t *x, const int8_t *weight, const cl_pair *records, int32_t pairs, int32_t blocks, int8_t *y,
                 int32_t zero_out);
#endif

#endif
