/* softmax_s8 with all powers in a table: the same work for every input. */
#ifndef CL_SOFTMAX_TABLE_H
#define CL_SOFTMAX_TABLE_H

#include "requant.h"

struct softmax_table {
    int32_t rows, depth, last;
    const int32_t *powers; /* e^(-scale d) in Q0.31 for d = 0 ... last; the last one is 0 if there are less than 256 */
};

void cl_softmax_table(const void *constants, const void *const *rows, void *y, void *scratch, int32_t row);

#endif
