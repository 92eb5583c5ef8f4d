"""Firmware that says when it does not know an input: as Python says, and as often as promised."""

import ctypes
import itertools
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attack_networks import digits, trained
from commands import TINY, call
from crosslayer.attack.sensor import Sensor
from crosslayer.core.bench import Bench
from crosslayer.core.dataset import Split
from crosslayer.core.design import Design, load_design, save_design
from crosslayer.core.errors import GraphError, InputError
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.ops import Dequantize, Relu
from crosslayer.core.plan import Plan, check_plan, feature_maps
from crosslayer.core.quant import Array, Quant
from crosslayer.core.rejection import Features, Rejection, Statistic, statistics
from crosslayer.core.target import Core
from crosslayer.emit.firmware import emit
from crosslayer.evaluate.rejection import accepted_score, auroc, detections, unknown_inputs
from crosslayer.execute import exact, reference
from crosslayer.execute.emulate import Image
from crosslayer.execute.native import Native, self_test
from crosslayer.fault.protect import ProtectWeights
from crosslayer.flow import execute
from crosslayer.hardware.catalogue import load_target
from crosslayer.learn.reject import RejectUnknown
from crosslayer.plan.arena import PlanArena, plan_arena
from crosslayer.quantize.affine import QuantizeAffine
from crosslayer.simplify.softmax import DropSoftmax
from crosslayer.testing.datasets import small_dataset


def bench() -> Bench:
    return Bench(data=digits(), seed=0, executor=execute)


def unplanned() -> Design:
    return Design(graph=trained(), target=load_target("stm32f769"))


@cache
def planned(logits: bool = True) -> Design:
    """The digits in integers, planned, with logits or shares at the end."""
    design = QuantizeAffine()(unplanned(), bench())
    return PlanArena()(DropSoftmax()(design, bench()) if logits else design, bench())


def rejecting(statistic: Statistic = Statistic.LARGEST, accept: float = 0.95, *, logits: bool = True) -> Design:
    return RejectUnknown(statistic=statistic, accept=accept)(planned(logits), bench())


def rejection_of(design: Design) -> Rejection:
    assert design.plan is not None and design.plan.rejection is not None
    return design.plan.rejection


def maps() -> tuple[str, ...]:
    """Of the digits' network: conv1, maxpool1, maxpool2, fc1, fc2, logits."""
    plan = planned().plan
    assert plan is not None
    return feature_maps(planned().graph, plan)


OF_OUTPUTS = (Statistic.LARGEST, Statistic.MARGIN)


def knowing(after: str, accept: float = 0.95) -> Design:
    """It ends after a node if it does not know the input."""
    return RejectUnknown(statistic=Statistic.NEAREST, after=after, accept=accept)(planned(), bench())


def asked(folder: Path, codes: Array, *, early: bool = False) -> tuple[Array, Array]:
    """Outputs as bytes, and what `model_accepts` says, or `early` whether `model_run_known` gets to its end, of the
    firmware compiled for this computer."""
    native = Native.build(folder)
    library: Any = ctypes.CDLL(str(native.made.path))
    library.model_input.restype = library.model_output.restype = ctypes.c_void_p
    room = np.zeros(native.arena_bytes + 16, np.uint8)
    arena = ctypes.c_void_p(room.ctypes.data + -room.ctypes.data % 16)
    outputs, said = np.empty((len(codes), native.output_bytes), np.uint8), np.empty(len(codes), np.int64)
    for i, sample in enumerate(codes):
        raw = np.ascontiguousarray(sample).tobytes()
        ctypes.memmove(library.model_input(arena), raw, len(raw))
        if early:
            said[i] = {0: 1, 1: 0}[library.model_run_known(arena)]
        else:
            assert library.model_run(arena) == 0
            said[i] = library.model_accepts(arena)
        ctypes.memmove(outputs[i].ctypes.data, library.model_output(arena), native.output_bytes)
    return outputs, said


