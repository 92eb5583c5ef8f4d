"""Where the constants of a step lie in RAM if they are fetched before it runs."""

from collections.abc import Mapping, Sequence

from crosslayer.core.plan import Plan
from crosslayer.kernels.steps import Step
from crosslayer.kernels.weight_check import words_of

BLOCK = 16
"""Every table begins at a multiple of this many bytes, in flash and in RAM: the block of AES, and MODEL_ARENA_ALIGN."""


def fetched_places(steps: Sequence[Step], plan: Plan) -> tuple[Mapping[str, Mapping[str, int]], int]:
    """By step and field the offset of its table among all that its turn needs, and the bytes of the largest turn.

    Steps that run together keep theirs at once.
    """
    places: dict[str, dict[str, int]] = {}
    sizes = dict.fromkeys(plan.turns, 0)
    for step in steps:
        turn = next(turn for turn in plan.turns if step.name in turn)
        places[step.name] = {}
        for name, value in step.fields.items():
            size = 4 * len(words_of(value))
            if size:
                places[step.name][name] = sizes[turn]
                sizes[turn] += in_blocks(size)
    return places, max(sizes.values(), default=0)


def in_blocks(size: int) -> int:
    """`size` rounded up to whole blocks.

    >>> in_blocks(17)
    32
    """
    return -(-size // BLOCK) * BLOCK
