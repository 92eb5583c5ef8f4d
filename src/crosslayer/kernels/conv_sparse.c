#include "conv_sparse.h"

#include "sparse.h"

#include <stddef.h>

/* What the window at `left` sees, row by row, to every fourth place of `patch`. */
static void gather(const struct conv_sparse *p, const void *const *rows, int32_t left, int8_t *patch)
{
    const int32_t inside = p->dilation_w == 1 && left >= 0 && left + p->kernel_w <= p->in_w;
    CL_ROLLED
    for (int32_t ky = 0; ky < p->kernel_h; ky++) {
        const int8_t *row = rows[ky];
        const int32_t whole = inside && row != NULL;
        const int32_t runs = whole ? 1 : p->kernel_w;
        const int32_t codes = whole ? p->kernel_w * p->in_c : p->in_c;
        int32_t at = left;
        CL_ROLLED
        for (int32_t kx = 0; kx < runs; kx++, at += p->dilation_w) {
            const int8_t *from = row != NULL && at >= 0 && at < p->in_w ? row + at * p->in_c : p->padding;
            int32_t left_over = codes;
            CL_ROLLED
            for (; left_over >= 4; left_over -= 4, from += 4, patch += 16) {
                patch[0] = from[0];
                patch[4] = from[1];
                patch[8] = from[2];
                patch[12] = from[3];
            }
            CL_ROLLED
            for (; left_over > 0; left_over--, from++, patch += 4) {
                patch[0] = from[0];
            }
        }
    }
}

/* All channels of up to four places. */
static void run_four(const struct conv_sparse *p, const int8_t *patch, int8_t *code, int32_t places)
{
    const uint32_t *mask = p->mask;
    const int8_t *weight = p->weight;
    const cl_requant *requant = p->requant;
    const int32_t next = p->per_channel != 0;
    CL_ROLLED
    for (int32_t o = 0; o < p->out_c; o++, code++) {
        int32_t sum[4];
        cl_sparse_four(mask, p->words, weight, patch, p->bias[o], sum);
        CL_ROLLED
        for (int32_t i = 0; i < places; i++) {
            code[i * p->out_c] = cl_requantize(sum[i], requant, p->zero_out);
        }
        mask += p->words;
        weight += p->stored[o];
        requant += next;
    }
}

/* All channels of one place. */
static void run_one(const struct conv_sparse *p, const int8_t *patch, int8_t *code)
{
    const uint32_t *mask = p->mask;
    const int8_t *weight = p->weight;
    const cl_requant *requant = p->requant;
    const int32_t next = p->per_channel != 0;
    CL_ROLLED
    for (int32_t o = 0; o < p->out_c; o++) {
        code[o] = cl_requantize(cl_sparse_one(mask, p->words, weight, patch, 4, p->bias[o]), requant, p->zero_out);
        mask += p->words;
        weight += p->stored[o];
        requant += next;
    }
}

void cl_conv_sparse(const void *constants, const void *const *rows, void *y, void *scratch, int32_t row)
{
    const struct conv_sparse *p = constants;
    int8_t *patch = scratch, *code = y;
    int32_t left = -p->pad_left;
    (void)row;
    CL_ROLLED
    for (int32_t ox = 0; ox < p->out_w; ox += 4, code += 4 * p->out_c) {
        const int32_t more = p->out_w - ox, places = more < 4 ? more : 4;
        CL_ROLLED
        for (int32_t i = 0; i < places; i++, left += p->stride_w) {
            gather(p, rows, left, patch + i);
        }
        if (places > 1) {
            run_four(p, patch, code, places);
        } else {
            run_one(p, patch, code);
        }
    }
}
