#include "stream.h"

void cl_begin(const cl_model *model, uint8_t *arena)
{
    uint16_t *made = (uint16_t *)(void *)(arena + model->made);
    cl_begin_group(model, model->steps, made);
    made[0] = 0;
}

void *cl_next(const cl_model *model, uint8_t *arena)
{
    const uint16_t *made = (const uint16_t *)(const void *)(arena + model->made);
    return cl_place(&model->values[0], made[0], arena);
}

int cl_push(const cl_model *model, uint8_t *arena)
{
    uint16_t *made = (uint16_t *)(void *)(arena + model->made);
    made[0]++;
    cl_advance(model, model->steps, made, arena);
    if (made[0] < model->values[0].rows) {
        return 0;
    }
    cl_run(model, model->steps[0].group, arena);
    return 1;
}
