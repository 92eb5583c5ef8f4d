"""Arrays in a NumPy archive."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from crosslayer.core.dataset import Split
from crosslayer.core.errors import DataError
from crosslayer.core.quant import Array
from crosslayer.datasets.damage import damaged, decoding
from crosslayer.datasets.labels import class_order, indices, numbered
from crosslayer.datasets.parts import PIXEL_SCALE, Parts

_SUFFIXES = {"train": "_train", "validation": "_val", "test": "_test"}


def read(path: Path) -> Parts:
    """Splits from arrays x, y, or x_train, y_train and, if there, x_test, y_test, x_val, y_val.

    x is (count, *shape), channels last. uint8 means scale 1/255, and (count, height, width) of it gains a channel axis;
    other numbers become float32. y is (count,) whole numbers or text. An array `classes` of text, if there, is what y
    indexes; else the classes are the distinct labels, ascending. DataError if an array is absent, damaged or of another
    kind: objects are never unpickled, since that would run code.
    """
    arrays = _read_arrays(path)
    keys = {"train": ("x", "y")} if "x" in arrays else {r: (f"x{s}", f"y{s}") for r, s in _SUFFIXES.items()}
    keys = {role: pair for role, pair in keys.items() if role == "train" or pair[0] in arrays or pair[1] in arrays}
    if absent := sorted(key for pair in keys.values() for key in pair if key not in arrays):
        held = ", ".join(arrays) or "nothing"
        raise DataError(f"{path}: lacks {', '.join(absent)} (it holds {held}); save x and y, or x_train, y_train, …")
    labels = {role: _plain_labels(path, y, arrays[y]) for role, (_, y) in keys.items()}
    classes, indexed = _classes(path, labels, arrays.get("classes"))
    splits = {role: _split(path, x, arrays[x], indexed[role]) for role, (x, _) in keys.items()}
    return Parts(train=splits["train"], validation=splits.get("validation"), test=splits.get("test"), classes=classes)


def _read_arrays(path: Path) -> Mapping[str, Array]:
    """The arrays that matter here; others may be of any kind."""
    wanted = {"x", "y", "classes"} | {axis + suffix for axis in "xy" for suffix in _SUFFIXES.values()}
    with decoding(path), path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise damaged(path, "is not an .npz archive")
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            return {key: _read_array(path, archive, key) for key in archive.files if key in wanted}


def _read_array(path: Path, archive: Mapping[str, Array], key: str) -> Array:
    try:
        return np.asarray(archive[key])
    except ValueError as error:
        raise DataError(
            f"{path}: array {key} cannot be read ({error}); save plain numbers or text, objects are never unpickled"
        ) from error


def _plain_labels(path: Path, key: str, labels: Array) -> Array:
    """Labels of shape (count,) of whole numbers or text."""
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if flat.ndim != 1 or flat.dtype.kind not in "biuU":
        raise DataError(
            f"{path}: {key} is {labels.dtype} of shape {labels.shape}; save one whole number or text a sample"
        )
    return flat.astype(np.uint8) if flat.dtype.kind == "b" else flat


def _classes(
    path: Path, labels: Mapping[str, Array], names: Array | None
) -> tuple[tuple[str, ...], Mapping[str, Array]]:
    """The class names, and the labels of each split as indices into them."""
    if names is not None:
        if names.ndim != 1 or names.dtype.kind != "U" or any(y.dtype.kind == "U" for y in labels.values()):
            raise DataError(f"{path}: classes should be text of shape (count,), and the labels numbers that index it")
        known = tuple(str(name) for name in names)
        return known, {role: indices(y, known, path) for role, y in labels.items()}
    texts = {role: [str(label) for label in y.tolist()] for role, y in labels.items()}
    known = class_order(text for each in texts.values() for text in each)
    return known, {role: numbered(each, known) for role, each in texts.items()}


def _split(path: Path, key: str, samples: Array, labels: Array) -> Split:
    """One split, in the number code that the type of `samples` asks for."""
    if samples.dtype.kind not in "biuf" or samples.ndim < 2:
        raise DataError(f"{path}: {key} is {samples.dtype} of shape {samples.shape}; save numbers (count, *shape)")
    if len(samples) != len(labels):
        raise DataError(f"{path}: {key} has {len(samples)} samples and {len(labels)} labels; save one label a sample")
    if samples.dtype == np.uint8:
        pixels = samples[..., np.newaxis] if samples.ndim == 3 else samples
        return Split(codes=pixels, labels=labels, scale=PIXEL_SCALE)
    with np.errstate(over="ignore"):  # what float32 cannot hold is reported below
        real = samples.astype(np.float32)
    if not np.isfinite(real).all():
        raise DataError(f"{path}: {key} holds values that are not finite float32 numbers; remove or replace them")
    return Split(codes=real, labels=labels)
