"""What attacks by gradients share: where to begin, which way to go, and what the network says there."""

from collections.abc import Callable

import numpy as np

from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.losses import Lossy
from crosslayer.attack.worst import Worst
from crosslayer.core.quant import Array
from crosslayer.execute.surrogate import Surrogate


def ascend(
    worst: Worst, rows: Array, z: Array, loss: Callable[[Array, Array], Lossy], surrogate: Surrogate
) -> tuple[Array, Array]:
    """Values of the loss (batch,) and directions of its slopes along `z` (batch, …), the largest slope along a logit 1.

    `z` lies within the budget of the places `rows`. The network is asked once, at the nearest point of the sensor's
    grid that the budget allows; what it says there is noted in `worst`.
    """
    tried = worst.budget.snap(z, worst.origin[rows], worst.victim.sensor.steps)
    logits, pullback = worst.victim.slopes(tried, surrogate)
    worst.see(rows, tried, logits)
    values, slopes = loss(logits, worst.labels[rows])
    # a loss can be so flat that float32 has no number for its slope, and no attack looks at the slope's length
    return values, pullback(slopes / np.maximum(np.abs(slopes).max(1, keepdims=True), 1e-300))


def steepest(slopes: Array, norm: Norm) -> Array:
    """The change of norm 1 that a linear function of these slopes grows most by; zeros where there is no slope."""
    if norm is Norm.LINF:
        return np.sign(slopes)
    return slopes / np.maximum(lengths(slopes), 1e-30)


def lengths(x: Array) -> Array:
    """The Euclidean length of each sample (batch, 1, …)."""
    return np.sqrt((x.astype(np.float64) ** 2).sum(tuple(range(1, x.ndim)), keepdims=True)).astype(np.float32)


def scattered(x: Array, budget: Budget, rng: np.random.Generator, share: float = 1.0) -> Array:
    """Samples drawn evenly from a share of the budget around `x`, in 0…1, float32."""
    if budget.norm is Norm.LINF:
        change = rng.uniform(-1, 1, x.shape)
    else:
        change = rng.standard_normal(x.shape)
        radius = rng.random((len(x), *(1 for _ in x.shape[1:]))) ** (1 / x[0].size)
        change *= radius / lengths(change)
    return np.clip(x + share * budget.size * change, 0, 1).astype(np.float32)


def see_inside(worst: Worst, rows: Array, z: Array, logits: Array) -> None:
    """Note in `worst` what the network says at those points, on the sensor's grid, that the budget allows."""
    steps = worst.victim.sensor.steps
    tried = (np.rint(z * np.float32(steps)) / np.float32(steps)).astype(np.float32) if steps else z
    inside = worst.budget.holds(tried, worst.origin[rows])
    worst.see(rows[inside], tried[inside], logits[inside])
