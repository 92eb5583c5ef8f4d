"""Firmware on this computer: the toolchain, its cache, the fast loop and the sanitizers."""

import importlib.metadata
import os
import pickle
import shutil
import struct
import subprocess
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from crosslayer.core.errors import InputError, ToolError
from crosslayer.execute import toolchain
from crosslayer.execute.native import Native, self_test
from crosslayer.execute.toolchain import Level, build_native, default_cache

FIXTURE = Path(__file__).parent / "firmware_fixture"
START = "    Arena *a = arena;\n"


def samples(count: int) -> npt.NDArray[np.int8]:
    drawn = np.random.default_rng(7).integers(-128, 128, (count, 32)).astype(np.int8)
    edges = np.repeat(np.array([[-128], [-1], [0], [127]], np.int8), 32, axis=1)
    return np.concatenate([edges, drawn])


def variant(folder: Path, line: str) -> Path:
    """The fixture with a line of C at the start of model_run."""
    copy = shutil.copytree(FIXTURE, folder / "firmware")
    source = (copy / "model.c").read_text()
    assert START in source
    (copy / "model.c").write_text(source.replace(START, f"{START}    {line}\n"))
    return copy


def meaning(codes: npt.NDArray[np.int8]) -> bytes:
    """What the fixture computes for one sample, in Python."""
    row = [-3, 14, 15, -92, 65, 35, -89, 79, 32, 38, -46, 26, 43, 38, 32]
    tail = [7, 95, -2, 88, 41, 97, 16, 93, -99, 37, 51, 5, 82, 9, 74]
    firsts = [1, -2, 3, 4, -5, 6, 7, 8, -9, 10, 11, 127]
    weights = np.array([[first, *row, -first, *tail] for first in firsts], np.int64)
    values = [int(code) for code in codes]
    scratch = np.array([value if value > 0 else -(-value // 4) for value in values])
    sums = np.clip((weights @ scratch * 1518500250 + (1 << 36)) >> 37, -128, 127).astype(np.int8)
    product, mean = 1, np.float32(0)
    for index, value in enumerate(values):
        product = int(np.fmod(product * (value | 1), 1000000007))
        mean += np.float32(value) * np.float32(0.3125) / np.float32(index + 3)
    divisor = values[0] | 1
    quotient = abs(product * 1000003) // abs(divisor) * (1 if (product < 0) == (divisor < 0) else -1)
    return struct.pack("<qf", quotient, mean) + codes[5:9].tobytes() + sums.tobytes()


@pytest.fixture
def scratch_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for builds; the compiler's own run-time libraries stay where they are."""
    monkeypatch.setenv("ZIG_GLOBAL_CACHE_DIR", str(default_cache() / "zig"))
    return tmp_path / "cache"


def test_native_output_is_what_the_c_means() -> None:
    codes = samples(50)
    outputs = Native.build(FIXTURE).run(codes)
    assert [output.tobytes() for output in outputs] == [meaning(sample) for sample in codes]


def test_samples_may_have_any_type_and_shape_of_the_right_size() -> None:
    native, codes = Native.build(FIXTURE), samples(600)
    outputs = native.run(codes)
    assert (native.run(codes.view(np.int16).reshape(-1, 4, 4)) == outputs).all()
    assert (native.run(codes.view(np.int32).byteswap().view(">i4")) == outputs).all()
    assert (native.run(codes[::-1])[::-1] == outputs).all()
    assert native.run(codes[:0]).shape == (0, native.output_bytes)


@pytest.mark.parametrize("codes", [np.zeros((3, 31), np.int8), np.zeros((3, 32), np.int16), np.int8(0)])
def test_samples_of_another_size_are_refused(codes: npt.NDArray[np.generic]) -> None:
    with pytest.raises(InputError, match="takes 32 bytes per sample"):
        Native.build(FIXTURE).run(np.asarray(codes))


def test_ten_thousand_samples_take_no_time() -> None:
    native, codes = Native.build(FIXTURE), samples(10_000)
    begin = time.perf_counter()
    native.run(codes)
    assert time.perf_counter() - begin < 2


def test_native_crosses_process_borders_as_a_value() -> None:
    native, codes = Native.build(FIXTURE), samples(3)
    assert (pickle.loads(pickle.dumps(native)).run(codes) == native.run(codes)).all()  # noqa: S301 - our own bytes


def test_poison_shows_reads_of_memory_never_written(tmp_path: Path) -> None:
    sound = Native.build(FIXTURE)
    assert (sound.run(samples(9), poison=0) == sound.run(samples(9), poison=0xFF)).all()
    leaky = Native.build(variant(tmp_path, "a->input[9] = (int8_t)(a->input[9] + a->scratch[3]);"))
    assert (leaky.run(samples(9), poison=0) != leaky.run(samples(9), poison=0x11)).any()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("if (a->input[0] == 127) return -7;", "sample 3: model_run returned -7"),
        ("((uint8_t *)arena)[MODEL_ARENA_BYTES + (a->input[0] & 7)] = 1;", "wrote outside its arena"),
        ("*((uint8_t *)arena - 1) = 1;", "wrote outside its arena"),
    ],
)
def test_a_faulty_firmware_is_an_error(line: str, complaint: str, tmp_path: Path) -> None:
    native = Native.build(variant(tmp_path, line))
    with pytest.raises(ToolError, match=complaint):
        native.run(samples(9))


def test_self_test_agrees_with_native_and_names_its_sanitizers() -> None:
    found = self_test(FIXTURE, samples(20))
    assert (found.outputs == Native.build(FIXTURE).run(samples(20))).all()
    assert found.compiler
    assert "undefined" in found.sanitizers


@pytest.mark.parametrize(
    "line",
    [
        "volatile int32_t big = INT32_MAX; a->output.word = big + 1;",
        "volatile int wide = 40; a->output.word = 1 << wide;",
        "volatile int far = 400; a->output.word = weights[far];",
        "volatile int odd = 1; a->output.word = *(int32_t *)(void *)((int8_t *)arena + odd);",
        "volatile float huge = 1e20f; a->output.word = (int32_t)huge;",
    ],
)
def test_self_test_finds_undefined_behaviour(line: str, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="self-test"):
        self_test(variant(tmp_path, line), samples(2))


@pytest.mark.slow  # zig builds its sanitizer's run-time library once: 20 s
def test_self_test_without_a_system_compiler_uses_zig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = self_test(FIXTURE, samples(2))
    assert (found.compiler.split()[0], found.sanitizers[0]) == ("zig", "undefined")
    with pytest.raises(ToolError, match="overflow"):
        self_test(variant(tmp_path, "volatile int32_t big = INT32_MAX; a->output.word = big + 1;"), samples(2))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [("return 1 +;", "firmware/model.c:.*expected expression"), ("int8_t y = a->output.word; (void)y;", "loses int")],
)
def test_c_that_does_not_compile_gives_the_first_lines_of_the_complaint(
    line: str, complaint: str, tmp_path: Path, scratch_cache: Path
) -> None:
    with pytest.raises(ToolError, match=complaint) as caught:
        Native.build(variant(tmp_path, line), cache=scratch_cache)
    assert len(str(caught.value).splitlines()) < 16
    assert list((scratch_cache / "builds").iterdir()) == []


