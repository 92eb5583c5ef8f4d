/* What the emulator needs beside the model, in a section of its own so that it is not counted as the model's flash. */
#include <stdint.h>

#include "model.h"

#define HARNESS(kind) __attribute__((used, section(".harness." kind)))

#ifndef MODEL_ROWS
#define MODEL_ROWS 0 /* the input is taken whole */
#endif

HARNESS("rodata") const uint32_t crosslayer_sizes[] = {MODEL_ARENA_BYTES, MODEL_INPUT_BYTES, MODEL_OUTPUT_BYTES,
                                                       MODEL_ROWS};

/* The linker drops what nothing refers to. */
HARNESS("rodata") const struct {
    void *(*input)(void *);
    const void *(*output)(const void *);
    int (*run)(void *);
#if MODEL_ROWS
    int (*push)(void *);
} crosslayer_api = {model_input, model_output, model_begin, model_push};
#else
} crosslayer_api = {model_input, model_output, model_run};
#endif

/* model_run returns to here: ordinary executable memory, since 0xFFxxxxxx means an exception return on Cortex-M. */
HARNESS("text") void crosslayer_return(void) {
    for (;;) {
    }
}
