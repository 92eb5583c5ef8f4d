/* Runs samples one after the other in an arena of the caller. */
#include "feed.h"

const uint32_t crosslayer_sizes[] = {MODEL_ARENA_BYTES, MODEL_INPUT_BYTES, MODEL_OUTPUT_BYTES};

/* outputs[i] = model(inputs[i]), each in an arena full of `poison`. Returns the number of samples done; fewer than
   `samples` means that the next one made model_run return `*status`. */
int64_t crosslayer_run_many(const uint8_t *inputs, uint8_t *outputs, int64_t samples, uint8_t *arena, uint8_t poison,
                            int32_t *status) {
    for (int64_t i = 0; i < samples; i++) {
        memset(arena, poison, MODEL_ARENA_BYTES);
        *status = feed(arena, inputs + i * MODEL_INPUT_BYTES);
        if (*status != 0) {
            return i;
        }
        memcpy(outputs + i * MODEL_OUTPUT_BYTES, model_output(arena), MODEL_OUTPUT_BYTES);
    }
    return samples;
}
