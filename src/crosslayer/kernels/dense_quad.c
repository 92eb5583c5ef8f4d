#include "dense_quad.h"

#include "vectors.h"

/* `quads` times four outputs from `blocks` times four inputs. */
#if CL_MVE
static void run_quads(const int8_t *x, const int8_t *weight, const int32_t *bias, const cl_requant *requant,
                      int32_t blocks, int32_t quads, int8_t *code, int32_t zero_out, int32_t next)
{
    const int32_t whole = blocks / 4;
    const uint32_t rest = (uint32_t)blocks % 4, step = (uint32_t)next;
    const uint32x4_t every_fourth = {0, 16, 32, 48};
    const uint32x4_t factors = {0, step, 2 * step, 3 * step};
    for (; quads > 0; quads--, bias += 4, code += 4, requant += next != 0 ? 4 : 0) {
        int32_t s0 = bias[0], s1 = bias[1], s2 = bias[2], s3 = bias[3];
        const int8_t *from = x;
        for (int32_t i = 0; i < whole; i++, from += 16, weight += 64) {
            const int32x4x4_t w = vld4q_s32((const int32_t *)(const void *)weight);
            const int8x16_t codes = vldrbq_s8(from);
            s0 = vmladavaq_s8(s0, codes, vreinterpretq_s8_s32(w.val[0]));
            s1 = vmladavaq_s8(s1, codes, vreinterpretq_s8_s32(w.val[1]));
            s2 = vmladavaq_s8(s2, codes, vreinterpretq_s8_s32(w.val[2]));
            s3 = vmladavaq_s8(s3, codes, vreinterpretq_s8_s32(w.val[3]));
        }
        if (rest != 0) {
            const uint32x4_t at = cl_places(weight, every_fourth);
            const mve_pred16_t inside = vctp32q(rest);
            const int8x16_t codes = vldrbq_z_s8(from, inside);
            s0 = vmladavaq_s8(s0, codes, vreinterpretq_s8_s32(vldrwq_gather_base_z_s32(at, 0, inside)));
            s1 = vmladavaq_s8(s1, codes, vreinterpretq_s8_s32(vldrwq_gather_base_z_s32(at, 4, inside)));
            s2 = vmladavaq_s8(s2, codes, vreinterpretq_s8_s32(vldrwq_gather_base_z_s32(at, 8, inside)));
            s3 = vmladavaq_s8(s3, codes, vreinterpretq_s8_s32(vldrwq_gather_base_z_s32(at, 12, inside)));
            weight += 16 * rest;
        }
        const int32x4_t sums = {s0, s1, s2, s3};
        const int32x4_t codes = cl_requantize_four(sums, cl_places(requant, factors), zero_out);
        vstrbq_s32(code, cl_saturate_four(codes));
    }
}
#elif CL_DSP && (!CL_RULE_FLOAT || defined(__ARM_FP))
/* r0 to r3 are the sums; r7 runs over the inputs, r11 over the weights, lr counts groups of four blocks. The stack frame:
   0 x, 4 where the first group begins, 8 bias, 12 requant, 16 saved registers, 52 groups of blocks, 56 quads, 60 code,
   64 zero_out, 68 bytes from one requant to the next. */

/* r9 inputs 0 and 2, r10 inputs 1 and 3, r4 to r8 weights of the outputs */
#define OUTPUT(sum, weights) \
    "sxtb16 r12, " weights "\n" \
    "sxtb16 " weights ", " weights ", ror #8\n" \
    "smlad " sum ", r9, r12, " sum "\n" \
    "smlad " sum ", r10, " weights ", " sum "\n"
#define BLOCK \
    "ldr r10, [r7], #4\n" \
    "ldm.w r11!, {r4, r5, r6, r8}\n" \
    "sxtb16 r9, r10\n" \
    "sxtb16 r10, r10, ror #8\n" OUTPUT("r0", "r4") OUTPUT("r1", "r5") OUTPUT("r2", "r6") OUTPUT("r3", "r8")

#if CL_RULE_FLOAT
#define CODE(sum) \
    "ldr r4, [r7]\n" \
    "add r7, r9\n" \
    "vmov s0, " sum "\n" \
    "vmov s1, r4\n" \
    "vcvt.f32.s32 s0, s0\n" \
    "vmul.f32 s0, s0, s1\n" \
    "vcvtr.s32.f32 s0, s0\n" \
    "vmov " sum ", s0\n" \
    "qadd " sum ", " sum ", r10\n" \
    "ssat " sum ", #8, " sum "\n"
