#include "add_table.h"

void cl_add_table(const void *constants, const void *const *rows, void *y, void *scratch, int32_t row)
{
    const struct add_table *p = constants;
    const int8_t *a = rows[p->swap];
    const int8_t *b = rows[1 - p->swap];
    const int32_t *terms = p->terms + 128;
    const int32_t mult = p->mult, offset = p->offset, shift = p->shift;
    int32_t count = p->count;
    int8_t *code = y;
    (void)scratch;
    (void)row;
#if CL_DSP
#define CL_ADD \
    "ldrsb r4, [%[a]], #1\n" \
    "ldrsb r5, [%[b]], #1\n" \
    "ldr.w r5, [%[terms], r5, lsl #2]\n" \
    "add.w r4, r5, r4, lsl #20\n" \
    "smmulr r4, r4, %[mult]\n" \
    "add.w r4, r4, r4, asr #31\n" \
    "add r4, %[offset]\n" \
    "asr.w r4, r4, %[shift]\n" \
    "ssat r4, #8, r4\n" \
    "strb r4, [%[code]], #1\n"
    __asm__ volatile("b 2f\n"
                     "1:\n" CL_ADD CL_ADD CL_ADD CL_ADD "2:\n"
                     "subs %[count], #4\n"
                     "bpl 1b\n"
                     "adds %[count], #4\n"
                     "beq 4f\n"
                     "3:\n" CL_ADD "subs %[count], #1\n"
                     "bne 3b\n"
                     "4:\n"
                     : [a] "+r"(a), [b] "+r"(b), [code] "+r"(code), [count] "+l"(count)
                     : [terms] "r"(terms), [mult] "r"(mult), [offset] "r"(offset), [shift] "r"(shift)
                     : "r4", "r5", "cc", "memory");
#else
    for (; count > 0; count--) {
        const int32_t high = cl_high_doubled(cl_left(*a++, 20) + terms[*b++], mult);
        *code++ = (int8_t)cl_saturate((high + (high >> 31) + offset) >> shift);
    }
#endif
}
