"""The bound of the stack: no run goes deeper, hardly any bytes are lost, and code without a bound is refused."""

import os
from pathlib import Path

import pytest

from crosslayer import workbench
from crosslayer.core.errors import ToolError
from crosslayer.core.fixed import Rounding
from crosslayer.core.target import Core
from crosslayer.execute.emulate import Image, runnable_cores
from crosslayer.execute.toolchain import Level
from crosslayer.testing.chance import Seeded
from crosslayer.testing.executors import random_inputs, write_firmware
from test_emit import everything
from test_execute_emulate import FIXTURE, samples, variant

MODELS = Path(os.environ["CROSSLAYER_DATA"]) / "mlperf_tiny"
SLACK = 32
"""Bytes that a bound may lie above what a run shows: room for values that it never stored."""

CASES = "\n".join(
    f"    case {i}: p[{i}] = (int8_t)(p[{7 - i}] * {i + 3}); p[{i + 8}] ^= p[{i}]; break;" for i in range(8)
)
SWITCH = f"""
static __attribute__((noinline)) void choose(int8_t *p, volatile int32_t *which) {{
    volatile int32_t held[9] = {{0}};
    held[*which & 7] = 1;
    switch (*which & 7) {{
{CASES}
    }}
}}
"""
AGAIN = """
static __attribute__((noinline)) int32_t again(volatile int32_t *n) {
    if (*n <= 0) {
        return 0;
    }
    *n -= 1;
    const int32_t before = again(n);
    return before + *n;
}
"""
POINTER = """
static int32_t one(int32_t v) { return v + 1; }
static int32_t (*volatile hook)(int32_t) = one;
"""
NAKED = """
__attribute__((naked, noinline)) static void deep(void) {
    __asm__("push {r4, r5, r6, r7, lr}\\n sub sp, #200\\n str r4, [sp]\\n"
            "add sp, #200\\n pop {r4, r5, r6, r7, pc}\\n");
}
"""


def check(image: Image, depth: int) -> None:
    bound = image.stack_bound()
    assert depth <= bound.bytes <= depth + SLACK, (bound, depth)
    assert sum(held for _, held in bound.path) == bound.bytes
    assert bound.path[0][0] == "model_run"


@pytest.mark.parametrize("core", runnable_cores())
@pytest.mark.parametrize("rounding", [Rounding.DOUBLE, Rounding.REFERENCE])
def test_a_run_goes_as_deep_as_the_bound_says(core: Core, rounding: Rounding, tmp_path: Path) -> None:
    graph = everything(rounding)
    x = random_inputs(graph, Seeded(1), 8)
    image = Image.link(write_firmware(graph, tmp_path / "firmware", x), core)
    check(image, image.run(x).stack_bytes)


@pytest.mark.parametrize("core", [Core.CORTEX_M0, Core.CORTEX_M4, Core.RV32])
@pytest.mark.parametrize("level", [Level.O0, Level.O2, Level.OS])
def test_the_bound_holds_however_the_compiler_optimises(core: Core, level: Level) -> None:
    image = Image.link(FIXTURE, core, level=level)
    check(image, image.run(samples(20)).stack_bytes)


@pytest.mark.parametrize("core", [Core.CORTEX_M0, Core.CORTEX_M33, Core.RV32])
def test_the_cases_of_a_switch_are_followed(core: Core, tmp_path: Path) -> None:
    line = "volatile int32_t n = a->input[0]; choose(a->scratch, &n);"
    image = Image.link(variant(tmp_path, line, SWITCH), core)
    check(image, image.run(samples(20)).stack_bytes)


def test_a_function_in_assembler_counts_as_it_is(tmp_path: Path) -> None:
    bound = Image.link(variant(tmp_path, "deep();", NAKED), Core.CORTEX_M4).stack_bound()
    assert bound.path[-1] == ("deep", 220)


@pytest.mark.parametrize("core", [Core.CORTEX_M0, Core.CORTEX_M4, Core.RV32])
@pytest.mark.parametrize(
    ("line", "above", "complaint"),
    [
        ("volatile int32_t n = 3; a->scratch[0] = (int8_t)again(&n);", AGAIN, "again calls itself"),
        ("a->scratch[0] = (int8_t)hook(3);", POINTER, "model_run (calls through a pointer|jumps to an address)"),
        (
            "volatile int8_t *room = __builtin_alloca((size_t)(a->input[0] & 7) + 1U); room[0] = 1;",
            "",
            "model_run moves the stack pointer by no constant",
        ),
    ],
)
def test_code_without_a_bound_is_refused(core: Core, line: str, above: str, complaint: str, tmp_path: Path) -> None:
    image = Image.link(variant(tmp_path, line, above), core)
    with pytest.raises(ToolError, match=complaint):
        image.stack_bound()


@pytest.mark.slow
@pytest.mark.skipif(not MODELS.is_dir(), reason="the data set mlperf_tiny is absent")
@pytest.mark.parametrize(
    "name",
    [
        "keyword_spotting/kws_ref_model",
        "visual_wake_words/vww_96_int8",
        "image_classification/pretrainedResnet_quant",
        "anomaly_detection/ad01_int8",
        "streaming_wakeword/str_ww_ref_model",
    ],
)
def test_the_bound_of_the_mlperf_tiny_models_is_what_they_need(name: str) -> None:
    design = workbench.open_design(MODELS / f"{name}.tflite", "stm32l4r5")
    x = workbench.inputs_for(design, None, 1, 0)
    with workbench.firmware_of(design, x) as folder:
        for core in runnable_cores():
            image = Image.link(folder, core)
            check(image, image.run(x).stack_bytes)
