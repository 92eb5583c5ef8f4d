"""The whole way: a network and a device in, verified firmware and a data sheet out. Read this first."""

import importlib
import json
import math
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import final

from crosslayer.attack.budget import Budget
from crosslayer.attack.sticker import side_of
from crosslayer.core.bench import Bench, Progress, silent
from crosslayer.core.codec import suggest
from crosslayer.core.dataset import Dataset
from crosslayer.core.design import Design, save_design
from crosslayer.core.errors import DesignError, GraphError, InputError
from crosslayer.core.files import discard, is_partial, sweep_partials, unwritable, write_atomic
from crosslayer.core.graph.graph import Graph, verify
from crosslayer.core.plan import peak_bytes
from crosslayer.core.quant import Array
from crosslayer.core.robustness import Robustness, Sticker
from crosslayer.core.score import Score
from crosslayer.core.sheet import Sheet, save_sheet, scores_document
from crosslayer.core.stage import Recipe, Stage, run
from crosslayer.core.target import MemoryKind
from crosslayer.datasets.catalog import load
from crosslayer.emit.firmware import emit
from crosslayer.emit.packages import Package, emit_package
from crosslayer.evaluate.accuracy import accuracy_score, predict
from crosslayer.evaluate.attacked import evaluate_robustness
from crosslayer.evaluate.firmware import check_fit
from crosslayer.evaluate.measure import measure
from crosslayer.evaluate.size import count_scores, rough_scores
from crosslayer.evaluate.sticker import evaluate_sticker
from crosslayer.execute import exact
from crosslayer.hardware.catalogue import load_target
from crosslayer.learn.adversarial import TrainRobust
from crosslayer.learn.certified import TrainCertified
from crosslayer.learn.noisy import TrainNoisy
from crosslayer.learn.train import FineTune, Train
from crosslayer.networks.zoo import network
from crosslayer.plan.arena import PlanArena
from crosslayer.prune.channels import PruneChannels
from crosslayer.prune.search import SearchPruning
from crosslayer.prune.sensitivity import MeasureSensitivity
from crosslayer.prune.weights import PruneWeights
from crosslayer.quantize.affine import QuantizeAffine
from crosslayer.quantize.aware import QuantizeAware
from crosslayer.quantize.mixed import MixedPrecision
from crosslayer.read.network import SUFFIXES as READABLE
from crosslayer.read.network import read_network
from crosslayer.report.page import write_report
from crosslayer.simplify.activations import FuseActivations
from crosslayer.simplify.integers import SimplifyIntegers
from crosslayer.simplify.norms import FoldNorms
from crosslayer.study import Study, study_text

RECIPE: Recipe = (
    Train(epochs=30, batch=64),
    PruneChannels(drop=0.01, patience=2),
    FineTune(),
    FoldNorms(),
    FuseActivations(),
    QuantizeAffine(),
    SimplifyIntegers(),
    PlanArena(),
)
"""The default recipe: train, prune, tune, simplify, quantize, simplify what integers show to be constant, plan."""

LEARNING = (Train, TrainNoisy, TrainRobust, TrainCertified)
"""The stages from which the float network comes that a design is compared with."""

STUDY = """
[network]
source = "lenet5"
[data]
source = "digits"
[target]
name = "stm32f769"
[require]
accuracy_drop = 0.02
flash = "64 KiB"
ram = "16 KiB"
latency = "20 ms"
energy = "1 mJ"
differing_bytes = 0
"""
"""What `crosslayer run` does without a study file: real handwritten digits on the talk's device."""

_MARK = "study.toml"


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """A study with everything it names found, and known to be able to fit."""

    study: Study
    recipe: Recipe
    design: Design
    data: Dataset


def prepare(study: Study) -> Job:
    """The job of a study. Raises `InputError`, `DataError` or `FitError` before anything is written."""
    target = load_target(study.target.name)
    if target.active_power is None and any(r.name == "energy" for r in study.require):
        raise InputError(f"require.energy: no power figure of {target.name} is known; leave this requirement out")
    data = load(study.data.source).scaled(study.data.scale)
    graph, recipe = find_network(study.network.source, data, study.seed)
    recipe = study.recipe if study.recipe is not None else recipe
    if graph.types[graph.outputs[0]].size != len(data.classes):
        raise InputError(f"network '{study.network.source}' is no classifier; {data.name} has classes to be told apart")
    if study.attack is not None and study.attack.sticker:
        side_of(Budget.parse(study.attack.sticker), data.shape)
        if study.attack.target not in ("", *data.classes):
            raise InputError(f"attack.target: {suggest(study.attack.target, data.classes)}")
    least = math.prod(_least_kept(stage) for stage in recipe)
    order = tuple(node.name for node in graph.nodes)
    needs = {
        MemoryKind.FLASH: int(graph.parameters * least),  # one byte per int8 weight
        MemoryKind.RAM: int(peak_bytes(graph, order) / (1 if graph.is_integer else 4) * least),  # in int8
    }
    check_fit(needs, target, f"{study.network.source} on {data.name}, quantized" + (" and pruned" * (least < 1)))
    design = Design(graph=graph, target=target)
    rehearse(recipe, design, data)
    return Job(study=study, recipe=recipe, design=design, data=data)


