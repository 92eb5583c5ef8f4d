import base64
import io
import itertools
import math
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from crosslayer.core.design import Design, Step
from crosslayer.core.errors import InputError, ToolError
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import Conv2d, Dense, MaxPool, Reshape, Softmax, Windows
from crosslayer.core.robustness import AttackResult, Check, CurvePoint, Example, Robustness, Sticker
from crosslayer.core.score import Better, Origin, Score
from crosslayer.core.sheet import LayerCost, Sample, Sheet, Verdict
from crosslayer.hardware.catalogue import load_target
from crosslayer.plan.arena import plan_arena
from crosslayer.report import figures
from crosslayer.report.confusion import class_rows, mistakes
from crosslayer.report.labels import Rectangle, place_labels
from crosslayer.report.memory import memory_map
from crosslayer.report.page import render, write_report
from crosslayer.report.pictures import Bitmap, Curve, picture
from crosslayer.report.text import verdict_table
from crosslayer.report.trail import sensitivities, trajectory
from crosslayer.report.verdicts import margin, sentence, torn

EVIL = "<script>alert('x')</script>\"&$x_1$[red]"
VOID = {"meta", "img", "br", "link", "input", "hr"}


def network() -> Graph:
    b = Builder()
    x = b.input("input", (8, 8, 1))
    weight, bias = b.constant("conv.weight", np.ones((4, 3, 3, 1))), b.constant("conv.bias", np.zeros(4))
    x = b.add(Conv2d(windows=Windows(kernel=(3, 3))), x, weight, bias, name="conv")
    x = b.add(MaxPool(windows=Windows(kernel=(2, 2), stride=(2, 2))), x, name="pool")
    x = b.add(Reshape(shape=(36,)), x, name="flat")
    x = b.add(Dense(), x, b.constant("dense.weight", np.ones((3, 36))), b.constant("dense.bias", np.zeros(3)))
    return b.graph(b.add(Softmax(), x, name="softmax"))


def score(name: str, value: float, unit: str, **changes: Any) -> Score:
    better = Better.HIGHER if name == "accuracy" else Better.LOWER
    return Score(**{"name": name, "value": value, "unit": unit, "better": better, "origin": Origin.MEASURED, **changes})


ACCURACY = score("accuracy", 0.9778, "1", low=0.9568, high=0.9887, note="352 of 360 test samples")
FLASH = score("flash", 36_044, "B", note="of the linked firmware")
RAM = score("ram", 2_240, "B")
LATENCY = score("latency", 0.00751, "s", low=0.00538, high=0.01092, origin=Origin.MODELLED, note="at 216 MHz")
ENERGY = score("energy", 0.00227, "J", low=0.0013, high=0.0052, origin=Origin.MODELLED)
INSTRUCTIONS = score("instructions", 1_843_201, "", origin=Origin.EMULATED)
BASELINE = score("baseline", 0.9905, "1", origin=Origin.PUBLISHED, note="LeCun et al. 1998")

VERDICTS = (
    Verdict(requirement="accuracy", limit=0.97, written="0.97", score=ACCURACY, holds=True),
    Verdict(requirement="flash", limit=65_536, written="64 KiB", score=FLASH, holds=True),
    Verdict(requirement="latency", limit=0.02, written="20 ms", score=LATENCY, holds=True),
    Verdict(requirement="energy", limit=0.001, written="1 mJ", score=ENERGY, holds=False),
)

TRAIL = (
    Step(stage="FoldNorms()", scores=(score("accuracy", 0.9861, "1"), score("parameters", 61_706, ""))),
    Step(
        stage="PruneChannels(step=0.1, accuracy_drop=0.01)",
        scores=(score("accuracy", 0.9778, "1"), score("parameters", 14_310, "")),
        notes={
            "rounds": 3,
            "trajectory": [
                {"step": 0, "parameters": 50_000, "accuracy": 0.985, "kept": True},
                {"step": 1, "parameters": 14_310, "accuracy": 0.9778, "kept": True},
                {"step": 2, "parameters": 9_000, "accuracy": 0.91, "kept": False},
            ],
        },
    ),
    Step(stage="PlanArena()", scores=(score("flash", 36_044, "B"), score("energy", 0.00227, "J"))),
)


