"""Accuracy and loss of many variants of a network, without computing again what they have in common."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, final

import joblib
import numpy as np

from crosslayer.core.bench import Bench, Executor
from crosslayer.core.dataset import Split
from crosslayer.core.files import write_atomic
from crosslayer.core.graph.edit import between
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import Softmax
from crosslayer.core.quant import Array

Sums = tuple[int, float]
"""How many samples a network gets right, and the sum of their cross-entropies."""
_SAMPLES = 250  # in one unit of work: what is kept of their activations is small
_LEAST_SHARE = 1e-12  # what a float32 softmax calls 0 is not impossible


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How well a classifier does: the share of samples that it gets right, and its mean cross-entropy in nats."""

    accuracy: float
    loss: float


def qualities(graph: Graph, variants: Sequence[Graph], split: Split, bench: Bench) -> tuple[Quality, ...]:
    """That of a graph, and then of each variant: a graph of the same nodes, some with other weights or shapes.

    What comes before the first node that a variant changes is computed once for all of them. Samples are shared among
    the processes of the current `joblib.parallel_config`. With `bench.cache`, results are kept there.
    """
    parts = [split.take(slice(i, i + _SAMPLES)) for i in range(0, len(split), _SAMPLES)]
    paths = [None if bench.cache is None else bench.cache / f"{_key((graph, *variants), part)}.json" for part in parts]
    known = [_read(path, len(variants) + 1) for path in paths]
    missing = [i for i, sums in enumerate(known) if not sums]
    if missing:
        course = _course(graph, variants)
        work = (joblib.delayed(_sums)(course, parts[i], bench.executor) for i in missing)
        found = cast("Iterable[list[Sums]]", joblib.Parallel(return_as="generator")(work))
        for i, sums in zip(missing, bench.progress(found, "sensitivity", len(missing)), strict=True):
            known[i] = sums
            if (path := paths[i]) is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(path, json.dumps(sums))
    return tuple(
        Quality(accuracy=sum(hits for hits, _ in sums) / len(split), loss=sum(loss for _, loss in sums) / len(split))
        for sums in zip(*known, strict=True)
    )


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Course:
    """The parts of a graph one after the other, and the ends of networks that go on after each, by their number."""

    parts: tuple[Graph, ...]
    ends: tuple[Mapping[int, Graph], ...]


def _course(graph: Graph, variants: Sequence[Graph]) -> _Course:
    """Number 0 is the graph itself, the others are the variants."""
    networks = (graph, *variants)
    places = _places(graph)
    starts = [max(place for place in places if place <= _first_change(graph, network)) for network in networks]
    used = sorted(set(starts))
    names = (graph.inputs[0], *(node.name for node in graph.nodes))
    return _Course(
        parts=tuple(between(graph, names[a], names[b]) for a, b in itertools.pairwise([0, *used])),
        ends=tuple(
            {
                i: between(network, names[place], network.outputs[0])
                for i, (network, start) in enumerate(zip(networks, starts, strict=True))
                if start == place
            }
            for place in used
        ),
    )


def _places(graph: Graph) -> list[int]:
    """After how many nodes only the last value computed is still needed, or the input; all but the whole graph."""
    position = {name: i for i, name in enumerate((*graph.inputs, *(node.name for node in graph.nodes)))}
    oldest = len(graph.nodes)
    found: list[int] = []
    for done in range(len(graph.nodes) - 1, -1, -1):
        oldest = min([oldest, *(position[name] for name in graph.activations(graph.nodes[done]))])
        if oldest >= done:
            found.append(done)
    return found


def _first_change(graph: Graph, other: Graph) -> int:
    """The place of the first node that is another in `other`, or reads or makes something else; the last if none is."""
    for i, (node, changed) in enumerate(zip(graph.nodes, other.nodes, strict=True)):
        if node != changed or any(not _same(graph, other, name) for name in (*node.inputs, node.name)):
            return i
    return len(graph.nodes)


def _same(graph: Graph, other: Graph, name: str) -> bool:
    if graph.types[name] != other.types[name]:
        return False
    mine, theirs = graph.constants.get(name), other.constants.get(name)
    return mine is theirs or (mine is not None and theirs is not None and np.array_equal(mine, theirs))


def _sums(course: _Course, part: Split, executor: Executor) -> list[Sums]:
    """Those of each network."""
    sums: dict[int, Sums] = {}
    x = part.real()
    for graph, ends in zip(course.parts, course.ends, strict=True):
        x = executor(graph, x) if graph.nodes else x
        for i, end in ends.items():
            outputs = executor(end, x).reshape(len(part), -1)
            shares = isinstance(end.producers[end.outputs[0]].op, Softmax)
            hits = int((outputs.argmax(axis=1) == part.labels).sum())
            sums[i] = hits, _cross_entropy(outputs, part.labels, shares=shares)
    return [sums[i] for i in range(len(sums))]


def _cross_entropy(outputs: Array, labels: Array, *, shares: bool) -> float:
    """The sum over samples, of shares or of logits (batch, classes)."""
    y = outputs.astype(np.float64)
    logs = np.log(np.maximum(y, _LEAST_SHARE)) if shares else y - np.logaddexp.reduce(y, axis=1, keepdims=True)
    return float(-logs[np.arange(len(labels)), labels].sum())


def _key(networks: Sequence[Graph], part: Split) -> str:
    """The digest of all that the sums depend on."""
    digest = hashlib.sha256(repr((part.codes.dtype, part.codes.shape, part.scale, part.offset)).encode())
    for network in networks:
        digest.update(network.digest.encode())
    digest.update(np.ascontiguousarray(part.codes).data)
    digest.update(np.ascontiguousarray(part.labels).data)
    return digest.hexdigest()


def _read(path: Path | None, size: int) -> list[Sums]:
    """The sums in a file; none if there is none that can be read."""
    try:
        found = json.loads(path.read_text()) if path is not None and path.is_file() else []
    except (OSError, ValueError):
        return []
    try:
        sums = [(int(hits), float(loss)) for hits, loss in found]
    except (TypeError, ValueError):
        return []
    return sums if len(sums) == size else []
