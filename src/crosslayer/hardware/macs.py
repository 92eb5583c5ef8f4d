"""What one multiply-accumulate of the kernels costs."""

from collections.abc import Mapping
from types import MappingProxyType

from crosslayer.core.target import Figure

_MEASURED = {
    1: (10.1, 8.3, 19.1),
    2: (9.0, 6.6, 21.2),
    3: (9.4, 7.8, 21.7),
    4: (7.6, 7.6, 15.9),
    5: (9.8, 8.4, 21.3),
    6: (9.6, 8.8, 22.1),
    7: (10.0, 9.0, 21.7),
    8: (1.6, 0.2, 9.7),
}
_NARROW = "benchmarks/instructions.py: the mean of three networks on a Cortex-M4, the bounds also on Cortex-M0 and RV32"
_WIDE = "benchmarks/instructions.py: int8 kernels, five networks on six cores, the mean of those on a Cortex-M4"

INSTRUCTIONS_PER_MAC: Mapping[int, Figure] = MappingProxyType(
    {
        bits: Figure(value=value, low=low, high=high, source=_NARROW if bits < 8 else _WIDE)
        for bits, (value, low, high) in _MEASURED.items()
    }
)
"""Instructions per multiply-accumulate by bits of the weights, activations of 8 bits; with the unpacking. Emulated."""
