"""How often a classifier stays right under attack: the worst of a set of attacks, sample by sample.

The protocol follows Carlini et al. 2019 (arXiv 1902.06705) and AutoAttack (Croce & Hein 2020, arXiv 2003.01690), with
what integer networks need besides: samples on the sensor's grid, surrogate slopes, and the float network beside it.
"""

import time
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import final

import numpy as np

from crosslayer.attack.apgd import Apgd
from crosslayer.attack.attack import Attack
from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.fab import Fab
from crosslayer.attack.fgsm import Fgsm
from crosslayer.attack.hopskipjump import HopSkipJump
from crosslayer.attack.losses import Loss
from crosslayer.attack.noise import RandomNoise
from crosslayer.attack.pgd import Pgd
from crosslayer.attack.square import Square
from crosslayer.attack.victim import Victim, margins
from crosslayer.core.bench import Progress, silent
from crosslayer.core.quant import Array
from crosslayer.core.robustness import AttackResult, CurvePoint
from crosslayer.core.score import wilson
from crosslayer.execute.surrogate import Surrogate

_CURVE = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
"""Sizes of the curve, as multiples of the budget."""
_MOST_STEPS = 640
_STILL = 0.01


def still(samples: int) -> float:
    """How many of the samples twice the steps may turn where an evaluation has come to its end."""
    return max(_STILL * samples, 2)


class Knowledge(StrEnum):
    """What an attack needs, and so what it is held against."""

    NOTHING = "nothing"
    """Random changes."""
    ONE_STEP = "one step"
    """One step along the slopes."""
    SLOPES = "slopes"
    """Many steps along the slopes of the design itself, by a surrogate where it has none."""
    TWIN = "the float network"
    """Found on the float network that the integers stand for, and replayed."""
    SCORES = "scores"
    LABELS = "labels"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """An attack of the set. `most` limits the samples of an attack that takes long."""

    name: str
    attack: Attack
    knowledge: Knowledge
    most: int | None = None


def attack_set(budget: Budget, classes: int, effort: int = 1) -> tuple[Trial, ...]:
    """The attacks that an evaluation makes under `linf` or `l2`; `effort` multiplies steps, restarts and queries."""
    ratio = Loss.DLR if classes > 2 else Loss.MARGIN
    slopes = [
        Trial(
            name=f"pgd {surrogate} {loss}",
            attack=Pgd(steps=40 * effort, loss=loss, surrogate=surrogate),
            knowledge=Knowledge.SLOPES,
        )
        for surrogate in Surrogate
        for loss in (Loss.CE, Loss.MARGIN)
    ]
    return (
        Trial(name="noise", attack=RandomNoise(draws=100 * effort), knowledge=Knowledge.NOTHING),
        *(
            Trial(name=f"fgsm {surrogate}", attack=Fgsm(surrogate=surrogate), knowledge=Knowledge.ONE_STEP)
            for surrogate in Surrogate
        ),
        *slopes,
        *(
            Trial(
                name=f"apgd {surrogate} {loss}",
                attack=Apgd(steps=50 * effort, loss=loss, surrogate=surrogate),
                knowledge=Knowledge.SLOPES,
            )
            for surrogate in (Surrogate.GATED, Surrogate.LEAKY)
            for loss in (Loss.CE, ratio)
        ),
        Trial(name="fab", attack=Fab(steps=20 * effort), knowledge=Knowledge.SLOPES, most=200 * effort),
        Trial(
            name="transfer",
            attack=Apgd(steps=50 * effort, loss=Loss.CE, stop=False),
            knowledge=Knowledge.TWIN,
        ),
        Trial(name="square", attack=Square(queries=1000 * effort), knowledge=Knowledge.SCORES, most=200 * effort),
        Trial(
            name="hop-skip-jump",
            attack=HopSkipJump(queries=1000 * effort),
            knowledge=Knowledge.LABELS,
            most=50 * effort,
        ),
    )


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """What the attacks of a set did to the samples x (batch, …), shares of the sensor's range.

    `worst` holds for each the point of least margin, one that fools where there is one; `right` says which samples no
    attack turned, `clean` which were right before. `union` gives, by what attacks know, the samples that attacks of
    that kind alone left right, of those in `seen`. `moved` is the share of the attacked samples that slopes changed.
    """

    x: Array
    labels: Array
    worst: Array
    clean: Array
    right: Array
    results: tuple[AttackResult, ...]
    union: dict[Knowledge, Array]
    seen: dict[Knowledge, Array]
    moved: float
    twin_right: Array | None
    curve: tuple[CurvePoint, ...]
    steps: int
    """Of the last and longest attacks."""
    turned: int
    """Samples that these turned, after half as many steps had."""


