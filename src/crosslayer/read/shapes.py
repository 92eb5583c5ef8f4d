"""Shapes and axes as network files count them."""

import math
from collections.abc import Sequence
from dataclasses import replace

from crosslayer.core.graph.operation import Shape
from crosslayer.core.graph.ops.windows import Pair, Windows
from crosslayer.read.problems import Unreadable


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from 0, where −1 is the last one of `rank`. Raises `Unreadable` if there is none.

    >>> axis_of(-1, 4)
    3
    """
    if not -rank <= axis < rank:
        raise Unreadable(f"axis {axis} is not one of {rank}", "correct the axis")
    return axis % rank


def filled(shape: Sequence[int], size: int) -> Shape:
    """A shape of `size` elements with its −1 replaced by what is left.

    >>> filled((2, -1), 6)
    (2, 3)
    """
    rest = math.prod(side for side in shape if side != -1)
    if any(side < -1 for side in shape) or list(shape).count(-1) > 1 or (-1 in shape and rest < 1):
        raise Unreadable(f"reshapes to {list(shape)}", "correct the shape")
    return tuple(size // rest if side == -1 else side for side in shape)


def pair(values: Sequence[int]) -> Pair:
    """(height, width) of one or two numbers, one for each axis that is slid over.

    >>> pair([3])
    (1, 3)
    """
    if len(values) not in (1, 2):
        raise Unreadable(f"slides over {len(values)} axes", "slide over one or two")
    return (values[0], values[1]) if len(values) == 2 else (1, values[0])


def rounded_up(windows: Windows, shape: Shape) -> Windows:
    """Padding below and to the right as far as pools that round their size up reach: no window starts in it."""
    margins: list[int] = []
    top, bottom, left, right = windows.padding
    for side, reach, stride, (before, after) in zip(
        shape[:2], windows.reach(), windows.stride, ((top, bottom), (left, right)), strict=True
    ):
        free = side + before + after - reach
        places = -(-free // stride) + 1
        if (places - 1) * stride >= side + before:
            places -= 1
        margins += [before, after + max((places - 1) * stride - free, 0)]
    return replace(windows, padding=(margins[0], margins[1], margins[2], margins[3]))


def blocks(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The finest pairs of runs of sides with equal products: which axes of one shape become which of another.

    >>> blocks([6, 4], [2, 3, 4])
    [([0], [0, 1]), ([1], [2])]
    """
    blocks: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before):
        left, right = [i], [j]
        a, b = before[i], after[j]
        i, j = i + 1, j + 1
        while a != b:
            if a < b:
                left.append(i)
                a, i = a * before[i], i + 1
            else:
                right.append(j)
                b, j = b * after[j], j + 1
        blocks.append((left, right))
    return blocks