def mixed(count: int) -> Array:
    """Digits, blends of digits and noise, and noise: near the threshold on both sides."""
    rng, x = np.random.default_rng(0), digits().test.real()
    x = x[rng.integers(0, len(x), count)]
    share = rng.random((count, 1, 1, 1), np.float32)
    return (share * x + (1 - share) * rng.random(x.shape, np.float32)).astype(np.float32)


@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("statistic", OF_OUTPUTS)
def test_the_compiled_firmware_decides_as_python_does(statistic: Statistic, logits: bool, tmp_path: Path) -> None:
    design, x = rejecting(statistic, logits=logits), mixed(1000)
    emit(design, tmp_path / "firmware", x[:1])
    codes = reference.encode_input(design.graph, x)
    truth = exact.run(design.graph, codes)
    outputs, said = asked(tmp_path / "firmware", codes)
    assert (outputs == truth.reshape(1000, -1).view(np.uint8)).all()
    assert (said == rejection_of(design).accepts(truth)).all()
    assert 0.1 < said.mean() < 0.95


@pytest.mark.parametrize("place", range(6))
def test_the_compiled_firmware_ends_early_where_python_rejects(place: int, tmp_path: Path) -> None:
    design, x = knowing(maps()[place]), mixed(1000)
    if place % 2:
        design = ProtectWeights()(design, bench())
    emit(design, tmp_path / "firmware", x[:1])
    codes, rejection = reference.encode_input(design.graph, x), rejection_of(design)
    outputs, known = asked(tmp_path / "firmware", codes, early=True)
    assert (known == rejection.accepts(exact.run(rejection.watched(design.graph), codes))).all()
    assert 0.1 < known.mean() < 0.99
    truth = exact.run(design.graph, codes).reshape(1000, -1).view(np.uint8)
    assert (outputs == truth)[known == 1].all()
    self_test(tmp_path / "firmware", codes[:20])


def last_code(quant: Quant, size: int) -> Design:
    """The codes of its input, as they are."""
    b = Builder()
    graph = b.graph(b.add(Relu(), b.input("x", (size,), quant), quant=quant))
    return Design(graph=graph, target=load_target("stm32f769"), plan=plan_arena(graph))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("statistic", OF_OUTPUTS)
def test_extreme_codes_of_either_width_are_compared_as_integers(
    statistic: Statistic, bits: int, tmp_path: Path
) -> None:
    quant = Quant(bits=bits, scale=(0.01,))
    ends = (0, 1, 7, quant.highest - 1, quant.highest)
    codes = np.array(list(itertools.product(ends, repeat=3)), quant.dtype)
    for threshold in (6, quant.highest):
        design = last_code(quant, 3)
        assert design.plan is not None
        rejection = Rejection(statistic=statistic, threshold=threshold)
        emit(replace(design, plan=replace(design.plan, rejection=rejection)), tmp_path / f"{threshold}", codes[:1])
        _, said = asked(tmp_path / f"{threshold}", codes)
        assert (said == rejection.accepts(codes)).all()


@pytest.mark.parametrize("bits", [8, 16])
def test_extreme_feature_maps_of_either_width_are_as_far_as_python_says(bits: int, tmp_path: Path) -> None:
    quant, rng = Quant(bits=bits, scale=(0.01,)), np.random.default_rng(0)
    codes = rng.choice((quant.lowest, quant.highest), (200, 128, 128, 2)).astype(quant.dtype)
    codes *= rng.random((200, 1, 1, 2)) < rng.random((200, 1, 1, 1))
    codes[:2] = quant.lowest, quant.highest
    far = 128 * 128 * quant.lowest
    b = Builder()
    graph = b.graph(b.add(Relu(), b.input("x", (128, 128, 2), quant), quant=quant))
    features = Features(after=graph.outputs[0], centres=((far, 0), (0, 1), (7, far)), weights=(65535, 3))
    distances = features.nearest(exact.run(graph, codes))
    plan, threshold = plan_arena(graph), int(np.sort(distances)[50])
    rejection = Rejection(statistic=Statistic.NEAREST, threshold=threshold, features=features)
    design = Design(graph=graph, target=load_target("stm32f769"), plan=replace(plan, rejection=rejection))
    emit(design, tmp_path / "firmware", codes[:1])
    _, known = asked(tmp_path / "firmware", codes, early=True)
    assert (known == (distances >= threshold)).all()
    assert distances.min() < -(2**31)


