"""Bits per layer under a budget: two searches over the weights' precision.

`q_capsnets` is the published four-step search; `least_harm` measures each layer's harm on its own and then takes the
exact least sum that the budget allows. Both see a network only through functions of bits.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from crosslayer.core.errors import InputError

Assignment = Mapping[str, int]
"""Bits of the weights of each layer."""
Judge = Callable[[Assignment, int], float]
"""(bits of each layer's weights, bits of all activations) -> accuracy of the quantized network, 0…1."""

_DEPTH = 4  # how far below the first layer's the later layers' bits lie at most (Q-CapsNets code: "decrease depth" 5)
_FLOOR_SHARE = 0.05  # of the tolerated loss, spent on the uniform step
_ACTIVATION_SHARE = 0.55  # of what is left after the memory step, spent on activations


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search ends with: bits, the accuracy that its judge gave them, and how often it asked."""

    weights: Assignment
    activations: int
    accuracy: float
    asked: int


def q_capsnets(
    layers: Sequence[str],
    cost: Callable[[Assignment], float],
    judge: Judge,
    *,
    full: float,
    tolerance: float,
    budget: float,
    most: int = 16,
    least: int = 2,
    least_activation: int = 4,
) -> Found:
    """Bits by the Q-CapsNets search (Marchisio et al., DAC 2020, arXiv 2004.07116), for layers in execution order.

    1. The least uniform bits, for weights and activations alike, that lose no more than 5 % of the tolerated accuracy.
    2. The most weight bits within `budget` when each of the first five layers has one bit less than the one before.
    3. If that keeps the tolerated accuracy, activation bits fall until 55 % of what is left is spent; if not, weight
       bits fall from step 1 layer by layer, each time for a layer and all after it, and the budget is missed.
    4. (Bits of dynamic routing, which these networks do not have.)

    `full` is the float accuracy; `tolerance` is absolute. Our codes round to nearest, which the published code means to
    and does not. Activation bits are uniform here: they change the sums' resolution, not the bytes of the arena.
    """
    asked: dict[tuple[tuple[int, ...], int], float] = {}

    def accuracy(weights: Assignment, activations: int) -> float:
        key = tuple(weights[name] for name in layers), activations
        if key not in asked:
            asked[key] = judge(weights, activations)
        return asked[key]

    def found(weights: Assignment, activations: int) -> Found:
        return Found(
            weights=weights, activations=activations, accuracy=accuracy(weights, activations), asked=len(asked)
        )

    def uniform(bits: int) -> Assignment:
        return dict.fromkeys(layers, bits)

    floor = full - tolerance
    first = _least_that(
        lambda bits: accuracy(uniform(bits), bits) >= full - _FLOOR_SHARE * tolerance, least_activation, most
    )
    steps = {n: {name: max(n - min(i, _DEPTH), least) for i, name in enumerate(layers)} for n in range(least, most + 1)}
    affordable = [n for n in steps if cost(steps[n]) <= budget]
    if not affordable:
        raise InputError(
            f"the budget of {budget:g} is less than {cost(steps[least]):g}, which the fewest bits cost; raise it"
        )
    second = steps[max(affordable)]
    if accuracy(second, first) >= floor:
        slack = accuracy(second, first) - floor
        enough = accuracy(second, first) - _ACTIVATION_SHARE * slack
        activations = _least_that(lambda bits: accuracy(second, bits) >= enough, least_activation, first)
        return found(second, activations)
    weights = dict(uniform(first))
    for position in range(len(layers)):
        while weights[layers[position]] > least:
            fewer = {name: bits - (i >= position) for i, (name, bits) in enumerate(weights.items())}
            if min(fewer.values()) < least or accuracy(fewer, first) < floor:
                break
            weights = fewer
    return found(weights, first)


def _least_that(holds: Callable[[int], bool], least: int, most: int) -> int:
    """The least of least…most for which `holds`, by bisection; `most` if none does."""
    while least < most:
        middle = (least + most) // 2
        if holds(middle):
            most = middle
        else:
            least = middle + 1
    return most


def least_harm(
    harm: Mapping[str, Mapping[int, float]], cost: Mapping[str, Mapping[int, float]], budget: float
) -> Assignment:
    """The bits of each layer with the least sum of harms whose costs do not exceed `budget` in sum: exact.

    A multiple-choice knapsack, solved layer by layer over the pairs (cost, harm) that no other pair beats in both.
    Raises `InputError` if even the cheapest choice costs more.

    >>> least_harm({"a": {2: 9.0, 8: 0.0}, "b": {2: 1.0, 8: 0.0}}, {"a": {2: 2, 8: 8}, "b": {2: 2, 8: 8}}, 10)
    {'a': 8, 'b': 2}
    """
    front: list[tuple[float, float, tuple[int, ...]]] = [(0.0, 0.0, ())]
    remaining = [min(choices.values()) for choices in cost.values()]
    for position, name in enumerate(harm):
        rest = sum(remaining[position + 1 :])
        grown = [
            (spent + cost[name][bits], done + harm[name][bits], (*chosen, bits))
            for spent, done, chosen in front
            for bits in harm[name]
            if spent + cost[name][bits] + rest <= budget
        ]
        if not grown:
            raise InputError(
                f"the budget of {budget:g} is less than {sum(remaining):g}, which the fewest bits cost; raise it"
            )
        front = _unbeaten(grown)
    return dict(zip(harm, front[-1][2], strict=True))


def _unbeaten(pairs: list[tuple[float, float, tuple[int, ...]]]) -> list[tuple[float, float, tuple[int, ...]]]:
    """Those that no cheaper one harms less than, in rising cost and falling harm."""
    kept: list[tuple[float, float, tuple[int, ...]]] = []
    for pair in sorted(pairs):
        if pair[1] < (kept[-1][1] if kept else math.inf):
            kept.append(pair)
    return kept