def _least_kept(stage: Stage) -> float:
    """The least share of the parameters that a stage can leave."""
    match stage:
        case SearchPruning(pruning=pruning):
            return _least_kept(pruning)
        case PruneChannels(keep=keep, of="parameters"):
            return keep
        case PruneChannels():
            return 0.0
        case _:
            return 1.0


def find_network(source: str, data: Dataset, seed: int) -> tuple[Graph, Recipe]:
    """The network of a study for samples of `data`, and the recipe that suits it if the study has none.

    A name gives fresh weights to be trained. A network file, or `package.module:function`, which is called with the
    shape of a sample and the number of classes and returns a Graph or a PyTorch module, gives weights to be tuned;
    integers are only simplified and planned.
    """
    classes = len(data.classes)
    if Path(source).suffix.lower() in READABLE:
        graph = read_network(Path(source))
    elif ":" in source:
        graph = _called(source, data.shape, classes)
    else:
        return network(source, data.shape, classes, seed), RECIPE
    check_samples(graph, data)
    return graph, RECIPE[-2:] if graph.is_integer else RECIPE[1:]


def check_samples(graph: Graph, data: Dataset) -> None:
    """Raises `InputError` if the network takes samples of another shape."""
    shape = graph.types[graph.inputs[0]].shape
    if shape != data.shape:
        raise InputError(
            f"the network takes samples of {list(shape)}, {data.name} has {list(data.shape)}; give data of that shape"
        )


def _called(source: str, shape: tuple[int, ...], classes: int) -> Graph:
    """What the user's own function makes."""
    module, _, function = source.partition(":")
    try:
        made = getattr(importlib.import_module(module), function)(shape, classes)
    except (ImportError, AttributeError) as error:
        raise InputError(f"network '{source}': cannot be imported ({error}); write package.module:function") from error
    if isinstance(made, Graph):
        return verify(made)
    from crosslayer.read.torch import from_module  # loaded only where a module is read

    return from_module(made, (shape[-1], *shape[:-1]))


def rehearse(recipe: Recipe, design: Design, data: Dataset) -> None:
    """Raises `GraphError` or `InputError` if the stages cannot follow one another to firmware, whatever is learned."""
    bench = Bench(data=replace(data, train=data.train.take(slice(0, 1))), seed=0, executor=execute)
    for position, stage in enumerate(recipe):
        try:
            if isinstance(stage, FineTune | PruneChannels | PruneWeights | SearchPruning | MeasureSensitivity):
                stage.check(design)
            elif design.graph.is_integer or not isinstance(stage, LEARNING):
                design = (stage.start if isinstance(stage, QuantizeAware | MixedPrecision) else stage)(design, bench)
        except (DesignError, GraphError, InputError) as error:
            raise type(error)(f"stage {position + 1} ({stage.name()}): {error}") from error
    if design.plan is None or not design.graph.is_integer:
        raise InputError("the recipe does not lead to firmware; let it end with quantize-affine and then plan-arena")


def build(
    job: Job,
    out: Path,
    *,
    resume: bool = False,
    progress: Progress = silent,
    observe: Callable[[int, str, bool], None] = lambda position, stage, resumed: None,
) -> Sheet:
    """Runs the recipe, writes and verifies the firmware, and puts design, firmware, report and scores into `out`.

    With `resume`, a run that was killed goes on after its last finished stage; without, it starts afresh.
    """
    study, data = job.study, job.data
    work = claim(out, study_text(study, job.recipe), resume=resume)
    bench = Bench(data=data, seed=study.seed, executor=execute, progress=progress, cache=work / "cache")
    baseline = job.design.graph

    def visit(position: int, stage: Stage, design: Design) -> None:
        nonlocal baseline
        if isinstance(stage, LEARNING):
            baseline = design.graph

    design = run(
        job.recipe,
        job.design,
        bench,
        judge=lambda design: judge(design, bench),
        checkpoints=work,
        observe=observe,
        visit=visit,
    )
    observe(len(job.recipe), "write firmware, verify, measure", False)
    firmware = work / "firmware"
    emit(design, firmware, data.validation.real(slice(0, 4)))
    figures = measure(design, baseline, data, firmware, emulated=study.samples, executor=execute)
    robustness, sticker = under_attack(job, design, firmware, out, progress, observe)
    scores = (*figures.scores, *(found.score for found in (robustness, sticker) if found is not None))
    found = {score.name: score for score in scores}
    sheet = Sheet(
        title=f"{study.network.source} on {data.name} for {design.target.name}",
        design=design,
        network=study.network.source,
        dataset=data.name,
        dataset_source=data.source,
        seed=study.seed,
        scores=scores,
        verdicts=tuple(requirement.verdict(found[requirement.name]) for requirement in study.require),
        layers=figures.layers,
        classes=data.classes,
        confusion=figures.confusion,
        samples=figures.samples,
        study=study_text(study, job.recipe),
        versions=versions(),
        robustness=robustness,
        sticker=sticker,
    )
    save_design(design, out / "design")
    emit_package(design, out / "firmware", data.validation.real(slice(0, 4)), Package.PLAIN)
    save_sheet(sheet, out / "sheet.json")
    write_report(sheet, out / "report.html")
    write_atomic(out / "scores.json", json.dumps(scores_document(sheet), indent=1, ensure_ascii=False) + "\n")
    return sheet