def sheet(**changes: Any) -> Sheet:
    graph = network()
    rng = np.random.default_rng(1)
    layers = tuple(
        LayerCost(
            name=node.name,
            operation=type(node.op).__name__,
            output=graph.types[node.name].shape,
            parameters=0,
            weight_bytes=40,
            macs=graph.macs[node.name],
            instructions=None if node.op.is_view else 1000.0,
        )
        for node in graph.nodes
    )
    target = load_target("stm32f769")
    plain = Sheet(
        title="A small network on the STM32F769",
        design=Design(graph=graph, target=target, plan=plan_arena(graph), trail=TRAIL),
        network="small",
        dataset="digits",
        dataset_source="Alpaydin, Kaynak 1998, https://doi.org/10.24432/C50P49",
        seed=7,
        scores=(ACCURACY, FLASH, RAM, LATENCY, ENERGY, INSTRUCTIONS, BASELINE),
        verdicts=VERDICTS,
        layers=layers,
        classes=("cat", "dog", "owl"),
        confusion=np.array([[9, 1, 0], [0, 8, 2], [0, 0, 0]]),
        samples=tuple(
            Sample(values=rng.random((8, 8, 1), np.float32), label=label, predicted=predicted)
            for label, predicted in ((0, 0), (1, 2))
        ),
        study='[network]\nsource = "small"\n',
        versions={"crosslayer": "0.1.0", "NumPy": "2.4"},
    )
    return replace(plain, **changes)


def bare() -> Sheet:
    """A sheet with nothing optional in it."""
    design = Design(graph=network(), target=replace(load_target("stm32f769"), active_power=None))
    nothing = np.zeros((0, 0), np.int64)
    return sheet(
        design=design, scores=(), verdicts=(), layers=(), classes=(), confusion=nothing, samples=(), versions={}
    )


def hostile() -> Sheet:
    """A sheet whose every text wants to be markup."""
    plain = sheet()
    named = score(EVIL, 1.0, EVIL, note=EVIL)
    step = Step(stage=EVIL, scores=(named,), notes={EVIL: EVIL, "trajectory": [{"parameters": 1, "accuracy": 1}]})
    return replace(
        plain,
        title=EVIL,
        network=EVIL,
        dataset=EVIL,
        dataset_source=EVIL,
        scores=(named,),
        verdicts=(Verdict(requirement=EVIL, limit=0.0, written=EVIL, score=named, holds=False),),
        layers=(replace(plain.layers[0], name=EVIL, operation=EVIL),),
        classes=(EVIL, EVIL, EVIL),
        study=EVIL,
        versions={EVIL: EVIL},
        design=replace(plain.design, target=replace(plain.design.target, title=EVIL, name=EVIL), trail=(step,)),
    )


def many_classes() -> Sheet:
    confusion = 30 * np.eye(43, dtype=np.int64)
    confusion[4, 7], confusion[1, 2], confusion[9] = 12, 5, 0
    return sheet(classes=tuple(f"sign {i}" for i in range(43)), confusion=confusion)


def boundless() -> Sheet:
    """A sheet whose figures are unknown, infinite or zero."""
    unknown, endless, nothing = (score(f"s{value}", value, "J") for value in (math.nan, math.inf, 0.0))
    points = [{"parameters": 0, "accuracy": 0.0, "kept": False}, {"parameters": math.nan, "accuracy": 1.0}]
    trail = (Step(stage="A()", scores=(unknown, endless, nothing), notes={"trajectory": points}),)
    verdicts = tuple(
        Verdict(requirement=s.name, limit=0.0, written="0 J", score=s, holds=False) for s in (unknown, endless, nothing)
    )
    scores = (unknown, endless, replace(nothing, high=math.inf))
    return sheet(scores=scores, verdicts=verdicts, design=replace(sheet().design, trail=trail))


