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
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise unwritable(path, error) from error


@contextmanager
def folder_atomic(path: Path) -> Generator[Path]:
    """A scratch folder that takes the place of `path` when the block ends without an error."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(parents=True)
        yield scratch
        if path.exists():
            retired = path.with_name(f".{path.name}.{os.getpid()}.retired{_PARTIAL}")
            path.rename(retired)
            scratch.rename(path)
            shutil.rmtree(retired)
        else:
            scratch.rename(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def sweep_partials(folder: Path) -> None:
    """Remove what killed runs left under `folder`."""
    for leftover in folder.glob(f".*{_PARTIAL}"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
