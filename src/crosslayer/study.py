"""The study file: which network, data, device, requirements and stages."""

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, final

import tomli_w

from crosslayer.attack.budget import Budget, Norm, check_set
from crosslayer.attack.filter import FilterInput
from crosslayer.attack.levels import QuantizeInput
from crosslayer.core.codec import from_plain, suggest, to_plain
from crosslayer.core.errors import InputError
from crosslayer.core.score import Better, Score
from crosslayer.core.sheet import Verdict
from crosslayer.core.stage import Recipe, Stage, check_parameters
from crosslayer.fault.protect import ProtectWeights
from crosslayer.learn.adversarial import TrainRobust
from crosslayer.learn.certified import TrainCertified
from crosslayer.learn.noisy import TrainNoisy
from crosslayer.learn.reject import RejectUnknown
from crosslayer.learn.train import FineTune, Train
from crosslayer.plan.arena import PlanArena
from crosslayer.plan.fetch import FetchWeights
from crosslayer.prune.channels import PruneChannels
from crosslayer.prune.search import SearchPruning
from crosslayer.prune.sensitivity import MeasureSensitivity
from crosslayer.prune.weights import PruneWeights
from crosslayer.quantize.affine import QuantizeAffine
from crosslayer.quantize.aware import QuantizeAware
from crosslayer.quantize.equalize import Equalize
from crosslayer.quantize.mixed import MixedPrecision
from crosslayer.simplify.activations import FuseActivations
from crosslayer.simplify.integers import SimplifyIntegers
from crosslayer.simplify.norms import FoldNorms
from crosslayer.simplify.softmax import DropSoftmax
from crosslayer.simplify.transposes import FoldTransposes

STAGES: tuple[type[Stage], ...] = (
    DropSoftmax,
    Equalize,
    FetchWeights,
    FilterInput,
    FineTune,
    FoldNorms,
    FoldTransposes,
    FuseActivations,
    MeasureSensitivity,
    MixedPrecision,
    PlanArena,
    ProtectWeights,
    PruneChannels,
    PruneWeights,
    QuantizeAffine,
    QuantizeAware,
    QuantizeInput,
    RejectUnknown,
    SearchPruning,
    SimplifyIntegers,
    Train,
    TrainCertified,
    TrainNoisy,
    TrainRobust,
)
"""All stages by which a study file can ask for them; `Stage.name` is how it spells them."""

_UNITS: Mapping[str, Mapping[str, float]] = {
    "B": {"B": 1, "kB": 1e3, "MB": 1e6, "KiB": 1024, "MiB": 1024**2},
    "s": {"s": 1, "ms": 1e-3, "us": 1e-6, "µs": 1e-6},
    "J": {"J": 1, "mJ": 1e-3, "uJ": 1e-6, "µJ": 1e-6},
    "": {"": 1},
    "1": {"": 1, "1": 1, "%": 0.01},
}
_REQUIREMENTS: Mapping[str, tuple[str, Better]] = {
    "accuracy": ("1", Better.HIGHER),
    "accuracy_drop": ("1", Better.LOWER),
    "robust_accuracy": ("1", Better.HIGHER),
    "parameters": ("", Better.LOWER),
    "macs": ("", Better.LOWER),
    "flash": ("B", Better.LOWER),
    "weights": ("B", Better.LOWER),
    "ram": ("B", Better.LOWER),
    "instructions": ("", Better.LOWER),
    "latency": ("s", Better.LOWER),
    "energy": ("J", Better.LOWER),
    "differing_bytes": ("B", Better.LOWER),
}
"""What can be required: the base unit of the score of that name, and which direction is better."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """`[network]`: a name, a network file, or `package.module:function`."""

    source: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """`[data]`: a name, a file or a folder; `scale` multiplies all values, for a network that takes another range."""

    source: str
    scale: float = 1.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """`[target]`: a name, or the path of a TOML file."""

    name: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AttackPlan:
    """`[attack]`: the budget, such as `linf 8/255`, how many test samples, and how much stronger than usual; with
    `sticker`, such as `patch 0.1`, a sticker too, which makes images the class `target` (none: any wrong one)."""

    budget: str
    samples: int = 1000
    effort: int = 1
    sticker: str = ""
    target: str = ""

    def __post_init__(self) -> None:
        check_parameters(
            (self.samples >= 1, "samples must be at least 1"),
            (self.effort >= 1, "effort must be at least 1"),
            (not self.target or bool(self.sticker), "target is that of a sticker; give one, or leave target out"),
            (
                not self.sticker or Budget.parse(self.sticker).norm is Norm.PATCH,
                "sticker must be a budget such as 'patch 0.1', the share of the image that it covers",
            ),
        )
        check_set(Budget.parse(self.budget))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One line of `[require]`: the score `name` must not be worse than `limit` (in its base unit)."""

    name: str
    limit: float
    written: str

    def verdict(self, score: Score) -> Verdict:
        """The score's value held against the limit; the report says where the limit lies inside the interval."""
        better = _REQUIREMENTS[self.name][1]
        holds = score.value >= self.limit if better is Better.HIGHER else score.value <= self.limit
        return Verdict(requirement=self.name, limit=self.limit, written=self.written, score=score, holds=holds)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A study file. `recipe` None means the default one; `samples` is how many test samples the emulator runs."""

    network: Source
    data: DataSource
    target: Named
    require: tuple[Requirement, ...] = ()
    recipe: Recipe | None = None
    attack: AttackPlan | None = None
    seed: int = 0
    samples: int = 20


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """The keys of a study file."""

    network: Source
    data: DataSource
    target: Named
    require: Mapping[str, Any] = field(default_factory=dict[str, Any])
    attack: AttackPlan | None = None
    stage: tuple[Mapping[str, Any], ...] | None = None
    seed: int = 0
    samples: int = 20


def load_study(path: Path) -> Study:
    """The study in a TOML file. Raises `InputError` that says which file and key is wrong and what to do."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a study file") from error
    return parse_study(text, str(path))


