/* A hand-made firmware folder with the same interface as an emitted one. */
#ifndef MODEL_H
#define MODEL_H

#define MODEL_ARENA_ALIGN 16
#define MODEL_ARENA_BYTES 100
#define MODEL_INPUT_BYTES 32
#define MODEL_OUTPUT_BYTES 28

void *model_input(void *arena);
const void *model_output(const void *arena);
int model_run(void *arena);

#endif
