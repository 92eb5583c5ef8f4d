"""The study file: what it says, and that its printed form says the same."""

import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosslayer import flow
from crosslayer.core.errors import InputError
from crosslayer.core.fixed import Rounding
from crosslayer.core.score import Better, Origin, Score
from crosslayer.core.stage import Stage
from crosslayer.execute.adversary import Method
from crosslayer.execute.training import Training
from crosslayer.learn.adversarial import TrainRobust
from crosslayer.learn.certified import TrainCertified
from crosslayer.learn.train import FineTune, Train
from crosslayer.plan.arena import PlanArena
from crosslayer.prune.channels import PruneChannels, Schedule
from crosslayer.prune.cost import SAVED
from crosslayer.prune.importance import Importance
from crosslayer.prune.search import SearchPruning
from crosslayer.prune.sensitivity import MeasureSensitivity
from crosslayer.prune.weights import PruneWeights
from crosslayer.quantize.affine import QuantizeAffine
from crosslayer.simplify.activations import FuseActivations
from crosslayer.simplify.norms import FoldNorms
from crosslayer.study import (
    STAGES,
    DataSource,
    Named,
    Source,
    Study,
    find_stage,
    load_study,
    parse_quantity,
    parse_study,
    study_text,
)

UNITS = {
    "accuracy": "1",
    "accuracy_drop": "1",
    "parameters": "",
    "macs": "",
    "flash": "B",
    "weights": "B",
    "ram": "B",
    "instructions": "",
    "latency": "s",
    "energy": "J",
    "differing_bytes": "B",
}
"""What can be required, and the base unit of each."""

SOURCES = """
[network]
source = "lenet5"
[data]
source = "digits"
[target]
name = "stm32f769"
[require]
"""

counts = st.integers(1, 10**6)
rates = st.floats(1e-9, 1e3)
shares = st.floats(0.001, 0.999)
halves = st.floats(0, 0.5)
learning = {"epochs": counts, "batch": counts, "rate": rates, "decay": st.floats(0, 1), "shift": counts}
tunings = st.builds(Training, flip=st.booleans(), distill=shares, temperature=rates, **learning)
prunings = st.builds(
    PruneChannels,
    step=shares,
    drop=shares,
    keep=shares,
    of=st.sampled_from(SAVED),
    schedule=st.sampled_from(Schedule),
    rounds=counts,
    importance=st.sampled_from(Importance),
    evidence=counts,
    cost=st.sampled_from(["drop", "drop / (macs + 0.5 * ram)"]),
    samples=counts,
    patience=counts,
    multiple=counts,
    tuning=tunings,
)
stages: st.SearchStrategy[Stage] = st.one_of(
    st.builds(Train, flip=st.booleans(), **learning),
    st.builds(TrainRobust, epsilon=shares, method=st.sampled_from(Method), steps=counts, beta=rates, **learning),
    st.builds(TrainCertified, epsilon=shares, kappa=shares, warm=halves, ramp=halves, **learning),
    st.builds(FineTune, flip=st.booleans(), **learning),
    prunings,
    st.builds(SearchPruning, pruning=prunings, steps=st.tuples(shares, shares), epochs=st.tuples(counts)),
    st.builds(PruneWeights, zeros=shares, pattern=st.sampled_from(["", "2:4"]), rounds=counts, tuning=tunings),
    st.builds(MeasureSensitivity, shares=st.tuples(shares, shares), importance=st.sampled_from(Importance)),
    st.builds(FoldNorms),
    st.builds(FuseActivations),
    st.builds(QuantizeAffine, samples=counts, rounding=st.sampled_from(Rounding)),
    st.builds(PlanArena, order_states=counts, offset_steps=counts),
)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
amounts = st.one_of(st.integers(0, 10**9), st.floats(0, 1e9, allow_subnormal=False))


def study(require: str) -> Study:
    return parse_study(SOURCES + require, "here")


@given(
    st.builds(
        Study,
        network=st.builds(Source, source=words),
        data=st.builds(DataSource, source=words, scale=st.floats(1e-3, 1e3)),
        target=st.builds(Named, name=words),
        seed=st.integers(0, 2**63),
        samples=counts,
    ),
    st.lists(stages, max_size=8),
)
def test_a_printed_study_reads_back_the_same(given_study: Study, recipe: list[Stage]) -> None:
    read = parse_study(study_text(given_study, tuple(recipe)), "here")
    assert read.recipe == tuple(recipe)
    assert (read.network, read.data, read.target) == (given_study.network, given_study.data, given_study.target)
    assert (read.seed, read.samples) == (given_study.seed, given_study.samples)
    assert study_text(read, tuple(recipe)) == study_text(given_study, tuple(recipe))


@given(st.dictionaries(st.sampled_from(list(UNITS)), amounts))
def test_printed_requirements_read_back_the_same(limits: dict[str, float]) -> None:
    first = study("\n".join(f"{name} = {limit}" for name, limit in limits.items()))
    assert {r.name: r.limit for r in first.require} == limits
    assert parse_study(study_text(first, ()), "here").require == first.require


