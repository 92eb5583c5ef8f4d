"""Mixed precision: each layer's weights get the bits that a budget allows where they matter most."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, final

import numpy as np

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design, weight_bytes
from crosslayer.core.errors import GraphError, InputError
from crosslayer.core.graph.edit import up_to
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import Softmax
from crosslayer.core.quant import Array, packed_bytes
from crosslayer.core.stage import Stage, check_parameters
from crosslayer.core.target import Target
from crosslayer.hardware.cycles import latency
from crosslayer.hardware.energy import energy
from crosslayer.hardware.macs import INSTRUCTIONS_PER_MAC
from crosslayer.quantize.affine import QuantizeAffine, quantize
from crosslayer.quantize.budget import Assignment, Found, least_harm, q_capsnets
from crosslayer.quantize.precision import Bits, Precision
from crosslayer.quantize.ranges import Ranges, find_ranges


class Resource(StrEnum):
    """What a budget limits."""

    MEMORY = "memory"
    """Bytes of all weights and biases, packed as in the firmware."""
    LATENCY = "latency"
    """Modelled seconds of one inference: multiply-accumulates × instructions for each, by bits."""
    ENERGY = "energy"
    """Modelled joules of one inference."""


class Search(StrEnum):
    """How bits are chosen."""

    LEAST_HARM = "least-harm"
    """The error of the logits when one layer alone has few bits; then the exact least sum of errors in the budget."""
    Q_CAPSNETS = "q-capsnets"
    """The published four steps (Marchisio et al. 2020), judged by validation accuracy; ask for many samples."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MixedPrecision(Stage):
    """Chooses the bits of each layer's weights so that they cost at most `budget`, then quantizes as `start` says.

    `budget` is in bytes, seconds or joules, as `resource` asks; layers get `least`…`most` bits. `q-capsnets` may lose
    `tolerance` of the float network's validation accuracy and chooses the bits of activations too; where both cannot be
    had it keeps the accuracy and misses the budget, as published. `least-harm` looks at `samples` training samples,
    `q-capsnets` at so many validation samples.
    """

    budget: float = 65_536.0
    resource: Resource = Resource.MEMORY
    search: Search = Search.LEAST_HARM
    tolerance: float = 0.0015
    least: int = 2
    most: int = 8
    samples: int = 256
    start: QuantizeAffine = field(default_factory=QuantizeAffine)

    def __post_init__(self) -> None:
        check_parameters(
            (self.budget > 0, "budget must be above 0"),
            (0 <= self.tolerance < 1, "tolerance must lie in 0…1"),
            (1 <= self.least <= self.most <= 8, "bits must rise from at least 1 to at most 8"),
            (self.samples >= 1, "samples must be at least 1"),
        )

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The integer design; notes: the bits chosen, what they cost, and what the search has measured."""
        precision, notes = self.choose(design, bench)
        quantized, started = replace(self.start, precision=precision).apply(design, bench)
        return quantized, {**started, **notes}

    def choose(self, design: Design, bench: Bench) -> tuple[Precision, dict[str, Any]]:
        """The precision, and plain values for the report. Raises `InputError` for a budget below the least cost."""
        graph = design.graph
        layers = [node.name for node in graph.nodes if node.op.channel_axis is not None]
        if not layers or graph.is_integer:
            raise GraphError("mixed precision starts from a float network with layers; put it in place of quantization")
        ranges = find_ranges(graph, self._calibration(bench), self.start.ranges, self.start.precision)
        fixed, costs = self._costs(design, ranges, layers)
        within = self.budget - fixed

        def cost(weights: Assignment) -> float:
            return sum(costs[name][bits] for name, bits in weights.items())

        notes: dict[str, Any] = {"resource": self.resource.value, "budget": self.budget}
        match self.search:
            case Search.LEAST_HARM:
                harm = self._harm(graph, ranges, layers, bench)
                found, activations = least_harm(harm, costs, within), self.start.precision.activations
                notes["harm"] = {name: {str(b): h for b, h in by_bits.items()} for name, by_bits in harm.items()}
            case Search.Q_CAPSNETS:
                result = self._four_steps(design, ranges, layers, cost, within, bench)
                found, activations = result.weights, result.activations
                notes |= {"validation_accuracy": result.accuracy, "evaluations": result.asked}
        notes |= {"bits": dict(found), "activations": activations, "cost": fixed + cost(found)}
        return self._precision(found, activations), notes

    def _precision(self, weights: Assignment, activations: int) -> Precision:
        layers = {name: Bits(weights=bits) for name, bits in weights.items()}
        return replace(self.start.precision, activations=activations, layers=layers)

    def _calibration(self, bench: Bench) -> Array:
        train = bench.data.train
        return train.real(np.sort(bench.rng().permutation(len(train))[: self.start.samples]))

    def _costs(
        self, design: Design, ranges: Ranges, layers: list[str]
    ) -> tuple[float, Mapping[str, Mapping[int, float]]]:
        """What does not depend on the bits, and the cost of each layer's weights by bits."""
        graph, choices = design.graph, range(self.least, self.most + 1)
        if self.resource is Resource.MEMORY:
            sizes = {name: graph.types[graph.producers[name].inputs[1]].size for name in layers}
            costs = {name: {bits: float(packed_bytes(size, bits)) for bits in choices} for name, size in sizes.items()}
            whole = quantize(graph, ranges, self.start.rounding, replace(self.start.precision, weights=8, layers={}))
            return weight_bytes(whole) - sum(sizes.values()), costs
        spent = {bits: _per_mac(self.resource, bits, design.target) for bits in choices}
        return 0.0, {name: {bits: graph.macs[name] * spent[bits] for bits in choices} for name in layers}

    def _harm(self, graph: Graph, ranges: Ranges, layers: list[str], bench: Bench) -> Mapping[str, Mapping[int, float]]:
        """The mean squared error that each layer adds to the logits with fewer bits than `most`, all others at that."""
        train = bench.data.train
        x = train.real(np.sort(bench.rng().permutation(len(train))[: self.samples]))
        logits = _logits(graph)
        wanted = bench.executor(up_to(graph, logits), x)

        def error(weights: Assignment) -> float:
            precision = self._precision(weights, self.start.precision.activations)
            whole = quantize(graph, ranges, self.start.rounding, precision)
            code = whole.types[logits].quant
            assert code is not None
            away = code.decode(bench.executor(up_to(whole, logits), x)) - wanted
            return float(np.mean(away.astype(np.float64) ** 2))

        full = dict.fromkeys(layers, self.most)
        least = error(full)
        pairs = [(name, bits) for name in layers for bits in range(self.least, self.most)]
        found: dict[str, dict[int, float]] = {name: {} for name in layers}
        for name, bits in bench.progress(pairs, "sensitivity to bits", len(pairs)):
            found[name][bits] = max(error({**full, name: bits}) - least, 0.0)
        return {name: {**by_bits, self.most: 0.0} for name, by_bits in found.items()}

    def _four_steps(
        self, design: Design, ranges: Ranges, layers: list[str], cost: Any, within: float, bench: Bench
    ) -> Found:
        validation = bench.data.validation.take(slice(0, self.samples))

        def judge(weights: Assignment, activations: int) -> float:
            precision = self._precision(weights, activations)
            whole = quantize(design.graph, ranges, self.start.rounding, precision)
            return bench.accuracy(whole, validation)

        full = bench.accuracy(design.graph, validation)
        return q_capsnets(
            layers,
            cost,
            judge,
            full=full,
            tolerance=self.tolerance,
            budget=within,
            most=self.most,
            least=self.least,
        )


def _per_mac(resource: Resource, bits: int, target: Target) -> float:
    """Modelled seconds or joules of one multiply-accumulate with weights of that many bits."""
    thousand = round(1000 * INSTRUCTIONS_PER_MAC[bits].value)
    if resource is Resource.LATENCY:
        return latency(thousand, target).value / 1000
    joules = energy(thousand, target)
    if joules is None:
        raise InputError(f"no power figure of {target.name} is known; give a budget of memory or latency")
    return joules.value / 1000


def _logits(graph: Graph) -> str:
    """The value before a final softmax, or the output."""
    last = graph.producers[graph.outputs[0]]
    return last.inputs[0] if isinstance(last.op, Softmax) else last.name