def test_distances_are_as_defined() -> None:
    features = Features(after="x", centres=((10, 0), (0, 5)), weights=(2, 1))
    maps = np.array([[[[4, 1], [5, 0]]], [[[0, 2], [0, 4]]]], np.int8)  # sums 9, 1 and 0, 6
    assert features.nearest(maps).tolist() == [-3, -1]


def test_without_softmax_the_same_class_is_called() -> None:
    x = mixed(300)
    logits, shares = (execute(planned(each).graph, x).reshape(300, -1) for each in (True, False))
    clear = np.sort(shares)[:, -1] > np.sort(shares)[:, -2]
    assert clear.sum() > 200
    assert (logits.argmax(1) == shares.argmax(1))[clear].all()
    again = planned()
    assert DropSoftmax()(again, bench()).graph == again.graph


def test_a_statistic_is_that_of_each_sample() -> None:
    codes = np.array([[3, -1, 3], [-128, 127, 0], [5, 4, -9]], np.int8)
    assert statistics(Statistic.LARGEST, codes).tolist() == [3, 127, 5]
    assert statistics(Statistic.MARGIN, codes).tolist() == [0, 127, 1]


def test_firmware_that_rejects_nothing_is_as_before(tmp_path: Path) -> None:
    x = digits().test.real(slice(0, 1))
    emit(planned(), tmp_path / "plain", x)
    emit(rejecting(), tmp_path / "rejecting", x)
    text = (tmp_path / "plain" / "model.h").read_text() + (tmp_path / "plain" / "model.c").read_text()
    assert "accept" not in text.lower()
    assert not (tmp_path / "plain" / "kernels" / "accept.h").exists()
    assert "model_accepts" in (tmp_path / "rejecting" / "model.h").read_text()
    self_test(tmp_path / "rejecting", reference.encode_input(planned().graph, x))


