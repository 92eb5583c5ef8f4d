/* Are the constants in flash what they were? Each group of CL_CHECK_WORDS words has a signature: the sum of its words,
   each times the factor of its place, modulo 2^64. weight_check.py says which flipped bits cannot cancel. */
#ifndef CL_WEIGHT_CHECK_H
#define CL_WEIGHT_CHECK_H

#include "arithmetic.h"

#include <string.h>

#define CL_CHECK_WORDS 64

/* A table in flash, aligned to words; its last group may be short. */
typedef struct {
    const void *words;
    int32_t count;
} cl_region;

typedef struct {
    const cl_region *regions;
    const uint64_t *signatures; /* one for each group, region by region */
    const uint32_t *factors;
    int32_t group_count, slice;
} cl_checked;

/* A word of a table that holds other types. */
static inline uint32_t cl_word(const uint8_t *at)
{
    uint32_t word;
#if defined(__GNUC__)
    at = __builtin_assume_aligned(at, 4);
#endif
    memcpy(&word, at, sizeof word);
    return word;
}

/* The first of `count` groups from `first` on that differs from its signature; -1 if none does. */
int32_t cl_check(const cl_checked *checked, int32_t first, int32_t count);

/* As `cl_check` for the next `slice` groups. *next, the first of them, moves on, but not past one that differs; what is
   no group counts as 0. */
int32_t cl_check_next(const cl_checked *checked, uint32_t *next);

#endif
