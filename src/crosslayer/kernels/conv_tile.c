#include "conv_tile.h"

#include "expand.h"
#include "vectors.h"

#include <stddef.h>

/* The codes at one place of a row, or padding. */
static inline const int8_t *place(const struct conv_tile *p, const int8_t *row, int32_t at)
{
    return row != NULL && at >= 0 && at < p->in_w ? row + at * p->in_c : p->padding;
}

#if CL_MVE
static int32_t from_zero_to(int32_t v, int32_t most)
{
    return v < 0 ? 0 : (v < most ? v : most);
}

/* One row of what `gather` does, where not all of it lies inside. */
CL_APART static int8_t *gather_edge(const struct conv_tile *p, const int8_t *row, int32_t left, int32_t width,
                                    int8_t *patch)
{
    const int32_t depth = p->in_c;
    if (p->dilation_w != 1) {
        for (int32_t kx = 0; kx < width; kx++) {
            patch = cl_copy_codes(patch, place(p, row, left + kx * p->dilation_w), depth);
        }
        return patch;
    }
    const int32_t before = row == NULL ? width : from_zero_to(-left, width);
    const int32_t behind = row == NULL ? 0 : from_zero_to(left + width - p->in_w, width);
    patch = cl_repeat_code(patch, p->padding[0], before * depth);
    if (before + behind < width) {
        patch = cl_copy_codes(patch, row + (left + before) * depth, (width - before - behind) * depth);
    }
    return cl_repeat_code(patch, p->padding[0], behind * depth);
}

/* What a window at `left` and `width` wide sees, row by row, as a patch; returns where the next one goes. */
static int8_t *gather(const struct conv_tile *p, const void *const *rows, int32_t left, int32_t width, int8_t *patch)
{
    const int32_t inside = p->dilation_w == 1 && left >= 0 && left + width <= p->in_w;
    const int32_t start = left * p->in_c, count = width * p->in_c;
    for (int32_t ky = 0; ky < p->kernel_h; ky++) {
        const int8_t *row = rows[ky];
        if (inside && row != NULL) {
            patch = cl_copy_codes(patch, row + start, count);
        } else {
            patch = gather_edge(p, row, left, width, patch);
        }
    }
    return patch;
}

void cl_conv_tile(const void *constants, const void *const *rows, void *y, void *scratch, int32_t row)
{
    const struct conv_tile *p = constants;
    const int32_t count = p->kernel_h * p->kernel_w * p->in_c;
    /* two neighbours are one window */
    const int32_t together = p->kernel_h * p->kernel_w * p->stride_w * p->dilation_w == 1;
    const int32_t pairs = p->out_c / 2;
    const int8_t *last_weight = p->weight + pairs * p->blocks * 8;
    const cl_pair *last_record = p->records + pairs;
    int8_t *patch = scratch;
    int8_t *code = y;
    int32_t left = -p->pad_left;
    (void)row;
    for (int32_t ox = 0; ox < p->out_w; ox += 2, code += 2 * p->out_c, left += 2 * p->stride_w) {
        int8_t *end = code + p->out_c - 2;
        if (ox + 1 < p->out_w) {
            int8_t *next = gather(p, rows, left, together ? 2 : p->kernel_w, patch);
            if (!together) {
                (void)gather(p, rows, left + p->stride_w, p->kernel_w, next);
            }
            cl_tile_two(patch, patch + count, count, p->weight, p->records, pairs, code, p->out_c, p->zero_out);
            if (p->out_c % 2 != 0) {
                cl_tile_two(patch, patch + count, count, last_weight, last_record, 1, end, p->out_c, p->zero_out);
            }
        } else {
            (void)gather(p, rows, left, p->kernel_w, patch);
            cl_tile_one(patch, count, p->weight, p->records, pairs, code, p->zero_out);
            if (p->out_c % 2 != 0) {
                cl_tile_one(patch, count, last_weight, last_record, 1, end, p->zero_out);
            }
        }
    }
}
#else
/* What the windows at `left` and `right` see, row by row, as two patches; `left` may be `right`. */
static void gather(const struct conv_tile *p, const void *const *rows, int32_t left, int32_t right, int16_t *patch)
{
    const int32_t inside = p->dilation_w == 1 && left >= 0 && right + p->kernel_w <= p->in_w;
    const int32_t runs = inside ? 1 : p->kernel_w;
    const int32_t length = inside ? p->kernel_w * p->in_c : p->in_c;
    const int32_t words = p->in_c % 4 == 0;
    int8_t *first = (int8_t *)(patch + 8 * p->blocks);
    int8_t *second = first + 4 * p->blocks;
    const int8_t *const start = first, *const middle = second;
    if (p->kernel_w * p->kernel_h == 1 && inside && right + 3 < p->in_w && rows[0] != NULL) {
        const int8_t *row = rows[0]; /* up to three codes more are read, and multiplied by zero */
        (void)cl_expand_two(row + left * p->in_c, row + right * p->in_c, patch, p->blocks);
        return;
    }
    for (int32_t ky = 0; ky < p->kernel_h; ky++) {
        const int8_t *row = rows[ky];
        const int32_t whole = inside && row != NULL;
        const int32_t count = whole ? runs : p->kernel_w;
        const int32_t codes = whole ? length : p->in_c;
        for (int32_t kx = 0; kx < count; kx++) {
            const int8_t *a = place(p, row, left + kx * p->dilation_w);
            const int8_t *b = place(p, row, right + kx * p->dilation_w);
            if (words) {
                patch = cl_expand_two(a, b, patch, codes / 4);
            } else {
                first = cl_copy(first, a, codes);
                second = cl_copy(second, b, codes);
            }
        }
    }
    if (!words) {
        (void)cl_expand_two(start, middle, patch, p->blocks);
    }
}

void cl_conv_tile(const void *constants, const void *const *rows, void *y, void *scratch, int32_t row)
{
    const struct conv_tile *p = constants;
    const int32_t pairs = p->out_c / 2;
    const int8_t *last_weight = p->weight + pairs * p->blocks * 8;
    const cl_pair *last_record = p->records + pairs;
    int16_t *patch = scratch;
    int8_t *code = y;
    int32_t left = -p->pad_left;
    (void)row;
    for (int32_t ox = 0; ox < p->out_w; ox += 2, code += 2 * p->out_c, left += 2 * p->stride_w) {
        int8_t *end = code + p->out_c - 2;
        if (ox + 1 < p->out_w) {
            gather(p, rows, left, left + p->stride_w, patch);
            cl_tile_two(patch, p->weight, p->records, pairs, p->blocks, code, p->out_c, p->zero_out);
            if (p->out_c % 2 != 0) {
                cl_tile_two(patch, last_weight, last_record, 1, p->blocks, end, p->out_c, p->zero_out);
            }
        } else {
            gather(p, rows, left, left, patch);
            cl_tile_one(patch, p->weight, p->records, pairs, p->blocks, code, p->zero_out);
            if (p->out_c % 2 != 0) {
                cl_tile_one(patch, last_weight, last_record, 1, p->blocks, end, p->zero_out);
            }
        }
    }
}
#endif
