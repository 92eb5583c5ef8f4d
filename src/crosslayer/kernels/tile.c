#include "tile.h"

#include "vectors.h"

#if CL_MVE
/* One or two patches, a constant of the call, as is a `rest` of none: then nothing looks for one. */
static inline __attribute__((always_inline)) void run_pairs(const int8_t *first, const int8_t *second, int32_t count,
                                                            const int8_t *weight, const cl_pair *records, int32_t pairs,
                                                            int8_t *y, int32_t step, int32_t zero_out, int32_t two,
                                                            uint32_t rest)
{
    const int32_t whole = count / 16;
    const uint32x4_t every_other = {0, 8, 16, 24};
    const uint32_t next = sizeof(cl_requant);
    const uint32x4_t both = {0, 0, next, next};
    const uint32x4_t places = {0, (uint32_t)step, 1, (uint32_t)step + 1};
    for (; pairs > 0; pairs--, records++, y += 2) {
        int32_t s00 = records->bias[0], s01 = records->bias[1], s10 = s00, s11 = s01;
        const int8_t *a = first, *b = second;
        for (int32_t i = 0; i < whole; i++, weight += 32, a += 16, b += 16) {
            const int32x4x2_t blocks_of_two = vld2q_s32((const int32_t *)(const void *)weight);
            const int8x16_t w0 = vreinterpretq_s8_s32(blocks_of_two.val[0]);
            const int8x16_t w1 = vreinterpretq_s8_s32(blocks_of_two.val[1]);
            const int8x16_t x0 = vldrbq_s8(a);
            s00 = vmladavaq_s8(s00, x0, w0);
            s01 = vmladavaq_s8(s01, x0, w1);
            if (two) {
                const int8x16_t x1 = vldrbq_s8(b);
                s10 = vmladavaq_s8(s10, x1, w0);
                s11 = vmladavaq_s8(s11, x1, w1);
            }
        }
        if (rest != 0) {
            const uint32x4_t at = cl_places(weight, every_other);
            const mve_pred16_t inside = vctp8q(rest); /* a word is inside if its first byte is */
            const int8x16_t w0 = vreinterpretq_s8_s32(vldrwq_gather_base_z_s32(at, 0, inside));
            const int8x16_t w1 = vreinterpretq_s8_s32(vldrwq_gather_base_z_s32(at, 4, inside));
            const int8x16_t x0 = vldrbq_z_s8(a, inside);
            s00 = vmladavaq_s8(s00, x0, w0);
            s01 = vmladavaq_s8(s01, x0, w1);
            if (two) {
                const int8x16_t x1 = vldrbq_z_s8(b, inside);
                s10 = vmladavaq_s8(s10, x1, w0);
                s11 = vmladavaq_s8(s11, x1, w1);
            }
            weight += (rest + 3) / 4 * 8;
        }
        if (!two) {
            s10 = s00, s11 = s01; /* to the same places */
        }
        const int32x4_t sums = {s00, s10, s01, s11};
        const int32x4_t codes = cl_requantize_four(sums, cl_places(records->requant, both), zero_out);
        vstrbq_scatter_offset_s32(y, places, cl_saturate_four(codes));
    }
}

void cl_tile_two(const int8_t *first, const int8_t *second, int32_t count, const int8_t *weight, const cl_pair *records,
                 int32_t pairs, int8_t *y, int32_t step, int32_t zero_out)
{
    const uint32_t rest = (uint32_t)count % 16;
    if (rest == 0) {
        run_pairs(first, second, count, weight, records, pairs, y, step, zero_out, 1, 0);
    } else {
        run_pairs(first, second, count, weight, records, pairs, y, step, zero_out, 1, rest);
    }
}

void cl_tile_one(const int8_t *patch, int32_t count, const int8_t *weight, const cl_pair *records, int32_t pairs,
                 int8_t *y, int32_t zero_out)
{
    run_pairs(patch, patch, count, weight, records, pairs, y, 0, zero_out, 0, (uint32_t)count % 16);
}
#elif CL_DSP && (!CL_RULE_FLOAT || defined(__ARM_FP))
/* Armv7E-M, Armv8-M with DSP instructions. r0 and r2 are the sums of the first patch, r1 and r3 those of the second, for
   two channels; r7 runs over the patches, r11 over the weights, lr counts groups of four blocks. All of the stack frame:
   0 x, 4 where the first group begins, 8 records, 12 pairs, 16 saved registers, 52 groups of blocks, 56 y, 60 ... */

