"""One network or design on the bench, outside a study: open it, convert it, quantize it, compare its executors."""

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from crosslayer.attack.budget import Budget, Norm, check_set
from crosslayer.attack.catalogue import CATALOGUE
from crosslayer.attack.sensor import Sensor
from crosslayer.core.audit import Audit
from crosslayer.core.bench import Bench, Progress, silent
from crosslayer.core.codec import suggest
from crosslayer.core.dataset import Dataset
from crosslayer.core.design import Design, load_design, save_design, weight_bytes
from crosslayer.core.errors import InputError
from crosslayer.core.fixed import Rounding
from crosslayer.core.quant import Array
from crosslayer.core.robustness import Alone, Robustness
from crosslayer.core.score import Score
from crosslayer.core.stage import Recipe, Stage, run
from crosslayer.core.target import Core
from crosslayer.datasets.catalog import load
from crosslayer.emit.firmware import emit
from crosslayer.emit.packages import Package, emit_package, library_folder
from crosslayer.evaluate.attacked import evaluate_alone, evaluate_robustness
from crosslayer.evaluate.audit import audit
from crosslayer.evaluate.certificate import certificate_score
from crosslayer.evaluate.firmware import Comparison, as_bytes, compare, differing
from crosslayer.evaluate.litert import KERNELS, Check, check_layers, check_whole
from crosslayer.evaluate.rejection import Detection, accepted_score, detections, unknown_inputs
from crosslayer.evaluate.smoothing import Smoothing, smoothing_score
from crosslayer.execute import exact, reference
from crosslayer.execute.emulate import Image, runnable_cores
from crosslayer.execute.native import Native
from crosslayer.flow import RECIPE, check_samples, execute
from crosslayer.hardware.catalogue import load_target
from crosslayer.kernels.storage import flash_bytes
from crosslayer.plan.arena import PlanArena, plan_arena
from crosslayer.plan.weights import split_weights
from crosslayer.read.network import SUFFIXES, read_network
from crosslayer.simplify.activations import FuseActivations
from crosslayer.simplify.integers import SimplifyIntegers, simplify_integers
from crosslayer.simplify.norms import FoldNorms, fold_norms
from crosslayer.write.network import check_ending, write_network
from crosslayer.write.tflite import write_tflite


def open_design(source: Path, target: str, rounding: Rounding = Rounding.DOUBLE) -> Design:
    """The design in its folder or in that of a run; or a network file on a target, as it is."""
    if source.is_dir():
        return load_design(source / "design" if (source / "design").is_dir() else source)
    if not source.exists():
        raise InputError(f"{source}: is not there; give the folder of a design or run, or a {', '.join(SUFFIXES)} file")
    return Design(graph=read_network(source, rounding), target=load_target(target))


def ready(design: Design) -> Design:
    """The design that firmware is written of: planned, and simplified before that if it was not planned yet.

    Raises `InputError` for a float one.
    """
    if not design.graph.is_integer:
        raise InputError("this is a float network; quantize it first (crosslayer quantize)")
    if design.plan is not None:
        return design
    graph = simplify_integers(design.graph)
    plan = plan_arena(graph)
    return replace(design, graph=graph, plan=replace(plan, weights=split_weights(graph, plan, design.target)))


def quantized(design: Design, stage: Stage, data: Dataset, seed: int, progress: Progress = silent) -> Design:
    """A float design in integers, planned: normalizations folded, activations fused, then `stage`."""
    if design.graph.is_integer:
        raise InputError("this network has integers already; give a float one")
    check_samples(design.graph, data)
    bench = Bench(data=data, seed=seed, executor=execute, progress=progress)
    recipe: Recipe = (FoldNorms(), FuseActivations(), stage, SimplifyIntegers(), PlanArena())
    return run(recipe, design, bench, judge=lambda _: ())


def hardened(design: Design, stage: Stage, data: Dataset, seed: int, progress: Progress = silent) -> Design:
    """A float design trained by `stage`, then in integers, planned."""
    if design.graph.is_integer:
        raise InputError("this network has integers already; give a float one")
    check_samples(design.graph, data)
    bench = Bench(data=data, seed=seed, executor=execute, progress=progress)
    return run((stage, *RECIPE[3:]), design, bench, judge=lambda _: ())


def epsilon(budget: Budget) -> float:
    """The size of a budget that training can defend against. Raises `InputError` for another norm than linf."""
    if budget.norm is not Norm.LINF:
        raise InputError(f"budget {budget}: training defends against linf only; write such as linf 8/255")
    return budget.size


