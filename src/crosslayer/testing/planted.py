"""Victims that only look robust: each hides from an attack in another way, so that an evaluation must say so."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from crosslayer.attack.victim import Victim
from crosslayer.core.quant import Array
from crosslayer.execute.surrogate import Pullback, Surrogate

Linearize = Callable[[Array, Surrogate], tuple[Array, Pullback]]


def masked(victim: Victim) -> Mapping[str, Victim]:
    """Masked forms of a victim that has slopes, by what hides them."""
    honest = victim.linearize
    assert honest is not None

    def with_slopes(change: Callable[[Array, Array], Array]) -> Victim:
        def linearize(x: Array, surrogate: Surrogate) -> tuple[Array, Pullback]:
            logits, back = honest(x, surrogate)
            return logits, lambda slopes: change(x, back(slopes))

        return replace(victim, linearize=linearize)

    rng = np.random.default_rng(0)
    width = victim.sensor.high - victim.sensor.low

    def coarse(x: Array) -> Array:
        """Three levels are left of each value."""
        return (np.rint((x - victim.sensor.low) / width * 2) / 2 * width + victim.sensor.low).astype(np.float32)

    def filtered(x: Array) -> Array:
        return victim.scores(coarse(x))

    def heat(x: Array) -> Array:
        return victim.scores(x) * np.float32(1e4)

    def heated(x: Array, surrogate: Surrogate) -> tuple[Array, Pullback]:
        logits, back = honest(x, surrogate)
        return logits * np.float32(1e4), lambda slopes: back(slopes * np.float32(1e4))

    def shaken(x: Array) -> Array:
        logits = victim.scores(x)
        return logits + rng.normal(0, logits.std(), logits.shape).astype(np.float32)

    def flat(x: Array, slopes: Array) -> Array:
        """No slope where the answer is clear."""
        ordered = np.sort(victim.scores(x), axis=1)
        clear = ordered[:, -1] - ordered[:, -2] > np.median(ordered[:, -1] - ordered[:, -2])
        return np.where(clear.reshape(-1, *(1 for _ in x.shape[1:])), 0, slopes)

    return {
        "rounded": with_slopes(lambda _, slopes: np.zeros_like(slopes)),
        "shattered": with_slopes(lambda _, slopes: rng.normal(size=slopes.shape).astype(np.float32)),
        "reversed": with_slopes(lambda _, slopes: -slopes),
        "flat": with_slopes(flat),
        "heated": replace(victim, scores=heat, linearize=heated),
        "filtered behind the slopes": replace(victim, scores=filtered),
        "random": replace(victim, scores=shaken),
    }