def attack(
    victim: Victim,
    x: Array,
    labels: Array,
    budget: Budget,
    *,
    twin: Victim | None = None,
    effort: int = 1,
    seed: int = 0,
    progress: Progress = silent,
) -> Outcome:
    """All attacks of the set, each from the clean samples for its own figure; then longer ones from the worst points,
    with twice the steps each time, until that changes hardly anything.

    x (batch, …) are shares of the sensor's range on its grid; labels (batch,). `twin` is the float network that an
    integer one stands for.
    """
    classes = victim.logits(x[:1]).shape[1]
    state = _State(victim, x, labels, budget, seed)
    trials = [t for t in attack_set(budget, classes, effort) if twin is not None or t.knowledge is not Knowledge.TWIN]
    twin_right: Array | None = None
    for number, trial in enumerate(progress(trials, "attacks", len(trials))):
        if trial.knowledge is Knowledge.TWIN:
            assert twin is not None
            twin_right = ~twin.fooled(state.try_alone(number, trial, twin), labels)
        else:
            state.try_alone(number, trial, victim)
    steps, turned = 40 * effort, len(x)
    while turned > still(len(x)) and steps < _MOST_STEPS * effort:
        steps, before = 2 * steps, int(state.right.sum())
        for surrogate in progress(list(Surrogate), f"{steps} steps from the worst points", len(Surrogate)):
            state.press(Pgd(steps=steps, loss=Loss.MARGIN, surrogate=surrogate))
        turned = before - int(state.right.sum())
    return Outcome(
        x=x,
        labels=labels,
        worst=state.worst,
        clean=state.clean,
        right=state.right,
        results=tuple(state.results),
        union=state.union,
        seen=state.seen,
        moved=state.moved,
        twin_right=twin_right,
        curve=_curve(victim, x[:200], labels[:200], budget, seed, progress),
        steps=steps,
        turned=turned,
    )


class _State:
    """The worst points so far."""

    def __init__(self, victim: Victim, x: Array, labels: Array, budget: Budget, seed: int) -> None:
        self.victim, self.x, self.labels, self.budget, self.seed = victim, x, labels, budget, seed
        logits = victim.logits(x)
        self.clean = logits.argmax(1) == labels
        self.worst, self.right, self.least = x.copy(), self.clean.copy(), margins(logits, labels)
        self.pressed = 0
        self.results: list[AttackResult] = []
        self.union: dict[Knowledge, Array] = {}
        self.seen: dict[Knowledge, Array] = {}
        self._changed: list[Array] = []

    @property
    def moved(self) -> float:
        """The share of the attacked samples that some attack by slopes changed."""
        return float(np.mean(np.any(self._changed, axis=0))) if self._changed else 0.0

    def try_alone(self, number: int, trial: Trial, victim: Victim) -> Array:
        """The attack's own figure, from the clean samples; what it found joins the worst points. Returns all samples
        as they are afterwards."""
        chosen = np.flatnonzero(self.clean)
        rows = chosen[: trial.most]
        begin = time.process_time()
        rng = np.random.default_rng((self.seed, number))
        made = self.x.copy()
        if len(rows):
            made[rows] = trial.attack(victim, self.x[rows], self.labels[rows], self.budget, rng)
        spent = time.process_time() - begin
        stayed = self._keep(rows, made[rows])
        right = int(stayed.sum())
        low, high = wilson(right, len(rows)) if len(rows) else (0.0, 1.0)
        self.results.append(
            AttackResult(
                name=trial.name,
                what=str(trial.attack),
                samples=len(rows),
                right=right,
                low=low,
                high=high,
                seconds=round(spent, 2),
            )
        )
        seen, left = np.zeros(len(self.x), bool), np.ones(len(self.x), bool)
        seen[rows], left[rows] = True, stayed
        self.seen[trial.knowledge] = self.seen.get(trial.knowledge, ~np.zeros(len(self.x), bool)) & seen
        self.union[trial.knowledge] = self.union.get(trial.knowledge, np.ones(len(self.x), bool)) & left
        if trial.knowledge is Knowledge.SLOPES and trial.most is None:
            self._changed.append((made[rows] != self.x[rows]).reshape(len(rows), -1).any(1))
        return made

    def press(self, attack: Attack) -> None:
        """An attack on what is still right, from the worst points."""
        rows = np.flatnonzero(self.right)
        if len(rows):
            rng = np.random.default_rng((self.seed, 1000 + self.pressed))
            found = attack(self.victim, self.x[rows], self.labels[rows], self.budget, rng, self.worst[rows])
            self._keep(rows, found)
        self.pressed += 1

    def _keep(self, rows: Array, found: Array) -> Array:
        """Whether each row is right at what was found, by the design itself; what is worse is kept."""
        if not len(rows):
            return np.zeros(0, bool)
        logits = self.victim.logits(found)
        right, reached = logits.argmax(1) == self.labels[rows], margins(logits, self.labels[rows])
        worse = (~right & self.right[rows]) | ((right == self.right[rows]) & (reached < self.least[rows]))
        self.worst[rows[worse]], self.least[rows[worse]] = found[worse], reached[worse]
        self.right[rows] &= right
        return right


def _curve(
    victim: Victim, x: Array, labels: Array, budget: Budget, seed: int, progress: Progress
) -> tuple[CurvePoint, ...]:
    """Accuracy over sizes of the budget, from 0 to where every image can become any other."""
    last = 1.0 if budget.norm is Norm.LINF else 0.5 * float(np.sqrt(x[0].size))
    sizes = sorted({0.0, last, last / 2, *(min(share * budget.size, last) for share in _CURVE)})
    points: list[CurvePoint] = []
    for size in progress(sizes, "accuracy over the budget", len(sizes)):
        rng = np.random.default_rng((seed, 2000))
        wider = replace(budget, size=size)
        right = ~victim.fooled(x, labels)
        for surrogate, loss in ((Surrogate.GATED, Loss.CE), (Surrogate.LEAKY, Loss.MARGIN)):
            rows = np.flatnonzero(right)
            if size and len(rows):
                pgd = Pgd(steps=40, loss=loss, surrogate=surrogate)
                right[rows] = ~victim.fooled(pgd(victim, x[rows], labels[rows], wider, rng), labels[rows])
        hits = int(right.sum())
        low, high = wilson(hits, len(x))
        points.append(CurvePoint(size=size, accuracy=hits / len(x), low=low, high=high))
    return tuple(points)