/* Each block is BYTES long: the first group is entered so that as many blocks as there are run. */
#define BLOCK_TWO \
    "ldm.w r7!, {r4, r5, r6, r8}\n" \
    "ldm.w r11!, {r9, r10}\n" \
    "sxtb16 r12, r9\n" \
    "sxtb16 r9, r9, ror #8\n" \
    "smlad r0, r4, r12, r0\n" \
    "smlad r1, r6, r12, r1\n" \
    "smlad r0, r5, r9, r0\n" \
    "smlad r1, r8, r9, r1\n" \
    "sxtb16 r12, r10\n" \
    "sxtb16 r10, r10, ror #8\n" \
    "smlad r2, r4, r12, r2\n" \
    "smlad r3, r6, r12, r3\n" \
    "smlad r2, r5, r10, r2\n" \
    "smlad r3, r8, r10, r3\n"
#define BYTES_TWO "#56"

#define BLOCK_ONE \
    "ldrd r4, r5, [r7], #16\n" \
    "ldm.w r11!, {r9, r10}\n" \
    "sxtb16 r12, r9\n" \
    "sxtb16 r9, r9, ror #8\n" \
    "smlad r0, r4, r12, r0\n" \
    "smlad r0, r5, r9, r0\n" \
    "sxtb16 r12, r10\n" \
    "sxtb16 r10, r10, ror #8\n" \
    "smlad r2, r4, r12, r2\n" \
    "smlad r2, r5, r10, r2\n"
#define BYTES_ONE "#40"

#define BEGIN(bytes) \
    "push.w {r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, lr}\n" \
    "mov r11, r1\n" \
    "ldr r4, [sp, #52]\n" \
    "adds r5, r4, #3\n" \
    "lsrs r5, r5, #2\n" \
    "str r5, [sp, #52]\n" \
    "lsls r5, r5, #2\n" \
    "subs r5, r5, r4\n" \
    "mov.w r6, " bytes "\n" \
    "muls r5, r6, r5\n" \
    "adr.w r6, 2f\n" \
    "add r5, r6\n" \
    "adds r5, #1\n" /* Thumb */ \
    "str r5, [sp, #4]\n" \
    "1:\n" \
    "ldr r4, [sp, #8]\n" \
    "ldr.w lr, [sp, #52]\n" \
    "ldr r7, [sp, #0]\n" \
    "ldr r5, [sp, #4]\n" \
    "ldm r4!, {r0, r2}\n" \
    "str r4, [sp, #8]\n" \
    "mov r1, r0\n" \
    "mov r3, r2\n" \
    "bx r5\n" \
    ".p2align 2\n" \
    "2:\n"

#define END \
    "str r7, [sp, #56]\n" \
    "ldr r4, [sp, #12]\n" \
    "subs r4, #1\n" \
    "str r4, [sp, #12]\n" \
    "bne.w 1b\n" \
    "add sp, #16\n" \
    "pop.w {r4, r5, r6, r7, r8, r9, r10, r11, pc}\n"

#if CL_RULE_FLOAT
#define FACTORS(zero_out) \
    "ldr r7, [sp, #8]\n" \
    "ldm r7!, {r4, r5}\n" \
    "str r7, [sp, #8]\n" \
    "ldr r6, [sp, " zero_out "]\n" \
    "vmov s1, r4\n" \
    "vmov s2, r5\n"
#define CODE(sum, factor) \
    "vmov s0, " sum "\n" \
    "vcvt.f32.s32 s0, s0\n" \
    "vmul.f32 s0, s0, " factor "\n" \
    "vcvtr.s32.f32 s0, s0\n" /* nearest, ties to even, as the floating-point status says after reset */ \
    "vmov " sum ", s0\n" \
    "qadd " sum ", " sum ", r6\n" \
    "ssat " sum ", #8, " sum "\n"
#define FIRST(sum) CODE(sum, "s1")
#define SECOND(sum) CODE(sum, "s2")
#else
#define FACTORS(zero_out) \
    "ldr r7, [sp, #8]\n" \
    "ldm r7!, {r4, r5, r6, r8, r9, r10}\n" \
    "str r7, [sp, #8]\n"
