"""Training by PyTorch: a float graph, or another module that learns one."""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F  # noqa: N812  # the name that PyTorch's own documentation uses

from crosslayer.core.dataset import Split
from crosslayer.core.errors import GraphError
from crosslayer.core.files import write_atomic
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import BatchNorm
from crosslayer.core.graph.outputs import logits_of, reconstructs
from crosslayer.execute.torch import Learner, Tensor, from_torch, loss_of, to_torch
from crosslayer.execute.training import Training

Watch = Callable[[Iterator[int], str, int], Iterator[int]]
Loss = Callable[[Tensor, Tensor, float, np.random.Generator], Tensor]
"""(samples, labels, share of the training that is done, chance) -> what a step makes smaller."""


def fit(
    graph: Graph,
    data: Split,
    training: Training,
    *,
    seed: int,
    progress: Watch,
    checkpoint: Path | None = None,
    teacher: Graph | None = None,
) -> Graph:
    """The graph with trained weights, as `train` gives them."""
    module = to_torch(graph).train()
    train(module, data, training, seed=seed, progress=progress, checkpoint=checkpoint, teacher=teacher)
    return from_torch(module)


def train(
    module: Learner,
    data: Split,
    training: Training,
    *,
    seed: int,
    progress: Watch,
    checkpoint: Path | None = None,
    teacher: Graph | None = None,
    loss: Loss | None = None,
    judge: Callable[[], float] | None = None,
) -> list[float]:
    """Trains the parameters of `module`. Returns what `judge`, if there is one, said after each epoch.

    Minimizes cross-entropy of the logits under a final softmax; a network whose output has the size of its input
    minimizes the squared error of its reconstruction. With `training.distill`, a share of the loss compares with the
    logits of `teacher`. A given `loss` takes the place of all this. Weights that are zero, in a layer that has others,
    are taken to be pruned: they stay zero. With `checkpoint`, each epoch is saved there and training goes on after the
    last one; an interrupted and resumed training gives the same weights as an uninterrupted one.
    """
    _check_batch(module.graph, min(training.batch, len(data)))
    loss = loss or _loss(module, training, teacher)
    pruned = [
        (p, p.detach() != 0) for p in module.parameters() if p.dim() > 1 and 0 < torch.count_nonzero(p) < p.numel()
    ]
    steps = max(1, len(data) // training.batch)
    optimizer = torch.optim.AdamW(module.parameters(), lr=training.rate, weight_decay=training.decay)
    total = max(1, training.epochs * steps)
    start, seen = (0, list[float]()) if checkpoint is None else _restore(checkpoint, module, optimizer)
    rise = max(1, min(module.rise, total // 4))

    def share(step: int) -> float:
        """Of the full rate, in one step of this run."""
        step += start * steps
        return min(1.0, (step + 1) / rise) * 0.5 * (1 + math.cos(math.pi * step / total))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    images = torch.from_numpy(data.real())
    labels = torch.from_numpy(data.labels)
    for epoch in range(start, training.epochs):
        rng = np.random.default_rng((seed, epoch))
        order = torch.from_numpy(rng.permutation(len(data)))
        for step in progress(iter(range(steps)), f"epoch {epoch + 1}/{training.epochs}", steps):
            chosen = order[step * training.batch : (step + 1) * training.batch]
            optimizer.zero_grad()
            moved = _augmented(images[chosen], training, rng)
            with torch.autocast("cpu", torch.bfloat16, enabled=training.bfloat16):
                value = loss(moved, labels[chosen], (epoch * steps + step) / total, rng)
            value.backward()
            optimizer.step()
            with torch.no_grad():
                for weight, kept in pruned:
                    weight.mul_(kept)
            schedule.step()
            if not math.isfinite(value.item()):
                raise GraphError(f"training diverged in epoch {epoch + 1}: the loss is not finite; lower the rate")
        if judge is not None:
            seen.append(judge())
        if checkpoint is not None:
            _save(checkpoint, module, optimizer, epoch + 1, seen)
    return seen


def _loss(module: Learner, training: Training, teacher: Graph | None) -> Loss:
    """What training minimizes. Raises `GraphError` if there is a teacher to learn from that cannot teach."""
    if training.distill == 0:
        plain = loss_of(module.graph, module)
        return lambda x, y, done, rng: plain(x, y)
    if teacher is None or reconstructs(module.graph) or not _alike(module.graph, teacher):
        raise GraphError("distillation needs a float classifier as teacher, with the same inputs and classes")
    guide, heat = to_torch(teacher).eval(), training.temperature
    own, given = logits_of(module.graph), logits_of(teacher)

    def loss(x: Tensor, y: Tensor, done: float, rng: np.random.Generator) -> Tensor:
        logits = module(x, upto=own)
        with torch.no_grad():
            wanted = F.log_softmax(guide(x, upto=given) / heat, 1)
        apart = F.kl_div(F.log_softmax(logits / heat, 1), wanted, reduction="batchmean", log_target=True)
        return (1 - training.distill) * F.cross_entropy(logits, y) + training.distill * heat**2 * apart

    return loss


def _alike(graph: Graph, teacher: Graph) -> bool:
    ends = [[g.types[name].shape for name in (g.inputs[0], logits_of(g))] for g in (graph, teacher)]
    return not teacher.is_integer and ends[0] == ends[1]


def _check_batch(graph: Graph, batch: int) -> None:
    """Raises `GraphError` if a batch has too few values for the statistics of a normalization."""
    for node in graph.nodes:
        shape = graph.types[node.name].shape
        if isinstance(node.op, BatchNorm) and batch * math.prod(shape[:-1]) < 2:
            raise GraphError(f"{node.name}: a batch has one value per channel; a normalization needs a larger batch")


def _augmented(x: Tensor, training: Training, rng: np.random.Generator) -> Tensor:
    if x.dim() != 4 or not (training.shift or training.flip):
        return x
    if training.flip:
        mirrored = torch.from_numpy(rng.random(len(x)) < 0.5)
        x = torch.where(mirrored[:, None, None, None], x.flip(2), x)
    if training.shift:
        s = training.shift
        padded = F.pad(x, (0, 0, s, s, s, s))
        down, right = (torch.from_numpy(rng.integers(0, 2 * s + 1, len(x))) for _ in range(2))
        rows = down[:, None] + torch.arange(x.shape[1])
        columns = right[:, None] + torch.arange(x.shape[2])
        x = padded[torch.arange(len(x))[:, None, None], rows[:, :, None], columns[:, None, :]]
    return x


def _save(path: Path, module: Learner, optimizer: torch.optim.Optimizer, epoch: int, seen: list[float]) -> None:
    tensors: dict[str, Tensor] = {f"weight.{k}": v.contiguous() for k, v in module.state_dict().items()}
    for i, state in cast("Mapping[int, Mapping[str, Tensor]]", optimizer.state_dict()["state"]).items():
        tensors |= {f"state.{i}.{k}": v.contiguous() for k, v in state.items()}
    tensors["seen"] = torch.tensor(seen, dtype=torch.float64)
    write_atomic(path, safetensors.torch.save(tensors, metadata={"epoch": str(epoch)}))


def _restore(path: Path, module: Learner, optimizer: torch.optim.Optimizer) -> tuple[int, list[float]]:
    """The number of finished epochs, 0 if there is no checkpoint that can be read, and what was said after each."""
    if not path.is_file():
        return 0, []
    try:
        with safetensors.safe_open(path, "pt") as file:
            epoch = int(file.metadata()["epoch"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a mapping
    except safetensors.SafetensorError:
        return 0, []
    module.load_state_dict({k.removeprefix("weight."): v for k, v in tensors.items() if k.startswith("weight.")})
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        if key.startswith("state."):
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return epoch, tensors["seen"].tolist()
