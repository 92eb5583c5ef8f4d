"""Damaged files by the thousand: a reader may refuse them, and nothing else."""

import signal
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from types import FrameType

import numpy as np

from crosslayer.core.errors import CrosslayerError

CASE_LIMIT_S = 10.0
"""One file of a few kilobytes may not take longer."""


class HangError(BaseException):
    """A case took longer than its limit. No `Exception`, so that no reader can swallow it."""


@contextmanager
def time_limit(seconds: float) -> Generator[None]:
    def alarm(number: int, frame: FrameType | None) -> None:
        raise HangError(f"no answer after {seconds} s")

    before = signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def damaged(rng: np.random.Generator, whole: Sequence[bytes]) -> bytes:
    """One of the files with one to four mutations: bits, bytes, words of lengths and offsets, cuts, splices."""
    content = bytearray(whole[rng.integers(len(whole))])
    for _ in range(int(rng.integers(1, 5))):
        size = len(content)
        if size < 8:
            break
        at = int(rng.integers(size))
        match int(rng.integers(7)):
            case 0:
                content[at] ^= 1 << int(rng.integers(8))
            case 1:
                content[at] = int(rng.integers(256))
            case 2:  # a word that could be a length or an offset
                word = int(rng.choice([0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, size, size - 4, 4]))
                at -= at % 4
                content[at : at + 4] = word.to_bytes(4, "little")
            case 3:  # a small change of a word, so that it still points near
                at -= at % 4
                word = int.from_bytes(content[at : at + 4], "little") + int(rng.integers(-8, 9))
                content[at : at + 4] = (word % 2**32).to_bytes(4, "little")[: len(content[at : at + 4])]
            case 4:
                del content[at:]
            case 5:  # a piece of another file
                other = whole[rng.integers(len(whole))]
                start, length = int(rng.integers(len(other))), int(rng.integers(1, 64))
                content[at : at + length] = other[start : start + length]
            case _:
                del content[at : at + int(rng.integers(1, 32))]
    return bytes(content)


def storm(read: Callable[[bytes], object], whole: Sequence[bytes], cases: int, seed: int) -> int:
    """How many of `cases` damaged files the reader refused; anything else it may raise ends the test."""
    refused = 0
    for case in range(cases):
        content = damaged(np.random.default_rng((seed, case)), whole)
        with time_limit(CASE_LIMIT_S):
            try:
                read(content)
            except CrosslayerError:
                refused += 1
            except BaseException as error:
                raise AssertionError(f"case {case} of seed {seed}: {type(error).__name__}: {error}") from error
    return refused
