"""What is attacked, as an attacker sees it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import final

import numpy as np

from crosslayer.attack.sensor import Sensor
from crosslayer.core.bench import Executor
from crosslayer.core.errors import InputError
from crosslayer.core.graph.edit import up_to
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.outputs import logits_of, reconstructs
from crosslayer.core.quant import Array
from crosslayer.execute.surrogate import Pullback, Surrogate


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Victim:
    """A classifier under attack. Inputs x (batch, …) are shares of the sensor's range, float32 in 0…1.

    `scores` maps real inputs to logits (batch, classes), by the executor whose bytes are those that ship; any callable
    can stand there. `linearize` gives the same logits and a pullback; without it gradient attacks cannot be made.
    """

    sensor: Sensor
    scores: Callable[[Array], Array]
    linearize: Callable[[Array, Surrogate], tuple[Array, Pullback]] | None = None

    @classmethod
    def of(cls, graph: Graph, sensor: Sensor, executor: Executor) -> "Victim":
        """A float or integer network behind a sensor, as `executor` computes it.

        Its logits are what a final softmax reads, or else the output, codes decoded (scale × (code − zero)), float32.
        Gradients of an integer network go through exactly these logits: the first batch is compared, and if the
        executor gives others, `GraphError` is raised. Raises `InputError` for a network that is no classifier.
        """
        if reconstructs(graph):
            raise InputError("attacks need a classifier, and this network reconstructs its input; choose another")
        cut = up_to(graph, logits_of(graph))
        quant = cut.types[cut.outputs[0]].quant

        def scores(real: Array) -> Array:
            found = executor(cut, real)
            return (found if quant is None else quant.decode(found)).reshape(len(real), -1).astype(np.float32)

        @cache
        def linearized() -> Callable[[Array, Surrogate], tuple[Array, Pullback]]:
            from crosslayer.execute.pullback import Linearized  # PyTorch is loaded only by who needs gradients

            return Linearized(cut, scores if graph.is_integer else None)

        return cls(sensor=sensor, scores=scores, linearize=lambda real, surrogate: linearized()(real, surrogate))

    def logits(self, x: Array) -> Array:
        """(batch, classes), float32, of what the sensor makes of `x`."""
        return self.scores(self.sensor.real(x))

    def slopes(self, x: Array, surrogate: Surrogate = Surrogate.GATED) -> tuple[Array, Pullback]:
        """Logits and a pullback to `x`; the sensor's rounding is passed straight through."""
        assert self.linearize is not None, "a victim without linearize has no gradients"
        logits, back = self.linearize(self.sensor.real(x), surrogate)
        width = np.float32(self.sensor.high - self.sensor.low)
        return logits, lambda slopes: back(slopes) * width

    def fooled(self, x: Array, labels: Array) -> Array:
        """Whether each sample is not called its label (batch,); of equal logits the first counts."""
        return self.logits(x).argmax(1) != labels


def margins(logits: Array, labels: Array) -> Array:
    """How far the label's logit lies above the largest other (batch,), float64; below 0 the sample fools.

    Of equal logits the first counts, so that 0 fools if the other class comes first.
    """
    rows = np.arange(len(labels))
    others = logits.astype(np.float64)
    own = others[rows, labels].copy()
    others[rows, labels] = -np.inf
    return own - others.max(1)
