"""The ONNX project's own backend tests, read by our reader and run by the judge; `python tests/onnx_conformance.py`
writes what comes of them to docs/onnx.md."""

import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from crosslayer.core.errors import CrosslayerError
from crosslayer.core.quant import Array
from crosslayer.execute import reference
from crosslayer.read.onnx import MICROSOFT, OPERATORS, onnx_reading
from crosslayer.read.tensors import Reading

PAGE = Path(__file__).parents[1] / "docs" / "onnx.md"
SETS = ("pytorch-converted", "pytorch-operator")
"""Whole networks of one or a few operators, exported by an early PyTorch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model, its inputs and what its first output must be."""

    name: str
    group: str
    model: onnx.ModelProto
    inputs: Sequence[Array]
    expected: Array
    rtol: float
    atol: float


@cache
def cases() -> tuple[Case, ...]:
    """Every case of an operator in our table, and every network of `SETS`."""
    return (*_node_cases(), *(case for kind in SETS for case in _network_cases(kind)))


def outcome(case: Case) -> str:
    """Empty if the case's result is the expected one, else why it was refused. Raises `AssertionError` otherwise.

    All inputs but the first are bound as constants. The first axis of the first input is taken as that of a batch, and
    if that is refused, as part of the sample.
    """
    raw, refusal = _bound(case), ""
    for batched in (True, False):
        try:
            reading = onnx_reading(raw, batched=batched)
        except CrosslayerError as error:
            refusal = _reason(str(error))
            continue
        found = _run(reading, case)
        np.testing.assert_allclose(found, case.expected, case.rtol, case.atol, err_msg=case.name)
        return ""
    return refusal


def page() -> str:
    """The text of docs/onnx.md."""
    found: dict[str, Counter[str]] = {}
    for case in cases():
        found.setdefault(case.group, Counter())[outcome(case)] += 1
    operators = [_row(f"`{name}`", found.pop(name, Counter())) for name in sorted(OPERATORS)]
    networks = [_row(name, found[name]) for name in SETS]
    return _TEXT.format(
        version=onnx.__version__,
        operators="\n".join(operators),
        networks="\n".join(networks),
        microsoft=", ".join(f"`{name}`" for name in sorted(MICROSOFT)),
    )


def _row(name: str, counts: Counter[str]) -> str:
    reasons = "; ".join(f"{reason} ({n})" for reason, n in sorted(counts.items()) if reason)
    refused = sum(n for reason, n in counts.items() if reason)
    return f"| {name} | {counts['']} | {refused or ''} | {reasons} |"


def _run(reading: Reading, case: Case) -> Array:
    x = case.inputs[0]
    if x.dtype in (np.uint8, np.uint16):  # our codes are signed
        x = (x.astype(np.int64) - (1 << (8 * x.dtype.itemsize - 1))).astype(f"int{8 * x.dtype.itemsize}")
    result = reading.results[0].tensor(reference.run(reading.graph, reading.source.stored(x)))
    unsigned = case.expected.dtype in (np.uint8, np.uint16)
    return result.astype(np.int64) + (1 << (8 * result.dtype.itemsize - 1)) if unsigned else result


def _bound(case: Case) -> bytes:
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    for value, given in zip(model.graph.input[1:], case.inputs[1:], strict=False):  # old files list weights as inputs
        model.graph.initializer.append(numpy_helper.from_array(given, value.name))
    return model.SerializeToString()


def _reason(message: str) -> str:
    """What is wrong, without the place and the figures."""
    what = message.split("\n")[-1].split("; ")[0].split("): ")[-1].split(": ")[-1]
    return re.sub(r"\[[\d, \-\[\]]*\]|\d+\.\d+", "…", what)


def _node_cases() -> Iterator[Case]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of the tests overflow on purpose
        collected = collect_testcases(None)
    for case in collected:
        nodes = case.model.graph.node
        if len(nodes) != 1 or nodes[0].op_type not in OPERATORS or nodes[0].domain not in ("", "ai.onnx"):
            continue
        inputs, outputs = case.data_sets[0]
        if case.model.graph.input and all(isinstance(value, (np.ndarray, np.generic)) for value in inputs):
            yield Case(
                name=case.name,
                group=nodes[0].op_type,
                model=case.model,
                inputs=[np.asarray(value) for value in inputs],
                expected=np.asarray(outputs[0]),
                rtol=case.rtol,
                atol=case.atol,
            )


def _network_cases(kind: str) -> Iterator[Case]:
    from onnx.backend.test.loader import load_model_tests

    for case in sorted(load_model_tests(kind=kind), key=lambda case: case.name):
        folder = Path(case.model_dir)
        model = onnx.load_model_from_string((folder / "model.onnx").read_bytes())
        data = folder / "test_data_set_0"
        inputs = [_tensor(data / f"input_{i}.pb") for i in range(len(list(data.glob("input_*.pb"))))]
        yield Case(
            name=case.name,
            group=kind,
            model=model,
            inputs=inputs,
            expected=_tensor(data / "output_0.pb"),
            rtol=case.rtol,
            atol=max(case.atol, 1e-6),  # the files hold what float32 arithmetic in another order gave
        )


def _tensor(path: Path) -> Any:
    proto = onnx.TensorProto()
    proto.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(proto)


_TEXT = """# ONNX

What `crosslayer.read.onnx` reads. A network has one input, a fixed shape but for its batch axis, and float32, float16,
int8 or uint8 inputs. A file with anything else is refused as a whole, with a list of all that cannot be read.

Quantized networks are read as the integers they hold: QuantizeLinear and DequantizeLinear pairs around operators, or
QLinear operators. Weights must be symmetric; scales of activations are per tensor. Of com.microsoft's operators these
are read: {microsoft}.

Shapes that a network computes from its input's shape, and operators on constants, are computed while reading.

## The ONNX project's backend tests

The cases of onnx {version}. All inputs but the first are bound as constants; results are compared within the tolerance
of each case. None has another result than the expected one: what is not passed is refused. This page is written by
`tests/onnx_conformance.py`, and a test checks that it is current.

| operator | passed | refused | why |
|---|---|---|---|
{operators}

Networks of one or a few operators from the same source, whatever their operators:

| set | passed | refused | why |
|---|---|---|---|
{networks}
"""

if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
