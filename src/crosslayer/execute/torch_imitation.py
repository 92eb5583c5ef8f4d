"""Training a network to answer as another does."""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # the name that PyTorch's own documentation uses

from crosslayer.core.dataset import Split
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.outputs import logits_of
from crosslayer.core.quant import Array
from crosslayer.execute.torch import Tensor, from_torch, to_torch
from crosslayer.execute.torch_training import Watch, train
from crosslayer.execute.training import Training


def imitate(graph: Graph, x: Array, shares: Array, training: Training, *, seed: int, progress: Watch) -> Graph:
    """The float graph with weights trained on real inputs x (count, …) and the shares (count, classes) that another
    network, or its labels, gave to the classes: cross-entropy of both."""
    module = to_torch(graph).train()
    wanted, logits = torch.from_numpy(shares.astype(np.float32)), logits_of(graph)

    def loss(inputs: Tensor, rows: Tensor, done: float, rng: np.random.Generator) -> Tensor:
        return F.cross_entropy(module(inputs, upto=logits), wanted[rows])

    samples = Split(codes=x, labels=np.arange(len(x)))
    train(module, samples, training, seed=seed, progress=progress, loss=loss)
    return from_torch(module)
