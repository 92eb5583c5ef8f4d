#include "depthwise_quad.h"

#include "vectors.h"

#include <stddef.h>

/* Codes of `pixels` neighbouring places, of each `quads` times four channels: from the `channel`-th code of each of
   `count` taps on, and x_step and y_step beyond what a place took for the next one. */
#if CL_MVE
/* Eight channels from `channel` on, of one or two places, a constant of the call. */
static inline __attribute__((always_inline)) void run_eight(const int8_t *const *taps, const int16_t *weight,
                                                            const cl_quad *records, int32_t count, int32_t channel,
                                                            int8_t *code, int32_t zero_out, int32_t x_step,
                                                            int32_t y_step, int32_t two)
{
    const uint16_t other = (uint16_t)(4 * count), quad = sizeof(cl_quad), next = sizeof(cl_requant);
    const uint16x8_t order = {0, 2, 1, 3, other, other + 2, other + 1, other + 3};
    const uint32x4_t biases = {0, 8, quad, quad + 8};
    const uint32x4_t factors = {0, 2 * next, quad, quad + 2 * next};
    const uint32x4_t bias = cl_places(records->bias, biases);
    int32x4_t even = vldrwq_gather_base_s32(bias, 0), odd = vldrwq_gather_base_s32(bias, 4);
    int32x4_t second_even = even, second_odd = odd;
    for (int32_t i = 0; i < count; i++, weight += 4) {
        const int8_t *codes = taps[i] + channel;
        const int16x8_t w = vldrhq_gather_shifted_offset_s16(weight, order);
        const int16x8_t x = vldrbq_s16(codes);
        even = vaddq_s32(even, vmullbq_int_s16(x, w));
        odd = vaddq_s32(odd, vmulltq_int_s16(x, w));
        if (two) {
            const int16x8_t z = vldrbq_s16(codes + x_step);
            second_even = vaddq_s32(second_even, vmullbq_int_s16(z, w));
            second_odd = vaddq_s32(second_odd, vmulltq_int_s16(z, w));
        }
    }
    const uint32x4_t even_factors = cl_places(records->requant, factors);
    const uint32x4_t odd_factors = cl_places(records->requant + 1, factors);
    even = cl_requantize_four(even, even_factors, zero_out);
    odd = cl_requantize_four(odd, odd_factors, zero_out);
    if (two) {
        second_even = cl_requantize_four(second_even, even_factors, zero_out);
        second_odd = cl_requantize_four(second_odd, odd_factors, zero_out);
        cl_store_eight(code + y_step, second_even, second_odd);
    }
    cl_store_eight(code, even, odd);
}

/* Four channels of one place. */
static void run_four(const int8_t *const *taps, const int16_t *weight, const cl_quad *record, int32_t count,
                     int32_t channel, int8_t *code, int32_t zero_out)
{
    const uint32x4_t order = {0, 2, 1, 3};
    const uint32x4_t factors = {0, sizeof(cl_requant), 2 * sizeof(cl_requant), 3 * sizeof(cl_requant)};
    int32x4_t sums = vld1q_s32(record->bias);
    for (int32_t i = 0; i < count; i++, weight += 4) {
        const int32x4_t w = vldrhq_gather_shifted_offset_s32(weight, order);
        sums = vaddq_s32(sums, vmulq_s32(vldrbq_s32(taps[i] + channel), w));
    }
    sums = cl_requantize_four(sums, cl_places(record->requant, factors), zero_out);
    vstrbq_s32(code, cl_saturate_four(sums));
}

