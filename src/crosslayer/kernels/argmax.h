/* The place of the largest of `count` outputs, the first of equal ones. No branch and no address depends on a value. */
#ifndef CL_ARGMAX_H
#define CL_ARGMAX_H

#include "requant.h"

#include <string.h>

/* Output i as 32 bits in the same order: an int8 or int16 code, or a float that is a number (-0 comes before 0). `bytes`
   is a constant of the call. */
static inline uint32_t cl_rank(const void *values, int32_t i, int32_t bytes)
{
    int32_t bits = 0;
    if (bytes < 4) {
        return (uint32_t)cl_code(values, i, bytes == 2) ^ 0x80000000U;
    }
    memcpy(&bits, (const uint8_t *)values + 4 * i, sizeof bits);
    return (uint32_t)bits ^ ((uint32_t)(bits >> 31) | 0x80000000U);
}

static inline int32_t cl_argmax(const void *values, int32_t count, int32_t bytes)
{
    int32_t place = 0;
    uint32_t most = cl_rank(values, 0, bytes);
    CL_ROLLED
    for (int32_t i = 1; i < count; i++) {
        const uint32_t rank = cl_rank(values, i, bytes);
        /* the borrow of most - rank, as all ones or 0: compilers make branches of comparisons */
        const int32_t larger = (int32_t)(most ^ ((most ^ rank) | ((most - rank) ^ rank))) >> 31;
        place ^= cl_masked(i ^ place, larger);
        most ^= (uint32_t)cl_masked((int32_t)(rank ^ most), larger);
    }
    return place;
}

#endif
