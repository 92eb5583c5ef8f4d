"""What every data set must do, and a small one to try things on."""

from collections.abc import Callable

import numpy as np

from crosslayer.core.dataset import Dataset, Split


def small_dataset(*, side: int = 8, channels: int = 1, samples: int = 96, seed: int = 0) -> Dataset:
    """Images of four classes, a bright quadrant each, in noise: learnt in seconds, yet not in one step.

    >>> small_dataset(side=6).shape
    (6, 6, 1)
    """
    rng = np.random.default_rng(seed)

    def split(count: int) -> Split:
        labels = rng.permutation(np.arange(count) % 4).astype(np.int64)
        codes = rng.normal(100, 25, (count, side, side, channels))
        half = side // 2
        for image, label in zip(codes, labels.tolist(), strict=True):
            image[label // 2 * half :][:half, label % 2 * half :][:, :half] += 60
        return Split(codes=np.clip(codes, 0, 255).astype(np.uint8), labels=labels, scale=1 / 255)

    return Dataset(
        name="quadrants",
        train=split(samples),
        validation=split(samples // 2),
        test=split(samples // 2),
        classes=("upper left", "upper right", "lower left", "lower right"),
        source="made by crosslayer.testing",
    )


def check_dataset(load: Callable[[], Dataset]) -> Dataset:
    """The set that `load` gives, known to keep all promises. Raises `AssertionError` that says which one it breaks."""
    data = load()
    assert data.name, "the set has no name"
    assert data.source, f"{data.name}: has no source; cite where the samples come from"
    assert len(data.classes) > 1, f"{data.name}: has fewer than two classes"
    assert len(set(data.classes)) == len(data.classes), f"{data.name}: two classes have one name"
    for title, split in _splits(data):
        where = f"{data.name}, {title}"
        assert len(split) > 0, f"{where}: is empty"
        assert split.codes.shape[1:] == data.shape, f"{where}: samples of {split.codes.shape[1:]}, not {data.shape}"
        assert split.labels.dtype == np.int64, f"{where}: labels are {split.labels.dtype}, not int64"
        inside = split.labels.min() >= 0 and split.labels.max() < len(data.classes)
        assert inside, f"{where}: labels lie outside 0…{len(data.classes) - 1}"
        real = split.real(slice(0, 256))
        assert real.dtype == np.float32, f"{where}: real values are {real.dtype}, not float32"
        assert np.isfinite(real).all(), f"{where}: holds values that are not finite"
    seen = np.unique(data.train.labels)
    assert len(seen) == len(data.classes), f"{data.name}: only {len(seen)} classes have training samples"
    for (title, split), (_, again) in zip(_splits(data), _splits(load()), strict=True):
        same = np.array_equal(split.codes, again.codes) and np.array_equal(split.labels, again.labels)
        assert same, f"{data.name}, {title}: loading twice gives different samples"
    return data


def _splits(data: Dataset) -> tuple[tuple[str, Split], ...]:
    return ("training", data.train), ("validation", data.validation), ("test", data.test)