static void run_quads(const int8_t *const *taps, const int16_t *weight, const cl_quad *records, int32_t count,
                      int32_t channel, int32_t quads, int8_t *code, int32_t zero_out, int32_t pixels, int32_t x_step,
                      int32_t y_step)
{
    x_step += 4 * quads;
    y_step += 4 * quads;
    for (; quads >= 2; quads -= 2, weight += 8 * count, records += 2, channel += 8, code += 8) {
        int32_t from = channel, left = pixels;
        int8_t *to = code;
        for (; left >= 2; left -= 2, from += 2 * x_step, to += 2 * y_step) {
            run_eight(taps, weight, records, count, from, to, zero_out, x_step, y_step, 1);
        }
        if (left != 0) {
            run_eight(taps, weight, records, count, from, to, zero_out, 0, 0, 0);
        }
    }
    for (int32_t pixel = 0; quads != 0 && pixel < pixels; pixel++, channel += x_step, code += y_step) {
        run_four(taps, weight, records, count, channel, code, zero_out);
    }
}
#elif CL_DSP && (!CL_RULE_FLOAT || defined(__ARM_FP))
/* r0 to r3 are the sums; r7 runs over the taps, r11 over the weights; r6 is the channel, lr counts taps. The stack frame:
   0 records, 4 quads left, 8 taps, 12 weight, 16 all records, 20 count, 24 saved registers, 60 channel, 64 quads, 68 code,
   72 zero_out, 76 pixels, 80 x_step, 84 y_step. */

/* `tap`: where a tap lies, then its codes 1 and 3; r5 its codes 0 and 2; r8 and r9 weights */
#define TAP(tap) \
    "ldr.w " tap ", [" tap ", r6]\n" \
    "ldm.w r11!, {r8, r9}\n" \
    "sxtb16 r5, " tap "\n" \
    "sxtb16 " tap ", " tap ", ror #8\n" \
    "smlabb r0, r5, r8, r0\n" \
    "smlatt r2, r5, r8, r2\n" \
    "smlabb r1, " tap ", r9, r1\n" \
    "smlatt r3, " tap ", r9, r3\n"

#if CL_RULE_FLOAT
#define FIRST "ldr.w r9, [sp, #72]\n"
#define CODE(sum) \
    "ldr r4, [r7], #4\n" \
    "vmov s0, " sum "\n" \
    "vmov s1, r4\n" \
    "vcvt.f32.s32 s0, s0\n" \
    "vmul.f32 s0, s0, s1\n" \
    "vcvtr.s32.f32 s0, s0\n" \
    "vmov " sum ", s0\n" \
    "qadd " sum ", " sum ", r9\n" \
    "ssat " sum ", #8, " sum "\n"
#else
#define FIRST
#define CODE(sum) \
    "ldm.w r7!, {r4, r5, r8}\n" \
    "lsls " sum ", " sum ", #1\n" \
    "smmulr " sum ", " sum ", r4\n" \
    "add.w " sum ", " sum ", " sum ", asr #31\n" \
    "add " sum ", r5\n" \
    "asr.w " sum ", " sum ", r8\n" \
    "ssat " sum ", #8, " sum "\n"
#endif