def quantization_figures(before: Design, after: Design, data: Dataset) -> dict[str, float]:
    """Accuracy of both on the test split, if they classify it, and the bytes of their weights and biases."""
    figures: dict[str, float] = {
        "weights_bytes": flash_bytes(after.graph),
        "saving": weight_bytes(before.graph) / flash_bytes(after.graph),
    }
    if before.graph.types[before.graph.outputs[0]].size == len(data.classes):
        bench = Bench(data=data, seed=0, executor=execute)
        figures["accuracy_float"] = bench.accuracy(before.graph, data.test)
        figures["accuracy"] = bench.accuracy(after.graph, data.test)
    return figures


def convert(design: Design, out: Path) -> None:
    """`out` is a network file if its name has an ending, or else the folder of the design; see `check_out`."""
    check_out(out)
    if out.suffix:
        write_network(fold_norms(design.graph), out)
    else:
        save_design(design, out)


def check_out(out: Path) -> None:
    """Raises `InputError` for a name that cannot be written, before there is work to lose: an ending that is no network
    file's, or what is there and no design."""
    if out.suffix:
        check_ending(out)
    elif out.exists() and not (out / "design.json").is_file():
        raise InputError(f"{out}: is there and is no design; choose another name")


def inputs_for(design: Design, data: str | None, samples: int, seed: int, scale: float = 1.0) -> Array:
    """Inputs for a design: the first test samples of a data set, or random codes over the whole range."""
    kind = design.graph.types[design.graph.inputs[0]]
    if data is not None:
        found = load(data)
        check_samples(design.graph, found)
        return found.scaled(scale).test.real(slice(0, samples))
    rng = np.random.default_rng(seed)
    if kind.quant is None:
        return rng.normal(size=(samples, *kind.shape)).astype(np.float32)
    return rng.integers(kind.quant.lowest, kind.quant.highest + 1, (samples, *kind.shape)).astype(kind.quant.dtype)


def write_firmware(design: Design, out: Path, package: Package, x: Array, *, verify: bool) -> dict[str, Any]:
    """`out` holds the firmware of a design as a package; what it takes, and with `verify` what its C says.

    That is: bytes in which the C, compiled for this computer, differs from the judge over `x`, and flash, RAM and the
    stack's bound as linked for the target's core. Raises `InputError` if `out` is there and is no firmware.
    """
    design = ready(design)
    library = library_folder(out, package)
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (library / "model.h").is_file())):
        raise InputError(f"{out}: is there and is no {package.value} firmware; choose another name")
    emit_package(design, out, x[:1], package)
    figures: dict[str, Any] = {
        "out": str(out),
        "package": package.value,
        "macs": sum(design.graph.macs.values()),
        "weights": flash_bytes(design.graph),
        "arena": 0 if design.plan is None else design.plan.arena_bytes,
    }
    if verify:
        codes = reference.encode_input(design.graph, x)
        truth = as_bytes(reference.run(design.graph, codes))
        image = Image.link(library, design.target.core)
        bound = image.stack_bound().bytes
        figures |= {
            "core": design.target.core.value,
            "flash": image.flash_bytes,
            "ram": image.ram_bytes + bound,
            "stack_bound": bound,
            "samples": len(x),
            "differing_bytes": differing("native", Native.build(library).run(codes), truth).differing_bytes,
        }
    return figures


def compare_executors(design: Design, x: Array, emulated: int) -> list[Comparison]:
    """Every executor against the judge: all of `x`, on each core that an emulator runs here the first `emulated`."""
    with firmware_of(design, x) as folder:
        return compare(design.graph, folder, x, emulated=emulated, cores=runnable_cores())


def compare_litert(source: Path, design: Design, x: Array, emulated: int) -> list[Check]:
    """Our integers against LiteRT's: each layer under the design's own rule, and whole networks under the two rules
    that LiteRT has. What LiteRT runs is the file `source`, if it is one that it can read, and the one we write."""
    graph = design.graph
    found = check_layers(graph, x)
    models = {"whole, as written": write_tflite(graph)}
    if source.suffix.lower() == ".tflite" and graph.types[graph.inputs[0]].quant is not None:
        models["whole"] = source.read_bytes()
    for rounding in KERNELS:
        ruled = replace(design, graph=replace(graph, rounding=rounding))
        with firmware_of(ruled, x) as folder:
            executors = {
                "exact": partial(exact.run, ruled.graph),
                "native": Native.build(folder).run,
                Core.CORTEX_M4.value: partial(_emulated, Image.link(folder, Core.CORTEX_M4), emulated),
            }
            for what, model in models.items():
                found += check_whole(ruled.graph, model, x, executors, what)
    return found


