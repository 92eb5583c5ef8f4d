"""Networks as files on the command line and in studies: read, quantized, verified, written."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands import Answer, call, tree
from crosslayer.core.design import load_design
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import Activation, Conv2d, Dense, Reshape, Softmax, Windows
from crosslayer.networks.zoo import network
from crosslayer.read.tflite import read_tflite
from crosslayer.write.tflite import write_tflite
from datasets_samples import write_idx_set


def classifier(seed: int) -> Graph:
    """A float network for the small digits, with random weights."""
    rng, b = np.random.default_rng(seed), Builder()
    w, c = b.constant("w", rng.normal(size=(4, 3, 3, 1))), b.constant("c", rng.normal(size=4))
    x = b.add(Conv2d(windows=Windows(kernel=(3, 3)), activation=Activation.RELU), b.input("x", (8, 8, 1)), w, c)
    w, c = b.constant("w2", rng.normal(size=(10, 144))), b.constant("c2", rng.normal(size=10))
    return b.graph(b.add(Softmax(), b.add(Dense(), b.add(Reshape(shape=(144,)), x), w, c)))


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("networks") / "floats.tflite"
    path.write_bytes(write_tflite(classifier(0)))
    return path


@pytest.fixture(scope="module")
def integers(floats: Path) -> Path:
    path = floats.with_name("integers.tflite")
    assert call("quantize", floats, path, "--data", "digits").status == 0
    return path


def answered(answer: Answer) -> dict[str, Any]:
    assert answer.err == ""
    document = json.loads(answer.out)
    assert isinstance(document, dict)
    return document


def held(graph: Graph, bits: int) -> int:
    """Bytes of the weights, and of the biases, of a network of two layers; what never counts is gone."""
    weights, biases = ([graph.constants[n] for n in names] for names in (("w", "w2"), ("c", "c2")))
    return sum(-(-w.size * bits // 8) for w in weights) + sum(4 * b.size for b in biases)


def test_quantize_writes_integers_and_says_what_they_cost(floats: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.tflite"
    found = answered(call("quantize", floats, out, "--data", "digits", "--weights", "4", "--json"))
    assert found["out"] == str(out)
    assert 0 <= found["accuracy"] <= 1
    graph = read_tflite(out)
    assert found["weights_bytes"] == held(graph, 4) <= (36 + 1440) // 2 + 14 * 4
    assert found["saving"] == pytest.approx((36 + 1440 + 14) * 4 / found["weights_bytes"])
    assert graph.is_integer
    assert max(np.abs(graph.constants[n]).max() for n in ("w", "w2")) == 7


def test_quantize_can_train_for_the_integers(floats: Path, tmp_path: Path) -> None:
    command = ("quantize", floats, tmp_path / "out", "--data", "digits", "--weights", "2", "--epochs", "1", "--json")
    found = answered(call(*command))
    design = load_design(tmp_path / "out")
    assert found["weights_bytes"] == held(design.graph, 2) <= (36 + 1440) // 4 + 14 * 4
    assert [step.stage.partition("(")[0] for step in design.trail][-3:] == [
        "quantize-aware",
        "simplify-integers",
        "plan-arena",
    ]
    assert design.plan is not None


def test_what_has_integers_is_not_quantized_again(integers: Path, tmp_path: Path) -> None:
    answer = call("quantize", integers, tmp_path / "x.tflite", "--data", "digits")
    assert answer.status == 2
    assert "has integers already" in answer.err
    assert tree(tmp_path) == {}


def test_convert_goes_there_and_back(integers: Path, tmp_path: Path) -> None:
    assert answered(call("convert", integers, tmp_path / "design", "--json"))["integer"] is True
    assert call("convert", tmp_path / "design", tmp_path / "back.tflite").status == 0
    assert (tmp_path / "back.tflite").read_bytes() == integers.read_bytes()


def test_convert_takes_the_place_of_a_design_and_of_nothing_else(integers: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert call("convert", integers, tmp_path / "design").status == 0
    (tmp_path / "photos").mkdir()
    answer = call("convert", integers, tmp_path / "photos")
    assert answer.status == 2
    assert "is there and is no design" in answer.err


def test_a_normalization_is_folded_where_the_format_has_none(tmp_path: Path) -> None:
    path = tmp_path / "resnet8.tflite"
    graph = network("resnet8", (8, 8, 3), 10, 0)
    from crosslayer.core.design import Design, save_design
    from crosslayer.hardware.catalogue import load_target

    save_design(Design(graph=graph, target=load_target("stm32f769")), tmp_path / "design")
    assert call("convert", tmp_path / "design", path).status == 0
    from crosslayer.execute import exact

    x = np.random.default_rng(0).random((4, 8, 8, 3)).astype(np.float32)
    assert np.allclose(exact.run(read_tflite(path), x), exact.run(graph, x), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("convert", "{integers}", "{out}/net.pb"), "'.pb' cannot be written"),
        (("convert", "{out}/lost.onnx", "{out}/net.tflite"), "lost.onnx: is not there"),
        (("convert", "pyproject.toml", "{out}/net.tflite"), "'.toml' is no network file"),
        (("convert", "{integers}", "{out}/net.tflite", "--rounding", "up"), "--rounding"),
        (("verify", "{floats}"), "is a float network; quantize it first"),
        (("verify", "{integers}", "--against", "tvm"), "is no runtime that can be compared with"),
        (("emulate", "{floats}"), "is a float network; quantize it first"),
        (("quantize", "{floats}", "{out}/q.tflite", "--data", "mnist8"), "mnist8"),
        (("quantize", "{floats}", "{out}/q.pb", "--data", "digits"), "'.pb' cannot be written"),
        (
            ("quantize", "{floats}", "{out}/q.tflite", "--data", "{other}"),
            "takes samples of [8, 8, 1], other has [5, 4, 1]",
        ),
        (("verify", "{integers}", "--data", "{other}"), "takes samples of [8, 8, 1], other has [5, 4, 1]"),
        (("quantize", "{floats}", "{out}/q.tflite", "--data", "digits", "--ranges", "narrow"), "options.ranges"),
        (("quantize", "{floats}", "{out}/q.tflite", "--data", "digits", "--activations", "4"), "4-bit activations"),
    ],
)
def test_what_cannot_be_done_is_one_message_and_nothing_is_written(
    arguments: tuple[str, ...], message: str, floats: Path, integers: Path, tmp_path: Path
) -> None:
    out, other = tmp_path / "out", write_idx_set(tmp_path / "other")
    out.mkdir()
    answer = call(*(part.format(floats=floats, integers=integers, out=out, other=other) for part in arguments))
    assert answer.status == 2
    assert message in answer.err
    assert answer.err.count("error:") == 1
    assert tree(out) == {}


def test_a_file_is_verified_against_litert(integers: Path) -> None:
    command = ("verify", integers, "--against", "litert", "--samples", "50", "--emulated", "2", "--json")
    found = answered(call(*command))
    assert found["differing_bytes"] == 0
    assert (found["samples"], found["ops"]) == (50, 4)
    assert {check["executor"] for check in found["checks"]} == {"exact", "native", "cortex-m4"}


def test_a_file_runs_on_an_emulated_core(integers: Path) -> None:
    found = answered(call("emulate", integers, "--samples", "2", "--json"))
    assert found["differing_bytes"] == 0
    assert {"instructions", "flash", "ram", "stack"} <= set(found)


def test_a_file_is_inspected(integers: Path) -> None:
    found = answered(call("inspect", integers, "--target", "stm32l4r5", "--json"))
    assert [node["operation"] for node in found["nodes"]] == ["Conv2d", "Reshape", "Dense", "Softmax"]


STUDY = """
samples = 2
[network]
source = "{network}"
[data]
source = "digits"
scale = 2.0
[target]
name = "stm32f769"
[require]
differing_bytes = 0
"""


def test_a_study_of_a_file_with_integers_only_plans_them(integers: Path, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY.format(network=integers))
    answer = call("run", tmp_path / "study.toml", "--out", tmp_path / "out", "--json")
    assert answer.status == 0, answer.err
    design = load_design(tmp_path / "out" / "design")
    assert [step.stage.partition("(")[0] for step in design.trail] == ["simplify-integers", "plan-arena"]
    assert design.graph == read_tflite(integers)


def test_a_study_can_name_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_networks.py").write_text(
        "from crosslayer.networks.zoo import network\n"
        "def small(shape, classes):\n    return network('lenet5', shape, classes, 5)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    stages = '[[stage]]\nuse = "fuse-activations"\n[[stage]]\nuse = "quantize-affine"\n[[stage]]\nuse = "plan-arena"\n'
    (tmp_path / "study.toml").write_text(STUDY.format(network="my_networks:small") + stages)
    assert call("run", tmp_path / "study.toml", "--out", tmp_path / "out").status == 0
    sys.modules.pop("my_networks")


@pytest.mark.parametrize(
    ("source", "message"), [("no_such_module:f", "cannot be imported"), ("json:no_such", "package.module:function")]
)
def test_a_function_that_is_not_there_is_named(source: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY.format(network=source))
    answer = call("run", tmp_path / "study.toml", "--out", tmp_path / "out")
    assert answer.status == 2
    assert message in answer.err


def test_a_file_for_other_samples_is_refused(tmp_path: Path) -> None:
    b = Builder()
    w, c = b.constant("w", np.ones((10, 5))), b.constant("c", np.ones(10))
    (tmp_path / "net.tflite").write_bytes(write_tflite(b.graph(b.add(Dense(), b.input("x", (5,)), w, c))))
    (tmp_path / "study.toml").write_text(STUDY.format(network=tmp_path / "net.tflite"))
    answer = call("run", tmp_path / "study.toml", "--out", tmp_path / "out")
    assert answer.status == 2
    assert "takes samples of [5], digits has [8, 8, 1]" in answer.err
