/* Groups of constants that have changed, from the parity of groups. */
#ifndef CL_WEIGHT_RESTORE_H
#define CL_WEIGHT_RESTORE_H

#include "weight_check.h"

/* Where a group lies, and how many words it has. */
const void *cl_group(const cl_checked *checked, int32_t group, int32_t *words);

/* Fills `content`, CL_CHECK_WORDS words, with what a group held when its signature was made. parity (rows,
   CL_CHECK_WORDS): row g mod `rows` is the exclusive or of all such groups g, short ones filled with 0. Returns 0, or -1
   if another group of that row has changed too. */
int cl_restore(const cl_checked *checked, const uint32_t *parity, int32_t rows, int32_t group, uint32_t *content);

#endif
