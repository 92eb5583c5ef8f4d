"""How many samples an integer network provably calls by their label, whatever an attacker makes of them."""

import numpy as np
import numpy.typing as npt

from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.sensor import Sensor
from crosslayer.core.dataset import Split
from crosslayer.core.errors import InputError
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import Softmax
from crosslayer.core.graph.outputs import logits_of
from crosslayer.core.quant import Array
from crosslayer.core.score import Better, Score, share_score
from crosslayer.execute.intervals import Bounds, bounds_between

_BATCH = 64
SLACK = 1.1e-5
"""By how much a budget is exceeded at most: `Budget.holds` lets float32 arithmetic do so."""
_APART = 4
"""256ths by which two shares must differ to be sure that nowhere they round to one: each is right to less than one."""
_ULPS = 4
"""Float32 steps by which the ends of an interval are moved outwards: a real value can be computed in several ways."""


def certificate_score(graph: Graph, split: Split, budget: Budget, sensor: Sensor) -> Score:
    """The share of a split's samples that `certified` proves, with its 95 % Wilson interval over samples."""
    proved = certified(graph, split, budget, sensor)
    hits = int(proved.sum())
    return share_score(
        "certified_accuracy",
        hits,
        len(proved),
        Better.HIGHER,
        f"certified on the integers that ship: {budget}, interval bounds of the logits; {len(proved)} samples",
    )


def certified(graph: Graph, split: Split, budget: Budget, sensor: Sensor) -> npt.NDArray[np.bool_]:
    """Which samples (count,) keep their label within the budget, proved for the integer network itself.

    For every input that `sensor` can give within an `linf` budget of the sample the label has the largest output, the
    first of equal ones. Interval bounds prove less than is true (Gowal et al. 2018, arXiv 1810.12715), but in integers
    there is no rounding that they leave out. Raises `InputError` for another norm or a float network, `GraphError` for
    an operation without bounds.
    """
    if budget.norm is not Norm.LINF:
        raise InputError(f"interval bounds certify {Norm.LINF} budgets, not {budget.norm}; choose such a budget")
    if not graph.is_integer:
        raise InputError("a certificate is for the integers that ship, this is a float network; quantize it first")
    logits, proved = logits_of(graph), np.zeros(len(split), bool)
    for start in range(0, len(split), _BATCH):
        part = split.take(slice(start, start + _BATCH))
        low, high = reachable(part, budget, sensor)
        ends = bounds_between(graph, low, high, logits)[logits]
        proved[start : start + _BATCH] = decided(graph, ends, part.labels)
    return proved


def reachable(split: Split, budget: Budget, sensor: Sensor) -> tuple[Array, Array]:
    """The least and largest real values (count, …), float32, that the sensor can give within a budget of each sample.

    On the sensor's grid they are whole levels away: `linf 0.3` of 255 levels lets a value move by 76.
    """
    far, own = budget.size + SLACK, sensor.shares(split.real()).astype(np.float64)
    if sensor.steps:
        places, levels = np.rint(own * sensor.steps), np.floor(far * sensor.steps)
        shares = (places - levels) / sensor.steps, (places + levels) / sensor.steps
    else:
        shares = own - far, own + far
    low, high = (np.clip(end, 0.0, 1.0) * (sensor.high - sensor.low) + sensor.low for end in shares)
    slack = _ULPS * np.spacing(np.float32(max(abs(sensor.low), abs(sensor.high))))
    return (low - slack).astype(np.float32), (high + slack).astype(np.float32)


def decided(graph: Graph, logits: Bounds, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which samples (count,) are called by their label whatever their logits are within bounds (count, classes).

    The label's lowest logit must beat the highest of every other class: those before it must lie below. A softmax could
    round two shares to one code, and the first class wins. Of all logits within the bounds the label's lowest and the
    highest of the others bring it nearest to each of the others; there, those before it must be `_APART` away.
    """
    low, high = (end.reshape(len(labels), -1).astype(np.float64) for end in (logits.low, logits.high))
    rows, places = np.arange(len(labels)), np.arange(high.shape[1])
    own, before, itself = low[rows, labels][:, None], places < labels[:, None], places == labels[:, None]
    wins = np.where(before, high < own, (high <= own) | itself)
    last = graph.producers[graph.outputs[0]]
    quant = graph.types[last.name].quant
    if isinstance(last.op, Softmax) and quant is not None:
        nearest = np.where(itself, low, high).astype(logits.high.dtype)
        shares = last.op.integer(graph.lowered[last.name], nearest).astype(np.int64)
        far = shares[rows, labels][:, None] - shares >= _APART << (quant.bits - 8)
        wins &= far | ~before
    return np.asarray(wins.all(axis=1))