def attacked(*, holds: bool = True) -> Sheet:
    """A sheet of a study with attacks, whose checks hold or not."""
    rng = np.random.default_rng(2)
    values = rng.random((8, 8, 1), np.float32)
    found = Robustness(
        budget="linf 8/255",
        threat={"knowledge": "weights"},
        clean=ACCURACY,
        score=score("robust_accuracy", 0.43, "1", low=0.4, high=0.46),
        attacks=(
            AttackResult(name="pgd", what="pgd(steps=40)", samples=100, right=43, low=0.33, high=0.53, seconds=1.5),
            AttackResult(name="none", what=EVIL, samples=0, right=0, low=0.0, high=1.0, seconds=0.0),
        ),
        checks=(Check(name="the same sample gets the same logits", holds=holds, finding="0 of 5"),),
        curve=tuple(CurvePoint(size=s, accuracy=1 - s, low=0.9 - s, high=1.0 - s / 2) for s in (0.0, 0.1, 0.5)),
        examples=(Example(values=values, attacked=1 - values, label=0, before=0, after=2),),
        replayed=100,
        differing=0,
    )
    sticker = Sticker(
        budget="patch 0.1",
        what=EVIL,
        target=1,
        score=score("sticker_success", 0.5, "1", low=0.4, high=0.6),
        noise=score("sticker_of_noise", 0.1, "1", low=0.05, high=0.2),
        values=values[:3, :3],
        examples=found.examples,
        replayed=100,
        differing=0,
    )
    return sheet(robustness=found, sticker=sticker)


PAGES = {
    "full": sheet,
    "bare": bare,
    "attacked": attacked,
    "hostile": hostile,
    "many classes": many_classes,
    "boundless": boundless,
}


