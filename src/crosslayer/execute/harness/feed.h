/* One inference on a sample that is whole in memory. */
#include <stdint.h>
#include <string.h>

#include "model.h"

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
