"""Square Attack against others: the paper's own pseudo-code, sample by sample, and ART's implementation."""

import math
import random
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from attack_networks import digits
from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.sensor import Sensor
from crosslayer.attack.square import Square
from crosslayer.attack.victim import Victim
from crosslayer.core.quant import Array

QUERIES, COUNT = 60, 1000
LINF, L2 = Budget(Norm.LINF, 0.12), Budget(Norm.L2, 0.9)


@cache
def network() -> tuple[Array, Array]:
    """A perceptron of one hidden layer, trained with plain gradient descent on the small digits."""
    x, labels = digits().train.real().reshape(-1, 64), digits().train.labels
    rng = np.random.default_rng(0)
    into, out = rng.normal(0, 0.15, (64, 48)).astype(np.float32), rng.normal(0, 0.15, (48, 10)).astype(np.float32)
    for _ in range(60):
        for rows in np.split(rng.permutation(len(x))[: len(x) // 32 * 32], len(x) // 32):
            hidden = np.maximum(x[rows] @ into, 0)
            scores = np.exp(hidden @ out)
            error = (scores / scores.sum(1, keepdims=True) - np.eye(10, dtype=np.float32)[labels[rows]]) / 32
            down = (error @ out.T) * (hidden > 0)
            into -= 0.3 * x[rows].T @ down
            out -= 0.3 * hidden.T @ error
    return into, out


def logits(x: Array) -> Array:
    into, out = network()
    return np.maximum(x.reshape(-1, 64).astype(np.float32) @ into, 0) @ out


def victim() -> Victim:
    return Victim(sensor=Sensor(low=0.0, high=1.0), scores=logits)
