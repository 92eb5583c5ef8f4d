"""The emitted C on this computer: bit-identical to the firmware on the device, at the speed of this processor."""

import ctypes
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from crosslayer.core.errors import InputError, ToolError
from crosslayer.execute.toolchain import Build, Level, build_native, build_sanitized

Bytes = npt.NDArray[np.uint8]

POISON = 0xA5
"""What an arena is filled with before each sample, so that a read of memory never written shows in the output."""

_ALIGNMENT = 16
_GUARD = 64
_GUARD_BYTE = 0x3C
_CHUNK = 256  # samples per call, so that Ctrl-C is heard
_SELF_TEST_LIMIT_S = 600.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Native:
    """Firmware compiled for this computer. A plain value: other processes can use it too.

    Choose it over `emulate` when only the outputs matter; it is about a hundred times faster.
    """

    made: Build
    arena_bytes: int
    input_bytes: int
    output_bytes: int

    @staticmethod
    def build(folder: Path, *, level: Level = Level.O2, cache: Path | None = None) -> "Native":
        """Compile the firmware in `folder`, or take it from the cache."""
        made = build_native(folder, level=level, cache=cache)
        arena, taken, given = (ctypes.c_uint32 * 3).in_dll(_open(made.path), "crosslayer_sizes")
        return Native(made=made, arena_bytes=arena, input_bytes=taken, output_bytes=given)

    def run(self, codes: npt.NDArray[Any], *, poison: int = POISON) -> Bytes:
        """The output bytes (samples, output_bytes) of input codes (samples, ...) of any type and shape."""
        inputs = as_samples(codes, self.input_bytes)
        outputs = np.empty((len(inputs), self.output_bytes), np.uint8)
        room = np.full(_GUARD + _ALIGNMENT + self.arena_bytes + _GUARD, _GUARD_BYTE, np.uint8)
        start = _GUARD + -(room.ctypes.data + _GUARD) % _ALIGNMENT
        run_many = _open(self.made.path).crosslayer_run_many
        run_many.restype = ctypes.c_int64
        status = ctypes.c_int32()
        for first in range(0, len(inputs), _CHUNK):
            count = min(_CHUNK, len(inputs) - first)
            done = run_many(
                ctypes.c_void_p(inputs[first:].ctypes.data),
                ctypes.c_void_p(outputs[first:].ctypes.data),
                ctypes.c_int64(count),
                ctypes.c_void_p(room.ctypes.data + start),
                ctypes.c_uint8(poison),
                ctypes.byref(status),
            )
            if done != count:
                raise ToolError(f"sample {first + done}: model_run returned {status.value}; the firmware is faulty")
            if (room[:start] != _GUARD_BYTE).any() or (room[start + self.arena_bytes :] != _GUARD_BYTE).any():
                raise ToolError(f"samples {first}…{first + count - 1}: the firmware wrote outside its arena")
        return outputs


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest:
    """Outputs of a run in which the sanitizers found nothing."""

    outputs: Bytes
    compiler: str
    sanitizers: tuple[str, ...]


def self_test(folder: Path, codes: npt.NDArray[Any], *, poison: int = POISON, cache: Path | None = None) -> SelfTest:
    """Run samples under the sanitizers that this computer has; their first finding is a ToolError."""
    sizes = Native.build(folder, cache=cache)
    inputs = as_samples(codes, sizes.input_bytes)
    built, sanitizers = build_sanitized(folder, cache=cache)
    try:
        done = subprocess.run(
            (str(built.path), str(poison)),
            input=inputs.tobytes(),
            capture_output=True,
            env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},  # there is no heap, and the check fails in containers
            timeout=_SELF_TEST_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"the self-test did not end within {_SELF_TEST_LIMIT_S:.0f} s; give fewer samples") from error
    if done.returncode != 0 or len(done.stdout) != len(inputs) * sizes.output_bytes:
        shown = "\n".join(done.stderr.decode(errors="replace").splitlines()[:12])
        raise ToolError(f"the self-test ({', '.join(sanitizers)}) ended with status {done.returncode}:\n{shown}")
    outputs = np.frombuffer(done.stdout, np.uint8).reshape(len(inputs), sizes.output_bytes)
    return SelfTest(outputs=outputs, compiler=built.compiler, sanitizers=sanitizers)


def as_samples(codes: npt.NDArray[Any], sample_bytes: int) -> Bytes:
    """The bytes (samples, sample_bytes) that a device would see: contiguous and little-endian.

    >>> as_samples(np.array([[1, -1]], np.int16), 4)
    array([[  1,   0, 255, 255]], dtype=uint8)
    """
    samples = codes.shape[0] if codes.ndim else 0
    given = codes.nbytes // samples if samples else sample_bytes
    if codes.ndim == 0 or given != sample_bytes:
        raise InputError(
            f"the firmware takes {sample_bytes} bytes per sample, got an array {codes.dtype}{list(codes.shape)}; "
            "give (samples, ...) in the input's own number code"
        )
    flat = np.ascontiguousarray(codes.reshape(samples, -1) if samples else codes)
    return flat.astype(flat.dtype.newbyteorder("<"), copy=False).view(np.uint8).reshape(samples, sample_bytes)


def _open(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise ToolError(f"{path}: cannot be loaded ({error}); delete it, and it will be built again") from error
