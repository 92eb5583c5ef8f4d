"""Turning whatever a decoder does on damaged bytes into one clear error."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from crosslayer.core.errors import CrosslayerError, DataError


def damaged(path: Path, problem: str) -> DataError:
    """The error for a file that is there but is not what it should be."""
    return DataError(f"{path}: {problem}; put an intact copy in its place")


@contextmanager
def decoding(path: Path) -> Generator[None, None, None]:
    """Any failure inside the block becomes one `DataError` that names `path`; keep the block to decoding alone."""
    try:
        yield
    except CrosslayerError:
        raise
    except Exception as error:  # on damaged bytes, decoders raise nearly anything: zlib.error, SyntaxError, IndexError
        if isinstance(error, OSError) and error.strerror:  # from the system, not from a decoder
            raise DataError(
                f"{path}: cannot be read ({error.strerror}); check that it is there and that you may read it"
            ) from error
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise damaged(path, f"cannot be decoded ({reason})") from error
