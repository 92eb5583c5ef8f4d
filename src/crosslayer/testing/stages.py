"""What every stage must do."""

import dataclasses
import json
import tempfile
from pathlib import Path

from crosslayer.core.bench import Bench
from crosslayer.core.codec import from_plain, to_plain
from crosslayer.core.design import Design
from crosslayer.core.graph.graph import verify
from crosslayer.core.plan import check_plan
from crosslayer.core.stage import Stage, run
from crosslayer.flow import execute
from crosslayer.study import STAGES, DataSource, Named, Source, Study, parse_study, study_text
from crosslayer.testing.datasets import small_dataset


def small_bench(*, side: int = 8, channels: int = 1, seed: int = 3) -> Bench:
    """A bench with `small_dataset`."""
    return Bench(data=small_dataset(side=side, channels=channels), seed=seed, executor=execute)


def check_stage(stage: Stage, design: Design, bench: Bench) -> Design:
    """The design after `stage`, which is known to keep all promises. Raises `AssertionError` that says which it breaks.

    Runs the stage three times: it should be quick on `design`.
    """
    check_fields(stage)
    where, before = stage.name(), design.graph.digest
    changed = stage(design, bench)
    verify(changed.graph)
    if changed.plan is not None:
        check_plan(changed.graph, changed.plan)
    assert design.graph.digest == before, f"{where}: changed the design it was given; make another one"
    assert changed.trail[:-1] == design.trail, f"{where}: changed the trail"
    assert changed.trail[-1].stage == str(stage), f"{where}: is not recorded in the trail"
    notes = changed.trail[-1].notes
    assert json.loads(json.dumps(to_plain(notes))) == notes, f"{where}: notes hold more than numbers, text and lists"
    assert stage(design, bench) == changed, f"{where}: gives another design the second time; use bench.rng()"
    with tempfile.TemporaryDirectory() as scratch:
        heard: list[bool] = []
        for _ in range(2):
            resumed = run(
                (stage,),
                design,
                bench,
                judge=lambda design: (),
                checkpoints=Path(scratch),
                observe=lambda position, text, found: heard.append(found),
            )
            assert resumed == changed, f"{where}: gives another design when it runs with checkpoints"
        assert heard == [False, True], f"{where}: its checkpoint was not taken up"
    return changed


def check_fields(stage: Stage) -> None:
    """The stage is a value: frozen, printable, and the same after a way through a study file."""
    kind, where = type(stage), stage.name()
    assert dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen, f"{where}: is not a frozen dataclass"  # type: ignore[attr-defined]  # not in the stubs
    assert kind.__doc__ and not kind.__doc__.startswith(f"{kind.__name__}("), f"{where}: has no docstring"
    assert str(stage).startswith(f"{where}("), f"{where}: prints as {stage}"
    assert from_plain(kind, to_plain(stage), where) == stage, f"{where}: differs after a way through plain values"
    if kind in STAGES:
        study = Study(network=Source(source="lenet5"), data=DataSource(source="digits"), target=Named(name="stm32f769"))
        again = parse_study(study_text(study, (stage,)), where)
        assert again.recipe == (stage,), f"{where}: differs after a way through a study file"