def under_attack(
    job: Job, design: Design, firmware: Path, out: Path, progress: Progress, observe: Callable[[int, str, bool], None]
) -> tuple[Robustness | None, Sticker | None]:
    """What `[attack]` asks for; `out` gets the attacked samples."""
    plan, seed = job.study.attack, job.study.seed
    if plan is None:
        return None, None
    observe(len(job.recipe), f"attack at {plan.budget}", False)
    robustness, attacked = evaluate_robustness(
        design.graph,
        job.data,
        Budget.parse(plan.budget),
        firmware,
        samples=plan.samples,
        effort=plan.effort,
        seed=seed,
        executor=execute,
        progress=progress,
    )
    attacked.save(out / "attacked.safetensors")
    if not plan.sticker:
        return robustness, None
    observe(len(job.recipe), f"sticker on {plan.sticker}", False)
    sticker = evaluate_sticker(
        design.graph,
        job.data,
        Budget.parse(plan.sticker),
        firmware,
        samples=plan.samples,
        target=job.data.classes.index(plan.target) if plan.target else None,
        effort=plan.effort,
        seed=seed,
        executor=execute,
        progress=progress,
    )
    return robustness, sticker


def execute(graph: Graph, x: Array) -> Array:
    """The fastest executor that can be trusted: `exact` for integers, PyTorch for floats."""
    if graph.is_integer:
        return exact.run(graph, x)
    from crosslayer.execute.torch import run as run_torch  # loaded only where floats are executed

    return run_torch(graph, x)


def judge(design: Design, bench: Bench) -> tuple[Score, ...]:
    """The figures of a design on the way: accuracy on validation data, counts, and modelled costs."""
    validation = bench.data.validation
    predicted = predict(design.graph, validation, bench.executor)
    accuracy = accuracy_score("accuracy", predicted, validation.labels, "validation data")
    return (accuracy, *count_scores(design.graph), *rough_scores(design))


def claim(out: Path, study: str, *, resume: bool) -> Path:
    """The folder for checkpoints in `out`, which from now on belongs to this study.

    Raises `InputError` if `out` cannot be written, or holds something that no run has put there. Results of an earlier
    run are removed first, so that what lies in `out` always belongs to one run.
    """
    work = out / ".work"
    try:
        if out.exists() and not (out.is_dir() and _is_free(out)):
            raise InputError(f"{out}: is not empty and not the folder of a run; choose another one")
        out.mkdir(parents=True, exist_ok=True)
        sweep_partials(out)
        same = (out / _MARK).is_file() and (out / _MARK).read_text(encoding="utf-8") == study
        if not (resume and same):
            for name in ("scores.json", "report.html", "sheet.json", "attacked.safetensors", "design", "firmware"):
                discard(out / name)
        if not resume:
            discard(work)
        write_atomic(out / _MARK, study)
        work.mkdir(exist_ok=True)
        sweep_partials(work)
    except OSError as error:
        raise unwritable(out, error) from error
    return work


def _is_free(out: Path) -> bool:
    """Whether a folder is that of a run, or empty but for what a run that was killed at its start has left."""
    return (out / _MARK).is_file() or all(is_partial(path) for path in out.iterdir())


def versions() -> dict[str, str]:
    """The tools that can take part in a run, and their versions."""
    installed = {d.name: d.version for d in metadata.distributions()}
    tools = ("crosslayer", "numpy", "torch", "scikit-learn", "ziglang", "unicorn")
    return {"python": platform.python_version(), **{tool: installed[tool] for tool in tools if tool in installed}}
