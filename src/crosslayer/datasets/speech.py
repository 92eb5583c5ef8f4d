"""Spoken keywords as log-mel features."""

from pathlib import Path

import numpy as np

from crosslayer.core.dataset import Split
from crosslayer.datasets.damage import damaged, decoding
from crosslayer.datasets.parts import Parts

FILE = "kws12_logmel_u8.npz"
_WANTED = ("logmel", "scale", "offset", "label", "split", "classes")


def lacks(folder: Path) -> str:
    """The file that the folder would need; empty if it is there."""
    return "" if (folder / FILE).is_file() else FILE


def read(folder: Path) -> Parts:
    """3,716 clips of 49 frames × 40 mel bands × 1, 12 classes; real = ln(mel + 1e-6).

    Features of the Speech Commands v0.02 test clips (Warden 2018, arXiv 1804.03209): frames of 30 ms every 20 ms. The
    speakers of the test split are not among those of the training split. DataError if the file is damaged.
    """
    path = folder / FILE
    with decoding(path), np.load(path, allow_pickle=False) as archive:
        if absent := [key for key in _WANTED if key not in archive.files]:
            raise damaged(path, f"lacks {', '.join(absent)}")
        found = {key: np.asarray(archive[key]) for key in _WANTED}
    features, labels, part = found["logmel"], found["label"].astype(np.int64), found["split"]
    classes = tuple(str(name) for name in found["classes"])
    if (
        features.dtype != np.uint8
        or features.ndim != 3
        or labels.shape != part.shape
        or len(labels) != len(features)
        or labels.max(initial=-1) >= len(classes)
    ):
        raise damaged(path, "its arrays do not fit one another")
    whole = Split(codes=features[..., None], labels=labels, scale=float(found["scale"]), offset=float(found["offset"]))
    train, test = (whole.take(np.flatnonzero(part == number)) for number in (0, 1))
    return Parts(train=train, test=test, classes=classes, note="log-mel features; test speakers are heard only there")
