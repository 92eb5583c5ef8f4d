"""What every operation says about itself: shape rule, meaning, cost, and which channels live and die together."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rescale, Rounding
from crosslayer.core.quant import Array, Quant

Shape = tuple[int, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weights:
    """Integer weights, one to an element, and how many bits each takes in flash."""

    codes: Array
    bits: int


Params = Mapping[str, int | float | Array | Weights | Rescale]
"""The constants of an operation's integer arithmetic. Every executor computes from them, the C code included."""

OUTPUT = -1
"""The operand index that means an operation's result, in a `Slot`."""
Slot = tuple[int, int]
"""(operand index or OUTPUT, axis)"""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TensorType:
    """Shape of one sample (no batch axis, channels last) and number code; `quant` None means float32."""

    shape: Shape
    quant: Quant | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def bytes(self) -> int:
        """Bytes of storage."""
        return self.size * (4 if self.quant is None else self.quant.dtype.itemsize)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operand:
    """What an operation is applied to: a type and, for a constant, its value."""

    type: TensorType
    value: Array | None = None

    def code(self) -> Quant:
        """The number code; raises `GraphError` for float32."""
        if self.type.quant is None:
            raise GraphError("has a float operand where integers are expected; quantize the graph first")
        return self.type.quant

    def constant(self) -> Array:
        """The value; raises `GraphError` if it is not a constant."""
        if self.value is None:
            raise GraphError("expects constant weights; this operand is computed at run time")
        return self.value


@final
@dataclass(frozen=True, slots=True, eq=False)
class Tie:
    """Channel `left_index[i]` of one slot and `right_index[i]` of the other live and die together."""

    left: Slot
    right: Slot
    left_index: Array
    right_index: Array


def tie(left: Slot, right: Slot, channels: int) -> Tie:
    """Channel i with channel i."""
    index = np.arange(channels)
    return Tie(left, right, index, index)


class Op(ABC):
    """One kind of operation. A subclass is a frozen dataclass whose fields are its attributes.

    `operands` names what it is applied to; the ones in `weights` are constants. `kernel` names the C file and function
    of its integer meaning; an operation without one only renames bytes (`is_view`) or has no integer meaning.
    `wide_kernel` is that for codes of more than 8 bits, which are stored as int16; it may be the same.
    """

    operands: ClassVar[tuple[str, ...]] = ("x",)
    weights: ClassVar[tuple[str, ...]] = ()
    variadic: ClassVar[bool] = False
    kernel: ClassVar[str] = ""
    wide_kernel: ClassVar[str] = ""
    converts: ClassVar[bool] = False
    """True if codes of up to 8 and of more bits may meet in it."""
    is_view: ClassVar[bool] = False
    channel_axis: ClassVar[int | None] = None
    """For a layer (x, weight, bias): which axis of the weight holds the output channels."""

    @abstractmethod
    def infer(self, shapes: Sequence[Shape]) -> Shape:
        """The shape of the result. Raises `GraphError` without the node's name; the caller adds it."""

    @abstractmethod
    def real(self, xp: Any, *values: Any) -> Any:
        """The result on float values with a leading batch axis; `xp` is NumPy or a namespace that works like it.

        What is applied to no activation has a batch axis of 1, here and in `integer`; the executor repeats it.
        """

    def code(self, codes: Sequence[Quant | None], shapes: Sequence[Shape]) -> Quant | None:
        """The number code that the result must have, given those of the activations; None leaves it free."""
        return None

    @final
    def takes(self, codes: Sequence[Quant | None], shapes: Sequence[Shape]) -> bool:
        """Whether activations of these codes go together; those that do not are to be requantized."""
        try:
            self.code(codes, shapes)
        except GraphError:
            return False
        return True

    @final
    def kernel_for(self, activations: Iterable[TensorType]) -> str:
        """The kernel for a node's activations and result, "" for a view. Raises `GraphError` if there is none."""
        codes = [kind.quant for kind in activations if kind.quant is not None]
        for quant in codes:
            if quant.axis is not None:
                raise GraphError("takes and makes activations with one scale only; scales per channel are for weights")
            if not 2 <= quant.bits <= 16:
                raise GraphError(f"takes and makes activations of 2…16 bits, not {quant.bits}; 1 bit is for weights")
            if quant.bits > 8 and any(quant.zero):
                raise GraphError("activations of more than 8 bits must have zero 0 (TFLite int16 specification)")
        widths = {is_wide(quant) for quant in codes}
        if len(widths) > 1 and not self.converts:
            raise GraphError("has codes of up to 8 and of more bits; put a Requantize between them")
        if True in widths and not (self.wide_kernel or self.is_view):
            raise GraphError("has no integer meaning for codes of more than 8 bits; give it a code of at most 8")
        return self.wide_kernel if True in widths else self.kernel

    @abstractmethod
    def lower(self, operands: Sequence[Operand], output: TensorType, rounding: Rounding) -> Params:
        """The constants of the integer meaning. Raises `GraphError` if there is none."""

    @abstractmethod
    def integer(self, params: Params, *codes: Array) -> Array:
        """The result on integer activations with a leading batch axis, int64, before storage. The judge."""

    def macs(self, shapes: Sequence[Shape], output: Shape) -> int:
        """Multiply-accumulate operations for one sample."""
        return 0

    @abstractmethod
    def ties(self, shapes: Sequence[Shape], output: Shape) -> Iterable[Tie]:
        """Which channels live and die together."""

    def frozen(self) -> Iterable[Slot]:
        """Slots whose channels must all stay."""
        return ()


def is_wide(quant: Quant) -> bool:
    """True if codes are stored as int16."""
    return quant.bits > 8


def same_channels(inputs: int, output: Shape) -> Iterable[Tie]:
    """Ties of an operation that keeps channels apart: channel i of each input is channel i of the result."""
    return [tie((i, -1), (OUTPUT, -1), output[-1]) for i in range(inputs)]


def scalar(params: Params, name: str) -> int:
    """An integer parameter."""
    value = params[name]
    assert isinstance(value, int), name
    return value


def table(params: Params, name: str) -> Array:
    """An array parameter."""
    value = params[name]
    if isinstance(value, Weights):
        return value.codes
    assert isinstance(value, np.ndarray), name
    return value


def rescaler(params: Params, name: str = "rescale") -> Rescale:
    """A rescaling parameter."""
    value = params[name]
    assert isinstance(value, Rescale), name
    return value
