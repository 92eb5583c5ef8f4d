"""Designs on disk, and running stages with checkpoints."""

import contextlib
import copy
import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from crosslayer.core.bench import Bench
from crosslayer.core.codec import to_plain
from crosslayer.core.design import FORMAT, Design, Step, load_design, save_design, weight_bytes
from crosslayer.core.errors import DesignError, GraphError, InputError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import OPS, Conv2d, Dense, Relu, Reshape, Softmax, Windows
from crosslayer.core.quant import pack
from crosslayer.core.score import Better, Origin, Score
from crosslayer.core.stage import Stage, run
from crosslayer.datasets.catalog import load
from crosslayer.hardware.catalogue import list_targets, load_target
from crosslayer.networks.zoo import network
from crosslayer.plan.arena import PlanArena, plan_arena
from crosslayer.quantize.affine import QuantizeAffine
from crosslayer.simplify.activations import FuseActivations
from crosslayer.simplify.norms import FoldNorms
from crosslayer.testing.chance import Chance, Seeded, grown
from crosslayer.testing.datasets import check_dataset, small_dataset
from crosslayer.testing.graphs import Growth, float_graph, integer_graph, operation_graph
from crosslayer.testing.stages import small_bench
from crosslayer.testing.targets import check_target

NOTES = {"a": 1, "b": [1.5, "text", None, True], "c": {"d": {"e": []}}, "é ../": "*/"}


def no_wait(file: int) -> None:
    """In place of os.fsync: how files reach the disk is not the question here."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", no_wait)


def scores() -> tuple[Score, ...]:
    figure = Score(name="accuracy", value=0.5, unit="", better=Better.HIGHER, origin=Origin.MEASURED)
    return figure, replace(figure, name="latency", low=0.25, high=0.75, note="µs", origin=Origin.MODELLED)


def any_design(chance: Chance) -> Design:
    graph = integer_graph(chance, chance.one_of(tuple(Rounding))) if chance.rarely(2) else float_graph(chance)
    plan = plan_arena(graph) if chance.rarely(2) else None
    trail = (Step(stage="train(epochs=1)"), Step(stage="other()", scores=scores(), notes=NOTES))
    target = chance.one_of(list_targets())
    return Design(graph=graph, target=target, plan=plan, trail=trail[: chance.integer(0, 2)])


def network_of_all_parts() -> Graph:
    """x → conv2d1 (c1, c2) → reshape1 → dense1 (c3, c4) → softmax1."""
    growth = Growth(Seeded(0), Rounding.DOUBLE)
    constants = growth.weights(3, 2, 2, 2), growth.weights(3)
    x = growth.apply(Conv2d(windows=Windows(kernel=(2, 2))), growth.input((3, 3, 2), coded=True), constants=constants)
    x = growth.apply(Reshape(shape=(12,)), x)
    x = growth.apply(Dense(), x, constants=(growth.weights(4, 12), growth.weights(4)))
    return growth.graph(growth.apply(Softmax(), x))


def saved(folder: Path) -> Path:
    """A folder with a design in which all there can be is there."""
    graph, trail = network_of_all_parts(), (Step(stage="s()", scores=scores(), notes=NOTES),)
    save_design(Design(graph=graph, target=load_target("stm32f769"), plan=plan_arena(graph), trail=trail), folder)
    return folder


@settings(max_examples=20, deadline=None)
@given(design=grown(any_design))
def test_a_saved_design_is_the_same_design(design: Design, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("designs") / "design"
    save_design(design, folder)
    again = load_design(folder)
    assert again == design
    assert again.graph.digest == design.graph.digest
    first = {p.name: p.read_bytes() for p in folder.iterdir()}
    save_design(again, folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == first


@pytest.mark.parametrize("op", OPS)
def test_every_operation_can_be_saved(op: Any, tmp_path: Path) -> None:
    target = load_target("stm32f769")
    for seed in range(5):
        graph = operation_graph(Seeded(seed), op, None)
        save_design(Design(graph=graph, target=target), tmp_path / "design")
        assert load_design(tmp_path / "design").graph == graph


@pytest.mark.parametrize("name", ["a b", "日本", "", "../../x", "/etc/x", "a\nb", "n" * 201, "a/../../b"])
def test_a_name_that_could_not_be_read_back_is_refused_when_saving(name: str, tmp_path: Path) -> None:
    b = Builder()
    graph = b.graph(b.add(Relu(), b.input(name, (1,))))
    with pytest.raises(DesignError, match=r"is not a legal name; use up to 200 letters, digits and _ \. : / -"):
        save_design(Design(graph=graph, target=load_target("stm32f769")), tmp_path / "design")
    assert list(tmp_path.iterdir()) == []


def test_weights_are_counted_as_shipped() -> None:
    """Layers' weights of less than 8 bits are packed; what else a graph holds is as stored."""
    graph = integer_graph(Seeded(7), Rounding.DOUBLE)
    packed = {n.inputs[1] for n in graph.nodes if n.op.channel_axis is not None}
    kinds = [(name in packed, graph.types[name]) for name in graph.constants]
    shipped = [len(pack(np.zeros(t.shape, np.int8), t.quant.bits)) if w and t.quant else t.bytes for w, t in kinds]
    assert any(w and t.quant is not None and t.quant.bits < 8 for w, t in kinds)
    assert weight_bytes(graph) == sum(shipped) < sum(t.bytes for _, t in kinds)
    real = float_graph(Seeded(7))
    assert weight_bytes(real) == sum(4 * value.size for value in real.constants.values())


