"""Activations that are fused into the operation before them."""

from enum import StrEnum
from typing import Any

import numpy as np

from crosslayer.core.fixed import Rule
from crosslayer.core.quant import Quant


class Activation(StrEnum):
    """A clamp of the result. In integers it costs nothing: the bounds of the saturation change."""

    NONE = "none"
    RELU = "relu"
    RELU6 = "relu6"

    def real(self, xp: Any, value: Any) -> Any:
        """The activation of float values."""
        if self is Activation.NONE:
            return value
        return xp.clip(value, 0.0, 6.0 if self is Activation.RELU6 else None)

    def bounds(self, quant: Quant, rule: Rule) -> dict[str, int]:
        """`low` and `high`: the codes to clamp to (TFLite `CalculateActivationRangeQuantized`).

        Under `Rule.FLOAT` the code of 6 is rounded to even after the zero is added (XNNPACK `xnn_qs8_quantize`).
        """
        low, high = quant.lowest, quant.highest
        if self is not Activation.NONE:
            low = max(low, quant.zero[0])
        if self is Activation.RELU6:
            six = np.float32(6.0) / np.float32(quant.scale[0])
            if rule is Rule.FLOAT:
                high = min(high, int(np.rint(six + np.float32(quant.zero[0]))))
            else:
                high = int(quant.encode(np.array(6.0)))
        return {"low": low, "high": high}
