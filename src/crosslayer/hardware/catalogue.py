"""Devices by name, or from a TOML file of the user's own.

A file states every field of `Target` under its own name; `active_power` is left out where no measurement is known.
"""

import math
import tomllib
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from crosslayer.core.codec import from_plain, suggest
from crosslayer.core.errors import InputError
from crosslayer.core.target import MemoryKind, Target

_SUFFIX = ".toml"


def load_target(name_or_path: str | Path) -> Target:
    """The target of that name, or the one that a `.toml` file describes.

    >>> load_target("stm32f769").clock_hz
    216000000
    """
    if isinstance(name_or_path, Path) or name_or_path.endswith(_SUFFIX):
        return _read(Path(name_or_path))
    known = _shipped()
    if name_or_path not in known:
        hint = suggest(name_or_path, sorted(known))
        raise InputError(f"target '{name_or_path}': neither a known name nor a {_SUFFIX} file; {hint}")
    return _read(known[name_or_path])


def list_targets() -> tuple[Target, ...]:
    """All targets that come with crosslayer, by name."""
    return tuple(_read(file) for _, file in sorted(_shipped().items()))


def _shipped() -> dict[str, Traversable]:
    folder = files("crosslayer.hardware") / "targets"
    return {file.name.removesuffix(_SUFFIX): file for file in folder.iterdir() if file.name.endswith(_SUFFIX)}


def _read(file: Traversable) -> Target:
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
        target = from_plain(Target, {"active_power": None, **table}, "target")
        _check(target)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not a TOML file ({error}); correct it there") from error
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    return target


def _check(target: Target) -> None:
    figures = {"cycles_per_instruction": target.cycles_per_instruction}
    if target.active_power is not None:
        figures["active_power"] = target.active_power
    memories = {f"memories[{i}]": memory for i, memory in enumerate(target.memories)}

    amounts = {"clock_hz": target.clock_hz}
    amounts |= {f"{key}.bytes": memory.bytes for key, memory in memories.items()}
    amounts |= {f"{key}.low": figure.low for key, figure in figures.items()}
    amounts |= {f"{key}.high": figure.high for key, figure in figures.items()}
    for key, amount in amounts.items():
        if not 0 < amount < math.inf:
            raise InputError(f"target.{key}: {amount} is not a positive, finite number; correct it")

    sources = {"clock_source": target.clock_source}
    sources |= {f"{key}.source": item.source for key, item in (memories | figures).items()}
    for key, source in sources.items():
        if not source.strip():
            raise InputError(f"target.{key}: empty; name the document that the figure is taken from")

    for kind in MemoryKind:
        if target.capacity(kind) == 0:
            raise InputError(f"target.memories: none of kind '{kind}'; add one")
