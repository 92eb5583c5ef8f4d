/* y[p, c] = largest code of each window; padded places do not count.
   x (in_h, in_w, in_c), y (out_h, out_w, in_c), not overlapping x; no window lies wholly in the padding. */
#include "arithmetic.h"

struct max_pool {
    int32_t in_h, in_w, in_c, out_h, out_w, out_c;
    int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left, wide;
};

CL_KERNEL void max_pool(const struct max_pool *p, const void *x, void *y)
{
    for (int32_t oy = 0; oy < p->out_h; oy++) {
        const int32_t top = oy * p->stride_h - p->pad_top;
        const int32_t ky_from = cl_from(top, p->dilation_h);
        const int32_t ky_to = cl_to(top, p->dilation_h, p->in_h, p->kernel_h);
        for (int32_t ox = 0; ox < p->out_w; ox++) {
            const int32_t left = ox * p->stride_w - p->pad_left;
            const int32_t kx_from = cl_from(left, p->dilation_w);
            const int32_t kx_to = cl_to(left, p->dilation_w, p->in_w, p->kernel_w);
            for (int32_t c = 0; c < p->in_c; c++) {
                int32_t best = p->wide ? INT16_MIN : INT8_MIN;
                for (int32_t ky = ky_from; ky < ky_to; ky++) {
                    for (int32_t kx = kx_from; kx < kx_to; kx++) {
                        const int32_t pixel = (top + ky * p->dilation_h) * p->in_w + left + kx * p->dilation_w;
                        const int32_t value = cl_code(x, pixel * p->in_c + c, p->wide);
                        best = value > best ? value : best;
                    }
                }
                y = cl_put(y, p->wide, best);
            }
        }
    }
}
