"""Victims that are no graph: any function, the emitted C on this computer, the firmware on an emulated core."""

from collections.abc import Callable

import numpy as np

from crosslayer.attack.sensor import Sensor
from crosslayer.attack.victim import Victim
from crosslayer.core.errors import InputError
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import Softmax
from crosslayer.core.quant import Array
from crosslayer.execute.emulate import Image
from crosslayer.execute.native import Native
from crosslayer.execute.reference import encode_input


def score_victim(scores: Callable[[Array], Array], sensor: Sensor, threshold: float = 0.0) -> Victim:
    """Any function of real inputs (batch, …) that gives scores (batch, classes), logits for choice.

    One score (batch, 1) or (batch,) is a binary classifier's: class 1 is called above `threshold`, which becomes the
    score of class 0; take 0.5 for shares.
    """

    def two(real: Array) -> Array:
        found = np.asarray(scores(real), np.float32).reshape(len(real), -1)
        return found if found.shape[1] > 1 else np.concatenate([np.full_like(found, threshold), found], 1)

    return Victim(sensor=sensor, scores=two)


def label_victim(call: Callable[[Array], Array], classes: int, sensor: Sensor) -> Victim:
    """Any function of real inputs (batch, …) that gives labels (batch,) alone, integers from 0 up to below `classes`.

    Its scores are 1 for the label and 0 for all others: enough for attacks by labels, blind for attacks by scores.
    Raises `InputError` for another label.
    """

    def shares(real: Array) -> Array:
        labels = np.asarray(call(real)).reshape(len(real))
        if ((labels < 0) | (labels >= classes)).any():
            raise InputError(f"the victim calls a label outside 0…{classes - 1}; give the number of its classes")
        return np.eye(classes, dtype=np.float32)[labels.astype(np.int64)]

    return Victim(sensor=sensor, scores=shares)


def firmware_victim(graph: Graph, firmware: Native | Image, sensor: Sensor, threshold: float = 0.0) -> Victim:
    """The firmware of an integer graph, asked through its bytes: compiled for this computer, or on an emulated core.

    The scores are the output's codes decoded, scale × (code − zero), float32. After a softmax they are the logarithms
    of its shares, a share of 0 taken as half a step of its code: in the order of the logits, as far as its code tells
    them apart. Emit a graph that ends at its logits to show an attacker more. `threshold` is that of a binary
    classifier's one output.
    """
    kind, last = graph.types[graph.outputs[0]], graph.producers[graph.outputs[0]]

    def scores(real: Array) -> Array:
        codes = encode_input(graph, real)
        given = firmware.run(codes) if isinstance(firmware, Native) else firmware.run(codes).outputs
        if kind.quant is None:
            return given.view("<f4").reshape(len(real), -1)
        values = kind.quant.decode(given.view(kind.quant.dtype.newbyteorder("<")).reshape(len(real), *kind.shape))
        if isinstance(last.op, Softmax):
            values = np.log(np.maximum(values, kind.quant.scale[0] / 2))
        return values

    return score_victim(scores, sensor, threshold)
