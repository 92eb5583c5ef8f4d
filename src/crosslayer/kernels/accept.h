/* How sure a classifier is: the largest of `count` output codes, and by how much it is ahead of the second largest. Codes
   are int16 if `wide`, else int8; it is a constant of the call. */
#ifndef CL_ACCEPT_H
#define CL_ACCEPT_H

#include "arithmetic.h"

static inline int32_t cl_largest(const void *codes, int32_t count, int32_t wide)
{
    int32_t most = cl_code(codes, 0, wide);
    for (int32_t i = 1; i < count; i++) {
        const int32_t code = cl_code(codes, i, wide);
        most = code > most ? code : most;
    }
    return most;
}

static inline int32_t cl_margin(const void *codes, int32_t count, int32_t wide)
{
    int32_t most = cl_code(codes, 0, wide);
    int32_t second = INT16_MIN;
    for (int32_t i = 1; i < count; i++) {
        const int32_t code = cl_code(codes, i, wide);
        if (code > most) {
            second = most;
            most = code;
        } else if (code > second) {
            second = code;
        }
    }
    return most - second;
}

#endif
