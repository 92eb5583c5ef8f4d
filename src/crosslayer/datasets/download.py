"""Fetching known data sets, so that what is kept is what was published."""

import hashlib
import http.client
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import final
from urllib import error, parse, request

from crosslayer.core.errors import DataError
from crosslayer.datasets import catalog, places

Progress = Callable[[int, int | None], None]
"""Called with the bytes of the set that are here, and those of the whole set (None if unknown)."""

ATTEMPTS = 3
"""How often a broken transfer is taken up again before it is reported."""
TIMEOUT_S = 30.0

_CHUNK = 1 << 18  # bytes
_TRANSIENT = (408, 425, 429)  # and all of 5xx: the same request may work later


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A published file: where it is, its size, and its digests by algorithm, in hexadecimal."""

    name: str
    url: str
    bytes: int
    digests: Mapping[str, str]

    def is_held_by(self, path: Path) -> bool:
        """Whether the file at `path` is this one, by size and every digest."""
        if not path.is_file() or path.stat().st_size != self.bytes:
            return False
        return all(_digest(path, algorithm) == value for algorithm, value in self.digests.items())


def downloads(name: str) -> tuple[Download, ...]:
    """The files to fetch for the known set `name`; none if it comes with a package. DataError for an unknown name.

    >>> [file.name for file in downloads("cifar10")]
    ['cifar-10-binary.tar.gz']
    """
    known = catalog.find(name).name
    tables = tomllib.loads(
        resources.files("crosslayer.datasets").joinpath("downloads.toml").read_text(encoding="utf-8")
    )
    entry = tables.get(known, {"base_url": "", "files": []})
    return tuple(
        Download(
            name=row["name"],
            url=parse.urljoin(entry["base_url"], row["name"]),
            bytes=row["bytes"],
            digests={key: row[key] for key in ("sha256", "md5") if key in row},
        )
        for row in entry["files"]
    )


def get(
    name: str,
    *,
    base_url: str | None = None,
    folder: Path | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Path:
    """The folder that now holds every file of the known set `name`, each with its published checksum.

    Files already there are kept. An interrupted transfer leaves `FILE.part`, and the next call goes on from there.
    `base_url` (http or https) is another place that serves the same files; `folder` another one than the cache, which
    `catalog.locate` searches. DataError if the set cannot be fetched; what came with wrong content is removed.
    """
    source = catalog.find(name)
    if isinstance(source.origin, catalog.Bundled):
        raise DataError(
            f"{source.name}: comes with {source.origin.package}, so there is nothing to fetch; install that"
        )
    if not source.origin.public:
        raise DataError(f"{source.name}: cannot be fetched; {catalog.whereabouts(name).removeprefix('not here; ')}")
    files = downloads(source.name)
    target = folder or places.cache_folder() / source.origin.folders[0]
    total = sum(file.bytes for file in files)
    done = 0
    try:
        target.mkdir(parents=True, exist_ok=True)
        for file in files:
            if not file.is_held_by(target / file.name):
                before = done
                url = parse.urljoin(base_url.rstrip("/") + "/", file.name) if base_url else file.url
                _fetch(file, url, target / file.name, lambda here, before=before: progress(before + here, total))
            done += file.bytes
            progress(done, total)
    except OSError as trouble:
        raise DataError(
            f"{target}: cannot be written ({trouble.strerror or trouble}); free space or choose another folder"
        ) from trouble
    return target


def _fetch(file: Download, url: str, target: Path, report: Callable[[int], None]) -> None:
    """`target` holds the published file; until it is whole and checked, what came so far is in `target`.part."""
    if parse.urlsplit(url).scheme not in ("http", "https"):
        raise DataError(f"{url}: is no http or https address; give one as base URL")
    part = target.with_name(f"{target.name}.part")
    trouble = "nothing tried"
    for _ in range(ATTEMPTS):
        trouble = _transfer(url, part, file.bytes, report)
        if not trouble:
            break
    else:
        here = part.stat().st_size if part.is_file() else 0
        raise DataError(f"{url}: {trouble}; {here} of {file.bytes} bytes are here, run the same command again to go on")
    if not file.is_held_by(part):
        part.unlink()
        algorithm, value = next(iter(file.digests.items()))
        raise DataError(
            f"{url}: what came does not have the published {algorithm} {value} and was removed; "
            "try again, or give the base URL of another mirror"
        )
    part.replace(target)


def _transfer(url: str, part: Path, wanted: int, report: Callable[[int], None]) -> str:
    """Append to `part` what it lacks of `wanted` bytes; the reason why that ended early, or empty."""
    here = part.stat().st_size if part.is_file() else 0
    if here > wanted:
        part.unlink()
        here = 0
    if here == wanted:
        return ""
    headers = {"User-Agent": "crosslayer"} | ({"Range": f"bytes={here}-"} if here else {})
    try:
        response: http.client.HTTPResponse = _opener().open(request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except error.HTTPError as refusal:
        refusal.close()
        if refusal.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)
        elif refusal.code < 500 and refusal.code not in _TRANSIENT:
            raise DataError(
                f"{url}: the server refused ({refusal.code} {refusal.reason}); give the base URL of another mirror"
            ) from refusal
        return f"the server answered {refusal.code} {refusal.reason}"
    except (OSError, http.client.HTTPException, ValueError) as trouble:
        return f"no connection ({trouble})"
    with response:
        resumed = here > 0 and response.headers.get("Content-Range", "").startswith(f"bytes {here}-")
        here = here if resumed else 0
        announced = response.headers.get("Content-Length", "")
        if announced.isdecimal() and here + int(announced) != wanted:
            raise DataError(
                f"{url}: the server offers {here + int(announced)} bytes instead of {wanted}, so another file; "
                "give the base URL of another mirror"
            )
        return _receive(response, part, here, wanted, report)


def _receive(
    response: http.client.HTTPResponse, part: Path, here: int, wanted: int, report: Callable[[int], None]
) -> str:
    """Write the body behind the first `here` bytes of `part`; the reason why it ended early, or empty."""
    with part.open("ab" if here else "wb") as file:
        while here < wanted:
            try:
                chunk = response.read(min(_CHUNK, wanted - here))
            except (OSError, http.client.HTTPException) as trouble:
                return f"the connection broke ({trouble})"
            if not chunk:
                return "the connection closed early"
            file.write(chunk)
            here += len(chunk)
            report(here)
        file.flush()
        os.fsync(file.fileno())
    return ""


def _opener() -> request.OpenerDirector:
    """What opens http and https addresses and nothing else, not even when a server redirects to it."""
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        request.UnknownHandler(),
        request.HTTPHandler(),
        request.HTTPSHandler(),
        request.HTTPDefaultErrorHandler(),
        request.HTTPRedirectHandler(),
        request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _digest(path: Path, algorithm: str) -> str:
    """The digest of a file, in hexadecimal. The md5 of some sets is the one their authors published."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