__attribute__((naked)) static void run_quads(const int8_t *const *taps, const int16_t *weight, const cl_quad *records,
                                             int32_t count, int32_t channel, int32_t quads, int8_t *code,
                                             int32_t zero_out, int32_t pixels, int32_t x_step, int32_t y_step)
{
    __asm__("push.w {r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, lr}\n"
            "sub sp, #8\n"
            "0:\n"
            "ldr r4, [sp, #16]\n"
            "str r4, [sp, #0]\n"
            "ldr r5, [sp, #64]\n"
            "str r5, [sp, #4]\n"
            "ldr.w r11, [sp, #12]\n"
            "1:\n"
            "ldr r4, [sp, #0]\n"
            "ldr r7, [sp, #8]\n"
            "ldr r6, [sp, #60]\n"
            "ldr.w lr, [sp, #20]\n"
            "ldm r4!, {r0, r1, r2, r3}\n"
            "str r4, [sp, #0]\n"
            "subs.w lr, lr, #3\n"
            "bmi 3f\n"
            "2:\n"
            "ldm.w r7!, {r4, r10, r12}\n" TAP("r4") TAP("r10") TAP("r12") "subs.w lr, lr, #3\n"
            "bpl 2b\n"
            "3:\n"
            "adds.w lr, lr, #3\n"
            "beq 5f\n"
            "4:\n"
            "ldr r4, [r7], #4\n" TAP("r4") "subs.w lr, lr, #1\n"
            "bne 4b\n"
            "5:\n"
            "ldr r7, [sp, #0]\n" FIRST CODE("r0") CODE("r1") CODE("r2") CODE("r3") "str r7, [sp, #0]\n"
            "ldr r4, [sp, #68]\n"
            "strb r0, [r4], #1\n"
            "strb r1, [r4], #1\n"
            "strb r2, [r4], #1\n"
            "strb r3, [r4], #1\n"
            "str r4, [sp, #68]\n"
            "adds r6, #4\n"
            "str r6, [sp, #60]\n"
            "ldr r5, [sp, #4]\n"
            "subs r5, #1\n"
            "str r5, [sp, #4]\n"
            "bne.w 1b\n"
            "ldr r5, [sp, #80]\n"
            "add r6, r5\n"
            "str r6, [sp, #60]\n"
            "ldr r5, [sp, #84]\n"
            "add r4, r5\n"
            "str r4, [sp, #68]\n"
            "ldr r5, [sp, #76]\n"
            "subs r5, #1\n"
            "str r5, [sp, #76]\n"
            "bne.w 0b\n"
            "add sp, #24\n"
            "pop.w {r4, r5, r6, r7, r8, r9, r10, r11, pc}\n");
}
#else
static void run_quads(const int8_t *const *taps, const int16_t *weight, const cl_quad *records, int32_t count,
                      int32_t channel, int32_t quads, int8_t *code, int32_t zero_out, int32_t pixels, int32_t x_step,
                      int32_t y_step)
{
    for (; pixels > 0; pixels--, channel += x_step, code += y_step) {
        const int16_t *taken = weight;
        for (int32_t quad = 0; quad < quads; quad++, channel += 4, code += 4) {
            const cl_quad *record = &records[quad];
            int32_t sum[4] = {record->bias[0], record->bias[1], record->bias[2], record->bias[3]};
            for (int32_t i = 0; i < count; i++, taken += 4) {
                const int8_t *codes = taps[i] + channel;
                sum[0] += codes[0] * taken[0];
                sum[2] += codes[2] * taken[1];
                sum[1] += codes[1] * taken[2];
                sum[3] += codes[3] * taken[3];
            }
            for (int32_t i = 0; i < 4; i++) {
                code[i] = cl_requantize(sum[i], &record->requant[i], zero_out);
            }
        }
    }
}
#endif

void cl_depthwise_quad(const void *constants, const void *const *rows, void *y, void *scratch, int32_t row)
{
    const struct depthwise_quad *p = constants;
    const int32_t channels = p->channels, zero_out = p->zero_out;
    const int32_t count = p->kernel_h * p->kernel_w;
    const int32_t quads = channels / 4;
    const int32_t reach = (p->kernel_w - 1) * p->dilation_w;
    const int8_t *taps[CL_MOST_TAPS];
    int8_t *code = y;
    int32_t left = -p->pad_left;
    (void)scratch;
    (void)row;
    for (int32_t ox = 0; ox < p->out_w;) {
        /* places whose windows all lie inside: each tap moves on with the place, padding rows too */
        int32_t run = 1;
        if (left >= 0) {
            CL_ROLLED
            for (int32_t next = left + p->stride_w; ox + run < p->out_w && next + reach < p->in_w; next += p->stride_w) {
                run++;
            }
        }
        const int8_t **tap = taps;
        CL_ROLLED
        for (int32_t ky = 0; ky < p->kernel_h; ky++) {
            const int8_t *codes = rows[ky];
            CL_ROLLED
            for (int32_t kx = 0, at = left; kx < p->kernel_w; kx++, at += p->dilation_w) {
                *tap++ = codes != NULL && at >= 0 && at < p->in_w ? codes + at * channels : p->padding;
            }
        }
        const int32_t x_step = p->stride_w * channels, y_step = channels;
        run_quads(taps, p->weight, p->records, count, 0, quads, code, zero_out, run, x_step - 4 * quads, y_step - 4 * quads);
        if (channels % 4 != 0) {
            const int32_t first = channels - 4;
            run_quads(taps, p->weight + 4 * count * quads, p->records + quads, count, first, 1, code + first, zero_out, run,
                      x_step - 4, y_step - 4);
        }
        ox += run;
        left += run * p->stride_w;
        code += run * channels;
    }
}
