"""Firmware on the core that only QEMU emulates: it is always built; it runs where QEMU is installed."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crosslayer.core.errors import ToolError
from crosslayer.core.target import Core
from crosslayer.execute import qemu, toolchain
from crosslayer.execute.emulate import Image, emulate, left_out, runnable_cores
from crosslayer.execute.native import POISON, Native
from crosslayer.execute.toolchain import Level, machine
from test_execute_emulate import FIXTURE, samples, variant

CORE = Core.CORTEX_M55
needs_qemu = pytest.mark.skipif(CORE in left_out(), reason=left_out().get(CORE, ""))


def test_the_firmware_is_built_without_the_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    image = Image.link(FIXTURE, CORE)
    assert set(image.sections) == {".text", ".rodata"}
    assert image.flash_bytes == sum(image.sections.values())
    assert image.sections[".rodata"] >= 12 * 32
    assert (image.ram_bytes, image.arena_bytes, image.input_bytes, image.output_bytes) == (100, 100, 32, 28)


def test_an_absent_emulator_says_how_to_get_it_and_leaves_its_core_out(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.link(FIXTURE, CORE)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ToolError, match=r"cortex-m55: only QEMU emulates it, .*apt-get install qemu-system-arm"):
        image.run(samples(0))
    assert set(Core) - set(runnable_cores()) == set(left_out()) == {CORE}


@needs_qemu
@pytest.mark.parametrize("level", [Level.O0, Level.O2, Level.O3, Level.OZ])
def test_the_bytes_are_those_of_this_computer(level: Level) -> None:
    codes = samples(60)
    run = Image.link(FIXTURE, CORE, level=level).run(codes)
    assert (run.outputs == Native.build(FIXTURE).run(codes)).all()


@needs_qemu
def test_counts_do_not_depend_on_the_run_or_the_order() -> None:
    image, codes = Image.link(FIXTURE, CORE), samples(8)
    run = image.run(codes)
    assert (run.instructions > 1000).all()
    assert (image.run(codes[::-1], poison=0).instructions[::-1] == run.instructions).all()
    assert sum(run.profile.values()) == run.instructions.sum()
    assert "model_run" in run.profile
    assert not {"memcpy", "model_input", "start"} & set(run.profile)


@needs_qemu
@pytest.mark.parametrize("steps", [0, 1, 1000])
def test_counts_are_those_of_the_instructions_written(steps: int, tmp_path: Path) -> None:
    plain = emulate(FIXTURE, CORE, samples(0)).instructions
    # A low-overhead loop: one instruction to start it, then its two at each turn.
    loop = f'__asm__ volatile("mov r0, #{steps}\\n wls lr, r0, 2f\\n 1: nop\\n le lr, 1b\\n 2:" ::: "r0", "lr");'
    line = "__asm__ volatile(" + '"nop\\n" ' * 100 + ");"
    hundred = emulate(variant(tmp_path / "a", line), CORE, samples(0)).instructions
    assert (hundred - plain == 100).all()
    looped = emulate(variant(tmp_path / "b", line + loop), CORE, samples(0)).instructions
    nothing = emulate(variant(tmp_path / "c", line + loop.replace(f"#{steps}", "#0")), CORE, samples(0)).instructions
    assert (looped - nothing == 2 * steps).all()


STEPS = """
    typedef struct { int32_t turns, more[7]; } Step;
    static const Step steps[3] = {{3, {0}}, {50, {0}}, {7, {0}}};
    int32_t cl_make(const void *model, const Step *step, int32_t row);
    __attribute__((noinline)) int32_t cl_make(const void *model, const Step *step, int32_t row) {
        int32_t sum = model == NULL;
        for (int32_t i = 0; i < step->turns; i++) { sum = (sum & 0xFFFF) * 17 + row; }
        return sum;
    }"""


@needs_qemu
def test_both_emulators_count_the_same_for_the_same_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The Cortex-M55 runs what was compiled for the Cortex-M33."""
    line = "for (int i = 0; i < 3; i++) { if (cl_make(arena, &steps[i], a->input[i]) == -1) return 8; }"
    folder = variant(tmp_path, line, STEPS)
    codes, row = samples(20), machine(CORE)
    run = emulate(folder, Core.CORTEX_M33, codes)
    older = replace(row, zig_cpu=machine(Core.CORTEX_M33).zig_cpu)
    monkeypatch.setattr(toolchain, "machine", lambda core: older)
    ran = Image.link(folder, CORE).run(codes)
    assert (ran.instructions == run.instructions).all()
    assert (ran.outputs == run.outputs).all()
    assert (ran.stack_bytes, dict(ran.profile)) == (run.stack_bytes, dict(run.profile))
    assert ran.by_step.tolist() == run.by_step.tolist()
    assert 0 < ran.by_step[0] < ran.by_step[1]  # the last holds all that follows


@needs_qemu
def test_vectors_do_the_sums_of_products(tmp_path: Path) -> None:
    """The point of this core: sixteen products in an instruction, found by the compiler in a plain loop."""
    above = """
        static int32_t dot(const int8_t *x, const int8_t *w, int n) {
            int32_t sum = 0;
            for (int i = 0; i < n; i++) { sum += x[i] * w[i]; }
            return sum;
        }
        static const int8_t ramp[1024] = {1, 2, 3}, signs[1024] = {-1, 1, -1};"""
    line = "volatile int n = 1024; if (dot(ramp, signs, n) != -2) return 3;"
    plain = emulate(FIXTURE, CORE, samples(0))
    run = emulate(variant(tmp_path, line, above), CORE, samples(0))
    assert (run.outputs == plain.outputs).all()
    assert 4 * 1024 // 16 <= (run.instructions - plain.instructions).min() < 1024 // 3


