/* add_s8 with the sum's second term from a table. */
#ifndef CL_ADD_TABLE_H
#define CL_ADD_TABLE_H

#include "requant.h"

struct add_table {
    int32_t count, swap; /* swap: the table is that of the first operand */
    int32_t mult, offset, shift;
    const int32_t *terms; /* for codes -128 ... 127, with the zero of the other operand; doubled, as the other term */
};

void cl_add_table(const void *constants, const void *const *rows, void *y, void *scratch, int32_t row);

#endif
