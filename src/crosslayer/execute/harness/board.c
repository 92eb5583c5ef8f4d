/* What the emulator needs beside the model, in a section of its own so that it is not counted as the model's flash. */
#include <stdint.h>

#include "model.h"

#define HARNESS(kind) __attribute__((used, section(".harness." kind)))

#ifndef MODEL_ROWS
#define MODEL_ROWS 0 /* the input is taken whole */
#endif

HARNESS("rodata") const uint32_t crosslayer_sizes[] = {MODEL_ARENA_BYTES, MODEL_INPUT_BYTES, MODEL_OUTPUT_BYTES,
                                                       MODEL_ROWS};

#ifdef MODEL_FETCHED_BYTES
/* Constants lie where they were linked. Word by word, and volatile, or the compiler calls memcpy, the model's own. */
HARNESS("text") void model_fetch(void *to, const void *from, size_t bytes) {
    size_t i = 0;
    for (; i + 4 <= bytes; i += 4) {
        *(volatile uint32_t *)((uint8_t *)to + i) = *(const uint32_t *)((const uint8_t *)from + i);
    }
    for (; i < bytes; i++) {
        ((volatile uint8_t *)to)[i] = ((const uint8_t *)from)[i];
    }
}
#endif

/* The linker drops what nothing refers to. */
HARNESS("rodata") const struct {
    void *(*input)(void *);
    const void *(*output)(const void *);
    int (*run)(void *);
#if MODEL_ROWS
    int (*push)(void *);
} crosslayer_api = {model_input, model_output, model_begin, model_push};
#elif defined(MODEL_KNOWN_STEPS)
    int (*run_known)(void *);
} crosslayer_api = {model_input, model_output, model_run, model_run_known};
#else
} crosslayer_api = {model_input, model_output, model_run};
#endif

/* model_run returns to here: ordinary executable memory, since 0xFFxxxxxx means an exception return on Cortex-M. */
HARNESS("text") void crosslayer_return(void) {
    for (;;) {
    }
}