# files that somebody broke or wrote with bad intent

Change = Callable[[Any], None]
Break = Callable[[Path], None]


def text(change: Callable[[str], str]) -> Break:
    """Change the text of design.json."""

    def apply(folder: Path) -> None:
        path = folder / "design.json"
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")

    return apply


def tree(change: Change) -> Break:
    """Change the parsed design.json."""

    def apply(folder: Path) -> None:
        path = folder / "design.json"
        document = json.loads(path.read_text(encoding="utf-8"))
        change(document)
        path.write_text(json.dumps(document), encoding="utf-8")

    return apply


def put(value: Any, *path: str | int) -> Break:
    """Put a value at a path of design.json."""

    def change(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = value

    return tree(change)


def drop(*path: str) -> Break:
    """Remove a key of design.json."""

    def change(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        del document[path[-1]]

    return tree(change)


def tensors(change: Callable[[bytes], bytes]) -> Break:
    """Change the bytes of the constants."""

    def apply(folder: Path) -> None:
        path = folder / "constants.safetensors"
        path.write_bytes(change(path.read_bytes()))

    return apply


def values(change: Callable[[dict[str, Any]], None]) -> Break:
    """Change the constants."""

    def apply(folder: Path) -> None:
        path = folder / "constants.safetensors"
        found = dict(safetensors.numpy.load(path.read_bytes()))
        change(found)
        path.write_bytes(safetensors.numpy.save(found))

    return apply


class Bomb:
    """Unpickling this makes a folder."""

    def __reduce__(self) -> Any:
        return os.makedirs, ("exploded",)


def replaced(raw: bytes) -> Break:
    """Write other bytes into design.json."""

    def apply(folder: Path) -> None:
        (folder / "design.json").write_bytes(raw)

    return apply


def linked(name: str) -> Break:
    """Replace a file with a link to it elsewhere."""

    def apply(folder: Path) -> None:
        elsewhere = folder.parent / "elsewhere"
        shutil.move(folder / name, elsewhere)
        (folder / name).symlink_to(elsewhere)

    return apply


def renamed(new: str) -> Break:
    """Give a node another name everywhere."""
    return text(lambda content: content.replace('"conv2d1"', json.dumps(new)))


def resized(found: dict[str, Any]) -> None:
    found["c1"] = found["c1"].reshape(-1)


def retyped(found: dict[str, Any]) -> None:
    found["c1"] = found["c1"].astype(np.int16)


JSON, TENSORS = "design.json", "constants.safetensors"
BROKEN: dict[str, tuple[Break, str, str]] = {
    "no description": (lambda folder: (folder / JSON).unlink(), JSON, "not a file; give the folder of a design"),
    "no constants": (lambda folder: (folder / TENSORS).unlink(), TENSORS, "not a file; give the folder of a design"),
    "linked description": (linked(JSON), JSON, "not a file"),
    "linked constants": (linked(TENSORS), TENSORS, "not a file"),
    "half a description": (text(lambda content: content[: len(content) // 2]), JSON, ""),
    "empty description": (text(lambda content: ""), JSON, ""),
    "not text": (replaced(b"\xff\xfe\x00{"), JSON, ""),
    "pickled description": (replaced(pickle.dumps(Bomb())), JSON, ""),
    "a list": (text(lambda content: "[1]"), JSON, f"is not a '{FORMAT}' file"),
    "another format": (put("crosslayer-design-0", "format"), JSON, f"is not a '{FORMAT}' file"),
    "deep lists": (text(lambda content: "[" * 200_000 + "]" * 200_000), JSON, ""),
    "deep notes": (text(lambda c: c.replace('"*/"', '{"a":' * 100_000 + "1" + "}" * 100_000)), JSON, ""),
    "half the constants": (tensors(lambda raw: raw[: len(raw) // 2]), TENSORS, "the file is damaged"),
    "three bytes": (tensors(lambda raw: raw[:3]), TENSORS, "the file is damaged"),
    "no bytes": (tensors(lambda raw: b""), TENSORS, "the file is damaged"),
    "endless header": (tensors(lambda raw: b"\xff" * 8 + raw[8:]), TENSORS, "the file is damaged"),
    "pickled constants": (tensors(lambda raw: pickle.dumps(Bomb())), TENSORS, "the file is damaged"),
    "a constant is missing": (values(lambda found: found.__delitem__("c1")), JSON, "does not list what"),
    "a constant too many": (values(lambda found: found.update(z=np.zeros(1))), JSON, "does not list what"),
    "constant's shape": (values(resized), JSON, "c1: the constant is"),
    "constant's type": (values(retyped), JSON, "c1: the constant is"),
    "unknown operation": (
        put("Conv2", "graph", "nodes", 0, "op"),
        JSON,
        "unknown operation 'Conv2'; did you mean 'Conv2d'",
    ),
    "hidden operation": (put("__class__", "graph", "nodes", 0, "op"), JSON, "unknown operation '__class__'"),
    "operation is a list": (put(["Relu"], "graph", "nodes", 0, "op"), JSON, ""),
    "extra field": (put(1, "graph", "nodes", 0, "fields", "evil"), JSON, "nodes[0].fields: unknown key 'evil'"),
    "extra key of a type": (put(1, "graph", "types", "x", "evil"), JSON, "types.x: unknown key 'evil'"),
    "extra key of the target": (put(1, "target", "evil"), JSON, "target: unknown key 'evil'"),
    "extra key of the plan": (put(1, "plan", "evil"), JSON, "plan: unknown key 'evil'"),
    "extra key of a step": (put(1, "trail", 0, "evil"), JSON, "trail[0]: unknown key 'evil'"),
    "no graph": (drop("graph"), JSON, "lacks the entry 'graph'"),
    "no nodes": (drop("graph", "nodes"), JSON, "lacks the entry 'nodes'"),
    "no target": (drop("target"), JSON, "lacks the entry 'target'"),
    "no clock": (drop("target", "clock_hz"), JSON, "target: missing key 'clock_hz'"),
    "graph is text": (put("graph", "graph"), JSON, ""),
    "graph is nothing": (put(None, "graph"), JSON, ""),
    "nodes are a number": (put(3, "graph", "nodes"), JSON, ""),
    "a node is nothing": (put(None, "graph", "nodes", 0), JSON, ""),
    "shape of text": (put(["3"], "graph", "types", "x", "shape"), JSON, "types.x.shape[0]: expected int, got '3'"),
    "shape of nothing": (put([], "graph", "types", "x", "shape"), JSON, "x: the shape [] is empty"),
    "negative shape": (put([-1, 2], "graph", "types", "x", "shape"), JSON, "x: the shape [-1, 2] is empty"),
    "endless shape": (put([10**30], "graph", "types", "x", "shape"), JSON, "is empty or too large"),
    "scale of zero": (put([0], "graph", "types", "x", "quant", "scale"), JSON, "scales must be positive"),
    "unknown rounding": (put("doubel", "graph", "rounding"), JSON, "did you mean 'double'"),
    "unknown core": (put("z80", "target", "core"), JSON, "target.core: 'z80' is not one of its values"),
    "no output": (put([], "graph", "outputs"), JSON, "the graph has no output"),
    "name of a path": (renamed("../../x"), JSON, "'../../x' is not a legal name"),
    "name from the root": (renamed("/etc/passwd"), JSON, "'/etc/passwd' is not a legal name"),
    "name with a line": (renamed("a\nb"), JSON, "is not a legal name"),
    "name of code": (renamed("*/ evil(); /*"), JSON, "is not a legal name"),
    "long name": (renamed("n" * 201), JSON, "is not a legal name"),
    "plan without a node": (put([], "plan", "order"), JSON, "does not order exactly the graph's nodes"),
    "plan in too little": (put(1, "plan", "arena_bytes"), JSON, "outside the arena"),
    "plan is true": (put(True, "plan"), JSON, "plan: expected dict"),
    "kernel of nothing": (put([0, 1], "graph", "nodes", 0, "fields", "windows", "kernel"), JSON, "must be at least 1"),
    "groups of nothing": (put(0, "graph", "nodes", 0, "fields", "groups"), JSON, ""),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_one_error_that_names_the_file(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    harm, file, complaint = BROKEN[case]
    folder = saved(tmp_path / "design")
    assert load_design(folder).graph.nodes[0].name == "conv2d1"
    harm(folder)
    with pytest.raises(DesignError) as caught:
        load_design(folder)
    message = str(caught.value)
    assert message.startswith(str(folder / file)), message
    assert complaint in message
    assert len(message) < 1000
    assert {p.name for p in tmp_path.iterdir()} <= {"design", "elsewhere"}


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path, tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(DesignError, match="not a file; give the folder of a design that crosslayer saved"):
            load_design(folder)


JUNK = (None, True, -1, 0, 1, 3, 1e300, 10**30, "", "x", "conv2d1", "..", [], [0], [[]], {}, {"x": 1}, "Relu", "c1")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("fuzzed") / "design")


def places(plain: Any) -> list[tuple[Any, Any]]:
    """Every container of a document with each of its keys."""
    keys = list(plain) if isinstance(plain, dict) else list(range(len(plain))) if isinstance(plain, list) else []
    found = [(plain, key) for key in keys]
    return found + [place for key in keys for place in places(plain[key])]


@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_no_change_of_the_description_gets_past_the_loader(whole: Path, data: st.DataObject) -> None:
    """Whatever one value is replaced with, there is a design that is well formed, or one kind of error."""
    path = whole / JSON
    original = path.read_text(encoding="utf-8")
    document = json.loads(original)
    for _ in range(data.draw(st.integers(1, 2))):
        container, key = data.draw(st.sampled_from(places(document)))
        if data.draw(st.booleans()) and isinstance(container, dict):
            del container[key]
        else:
            container[key] = copy.deepcopy(data.draw(st.sampled_from(JUNK)))
    path.write_text(json.dumps(document), encoding="utf-8")
    try:
        with contextlib.suppress(DesignError, GraphError):
            _ = load_design(whole).graph.lowered
    finally:
        path.write_text(original, encoding="utf-8")


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_no_change_of_the_constants_gets_past_the_loader(whole: Path, data: st.DataObject) -> None:
    path = whole / TENSORS
    original = path.read_bytes()
    raw = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.sampled_from([len(raw), len(raw) // 3]))])
    try:
        with contextlib.suppress(DesignError):
            load_design(whole)
    finally:
        path.write_bytes(original)


# stages


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Shift(Stage):
    """Adds to all constants."""

    by: float

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The design with other constants; notes: a random number."""
        constants = {name: value + np.float32(self.by) for name, value in design.graph.constants.items()}
        return replace(design, graph=replace(design.graph, constants=constants)), {"drawn": float(bench.rng().random())}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Fragile(Stage):
    """Fails unless a file is there; leaves a trace in its scratch folder."""

    needs: str

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The same design; notes: whether an earlier try left its trace."""
        assert bench.scratch is not None
        trace = bench.scratch / "trace"
        seen = trace.exists()
        trace.write_text("here")
        if not Path(self.needs).exists():
            raise InputError("the file is not there")
        return design, {"seen": seen}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Careless(Stage):
    """Leaves a network without its first node."""

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """A network that is not well formed."""
        return replace(design, graph=replace(design.graph, nodes=design.graph.nodes[1:])), {}


def start() -> Design:
    return Design(graph=network("lenet5", (8, 8, 1), 4, 0), target=load_target("stm32f769"))


def heard(recipe: tuple[Stage, ...], folder: Path | None, bench: Bench | None = None) -> tuple[Design, list[bool]]:
    """The design after a recipe, and which stages were taken from checkpoints."""
    found: list[bool] = []
    design = run(
        recipe,
        start(),
        bench or small_bench(),
        judge=lambda design: scores(),
        checkpoints=folder,
        observe=lambda position, stage, resumed: found.append(resumed),
    )
    return design, found


RECIPE = (Shift(by=0.25), FoldNorms(), FuseActivations(), QuantizeAffine(samples=16), PlanArena())


def test_a_run_goes_on_after_its_checkpoints(tmp_path: Path) -> None:
    plain, _ = heard(RECIPE, None)
    first, none = heard(RECIPE, tmp_path)
    again, all_of_them = heard(RECIPE, tmp_path)
    assert first == again == plain
    assert (none, all_of_them) == ([False] * 5, [True] * 5)
    shorter, _ = heard(RECIPE[:3], tmp_path)
    assert heard(RECIPE[:3], tmp_path) == (shorter, [True] * 3)
    assert [step.stage for step in plain.trail] == [str(stage) for stage in RECIPE]
    assert all(step.scores == scores() for step in plain.trail)
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".scratch")] == []


@pytest.mark.parametrize("file", [JSON, TENSORS])
@pytest.mark.parametrize("position", [0, 2, 4])
def test_a_damaged_checkpoint_is_made_again(position: int, file: str, tmp_path: Path) -> None:
    first, _ = heard(RECIPE, tmp_path)
    damaged = sorted(tmp_path.iterdir())[position] / file
    damaged.write_bytes(damaged.read_bytes()[:100])
    again, taken = heard(RECIPE, tmp_path)
    assert again == first
    assert taken == [i != position for i in range(5)]
    assert heard(RECIPE, tmp_path) == (first, [True] * 5)


def test_checkpoints_of_another_beginning_are_not_taken(tmp_path: Path) -> None:
    heard(RECIPE, tmp_path)
    others = {
        "another parameter": ((Shift(by=0.5), *RECIPE[1:]), None, [False] * 5),
        "another last stage": ((*RECIPE[:4], PlanArena(offset_steps=1)), None, [True] * 4 + [False]),
        "another seed": (RECIPE, small_bench(seed=4), [False] * 5),
        "other data": (RECIPE, replace(small_bench(), data=replace(small_dataset(), name="other")), [False] * 5),
        "another order": ((RECIPE[1], RECIPE[0]), None, [False] * 2),
    }
    for title, (recipe, bench, expected) in others.items():
        assert heard(recipe, tmp_path, bench)[1] == expected, title


def test_what_failed_is_tried_again_with_what_it_left(tmp_path: Path) -> None:
    needed = tmp_path / "needed"
    recipe = (Shift(by=1.0), Fragile(needs=str(needed)), Shift(by=2.0))
    for _ in range(2):
        with pytest.raises(InputError, match=r"stage 2 \(fragile\): the file is not there"):
            heard(recipe, tmp_path / "work")
    needed.write_text("")
    design, taken = heard(recipe, tmp_path / "work")
    assert taken == [True, False, False]
    assert design.trail[1].notes == {"seen": True}
    assert not list((tmp_path / "work").glob("*.scratch"))


def test_a_stages_chance_depends_on_seed_and_position_only() -> None:
    def drawn(recipe: tuple[Stage, ...], seed: int = 3) -> list[float]:
        return [step.notes["drawn"] for step in heard(recipe, None, small_bench(seed=seed))[0].trail]

    one, two = Shift(by=1.0), Shift(by=2.0)
    assert drawn((one, two)) == drawn((two, one))
    assert len({*drawn((one, one, one)), *drawn((one, one), seed=5)}) == 5


def test_a_stage_that_breaks_the_network_is_caught() -> None:
    with pytest.raises(GraphError, match=r"stage 1 \(careless\): careless: left a network that is not well formed"):
        heard((Careless(),), None)


def test_the_name_of_a_stage_is_its_class_in_small_letters() -> None:
    assert [stage.name() for stage in RECIPE] == [
        "shift",
        "fold-norms",
        "fuse-activations",
        "quantize-affine",
        "plan-arena",
    ]
    assert str(Shift(by=0.5)) == "shift(by=0.5)"
    assert str(FoldNorms()) == "fold-norms()"


@pytest.mark.parametrize("target", list_targets(), ids=lambda target: target.name)
def test_a_shipped_target_keeps_its_promises(target: Any) -> None:
    check_target(target)
    assert to_plain(target)["name"] == target.name


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"name": "My Board"}, "My Board: a name is one word in small letters"),
        ({"title": ""}, "stm32f769: has no title"),
        ({"clock_hz": 0}, "stm32f769: has no clock"),
        ({"memories": ()}, "stm32f769: has no flash"),
        ({"clock_source": "?"}, "stm32f769: a figure has no source"),
    ],
)
def test_a_target_that_breaks_a_promise_is_noticed(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_target(replace(load_target("stm32f769"), **changes))


def test_data_sets_keep_their_promises() -> None:
    check_dataset(small_dataset)
    check_dataset(lambda: load("digits"))
    with pytest.raises(AssertionError, match="quadrants: has no source; cite"):
        check_dataset(lambda: replace(small_dataset(), source=""))
    with pytest.raises(AssertionError, match=r"quadrants, training: labels lie outside 0…2"):
        check_dataset(lambda: replace(small_dataset(), classes=("a", "b", "c")))
    counter = iter(range(2))
    with pytest.raises(AssertionError, match="loading twice gives different samples"):
        check_dataset(lambda: small_dataset(seed=next(counter)))