class Elements(HTMLParser):
    """Checks nesting, and collects each element with its attributes and path, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str], tuple[str, ...]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {key: value or "" for key, value in attrs}, tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {key: value or "" for key, value in attrs}, tuple(self.open)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def tags(self) -> list[str]:
        return [tag for tag, _, _ in self.found]


def flat(text: str) -> str:
    """Text with all white space as single blanks."""
    return " ".join(text.split())


@pytest.fixture(scope="module", params=PAGES)
def page(request: pytest.FixtureRequest) -> str:
    return render(PAGES[request.param]())


def test_the_page_is_well_formed(page: str) -> None:
    found = Elements(page)
    ids = [attributes["id"] for _, attributes, _ in found.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for reference in re.findall(r'(?:href="#|url\(#)([^")]*)', page):
        assert reference in ids


def test_the_page_loads_nothing_and_runs_nothing(page: str) -> None:
    found = Elements(page)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form", "a"} & set(found.tags())
    for tag, attributes, _ in found.found:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "srcset", "data"):
                assert value.startswith(("#", "data:image/png;base64,")), (tag, value)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_the_page_can_be_read_by_a_screen_reader(page: str) -> None:
    found = Elements(page)
    levels = [int(tag[1]) for tag in found.tags() if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert found.tags().count("caption") == found.tags().count("table")
    for tag, attributes, path in found.found:
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
        if tag == "img":
            assert attributes["alt"]
        if tag == "svg":
            assert attributes["role"] == "img"
            assert path[-1] != "svg"
    assert len(re.findall(r"<svg[^>]*>\s*<title>[^<]", page)) == found.tags().count("svg")


def test_the_page_claims_robustness_only_where_all_checks_hold() -> None:
    assert "43 %" in flat(Elements(render(attacked())).text).replace("\u00a0", " ")
    withheld = flat(Elements(render(attacked(holds=False))).text)
    assert "No robust accuracy is claimed: 1 of 1 checks" in withheld


def test_no_text_of_the_sheet_becomes_markup() -> None:
    text = render(hostile())
    assert "<script" not in text
    assert Elements(text).text.count(EVIL) > 20


def test_the_same_sheet_is_the_same_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / "a.html", tmp_path / "b.html"]
    for path in paths:
        write_report(sheet(), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_every_score_and_verdict_appears() -> None:
    shown = flat(Elements(render(sheet())).text)
    for item in sheet().scores:
        assert figures.spell(item.name) in shown
        assert flat(figures.amount(item.value, item.unit)) in shown
        assert flat(figures.interval(item)) in shown
        assert item.note in shown
        assert item.origin.value in shown
    for verdict in VERDICTS:
        assert verdict.written in shown
        assert flat(margin(verdict)) in shown
    assert shown.count("✓ holds") == 3
    assert shown.count("✗ does not hold") == 1
    assert sentence(VERDICTS) in shown


def test_the_page_says_how_to_repeat_the_run() -> None:
    plain = sheet()
    shown = flat(Elements(render(plain)).text)
    target = plain.design.target
    assert target.active_power is not None
    sources = [m.source for m in target.memories]
    sources += [target.clock_source, target.cycles_per_instruction.source, target.active_power.source]
    for text in (plain.study, plain.dataset_source, plain.design.graph.digest, *plain.versions.values(), *sources):
        assert flat(text) in shown


@pytest.mark.parametrize(("failed", "text"), [
    ((), "All 4 requirements hold."),
    (("flash",), "1 of 4 requirements does not hold: flash."),
    (("accuracy", "flash", "energy"), "3 of 4 requirements do not hold: accuracy, flash and energy."),
])  # fmt: skip
def test_one_sentence_says_what_holds(failed: tuple[str, ...], text: str) -> None:
    assert sentence([replace(v, holds=v.requirement not in failed) for v in VERDICTS]) == text


def test_the_sentence_knows_one_requirement_and_none() -> None:
    assert sentence(()) == "No requirement was stated."
    assert sentence(VERDICTS[:1]) == "The one requirement holds."
    assert sentence(VERDICTS[3:]) == "The one requirement does not hold: energy."


def test_the_margin_tells_the_side_and_the_distance() -> None:
    exactly, unknown = (replace(VERDICTS[1], score=replace(FLASH, value=v)) for v in (65_536, math.nan))
    assert [flat(margin(v)) for v in (*VERDICTS, exactly, unknown)] == [
        "0.78 points to spare",
        "28.8 KiB to spare",
        "12.5 ms to spare",
        "1.27 mJ beyond",
        "exactly at the limit",
        "unknown",
    ]


def test_a_limit_within_the_interval_is_told() -> None:
    assert [torn(v) for v in VERDICTS] == [True, False, False, False]
    assert torn(replace(VERDICTS[2], limit=0.01))
    assert "the limit lies within the interval" in render(sheet())


@pytest.mark.parametrize(("value", "unit", "text"), [
    (0, "B", "0 B"), (1023, "B", "1,023 B"), (1024, "B", "1 KiB"), (36_044, "B", "35.2 KiB"),
    (65_556, "B", "64.02 KiB"), (2_097_152, "B", "2 MiB"), (0.00751, "s", "7.51 ms"), (1.5, "s", "1.5 s"),
    (3.2e-8, "s", "32 ns"), (4.4e-6, "J", "4.4 µJ"), (0.00227, "J", "2.27 mJ"), (216e6, "Hz", "216 MHz"),
    (1.4e-9, "W/Hz", "1.4 nW/Hz"), (0.9778, "1", "97.78 %"), (1.0, "1", "100 %"), (0.0056, "1", "0.56 %"),
    (-0.004, "1", "−0.4 %"), (416_520, "", "416,520"), (0.88, "", "0.88"), (12, "MAC", "12 MAC"),
    (math.nan, "J", "unknown"), (math.inf, "s", "∞ s"), (1e-12, "", "1e−12"), (np.float64(3), "", "3"),
])  # fmt: skip
def test_a_figure_reads_well(value: float, unit: str, text: str) -> None:
    assert flat(figures.amount(value, unit)) == text


@pytest.mark.parametrize(("value", "unit", "text"), [
    (36_044, "B", "36044 B"), (0.9778, "1", "0.9778"), (np.float64(0.1), "J", "0.1 J"), (math.nan, "", "nan"),
])  # fmt: skip
def test_the_exact_value_keeps_all_digits(value: float, unit: str, text: str) -> None:
    assert figures.exact(value, unit) == text


@given(st.floats(-1e12, 1e12), st.sampled_from(["B", "s", "J", "Hz", "W/Hz", "1", ""]))
def test_a_figure_is_off_by_half_a_digit_at_most(value: float, unit: str) -> None:
    chosen = figures.scale(value, unit)
    number = float(chosen.number(value).replace(",", "").replace("−", "-"))
    assert number * chosen.factor == pytest.approx(value, rel=0.0051)


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.sampled_from(["B", "s", "J", "1", ""]))
def test_a_change_has_the_sign_of_what_happened(before: float, after: float, unit: str) -> None:
    text = figures.change(before, after, unit)
    assert text == "" or text[0] == ("+" if after > before else "−")


def test_steps_that_lack_a_figure_show_a_dash() -> None:
    shown = flat(Elements(render(sheet())).text)
    assert "FoldNorms 98.61 % 61,706 – –" in shown
    assert "−0.83 points 14,310 −77 % – –" in shown


def test_a_trajectory_keeps_the_points_that_can_be_drawn() -> None:
    noted = [{"parameters": 5, "accuracy": 0.5}, {"parameters": "x", "accuracy": 1}, 3, {"accuracy": 1}]
    assert [p.parameters for p in trajectory(Step(stage="s", notes={"trajectory": noted}))] == [5.0]
    assert trajectory(Step(stage="s", notes={"trajectory": "text"})) == ()
    assert [p.kept for p in trajectory(TRAIL[1])] == [True, True, False]


def test_the_sensitivity_of_a_layer_is_a_line_from_its_start() -> None:
    noted = [
        {"layer": "conv1", "removed": 0.5, "accuracy": 0.7, "start": 0.9},
        {"layer": "conv1", "removed": 0.25, "accuracy": 0.8, "start": 0.9},
        {"layer": "fc<1>", "removed": 0.25, "accuracy": 0.85, "start": 0.9},
        {"layer": "conv1", "removed": "x", "accuracy": 0.7, "start": 0.9},
        {"layer": 3, "removed": 0.5, "accuracy": 0.7, "start": 0.9},
    ]
    step = Step(stage="measure-sensitivity()", notes={"sensitivity": noted})
    first, second = sensitivities(step)
    assert (first.layer, first.removed, first.accuracy) == ("conv1", (0.0, 0.25, 0.5), (0.9, 0.8, 0.7))
    assert second.layer == "fc<1>"
    text = render(sheet(design=replace(sheet().design, trail=(step,))))
    assert "Sensitivity of the layers in step 1" in text
    assert "<b>fc&lt;1&gt;</b>" in text
    assert sensitivities(Step(stage="s", notes={"sensitivity": "text"})) == ()


def test_plots_wear_the_colours_of_the_page() -> None:
    text = render(sheet())
    assert "#0102" not in text
    assert "font-family: '" not in text
    assert text.count("<svg") >= 7


def test_the_memory_map_shows_each_value_once_and_none_on_another() -> None:
    graph = network()
    plan = plan_arena(graph)
    drawn = memory_map(graph, plan)
    assert sorted(b.value.name for b in drawn.boxes) == ["conv", "dense1", "input", "pool", "softmax"]
    places = [box.place for box in drawn.boxes]
    shrunk = [Rectangle(p.x, p.y + 0.1, p.width, p.height - 0.2) for p in places]  # pixels are rounded to tenths
    assert not any(a.meets(b) for i, a in enumerate(shrunk) for b in shrunk[:i])
    for place in places:
        assert drawn.left <= place.x
        assert place.x + place.width <= drawn.right
        assert drawn.top <= place.y
        assert place.y + place.height <= drawn.bottom + 1.5
    text = flat(Elements(render(sheet())).text)
    assert f"{flat(figures.amount(plan.arena_bytes, 'B'))} of 512 KiB of RAM" in text


def test_a_label_goes_inside_or_upright_or_above_or_nowhere() -> None:
    boxes = [
        Rectangle(0, 100, 80, 40),
        Rectangle(100, 100, 20, 80),
        Rectangle(200, 100, 60, 2),
        Rectangle(300, 100, 60, 2),
        Rectangle(300, 90, 60, 8),
        Rectangle(400, 100, 4, 2),
    ]
    labels = place_labels(boxes, [["dense1"]] * 5 + [["a_long_name"]])
    assert [None if label is None else label.upright for label in labels] == [False, True, False, None, False, None]
    assert labels[2] is not None
    assert labels[2].y < 100


def test_flash_that_does_not_fit_is_told_in_words() -> None:
    text = flat(Elements(render(sheet(scores=(score("flash", 3 * 2**20, "B"),)))).text)
    assert "Flash 3 MiB of 2 MiB: 150 % – does not fit" in text


def test_each_class_has_its_recall() -> None:
    rows = class_rows(sheet())
    assert [None if row.recall is None else row.recall.value for row in rows] == [0.9, 0.8, None]
    assert rows[0].recall is not None
    assert rows[0].recall.low < 0.9 < rows[0].recall.high


def test_many_classes_show_the_most_frequent_mistakes_instead_of_a_matrix() -> None:
    assert [(m.label, m.called, m.count) for m in mistakes(many_classes())] == [
        ("sign 4", "sign 7", 12),
        ("sign 1", "sign 2", 5),
    ]
    text = render(many_classes())
    assert "The most frequent mistakes among 43 classes" in text
    assert 'class="confusion"' not in text


@pytest.mark.parametrize(("shape", "mode"), [((8, 6, 1), "L"), ((8, 6, 3), "RGB"), ((8, 6, 2), "L"), ((8, 6), "L")])
def test_an_image_sample_becomes_a_png_of_its_size(shape: tuple[int, ...], mode: str) -> None:
    values = np.linspace(-1, 1, math.prod(shape), dtype=np.float32).reshape(shape)
    drawn = picture(values, -1.0, 1.0)
    assert isinstance(drawn, Bitmap)
    image = Image.open(io.BytesIO(base64.b64decode(drawn.address.partition(",")[2])))
    assert (image.size, image.mode) == ((6, 8), mode)
    low, high = image.convert("L").getextrema()
    assert low < 10
    assert high > 245


@pytest.mark.parametrize("shape", [(1,), (40,), (5000,), (187, 1, 1), (1, 30, 1)])
def test_a_signal_becomes_a_curve_within_its_frame(shape: tuple[int, ...]) -> None:
    values = np.sin(np.arange(math.prod(shape), dtype=np.float32)).reshape(shape)
    values.reshape(-1)[0] = np.nan
    drawn = picture(values, -1.0, 1.0)
    assert isinstance(drawn, Curve)
    points = [tuple(map(float, point.split(","))) for point in drawn.points.split()]
    assert len(points) == min(96, values.size)
    assert all(0 <= x <= 96 and 0 <= y <= 96 for x, y in points)


@pytest.mark.parametrize(("value", "level"), [(0.25, 0), (0.5, 85), (1.0, 255)])
def test_a_sticker_of_one_shade_is_drawn_on_the_scale_of_its_images(value: float, level: int) -> None:
    made = attacked()
    assert made.sticker is not None
    images = np.linspace(0.25, 1, 64, dtype=np.float32).reshape(8, 8, 1)
    example = replace(made.sticker.examples[0], values=images, attacked=images)
    shade = np.full((3, 3, 1), value, np.float32)
    text = render(replace(made, sticker=replace(made.sticker, values=shade, examples=(example,))))
    found = [
        a["src"] for tag, a, _ in Elements(text).found if tag == "img" and a.get("alt", "").startswith("The sticker")
    ]
    (image,) = (Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) for address in found)
    assert set(image.get_flattened_data()) == {level}


def test_wrong_answers_are_marked_in_words() -> None:
    text = flat(Elements(render(sheet())).text)
    assert "cat called cat ✓ right" in text
    assert "dog called owl ✗ wrong" in text


def luminance(colour: str) -> float:
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("colour", ["ink", "muted", "accent", "good", "bad"])
@pytest.mark.parametrize("ground", ["paper", "wash"])
def test_text_stands_out_from_its_ground(theme: int, colour: str, ground: str) -> None:
    """At least 4.5 to 1, as WCAG 2.2 asks of text."""
    css = (resources.files("crosslayer.report") / "templates" / "page.css").read_text()
    found = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", css.split(":root {")[1 + theme]))
    dark, light = sorted((luminance(found[colour]), luminance(found[ground])))
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_an_absent_folder_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        write_report(bare(), tmp_path / "absent" / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "report.html"
    path.write_text("old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_report(sheet(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_without_matplotlib_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ToolError, match=re.escape('pip install "crosslayer[report]"')):
        write_report(sheet(), tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


TERMINAL = """\
figure            value  interval         origin     required  verdict
Accuracy        97.78 %  95.68 … 98.87 %  measured   ≥ 0.97    holds
Flash          35.2 KiB                   measured   ≤ 64 KiB  holds
Latency         7.51 ms  5.38 … 10.9 ms   modelled   ≤ 20 ms   holds
Energy          2.27 mJ  1.3 … 5.2 mJ     modelled   ≤ 1 mJ    fails
RAM           2.188 KiB                   measured
Instructions  1,843,201                   emulated
Baseline        99.05 %                   published
1 of 4 requirements does not hold: energy.
"""


def printed(shown: Sheet) -> str:
    file = io.StringIO()
    Console(file=file, width=80, color_system=None).print(verdict_table(shown))
    return "".join(line.rstrip().replace("\u00a0", " ") + "\n" for line in file.getvalue().splitlines())


def test_the_terminal_table_is_this() -> None:
    assert printed(sheet()) == TERMINAL


def test_square_brackets_are_no_markup_in_the_terminal() -> None:
    named = score("[red]x[/]", 1.0, "")
    assert "[red]x[/]" in printed(sheet(scores=(named,), verdicts=()))
