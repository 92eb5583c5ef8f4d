/* y = x with margins whose bytes are `fill`; all of `pixel` bytes each.
   x (in_h, in_w), y (out_h, out_w), not overlapping x. */
#include "arithmetic.h"

struct pad {
    int32_t in_h, in_w, pixel, out_h, out_w, top, left, fill;
};

CL_KERNEL void pad(const struct pad *p, const void *x, void *y)
{
    const int8_t *from = x;
    int8_t *to = y;
    for (int32_t oy = 0; oy < p->out_h; oy++) {
        for (int32_t ox = 0; ox < p->out_w; ox++) {
            const int32_t iy = oy - p->top;
            const int32_t ix = ox - p->left;
            const int32_t inside = iy >= 0 && iy < p->in_h && ix >= 0 && ix < p->in_w;
            for (int32_t c = 0; c < p->pixel; c++) {
                *to++ = inside ? from[(iy * p->in_w + ix) * p->pixel + c] : (int8_t)p->fill;
            }
        }
    }
}
