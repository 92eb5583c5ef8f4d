"""Images in the idx files of MNIST and the sets that copy its form."""

import gzip
import io
import math
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crosslayer.core.dataset import Split
from crosslayer.datasets.damage import damaged, decoding
from crosslayer.datasets.labels import indices
from crosslayer.datasets.parts import PIXEL_SCALE, Parts

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

_UNSIGNED_BYTE = 0x08
_GZIP = b"\x1f\x8b"
_CHUNK = 1 << 20  # bytes


def lacks(folder: Path) -> str:
    """The names of the idx files, plain or .gz, that `folder` does not hold; empty if it holds all."""
    return ", ".join(f"{name}[.gz]" for name in (*TRAIN, *TEST) if not _found(folder, name).is_file())


def read(folder: Path, classes: Sequence[str]) -> Parts:
    """Images (count, height, width, 1) uint8 with scale 1/255 and labels from the four canonical files in `folder`.

    DataError if a file is damaged, or a label is no index into `classes`. Format: the idx description on
    http://yann.lecun.com/exdb/mnist.
    """
    return Parts(
        train=_split(folder, *TRAIN, classes=classes),
        test=_split(folder, *TEST, classes=classes),
        classes=tuple(classes),
    )


def read_array(path: Path, axes: int) -> npt.NDArray[np.uint8]:
    """The array of `axes` axes in an idx file of unsigned bytes, plain or gzip. DataError if it holds anything else."""
    with decoding(path), path.open("rb") as raw:
        packed = raw.read(2) == _GZIP  # by content: browsers unpack a download and keep its name
        raw.seek(0)
        with gzip.GzipFile(fileobj=raw) if packed else raw as file:
            header = file.read(4 + 4 * axes)
            if header[:4] != bytes((0, 0, _UNSIGNED_BYTE, axes)):
                raise damaged(path, f"is no idx file of unsigned bytes with {axes} axes (it starts {header[:4].hex()})")
            shape = struct.unpack(f">{axes}I", header[4:])
            size = math.prod(shape)
            content = _read_at_most(file, size + 1)
    if len(content) != size:
        problem = "ends too early" if len(content) < size else "goes on too long"
        raise damaged(path, f"{problem}: its header promises {size} bytes ({'×'.join(map(str, shape))})")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _read_at_most(file: gzip.GzipFile | io.BufferedReader, count: int) -> bytearray:
    """Up to `count` bytes. In chunks, so that a damaged count allocates no more than the file holds."""
    content = bytearray()
    while len(content) < count and (chunk := file.read(min(_CHUNK, count - len(content)))):
        content += chunk
    return content


def _split(folder: Path, images_name: str, labels_name: str, *, classes: Sequence[str]) -> Split:
    """One split from its two files."""
    images_path, labels_path = _found(folder, images_name), _found(folder, labels_name)
    images, labels = read_array(images_path, axes=3), read_array(labels_path, axes=1)
    if len(images) != len(labels):
        raise damaged(images_path, f"holds {len(images)} images, but {labels_path.name} holds {len(labels)} labels")
    return Split(codes=images[..., np.newaxis], labels=indices(labels, classes, labels_path), scale=PIXEL_SCALE)


def _found(folder: Path, name: str) -> Path:
    """The plain file if it is there, else the packed one, there or not."""
    return folder / name if (folder / name).is_file() else folder / f"{name}.gz"
