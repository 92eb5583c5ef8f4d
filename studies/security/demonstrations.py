"""The talk's two demonstrations of attacks, on small images and on the integers that ship.

    python studies/security/demonstrations.py     [--out runs/demonstrations] [--seed 0]

1. A binary classifier (automobile or truck, CIFAR-10) whose score for the wrong class a black-box search lifts, by a
change that keeps correlation and structural similarity to the image (as TrISec, Khalid et al. 2019, arXiv 1811.01031).
2. A sticker that makes other classes one of ten wherever it lies, turned, near or far, in brighter or darker light
(Brown et al. 2017, arXiv 1712.09665): made on validation images, judged on test images, beside a sticker of noise. The
same is in the report of a study with `sticker` under `[attack]`.

Both networks are LeNet-5 in int8, trained here. OUT gets demonstrations.md and demonstrations.svg.
"""

import argparse
import io
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import matplotlib.figure
import numpy as np
from rich.progress import track

from crosslayer.attack.budget import Budget
from crosslayer.attack.imperceptible import Imperceptible
from crosslayer.attack.sensor import Sensor
from crosslayer.attack.similarity import correlation, ssim
from crosslayer.attack.sticker import Scene
from crosslayer.attack.victim import Victim
from crosslayer.core.bench import Bench
from crosslayer.core.dataset import Dataset, Split
from crosslayer.core.design import Design
from crosslayer.core.files import write_atomic
from crosslayer.core.quant import Array
from crosslayer.core.robustness import Sticker
from crosslayer.core.score import wilson
from crosslayer.core.stage import run
from crosslayer.datasets.catalog import load
from crosslayer.evaluate.sticker import evaluate_sticker
from crosslayer.flow import RECIPE, execute
from crosslayer.hardware.catalogue import load_target
from crosslayer.learn.train import Train
from crosslayer.networks.zoo import network
from crosslayer.workbench import firmware_of

T = TypeVar("T")
PAIR = ("automobile", "truck")
NOISE = Budget.parse("linf 16/255")
STICKERS, GOAL = (Budget.parse("patch 0.1"), Budget.parse("patch 0.2")), "automobile"
SHOWN = 4


def shown(items: Iterable[T], title: str, total: int | None) -> Iterator[T]:
    """Progress on the terminal."""
    yield from track(items, description=title, total=total, transient=True)


def only(data: Dataset, names: tuple[str, ...]) -> Dataset:
    """The samples of some classes, numbered anew."""
    numbers = [data.classes.index(name) for name in names]

    def part(split: Split) -> Split:
        chosen = split.take(np.flatnonzero(np.isin(split.labels, numbers)))
        return replace(chosen, labels=np.searchsorted(np.sort(numbers), chosen.labels))

    ordered = tuple(name for _, name in sorted(zip(numbers, names, strict=True)))
    train, validation, test = map(part, (data.train, data.validation, data.test))
    return replace(data, train=train, validation=validation, test=test, classes=ordered)


def trained(data: Dataset, epochs: int, seed: int, work: Path) -> tuple[Design, float]:
    """LeNet-5 in int8, and its test accuracy."""
    bench = Bench(data=data, seed=seed, executor=execute, progress=shown)
    start = Design(graph=network("lenet5", data.shape, len(data.classes), seed), target=load_target("stm32f769"))
    learn = Train(epochs=epochs, decay=0.05, shift=2, flip=True)
    work.mkdir(parents=True, exist_ok=True)
    design = run((learn, *RECIPE[3:]), start, bench, judge=lambda _: (), checkpoints=work)
    return design, bench.accuracy(design.graph, data.test)


def imperceptible(data: Dataset, seed: int, work: Path) -> tuple[list[str], dict[str, Any]]:
    """The first demonstration: lines of text, and what to draw."""
    design, accuracy = trained(data, 20, seed, work)
    target = Victim.of(design.graph, Sensor.of(data.train), execute)
    x, labels = target.sensor.shares(data.test.real(slice(0, 200))), data.test.labels[:200]
    right = ~target.fooled(x, labels)
    x, labels = x[right], labels[right]
    attack = Imperceptible(queries=2000)
    found = attack(target, x, labels, NOISE, np.random.default_rng(seed))
    turned = target.fooled(found, labels)
    low, high = wilson(int(turned.sum()), len(turned))
    before, after = (shares(target, each, labels) for each in (x, found))
    lines = [
        f"Int8 LeNet-5, {data.classes[0]} or {data.classes[1]}: {100 * accuracy:.1f} % of the test images are right.",
        f"Of {len(x)} right ones {100 * turned.mean():.1f} % ({100 * low:.1f}…{100 * high:.1f} %) are turned within "
        f"{NOISE} by at most {attack.queries} queries; mean share of the wrong class {100 * before.mean():.1f} % "
        f"before, {100 * after.mean():.1f} % after.",
        f"Least correlation {correlation(found, x).min():.3f} (asked: {attack.correlation}), least structural "
        f"similarity {ssim(found, x).min():.3f} (asked: {attack.similarity}).",
    ]
    rows = np.flatnonzero(turned)[:SHOWN]
    return lines, {"x": x[rows], "found": found[rows], "before": before[rows], "after": after[rows]}


