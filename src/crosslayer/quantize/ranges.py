"""Which range of an activation its codes should cover: from the values that it takes on a few samples."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import final

import numpy as np

from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array, affine
from crosslayer.execute import exact, reference
from crosslayer.quantize.precision import Precision

Range = tuple[float, float]
Ranges = Mapping[str, Range]
"""The least and largest real value that each activation must be able to hold, by its name."""

_BATCH = 64
_BINS = 2048
"""As in TensorRT's calibration (Migacz 2017, "8-bit Inference with TensorRT", GTC)."""
_TAIL = 1e-4
"""The share that `PERCENTILE` leaves outside: 99.99 % lie inside (Wu et al. 2020, arXiv 2004.09602, table 4)."""
_SHARES = 0.96 ** np.arange(80)
"""Clips that are tried, relative to the range of all values: 1 … 0.04."""


class RangeRule(StrEnum):
    """How to choose a range: what lies outside is saturated, and a smaller range is rounded more finely."""

    MIN_MAX = "min-max"
    """All values. Right for 8 bits and activations without outliers."""
    PERCENTILE = "percentile"
    """All but a ten-thousandth of the values, the farthest ones."""
    MSE = "mse"
    """The one with the least squared error of all values. Right for few bits."""
    ENTROPY = "entropy"
    """The one whose coded values are distributed most like the real ones (Kullback-Leibler; Migacz 2017)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Histogram:
    """How many values of an activation lie in each of many equal bins between `low` and `high`, its extremes."""

    low: float
    high: float
    counts: Array

    @property
    def centres(self) -> Array:
        """The middle of each bin."""
        return self.low + (np.arange(len(self.counts)) + 0.5) * (self.high - self.low) / len(self.counts)


def find_ranges(graph: Graph, x: Array, rule: RangeRule, precision: Precision) -> Ranges:
    """The range of every activation of a float graph, by `rule`, from samples x (count, …)."""
    batches = [x[i : i + _BATCH] for i in range(0, len(x), _BATCH)]
    extremes = reference.calibrate(graph, batches, exact.evaluate)
    if rule is RangeRule.MIN_MAX:
        return extremes
    histograms = observe(graph, batches, extremes)
    return {name: choose(histograms[name], rule, precision.activations_of(name)) for name in extremes}


def observe(graph: Graph, batches: list[Array], extremes: Ranges) -> Mapping[str, Histogram]:
    """The histogram of every activation over all batches."""
    counts = {name: np.zeros(_BINS, np.int64) for name in extremes}
    for batch in batches:
        for name, value in reference.walk(graph, batch, exact.evaluate):
            low, high = extremes[name]
            steps = (value.ravel() - low) * (_BINS / max(high - low, np.finfo(np.float32).tiny))
            counts[name] += np.bincount(np.clip(steps, 0, _BINS - 1).astype(np.int64), minlength=_BINS)
    return {name: Histogram(low=low, high=high, counts=counts[name]) for name, (low, high) in extremes.items()}


def choose(histogram: Histogram, rule: RangeRule, bits: int) -> Range:
    """The range that `rule` gives an activation of so many bits."""
    if histogram.high <= histogram.low:
        return histogram.low, histogram.high
    return _RULES[rule](histogram, bits)


def _extremes(histogram: Histogram, bits: int) -> Range:
    return histogram.low, histogram.high


def _percentile(histogram: Histogram, bits: int) -> Range:
    """Narrowed from whichever end lies farther from zero, as long as no more than `_TAIL` of the values lie outside."""
    order = np.argsort(-np.abs(histogram.centres), kind="stable")
    outside = np.cumsum(histogram.counts[order])
    kept = order[outside > _TAIL * outside[-1]]
    half = (histogram.high - histogram.low) / len(histogram.counts) / 2
    return float(histogram.centres[kept].min() - half), float(histogram.centres[kept].max() + half)


def _least(histogram: Histogram, cost: Callable[[Range], float]) -> Range:
    """The clip of the range, both ends to the same magnitude, that costs least."""
    farthest = max(-histogram.low, histogram.high)
    ranges = [(max(histogram.low, -c), min(histogram.high, c)) for c in (_SHARES * farthest).tolist()]
    return min(ranges, key=cost)


def _mse(histogram: Histogram, bits: int) -> Range:
    """The error is taken at the middles of the bins, which are narrower than the steps of 8-bit codes."""

    def cost(clip: Range) -> float:
        code = affine(*clip, bits)
        return float(histogram.counts @ (code.decode(code.encode(histogram.centres)) - histogram.centres) ** 2.0)

    return _least(histogram, cost)


def _entropy(histogram: Histogram, bits: int) -> Range:
    """Σ p · log(p / q): p is the histogram with what is saturated added to its ends, q the same after coding.

    As in TensorRT, q spreads what falls to one code evenly over those of its bins that are not empty; and values that
    are exactly zero, many after a relu and coded without error, do not count (pytorch-quantization `histogram.py`).
    """
    counts = histogram.counts.astype(np.float64)
    zero = int(np.argmin(np.abs(histogram.centres)))
    counts[zero] = counts[zero + 1 if zero + 1 < len(counts) else zero - 1]

    def cost(clip: Range) -> float:
        inside = np.flatnonzero((histogram.centres >= clip[0]) & (histogram.centres <= clip[1]))
        if not len(inside) or not counts[inside].any():
            return np.inf
        kept = counts[inside]
        p = kept.copy()
        p[0] += counts[: inside[0]].sum()
        p[-1] += counts[inside[-1] + 1 :].sum()
        codes = affine(*clip, bits).encode(histogram.centres[inside]).astype(np.int64)
        codes -= codes.min()
        alive = p > 0
        mass, bins = (np.bincount(codes[alive], weights)[codes[alive]] for weights in (kept[alive], None))
        p, q = p[alive] / p.sum(), np.maximum(mass / bins, 1e-9) / kept.sum()
        return float(np.sum(p * np.log(p / q)))

    return _least(histogram, cost)


_RULES: Mapping[RangeRule, Callable[[Histogram, int], Range]] = MappingProxyType(
    {
        RangeRule.MIN_MAX: _extremes,
        RangeRule.PERCENTILE: _percentile,
        RangeRule.MSE: _mse,
        RangeRule.ENTROPY: _entropy,
    }
)
