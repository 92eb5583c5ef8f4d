"""The bit-flip attack: which few bits of the weights ruin a network.

Progressive bit search of Rakin et al. 2019 (arXiv 1903.12269), written from the paper: in each layer the bit with the
steepest slope, of these the one whose flip raises the loss most, again and again. Losses are those of the exact
integers that ship. The search is greedy, so its number of flips is no bound: a weaker attacker can by chance need fewer
(see `least_flips`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import final

import numpy as np

from crosslayer.core.dataset import Split
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array, Quant
from crosslayer.core.stage import check_parameters
from crosslayer.execute import exact
from crosslayer.fault.compressed import Worth
from crosslayer.fault.course import Course
from crosslayer.fault.flips import (
    MASK,
    Flip,
    Part,
    changes,
    flip_at,
    flipped,
    is_compressed,
    population,
    random_flips,
    stored,
    stored_slopes,
)


class Knowledge(StrEnum):
    """What an attacker knows of the network; each knows what those above know too."""

    RANDOM = "random"
    """Nothing: any bits."""
    MAGNITUDE = "magnitude"
    """The weights and their scales: the largest changes, of the largest weights first."""
    GRADIENT = "gradient"
    """The network and some samples: progressive bit search."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Attacker:
    """Who flips bits: what is known, which bit numbers of which layers (nodes by name) can be reached (empty: all)."""

    knowledge: Knowledge = Knowledge.GRADIENT
    bits: tuple[int, ...] = ()
    layers: tuple[str, ...] = ()

    def contains(self, other: "Attacker") -> bool:
        """Whether this one can do all that the other can.

        >>> Attacker().contains(Attacker(knowledge=Knowledge.RANDOM, bits=(7,)))
        True
        """
        order = list(Knowledge)
        pairs = (self.bits, other.bits), (self.layers, other.layers)
        reaches = all(not mine or (theirs and set(theirs) <= set(mine)) for mine, theirs in pairs)
        return reaches and order.index(self.knowledge) >= order.index(other.knowledge)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """When an attack ends: after `most` flips, or once the accuracy is at most `stop`. Of each layer the `tried` bits
    with the steepest slopes are looked at (1 in the paper)."""

    most: int
    stop: float
    tried: int = 1

    def __post_init__(self) -> None:
        check_parameters((self.most >= 1, "most must be at least 1"), (self.tried >= 1, "tried must be at least 1"))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """One attack: the flips in order, and after how many of them which accuracy was measured, the first after none."""

    attacker: Attacker
    flips: tuple[Flip, ...]
    accuracies: tuple[tuple[int, float], ...]

    def needed(self, accuracy: float) -> int | None:
        """The fewest flips after which the accuracy was at most that; None if it never was."""
        return next((count for count, reached in self.accuracies if reached <= accuracy), None)


def attack(
    graph: Graph, attacker: Attacker, batch: Split, judged: Split, effort: Effort, rng: np.random.Generator
) -> Campaign:
    """Flips bits of an integer network until its accuracy on `judged` is low.

    `batch` holds the attacker's own samples, which `judged` should not. Raises `GraphError` for a float network, or if
    no bit is reached.
    """
    parts = population(graph, bits=attacker.bits, layers=attacker.layers)
    if attacker.knowledge is Knowledge.GRADIENT:
        return _progressive(graph, attacker, parts, batch, judged, effort)
    most = min(effort.most, sum(part.size * len(part.bits) for part in parts))
    flips = _largest(graph, parts, most) if attacker.knowledge is Knowledge.MAGNITUDE else None
    flips = random_flips(parts, most, rng) if flips is None else flips
    accuracies: list[tuple[int, float]] = []
    for count in (0, *_rising(most)):
        accuracies.append((count, _accuracy(flipped(graph, flips[:count]), judged)))
        if accuracies[-1][1] <= effort.stop:
            break
    return Campaign(attacker=attacker, flips=flips[: accuracies[-1][0]], accuracies=tuple(accuracies))


def least_flips(campaigns: Iterable[Campaign], accuracy: float) -> Mapping[Attacker, int | None]:
    """By attacker: the fewest flips that it, or one that it contains, needed for that accuracy; None if none got there.

    So more capability never seems to need more flips: where a search did worse than a weaker attacker's, it failed.
    """
    runs = list(campaigns)
    found: dict[Attacker, int | None] = {}
    for attacker in dict.fromkeys(run.attacker for run in runs):
        counts = [run.needed(accuracy) for run in runs if attacker.contains(run.attacker)]
        found[attacker] = min((count for count in counts if count is not None), default=None)
    return found