def attacked(
    design: Design, data: Dataset, budget: Budget, out: Path, samples: int, effort: int, seed: int, progress: Progress
) -> Robustness:
    """An integer design under attack, judged by its C; `out` holds the attacked samples afterwards (safetensors).

    Raises `InputError` for a float design, a norm without a set of attacks, and data of another shape or task.
    """
    check_set(budget)
    design = _classifier(design, data)
    with firmware_of(design, data.test.real(slice(0, 1))) as folder:
        found, stored = evaluate_robustness(
            design.graph,
            data,
            budget,
            folder,
            samples=samples,
            executor=execute,
            effort=effort,
            seed=seed,
            progress=progress,
        )
    stored.save(out)
    return found


def attacked_by(design: Design, data: Dataset, budget: Budget, name: str, out: Path, samples: int, seed: int) -> Alone:
    """An integer design under one attack of the catalogue; `out` holds the attacked samples afterwards (safetensors).

    Raises `InputError` for an unknown attack, a float design, a norm that the attack does not work under, and data of
    another shape or task.
    """
    if name not in CATALOGUE:
        raise InputError(f"attack '{name}' is not known; {suggest(name, list(CATALOGUE))}")
    design = _classifier(design, data)
    with firmware_of(design, data.test.real(slice(0, 1))) as folder:
        found, stored = evaluate_alone(
            design.graph, data, budget, CATALOGUE[name](), folder, samples=samples, executor=execute, seed=seed
        )
    stored.save(out)
    return found


def _classifier(design: Design, data: Dataset) -> Design:
    """The design with a plan, known to be an integer one that tells the data's classes apart."""
    design = ready(design)
    check_samples(design.graph, data)
    if design.graph.types[design.graph.outputs[0]].size != len(data.classes):
        raise InputError(f"the design tells other classes apart than the {len(data.classes)} of {data.name}")
    return design


def certificate(
    design: Design,
    data: Dataset,
    budget: Budget,
    samples: int | None,
    smoothing: Smoothing | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Score:
    """The share of the first test samples (all for None) whose label an integer design, or with `smoothing` its vote
    over noise, provably keeps.

    Raises `InputError` for a float design, another norm than linf (`smoothing`: l2), and data of another shape.
    """
    check_samples(design.graph, data)
    part, sensor = data.test.take(slice(0, samples)), Sensor.of(data.train)
    if smoothing is None:
        return certificate_score(design.graph, part, budget, sensor)
    return smoothing_score(design.graph, part, budget, sensor, smoothing, execute, seed=seed, progress=progress)


def detected(
    design: Design, data: Dataset, unknown: Dataset | None, samples: int, seed: int
) -> tuple[Score, tuple[Detection, ...]]:
    """The share of the first test samples that a design accepts, and how it tells them from noise, constant images and
    the test samples of `unknown`. Raises `InputError` for a design without rejection and data of another shape."""
    part, sensor = data.test.take(slice(0, samples)), Sensor.of(data.train)
    for each in (data, unknown):
        if each is not None:
            check_samples(design.graph, each)
    others = unknown_inputs(sensor, data.shape, samples, np.random.default_rng(seed))
    if unknown is not None:
        others[unknown.name] = unknown.test.real(slice(0, samples))
    return accepted_score(design, part, execute), detections(design, part, others, execute)


def audited(
    design: Design,
    data: Dataset,
    before: Design | None,
    queries: Dataset | None,
    samples: int,
    references: int,
    seed: int,
    progress: Progress,
) -> Audit:
    """All audits of an integer design that was trained on `data`; see `evaluate/audit.py`.

    Raises `InputError` for a float design, data of another shape or task, or a `before` that is no such float network.
    """
    design = ready(design)
    for graph in (design.graph, *([] if before is None else [before.graph])):
        check_samples(graph, data)
        if graph.types[graph.outputs[0]].size != len(data.classes):
            raise InputError(f"the design tells other classes apart than the {len(data.classes)} of {data.name}")
    if before is not None and before.graph.is_integer:
        raise InputError("the network before quantization has integers already; give the float one")
    return audit(
        design.graph,
        data,
        queries,
        execute,
        before=None if before is None else before.graph,
        samples=samples,
        references=references,
        seed=seed,
        progress=progress,
    )


def _emulated(image: Image, samples: int, codes: Array) -> Array:
    return image.run(codes[:samples]).outputs


@contextmanager
def firmware_of(design: Design, x: Array) -> Generator[Path]:
    """A folder with the firmware of a design, for as long as the block lasts. Raises `InputError` for a float one."""
    design = ready(design)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "firmware"
        emit(design, folder, x[:1])
        yield folder
