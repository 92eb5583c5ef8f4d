"""Time of a program on a device, from the number of instructions that it executes."""

from crosslayer.core.errors import InputError
from crosslayer.core.target import Target
from crosslayer.hardware.estimate import Cycles, Estimate, Seconds


def cycles(instructions: int, target: Target) -> Estimate[Cycles]:
    """Core cycles: instructions × cycles per instruction.

    One ratio stands for the pipeline, dual issue, caches and flash wait states of the target, averaged over int8
    inference. Layers differ from that average and from one another; nothing below a whole network is modelled.
    """
    if instructions < 0:
        raise InputError(f"{instructions} instructions: a program cannot execute fewer than none; count them again")
    ratio = target.cycles_per_instruction
    return Estimate(
        value=Cycles(instructions * ratio.value),
        low=Cycles(instructions * ratio.low),
        high=Cycles(instructions * ratio.high),
    )


def latency(instructions: int, target: Target) -> Estimate[Seconds]:
    """Seconds: instructions × cycles per instruction ÷ clock, with the limits of `cycles`.

    Interrupts, an operating system and waiting for a sensor come on top. The clock is taken as exact.

    >>> from crosslayer.hardware.catalogue import load_target
    >>> [round(1e3 * seconds, 1) for seconds in latency(8_732_237, load_target("stm32l4r5"))]
    [103.3, 86.6, 122.3]
    """
    spent = cycles(instructions, target)
    return Estimate(
        value=Seconds(spent.value / target.clock_hz),
        low=Seconds(spent.low / target.clock_hz),
        high=Seconds(spent.high / target.clock_hz),
    )
