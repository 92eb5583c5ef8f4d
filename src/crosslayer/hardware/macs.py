"""What one multiply-accumulate of the kernels costs."""

from collections.abc import Mapping
from types import MappingProxyType

from crosslayer.core.target import Figure

_MEASURED = {
    1: (10.0, 8.2, 18.5),
    2: (9.0, 6.8, 20.9),
    3: (9.3, 7.7, 21.2),
    4: (7.6, 7.4, 15.9),
    5: (9.6, 8.3, 20.7),
    6: (9.5, 8.6, 21.4),
    7: (9.8, 8.8, 21.1),
    8: (6.0, 4.4, 10.4),
}
_NARROW = "benchmarks/instructions.py: the mean of three networks on a Cortex-M4, the bounds also on Cortex-M0 and RV32"
_WIDE = "benchmarks/instructions.py: int8 kernels, five networks on five cores"

INSTRUCTIONS_PER_MAC: Mapping[int, Figure] = MappingProxyType(
    {
        bits: Figure(value=value, low=low, high=high, source=_NARROW if bits < 8 else _WIDE)
        for bits, (value, low, high) in _MEASURED.items()
    }
)
"""Instructions per multiply-accumulate by bits of the weights, activations of 8 bits; with the unpacking. Emulated."""
