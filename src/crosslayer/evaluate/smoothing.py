"""Randomized smoothing: the class that a design gives most often in noise, and how far no change of a sample turns it.

A sensor gives x in {0 … S}^d. The smoothed design calls the class that f(clip(x + k)) has most often, where f is the
integer design and k rounded Gaussian noise: k = round(n), n ~ N(0, σ² I). As x is whole, x + k = round(x + n): this is
a function of x + n with real n, and theorem 1 of Cohen et al. 2019 (arXiv 1902.02918) holds as it stands. If a class
has a probability of at least p > 1/2, it stays the most frequent one for every change of the sample of Euclidean
length below σ Φ⁻¹(p).

Neither the integers of f nor those of x + k are rounded, which is what makes float smoothing unsound (Voráček & Hein
2023, "Sound Randomized Smoothing in Floating-Point Arithmetics"); integer noise for integer networks is the idea of
IntRS (Lin et al. 2021). k is drawn from a table of 64-bit cumulative probabilities. By how much all of these can be
wrong is taken from p. What is assumed is that NumPy's PCG64 gives uniform bits.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist
from typing import final

import numpy as np
import numpy.typing as npt

from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.sensor import Sensor
from crosslayer.core.bench import Executor, Progress, silent
from crosslayer.core.dataset import Split
from crosslayer.core.errors import InputError
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array
from crosslayer.core.score import Better, Score, clopper_pearson, share_score
from crosslayer.core.stage import check_parameters
from crosslayer.evaluate.certificate import SLACK

_BATCH = 1000
_ROUNDING = 1e-9
"""By how much the bound of a binomial share and the quantile of a normal distribution can be wrong; generous."""
ABSTAINS = -1


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothing:
    """Noise of standard deviation `noise`, a share of the sensor's range. `first` draws guess the class, `draws` others
    bound its probability; each sample's statement is false with a probability of at most `alpha`."""

    noise: float = 0.25
    draws: int = 1000
    first: int = 100
    alpha: float = 0.001

    def __post_init__(self) -> None:
        check_parameters(
            (0 < self.noise <= 10, "noise must be above 0 and at most 10"),
            (self.draws >= 1 and self.first >= 1, "draws and first must be at least 1"),
            (0 < self.alpha < 1, "alpha must lie between 0 and 1"),
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Smoothed:
    """Of each sample the class (count,) that the smoothed design calls, or `ABSTAINS`, and the radius (count,), a share
    of the sensor's range in Euclidean length, within which that is so; 0 where it abstains."""

    classes: npt.NDArray[np.int64]
    radii: npt.NDArray[np.float64]


def smoothing_score(
    graph: Graph,
    split: Split,
    budget: Budget,
    sensor: Sensor,
    smoothing: Smoothing,
    executor: Executor,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> Score:
    """The share of a split's samples that the smoothed design provably calls by their label under an `l2` budget, with
    its 95 % Wilson interval over samples. Raises `InputError` for another norm."""
    if budget.norm is not Norm.L2:
        raise InputError(f"smoothing certifies {Norm.L2} budgets, not {budget.norm}; choose such a budget")
    found = smooth(graph, split.real(), sensor, smoothing, executor, seed=seed, progress=progress)
    hits = int(((found.classes == split.labels) & (found.radii > budget.size + SLACK)).sum())
    return share_score(
        "certified_accuracy",
        hits,
        len(split),
        Better.HIGHER,
        f"of the vote over noise of {smoothing.noise:g}, on the integers that ship: {budget}, each sample with a "
        f"confidence of {100 * (1 - smoothing.alpha):g} % from {smoothing.draws} draws; {len(split)} samples, "
        f"{int((found.classes == ABSTAINS).sum())} of them undecided",
    )


def smooth(
    graph: Graph,
    x: Array,
    sensor: Sensor,
    smoothing: Smoothing,
    executor: Executor,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> Smoothed:
    """What the smoothed design calls real samples x (count, …) of a sensor, and how far (Cohen et al., `CERTIFY`).

    The statement is about the vote over all noise, not about single inferences. Raises `InputError` for a float network
    or a sensor without a grid.
    """
    if not graph.is_integer:
        raise InputError("a certificate is for the integers that ship, this is a float network; quantize it first")
    if not sensor.steps:
        raise InputError("the noise of smoothing is made of whole steps, and this sensor has none; give integer data")
    outputs = graph.types[graph.outputs[0]].size
    table = cumulative(smoothing.noise * sensor.steps, sensor.steps)
    doubt = _ROUNDING + x[0].size * len(table) * 2.0**-51 if len(x) else 0.0
    codes = np.rint(sensor.shares(x).astype(np.float64) * sensor.steps).astype(np.int64)
    classes, radii = np.full(len(x), ABSTAINS, np.int64), np.zeros(len(x))

    def votes(own: Array, draws: int, rng: np.random.Generator) -> Array:
        """How often each class is called."""
        counts = np.zeros(outputs, np.int64)
        for start in range(0, draws, _BATCH):
            noisy = np.clip(own + noise(table, (min(_BATCH, draws - start), *own.shape), rng), 0, sensor.steps)
            called = executor(graph, sensor.real((noisy / sensor.steps).astype(np.float32)))
            counts += np.bincount(called.reshape(len(noisy), -1).argmax(1), minlength=outputs)
        return counts

    numbers: Iterable[int] = progress(range(len(x)), "samples in noise", len(x))
    for i in numbers:
        rng = np.random.default_rng((seed, i))
        guess = int(votes(codes[i], smoothing.first, rng).argmax())
        hits = int(votes(codes[i], smoothing.draws, rng)[guess])
        found = radius(clopper_pearson(hits, smoothing.draws, smoothing.alpha) - doubt, smoothing.noise)
        if found > 0:
            classes[i], radii[i] = guess, found
    return Smoothed(classes=classes, radii=radii)


def radius(share: float, noise: float) -> float:
    """noise · Φ⁻¹(share), rounded down; 0 for a share of at most a half."""
    return noise * NormalDist().inv_cdf(share) * (1 - _ROUNDING) if share > 0.5 else 0.0


def cumulative(deviation: float, most: int) -> npt.NDArray[np.uint64]:
    """P(k ≤ j) for j = −most … most − 1, in steps of 2^−64, of k = round(n), n ~ N(0, deviation²)."""
    shares = (math.erfc(-(j + 0.5) / (deviation * math.sqrt(2))) / 2 for j in range(-most, most))
    return np.array([min(int(share * 2.0**64), 2**64 - 1) for share in shares], np.uint64)


def noise(table: npt.NDArray[np.uint64], shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Rounded Gaussian noise of `shape` by a table of `cumulative`; what lies beyond ±most becomes ±most."""
    uniform = rng.integers(0, 2**64, shape, np.uint64)
    return np.searchsorted(table, uniform, side="right").astype(np.int64) - len(table) // 2
