"""What published MLPerf Tiny results say of a microcontroller that is not among them.

A part is the chip, not the board: boards with one chip are left out together.

    log cycles           = effect of the part + work of the task under the stack
    log energy per cycle = log of the part's catalogue run power + one constant

Both are fitted by least squares in the logarithm. The effect of a part that was never seen is the mean effect of the
parts with its core, one voice each. The work of a stack whose kernels are CMSIS-NN is its counted instructions times
one constant; that of a closed stack is known only from other parts that ran it, in the same version.
"""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from statistics import fmean, geometric_mean, median
from types import MappingProxyType
from typing import final

import numpy as np

CMSIS_NN_INSTRUCTIONS: Mapping[str, int] = MappingProxyType(
    {"kws": 7_693_466, "vww": 24_091_876, "ic": 29_856_886, "ad": 579_741}
)
"""Executed instructions of one inference: CMSIS-NN 4ab83cc called directly, GCC 12.2 -O2, emulated Cortex-M4."""

COUNTED_STACKS = frozenset({"microTVM with CMSIS-NN", "TFLM with CMSIS-NN"})
"""Stacks that run the kernels behind `CMSIS_NN_INSTRUCTIONS` on the graph as it is, on cores with that instruction set.

ONNC uses them too but changes the graph (its vww/ic ratio is half of theirs): a closed stack here.
"""

