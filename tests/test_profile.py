"""The profiling hook: every row of every step once, never nested, and no instruction where it is not asked for."""

import ctypes
import re
from pathlib import Path

import numpy as np
import pytest

from crosslayer.core.design import Design
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.graph import Graph
from crosslayer.core.target import Core
from crosslayer.emit.firmware import emit
from crosslayer.execute import reference
from crosslayer.execute.toolchain import machine
from crosslayer.hardware.catalogue import load_target
from crosslayer.plan.arena import plan_arena
from crosslayer.testing.chance import Seeded
from crosslayer.testing.compiler import compile_strictly
from crosslayer.testing.executors import random_inputs
from test_emit import everything
from test_packages import streamable

HOOK = """
#include "model.h"
#define MOST 65536
int32_t hooked_calls, hooked_steps[MOST], hooked_begins[MOST];
int32_t hooked_count = MODEL_STEPS;
void model_profile(int32_t step, int32_t begins)
{
    if (hooked_calls < MOST) {
        hooked_steps[hooked_calls] = step;
        hooked_begins[hooked_calls] = begins;
    }
    hooked_calls++;
}
"""


def written(graph: Graph, folder: Path, *, budget: int) -> Path:
    design = Design(graph=graph, target=load_target("stm32f769"), plan=plan_arena(graph, budget=budget))
    emit(design, folder, random_inputs(graph, Seeded(1), 1))
    return folder


def rows_of_steps(firmware: Path) -> list[int]:
    """The rows that the table of steps asks for."""
    return [int(rows) for rows in re.findall(r"^ +\.rows = (\d+),$", (firmware / "model.c").read_text(), re.MULTILINE)]


@pytest.mark.parametrize("budget", [0, 10**9])
def test_the_hook_sees_each_row_of_each_step_begin_and_end(budget: int, tmp_path: Path) -> None:
    graph = streamable()
    firmware = written(graph, tmp_path / "firmware", budget=budget)
    (firmware / "hook.c").write_text(HOOK)
    sources = [str(path.relative_to(firmware)) for path in firmware.rglob("*.c") if path.name != "selftest.c"]
    library = ctypes.CDLL(str(compile_strictly(firmware, *sources, flags=("-DMODEL_PROFILE", "-I."))))

    x = random_inputs(graph, Seeded(2), 1)
    header = (firmware / "model.h").read_text()
    arena = np.zeros(int(re.findall(r"ARENA_BYTES (\d+)", header)[0]) + 16, np.uint8)
    start = arena.ctypes.data + -arena.ctypes.data % 16
    library.model_input.restype = library.model_output.restype = ctypes.c_void_p
    codes = reference.encode_input(graph, x)
    ctypes.memmove(library.model_input(ctypes.c_void_p(start)), codes.tobytes(), codes.nbytes)
    assert library.model_run(ctypes.c_void_p(start)) == 0
    truth = reference.run(graph, codes).tobytes()
    assert ctypes.string_at(library.model_output(ctypes.c_void_p(start)), len(truth)) == truth

    def seen(name: str, count: int) -> list[int]:
        return list((ctypes.c_int32 * count).in_dll(library, name))

    (calls,), (steps,) = seen("hooked_calls", 1), seen("hooked_count", 1)
    begins = seen("hooked_begins", calls)
    assert begins == [1, 0] * (calls // 2)
    named = seen("hooked_steps", calls)
    assert named[::2] == named[1::2]
    rows = rows_of_steps(firmware)
    assert [named[::2].count(step) for step in range(steps)] == rows
    assert (named[::2] == sorted(named[::2])) == (budget > 0)  # in a group the steps take turns
    labels = list((ctypes.c_char_p * steps).in_dll(library, "model_step_names"))
    assert [label.decode().partition("_")[0] for label in labels if label] == [f"n{i}" for i in range(steps)]


def test_without_the_hook_there_is_no_instruction_of_it(tmp_path: Path) -> None:
    """The same machine code as of sources that have never heard of it."""
    firmware = written(everything(Rounding.DOUBLE), tmp_path / "firmware", budget=0)
    row = machine(Core.CORTEX_M4)
    flags = ("-target", row.zig_target, f"-mcpu={row.zig_cpu}", "-O2", "-fhosted", "-g0", "-S")
    before = compile_strictly(firmware / "kernels", "run.c", flags=flags).read_text()
    source = (firmware / "kernels" / "run.c").read_text()
    without = re.sub(r"^ *CL_PROFILE\(.*\);\n", "", source, flags=re.MULTILINE)
    assert source.count("CL_PROFILE") == 2
    assert "CL_PROFILE" not in without
    (firmware / "kernels" / "run.c").write_text(without)
    assert compile_strictly(firmware / "kernels", "run.c", flags=flags).read_text() == before
    assert "model_profile" not in before
