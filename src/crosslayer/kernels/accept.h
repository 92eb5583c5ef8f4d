/* How sure a classifier is: the largest of `count` output codes, and by how much it is ahead of the second largest; and how
   near a feature map is to that of a class. Codes are int16 if `wide`, else int8; it is a constant of the call. */
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

/* Minus the distance from the nearest class: of each channel's sum over all positions from the class's, times the
   channel's weight, summed over channels. `distances` has room for one of each class. */
static inline int64_t cl_nearest(const void *codes, int32_t positions, int32_t channels, int32_t wide,
                                 const int32_t *centres, const uint16_t *weights, int32_t classes, int64_t *distances)
{
    for (int32_t k = 0; k < classes; k++) {
        distances[k] = 0;
    }
    for (int32_t c = 0; c < channels; c++) {
        int32_t sum = 0;
        for (int32_t i = 0; i < positions; i++) {
            sum += cl_code(codes, i * channels + c, wide);
        }
        for (int32_t k = 0; k < classes; k++) {
            const int32_t away = sum - centres[k * channels + c];
            distances[k] += (int64_t)weights[c] * (away < 0 ? -away : away);
        }
    }
    int64_t least = distances[0];
    for (int32_t k = 1; k < classes; k++) {
        least = distances[k] < least ? distances[k] : least;
    }
    return -least;
}

#endif
