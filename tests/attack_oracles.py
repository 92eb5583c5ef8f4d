"""Foolbox and the Adversarial Robustness Toolbox, loaded without their warnings, on a network of ours."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.outputs import logits_of
from crosslayer.execute.torch import to_torch


@contextmanager
def quiet() -> Iterator[None]:
    """Their imports and runs warn of what newer SciPy and PyTorch will drop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


with quiet():
    foolbox: Any = pytest.importorskip("foolbox")
    art: Any = pytest.importorskip("art")
    evasion: Any = pytest.importorskip("art.attacks.evasion")
    estimators: Any = pytest.importorskip("art.estimators.classification")


class Logits(torch.nn.Module):
    """The logits of a float network."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.inner, self.upto = to_torch(graph).requires_grad_(False), logits_of(graph)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x, upto=self.upto)


def foolbox_model(graph: Graph) -> Any:
    return foolbox.PyTorchModel(Logits(graph).eval(), bounds=(0, 1))


def art_model(graph: Graph) -> Any:
    """An estimator for inputs in 0…1."""
    shape, classes = graph.types[graph.inputs[0]].shape, graph.types[logits_of(graph)].size
    with quiet():
        loss = torch.nn.CrossEntropyLoss()
        return estimators.PyTorchClassifier(
            Logits(graph).eval(), loss, shape, classes, clip_values=(0, 1), device_type="cpu"
        )


def one_hot(labels: Any, classes: int = 10) -> Any:
    return np.eye(classes, dtype=np.float32)[labels]
