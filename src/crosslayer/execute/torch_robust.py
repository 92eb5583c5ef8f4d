"""Training against attacks by PyTorch: the losses for `train` with an attack inside, and what they reach."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # the name that PyTorch's own documentation uses
from torch.overrides import TorchFunctionMode

from crosslayer.core.dataset import Dataset, Split, split_off
from crosslayer.core.errors import DataError, GraphError
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.outputs import logits_of, reconstructs
from crosslayer.execute.adversary import Adversary, Method
from crosslayer.execute.torch import Learner, Tensor
from crosslayer.execute.torch_training import Loss, Watch, train
from crosslayer.execute.training import Training

WATCHED = 1000
"""Validation samples, and at most training samples held out, on which robustness is noted."""
_BATCH = 250
_LEAK = 0.1

Ends = tuple[Tensor, Tensor]
"""The least and the largest value of each place."""


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

    def ends(self, x: Tensor, share: float = 1.0) -> Ends:
        """What can be made of samples with a share of epsilon."""
        far = share * self.epsilon
        return (x - far).clamp(self.low, self.high), (x + far).clamp(self.low, self.high)


def train_robust(
    module: Learner,
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


def adversarial_loss(module: Learner, adversary: Adversary, reach: Reach) -> Loss:
    """The loss of `adversary.method`. Attacks are searched with the statistics of evaluation, and learned from with
    those of training."""
    logits, (steps, step) = logits_of(module.graph), adversary.moves

    def loss(x: Tensor, y: Tensor, done: float, rng: np.random.Generator) -> Tensor:
        share = min(1.0, done / adversary.ramp) if adversary.ramp else 1.0
        height = _wrongness(module, y)
        if adversary.method is Method.TRADES:
            with torch.no_grad():
                wanted = F.softmax(_evaluated(module, x), 1)
            height = _distance(module, wanted)
        moved = climb(height, x, reach.ends(x, share), step * share * reach.epsilon, steps, rng)
        if adversary.method is not Method.TRADES:
            return F.cross_entropy(module(moved, upto=logits), y)
        clean, attacked = module(x, upto=logits), module(moved, upto=logits)
        apart = F.kl_div(F.log_softmax(attacked, 1), F.softmax(clean, 1), reduction="batchmean")
        return F.cross_entropy(clean, y) + adversary.beta * apart

    return loss


def climb(
    height: Callable[[Tensor], Tensor], x: Tensor, ends: Ends, step: float, steps: int, rng: np.random.Generator
) -> Tensor:
    """Samples between `ends` (batch, …) where `height`, a sum over samples, is large: projected gradient ascent.

    It starts at a random place and takes `steps` steps of size `step` along the sign of the slope (Madry et al. 2018).
    What is clamped on both sides passes a tenth of the slope beyond: a search along true slopes would stop where they
    are 0, and take what it cannot see for robust (Athalye et al. 2018, arXiv 1802.00420).
    """
    low, high = ends
    found = low + (high - low) * torch.from_numpy(rng.random(x.shape, np.float32))
    for _ in range(steps):
        found.requires_grad_()
        with _Leaky():
            reached = height(found)
        (slope,) = torch.autograd.grad(reached, found)
        found = torch.clamp(found.detach() + step * slope.sign(), low, high)
    return found


class _Leaky(TorchFunctionMode):
    """Clamps with two bounds have more slope than they have: by `_LEAK`, everywhere."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        value = func(*args, **(kwargs or {}))
        if func is torch.clip and None not in args[1:]:
            value = value + _LEAK * (args[0] - args[0].detach())  # adds 0
        return value


def robust_accuracy(module: Learner, split: Split, reach: Reach, seed: int, steps: int = 20) -> float:
    """The share of samples that are right as they are and after PGD of so many steps on their loss."""
    rng, right = np.random.default_rng(seed), 0
    for x, y in batches(split):
        moved = climb(_wrongness(module, y), x, reach.ends(x), 2.5 / steps * reach.epsilon, steps, rng)
        with torch.no_grad():
            held = [_evaluated(module, each).argmax(1) == y for each in (x, moved)]
        right += int((held[0] & held[1]).sum())
    return right / len(split)


def _wrongness(module: Learner, labels: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: F.cross_entropy(_evaluated(module, x), labels, reduction="sum")


def _distance(module: Learner, wanted: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: F.kl_div(F.log_softmax(_evaluated(module, x), 1), wanted, reduction="sum")


def _evaluated(module: Learner, x: Tensor) -> Tensor:
    """The logits in evaluation, from a module that may be in training."""
    training = module.training
    try:
        return module.eval()(x, upto=logits_of(module.graph))
    finally:
        module.train(training)


def batches(split: Split) -> Iterator[tuple[Tensor, Tensor]]:
    """Samples and labels, a few at a time."""
    for start in range(0, len(split), _BATCH):
        part = slice(start, start + _BATCH)
        yield torch.from_numpy(split.real(part)), torch.from_numpy(split.labels[part])


def check_classifier(graph: Graph) -> None:
    """Raises `GraphError` for a network without classes."""
    if reconstructs(graph):
        raise GraphError("robust training needs a classifier; this network reconstructs its input")
