"""Where data sets lie on this computer."""

import os
from pathlib import Path

from crosslayer.datasets.damage import decoding

VARIABLE = "CROSSLAYER_DATA"
"""The environment variable that names a folder with one subfolder per data set."""


def search_folders() -> tuple[Path, ...]:
    """The folders that may hold data sets, first choice first: the one the environment names, then the cache."""
    chosen = os.environ.get(VARIABLE, "").strip()
    return (home_expanded(chosen), cache_folder()) if chosen else (cache_folder(),)


def home_expanded(path: str) -> Path:
    """`path` with a leading ~ replaced by the home folder it means. DataError if there is none."""
    with decoding(Path(path)):
        return Path(path).expanduser()


def cache_folder() -> Path:
    """The folder into which data sets are downloaded."""
    import platformdirs  # here, so that importing this package needs NumPy alone

    return Path(platformdirs.user_cache_dir("crosslayer")) / "datasets"
