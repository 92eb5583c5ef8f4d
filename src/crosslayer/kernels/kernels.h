/* The steps of a network: which kernel runs when, row by row, on which places of the arena. */
#ifndef CL_KERNELS_H
#define CL_KERNELS_H

#include "arithmetic.h"

/* Makes row `row` of a result, at `y`; all of it where a step has one row. `x` holds the rows of the inputs that it
   needs; NULL stands for a row of padding. */
typedef void (*cl_kernel)(const void *constants, const void *const *x, void *y, void *scratch, int32_t row);

/* A value in the arena, of which the last `ring` rows are kept: row r at place r mod ring. */
typedef struct {
    uint32_t offset, row_bytes;
    uint16_t rows, ring;
    uint32_t reciprocal; /* (r * reciprocal) >> 16 is r / ring for every row r; 0 where all rows are kept */
} cl_value;

typedef struct {
    cl_kernel kernel;
    const void *constants;
    const uint16_t *inputs; /* positions among the values */
    uint32_t scratch;       /* offset in the arena */
    uint16_t output, input_count;
    uint16_t rows;                   /* calls */
    uint16_t taps, stride, dilation; /* a call for row r reads `taps` rows of each input, from r * stride - pad on */
    int16_t pad;
    uint16_t group; /* steps that run row by row together, from this one on */
} cl_step;

typedef struct cl_model {
    const cl_step *steps;
    const cl_value *values;
    void (*run_group)(const struct cl_model *model, const cl_step *group, uint8_t *arena); /* NULL without groups */
    uint16_t step_count, value_count;
    uint32_t made; /* offset in the arena of the rows made of each value, uint16_t; groups need them */
} cl_model;

#ifdef MODEL_PROFILE
void model_profile(int32_t step, int32_t begins); /* of model.h */
#define CL_PROFILE(model, step, begins) model_profile((int32_t)((step) - (model)->steps), begins)
#else
#define CL_PROFILE(model, step, begins)
#endif

/* Where a row of a value lies. */
static inline void *cl_place(const cl_value *value, int32_t row, uint8_t *arena)
{
    const uint32_t turns = ((uint32_t)row * value->reciprocal) >> 16;
    return arena + value->offset + ((uint32_t)row - turns * value->ring) * value->row_bytes;
}

/* Makes one row of a step. A function of its own, so that emulators and debuggers see where a step begins. */
CL_APART void cl_make(const cl_model *model, const cl_step *step, int32_t row, uint8_t *arena);

/* Runs all steps from one on that begins a group or is alone. */
void cl_run(const cl_model *model, int32_t first, uint8_t *arena);

#endif
