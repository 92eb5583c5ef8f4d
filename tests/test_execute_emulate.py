"""Firmware on emulated cores: the same bytes everywhere, exact counts, and faults that are told."""

import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from crosslayer.core.errors import InputError, ToolError
from crosslayer.core.target import Core
from crosslayer.execute import emulate as emulate_module
from crosslayer.execute.emulate import LIMIT_INSTRUCTIONS, Image, emulate
from crosslayer.execute.native import POISON, Native
from crosslayer.execute.toolchain import Emulator, Level, machine

FIXTURE = Path(__file__).parent / "firmware_fixture"
START = "    Arena *a = arena;\n"
CORES = [core for core in Core if machine(core).emulator is Emulator.UNICORN]  # the others: test_execute_qemu.py
FAULT_CORES = [Core.CORTEX_M0, Core.CORTEX_M33, Core.RV32]


def samples(count: int) -> npt.NDArray[np.int8]:
    drawn = np.random.default_rng(7).integers(-128, 128, (count, 32)).astype(np.int8)
    edges = np.repeat(np.array([[-128], [-1], [0], [127]], np.int8), 32, axis=1)
    return np.concatenate([edges, drawn])


def variant(folder: Path, line: str, above: str = "") -> Path:
    """The fixture with a line of C at the start of model_run, and one before the functions."""
    copy = shutil.copytree(FIXTURE, folder / "firmware")
    source = (copy / "model.c").read_text()
    assert START in source
    source = source.replace(START, f"{START}    {line}\n").replace(
        "void *model_input", f"{above}\nvoid *model_input", 1
    )
    (copy / "model.c").write_text(source)
    return copy


@pytest.mark.parametrize("core", CORES)
def test_every_core_gives_the_bytes_of_this_computer(core: Core) -> None:
    codes = samples(60)
    run = emulate(FIXTURE, core, codes)
    assert (run.outputs == Native.build(FIXTURE).run(codes)).all()


@pytest.mark.parametrize("core", CORES)
def test_counts_do_not_depend_on_the_run_or_the_order(core: Core) -> None:
    image, codes = Image.link(FIXTURE, core), samples(8)
    run = image.run(codes)
    assert (run.instructions > 1000).all()
    assert (image.run(codes[::-1], poison=0).instructions[::-1] == run.instructions).all()
    assert sum(run.profile.values()) == run.instructions.sum()
    assert next(iter(run.profile)) in {"model_run", "__aeabi_lmul"}
    assert "memcpy" not in run.profile  # four bytes are one load, not a call


@pytest.mark.parametrize("core", CORES)
def test_counts_agree_with_a_disassembler(core: Core) -> None:
    import capstone
    import unicorn

    modes = {
        1: (capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS | capstone.CS_MODE_V8),
        0: (capstone.CS_ARCH_RISCV, capstone.CS_MODE_RISCV32 | capstone.CS_MODE_RISCVC),
    }
    image = Image.link(FIXTURE, core)
    board = emulate_module._Board(image, LIMIT_INSTRUCTIONS)
    blocks: Counter[tuple[int, int]] = Counter()
    board.engine.hook_add(unicorn.UC_HOOK_BLOCK, lambda engine, address, size, user: blocks.update([(address, size)]))
    counted, _ = board.infer(0, samples(1)[-1].tobytes(), POISON)
    decoder = capstone.Cs(*modes[board.row.instruction_set.entry_bit])
    total = 0
    for (address, size), visits in blocks.items():
        decoded = list(decoder.disasm(bytes(board.engine.mem_read(address, size)), address))
        assert sum(instruction.size for instruction in decoded) == size
        total += visits * len(decoded)
    assert counted == total


@pytest.mark.parametrize("core", [Core.CORTEX_M0, Core.RV32])
def test_counts_agree_with_single_steps(core: Core) -> None:
    import unicorn

    board = emulate_module._Board(Image.link(FIXTURE, core), LIMIT_INSTRUCTIONS)
    steps = [0]

    def step(engine: Any, address: int, size: int, user: Any) -> None:
        steps[0] += 1

    board.engine.hook_add(unicorn.UC_HOOK_CODE, step)
    counted, _ = board.infer(0, samples(1)[-1].tobytes(), POISON)
    assert counted == steps[0]


@pytest.mark.parametrize("core", CORES)
def test_sizes_are_those_of_the_linked_model(core: Core) -> None:
    image = Image.link(FIXTURE, core)
    assert set(image.sections) == {".text", ".rodata"}
    assert image.flash_bytes == sum(image.sections.values())
    assert image.sections[".rodata"] >= 12 * 32
    assert image.ram_bytes == image.arena_bytes == 100


@pytest.mark.parametrize("core", FAULT_CORES)
def test_static_data_takes_ram_and_its_start_values_flash(core: Core, tmp_path: Path) -> None:
    plain = Image.link(FIXTURE, core)
    line, above = "zeros[a->input[0] & 7] += start;", "static volatile int32_t start = 5, zeros[8];"
    image = Image.link(variant(tmp_path, line, above), core)
    assert image.ram_bytes == plain.ram_bytes + 36
    assert image.flash_bytes == plain.flash_bytes - plain.sections[".text"] + image.sections[".text"] + 4
    assert (image.run(samples(5)).outputs == plain.run(samples(5)).outputs).all()