def _progressive(
    graph: Graph, attacker: Attacker, parts: Sequence[Part], batch: Split, judged: Split, effort: Effort
) -> Campaign:
    from crosslayer.execute.weight_slopes import weight_slopes  # PyTorch is loaded only where slopes are needed

    x, labels = batch.real(), batch.labels
    flips: list[Flip] = []
    now = graph
    accuracies = [(0, _accuracy(graph, judged))]
    while accuracies[-1][1] > effort.stop and len(flips) < effort.most:
        slopes = weight_slopes(now, x, labels, leak=_LEAK)
        candidates = [f for part in parts for f in _steepest(graph, now, part, slopes, flips, effort.tried)]
        if not candidates:
            break
        course = Course(now, x)
        losses = [_loss(course.changed(flipped(graph, [*flips, f]), f.weight), labels) for f in candidates]
        flips.append(candidates[int(np.argmax(losses))])
        now = flipped(graph, flips)
        accuracies.append((len(flips), _accuracy(now, judged)))
    return Campaign(attacker=attacker, flips=tuple(flips), accuracies=tuple(accuracies))


_LEAK = 0.1
"""Of slopes where codes are saturated: after some flips all logits are, and without any the search would be blind."""


def _steepest(
    graph: Graph, now: Graph, part: Part, slopes: Mapping[str, Array], flips: Sequence[Flip], tried: int
) -> list[Flip]:
    """The bits of a layer whose flip should raise the loss most, by its slope; none that has flipped already."""
    gains = _gains(graph, now, part, slopes, flips)
    for flip in flips:
        if flip.weight == part.weight and flip.bit in part.bits:
            at = flip.index if part.places is None else part.places.index(flip.index)
            gains[at, part.bits.index(flip.bit)] = -np.inf
    flat = gains.ravel()
    best = np.argsort(-flat, kind="stable")[:tried] if tried > 1 else [int(flat.argmax())]
    width = len(part.bits)
    return [
        Flip(part.weight, part.index(int(p) // width), part.bits[int(p) % width]) for p in best if np.isfinite(flat[p])
    ]


def _gains(graph: Graph, now: Graph, part: Part, slopes: Mapping[str, Array], flips: Sequence[Flip]) -> Array:
    """(codes, bits): the slope of each code times how much it grows if a bit flips."""
    quant = graph.types[part.weight].quant
    assert quant is not None
    if is_compressed(graph, part.weight):
        slope = stored_slopes(graph, part.weight, slopes)
        return _worth(graph, part, flips, lambda change: slope.reshape(change.shape) * change)
    codes = now.constants[part.weight].ravel()
    grown = np.stack([changes(codes, quant.bits, bit) for bit in part.bits], axis=1)
    return stored_slopes(graph, part.weight, slopes).reshape(-1, 1) * grown


def _worth(graph: Graph, part: Part, flips: Sequence[Flip], worth: Worth) -> Array:
    """(codes, bits): what the changes count that a bit of a compressed weight makes, after other flips."""
    found = stored(graph, part.weight, flips)
    if part.bits == (MASK,):
        return found.worth_of_masks(worth).reshape(-1, 1)
    grown = [found.worth_of_codes(changes(found.codes, 8, bit), worth)[: part.size] for bit in part.bits]
    return np.stack(grown, axis=1)


def _largest(graph: Graph, parts: Sequence[Part], most: int) -> tuple[Flip, ...]:
    """The bits whose flips change weights most, in real numbers; of equal ones those of the largest weights first."""
    grown: list[Array] = []
    sizes: list[Array] = []
    for part in parts:
        quant, codes = graph.types[part.weight].quant, graph.constants[part.weight]
        assert quant is not None

        def size(change: Array, quant: Quant = quant, shape: tuple[int, ...] = codes.shape) -> Array:
            return np.abs(quant.decode(change.reshape(shape))).reshape(change.shape)

        if is_compressed(graph, part.weight):
            grown.append(_worth(graph, part, (), size).ravel())
        else:
            grown.append(np.stack([size(changes(codes, quant.bits, bit)).ravel() for bit in part.bits], axis=1).ravel())
        held = size(codes).ravel()
        sizes.append(np.repeat(held if part.places is None else held[list(part.places)], len(part.bits)))
    order = np.lexsort((-np.concatenate(sizes), -np.concatenate(grown)))
    return tuple(flip_at(parts, place) for place in order[:most].tolist())


def _rising(most: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, 16, … up to `most`, which is the last."""
    counts = sorted({size << i for i in range(most.bit_length()) for size in (1, 3) if size << i < most})
    return [*counts, most]


def _accuracy(graph: Graph, judged: Split) -> float:
    outputs = exact.run(graph, judged.real()).reshape(len(judged), -1)
    return float(np.mean(outputs.argmax(axis=1) == judged.labels))


def _loss(logits: Array, labels: Array) -> float:
    """The mean cross-entropy, float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    own = wide[np.arange(len(labels)), labels]
    return float(np.mean(np.log(np.exp(wide).sum(axis=1)) - own))
