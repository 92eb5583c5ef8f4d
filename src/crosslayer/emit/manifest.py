"""What a delivered firmware folder should hold, so that a change of it can be told."""

import hashlib
import json
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from crosslayer.core.design import Design
from crosslayer.core.errors import GraphError, InputError
from crosslayer.core.files import sha256, write_atomic
from crosslayer.kernels.steps import steps_of
from crosslayer.kernels.weight_check import checked_tables

FORMAT = "crosslayer-manifest-1"
_MANIFEST, _SIGNATURE = "manifest.json", "manifest.sig"
_TOOLS = ("crosslayer", "numpy", "ziglang")

Sign = Callable[[bytes], bytes]
"""What a signing tool makes of the manifest's bytes: a signature to be kept beside it."""


def write_manifest(folder: Path, design: Design, *, sign: Sign | None = None) -> Path:
    """`manifest.json` in a firmware folder: SHA-256 of each file, of the constants in flash as stored and of the
    network; target; versions of the tools. With `sign`, its signature lies in `manifest.sig`.

    A manifest alone tells accidents. Against who can write into the folder only a signature helps, by a key that is not
    there: that is your signing tool's work, for which `sign` is the place. Raises `GraphError` without a plan.
    """
    if design.plan is None:
        raise GraphError("the design has no memory plan; run PlanArena before emitting")
    tables = checked_tables(steps_of(design.graph, design.plan)[0])
    document = {
        "format": FORMAT,
        "target": design.target.name,
        "network": design.graph.digest,
        "weights": hashlib.sha256(b"".join(table.astype("<u4").tobytes() for table in tables)).hexdigest(),
        "files": _digests(folder),
        "versions": _versions(),
    }
    content = (json.dumps(document, indent=1) + "\n").encode()
    write_atomic(folder / _MANIFEST, content)
    if sign is not None:
        write_atomic(folder / _SIGNATURE, sign(content))
    return folder / _MANIFEST


def check_manifest(folder: Path) -> tuple[str, ...]:
    """The files of a firmware folder that are not what its manifest says, are missing, or are not in it; sorted.

    Raises `InputError` if there is no manifest that can be read.
    """
    path = folder / _MANIFEST
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise InputError(f"{path}: is not a '{FORMAT}' file; write the firmware again with this version")
        listed = cast("Mapping[str, Any]", dict(document["files"]))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); write the firmware again") from error
    found = _digests(folder)
    return tuple(sorted(name for name in {*listed, *found} if listed.get(name) != found.get(name)))


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file but the manifest and its signature, by path."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: sha256(path) for name, path in files.items() if name not in (_MANIFEST, _SIGNATURE)}


def _versions() -> dict[str, str]:
    installed = {d.name: d.version for d in metadata.distributions()}
    return {tool: installed[tool] for tool in _TOOLS if tool in installed}
