#include "group.h"

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

void cl_advance(const cl_model *model, const cl_step *group, uint16_t *made, uint8_t *arena)
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

void cl_begin_group(const cl_model *model, const cl_step *group, uint16_t *made)
{
    CL_ROLLED
    for (int32_t i = 0; i < model->value_count; i++) {
        made[i] = model->values[i].rows;
    }
    CL_ROLLED
    for (int32_t i = 0; i < group->group; i++) {
        made[group[i].output] = 0;
    }
}

void cl_run_group(const cl_model *model, const cl_step *group, uint8_t *arena)
{
    uint16_t *made = (uint16_t *)(void *)(arena + model->made);
    cl_begin_group(model, group, made);
    cl_advance(model, group, made, arena);
}