def test_the_same_sources_are_compiled_once(scratch_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_native(FIXTURE, cache=scratch_cache)

    def no_compiler(*arguments: object, **options: object) -> None:
        raise AssertionError("the compiler was called")

    monkeypatch.setattr(subprocess, "run", no_compiler)
    again = build_native(FIXTURE, cache=scratch_cache)
    assert (first.reused, again.reused, again.path) == (False, True, first.path)
    with pytest.raises(AssertionError, match="the compiler was called"):
        build_native(FIXTURE, level=Level.O1, cache=scratch_cache)


def test_a_changed_header_is_another_build(tmp_path: Path) -> None:
    changed = variant(tmp_path, "")
    (changed / "kernels" / "dense.h").write_text((changed / "kernels" / "dense.h").read_text() + "/* new */\n")
    assert build_native(changed).path != build_native(FIXTURE).path


def test_the_cache_keeps_what_was_used_last(scratch_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_KEPT_BUILDS", 2)
    builds = scratch_cache / "builds"
    leftover = builds / ".stage-killed"
    leftover.mkdir(parents=True)
    for path, age_s in ((leftover, 1e6), (builds / "old", 300), (builds / "older", 400)):
        if path is not leftover:
            path.write_text("")
        os.utime(path, (time.time() - age_s,) * 2)
    made = build_native(FIXTURE, cache=scratch_cache).path
    assert sorted(path.name for path in builds.iterdir()) == sorted([made.name, "old"])


def test_a_damaged_build_says_what_to_do(scratch_cache: Path) -> None:
    build_native(FIXTURE, cache=scratch_cache).path.write_bytes(b"half a file")
    with pytest.raises(ToolError, match="delete it"):
        Native.build(FIXTURE, cache=scratch_cache)


def test_a_home_that_cannot_be_written_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "file" / name)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    spare = default_cache()
    assert spare.parent == tmp_path
    spare.chmod(0o777)
    with pytest.raises(ToolError, match="XDG_CACHE_HOME"):
        default_cache()


def test_an_absent_compiler_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    toolchain.zig.cache_clear()
    with pytest.raises(ToolError, match=r"pip install 'crosslayer\[mcu\]'"):
        Native.build(FIXTURE)
    toolchain.zig.cache_clear()


def test_a_folder_without_firmware_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.c: not found"):
        Native.build(tmp_path)