@needs_qemu
@pytest.mark.parametrize(
    ("line", "above", "static"),
    [
        ("if (start != 5) return 9; zeros[3] += start;", "static volatile int32_t start = 5, zeros[8];", 36),
        ("zeros[a->input[0] & 7] += 1;", "static volatile int32_t zeros[8];", 32),
    ],
)
def test_static_data_has_its_start_values_and_takes_ram(line: str, above: str, static: int, tmp_path: Path) -> None:
    plain, image = Image.link(FIXTURE, CORE), Image.link(variant(tmp_path, line, above), CORE)
    assert image.ram_bytes == plain.ram_bytes + static
    assert (image.run(samples(5)).outputs == plain.run(samples(5)).outputs).all()


@needs_qemu
def test_stack_is_the_deepest_byte_written(tmp_path: Path) -> None:
    shallow = emulate(FIXTURE, CORE, samples(3)).stack_bytes
    assert 16 <= shallow <= 512
    line = "volatile int8_t deep[4000]; for (int i = 4000; i > 0; i--) deep[i - 1] = 3;"
    deep = emulate(variant(tmp_path, line), CORE, samples(3)).stack_bytes
    assert 4000 <= deep <= 4000 + shallow + 128


@needs_qemu
@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("*(volatile int *)(uintptr_t)(a->input[0] & 0) = 1;", r"uses 0x00000000.* at pc 0x600000.. in model_run"),
        ("*(volatile int8_t *)(uintptr_t)(weights + 3) = 1;", r"uses 0x6000.* at pc"),
        ("return *(volatile int *)(uintptr_t)0x40000000u;", r"uses 0x40000000.* at pc"),
        ("((void (*)(void))(uintptr_t)0x64000001u)();", r"jumps to 0x64000000.* in model_run"),
        ("((void (*)(void))((uintptr_t)arena + 1u))();", r"jumps to 0x7800"),
        ("((volatile uint8_t *)arena)[MODEL_ARENA_BYTES + 64] = 1;", r"uses 0x78001"),
        ("((volatile uint8_t *)arena)[-1] = 1;", "wrote outside its arena"),
        ("((volatile uint8_t *)arena)[MODEL_ARENA_BYTES] = 1;", "wrote outside its arena"),
        ("volatile int8_t deep[20000]; for (int i = 20000; i > 0; i--) deep[i - 1] = 3;", "more than 16384 bytes of s"),
        ("__builtin_trap();", r"fails: fault status 0x00010000, .* in model_run"),
        ('__asm__ volatile("wfi");', "stops the core"),
        ("for (volatile int i = 0; i >= 0;) {}", "does not end within 1000000 instructions"),
        ("if (a->input[0] == 127) return -7;", "model_run returned -7"),
    ],
)
def test_faults_name_core_sample_and_place(line: str, complaint: str, tmp_path: Path) -> None:
    image = Image.link(variant(tmp_path, line), CORE)
    with pytest.raises(ToolError, match=f"{CORE.value}, sample .*{complaint}"):
        image.run(samples(0), limit=1_000_000)


@needs_qemu
@pytest.mark.parametrize("function", ["model_input", "model_output"])
def test_a_pointer_outside_the_arena_is_told(function: str, tmp_path: Path) -> None:
    copy = variant(tmp_path, "")
    source = (copy / "model.c").read_text()
    for given in ("((Arena *)arena)->input", "&((const Arena *)arena)->output"):
        if function[6:] in given:
            assert f"return {given};" in source
            source = source.replace(f"return {given};", f"return {given} + 100;")
    (copy / "model.c").write_text(source)
    with pytest.raises(ToolError, match=f"{CORE.value}, sample 0: {function} gave 0x7800.*outside the arena"):
        emulate(copy, CORE, samples(0))


@needs_qemu
def test_the_failing_sample_is_named(tmp_path: Path) -> None:
    image = Image.link(variant(tmp_path, "if (a->input[0] == 0) return 5;"), CORE)
    with pytest.raises(ToolError, match="cortex-m55, sample 2: model_run returned 5"):
        image.run(samples(0))


@needs_qemu
def test_poison_reaches_the_arena(tmp_path: Path) -> None:
    image = Image.link(variant(tmp_path, "a->input[9] = a->scratch[3];"), CORE)
    assert (image.run(samples(2), poison=0).outputs != image.run(samples(2), poison=0x11).outputs).any()


@needs_qemu
def test_no_samples_are_a_run_too() -> None:
    run = emulate(FIXTURE, CORE, samples(0)[:0])
    assert (run.outputs.shape, run.instructions.shape, run.stack_bytes, dict(run.profile)) == ((0, 28), (0,), 0, {})


@needs_qemu
def test_an_emulator_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.link(FIXTURE, CORE)
    image.run(samples(0))  # the counter is built
    monkeypatch.setattr(qemu, "_START_LIMIT_S", 1e-3)
    with pytest.raises(ToolError, match="did not end within 0 s"):
        image.run(np.repeat(samples(0), 1000, axis=0), limit=1, poison=POISON)
