/* int8 codes into patches of int16 codes, as cl_tile_* take them. Codes need no alignment where the processor needs
   none; else they are read one by one. */
#ifndef CL_EXPAND_H
#define CL_EXPAND_H

#include "requant.h"

/* Blocks of four codes each from two places in turn; returns where the next block goes. */
static inline int16_t *cl_expand_two(const int8_t *first, const int8_t *second, int16_t *block, int32_t count)
{
#if CL_DSP
#define CL_EXPAND_TWO \
    "ldr r5, [%[first]], #4\n" \
    "ldr r8, [%[second]], #4\n" \
    "sxtb16 r4, r5\n" \
    "sxtb16 r5, r5, ror #8\n" \
    "sxtb16 r6, r8\n" \
    "sxtb16 r8, r8, ror #8\n" \
    "stm.w %[block]!, {r4, r5, r6, r8}\n"
    __asm__ volatile("lsrs %[count], %[count], #1\n"
                     "bcc 1f\n" CL_EXPAND_TWO "cmp %[count], #0\n"
                     "beq 2f\n"
                     "1:\n" CL_EXPAND_TWO CL_EXPAND_TWO "subs %[count], #1\n"
                     "bne 1b\n"
                     "2:\n"
                     : [first] "+r"(first), [second] "+r"(second), [block] "+r"(block), [count] "+l"(count)
                     :
                     : "r4", "r5", "r6", "r8", "cc", "memory");
#else
    for (; count > 0; count--, first += 4, second += 4, block += 8) {
        block[0] = first[0], block[1] = first[2], block[2] = first[1], block[3] = first[3];
        block[4] = second[0], block[5] = second[2], block[6] = second[1], block[7] = second[3];
    }
#endif
    return block;
}

/* Copies `count` codes; returns where the next one goes. */
static inline int8_t *cl_copy(int8_t *to, const int8_t *from, int32_t count)
{
#if CL_DSP
    int32_t i = 0;
    uint32_t four;
    if (count >= 4) {
        for (; i < count - 4; i += 4) {
            __builtin_memcpy(&four, from + i, 4);
            __builtin_memcpy(to + i, &four, 4);
        }
        __builtin_memcpy(&four, from + count - 4, 4);
        __builtin_memcpy(to + count - 4, &four, 4);
        return to + count;
    }
#endif
    for (int32_t j = 0; j < count; j++) {
        to[j] = from[j];
    }
    return to + count;
}

#endif
