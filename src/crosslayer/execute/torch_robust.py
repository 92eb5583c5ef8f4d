"""Training against attacks by PyTorch: the losses for `train` with an attack inside, and what they reach."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # the name that PyTorch's own documentation uses

from crosslayer.core.dataset import Dataset, Split, split_off
from crosslayer.core.errors import DataError, GraphError
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.outputs import logits_of, reconstructs
from crosslayer.core.quant import Array
from crosslayer.execute.adversary import Adversary, Method
from crosslayer.execute.pullback import Linearized
from crosslayer.execute.straight import StraightThrough
from crosslayer.execute.surrogate import Surrogate
from crosslayer.execute.torch import GraphModule, Tensor, from_torch
from crosslayer.execute.torch_training import Loss, Watch, train
from crosslayer.execute.training import Training

Trained = GraphModule | StraightThrough
WATCHED = 1000
"""Validation samples, and at most training samples held out, on which robustness is noted."""
BATCH = 250
"""Samples that are looked at together."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How far each real value can be moved, and the range in which it stays."""

    epsilon: float
    low: float
    high: float

    @classmethod
    def of(cls, share: float, split: Split) -> "Reach":
        """A share of the range of a split's values. Raises `DataError` if they are all equal."""
        low, high = (float(end) * split.scale + split.offset for end in (split.codes.min(), split.codes.max()))
        if not low < high:
            raise DataError("all values of the training samples are equal, so none can be moved; check the data")
        return cls(epsilon=share * (high - low), low=low, high=high)

    def ends(self, x: Array, share: float = 1.0) -> tuple[Array, Array]:
        """The least and largest values, float32, that can be made of samples with a share of epsilon."""
        far = np.float32(share * self.epsilon)
        return (x - far).clip(self.low, self.high), (x + far).clip(self.low, self.high)


