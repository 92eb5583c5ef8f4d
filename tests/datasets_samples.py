"""Small data sets of each form, written to a folder."""

import gzip
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from crosslayer.datasets import cifar, idx


def random_bytes(*shape: int, below: int = 256, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, below, shape, dtype=np.uint8)


def idx_bytes(array: np.ndarray[Any, Any]) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx_set(folder: Path, *, packed: bool = True, count: int = 60, classes: int = 10) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for (images, numbers), total, seed in ((idx.TRAIN, count, 1), (idx.TEST, count // 2, 2)):
        for name, array in (
            (images, random_bytes(total, 5, 4, seed=seed)),
            (numbers, (np.arange(total) % classes).astype(np.uint8)),
        ):
            content = idx_bytes(array)
            (folder / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(content) if packed else content)
    return folder


def write_batches(folder: Path, records: int = 20) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate((*cifar.TRAIN_BATCHES, cifar.TEST_BATCH)):
        content = random_bytes(records, 3073, seed=seed)
        content[:, 0] = np.arange(records) % 10
        (folder / name).write_bytes(content.tobytes())
    return folder


def write_archive(path: Path, records: int = 20, leave_out: str = "") -> Path:
    batches = write_batches(path.parent / "unpacked", records)
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name in (*cifar.TRAIN_BATCHES, cifar.TEST_BATCH):
            if name != leave_out:
                archive.add(batches / name, arcname=f"cifar-10-batches-bin/{name}")
    return path


def write_sheets(folder: Path) -> Path:
    """One sheet a split; tile k is of the colour (k mod 256, k div 256, 7)."""
    folder.mkdir(parents=True, exist_ok=True)
    k = np.arange(1000, dtype=np.uint16).reshape(25, 40)
    colours = np.stack([k % 256, k // 256, np.full_like(k, 7)], axis=-1).astype(np.uint8)
    sheet = Image.fromarray(np.repeat(np.repeat(colours, 32, axis=0), 32, axis=1))
    for role in ("train", "test"):
        sheet.save(folder / f"{role}_00.webp", lossless=True, quality=0, method=0)
    numbers = (np.arange(1000) % 10).astype(np.uint8)
    np.savez(folder / cifar.LABELS, train=numbers, test=numbers)
    return folder


def write_images(
    folder: Path, *, classes: tuple[str, ...] = ("cat", "dog"), each: int = 8, mode: str = "RGB", suffix: str = "png"
) -> Path:
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for k in range(each):
            pixels = random_bytes(6, 4, 3, seed=100 * number + k)
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{k:03}.{suffix}")
    return folder


def write_npz(path: Path, **arrays: Any) -> Path:
    with path.open("wb") as file:
        np.savez(file, **arrays)
    return path


def write_text(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def rows(header: str, count: int = 20) -> str:
    return header + "".join(f"{k},{k / 4},{'odd' if k % 2 else 'even'}\n" for k in range(count))