def shares(target: Victim, x: Array, labels: Array) -> Array:
    """The share that softmax gives the wrong class of two (batch,)."""
    logits = target.logits(x).astype(np.float64)
    rows = np.arange(len(x))
    return 1 / (1 + np.exp(logits[rows, labels] - logits[rows, 1 - labels]))


def stickers(data: Dataset, seed: int, work: Path) -> tuple[list[str], Sticker]:
    """The second demonstration: lines of text, and the largest sticker."""
    design, accuracy = trained(data, 30, seed, work)
    scene, goal = Scene(degrees=20, scale=0.8, light=0.2), data.classes.index(GOAL)
    lines = [f"Int8 LeNet-5 on CIFAR-10: {100 * accuracy:.1f} % of the test images are right."]
    with firmware_of(design, data.test.real(slice(0, 1))) as folder:
        made = [
            evaluate_sticker(
                design.graph, data, budget, folder, samples=1000, executor=execute, target=goal, scene=scene, seed=seed
            )
            for budget in STICKERS
        ]
    for budget, found in zip(STICKERS, made, strict=True):
        rates = [
            f"{100 * score.value:.1f} % ({100 * score.low:.1f}…{100 * score.high:.1f} %)"
            for score in (found.score, found.noise)
        ]
        lines.append(
            f"A sticker on {100 * budget.size:.0f} % of the image, turned by up to {scene.degrees:g} degrees, of "
            f"{100 * scene.scale:.0f} to 100 % of its size, in light of ±{100 * scene.light:.0f} %, anywhere: of "
            f"{found.replayed} test images of other classes that were right, each with the sticker put once, "
            f"{rates[0]} are called {GOAL} by the C; {rates[1]} with a sticker of noise. {found.differing} bytes "
            "differ from the executor's."
        )
    return lines, made[-1]


def figure(noise: dict[str, Any], stuck: Sticker, classes: tuple[str, ...]) -> str:
    """Images, what was made of them, the change ten times as large; the sticker and images with it."""
    drawn = matplotlib.figure.Figure(figsize=(8, 6.5), layout="constrained")
    axes = drawn.subplots(4, SHOWN + 1)
    flipped = stuck.examples[:SHOWN]
    rows = (
        ("image", noise["x"], [f"{100 * s:.0f} %" for s in noise["before"]]),
        ("attacked", noise["found"], [f"{100 * s:.0f} %" for s in noise["after"]]),
        ("change × 10", np.clip(0.5 + 10 * (noise["found"] - noise["x"]), 0, 1), [""] * SHOWN),
        ("", [e.attacked for e in flipped], [f"{classes[e.label]} → {classes[e.after]}" for e in flipped]),
    )
    for line, (name, images, captions) in zip(axes, rows, strict=True):
        for axis in line:
            axis.axis("off")
        line[0].text(0, 0.5, name)
        for axis, image, caption in zip(line[1:], images, captions, strict=False):
            axis.imshow(image, interpolation="nearest")
            axis.set_title(caption, fontsize=8)
    axes[3][0].imshow(stuck.values, interpolation="nearest")
    axes[3][0].set_title("sticker", fontsize=8)
    text = io.StringIO()
    drawn.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def main() -> None:
    """Both demonstrations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demonstrations"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    data = load("cifar10")
    first, noise = imperceptible(only(data, PAIR), given.seed, given.out / "work" / "binary")
    second, stuck = stickers(data, given.seed, given.out / "work" / "ten")
    text = "\n".join(("# An imperceptible change", "", *first, "", "# A sticker", "", *second, ""))
    write_atomic(given.out / "demonstrations.svg", figure(noise, stuck, data.classes))
    write_atomic(given.out / "demonstrations.md", text)
    print(text)


if __name__ == "__main__":
    main()
