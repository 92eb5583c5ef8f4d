"""Images sorted into one folder per class."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from crosslayer.core.dataset import Split
from crosslayer.core.errors import DataError
from crosslayer.datasets.damage import decoding
from crosslayer.datasets.labels import class_order, numbered
from crosslayer.datasets.parts import PIXEL_SCALE, Parts

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What may be decoded, whatever the file is called: other decoders of Pillow start external programs."""
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

_ROLES = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
_GRAY, _DEEP = ("1", "L", "LA"), ("I", "F")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Labelled:
    """An image file and the class whose folder it lies in."""

    path: Path
    label: str


def read(folder: Path) -> Parts:
    """Images (count, height, width, channels) uint8 with scale 1/255; classes are the folder names.

    `folder` holds a folder per class, or folders train, test and validation (or val, valid) that do; those two may be
    absent. Files are taken in order of name, other files and hidden ones are left out. One channel if every image is
    gray, else three; transparency is dropped. DataError if a file is damaged, has more than 8 bits a channel, or
    differs from the first in size.
    """
    with decoding(folder):
        listed = {role: tuple(_images(place)) for role, place in _split_folders(folder).items()}
    classes = class_order(image.label for image in listed["train"])
    for role, images in listed.items():
        if strange := sorted({image.label for image in images} - set(classes)):
            raise DataError(f"{folder}: {role} has classes that train lacks: {', '.join(strange)}; make them agree")
    (width, height), gray = _check_alike([image.path for images in listed.values() for image in images])
    shape = (height, width, 1) if gray else (height, width, 3)
    splits = {role: _decode(images, shape, classes) for role, images in listed.items()}
    return Parts(train=splits["train"], validation=splits.get("validation"), test=splits.get("test"), classes=classes)


def _split_folders(folder: Path) -> Mapping[str, Path]:
    """The folder of class folders for each split there is; just one for train if the set is not split."""
    subfolders = _visible_folders(folder)
    if not subfolders:
        raise DataError(
            f"{folder}: no data set that is known here; put images into one folder per class, "
            "or give an .npz or .csv file"
        )
    if not any(place.name == "train" and _visible_folders(place) for place in subfolders):
        return {"train": folder}
    places: dict[str, Path] = {}
    for place in subfolders:
        role = _ROLES.get(place.name)
        if role is None or role in places:
            problem = "is not a split" if role is None else f"is a second {role} split"
            raise DataError(f"{place}: {problem}; beside train there may be test and validation, move it elsewhere")
        places[role] = place
    return places


def _visible_folders(folder: Path) -> Sequence[Path]:
    return sorted(place for place in folder.iterdir() if place.is_dir() and place.name[0] not in "._")


def _images(folder: Path) -> Iterator[_Labelled]:
    """The images of each class folder, by name."""
    for place in _visible_folders(folder):
        paths = sorted(p for p in place.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != "." and p.is_file())
        if not paths:
            raise DataError(f"{place}: no image ({', '.join(SUFFIXES)}) in this class folder; add some or remove it")
        for path in paths:
            yield _Labelled(path=path, label=place.name)


def _check_alike(paths: Sequence[Path]) -> tuple[tuple[int, int], bool]:
    """The one (width, height) of all images, and whether all are gray. Reads headers only."""
    from PIL import Image  # here, so that importing this package needs NumPy alone

    first: tuple[int, int] | None = None
    gray = True
    for path in paths:
        with decoding(path), path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            size, mode = image.size, image.mode
        if mode.startswith(_DEEP):
            raise DataError(f"{path}: has more than 8 bits a channel (mode {mode}); convert it to 8 bits")
        first = first or size
        if size != first:
            raise DataError(
                f"{path}: is {size[0]}×{size[1]} pixels, but {paths[0].name} is {first[0]}×{first[1]}; "
                "bring all images to one size"
            )
        gray = gray and mode in _GRAY
    if first is None:
        raise DataError("no image found; put images into one folder per class")
    return first, gray


def _decode(images: Sequence[_Labelled], shape: tuple[int, int, int], classes: Sequence[str]) -> Split:
    """The pixels of one split, each image of `shape` (height, width, channels)."""
    from PIL import Image

    codes: np.ndarray[Any, np.dtype[np.uint8]] = np.empty((len(images), *shape), dtype=np.uint8)
    for row, labelled in enumerate(images):
        path = labelled.path
        with decoding(path), path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            opaque = image.convert("RGBA") if image.mode == "P" else image  # else Pillow warns of transparent palettes
            codes[row] = np.asarray(opaque.convert("L" if shape[2] == 1 else "RGB")).reshape(shape)
    labels = numbered([labelled.label for labelled in images], classes)
    return Split(codes=codes, labels=labels, scale=PIXEL_SCALE)
