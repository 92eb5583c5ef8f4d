/* y = x with margins that hold `fill`.
   x (in_h, in_w, channels), y (out_h, out_w, channels), not overlapping x. */
#include "arithmetic.h"

struct pad_s8 {
    int32_t in_h, in_w, channels, out_h, out_w, top, left, fill;
};

CL_KERNEL void pad_s8(const struct pad_s8 *p, const int8_t *x, int8_t *y)
{
    for (int32_t oy = 0; oy < p->out_h; oy++) {
        for (int32_t ox = 0; ox < p->out_w; ox++) {
            const int32_t iy = oy - p->top;
            const int32_t ix = ox - p->left;
            const int32_t inside = iy >= 0 && iy < p->in_h && ix >= 0 && ix < p->in_w;
            for (int32_t c = 0; c < p->channels; c++) {
                *y++ = inside ? x[(iy * p->in_w + ix) * p->channels + c] : (int8_t)p->fill;
            }
        }
    }
}
