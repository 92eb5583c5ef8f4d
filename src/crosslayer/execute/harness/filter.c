/* Samples from standard input to standard output through the model, in an arena of exactly its size on the heap: what a
   sanitizer can watch. The first argument is the byte that fills the arena before each sample. */
#define _POSIX_C_SOURCE 200112L
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "feed.h"

int main(int argc, char **argv) {
    const int poison = argc > 1 ? atoi(argv[1]) : 0;
    uint8_t *input = malloc(MODEL_INPUT_BYTES);
    void *arena = NULL;
    if (input == NULL || posix_memalign(&arena, 16, MODEL_ARENA_BYTES) != 0) {
        fputs("out of memory\n", stderr);
        return 3;
    }
    while (fread(input, 1, MODEL_INPUT_BYTES, stdin) == MODEL_INPUT_BYTES) {
        memset(arena, poison, MODEL_ARENA_BYTES);
        const int status = feed(arena, input);
        if (status != 0) {
            fprintf(stderr, "model_run returned %d\n", status);
            return 3;
        }
        fwrite(model_output(arena), 1, MODEL_OUTPUT_BYTES, stdout);
    }
    free(arena);
    free(input);
    return 0;
}