def parse_study(text: str, where: str) -> Study:
    """The study in a TOML text; `where` names it in messages."""
    try:
        plain = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where}: is not TOML ({error}); correct that place") from error
    file = from_plain(_File, plain, where)
    if file.samples < 1 or file.seed < 0:
        raise InputError(f"{where}: samples must be at least 1 and seed at least 0")
    if not (math.isfinite(file.data.scale) and file.data.scale > 0):
        raise InputError(f"{where}: data.scale must be a finite number above 0")
    if file.attack is None and "robust_accuracy" in file.require:
        raise InputError(f"{where}: require.robust_accuracy needs attacks; add [attack] with a budget, as linf 8/255")
    return Study(
        network=file.network,
        data=file.data,
        target=file.target,
        require=tuple(_requirement(name, value, f"{where}: require") for name, value in file.require.items()),
        recipe=None if file.stage is None else _recipe(file.stage, where),
        attack=file.attack,
        seed=file.seed,
        samples=file.samples,
    )


def study_text(study: Study, recipe: Recipe) -> str:
    """The TOML text from which `study` with `recipe` can be run again."""
    document: dict[str, Any] = {
        "seed": study.seed,
        "samples": study.samples,
        "network": to_plain(study.network),
        "data": to_plain(study.data),
        "target": to_plain(study.target),
        "require": {r.name: r.written for r in study.require},
        **({} if study.attack is None else {"attack": to_plain(study.attack)}),
        "stage": [{"use": stage.name(), **_without_none(to_plain(stage))} for stage in recipe],
    }
    return tomli_w.dumps(document)


def _without_none(plain: Any) -> Any:
    """Plain values without what is None: TOML says that by leaving it out."""
    if isinstance(plain, Mapping):
        given = cast("Mapping[str, Any]", plain)
        return {key: _without_none(value) for key, value in given.items() if value is not None}
    return plain


def find_stage(name: str, where: str) -> type[Stage]:
    """The stage of that name. Raises `InputError` with the nearest known one."""
    known = {stage.name(): stage for stage in STAGES}
    if name not in known:
        raise InputError(f"{where}: unknown stage '{name}'; {suggest(name, list(known))}")
    return known[name]


def parse_quantity(value: Any, unit: str, where: str) -> float:
    """A number in base units from `64 KiB`, `20 ms`, `1 mJ`, `0.5 %` or a plain number.

    >>> parse_quantity("64 KiB", "B", "flash")
    65536.0
    """
    known = _UNITS[unit]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number, given = (float(value) if abs(value) < 2**1000 else math.inf), unit
    else:
        match = re.fullmatch(r"\s*([-+0-9.eE]+)\s*([^\d\s]*)\s*", value) if isinstance(value, str) else None
        try:
            number, given = (float(match[1]), match[2]) if match else (math.nan, "")
        except ValueError:
            number, given = math.nan, ""
    if not math.isfinite(number):
        raise InputError(f"{where}: {value!r} is not a quantity; write a number{' and a unit' if unit else ''}")
    if given not in known:
        fault = f"the wrong unit '{given}'" if given else "no unit"
        wanted = ", ".join(u for u in known if u)
        advice = f"use one of {wanted}" if wanted else "write a plain number"
        raise InputError(f"{where}: '{value}' has {fault}; {advice}")
    if number < 0:
        raise InputError(f"{where}: {value!r} is negative; requirements are at least 0")
    return number * known[given]


def _requirement(name: str, value: Any, where: str) -> Requirement:
    if name not in _REQUIREMENTS:
        raise InputError(f"{where}: unknown key '{name}'; {suggest(name, list(_REQUIREMENTS))}")
    unit = _REQUIREMENTS[name][0]
    limit = parse_quantity(value, unit, f"{where}.{name}")
    written = str(value) if isinstance(value, str) or "" in _UNITS[unit] else f"{value} {unit}"
    return Requirement(name=name, limit=limit, written=written)


def _recipe(entries: tuple[Mapping[str, Any], ...], where: str) -> Recipe:
    stages: list[Stage] = []
    for i, entry in enumerate(entries):
        place = f"{where}: stage[{i}]"
        fields = dict(entry)
        use = fields.pop("use", None)
        if not isinstance(use, str):
            raise InputError(f"{place}: missing key 'use'; name a stage: {', '.join(s.name() for s in STAGES)}")
        stages.append(from_plain(find_stage(use, place), fields, f"{place} ({use})"))
    return tuple(stages)