RUN_POWER: Mapping[tuple[str, str], tuple[float, str]] = MappingProxyType(
    {
        ("stm32l4r5", "1.8 V"): (100e-6 * 1.8e-6, "boards/st/nucleo_l4r5zi: 100 µA/MHz, linear regulator at 1.8 V"),
        ("stm32u575", "1.8 V, SMPS"): (19.5e-6 * 3.3e-6, "boards/st/nucleo_u575zi_q: 19.5 µA/MHz, taken as at 3.3 V"),
        ("stm32u385", "1.8 V, SMPS"): (9.5e-6 * 3.3e-6, "boards/st/nucleo_u385rg_q: 9.5 µA/MHz at 3.3 V, while(1)"),
    }
)
"""Run-mode power in W/Hz by part and supply, and the page of Zephyr's board documentation that quotes the current.

A switching regulator is taken to draw the same power at 1.8 V as at the 3.3 V of its catalogue figure.
"""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One published result: a task on a board under a stack. `energy_uj` is None where none was submitted."""

    round: str
    submitter: str
    stack: str
    board: str
    part: str
    core: str
    megahertz: int
    supply: str
    task: str
    latency_ms: float
    energy_uj: float | None
    source: str

    @property
    def cycles(self) -> float:
        """Core cycles of one inference."""
        return self.latency_ms * 1e3 * self.megahertz

    @property
    def joules_per_cycle(self) -> float | None:
        """Energy of one inference over its cycles."""
        return None if self.energy_uj is None else 1e-6 * self.energy_uj / self.cycles


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the other parts say of a point. None where they say nothing; the reason is then not empty."""

    point: Point
    latency_ms: float | None
    joules_per_cycle: float | None
    energy_uj: float | None
    latency_gap: str
    energy_gap: str

    @property
    def latency_error(self) -> float | None:
        """Predicted over measured, minus one."""
        return _error(self.latency_ms, self.point.latency_ms)

    @property
    def energy_error(self) -> float | None:
        """Predicted over measured, minus one."""
        return _error(self.energy_uj, self.point.energy_uj)

    @property
    def power_error(self) -> float | None:
        """Predicted over measured energy of one cycle, minus one: the error of the energy had the time been known."""
        return _error(self.joules_per_cycle, self.point.joules_per_cycle)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Fitted effects, in natural logarithms. A component is a set of parts and works that share measurements."""

    core_of: Mapping[str, str]
    part_effect: Mapping[str, float]
    work: Mapping[tuple[str, str], float]
    component: Mapping[str | tuple[str, str], int]
    power_ratio: float | None
    """log of energy per cycle over catalogue run power; None where no point has both."""
    power_of: Mapping[tuple[str, str], float]
    """Energy of a cycle of parts that were measured, in joules, by part and supply."""

    def cycles(self, point: Point) -> float | None:
        """Cycles of one inference on a part with the core of `point`; None if `gap` says why."""
        if self.gap(point):
            return None
        key, offset = _work(point)
        effect = fmean(self.part_effect[part] for part in self._like(point))
        return math.exp(effect + self.work[key] + offset)

    def gap(self, point: Point) -> str:
        """Why the cycles of a point cannot be known; empty if they can."""
        key, _ = _work(point)
        if point.core not in self.core_of.values():
            return f"no other part has a {point.core}"
        if key not in self.work:
            return f"no other part ran {point.stack}"
        if not self._like(point):
            return f"nothing links the parts that ran {point.stack} to those with a {point.core}"
        return ""

    def joules_per_cycle(self, point: Point) -> float | None:
        """Energy of a cycle, the measured one of the part if there is any; None if `power_gap` says why."""
        if (point.part, point.supply) in self.power_of:
            return self.power_of[point.part, point.supply]
        if self.power_gap(point) or self.power_ratio is None:
            return None
        return RUN_POWER[point.part, point.supply][0] * math.exp(self.power_ratio)

    def power_gap(self, point: Point) -> str:
        """Why the energy of a cycle cannot be known; empty if it can."""
        if point.supply == "not stated":
            return "the supply is not stated"
        if (point.part, point.supply) in self.power_of:
            return ""
        if (point.part, point.supply) not in RUN_POWER:
            return f"no catalogue run power of {point.part} at {point.supply} was found"
        return "" if self.power_ratio is not None else "no other part has a catalogue run power and a measured energy"

    def _like(self, point: Point) -> list[str]:
        """The parts whose effect stands for that of a point's: itself if it was measured, or those with its core."""
        home = self.component[_work(point)[0]]
        if self.component.get(point.part) == home:
            return [point.part]
        return [part for part, core in self.core_of.items() if core == point.core and self.component[part] == home]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Errors of a set of predictions, as fractions: `mean`, `median` and `largest` of magnitudes, `bias` signed."""

    points: int
    predicted: int
    within: int
    """Predicted points whose error is at most the limit that was asked for."""
    mean: float
    median: float
    largest: float
    bias: float


def load_points() -> tuple[Point, ...]:
    """The published results, in the order of rounds.

    >>> load_points()[0].board
    'NUCLEO-L4R5ZI'
    """
    text = (files("crosslayer.hardware") / "mlperf_tiny.csv").read_text(encoding="utf-8")
    return tuple(
        Point(
            round=row["round"],
            submitter=row["submitter"],
            stack=row["stack"],
            board=row["board"],
            part=row["part"],
            core=row["core"],
            megahertz=int(row["megahertz"]),
            supply=row["supply"],
            task=row["task"],
            latency_ms=float(row["latency_ms"]),
            energy_uj=float(row["energy_uj"]) if row["energy_uj"] else None,
            source=row["source"],
        )
        for row in csv.DictReader(text.splitlines())
    )


def fit(points: Sequence[Point]) -> Calibration:
    """Effects of parts and works with the least squared error of log cycles; the constant of the energy."""
    parts = sorted({point.part for point in points})
    keys = sorted({_work(point)[0] for point in points})
    columns: dict[str | tuple[str, str], int] = {name: i for i, name in enumerate([*parts, *keys])}
    design = np.zeros((len(points), len(columns)))
    logs = np.zeros(len(points))
    for row, point in enumerate(points):
        key, offset = _work(point)
        design[row, [columns[point.part], columns[key]]] = 1.0
        logs[row] = math.log(point.cycles) - offset
    effects = [float(x) for x in np.linalg.lstsq(design, logs, rcond=None)[0]]
    return Calibration(
        core_of={point.part: point.core for point in points},
        part_effect={part: effects[columns[part]] for part in parts},
        work={key: effects[columns[key]] for key in keys},
        component=_components(points),
        power_ratio=_power_ratio(points),
        power_of=_power_of(points),
    )


def leave_one_part_out(points: Sequence[Point]) -> tuple[Prediction, ...]:
    """Every point, predicted by a fit that saw nothing of its part."""
    fits = {part: fit([p for p in points if p.part != part]) for part in {point.part for point in points}}
    return tuple(_predict(fits[point.part], point) for point in points)


def leave_one_board_out(points: Sequence[Point]) -> tuple[Prediction, ...]:
    """Every point, predicted by a fit that saw nothing of its board, but may have seen its part on another."""
    fits = {board: fit([p for p in points if p.board != board]) for board in {point.board for point in points}}
    return tuple(_predict(fits[point.board], point) for point in points)


def summarize(errors: Iterable[float | None], limit: float) -> Summary:
    """Errors in figures; None counts as a point that is not predicted."""
    everything = list(errors)
    known = [error for error in everything if error is not None]
    sizes = [abs(error) for error in known] or [math.nan]
    return Summary(
        points=len(everything),
        predicted=len(known),
        within=sum(abs(error) <= limit for error in known),
        mean=fmean(sizes),
        median=median(sizes),
        largest=max(sizes),
        bias=fmean(known or [math.nan]),
    )


def _predict(calibration: Calibration, point: Point) -> Prediction:
    cycles, power = calibration.cycles(point), calibration.joules_per_cycle(point)
    measured = point.energy_uj is not None
    return Prediction(
        point=point,
        latency_ms=None if cycles is None else cycles / (1e3 * point.megahertz),
        joules_per_cycle=power,
        energy_uj=None if cycles is None or power is None or not measured else 1e6 * cycles * power,
        latency_gap=calibration.gap(point),
        energy_gap=(calibration.power_gap(point) or calibration.gap(point)) if measured else "no energy was submitted",
    )


def _work(point: Point) -> tuple[tuple[str, str], float]:
    """The unknown behind the work of a point, and the logarithm of what is known of it."""
    if point.stack in COUNTED_STACKS:
        return ("CMSIS-NN", "cycles per instruction"), math.log(CMSIS_NN_INSTRUCTIONS[point.task])
    return (point.stack, point.task), 0.0


def _components(points: Sequence[Point]) -> dict[str | tuple[str, str], int]:
    found: dict[str | tuple[str, str], int] = {}
    for number, point in enumerate(points):
        ends = (point.part, _work(point)[0])
        old = {found[end] for end in ends if end in found}
        found |= dict.fromkeys(ends, number)
        found |= {name: number for name, component in found.items() if component in old}
    return found


def _power_ratio(points: Sequence[Point]) -> float | None:
    ratios: dict[str, list[float]] = {}
    for point in points:
        run, spent = RUN_POWER.get((point.part, point.supply)), point.joules_per_cycle
        if run is not None and spent is not None:
            ratios.setdefault(point.part, []).append(math.log(spent / run[0]))
    return fmean(fmean(part) for part in ratios.values()) if ratios else None


def _power_of(points: Sequence[Point]) -> dict[tuple[str, str], float]:
    """The geometric mean of the measured energies of a cycle, by part and supply."""
    found: dict[tuple[str, str], list[float]] = {}
    for point in points:
        if point.joules_per_cycle is not None and point.supply != "not stated":
            found.setdefault((point.part, point.supply), []).append(point.joules_per_cycle)
    return {key: geometric_mean(values) for key, values in found.items()}


def _error(predicted: float | None, measured: float | None) -> float | None:
    return None if predicted is None or measured is None else predicted / measured - 1.0