#define CODE(sum, mult, offset, shift) \
    "lsls " sum ", " sum ", #1\n" \
    "smmulr " sum ", " sum ", " mult "\n" \
    "add.w " sum ", " sum ", " sum ", asr #31\n" \
    "add " sum ", " offset "\n" \
    "asr.w " sum ", " sum ", " shift "\n" \
    "ssat " sum ", #8, " sum "\n"
#define FIRST(sum) CODE(sum, "r4", "r5", "r6")
#define SECOND(sum) CODE(sum, "r8", "r9", "r10")
#endif

__attribute__((naked)) void cl_tile_two(const int16_t *x, const int8_t *weight, const cl_pair *records, int32_t pairs,
                                        int32_t blocks, int8_t *y, int32_t step, int32_t zero_out)
{
    __asm__(BEGIN(BYTES_TWO) BLOCK_TWO BLOCK_TWO BLOCK_TWO BLOCK_TWO
            "subs.w lr, lr, #1\n"
            "bne.w 2b\n" FACTORS("#64")
            "ldr r7, [sp, #56]\n"
            "ldr.w lr, [sp, #60]\n" FIRST("r0") FIRST("r1") SECOND("r2") SECOND("r3")
            "strb.w r1, [r7, lr]\n"
            "strb r0, [r7], #1\n"
            "strb.w r3, [r7, lr]\n"
            "strb r2, [r7], #1\n" END);
}

__attribute__((naked)) void cl_tile_one(const int16_t *x, const int8_t *weight, const cl_pair *records, int32_t pairs,
                                        int32_t blocks, int8_t *y, int32_t zero_out)
{
    __asm__(BEGIN(BYTES_ONE) BLOCK_ONE BLOCK_ONE BLOCK_ONE BLOCK_ONE
            "subs.w lr, lr, #1\n"
            "bne.w 2b\n" FACTORS("#60")
            "ldr r7, [sp, #56]\n" FIRST("r0") SECOND("r2")
            "strb r0, [r7], #1\n"
            "strb r2, [r7], #1\n" END);
}
#else
void cl_tile_two(const int16_t *x, const int8_t *weight, const cl_pair *records, int32_t pairs, int32_t blocks, int8_t *y,
                 int32_t step, int32_t zero_out)
{
    for (; pairs > 0; pairs--, records++, y += 2) {
        const int16_t *patch = x;
        int32_t s00 = records->bias[0], s01 = records->bias[1], s10 = s00, s11 = s01;
        for (int32_t i = 0; i < blocks; i++, patch += 8, weight += 8) {
            for (int32_t j = 0; j < 4; j++) {
                const int32_t place = (j >> 1) | (j & 1) << 1; /* codes 0, 2, 1, 3 */
                const int32_t first = weight[place], second = weight[4 + place];
                s00 += patch[j] * first;
                s10 += patch[4 + j] * first;
                s01 += patch[j] * second;
                s11 += patch[4 + j] * second;
            }
        }
        y[0] = cl_requantize(s00, &records->requant[0], zero_out);
        y[1] = cl_requantize(s01, &records->requant[1], zero_out);
        y[step] = cl_requantize(s10, &records->requant[0], zero_out);
        y[step + 1] = cl_requantize(s11, &records->requant[1], zero_out);
    }
}

void cl_tile_one(const int16_t *x, const int8_t *weight, const cl_pair *records, int32_t pairs, int32_t blocks, int8_t *y,
                 int32_t zero_out)
{
    for (; pairs > 0; pairs--, records++, y += 2) {
        const int16_t *patch = x;
        int32_t first = records->bias[0], second = records->bias[1];
        for (int32_t i = 0; i < blocks; i++, patch += 8, weight += 8) {
            for (int32_t j = 0; j < 4; j++) {
                const int32_t place = (j >> 1) | (j & 1) << 1;
                first += patch[j] * weight[place];
                second += patch[j] * weight[4 + place];
            }
        }
        y[0] = cl_requantize(first, &records->requant[0], zero_out);
        y[1] = cl_requantize(second, &records->requant[1], zero_out);
    }
}
#endif
