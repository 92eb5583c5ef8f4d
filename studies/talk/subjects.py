"""The three networks of the talk, their data, and how each gets its float weights."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from crosslayer.core.bench import Bench
from crosslayer.core.dataset import Dataset, Split
from crosslayer.core.design import Design
from crosslayer.core.stage import run
from crosslayer.execute.training import Training
from crosslayer.hardware.catalogue import load_target
from crosslayer.learn.train import FineTune, Train
from crosslayer.networks.zoo import network


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network by its name in the zoo, a data set, and how its weights are learned."""

    network: str
    data: str
    learn: Train
    tuning: Training
    """After each removal."""
    last: FineTune
    """Of what has been pruned."""
    aware: Training
    """Of the integer network."""
    small: Train | None = None
    """How they are learned before, on images of half the height and width, at a quarter of the work for each."""
    later: int | None = None
    """How many training samples all but `small` and `learn` see; all without."""
    step: float = 0.1
    keep: float = 0.75
    """The share of the parameters that each step along the pruning curve leaves."""
    target: str = "stm32f769"  # the talk's device


SUBJECTS = {
    "lenet5-mnist": Subject(
        network="lenet5",
        data="mnist",
        learn=Train(epochs=15, shift=1),
        tuning=Training(epochs=1, rate=1e-3, decay=0.0, shift=1),
        last=FineTune(epochs=5, rate=1e-3, shift=1),
        aware=Training(epochs=3, rate=1e-3, decay=0.0, shift=1),
    ),
    "lenet5-cifar10": Subject(
        network="lenet5",
        data="cifar10",
        learn=Train(epochs=100, batch=64, rate=3e-3, decay=0.05, shift=1, flip=True),
        keep=0.85,
        tuning=Training(epochs=1, rate=1e-3, decay=0.0, shift=1, flip=True),
        last=FineTune(epochs=5, rate=1e-3, shift=1, flip=True),
        aware=Training(epochs=2, rate=1e-3, decay=0.0, shift=1, flip=True),
    ),
    "vgg11-cifar10": Subject(
        network="vgg11",
        data="cifar10",
        small=Train(epochs=8, rate=2e-3, decay=0.05, shift=2, flip=True, bfloat16=True),
        learn=Train(epochs=12, rate=1e-3, decay=0.05, shift=4, flip=True, bfloat16=True),
        later=6000,
        step=0.4,
        keep=0.6,
        tuning=Training(epochs=1, rate=5e-4, decay=0.0, shift=4, flip=True, bfloat16=True),
        last=FineTune(epochs=2, shift=4, flip=True, bfloat16=True),
        aware=Training(epochs=1, rate=2e-4, decay=0.0, shift=4, flip=True),
    ),
}


def trained(subject: Subject, data: Dataset, bench: Bench, work: Path) -> Design:
    """The float network; what was learned before is taken from `work`."""
    graph = network(subject.network, data.shape, len(data.classes), bench.seed)
    target = load_target(subject.target)

    def learned(stage: Train, start: Design, bench: Bench) -> Design:
        return run((stage,), start, bench, judge=lambda _: (), checkpoints=work)

    if subject.small is not None:
        less = halved(data)
        small = network(subject.network, less.shape, len(data.classes), bench.seed)
        before = learned(subject.small, Design(graph=small, target=target), replace(bench, data=less))
        graph = replace(graph, constants=before.graph.constants)
    return learned(subject.learn, Design(graph=graph, target=target), bench)


def halved(data: Dataset) -> Dataset:
    """The set with the means of 2×2 pixels."""

    def half(split: Split) -> Split:
        n, high, wide, channels = split.codes.shape
        means = split.codes.reshape(n, high // 2, 2, wide // 2, 2, channels).mean((2, 4))
        return replace(split, codes=np.round(means).astype(split.codes.dtype))

    train, validation, test = map(half, (data.train, data.validation, data.test))
    return replace(data, train=train, validation=validation, test=test)