@pytest.mark.parametrize(("written", "unit", "value"), [
    ("64 KiB", "B", 65536), ("1 MiB", "B", 2**20), ("1 kB", "B", 1000), ("2 MB", "B", 2e6), ("7 B", "B", 7),
    (7, "B", 7), ("0 B", "B", 0), ("  64  KiB ", "B", 65536), ("64KiB", "B", 65536), ("1.5 KiB", "B", 1536),
    ("20 ms", "s", 0.02), ("1 s", "s", 1), ("3 us", "s", 3e-6), ("3 µs", "s", 3e-6), (0.5, "s", 0.5),
    ("1 mJ", "J", 1e-3), ("5 uJ", "J", 5e-6), ("5 µJ", "J", 5e-6), ("2e-3 J", "J", 2e-3),
    ("0.5 %", "1", 0.005), ("90%", "1", 0.9), ("0.02", "1", 0.02), (0.02, "1", 0.02), (1, "1", 1),
    ("61706", "", 61706), (61706, "", 61706), ("1e6", "", 1e6),
])  # fmt: skip
def test_a_quantity_is_read_in_base_units(written: str | float, unit: str, value: float) -> None:
    assert parse_quantity(written, unit, "here") == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(("written", "unit", "says"), [
    ("64 kib", "B", "wrong unit 'kib'; use one of B, kB, MB, KiB, MiB"),
    ("64 ms", "B", "wrong unit 'ms'"),
    ("64", "B", "has no unit; use one of B"),
    ("20 min", "s", "wrong unit 'min'; use one of s, ms"),
    ("1 %", "", "wrong unit '%'; write a plain number"),
    ("1 %", "J", "wrong unit '%'; use one of J, mJ"),
    ("-1 B", "B", "is negative; requirements are at least 0"),
    (-1, "B", "is negative"),
    ("1e999 B", "B", "is not a quantity; write a number and a unit"),
    ("1-2 B", "B", "is not a quantity"),
    ("B", "B", "is not a quantity"),
    ("", "", "is not a quantity; write a number"),
    ("nan", "", "is not a quantity"),
    (float("nan"), "s", "is not a quantity"),
    (float("inf"), "s", "is not a quantity"),
    (10**400, "", "is not a quantity"),
    (True, "", "is not a quantity"),
    (["1 B"], "B", "is not a quantity"),
    (None, "B", "is not a quantity"),
])  # fmt: skip
def test_what_is_no_quantity_is_refused(written: object, unit: str, says: str) -> None:
    with pytest.raises(InputError, match="here: .*" + re.escape(says)):
        parse_quantity(written, unit, "here")


@pytest.mark.parametrize("name", UNITS)
def test_a_requirement_holds_up_to_its_limit(name: str) -> None:
    (requirement,) = study(f"{name} = 0.5").require
    better = 1 if name == "accuracy" else -1

    def holds(value: float) -> bool:
        score = Score(
            name=name,
            value=value,
            low=0,
            high=9,
            unit=UNITS[name],
            better=Better.HIGHER if name == "accuracy" else Better.LOWER,
            origin=Origin.MEASURED,
        )
        verdict = requirement.verdict(score)
        assert (verdict.requirement, verdict.limit, verdict.score) == (name, 0.5, score)
        return verdict.holds

    assert holds(0.5)
    assert holds(0.5 + 0.1 * better)
    assert not holds(0.5 - 0.1 * better)


def test_a_limit_is_kept_as_it_was_written() -> None:
    written = {r.name: r.written for r in study('flash = "64 KiB"\nram = 1024\nlatency = 0.5\nmacs = 9').require}
    assert written == {"flash": "64 KiB", "ram": "1024 B", "latency": "0.5 s", "macs": "9"}


def test_the_default_study_is_this() -> None:
    found = parse_study(flow.STUDY, "default study")
    assert (found.network, found.data) == (Source(source="lenet5"), DataSource(source="digits"))
    assert found.target == Named(name="stm32f769")
    assert found.recipe is None
    assert [(r.name, r.written) for r in found.require] == [
        ("accuracy_drop", "0.02"),
        ("flash", "64 KiB"),
        ("ram", "16 KiB"),
        ("latency", "20 ms"),
        ("energy", "1 mJ"),
        ("differing_bytes", "0 B"),
    ]
    printed = parse_study(study_text(found, flow.RECIPE), "printed")
    assert printed.recipe == flow.RECIPE
    assert printed.require == found.require


def test_what_a_study_leaves_out_has_a_default() -> None:
    found = study("")
    assert (found.seed, found.samples, found.recipe, found.require) == (0, 20, None, ())


def test_every_stage_is_found_by_its_name() -> None:
    names = [stage.name() for stage in STAGES]
    assert names == sorted(set(names))
    assert [find_stage(name, "here") for name in names] == list(STAGES)


def test_the_studies_that_come_along_are_in_order() -> None:
    files = sorted((Path(__file__).parents[1] / "studies").glob("*.toml"))
    assert files
    for file in files:
        load_study(file)


@given(st.integers(0, 1000), st.integers(0, 40), st.text(max_size=10))
def test_any_text_is_a_study_or_an_input_error(start: int, length: int, put: str) -> None:
    text = study_text(parse_study(flow.STUDY, "default"), flow.RECIPE)
    with suppress(InputError):
        parse_study(text[:start] + put + text[start + length :], "here")
