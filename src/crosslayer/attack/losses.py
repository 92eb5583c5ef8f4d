"""What gradient attacks make larger: a value for each sample, and its slope along the logits.

z are the logits, y is the label, z_π1 ≥ z_π2 ≥ … are sorted; of equal logits the first counts.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType

import numpy as np

from crosslayer.core.errors import InputError
from crosslayer.core.quant import Array

Lossy = tuple[Array, Array]
"""Values (batch,) and slopes (batch, classes), float64."""
_LEAST = 1e-300


class Loss(StrEnum):
    """Which function of the logits."""

    CE = "ce"
    """Cross-entropy."""
    MARGIN = "margin"
    """The largest other logit less the label's (Carlini & Wagner 2017, arXiv 1608.04644)."""
    DLR = "dlr"
    """The margin as a share of the logits' range: does not change if logits are shifted or scaled."""


def cross_entropy(logits: Array, labels: Array) -> Lossy:
    """−log softmax(z)_y. Of a very sure network it still has a slope, which float32 would round to zero."""
    z, rows = logits.astype(np.float64), np.arange(len(labels))
    others = z.copy()
    others[rows, labels] = -np.inf
    top = others.max(1, keepdims=True)
    shares = np.exp(others - top)
    total = shares.sum(1, keepdims=True)
    ahead = top[:, 0] + np.log(total[:, 0]) - z[rows, labels]
    wrong = np.maximum(np.exp(-np.logaddexp(0, -ahead)), _LEAST)
    slopes = wrong[:, None] * shares / total
    slopes[rows, labels] = -wrong
    return np.logaddexp(0, ahead), slopes


def margin(logits: Array, labels: Array) -> Lossy:
    """max_{i≠y} z_i − z_y."""
    z = logits.astype(np.float64)
    up = _mark(z, _rival(z, labels)) - _mark(z, labels)
    return (up * z).sum(1), up


def dlr(logits: Array, labels: Array) -> Lossy:
    """−(z_y − max_{i≠y} z_i) / (z_π1 − z_π3), the difference of logits ratio (Croce & Hein 2020, arXiv 2003.01690).

    Raises `InputError` for fewer than 3 classes.
    """
    _check_classes(logits, 3, "dlr")
    z = logits.astype(np.float64)
    order = np.argsort(-z, axis=1, kind="stable")
    up = _mark(z, _rival(z, labels)) - _mark(z, labels)
    return _ratio(z, up, _mark(z, order[:, 0]) - _mark(z, order[:, 2]))


def targeted_dlr(logits: Array, labels: Array, targets: Array) -> Lossy:
    """−(z_y − z_t) / (z_π1 − (z_π3 + z_π4) / 2) for targets t (batch,) (Croce & Hein 2020, arXiv 2003.01690).

    Raises `InputError` for fewer than 4 classes.
    """
    _check_classes(logits, 4, "targeted dlr")
    z = logits.astype(np.float64)
    order = np.argsort(-z, axis=1, kind="stable")
    down = _mark(z, order[:, 0]) - (_mark(z, order[:, 2]) + _mark(z, order[:, 3])) / 2
    return _ratio(z, _mark(z, targets) - _mark(z, labels), down)


LOSSES: Mapping[Loss, Callable[[Array, Array], Lossy]] = MappingProxyType(
    {Loss.CE: cross_entropy, Loss.MARGIN: margin, Loss.DLR: dlr}
)


def _check_classes(logits: Array, least: int, name: str) -> None:
    if logits.shape[1] < least:
        raise InputError(f"loss {name} needs at least {least} classes, the network has {logits.shape[1]}; use margin")


def _rival(z: Array, labels: Array) -> Array:
    """The class of the largest logit but the label's."""
    others = z.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    return others.argmax(1)


def _mark(z: Array, classes: Array) -> Array:
    """1 at a class of each sample, 0 elsewhere."""
    return (np.arange(z.shape[1]) == classes[:, None]).astype(np.float64)


def _ratio(z: Array, up: Array, down: Array) -> Lossy:
    """(up · z) / (down · z), with its slope. Integer logits may be equal: then what is divided by is not 0 but tiny."""
    below = np.maximum((down * z).sum(1), 1e-12)
    value = (up * z).sum(1) / below
    return value, (up - value[:, None] * down) / below[:, None]