@pytest.mark.parametrize("accept", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("statistic", OF_OUTPUTS)
def test_the_share_that_is_asked_for_is_accepted(statistic: Statistic, accept: float) -> None:
    design = rejecting(statistic, accept)
    notes, threshold = design.trail[-1].notes, rejection_of(design).threshold
    codes = execute(design.graph, digits().validation.real())
    kept = statistics(statistic, codes) >= threshold
    assert notes["accepted"] == kept.mean() >= accept
    assert (statistics(statistic, codes) > threshold).mean() < notes["accepted"]  # a higher one would reject more
    assert notes["accuracy_accepted"] >= notes["accuracy"]
    assert accepted_score(design, digits().test, execute).high > accept - 0.03


def test_of_new_inputs_of_the_same_kind_the_share_is_accepted_on_average() -> None:
    """The split-conformal promise, over many draws of the validation data."""
    quant, rng, shares = Quant(bits=8, scale=(1.0,)), np.random.default_rng(0), list[float]()
    design = last_code(quant, 2)
    data = small_dataset()
    for _ in range(300):
        codes = rng.binomial(100, 0.5, (59 + 200, 2)).astype(np.int8)
        known = Split(codes=codes[:59], labels=np.zeros(59, np.int64))
        made = RejectUnknown(accept=0.9)(
            design, Bench(data=replace(data, validation=known), seed=0, executor=lambda _, x: x)
        )
        shares.append(float(rejection_of(made).accepts(codes[59:]).mean()))
    assert np.mean(shares) >= 0.9


@pytest.mark.parametrize("accept", [0.8, 0.95, 0.999])
def test_the_share_that_is_asked_for_gets_past_a_feature_map(accept: float) -> None:
    design = knowing("maxpool1", accept)
    notes = design.trail[-1].notes
    assert 1 >= notes["accepted"] >= accept
    assert notes["macs_share"] == pytest.approx(design.graph.macs["conv1"] / sum(design.graph.macs.values()))
    assert accepted_score(design, digits().test, execute).high > accept - 0.03


def test_what_features_are_like_goes_with_the_design(tmp_path: Path) -> None:
    design = knowing("maxpool2")
    save_design(design, tmp_path / "design")
    assert load_design(tmp_path / "design") == design


def test_a_threshold_goes_with_the_design(tmp_path: Path) -> None:
    design = ProtectWeights()(rejecting(Statistic.MARGIN), bench())
    save_design(design, tmp_path / "design")
    assert load_design(tmp_path / "design") == design
    assert rejection_of(design) == rejection_of(rejecting(Statistic.MARGIN))


@pytest.mark.parametrize("after", ["", "maxpool1"])
def test_known_digits_are_told_from_noise_and_others(after: str) -> None:
    design, data = knowing(after) if after else rejecting(), digits()
    others = unknown_inputs(Sensor.of(data.train), data.shape, 400, np.random.default_rng(0))
    turned = {"upside down and negative": 1 - data.test.real()[:, ::-1]}
    for found in detections(design, data.test, {**others, **turned}, execute):
        assert found.auroc.low > 0.7
        assert found.auroc.low <= found.auroc.value <= found.auroc.high
        assert found.accepted.low <= found.accepted.value < 0.8


@pytest.mark.parametrize(("known", "unknown"), [((5, 6, 7), (1, 5, 7, 2)), ((1, 1), (1,)), ((0, 3), (4, 5))])
def test_the_area_is_the_share_of_pairs_in_order(known: tuple[int, ...], unknown: tuple[int, ...]) -> None:
    pairs = [(a > b) + (a == b) / 2 for a in known for b in unknown]
    area, low, high = auroc(np.array(known), np.array(unknown))
    assert area == pytest.approx(np.mean(pairs))
    assert 0 <= low <= area <= high <= 1


def test_the_interval_of_the_area_holds_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    truth = 0.921350396  # Φ(2 / √2)
    held = [(found := auroc(rng.normal(2, 1, 60), rng.normal(0, 1, 40)))[1] <= truth <= found[2] for _ in range(400)]
    assert 0.91 < np.mean(held) < 0.99
    assert auroc(np.array([3] * 50), np.array([1] * 50))[1] < 0.999


def ends_in_floats() -> Design:
    b, quant = Builder(), Quant(bits=8, scale=(1.0,))
    graph = b.graph(b.add(Dequantize(), b.add(Relu(), b.input("x", (3,), quant), quant=quant)))
    return Design(graph=graph, target=load_target("stm32f769"), plan=plan_arena(graph))


def test_features_that_cannot_be_are_refused() -> None:
    features = rejection_of(knowing("maxpool1")).features
    assert features is not None
    for wrong in ({"centres": ()}, {"centres": ((1,),)}, {"weights": (1,) * 5}):
        with pytest.raises(GraphError, match="need a centre for each class and a weight for each channel"):
            replace(features, **wrong)
    for wrong in ({"weights": (65536,) * 6}, {"centres": ((1 << 30,) * 6,)}):
        with pytest.raises(GraphError, match="sums must lie within"):
            replace(features, **wrong)
    for statistic, given in ((Statistic.NEAREST, None), (Statistic.LARGEST, features)):
        with pytest.raises(GraphError, match="the statistic nearest is of features"):
            Rejection(statistic=statistic, threshold=0, features=given)
    with pytest.raises(GraphError, match="other channels than fc1 has"):
        check_plan(planned().graph, elsewhere(knowing("maxpool1"), "fc1"))


def elsewhere(design: Design, after: str) -> Plan:
    """Its plan, with another feature map."""
    rejection = rejection_of(design)
    assert design.plan is not None and rejection.features is not None
    return replace(design.plan, rejection=replace(rejection, features=replace(rejection.features, after=after)))


def test_firmware_that_ends_early_costs_what_is_said_and_nothing_in_a_whole_run(tmp_path: Path) -> None:
    """Its tables are in the flash that is counted, and its stack in the bound."""
    x = digits().test.real(slice(0, 1))
    emit(planned(), tmp_path / "plain", x)
    emit(knowing("maxpool1"), tmp_path / "knowing", x)
    plain, early = (Image.link(tmp_path / name, Core.CORTEX_M4) for name in ("plain", "knowing"))
    assert early.flash_bytes >= plain.flash_bytes + 10 * 6 * 4 + 6 * 2
    assert early.stack_bound().bytes >= plain.stack_bound().bytes
    codes = reference.encode_input(planned().graph, x)
    assert (early.run(codes).instructions == plain.run(codes).instructions).all()


def test_what_cannot_reject_is_refused() -> None:
    with pytest.raises(GraphError, match="put this stage after plan-arena"):
        RejectUnknown()(unplanned(), bench())
    with pytest.raises(GraphError, match="leave the second reject-unknown out"):
        RejectUnknown()(rejecting(), bench())
    with pytest.raises(GraphError, match="compares the codes of at least two outputs"):
        RejectUnknown()(ends_in_floats(), bench())
    with pytest.raises(GraphError, match="at least two outputs"):
        RejectUnknown()(last_code(Quant(bits=8, scale=(1.0,)), 1), bench())
    with pytest.raises(GraphError, match="'conv2' is no result that is whole in memory; known are: conv1, maxpool1, "):
        knowing("conv2")
    with pytest.raises(InputError, match="goes with statistic"):
        RejectUnknown(after="conv1")
    with pytest.raises(InputError, match="each needs the other"):
        RejectUnknown(statistic=Statistic.NEAREST)
    with pytest.raises(GraphError, match="the plan rejects by conv2, which is never whole"):
        check_plan(planned().graph, elsewhere(knowing("conv1"), "conv2"))
    streamed = PlanArena(streamed=True)(replace(planned(), plan=None), bench())
    with pytest.raises(GraphError, match="row by row does not stop early"):
        RejectUnknown(statistic=Statistic.NEAREST, after="fc1")(streamed, bench())
    with pytest.raises(InputError, match="accept must lie between 0 and 1"):
        RejectUnknown(accept=1.0)
    with pytest.raises(InputError, match="this design rejects nothing"):
        accepted_score(planned(), digits().test, execute)


def test_a_study_rejects_and_the_command_says_how_well(tmp_path: Path) -> None:
    stages = '[[stage]]\nuse = "drop-softmax"\n[[stage]]\nuse = "plan-arena"\n[[stage]]\nuse = "reject-unknown"\n'
    study = TINY.replace('[[stage]]\nuse = "plan-arena"\n', stages).replace("epochs = 1", "epochs = 8\nbatch = 64")
    (tmp_path / "study.toml").write_text(study)
    answer = call("run", tmp_path / "study.toml", "--out", tmp_path / "run")
    assert answer.status == 0, answer.err
    assert "model_accepts" in (tmp_path / "run" / "firmware" / "model.h").read_text()
    answer = call("reject", tmp_path / "run", "--data", "digits", "--samples", "100", "--json")
    assert answer.status == 0, answer.err
    found = json.loads(answer.out)
    assert found["accepted"]["value"] > 0.8
    assert [one["unknown"] for one in found["unknown"]] == ["uniform noise", "constant"]
    answer = call("reject", tmp_path / "run", "--data", "digits", "--samples", "50")
    assert answer.status == 0 and "uniform noise" in answer.out
