#include "weight_restore.h"

const void *cl_group(const cl_checked *checked, int32_t group, int32_t *words)
{
    const cl_region *region = checked->regions;
    int32_t first = group * CL_CHECK_WORDS;
    while (first >= region->count) {
        first -= (region->count + CL_CHECK_WORDS - 1) / CL_CHECK_WORDS * CL_CHECK_WORDS;
        region++;
    }
    *words = region->count - first < CL_CHECK_WORDS ? region->count - first : CL_CHECK_WORDS;
    return (const uint32_t *)region->words + first;
}

int cl_restore(const cl_checked *checked, const uint32_t *parity, int32_t rows, int32_t group, uint32_t *content)
{
    const int32_t row = group % rows;
    int32_t words;
    CL_ROLLED
    for (int32_t i = 0; i < CL_CHECK_WORDS; i++) {
        content[i] = parity[row * CL_CHECK_WORDS + i];
    }
    for (int32_t other = row; other < checked->group_count; other += rows) {
        const uint8_t *at = cl_group(checked, other, &words);
        CL_ROLLED
        for (int32_t i = 0; other != group && i < words; i++) {
            content[i] ^= cl_word(at + 4 * i);
        }
    }
    (void)cl_group(checked, group, &words);
    const cl_region made = {content, words};
    const cl_checked one = {&made, &checked->signatures[group], checked->factors, 1, 1};
    return cl_check(&one, 0, 1) < 0 ? 0 : -1;
}
