"""Writing files so that a reader sees the old one or the new one, never half of one."""

import hashlib
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from crosslayer.core.errors import InputError

_PARTIAL = ".partial"


def unwritable(path: Path, error: OSError) -> InputError:
    """The error to raise when a file or folder cannot be written."""
    return InputError(f"{path}: cannot be written ({error.strerror}); free space or choose another folder")


def write_atomic(path: Path, content: bytes | str) -> None:
    """`path` holds `content`; if interrupted, it holds what it held before."""
    raw = content.encode() if isinstance(content, str) else content
    partial = path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")
    try:
        with partial.open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def folder_atomic(path: Path) -> Generator[Path]:
    """A scratch folder that takes the place of `path` when the block ends without an error."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(parents=True)
        yield scratch
        discard(path)
        scratch.rename(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def discard(path: Path) -> None:
    """No file or folder `path` is there; if interrupted, there is all of it or nothing."""
    if path.is_dir() and not path.is_symlink():
        retired = path.with_name(f".{path.name}.{os.getpid()}.retired{_PARTIAL}")
        path.rename(retired)
        shutil.rmtree(retired)
    else:
        path.unlink(missing_ok=True)


def is_partial(path: Path) -> bool:
    """Whether a killed run left this behind."""
    return path.name.startswith(".") and path.name.endswith(_PARTIAL)


def sweep_partials(folder: Path) -> None:
    """Remove what killed runs left under `folder`."""
    for leftover in filter(is_partial, list(folder.iterdir())):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
