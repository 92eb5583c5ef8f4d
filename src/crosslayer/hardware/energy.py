"""Energy of a program on a device, from the number of instructions that it executes."""

from crosslayer.core.target import Target
from crosslayer.hardware.cycles import cycles
from crosslayer.hardware.estimate import Estimate, Joules


def energy(instructions: int, target: Target) -> Estimate[Joules] | None:
    """Joules: cycles × active power per hertz; None where no power of the target is known.

    The power is that of the whole chip while the core computes at the clock and supply that the target names: leakage
    and the clock tree are in it, the rest of the board is not. It is one number for all code; published runs of
    different networks in one configuration differ by up to 8 %. Sleep between inferences costs extra.

    >>> from crosslayer.hardware.catalogue import load_target
    >>> [round(1e3 * joules, 2) for joules in energy(8_732_237, load_target("stm32l4r5"))]
    [4.59, 3.33, 6.75]
    """
    power = target.active_power
    if power is None:
        return None
    spent = cycles(instructions, target)
    return Estimate(
        value=Joules(spent.value * power.value),
        low=Joules(spent.low * power.low),
        high=Joules(spent.high * power.high),
    )
