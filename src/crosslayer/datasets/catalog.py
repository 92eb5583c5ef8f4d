"""The known data sets, and reading any set by name, file or folder.

A further known set is one row of SOURCES; a further file format is one entry of FILES or FOLDERS.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import final

from crosslayer.core.dataset import Dataset
from crosslayer.core.errors import DataError
from crosslayer.datasets import cifar, digits, idx, image_folder, npz, places, speech, table
from crosslayer.datasets.damage import decoding
from crosslayer.datasets.parts import Parts, assemble

FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Bundled:
    """Samples that come with an installed package."""

    package: str
    read: Callable[[], Parts]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Samples in files, in a subfolder of one of `places.search_folders`."""

    folders: tuple[str, ...]
    """Names that the subfolder may have; `download.get` makes the first."""
    lacks: Callable[[Path], str]
    """What a folder would need to hold the set; empty if it holds it."""
    read: Callable[[Path], Parts]
    public: bool = True
    """Whether `download.get` can fetch it."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A data set known by name."""

    name: str
    title: str
    licence: str
    citation: str
    origin: Bundled | Stored


SOURCES: tuple[Source, ...] = (
    Source(
        name="digits",
        title="Handwritten digits, 8×8×1: 1,797 images, 10 classes",
        licence="CC BY 4.0",
        citation="E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, "
        "1998, doi:10.24432/C50P49",
        origin=Bundled(package="scikit-learn", read=digits.read),
    ),
    Source(
        name="mnist",
        title="Handwritten digits, 28×28×1: 60,000 + 10,000 images, 10 classes",
        licence="no formal licence text; commonly listed as CC BY-SA 3.0",
        citation="Y. LeCun, C. Cortes, C. J. C. Burges, The MNIST Database of Handwritten Digits, 1998",
        origin=Stored(folders=("mnist",), lacks=idx.lacks, read=partial(idx.read, classes=tuple("0123456789"))),
    ),
    Source(
        name="fashion-mnist",
        title="Articles of clothing, 28×28×1: 60,000 + 10,000 images, 10 classes",
        licence="MIT",
        citation="H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine "
        "Learning Algorithms, 2017, arXiv:1708.07747",
        origin=Stored(
            folders=("fashion_mnist", "fashion-mnist"),
            lacks=idx.lacks,
            read=partial(idx.read, classes=FASHION_CLASSES),
        ),
    ),
    Source(
        name="cifar10",
        title="Objects and animals, 32×32×3: 50,000 + 10,000 images, 10 classes",
        licence="no formal licence text; free for research with citation",
        citation="A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        origin=Stored(folders=("cifar10",), lacks=cifar.lacks, read=cifar.read),
    ),
    Source(
        name="kws12",
        title="Spoken keywords as log-mel features, 49×40×1: 2,805 + 911 clips, 12 classes",
        licence="CC BY 4.0",
        citation="P. Warden, Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition, 2018, "
        "arXiv:1804.03209",
        origin=Stored(folders=("speech_commands",), lacks=speech.lacks, read=speech.read, public=False),
    ),
)

FILES: Mapping[str, Callable[[Path], Parts]] = {".npz": npz.read, ".csv": table.read, ".tsv": table.read}
"""What reads a file of this suffix."""

FOLDERS: tuple[tuple[Callable[[Path], str], Callable[[Path], Parts]], ...] = (
    (idx.lacks, partial(idx.read, classes=tuple("0123456789"))),
    (cifar.lacks, cifar.read),
)
"""What a folder must not lack, and what then reads it; any other folder is read as an image folder."""


def catalog() -> tuple[Source, ...]:
    """The data sets known by name. `whereabouts` says where each one is."""
    return SOURCES


def find(name: str) -> Source:
    """The known set of that name; case and underscores do not matter. DataError if there is none.

    >>> find("Fashion_MNIST").licence
    'MIT'
    """
    if source := _known(name):
        return source
    raise DataError(f"no data set is called {name!r}{_suggestion(name)}; known: {', '.join(s.name for s in SOURCES)}")


