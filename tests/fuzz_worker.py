"""Reads mutated network files and says what came of them: `python fuzz_worker.py FORMAT FOLDER FIRST COUNT`.

FOLDER holds valid files. Memory is limited to 1 GiB above what the imports take, each case to 5 seconds.
"""

import io
import json
import random
import resource
import signal
import sys
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crosslayer.core.errors import CrosslayerError

_SECONDS = 5
_MEMORY = 1 << 30
_EXTREMES = (0, 1, 2, -1, -2, 127, 128, 255, 1 << 15, 1 << 16, (1 << 31) - 1, -(1 << 31), 1 << 40, (1 << 63) - 1)


def flipped(raw: bytes, rng: random.Random) -> bytes:
    """With some bits the other way round."""
    changed = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(raw: bytes, rng: random.Random) -> bytes:
    """Without its end."""
    return raw[: rng.randrange(len(raw))]


def spliced(raw: bytes, rng: random.Random) -> bytes:
    """With one part of it in place of, or before, another."""
    start, place = rng.randrange(len(raw)), rng.randrange(len(raw))
    part = raw[start : start + rng.randrange(1, 64)]
    return raw[:place] + part + raw[place + (len(part) if rng.random() < 0.5 else 0) :]


def numbered(raw: bytes, rng: random.Random) -> bytes:
    """With the bytes of an extreme number somewhere: lengths and sizes are written in them."""
    size = rng.choice((1, 2, 4, 8))
    number = (rng.choice(_EXTREMES) & ((1 << (8 * size)) - 1)).to_bytes(size, "little")
    place = rng.randrange(len(raw))
    return raw[:place] + number + raw[place + size :]


def nudged(raw: bytes, rng: random.Random) -> bytes:
    """With a small change of an aligned word: an offset then still points near."""
    place = rng.randrange(len(raw)) & ~3
    word = (int.from_bytes(raw[place : place + 4], "little") + rng.randint(-8, 8)) % (1 << 32)
    return raw[:place] + word.to_bytes(4, "little") + raw[place + 4 :]


_BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (flipped, flipped, cut, spliced, numbered, nudged)


def message_changed(message: Any, rng: random.Random) -> None:
    """One field, somewhere in a protocol buffer, changed, dropped or doubled."""
    while True:
        fields = [(field, value) for field, value in message.ListFields()]
        if not fields:
            return
        field, value = rng.choice(fields)
        repeated = not isinstance(value, (str, bytes, int, float)) and hasattr(value, "__len__")
        inside = field.message_type is not None
        if inside and rng.random() < 0.85:
            message = rng.choice(list(value)) if repeated else value
            continue
        if rng.random() < 0.2:
            message.ClearField(field.name)
        elif repeated and (inside or rng.random() < 0.3):
            if rng.random() < 0.5:
                del value[rng.randrange(len(value))]
            elif inside:
                value.add().CopyFrom(value[rng.randrange(len(value))])
            else:
                value.append(rng.choice(list(value)))
        elif not inside:
            _scalar_changed(message, field, value, rng, repeated=repeated)
        return


def _scalar_changed(message: Any, field: Any, value: Any, rng: random.Random, *, repeated: bool) -> None:
    old = rng.choice(list(value)) if repeated else value
    new: Any = rng.choice((*_EXTREMES, old + 1 if isinstance(old, int) else 0))
    if isinstance(old, float):
        new = rng.choice((0.0, -1.0, 1e-40, 1e30, float("inf"), float("nan"), old * 2))
    elif isinstance(old, str):
        new = rng.choice(("", "x", "Relu", "y", old + "_", "SAME_UPPER"))
    elif isinstance(old, bytes):
        new = rng.choice((b"", old[:-1], old + b"0", b"SAME_LOWER"))
    try:
        if repeated:
            value[rng.randrange(len(value))] = new
        else:
            setattr(message, field.name, new)
    except ValueError:
        return  # no number of that field's type


def document_changed(value: Any, rng: random.Random) -> Any:
    """One value, somewhere in a JSON document, changed, dropped or doubled."""
    if isinstance(value, dict) and value and rng.random() < 0.95:
        key = rng.choice(list(value))
        if rng.random() < 0.03:
            return {k: v for k, v in value.items() if k != key}
        return {k: document_changed(v, rng) if k == key else v for k, v in value.items()}
    if isinstance(value, list) and value and rng.random() < 0.95:
        place = rng.randrange(len(value))
        if rng.random() < 0.1:
            return value[:place] + value[place + 1 :] if rng.random() < 0.5 else [*value, value[place]]
        return [document_changed(v, rng) if i == place else v for i, v in enumerate(value)]
    return rng.choice((*_EXTREMES, True, None, "", "x", "relu", [], {}, [1, 1], 0.5, float("inf"), float("nan")))


def onnx_case(raw: bytes, rng: random.Random) -> bytes:
    """A mutated ONNX file: its bytes, or a field of its messages."""
    import onnx

    if rng.random() < 0.5:
        return rng.choice(_BYTES)(raw, rng)
    model = onnx.load_model_from_string(raw)
    for _ in range(rng.choice((1, 1, 2, 3))):
        message_changed(model, rng)
    return model.SerializeToString()


def tflite_case(raw: bytes, rng: random.Random) -> bytes:
    """A mutated TFLite file: its bytes, in up to three places."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        raw = rng.choice(_BYTES)(raw, rng) or raw
    return raw


def pt2_case(raw: bytes, rng: random.Random) -> bytes:
    """A mutated archive: its bytes, or the content of one of its files."""
    if rng.random() < 0.3:
        return rng.choice(_BYTES)(raw, rng)
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(result, "w") as new:
        files = {name: old.read(name) for name in old.namelist()}
        chosen = rng.choice([name for name in files if name.endswith(".json")] * 3 + list(files))
        for name, content in files.items():
            if name == chosen and name.endswith(".json") and rng.random() < 0.7:
                content = json.dumps(document_changed(json.loads(content), rng)).encode()
            elif name == chosen and content:
                content = rng.choice(_BYTES)(content, rng)
            new.writestr(name, content)
    return result.getvalue()


def main(kind: str, folder: Path, first: int, count: int) -> None:
    """Print a JSON object: how many were read and refused, what else happened, longest and mean time, memory taken."""
    if kind == "onnx":
        from crosslayer.read.onnx import read_onnx as read

        make = onnx_case
    elif kind == "tflite":
        from crosslayer.read.tflite import read_tflite as read

        make = tflite_case
    else:
        from crosslayer.read.torch import read_pt2 as read

        make = pt2_case
    files = [path.read_bytes() for path in sorted(folder.iterdir())]
    for raw in files:
        read(raw)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mapped = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + _MEMORY, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError("too slow")))
    total = 0.0
    found: dict[str, Any] = {"read": 0, "refused": 0, "failed": [], "seconds": 0.0}
    for seed in range(first, first + count):
        rng = random.Random(seed)
        raw = make(rng.choice(files), rng)
        start = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, _SECONDS)
        try:
            read(raw)
            found["read"] += 1
        except CrosslayerError:
            found["refused"] += 1
        except BaseException:  # whatever it is, it is what is looked for
            found["failed"].append([seed, traceback.format_exc(limit=-3)])
        signal.setitimer(signal.ITIMER_REAL, 0)
        spent = time.perf_counter() - start
        total, found["seconds"] = total + spent, max(found["seconds"], spent)
    found["grown"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    found["mean"] = total / count
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