#else
#define CODE(sum) \
    "ldm.w r7, {r4, r5, r8}\n" \
    "add r7, r9\n" \
    "lsls " sum ", " sum ", #1\n" \
    "smmulr " sum ", " sum ", r4\n" \
    "add.w " sum ", " sum ", " sum ", asr #31\n" \
    "add " sum ", r5\n" \
    "asr.w " sum ", " sum ", r8\n" \
    "ssat " sum ", #8, " sum "\n"
#endif

__attribute__((naked)) static void run_quads(const int8_t *x, const int8_t *weight, const int32_t *bias,
                                             const cl_requant *requant, int32_t blocks, int32_t quads, int8_t *code,
                                             int32_t zero_out, int32_t next)
{
    __asm__("push.w {r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, lr}\n"
            "mov r11, r1\n"
            "ldr r4, [sp, #52]\n"
            "adds r5, r4, #3\n"
            "lsrs r5, r5, #2\n"
            "str r5, [sp, #52]\n"
            "lsls r5, r5, #2\n"
            "subs r5, r5, r4\n"
            "movs r6, #80\n" /* bytes of a block */
            "muls r5, r6, r5\n"
            "adr.w r6, 2f\n"
            "add r5, r6\n"
            "adds r5, #1\n" /* Thumb */
            "str r5, [sp, #4]\n"
            "1:\n"
            "ldr r4, [sp, #8]\n"
            "ldr.w lr, [sp, #52]\n"
            "ldr r7, [sp, #0]\n"
            "ldr r5, [sp, #4]\n"
            "ldm r4!, {r0, r1, r2, r3}\n"
            "str r4, [sp, #8]\n"
            "bx r5\n"
            ".p2align 2\n"
            "2:\n" BLOCK BLOCK BLOCK BLOCK "subs.w lr, lr, #1\n"
            "bne.w 2b\n"
            "ldr r7, [sp, #12]\n"
            "ldr.w r9, [sp, #68]\n"
            "ldr.w r10, [sp, #64]\n" CODE("r0") CODE("r1") CODE("r2") CODE("r3") "str r7, [sp, #12]\n"
            "ldr r4, [sp, #60]\n"
            "strb r0, [r4], #1\n"
            "strb r1, [r4], #1\n"
            "strb r2, [r4], #1\n"
            "strb r3, [r4], #1\n"
            "str r4, [sp, #60]\n"
            "ldr r5, [sp, #56]\n"
            "subs r5, #1\n"
            "str r5, [sp, #56]\n"
            "bne.w 1b\n"
            "add sp, #16\n"
            "pop.w {r4, r5, r6, r7, r8, r9, r10, r11, pc}\n");
}
#else
static void run_quads(const int8_t *x, const int8_t *weight, const int32_t *bias, const cl_requant *requant,
                      int32_t blocks, int32_t quads, int8_t *code, int32_t zero_out, int32_t next)
{
    for (; quads > 0; quads--, bias += 4, code += 4) {
        int32_t sum[4] = {bias[0], bias[1], bias[2], bias[3]};
        for (int32_t i = 0; i < blocks; i++) {
            const int8_t *four = x + 4 * i;
            for (int32_t j = 0; j < 4; j++, weight += 4) {
                sum[j] += four[0] * weight[0] + four[1] * weight[1] + four[2] * weight[2] + four[3] * weight[3];
            }
        }
        for (int32_t j = 0; j < 4; j++) {
            code[j] = cl_requantize(sum[j], requant, zero_out);
            requant += next != 0;
        }
    }
}
#endif

void cl_dense_quad(const void *constants, const void *const *rows, void *y, void *scratch, int32_t row)
{
    const struct dense_quad *p = constants;
    const int32_t quads = p->size_out / 4;
    const int32_t next = p->per_channel ? (int32_t)sizeof(cl_requant) : 0;
    int8_t *code = y;
    (void)scratch;
    (void)row;
    run_quads(rows[0], p->weight, p->bias, p->requant, p->blocks, quads, code, p->zero_out, next);
    if (p->size_out % 4 != 0) {
        const int8_t *weight = p->weight + 16 * p->blocks * quads;
        const cl_requant *requant = p->requant + (p->per_channel ? 4 * quads : 0);
        code += p->size_out - 4;
        run_quads(rows[0], weight, p->bias + 4 * quads, requant, p->blocks, 1, code, p->zero_out, next);
    }
}