def locate(name: str) -> Path | None:
    """The folder that holds the known set `name`; None if no folder does, as for a set bundled with a package.

    The environment variable CROSSLAYER_DATA names the folder to search first, the cache is the second.
    """
    origin = find(name).origin
    if isinstance(origin, Bundled):
        return None
    return next((place for place in _candidates(origin) if _holds(place, origin)), None)


def whereabouts(name: str) -> str:
    """Where the known set `name` is, or how to get it; one line for a person to read."""
    source = find(name)
    if isinstance(source.origin, Bundled):
        return f"comes with {source.origin.package}"
    folder = locate(name)
    return str(folder) if folder else f"not here; {_remedy(source.name, source.origin)}"


def load(source: str) -> Dataset:
    """A data set by name, or from a file (.npz, .csv, .tsv) or a folder (idx files, CIFAR-10, images by class).

    A known name is never taken for a path: write `./mnist` for a folder of that name. A split that the source itself
    has is kept; the others are carved from its training samples with a fixed seed, each class in proportion. Test
    samples are for final scores only. DataError if the set is absent, damaged or too small; ToolError if a package that
    it needs is absent.

    >>> digits = load("digits")
    >>> digits.shape, len(digits.train) + len(digits.validation) + len(digits.test)
    ((8, 8, 1), 1797)
    """
    if known := _known(source):
        return _load_known(known)
    path = places.home_expanded(source)
    with decoding(path):
        is_file, is_folder = path.is_file(), path.is_dir()
    if not source or not (is_file or is_folder):
        raise DataError(
            f"{source!r} is neither a known data set nor a file or folder{_suggestion(source)}; "
            f"known: {', '.join(s.name for s in SOURCES)}"
        )
    if is_folder:
        return _load_folder(path)
    reader = FILES.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: a file of this kind is not read; give {', '.join(FILES)} or a folder")
    return assemble(reader(path), name=path.stem, source=str(path), where=str(path))


def _load_known(source: Source) -> Dataset:
    """The set of a row, from its package or from the folder that holds it."""
    origin = source.origin
    if isinstance(origin, Bundled):
        return assemble(origin.read(), name=source.name, source=source.citation, where=source.name)
    folder = locate(source.name)
    if folder is None:
        raise DataError(f"{source.name}: not found. Looked in {_search_report(origin)}; {_remedy(source.name, origin)}")
    try:
        return assemble(origin.read(folder), name=source.name, source=source.citation, where=str(folder))
    except DataError as error:
        raise DataError(f"{error}: remove this one; {_remedy(source.name, origin)}") from error


def _load_folder(path: Path) -> Dataset:
    """A folder as the known set whose files and folder name it has, else by what it holds."""
    for source in SOURCES:
        origin = source.origin
        if isinstance(origin, Stored) and path.resolve().name in origin.folders and _holds(path, origin):
            return assemble(origin.read(path), name=source.name, source=source.citation, where=str(path))
    readers = (read for lacks, read in FOLDERS if not lacks(path))
    reader = next(readers, image_folder.read)
    return assemble(reader(path), name=path.resolve().name, source=str(path), where=str(path))


def _known(name: str) -> Source | None:
    plain = name.strip().casefold().replace("_", "-")
    return next((source for source in SOURCES if source.name == plain), None)


def _candidates(origin: Stored) -> tuple[Path, ...]:
    """Every folder in which a stored set is looked for, first choice first."""
    return tuple(place / folder for place in places.search_folders() for folder in origin.folders)


def _holds(place: Path, origin: Stored) -> bool:
    """Whether `place` is a folder with all that the set needs."""
    with decoding(place):
        return place.is_dir() and not origin.lacks(place)


def _search_report(origin: Stored) -> str:
    """Each folder that was looked in, and what it lacks."""
    return "; ".join(
        f"{place} (lacks {origin.lacks(place)})" if place.is_dir() else f"{place} (no such folder)"
        for place in _candidates(origin)
    )


def _remedy(name: str, origin: Stored) -> str:
    """What to do to have a set."""
    if origin.public:
        return f"`crosslayer datasets get {name}` fetches it"
    return f"let {places.VARIABLE} name the folder that holds {origin.folders[0]}/"


def _suggestion(name: str) -> str:
    close = get_close_matches(name.casefold(), [source.name for source in SOURCES], n=1)
    return f" (did you mean {close[0]}?)" if close else ""
