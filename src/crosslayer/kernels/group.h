/* Steps that run row by row together, each value between them keeping only the rows that are still needed. */
#ifndef CL_GROUP_H
#define CL_GROUP_H

#include "kernels.h"

/* Nothing of a group is made yet; all that it reads from outside is. `made`: rows made of each value. */
void cl_begin_group(const cl_model *model, const cl_step *group, uint16_t *made);

/* Makes the rows of a group that can be made, each as soon as it can and the last steps first, so that rings stay
   short. */
void cl_advance(const cl_model *model, const cl_step *group, uint16_t *made, uint8_t *arena);

void cl_run_group(const cl_model *model, const cl_step *group, uint8_t *arena);

#endif