@pytest.mark.parametrize("core", FAULT_CORES)
def test_static_data_without_start_values_takes_ram_only(core: Core, tmp_path: Path) -> None:
    plain = Image.link(FIXTURE, core)
    image = Image.link(variant(tmp_path, "zeros[a->input[0] & 7] += 1;", "static volatile int32_t zeros[8];"), core)
    assert image.ram_bytes == plain.ram_bytes + 32
    assert image.flash_bytes == plain.flash_bytes - plain.sections[".text"] + image.sections[".text"]
    assert (image.run(samples(5)).outputs == plain.run(samples(5)).outputs).all()


def test_a_core_without_divider_and_fpu_needs_the_most() -> None:
    runs = {core: emulate(FIXTURE, core, samples(1)) for core in CORES}
    small, large = runs[Core.CORTEX_M4], runs[Core.CORTEX_M0]
    assert large.instructions.sum() > 3 * small.instructions.sum()
    assert large.image.flash_bytes > small.image.flash_bytes
    assert not any("divsf3" in name for name in small.profile)
    assert any("divsf3" in name for name in large.profile)


def test_every_level_is_a_different_program_of_the_same_meaning() -> None:
    images = {level: Image.link(FIXTURE, Core.CORTEX_M4, level=level) for level in Level}
    runs = {level: image.run(samples(1)) for level, image in images.items()}
    assert all((run.outputs == runs[Level.O2].outputs).all() for run in runs.values())
    assert len({image.made.path.read_bytes() for image in images.values()}) >= 5
    assert images[Level.OZ].sections[".text"] < images[Level.O2].sections[".text"]
    assert runs[Level.O0].instructions.sum() > 2 * runs[Level.O2].instructions.sum()


@pytest.mark.parametrize("core", CORES)
def test_stack_is_the_deepest_byte_written(core: Core, tmp_path: Path) -> None:
    shallow = emulate(FIXTURE, core, samples(3)).stack_bytes
    assert 16 <= shallow <= 512
    line = "volatile int8_t deep[4000]; for (int i = 4000; i > 0; i--) deep[i - 1] = 3;"
    deep = emulate(variant(tmp_path, line), core, samples(3)).stack_bytes
    assert 4000 <= deep <= 4000 + shallow + 128


@pytest.mark.parametrize("core", FAULT_CORES)
@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("*(volatile int *)(uintptr_t)(a->input[0] & 0) = 1;", r"writes 0x00000000 .* at pc 0x080000.. in model_run"),
        ("*(volatile int8_t *)(uintptr_t)(weights + 3) = 1;", r"writes 0x0800.* at pc"),
        ("return *(volatile int *)(uintptr_t)0x40000000u;", r"reads 0x40000000 .* at pc"),
        ("((void (*)(void))(uintptr_t)0x60000001u)();", r"jumps to 0x60000000 .* in model_run"),
        ("((void (*)(void))((uintptr_t)arena + 1u))();", r"jumps to 0x220a"),
        ("((volatile uint8_t *)arena)[MODEL_ARENA_BYTES + 64] = 1;", r"writes 0x220a1"),
        ("((volatile uint8_t *)arena)[-1] = 1;", "wrote outside its arena"),
        ("((volatile uint8_t *)arena)[MODEL_ARENA_BYTES] = 1;", "wrote outside its arena"),
        ("volatile int8_t deep[20000]; for (int i = 20000; i > 0; i--) deep[i - 1] = 3;", "more than 16384 bytes of s"),
        ("__builtin_trap();", r"fails: .* in model_run"),
        ('__asm__ volatile("wfi");', "stops the core"),
        ("for (volatile int i = 0; i >= 0;) {}", "does not end within 1000000 instructions"),
        ("if (a->input[0] == 127) return -7;", "model_run returned -7"),
    ],
)
def test_faults_name_core_sample_and_place(core: Core, line: str, complaint: str, tmp_path: Path) -> None:
    image = Image.link(variant(tmp_path, line), core)
    with pytest.raises(ToolError, match=f"{core.value}, sample .*{complaint}"):
        image.run(samples(0), limit=1_000_000)


def test_poison_reaches_the_arena(tmp_path: Path) -> None:
    image = Image.link(variant(tmp_path, "a->input[9] = a->scratch[3];"), Core.RV32)
    assert (image.run(samples(2), poison=0).outputs != image.run(samples(2), poison=0x11).outputs).any()


def test_progress_is_told_after_each_sample() -> None:
    told: list[tuple[int, int]] = []
    emulate(FIXTURE, Core.CORTEX_M7, samples(0), progress=lambda done, of: told.append((done, of)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_no_samples_are_a_run_too() -> None:
    run = emulate(FIXTURE, Core.CORTEX_M4, samples(0)[:0])
    assert (run.outputs.shape, run.instructions.shape, run.stack_bytes, dict(run.profile)) == ((0, 28), (0,), 0, {})


def test_samples_of_another_size_are_refused() -> None:
    with pytest.raises(InputError, match="takes 32 bytes per sample"):
        emulate(FIXTURE, Core.CORTEX_M4, np.zeros((2, 8), np.int8))


@pytest.mark.parametrize("core", FAULT_CORES)
def test_c_that_does_not_compile_gives_the_complaint(core: Core, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"firmware/model\.c:.*expected expression"):
        emulate(variant(tmp_path, "return 1 +;"), core, samples(0))


def test_an_absent_emulator_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.link(FIXTURE, Core.CORTEX_M4)
    monkeypatch.setitem(sys.modules, "unicorn", None)
    with pytest.raises(ToolError, match=r"unicorn is not installed: pip install 'crosslayer\[mcu\]'"):
        image.run(samples(0))
