"""What one multiply-accumulate of the kernels costs."""

from collections.abc import Mapping
from types import MappingProxyType

from crosslayer.core.target import Figure

_SOURCE = "benchmarks/instructions.py"

INSTRUCTIONS_PER_MAC: Mapping[int, Figure] = MappingProxyType(
    {
        1: Figure(value=10.0, low=8.2, high=18.5, source=f"{_SOURCE}: 1-bit weights, three networks, three cores"),
        2: Figure(value=9.0, low=6.8, high=20.9, source=f"{_SOURCE}: 2-bit weights, three networks, three cores"),
        3: Figure(value=9.3, low=7.7, high=21.2, source=f"{_SOURCE}: 3-bit weights, three networks, three cores"),
        4: Figure(value=7.6, low=7.4, high=15.9, source=f"{_SOURCE}: 4-bit weights, three networks, three cores"),
        5: Figure(value=9.6, low=8.3, high=20.7, source=f"{_SOURCE}: 5-bit weights, three networks, three cores"),
        6: Figure(value=9.5, low=8.6, high=21.4, source=f"{_SOURCE}: 6-bit weights, three networks, three cores"),
        7: Figure(value=9.8, low=8.8, high=21.1, source=f"{_SOURCE}: 7-bit weights, three networks, three cores"),
        8: Figure(value=6.0, low=4.4, high=10.4, source=f"{_SOURCE}: int8 kernels, five networks on five cores"),
    }
)
"""Instructions per multiply-accumulate by bits of the weights, activations of 8 bits; with the unpacking. Emulated."""
