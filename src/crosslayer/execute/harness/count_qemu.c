/* A QEMU plugin that counts the instructions of model_run, with all that it calls, until it returns into the harness:
   of each call, and of each translated block and each step of the model over all calls. QEMU's header is in no package,
   so what is used of it is declared here; see "QEMU TCG Plugins" in its manual. PLUGIN_VERSION is one that the QEMU at
   hand takes. */
#define _POSIX_C_SOURCE 200112L
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t Id;
typedef struct qemu_plugin_tb Translated;
typedef struct qemu_plugin_insn Instruction;
enum { NO_REGISTERS = 0, READS_AND_WRITES = 3 }; /* 7.2 leaves out reads where only they are asked for */
extern void qemu_plugin_register_vcpu_tb_trans_cb(Id id, void (*call)(Id id, Translated *block));
extern void qemu_plugin_register_vcpu_tb_exec_cb(Translated *block, void (*call)(unsigned core, void *user), int flags,
                                                 void *user);
extern void qemu_plugin_register_vcpu_idle_cb(Id id, void (*call)(Id id, unsigned core));
extern void qemu_plugin_register_atexit_cb(Id id, void (*call)(Id id, void *user), void *user);
extern void qemu_plugin_register_vcpu_mem_cb(Instruction *instruction,
                                             void (*call)(unsigned core, uint32_t kind, uint64_t address, void *user),
                                             int flags, int which, void *user);
extern Instruction *qemu_plugin_tb_get_insn(const Translated *block, size_t place);
extern size_t qemu_plugin_tb_n_insns(const Translated *block);
extern uint64_t qemu_plugin_tb_vaddr(const Translated *block);

typedef struct Block {
    struct Block *next;
    uint64_t address;
    uint64_t instructions;
    uint64_t executed; /* instructions, over all visits */
} Block;

static Block *blocks;
static FILE *report;
/* The arguments, in this order. cl_make begins a step and is the first to read its entry in the table `steps`. */
static uint64_t model_run, harness, harness_end, limit, make, make_end, steps, step_bytes, step_count;
static uint64_t executed; /* by this call of model_run */
static uint64_t last;     /* address of the block entered last */
static uint64_t *by_step; /* executed since each step began until the next one did */
static uint64_t step;     /* that runs; step_count before the first one */
static uint64_t unknown;  /* executed by a step of which it is not yet known which one it is */
static int counting, beginning;

/* Ends QEMU from within: there is no other way out of a core that never comes back. */
static void give_up(const char *what) {
    fprintf(report, "%s\nlast %llu\n", what, (unsigned long long)last);
    fclose(report);
    _exit(1);
}

static void enter(unsigned core, void *user) {
    Block *block = user;
    (void)core;
    if (!counting && block->address != model_run) {
        return;
    }
    if (block->address >= harness && block->address < harness_end) {
        fprintf(report, "run %llu\n", (unsigned long long)executed);
        executed = 0;
        counting = 0;
        step = step_count;
        return;
    }
    counting = 1;
    last = block->address;
    beginning |= block->address == make;
    if (beginning) {
        unknown += block->instructions;
    } else if (step < step_count) {
        by_step[step] += block->instructions;
    }
    block->executed += block->instructions;
    executed += block->instructions;
    if (executed >= limit) {
        give_up("limit");
    }
}

static void use_memory(unsigned core, uint32_t kind, uint64_t address, void *user) {
    (void)core;
    (void)kind;
    (void)user;
    if (beginning && address >= steps && address < steps + step_bytes * step_count) {
        step = (address - steps) / step_bytes;
        by_step[step] += unknown;
        unknown = 0;
        beginning = 0;
    }
}

static void translate(Id id, Translated *translated) {
    Block *block = calloc(1, sizeof *block);
    (void)id;
    if (block == NULL) {
        give_up("memory");
        return;
    }
    block->next = blocks;
    block->address = qemu_plugin_tb_vaddr(translated);
    block->instructions = qemu_plugin_tb_n_insns(translated);
    blocks = block;
    qemu_plugin_register_vcpu_tb_exec_cb(translated, enter, NO_REGISTERS, block);
    for (size_t i = 0; i < block->instructions && block->address >= make && block->address < make_end; i++) {
        qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(translated, i), use_memory, NO_REGISTERS,
                                         READS_AND_WRITES, NULL);
    }
}

static void idle(Id id, unsigned core) {
    (void)id;
    (void)core;
    if (counting) {
        give_up("stopped");
    }
}

static void finish(Id id, void *user) {
    (void)id;
    (void)user;
    for (const Block *block = blocks; block != NULL; block = block->next) {
        if (block->executed > 0) {
            fprintf(report, "block %llu %llu\n", (unsigned long long)block->address,
                    (unsigned long long)block->executed);
        }
    }
    for (uint64_t i = 0; i < step_count; i++) {
        fprintf(report, "step %llu\n", (unsigned long long)by_step[i]);
    }
    fprintf(report, "last %llu\n", (unsigned long long)last);
    fclose(report);
}

EXPORT int qemu_plugin_version = PLUGIN_VERSION;

EXPORT int qemu_plugin_install(Id id, const void *machine, int argc, char **argv) {
    uint64_t *const given[] = {&model_run, &harness, &harness_end, &limit,     &make,
                               &make_end,  &steps,   &step_bytes,  &step_count};
    const int count = sizeof given / sizeof *given;
    (void)machine;
    if (argc != count) {
        return 1;
    }
    for (int i = 0; i < count; i++) {
        const char *text = argv[i];
        while (*text != '\0' && *text++ != '=') {
        }
        *given[i] = strtoull(text, NULL, 10);
    }
    step = step_count;
    by_step = calloc(step_count + 1, sizeof *by_step);
    report = fopen("counts", "w");
    if (by_step == NULL || report == NULL) {
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    qemu_plugin_register_vcpu_idle_cb(id, idle);
    qemu_plugin_register_atexit_cb(id, finish, NULL);
    return 0;
}
