"""CIFAR-10, as published in binary form or as lossless WebP sheets. The pickle form is never read: that would run code.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import json
import tarfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crosslayer.core.dataset import Split
from crosslayer.core.errors import DataError
from crosslayer.core.quant import Array
from crosslayer.datasets.damage import damaged, decoding
from crosslayer.datasets.labels import indices
from crosslayer.datasets.parts import PIXEL_SCALE, Parts

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN_BATCHES = tuple(f"data_batch_{n}.bin" for n in range(1, 6))
TEST_BATCH = "test_batch.bin"
BATCH_FOLDER = "cifar-10-batches-bin"
ARCHIVE = "cifar-10-binary.tar.gz"
BATCH_RECORDS = 10_000
LABELS = "labels.npz"
FIRST_SHEET = "train_00.webp"
LOSSY = "lossy_indices.json"

_SIDE = 32  # pixels
_RECORD_BYTES = 1 + 3 * _SIDE * _SIDE  # label, then the red, green and blue planes
_ROWS, _COLUMNS = 25, 40  # tiles of a sheet
_TILES = _ROWS * _COLUMNS


def lacks(folder: Path) -> str:
    """What `folder` would need to hold CIFAR-10 in one of the forms read here; empty if it does."""
    sheets = all((folder / name).is_file() for name in (LABELS, FIRST_SHEET))
    if sheets or _batch_folder(folder) or (folder / ARCHIVE).is_file():
        return ""
    return f"{ARCHIVE}, or {BATCH_FOLDER}/ with {TRAIN_BATCHES[0]} …, or {LABELS} with {FIRST_SHEET} …"


def read(folder: Path) -> Parts:
    """50,000 training and 10,000 test images of 32×32×3 uint8 with scale 1/255, in the published order.

    The published bytes are preferred to the sheets, of which a few images may be inexact (the note then says how many).
    DataError if `folder` holds no form of the set, or a file is damaged.
    """
    if batches := _batch_folder(folder):
        return read_batches(batches)
    if (folder / ARCHIVE).is_file():
        return read_archive(folder / ARCHIVE)
    if lacking := lacks(folder):
        raise DataError(f"{folder}: CIFAR-10 is not here; needed: {lacking}")
    return read_sheets(folder)


def read_batches(folder: Path, records: int = BATCH_RECORDS) -> Parts:
    """The set from the six files data_batch_1…5.bin and test_batch.bin, `records` images each."""

    def batch(name: str) -> Split:
        path = folder / name
        with decoding(path):
            _check_size(path, name, path.stat().st_size, records)
            return _decode_batch(path, path.read_bytes())

    return Parts(train=_joined(map(batch, TRAIN_BATCHES)), test=batch(TEST_BATCH), classes=CLASSES)


def read_archive(path: Path, records: int = BATCH_RECORDS) -> Parts:
    """The set from the published archive, without unpacking it to disk."""
    batches: dict[str, Split] = {}
    with decoding(path), tarfile.open(path, "r|gz") as archive:
        for member in archive:
            name = member.name.rpartition("/")[2]
            if name not in (*TRAIN_BATCHES, TEST_BATCH) or (file := archive.extractfile(member)) is None:
                continue
            _check_size(path, name, member.size, records)
            batches[name] = _decode_batch(path, file.read())
    if absent := [name for name in (*TRAIN_BATCHES, TEST_BATCH) if name not in batches]:
        raise damaged(path, f"lacks {', '.join(absent)}")
    return Parts(
        train=_joined(batches[name] for name in TRAIN_BATCHES),
        test=batches[TEST_BATCH],
        classes=CLASSES,
    )


def read_sheets(folder: Path) -> Parts:
    """The set from sheets train_00.webp …, test_00.webp … of 25×40 tiles each, with their labels in labels.npz.

    Image k of sheet s lies in tile row k // 40 and column k % 40, and is image 1000 s + k of its split.
    """
    path = folder / LABELS
    with decoding(path), path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        train, test = np.asarray(arrays["train"]), np.asarray(arrays["test"])
    return Parts(
        train=_read_sheets(folder, "train", train),
        test=_read_sheets(folder, "test", test),
        classes=CLASSES,
        note=_lossy_note(folder / LOSSY),
    )


def _batch_folder(folder: Path) -> Path | None:
    """The folder, this one or its canonical subfolder, that holds binary batches."""
    places = (folder, folder / BATCH_FOLDER)
    return next((place for place in places if (place / TRAIN_BATCHES[0]).is_file()), None)


def _check_size(path: Path, name: str, size: int, records: int) -> None:
    if size != records * _RECORD_BYTES:
        raise damaged(path, f"{name} has {size} bytes instead of {records * _RECORD_BYTES}")


def _decode_batch(path: Path, content: bytes) -> Split:
    """The records of one batch, channels last."""
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, _RECORD_BYTES)
    planes = records[:, 1:].reshape(-1, 3, _SIDE, _SIDE)
    images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    return Split(codes=images, labels=indices(records[:, 0], CLASSES, path), scale=PIXEL_SCALE)


def _joined(splits: Iterable[Split]) -> Split:
    """One split of all samples, in order."""
    each = tuple(splits)
    return Split(
        codes=np.concatenate([split.codes for split in each]),
        labels=np.concatenate([split.labels for split in each]),
        scale=PIXEL_SCALE,
    )


def _read_sheets(folder: Path, role: str, labels: Array) -> Split:
    """One split; its labels say how many sheets there are."""
    path = folder / LABELS
    if labels.ndim != 1 or labels.dtype != np.uint8 or not len(labels) or len(labels) % _TILES:
        raise damaged(path, f"{role} should be a multiple of {_TILES} labels of type uint8")
    paths = (folder / f"{role}_{sheet:02}.webp" for sheet in range(len(labels) // _TILES))
    return Split(codes=np.concatenate(list(_decoded(paths))), labels=indices(labels, CLASSES, path), scale=PIXEL_SCALE)


def _decoded(paths: Iterable[Path]) -> Iterator[npt.NDArray[np.uint8]]:
    """The tiles of each sheet, in order. Threads, since the decoder releases the interpreter's lock."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        yield from pool.map(_decode_sheet, paths)


def _decode_sheet(path: Path) -> npt.NDArray[np.uint8]:
    """The 1000 tiles (1000, 32, 32, 3) of a sheet."""
    from PIL import Image  # here, so that importing this package needs NumPy alone

    size = (_COLUMNS * _SIDE, _ROWS * _SIDE)
    with decoding(path), path.open("rb") as file, Image.open(file, formats=("WEBP",)) as image:
        if image.size != size or image.mode != "RGB":
            raise damaged(path, f"is {image.mode} of {image.size} pixels instead of RGB of {size}")
        sheet = np.asarray(image)
    tiles = sheet.reshape(_ROWS, _SIDE, _COLUMNS, _SIDE, 3).transpose(0, 2, 1, 3, 4)
    return tiles.reshape(_TILES, _SIDE, _SIDE, 3)


def _lossy_note(path: Path) -> str:
    """How many images of the sheets are not exact, if the list of them is there."""
    if not path.is_file():
        return ""
    with decoding(path):
        lossy = json.loads(path.read_text(encoding="utf-8"))
        count = len(lossy["train"]) + len(lossy["test"])
    return f"{count} images come from a JPEG copy, see {path.name}"
