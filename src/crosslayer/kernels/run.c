#include "kernels.h"

#include <stddef.h>

void cl_make(const cl_model *model, const cl_step *step, int32_t row, uint8_t *arena)
{
    const void *x[CL_MOST_ROWS];
    const void **next = x;
    const cl_value *output = &model->values[step->output];
    CL_PROFILE(model, step, 1);
    CL_ROLLED
    for (int32_t i = 0; i < step->input_count; i++) {
        int32_t source = row * step->stride - step->pad;
        CL_ROLLED
        for (int32_t tap = 0; tap < step->taps; tap++) {
            const cl_value *input = &model->values[step->inputs[i]];
            *next++ = source >= 0 && source < input->rows ? cl_place(input, source, arena) : NULL;
            source += step->dilation;
        }
    }
    step->kernel(step->constants, x, cl_place(output, row, arena), arena + step->scratch, row);
    CL_PROFILE(model, step, 0);
}

void cl_run(const cl_model *model, int32_t first, uint8_t *arena)
{
    for (; first < model->step_count; first += model->steps[first].group) {
        const cl_step *step = &model->steps[first];
        if (step->group > 1) {
            model->run_group(model, step, arena);
            continue;
        }
        for (int32_t row = 0; row < step->rows; row++) {
            cl_make(model, step, row, arena);
        }
    }
}
