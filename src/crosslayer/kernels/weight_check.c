#include "weight_check.h"

#include "requant.h"

typedef struct {
    const cl_region *region;
    int32_t first; /* word of the region */
} cl_position;

static int32_t smaller(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static cl_position find(const cl_checked *checked, int32_t group)
{
    cl_position found = {checked->regions, group * CL_CHECK_WORDS};
    while (found.first >= found.region->count) {
        found.first -= (found.region->count + CL_CHECK_WORDS - 1) / CL_CHECK_WORDS * CL_CHECK_WORDS;
        found.region++;
    }
    return found;
}

static uint64_t signature(const uint8_t *at, const uint32_t *factors, int32_t words)
{
    uint64_t sum = 0;
#if CL_DSP
    uint32_t low = 0, high = 0;
    int32_t quads = words / 4;
    words %= 4;
    if (quads > 0) {
        __asm__("1: ldm.w %2!, {r4, r5, r6, r8}\n"
                "ldm.w %3!, {r9, r10, r11, r12}\n"
                "subs %4, #1\n"
                "umlal %0, %1, r4, r9\n"
                "umlal %0, %1, r5, r10\n"
                "umlal %0, %1, r6, r11\n"
                "umlal %0, %1, r8, r12\n"
                "bne 1b\n"
                : "+&r"(low), "+&r"(high), "+&r"(at), "+&r"(factors), "+&r"(quads)
                :
                : "r4", "r5", "r6", "r8", "r9", "r10", "r11", "r12", "cc", "memory");
        sum = (uint64_t)high << 32 | low;
    }
#endif
    CL_ROLLED
    for (int32_t i = 0; i < words; i++) {
        sum += (uint64_t)cl_word(at + 4 * i) * factors[i];
    }
    return sum;
}

int32_t cl_check(const cl_checked *checked, int32_t first, int32_t count)
{
    if (first < 0 || first >= checked->group_count) {
        return -1;
    }
    const int32_t last = smaller(count, checked->group_count - first) + first;
    for (cl_position at = find(checked, first); first < last; first++) {
        const uint8_t *words = (const uint8_t *)at.region->words + 4 * at.first;
        const int32_t left = at.region->count - at.first;
        if (signature(words, checked->factors, smaller(left, CL_CHECK_WORDS)) != checked->signatures[first]) {
            return first;
        }
        at.first += CL_CHECK_WORDS;
        if (left <= CL_CHECK_WORDS) {
            at.region++;
            at.first = 0;
        }
    }
    return -1;
}

int32_t cl_check_next(const cl_checked *checked, uint32_t *next)
{
    const int32_t first = *next < (uint32_t)checked->group_count ? (int32_t)*next : 0;
    const int32_t after = first + checked->slice;
    const int32_t bad = cl_check(checked, first, checked->slice);
    *next = (uint32_t)(bad >= 0 ? bad : after < checked->group_count ? after : 0);
    return bad;
}
