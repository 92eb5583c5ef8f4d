"""What a sticker in the picture does to a design: made on validation images, judged on others by the C that ships."""

from pathlib import Path

import numpy as np

from crosslayer.attack.budget import Budget
from crosslayer.attack.patch import AdversarialPatch
from crosslayer.attack.sensor import Sensor
from crosslayer.attack.sticker import Scene, fooled_by
from crosslayer.attack.victim import Victim
from crosslayer.core.bench import Executor, Progress, silent
from crosslayer.core.dataset import Dataset, Split
from crosslayer.core.errors import InputError
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array
from crosslayer.core.robustness import Example, Sticker
from crosslayer.core.score import Better, Score, share_score
from crosslayer.evaluate.firmware import as_bytes, differing
from crosslayer.execute import reference
from crosslayer.execute.native import Native
from crosslayer.execute.surrogate import Surrogate

_MADE_ON = 500
_COMPARED = 250
"""Images on which stickers of several surrogates are compared, apart from those on which they were made."""
_SHOWN = 8


def evaluate_sticker(
    graph: Graph,
    data: Dataset,
    budget: Budget,
    firmware: Path,
    *,
    samples: int,
    executor: Executor,
    target: int | None = None,
    scene: Scene | None = None,
    effort: int = 1,
    seed: int = 0,
    progress: Progress = silent,
) -> Sticker:
    """The sticker that an attacker who knows an integer design makes, put once, at random, on each of so many random
    test images; the C of the design, which lies in a folder, says what each then is.

    `target` is the class that all are to be called; without one any wrong class will do. Only images count that are
    right without sticker and of another class than the target. Raises `InputError` for another budget than a `patch`,
    and where no image counts.
    """
    sensor, scene = Sensor.of(data.train), scene or Scene()
    victim, rng = Victim.of(graph, sensor, executor), np.random.default_rng(seed)
    x, labels = _counting(victim, data.validation, _MADE_ON + _COMPARED, target, seed)
    made, others = slice(0, max(1, len(x) * _MADE_ON // (_MADE_ON + _COMPARED))), slice(-_COMPARED, None)
    attacks = [
        AdversarialPatch(steps=300 * effort, scene=scene, target=target, surrogate=surrogate) for surrogate in Surrogate
    ]
    stickers: list[tuple[float, AdversarialPatch, Array]] = []
    for attack in progress(attacks, "stickers", len(attacks)):
        sticker = attack.sticker(victim, x[made], labels[made], budget, rng)
        hits = fooled_by(victim, sticker, x[others], labels[others], scene, 4, np.random.default_rng(seed), target)
        stickers.append((float(hits.mean()), attack, sticker))
    _, attack, sticker = max(stickers, key=lambda found: found[0])
    x, labels = _counting(victim, data.test, samples, target, seed)
    placed = scene.draw(len(x), len(sticker), x.shape[1:], rng)
    noise = placed.put(sensor.shares(sensor.real(rng.random(sticker.shape, np.float32))), x)
    shown = sensor.real(placed.put(sticker, x))
    outputs, truth = Native.build(firmware).run(reference.encode_input(graph, shown)), executor(graph, shown)
    called = outputs.view(truth.dtype).reshape(len(x), -1).argmax(1)
    fooled = called != labels if target is None else called == target
    plain = victim.logits(noise).argmax(1)
    return Sticker(
        budget=str(budget),
        what=str(attack),
        target=target,
        score=_score("sticker_success", fooled, "the attacker's sticker, on the C"),
        noise=_score("sticker_of_noise", plain != labels if target is None else plain == target, "a sticker of noise"),
        values=sensor.real(sticker),
        examples=tuple(
            Example(
                values=sensor.real(x[i]),
                attacked=shown[i],
                label=int(labels[i]),
                before=int(labels[i]),
                after=int(called[i]),
            )
            for i in np.flatnonzero(fooled)[:_SHOWN]
        ),
        replayed=len(x),
        differing=differing("native", outputs, as_bytes(truth)).differing_bytes,
    )


def _counting(victim: Victim, split: Split, most: int, target: int | None, seed: int) -> tuple[Array, Array]:
    """Random samples of a split that are right and not of the target's class, as shares of the range; their labels."""
    rows = np.random.default_rng(seed).permutation(len(split))
    if target is not None:
        rows = rows[split.labels[rows] != target]
    rows = rows[: 4 * most]  # enough of them are right
    x, labels = victim.sensor.shares(split.real(rows)), split.labels[rows]
    right = np.flatnonzero(~victim.fooled(x, labels))[:most]
    if not len(right):
        raise InputError("no image of another class is right without a sticker; train the network first")
    return x[right], labels[right]


def _score(name: str, hits: Array, what: str) -> Score:
    return share_score(
        name,
        int(hits.sum()),
        len(hits),
        Better.LOWER,
        f"{what}, put once at random on each of {len(hits)} images that were right",
    )
