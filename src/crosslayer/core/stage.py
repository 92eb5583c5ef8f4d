"""Stages, recipes, and running one after the other with a checkpoint between them."""

import hashlib
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, final

from crosslayer.core.bench import Bench
from crosslayer.core.codec import dashed, to_plain
from crosslayer.core.design import Design, Step, load_design, save_design
from crosslayer.core.errors import CrosslayerError, DesignError, GraphError, InputError
from crosslayer.core.files import sweep_partials
from crosslayer.core.graph.graph import verify
from crosslayer.core.plan import check_plan
from crosslayer.core.score import Score


class Stage(ABC):
    """A step of the flow: valid design in, valid design out. A subclass is a frozen dataclass; its fields are its
    parameters, in the study file too. `apply` is all it writes."""

    @final
    def __call__(self, design: Design, bench: Bench) -> Design:
        """The changed design, verified, with this stage recorded in its trail."""
        changed, notes = self.apply(design, bench)
        try:
            verify(changed.graph)
            if changed.plan is not None:
                check_plan(changed.graph, changed.plan)
        except GraphError as error:
            raise GraphError(f"{self.name()}: left a network that is not well formed: {error}") from error
        return replace(changed, trail=(*design.trail, Step(stage=str(self), notes=notes)))

    @abstractmethod
    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The changed design, and plain values for the report."""

    @final
    def __str__(self) -> str:
        """The stage as a study file would say it: `train(epochs=10, …)`."""
        fields = ", ".join(f"{key}={json.dumps(value)}" for key, value in to_plain(self).items())
        return f"{self.name()}({fields})"

    @classmethod
    @final
    def name(cls) -> str:
        """The name in study files: `PruneChannels` is `prune-channels`."""
        return dashed(cls.__name__)


def check_parameters(*rules: tuple[bool, str]) -> None:
    """Raises `InputError` with the text of the first rule that does not hold; for `__post_init__` of a stage.

    >>> check_parameters((2 > 1, "epochs must be at least 1"))
    """
    for holds, text in rules:
        if not holds:
            raise InputError(text)


Recipe = tuple[Stage, ...]
Judge = Callable[[Design], tuple[Score, ...]]
"""Figures of a design between stages, from validation data or none."""


def run(
    recipe: Recipe,
    design: Design,
    bench: Bench,
    *,
    judge: Judge,
    checkpoints: Path | None = None,
    observe: Callable[[int, str, bool], None] = lambda position, stage, resumed: None,
    visit: Callable[[int, Stage, Design], None] = lambda position, stage, design: None,
) -> Design:
    """The design after all stages.

    With `checkpoints`, each finished stage is saved there, and the run goes on after the last one that was saved by a
    run that began the same way (version, design, data, seed, stages so far). `observe` hears the position and text of
    each stage before it runs, and whether it was taken from a checkpoint; `visit` sees the design after it.
    """
    version = metadata.version("crosslayer")
    key = _digest(version, design.graph.digest, to_plain(design.target), bench.data.digest(), bench.seed)
    for position, stage in enumerate(recipe):
        key = _digest(key, str(stage))
        folder = None if checkpoints is None else checkpoints / f"{position:02d}-{stage.name()}-{key[:12]}"
        saved = None if folder is None else _resume(folder)
        observe(position, str(stage), saved is not None)
        scratch = None if folder is None else folder.with_suffix(".scratch")
        if saved is not None:
            design = saved
            if scratch is not None:
                shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed before it came to this
            visit(position, stage, design)
            continue
        if scratch is not None:
            scratch.mkdir(parents=True, exist_ok=True)
            sweep_partials(scratch)
        try:
            design = stage(design, bench.at(position, scratch))
        except CrosslayerError as error:
            raise type(error)(f"stage {position + 1} ({stage.name()}): {error}") from error
        design = replace(design, trail=(*design.trail[:-1], replace(design.trail[-1], scores=judge(design))))
        if folder is not None:
            save_design(design, folder)
            shutil.rmtree(folder.with_suffix(".scratch"))
        visit(position, stage, design)
    return design


def _resume(folder: Path) -> Design | None:
    """The saved design, or None if there is none that can be read."""
    try:
        return load_design(folder) if folder.is_dir() else None
    except DesignError:
        return None


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
