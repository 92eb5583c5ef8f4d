"""Where the names of rectangles fit: inside, inside and upright, above, or nowhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

LETTER, LINE = 6.3, 13.0
"""Width of a letter and height of a line in pixels at the pictures' type size, rather too large than too small."""


@final
class Rectangle(NamedTuple):
    """Left, top, width and height, in pixels from the top left."""

    x: float
    y: float
    width: float
    height: float

    def meets(self, other: "Rectangle") -> bool:
        """True if the two share a point that is not on their edges."""
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """Text centred at a point; upright text is turned by a quarter."""

    text: str
    x: float
    y: float
    upright: bool = False


def place_labels(boxes: Sequence[Rectangle], texts: Sequence[Sequence[str]]) -> tuple[Label | None, ...]:
    """For each box the first of its texts that fits, at the first place where it covers nothing.

    >>> place_labels([Rectangle(0, 0, 80, 20)], [["dense1"]])
    (Label(text='dense1', x=40.0, y=10.0, upright=False),)
    """
    taken = list(boxes)
    labels: list[Label | None] = []
    for box, wanted in zip(boxes, texts, strict=True):
        label = next((spot for text in wanted for spot in _spots(box, text, taken)), None)
        if label is not None and box.height < LINE:
            wide = len(label.text) * LETTER
            taken.append(Rectangle(label.x - wide / 2, label.y - LINE / 2, wide, LINE))
        labels.append(label)
    return tuple(labels)


def _spots(box: Rectangle, text: str, taken: Sequence[Rectangle]) -> Iterator[Label]:
    wide = len(text) * LETTER + 4
    middle, centre = round(box.x + box.width / 2, 1), round(box.y + box.height / 2, 1)
    if box.height >= LINE:
        if wide <= box.width:
            yield Label(text=text, x=middle, y=centre)
        elif wide <= box.height and box.width >= LINE:
            yield Label(text=text, x=middle, y=centre, upright=True)
        return
    above = Rectangle(middle - wide / 2, box.y - 1 - LINE, wide, LINE)
    if wide <= box.width + LETTER and above.y >= 0 and not any(above.meets(other) for other in taken):
        yield Label(text=text, x=middle, y=round(above.y + LINE / 2, 1))
