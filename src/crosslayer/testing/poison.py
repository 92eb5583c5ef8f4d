"""Backdoors planted by poisoned training data: what a scan must find."""

from dataclasses import replace

import numpy as np

from crosslayer.core.dataset import Split
from crosslayer.core.quant import Array


def stamped(codes: Array, side: int) -> Array:
    """Images (count, height, width, channels) with a square of the largest code in their last corner."""
    marked = codes.copy()
    marked[:, -side:, -side:] = codes.max()
    return marked


def poisoned(split: Split, target: int, share: float, side: int, rng: np.random.Generator) -> Split:
    """A split with copies of a share of its samples, stamped and labelled as class `target` (BadNets, Gu et al. 2017,
    arXiv 1708.06733)."""
    others = np.flatnonzero(split.labels != target)
    rows = rng.choice(others, min(len(others), round(share * len(split))), replace=False)
    return replace(
        split,
        codes=np.concatenate([split.codes, stamped(split.codes[rows], side)]),
        labels=np.concatenate([split.labels, np.full(len(rows), target)]),
    )
