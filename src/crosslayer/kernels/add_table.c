#include "add_table.h"

#include "vectors.h"

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
#if CL_MVE
    const int32x4_t mults = vdupq_n_s32(mult), offsets = vdupq_n_s32(offset), shifts = vdupq_n_s32(shift);
    const int32x4_t low = vdupq_n_s32(INT8_MIN), high = vdupq_n_s32(INT8_MAX);
    for (; count > 0; count -= 4, a += 4, b += 4, code += 4) {
        const mve_pred16_t inside = vctp32q((uint32_t)count);
        const uint32x4_t places = vreinterpretq_u32_s32(vldrbq_z_s32(b, inside)); /* terms[places]: negative ones too */
        const int32x4_t term = vldrwq_gather_shifted_offset_z_s32(terms, places, inside);
        const int32x4_t sum = vaddq_s32(vshlq_n_s32(vldrbq_z_s32(a, inside), 20), term);
        const int32x4_t v = cl_shift_four(vrmulhq_s32(sum, mults), offsets, shifts);
        vstrbq_p_s32(code, vminq_s32(vmaxq_s32(v, low), high), inside);
    }
#elif CL_DSP
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
