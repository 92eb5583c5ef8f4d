"""Firmware of the MLPerf Tiny networks on emulated cores beside CMSIS-NN: instructions, flash, RAM; exact counts.

    python benchmarks/mcu.py [--cores cortex-m4,...] [--rules double,...] [--models kws,...]

Flash is code and constants, RAM the arena, static data and the deepest stack, input and output included. The first
sample of random codes is counted; all are compared with the integer reference of the network as it was read.

What stands beside them (benchmarks/cmsis_nn.csv): CMSIS-NN 4ab83cc called directly, without an interpreter, compiled by
arm-none-eabi-gcc 12.2.1 at -O2, counted by QEMU 7.2 on mps2-an386 (M4), mps2-an500 (M7) and mps3-an547 (M55), an empty
program's flash taken off; measured once, not in this run. `single` is its option for rounding once, which is nearest to
our rule `float`.
"""

import argparse
import csv
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from crosslayer.core.design import Design
from crosslayer.core.errors import InputError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.graph import Graph
from crosslayer.core.target import Core
from crosslayer.datasets import places
from crosslayer.emit.firmware import emit
from crosslayer.execute import exact
from crosslayer.execute.emulate import Emulation, Image, left_out, runnable_cores
from crosslayer.hardware.catalogue import load_target
from crosslayer.plan.arena import plan_arena
from crosslayer.read.network import read_network
from crosslayer.workbench import ready

MODELS = {
    "kws": "mlperf_tiny/keyword_spotting/kws_ref_model.tflite",
    "vww": "mlperf_tiny/visual_wake_words/vww_96_int8.tflite",
    "ic": "mlperf_tiny/image_classification/pretrainedResnet_quant.tflite",
    "ad": "mlperf_tiny/anomaly_detection/ad01_int8.tflite",
    "sww": "mlperf_tiny/streaming_wakeword/str_ww_ref_model.tflite",
}
SAMPLES = 4
BESIDE = {Rounding.DOUBLE: "double", Rounding.FLOAT: "single"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", default=",".join(runnable_cores()))
    parser.add_argument("--rules", default="double", help="for all cores; the Cortex-M4 has all three")
    parser.add_argument("--models", default=",".join(MODELS))
    given = parser.parse_args()
    models = given.models.split(",")
    cores = [Core(name) for name in given.cores.split(",")]
    beside = baselines()
    print(
        "| network | core | rule | instructions | CMSIS-NN | times "
        "| flash, B | CMSIS-NN | RAM, B | CMSIS-NN | differing, B |\n" + "|---" * 11 + "|"
    )
    for core in cores:
        for rule in Rounding if core is Core.CORTEX_M4 else [Rounding(name) for name in given.rules.split(",")]:
            for model in models:
                row(model, core, rule, beside.get((model, core.value, BESIDE.get(rule, ""))))
    for why in left_out().values():
        print(f"\nleft out: {why}")
    if Core.CORTEX_M4 in cores:
        print(
            "\nOn the Cortex-M4, the input line by line:\n\n| network | instructions | RAM, B | bound of the arena, B |"
        )
        print("|---|---|---|---|")
        for model in (m for m in models if m != "ad"):
            design, _ = opened(model, Rounding.DOUBLE)
            design = replace(design, plan=plan_arena(design.graph, streamed=True))
            ran, differing = ran_on(design, design.graph, Core.CORTEX_M4)
            assert differing == 0
            assert design.plan is not None
            print(f"| {model} | {ran.instructions[0]:,} | {ram(ran):,} | {design.plan.bound_bytes:,} |", flush=True)
        layers(models)


def row(model: str, core: Core, rule: Rounding, other: dict[str, str] | None) -> None:
    """One line of the first table."""
    design, graph = opened(model, rule)
    ran, differing = ran_on(design, graph, core)
    count = int(ran.instructions[0])
    theirs = {key: f"{int(other[key]):,}" if other else "" for key in ("instructions", "flash", "ram")}
    times = f"{int(other['instructions']) / count:.2f}" if other else ""
    print(
        f"| {model} | {core} | {rule} | {count:,} | {theirs['instructions']} | {times} | {ran.image.flash_bytes:,} "
        f"| {theirs['flash']} | {ram(ran):,} | {theirs['ram']} | {differing} |",
        flush=True,
    )


def layers(models: list[str]) -> None:
    """Instructions of each kind of layer on the Cortex-M4: for a multiply-accumulate, or for a result."""
    found: dict[str, list[float]] = {}
    for model in models:
        design, _ = opened(model, Rounding.DOUBLE)
        graph = design.graph
        ran, _ = ran_on(design, graph, Core.CORTEX_M4)
        assert design.plan is not None
        steps = [name for name in design.plan.order if not graph.producers[name].op.is_view]
        for name, count in zip(steps, ran.by_step.tolist(), strict=True):
            shapes = [graph.types[n].shape for n in graph.producers[name].inputs]
            what = f"{type(graph.producers[name].op).__name__} {'·'.join(str(shape) for shape in shapes[:2])}"
            per = graph.macs[name] or graph.types[name].size
            found.setdefault(what, []).append(count / SAMPLES / per)
    print("\n| layer: shapes of input and weight | instructions per multiply-accumulate, without those per result |")
    print("|---|---|")
    for what, values in found.items():
        print(f"| {what} | {np.mean(values):.2f} |")


def opened(model: str, rule: Rounding) -> tuple[Design, Graph]:
    """The design that firmware is written of, and the network as it was read."""
    found = [folder / MODELS[model] for folder in places.search_folders() if (folder / MODELS[model]).is_file()]
    if not found:
        raise InputError(f"{MODELS[model]}: not found; let {places.VARIABLE} name the folder that holds mlperf_tiny/")
    graph = read_network(found[0], rule)
    return ready(Design(graph=graph, target=load_target("stm32l4r5"))), graph


def ran_on(design: Design, graph: Graph, core: Core) -> tuple[Emulation, int]:
    """Some random samples on a core, and the bytes that differ from what `graph` makes of them."""
    kind = graph.types[graph.inputs[0]]
    codes = np.random.default_rng(0).integers(-128, 128, (SAMPLES, *kind.shape)).astype(np.int8)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "firmware"
        emit(design, folder, codes[:1])
        ran = Image.link(folder, core).run(codes)
    truth = exact.run(graph, codes).reshape(SAMPLES, -1).view(np.uint8)
    return ran, int((ran.outputs != truth).sum())


def ram(ran: Emulation) -> int:
    """Arena, static data and stack."""
    return ran.image.ram_bytes + ran.stack_bytes


def baselines() -> dict[tuple[str, str, str], dict[str, str]]:
    """What was measured of CMSIS-NN, by network, core and rule."""
    with (Path(__file__).parent / "cmsis_nn.csv").open() as file:
        return {(line["model"], line["core"], line["rule"]): line for line in csv.DictReader(file)}


if __name__ == "__main__":
    main()
