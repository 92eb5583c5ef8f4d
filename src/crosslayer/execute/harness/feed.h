/* One inference on a sample that is whole in memory. */
#include <stdint.h>
#include <string.h>

#include "model.h"

#ifdef MODEL_FETCHED_BYTES
/* How constants are fetched, if not copied. */
void (*crosslayer_fetch)(void *to, const void *from, size_t bytes) = NULL;

void model_fetch(void *to, const void *from, size_t bytes) {
    if (crosslayer_fetch != NULL) {
        crosslayer_fetch(to, from, bytes);
    } else {
        memcpy(to, from, bytes);
    }
}
#endif

static int feed(void *arena, const uint8_t *sample) {
#ifdef MODEL_ROWS
    const int status = model_begin(arena);
    for (int32_t i = 0; status == 0 && i < MODEL_ROWS; i++) {
        memcpy(model_input(arena), sample + i * MODEL_ROW_BYTES, MODEL_ROW_BYTES);
        if (model_push(arena) != (i == MODEL_ROWS - 1)) {
            return -1;
        }
    }
    return status;
#else
    memcpy(model_input(arena), sample, MODEL_INPUT_BYTES);
    return model_run(arena);
#endif
}
