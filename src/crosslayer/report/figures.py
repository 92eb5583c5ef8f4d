"""Figures as text: a unit that suits the size, as many digits as say something, and the exact value beside it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from crosslayer.core.score import Origin, Score

SHARE = "1"
"""The unit of a share, shown in percent."""

ORIGINS: Mapping[Origin, str] = {
    Origin.MEASURED: "counted or run on the computer that wrote this page",
    Origin.EMULATED: "the firmware ran on an emulated core, instruction by instruction",
    Origin.PREDICTED: "summed from parts measured on an emulated core: what the firmware shows there, without a build",
    Origin.MODELLED: "from a formula; the interval says how far to trust it",
    Origin.PUBLISHED: "taken from the source that the note names",
}

_GAP = "\u00a0"  # a line break between a number and its unit would hurt both
_UNKNOWN = "unknown"
_SPELLED = {"macs": "MACs", "ram": "RAM"}
_SCALES: Mapping[str, tuple[tuple[float, str], ...]] = {
    SHARE: ((1e-2, "%"),),
    "B": ((2.0**20, "MiB"), (2.0**10, "KiB"), (1, "B")),
    "s": ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "J": ((1, "J"), (1e-3, "mJ"), (1e-6, "µJ"), (1e-9, "nJ")),
    "W": ((1, "W"), (1e-3, "mW"), (1e-6, "µW")),
    "W/Hz": ((1, "W/Hz"), (1e-3, "mW/Hz"), (1e-6, "µW/Hz"), (1e-9, "nW/Hz"), (1e-12, "pW/Hz")),
    "Hz": ((1e9, "GHz"), (1e6, "MHz"), (1e3, "kHz"), (1, "Hz")),
}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A value in `unit` times `factor` is a value in the unit it came in; numbers keep `digits` significant digits."""

    factor: float
    unit: str
    digits: int

    def number(self, value: float) -> str:
        """The value's number on this scale, without the unit."""
        return _number(value / self.factor, self.digits)

    def text(self, value: float) -> str:
        """Number and unit on this scale."""
        return f"{self.number(value)}{_GAP}{self.unit}".strip(_GAP)


def scale(value: float, unit: str) -> Scale:
    """The scale on which a value reads best.

    >>> scale(0.0123, "s").unit
    'ms'
    """
    rows = _SCALES.get(unit, ((1, unit),))
    whole = min(rows, key=lambda row: abs(math.log(row[0])))  # the unit itself, where there is one
    fitting = (row for row in rows if abs(value) >= row[0])
    factor, label = whole if value == 0 or not math.isfinite(value) else next(fitting, rows[-1])
    fine = unit == "B" or (unit == SHARE and abs(value) >= 0.1)
    return Scale(factor=factor, unit=label, digits=4 if fine else 3)


def amount(value: float, unit: str) -> str:
    """A value as people read it.

    >>> amount(36_044, "B").split()
    ['35.2', 'KiB']
    """
    return scale(value, unit).text(value) if not math.isnan(value) else _UNKNOWN


def exact(value: float, unit: str) -> str:
    """All digits of a value, in the unit it came in.

    >>> exact(36_044.0, "B")
    '36044 B'
    """
    plain = float(value)
    digits = str(int(plain)) if plain.is_integer() and abs(plain) < 1e15 else repr(plain)
    return digits if unit == SHARE else f"{digits} {unit}".strip()


def between(low: float, high: float, value: float, unit: str) -> str:
    """The interval of a value on the value's own scale; empty where the two ends meet.

    >>> between(1.1e-3, 0.01, 2.2e-3, "J").split()
    ['1.1', '…', '10', 'mJ']
    """
    if low == high or math.isnan(value):
        return ""
    chosen = scale(value or high, unit)
    return f"{chosen.number(low)}{_GAP}…{_GAP}{chosen.text(high)}"


def interval(score: Score) -> str:
    """The interval of a score; empty for a figure that has none."""
    return between(score.low, score.high, score.value, score.unit)


def difference(value: float, unit: str) -> str:
    """A difference of two values; that of two shares is in percentage points.

    >>> difference(0.0028, SHARE).split()
    ['0.28', 'points']
    """
    return f"{_number(100 * value, 3)}{_GAP}points" if unit == SHARE else amount(value, unit)


def change(before: float, after: float, unit: str) -> str:
    """What became of a figure from one step to the next; empty if nothing did.

    >>> change(200, 150, "B").split()
    ['−25', '%']
    """
    if before == after or not (math.isfinite(before) and math.isfinite(after)):
        return ""
    sign = "+" if after > before else "−"
    if unit == SHARE:
        return f"{sign}{difference(abs(after - before), unit)}"
    return f"{sign}{_number(100 * abs(after / before - 1), 2)}{_GAP}%" if before else ""


def spell(name: str) -> str:
    """The name of a figure or requirement as a heading.

    >>> spell("accuracy_drop"), spell("macs")
    ('Accuracy drop', 'MACs')
    """
    words = name.replace("_", " ")
    return _SPELLED.get(name, words[:1].upper() + words[1:])


def _number(value: float, digits: int) -> str:
    if not math.isfinite(value):
        return _UNKNOWN if math.isnan(value) else "∞" if value > 0 else "−∞"
    size = abs(value)
    if size and not 1e-4 <= size < 1e15:
        return f"{value:.{digits}g}".replace("-", "−")
    places = max(0, digits - 1 - math.floor(math.log10(size))) if size else 0
    text = f"{value:,.{places}f}"
    return (text.rstrip("0").rstrip(".") if places else text).replace("-", "−")
