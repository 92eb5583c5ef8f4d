"""How often a network is right."""

import numpy as np
import numpy.typing as npt

from crosslayer.core.bench import Executor
from crosslayer.core.dataset import Split
from crosslayer.core.graph.graph import Graph
from crosslayer.core.score import Better, Score, share_score

Labels = npt.NDArray[np.int64]


def predict(graph: Graph, split: Split, executor: Executor) -> Labels:
    """The index of the largest output for each sample; of equal ones the first, as the firmware's caller would."""
    return executor(graph, split.real()).reshape(len(split), -1).argmax(axis=1).astype(np.int64)


def accuracy_score(name: str, predicted: Labels, labels: Labels, note: str) -> Score:
    """The share of right predictions with its 95 % Wilson interval over samples."""
    hits = int((predicted == labels).sum())
    return share_score(name, hits, len(labels), Better.HIGHER, f"{note}; {len(labels)} samples")


def confusion(predicted: Labels, labels: Labels, classes: int) -> npt.NDArray[np.int64]:
    """How many samples of class i (row) were called j (column)."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts
