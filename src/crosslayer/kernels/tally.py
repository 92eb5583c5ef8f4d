"""How often the parts of C code run, and what that costs in instructions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

_UNROLLED = (1, 2, 3, 4, 8)
"""By how many passes a compiler may join the passes of a loop."""


@final
@dataclass(slots=True)
class Tally:
    """Counts of events, and of loops by how many passes they take."""

    events: dict[str, int] = field(default_factory=dict[str, int])
    loops: dict[tuple[str, int], int] = field(default_factory=dict[tuple[str, int], int])

    def add(self, event: str, times: int = 1) -> None:
        """It happens so many times."""
        self.events[event] = self.events.get(event, 0) + times

    def loop(self, label: str, passes: int, times: int = 1) -> None:
        """A loop that takes so many passes is run through so many times."""
        self.loops[label, passes] = self.loops.get((label, passes), 0) + times

    def join(self, other: "Tally", times: int = 1) -> None:
        """What another one has, so many times."""
        for event, count in other.events.items():
            self.add(event, times * count)
        for (label, passes), count in other.loops.items():
            self.loop(label, passes, times * count)

    def parts(self) -> dict[str, int]:
        """Everything that an instruction count is linear in, by name.

        The count of a loop of n passes, joined by k each, is linear in n // k, in whether n passes are at least k, and
        in whether some are left over.
        """
        found = dict(self.events)
        for (label, passes), times in self.loops.items():
            for name, value in _shape(passes).items():
                found[f"{label}{name}"] = found.get(f"{label}{name}", 0) + times * value
        return found


def _shape(passes: int) -> dict[str, int]:
    parts: dict[str, int] = {}
    for k in _UNROLLED:
        parts[f" //{k}"] = passes // k
        parts[f" >={k}"] = int(passes >= k)
        if k > 1:
            parts[f" %{k}"] = int(passes % k > 0)
    return parts


def instructions(tally: Tally, costs: Mapping[str, int]) -> int | None:
    """The sum of everything times its cost; None if something has none."""
    total = 0
    for name, times in tally.parts().items():
        cost = costs.get(name)
        if cost is None:
            return None
        total += times * cost
    return total


def where(there: bool, at: int, width: int) -> str:
    """Where a place lies that a row of that width may have."""
    return "nowhere" if not there else "before" if at < 0 else "inside" if at < width else "behind"
