/* The firmware as a program of its own on QEMU's mps3-an547: reads samples from the host by semihosting, runs them one
   after the other, writes an answer to each. What goes wrong ends in an answer too. */
#include <stdint.h>

#include "model.h"

#define HARNESS(kind) __attribute__((used, section(".harness." kind)))
#define TEXT HARNESS("text") static
#define REGISTER(address) (*(volatile uint32_t *)(address))
#define UP(size, step) (((uint32_t)(size) + (step) - 1u) / (step) * (step))

/* Beside the places of an547.ld, each far from the next. MPU regions are whole pages: finer ones are slow in QEMU. */
#define PAGE 0x1000u
#define FLASH 0x60000000u
#define STATIC_DATA 0x68000000u
#define OWN_STACK 0x6F000000u
#define STACK 0x71000000u
#define STACK_BYTES 0x4000u
#define ARENA_PAGES 0x78000000u
#define ARENA (ARENA_PAGES + UP(MODEL_ARENA_BYTES, PAGE) - UP(MODEL_ARENA_BYTES, 16u)) /* an overrun faults */
#define GUARD 0x3Cu

/* An answer's first word. qemu.py has the same numbers. */
enum { DONE, RETURNED, WROTE_OUTSIDE, INPUT_OUTSIDE, OUTPUT_OUTSIDE, FAULTED, STACK_DEPTH };

/* Arm, "Semihosting for AArch32 and AArch64": operations, modes of SYS_OPEN, reason of SYS_EXIT. */
enum { SYS_OPEN = 0x01, SYS_WRITE = 0x05, SYS_READ = 0x06, SYS_EXIT = 0x18 };
enum { READ_BINARY = 1, WRITE_BINARY = 5, APPEND_BINARY = 9, APPLICATION_EXIT = 0x20026 };

extern const uint8_t crosslayer_flash_end[], crosslayer_static_end[];

HARNESS("rodata") static const char samples_name[] = "samples";
HARNESS("rodata") static const char answers_name[] = "answers";

