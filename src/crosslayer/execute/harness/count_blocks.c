/* Counts the instructions of each basic block that the emulator enters. In C, because the hook runs at every block. */
#include <stdint.h>

typedef struct {
    uint32_t bytes;        /* of the block that starts here, as last seen */
    uint32_t instructions; /* in those bytes */
    uint64_t executed;     /* instructions, over all visits */
} Block;

typedef struct {
    const uint8_t *code; /* the flash image */
    uint64_t base;       /* its address */
    uint64_t bytes;
    Block *blocks;     /* one per halfword of `code` */
    uint64_t executed; /* instructions so far */
    uint64_t limit;    /* the run is stopped when `executed` gets there */
    uint64_t last;     /* address of the block entered last */
    int32_t thumb;     /* else RISC-V */
    int (*stop)(void *);
    uint64_t make; /* address of cl_make, whose second argument points into the table of steps; or none */
    uint64_t steps;
    uint64_t step_bytes;
    uint64_t step_count;
    uint64_t *by_step; /* executed since each step began until the next one did */
    uint64_t step;     /* that runs; step_count before the first one */
    int32_t second;    /* register of the second argument */
    int (*read)(void *, int, void *);
} Counter;

/* The length rule of the two instruction sets: Thumb (ARMv7-M manual A5.1), RISC-V with C (unprivileged manual 1.5). */
static uint32_t instructions_in(const uint8_t *code, uint32_t bytes, int32_t thumb) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < bytes; count++) {
        const uint32_t halfword = (uint32_t)code[i] | (uint32_t)code[i + 1] << 8;
        const int wide = thumb ? halfword >= 0xE800u : (halfword & 3u) == 3u;
        i += wide ? 4u : 2u;
    }
    return count;
}

/* A Unicorn block hook. IT-skipped instructions are in the block and count, as they take their slot on the core. */
void crosslayer_count_block(void *engine, uint64_t address, uint32_t bytes, void *user) {
    Counter *counter = user;
    const uint64_t offset = address - counter->base;
    counter->last = address;
    if (offset >= counter->bytes || bytes > counter->bytes - offset) {
        return;
    }
    Block *block = &counter->blocks[offset >> 1];
    if (block->bytes != bytes) {
        block->bytes = bytes;
        block->instructions = instructions_in(counter->code + offset, bytes, counter->thumb);
    }
    if (address == counter->make) {
        uint64_t argument = 0;
        counter->read(engine, counter->second, &argument);
        counter->step = ((argument & 0xFFFFFFFFu) - counter->steps) / counter->step_bytes;
    }
    if (counter->step < counter->step_count) {
        counter->by_step[counter->step] += block->instructions;
    }
    block->executed += block->instructions;
    counter->executed += block->instructions;
    if (counter->executed >= counter->limit) {
        counter->stop(engine);
    }
}