def train_robust(
    module: Trained,
    data: Dataset,
    training: Training,
    adversary: Adversary,
    *,
    seed: int,
    progress: Watch,
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Trains `module` against attacks inside the loop, by `train`. Returns plain notes.

    `robust_accuracy` is the share of `robust_samples` validation samples that PGD of 20 steps on this module does not
    fool: more than a stronger attack leaves. `fast` keeps some training samples out, notes in `held_out` the same share
    of them after each epoch, and says `catastrophic_overfitting` if that once fell below half of its best.
    """
    check_classifier(module.graph)
    reach, learned = Reach.of(adversary.epsilon, data.train), data.train
    judge: Callable[[], float] | None = None
    if adversary.method is Method.FAST:
        learned, kept = split_off(data.train, min(0.1, WATCHED / len(data.train)), seed)
        judge = lambda: robust_accuracy(module, kept, reach, seed)  # noqa: E731  # one line tells it
    seen = train(
        module,
        learned,
        training,
        seed=seed,
        progress=progress,
        checkpoint=checkpoint,
        loss=adversarial_loss(module, adversary, reach),
        judge=judge,
    )
    piece = data.validation.take(slice(0, WATCHED))
    notes: dict[str, Any] = {
        "trained": len(learned),
        "robust_accuracy": robust_accuracy(module, piece, reach, seed),
        "robust_samples": len(piece),
    }
    if judge is not None:
        notes |= {"held_out": seen, "catastrophic_overfitting": collapsed(seen)}
    return notes


def collapsed(seen: Sequence[float]) -> bool:
    """Whether robust accuracy, as seen after each epoch, once fell below half of its best until then."""
    return bool((np.asarray(seen) < np.maximum.accumulate(seen) / 2).any())


def adversarial_loss(module: Trained, adversary: Adversary, reach: Reach) -> Loss:
    """The loss of `adversary.method`. Attacks see the statistics of evaluation, the loss those of training."""
    logits, (steps, step) = logits_of(module.graph), adversary.moves

    def loss(x: Tensor, y: Tensor, done: float, rng: np.random.Generator) -> Tensor:
        share = min(1.0, done / adversary.ramp) if adversary.ramp else 1.0
        network, clean = attackable(module), x.numpy()
        wanted = shares(network, clean) if adversary.method is Method.TRADES else one_hot(module.graph, y.numpy())
        ends, length = reach.ends(clean, share), step * share * reach.epsilon
        moved = torch.from_numpy(climb(network, clean, wanted, ends, length, steps, rng))
        if adversary.method is not Method.TRADES:
            return F.cross_entropy(module(moved, upto=logits), y)
        known, turned = module(x, upto=logits), module(moved, upto=logits)
        apart = F.kl_div(F.log_softmax(turned, 1), F.softmax(known, 1), reduction="batchmean")
        return F.cross_entropy(known, y) + adversary.beta * apart

    return loss


def noisy_loss(module: Trained, reach: Reach) -> Loss:
    """Cross-entropy of samples in Gaussian noise of standard deviation `reach.epsilon`, clipped to the range."""
    check_classifier(module.graph)
    logits = logits_of(module.graph)

    def loss(x: Tensor, y: Tensor, done: float, rng: np.random.Generator) -> Tensor:
        noise = np.float32(reach.epsilon) * rng.standard_normal(tuple(x.shape), np.float32)
        return F.cross_entropy(module((x + torch.from_numpy(noise)).clip(reach.low, reach.high), upto=logits), y)

    return loss


def attackable(module: Trained) -> Linearized:
    """The network that a module is at present, as attacks see it: of one that learns for integers, the integers."""
    return Linearized(module.convert() if isinstance(module, StraightThrough) else from_torch(module))


def climb(
    network: Linearized,
    x: Array,
    wanted: Array,
    ends: tuple[Array, Array],
    step: float,
    steps: int,
    rng: np.random.Generator,
) -> Array:
    """Samples between `ends` (batch, …) whose shares are far from `wanted` (batch, classes), by cross-entropy.

    Projected gradient ascent from a random place, in `steps` steps of size `step` along the sign of the slope (Madry et
    al. 2018, arXiv 1706.06083). The slope is a surrogate's: along true ones a search stops where they are 0, and
    training hides behind that what a better attack finds (Athalye et al. 2018, arXiv 1802.00420).
    """
    low, high = ends
    found = low + (high - low) * rng.random(x.shape, np.float32)
    for _ in range(steps):
        logits, pullback = network(found, Surrogate.LEAKY)
        slopes = pullback(_softmax(logits) - wanted)
        found = np.clip(found + np.float32(step) * np.sign(slopes), low, high)
    return found


def robust_accuracy(module: Trained, split: Split, reach: Reach, seed: int, steps: int = 20) -> float:
    """The share of samples that are right as they are and after PGD of so many steps on their loss."""
    network, rng, right = attackable(module), np.random.default_rng(seed), 0
    for start in range(0, len(split), BATCH):
        part = split.take(slice(start, start + BATCH))
        x, labels = part.real(), part.labels
        step, wanted = 2.5 / steps * reach.epsilon, one_hot(module.graph, labels)
        moved = climb(network, x, wanted, reach.ends(x), step, steps, rng)
        held = [network(each)[0].argmax(1) == labels for each in (x, moved)]
        right += int((held[0] & held[1]).sum())
    return right / len(split)


def shares(network: Linearized, x: Array) -> Array:
    """The softmax of the logits (batch, classes), float64."""
    return _softmax(network(x)[0])


def one_hot(graph: Graph, labels: Array) -> Array:
    """1 for each label, 0 for the other classes (batch, classes)."""
    return np.eye(graph.types[logits_of(graph)].size)[labels]


def _softmax(logits: Array) -> Array:
    peaks = np.exp(logits - logits.max(1, keepdims=True).astype(np.float64))
    return peaks / peaks.sum(1, keepdims=True)


def check_classifier(graph: Graph) -> None:
    """Raises `GraphError` for a network without classes."""
    if reconstructs(graph):
        raise GraphError("robust training needs a classifier; this network reconstructs its input")
