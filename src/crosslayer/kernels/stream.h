/* A network whose input, value 0, comes row by row; its first group keeps only the rows that it still needs. */
#ifndef CL_STREAM_H
#define CL_STREAM_H

#include "group.h"

/* Begins an inference. */
void cl_begin(const cl_model *model, uint8_t *arena);

/* Where to write the next row. */
void *cl_next(const cl_model *model, uint8_t *arena);

/* Takes the row that lies there. The last one runs what is left and returns 1, all others 0. */
int cl_push(const cl_model *model, uint8_t *arena);

#endif
