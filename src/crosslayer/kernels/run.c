#include "kernels.h"

#include <stddef.h>

static const void *cl_row(const cl_value *value, int32_t row, const uint8_t *arena)
{
    if (row < 0 || row >= value->rows) {
        return NULL;
    }
    const uint32_t turns = ((uint32_t)row * value->reciprocal) >> 16;
    return arena + value->offset + ((uint32_t)row - turns * value->ring) * value->row_bytes;
}

void cl_make(const cl_model *model, const cl_step *step, int32_t row, uint8_t *arena)
{
    const void *x[CL_MOST_ROWS];
    const void **next = x;
    const cl_value *output = &model->values[step->output];
    for (int32_t i = 0; i < step->input_count; i++) {
        int32_t source = row * step->stride - step->pad;
        for (int32_t tap = 0; tap < step->taps; tap++) {
            *next++ = cl_row(&model->values[step->inputs[i]], source, arena);
            source += step->dilation;
        }
    }
    const uint32_t turns = ((uint32_t)row * output->reciprocal) >> 16;
    uint8_t *y = arena + output->offset + ((uint32_t)row - turns * output->ring) * output->row_bytes;
    step->kernel(step->constants, x, y, arena + step->scratch, row);
}

/* Whether all rows that the next call reads are made. */
static int cl_ready(const cl_model *model, const cl_step *step, const uint16_t *made)
{
    const int32_t row = made[step->output];
    if (row == step->rows) {
        return 0;
    }
    for (int32_t i = 0; i < step->input_count; i++) {
        const cl_value *input = &model->values[step->inputs[i]];
        const int32_t last = row * step->stride - step->pad + (step->taps - 1) * step->dilation;
        if (made[step->inputs[i]] <= (last < input->rows ? last : input->rows - 1)) {
            return 0;
        }
    }
    return 1;
}

/* Makes the rows of a group that can be made, each as soon as it can and the last steps first, so that rings stay
   short. */
static void cl_advance(const cl_model *model, const cl_step *group, uint16_t *made, uint8_t *arena)
{
    for (int32_t i = 0; i >= 0;) {
        const cl_step *step = &group[i];
        if (cl_ready(model, step, made)) {
            cl_make(model, step, made[step->output], arena);
            made[step->output]++;
            i += i + 1 < group->group;
        } else {
            i--;
        }
    }
}

void cl_run(const cl_model *model, uint8_t *arena)
{
    uint16_t *made = (uint16_t *)(void *)(arena + model->made);
    for (int32_t first = 0; first < model->step_count; first += model->steps[first].group) {
        const cl_step *step = &model->steps[first];
        if (step->group == 1) {
            for (int32_t row = 0; row < step->rows; row++) {
                cl_make(model, step, row, arena);
            }
            continue;
        }
        for (int32_t i = 0; i < model->value_count; i++) {
            made[i] = model->values[i].rows; /* what is not of this group is whole */
        }
        for (int32_t i = 0; i < step->group; i++) {
            made[step[i].output] = 0;
        }
        cl_advance(model, step, made, arena);
    }
}
