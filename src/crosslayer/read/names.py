"""Names that a design can be saved with, near those of the file."""

import re
from typing import final


@final
class Names:
    """Legal names, each given once.

    >>> names = Names()
    >>> names.fresh("model/conv 1;bias"), names.fresh("model/conv_1_bias"), names.fresh("/x")
    ('model/conv_1_bias', 'model/conv_1_bias.2', 'x')
    """

    def __init__(self) -> None:
        """None given so far."""
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}

    def fresh(self, name: str) -> str:
        """A legal name that reminds of `name` and is not taken."""
        stem = re.sub(r"[^A-Za-z0-9_.:/-]", "_", name)[:180]
        stem = re.sub(r"\.\.+", ".", stem).lstrip("/") or "value"
        found = stem
        while found in self._taken:
            self._next[stem] = self._next.get(stem, 1) + 1
            found = f"{stem}.{self._next[stem]}"
        self._taken.add(found)
        return found