TEXT uint32_t call_host(uint32_t operation, uint32_t parameter) {
    register uint32_t r0 __asm__("r0") = operation;
    register uint32_t r1 __asm__("r1") = parameter;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

TEXT uint32_t open_file(const char *name, uint32_t mode) {
    const volatile uint32_t block[3] = {(uint32_t)name, mode, sizeof samples_name - 1}; /* both names are as long */
    return call_host(SYS_OPEN, (uint32_t)block);
}

/* Both give the bytes not transferred. */
TEXT uint32_t read_file(uint32_t file, void *to, uint32_t bytes) {
    const volatile uint32_t block[3] = {file, (uint32_t)to, bytes};
    return call_host(SYS_READ, (uint32_t)block);
}

TEXT uint32_t write_file(uint32_t file, const void *from, uint32_t bytes) {
    const volatile uint32_t block[3] = {file, (uint32_t)from, bytes};
    return call_host(SYS_WRITE, (uint32_t)block);
}

TEXT void answer(uint32_t file, uint32_t what, uint32_t first, uint32_t second, uint32_t third) {
    const uint32_t words[4] = {what, first, second, third};
    (void)write_file(file, words, sizeof words);
}

TEXT void stop(void) {
    for (;;) {
        (void)call_host(SYS_EXIT, APPLICATION_EXIT);
    }
}

/* Volatile here and below, or the compiler calls memset, which would count as the model's. */
TEXT void fill(uint32_t address, uint32_t bytes, uint8_t byte) {
    for (uint32_t i = 0; i < bytes; i++) {
        ((volatile uint8_t *)address)[i] = byte;
    }
}

TEXT int is_filled(uint32_t address, uint32_t bytes, uint8_t byte) {
    uint32_t i = 0;
    while (i < bytes && ((const volatile uint8_t *)address)[i] == byte) {
        i++;
    }
    return i == bytes;
}

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

/* What the stack holds before it is used: no byte that a program writes often. */
TEXT uint8_t paint(uint32_t address) { return (uint8_t)(address * 2654435761u >> 24); }

TEXT uint32_t stack_depth(void) {
    uint32_t i = 0;
    while (i < STACK_BYTES && ((const volatile uint8_t *)STACK)[i] == paint(STACK + i)) {
        i++;
    }
    return STACK_BYTES - i;
}

/* model_run on a stack of its own, so that a fault for want of stack leaves the harness one to report it with. */
HARNESS("text") __attribute__((naked)) static int run_on(void *arena, uint32_t stack) {
    __asm__ volatile("push {r4, lr}\n"
                     "msr psp, r1\n"
                     "mrs r4, control\n"
                     "orr r1, r4, #2\n"
                     "msr control, r1\n"
                     "isb\n"
                     "bl model_run\n"
                     "msr control, r4\n"
                     "isb\n"
                     "pop {r4, pc}\n");
}

/* The program counter is word 6 of the stacked frame (Armv8-M manual, context stacking), if there was room for one. */
HARNESS("text") static void report_fault(const uint32_t *frame) {
    const uint32_t status = REGISTER(0xE000ED28u);  /* CFSR */
    const uint32_t no_frame = 1u << 4 | 1u << 12;   /* MSTKERR, STKERR */
    const uint32_t address = REGISTER(0xE000ED34u); /* MMFAR */
    answer(open_file(answers_name, APPEND_BINARY), FAULTED, status & no_frame ? 0 : frame[6], status, address);
    stop();
}

HARNESS("text") __attribute__((naked)) static void fault(void) {
    __asm__ volatile("tst lr, #4\n"
                     "ite eq\n"
                     "mrseq r0, msp\n"
                     "mrsne r0, psp\n"
                     "b %0\n" ::"i"(report_fault));
}

enum { WRITABLE = 1 /* and never executed */, READ_ONLY = 4 };

/* Armv8-M manual: MPU_RNR, MPU_RBAR, MPU_RLAR. */
TEXT void fence(uint32_t region, uint32_t start, uint32_t end, uint32_t access) {
    REGISTER(0xE000ED98u) = region;
    REGISTER(0xE000ED9Cu) = start | access;
    REGISTER(0xE000EDA0u) = (UP(end, PAGE) - 32u) | 1u;
}

HARNESS("text") static void start(void) {
    REGISTER(0xE000ED88u) |= 0xFu << 20; /* CPACR: FPU and MVE on */
    REGISTER(0xE000EDC0u) = 0xFFu;       /* MPU_MAIR0: cached memory */
    fence(0, FLASH, (uint32_t)crosslayer_flash_end, READ_ONLY);
    fence(1, STACK, STACK + STACK_BYTES, WRITABLE);
    fence(2, ARENA_PAGES, ARENA_PAGES + UP(MODEL_ARENA_BYTES, PAGE), WRITABLE);
    fence(3, OWN_STACK, OWN_STACK + PAGE, WRITABLE);
    if ((uint32_t)crosslayer_static_end > STATIC_DATA) {
        fence(4, STATIC_DATA, (uint32_t)crosslayer_static_end, WRITABLE);
    }
    REGISTER(0xE000ED94u) = 1; /* MPU_CTRL: on, without a background region */
    __asm__ volatile("dsb\nisb" ::: "memory");

    for (uint32_t i = 0; i < STACK_BYTES; i++) {
        ((volatile uint8_t *)STACK)[i] = paint(STACK + i);
    }
    fill(ARENA_PAGES, UP(MODEL_ARENA_BYTES, PAGE), GUARD);

    void *const arena = (void *)ARENA;
    const uint32_t behind = ARENA + MODEL_ARENA_BYTES;
    const uint32_t answers = open_file(answers_name, WRITE_BINARY);
    const uint32_t samples = open_file(samples_name, READ_BINARY);
    uint8_t poison = 0;
    (void)read_file(samples, &poison, 1);
    for (;;) {
        fill(ARENA, MODEL_ARENA_BYTES, poison);
        const uint32_t input = (uint32_t)model_input(arena);
        if (input < ARENA || input + MODEL_INPUT_BYTES > behind) {
            answer(answers, INPUT_OUTSIDE, input, 0, 0);
            stop();
        }
        if (read_file(samples, (void *)input, MODEL_INPUT_BYTES) != 0) {
            break;
        }
        const int status = run_on(arena, STACK + STACK_BYTES);
        if (status != 0) {
            answer(answers, RETURNED, (uint32_t)status, 0, 0);
            stop();
        }
        if (!is_filled(ARENA_PAGES, ARENA - ARENA_PAGES, GUARD) ||
            !is_filled(behind, ARENA_PAGES + UP(MODEL_ARENA_BYTES, PAGE) - behind, GUARD)) {
            answer(answers, WROTE_OUTSIDE, 0, 0, 0);
            stop();
        }
        const uint32_t output = (uint32_t)model_output(arena);
        if (output < ARENA || output + MODEL_OUTPUT_BYTES > behind) {
            answer(answers, OUTPUT_OUTSIDE, output, 0, 0);
            stop();
        }
        answer(answers, DONE, 0, 0, 0);
        (void)write_file(answers, (const void *)output, MODEL_OUTPUT_BYTES);
    }
    answer(answers, STACK_DEPTH, stack_depth(), 0, 0);
    stop();
}

HARNESS("vectors") static const struct {
    void *stack;
    void (*reset)(void);
    void (*faults[6])(void);
} vectors = {(void *)(OWN_STACK + PAGE), start, {fault, fault, fault, fault, fault, fault}};
