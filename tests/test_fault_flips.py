"""Flipped bits of weights: what they do is what the compiled firmware does, and what a search finds of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # the name that PyTorch's own documentation uses
from hypothesis import given
from hypothesis import strategies as st

from crosslayer.core.dataset import Split
from crosslayer.core.design import Design
from crosslayer.core.errors import GraphError, InputError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.outputs import logits_of
from crosslayer.core.quant import pack
from crosslayer.emit.firmware import emit
from crosslayer.execute import exact, reference
from crosslayer.execute.native import Native
from crosslayer.execute.straight import StraightThrough
from crosslayer.execute.weight_slopes import weight_slopes
from crosslayer.fault.course import Course
from crosslayer.fault.flips import Flip, changes, flipped, flipped_codes, population, random_flips
from crosslayer.fault.search import Attacker, Campaign, Effort, Knowledge, attack, least_flips
from crosslayer.hardware.catalogue import load_target
from crosslayer.kernels.steps import steps_of
from crosslayer.kernels.weight_check import words_of
from crosslayer.learn.train import Train
from crosslayer.networks.zoo import network
from crosslayer.plan.arena import plan_arena
from crosslayer.quantize.affine import quantize
from crosslayer.quantize.precision import Precision
from crosslayer.simplify.activations import fuse_activations
from crosslayer.simplify.norms import fold_norms
from crosslayer.testing.stages import small_bench

CHANCE = 0.3  # of four classes, with a little room


def small_design(name: str, bits: int = 8, rounding: Rounding = Rounding.DOUBLE) -> Design:
    """An untrained network in integers, planned."""
    graph = fuse_activations(fold_norms(network(name, (8, 8, 1), 5, 0)))
    x = small_bench().data.train.real()
    graph = quantize(graph, reference.calibrate(graph, [x], exact.evaluate), rounding, Precision(weights=bits))
    return Design(graph=graph, target=load_target("stm32f769"), plan=plan_arena(graph))


@pytest.fixture(scope="module")
def learned() -> tuple[Graph, Split, Split]:
    """A trained integer network, an attacker's samples, and others to judge by."""
    bench = small_bench()
    design = Design(graph=network("lenet5", (8, 8, 1), 4, 0), target=load_target("stm32f769"))
    trained = fuse_activations(Train(epochs=6, batch=16)(design, bench).graph)
    x = bench.data.train.real()
    graph = quantize(trained, reference.calibrate(trained, [x], exact.evaluate), Rounding.DOUBLE)
    judged = bench.data.test
    assert bench.accuracy(graph, judged) > 0.8
    return graph, bench.data.validation, judged


def planted(firmware: Path, design: Design, flips: Sequence[Flip], copy: Path) -> Path:
    """The firmware with the bits flipped in its compiled tables of weights."""
    changed = replace(design.graph, constants={**design.graph.constants, **flipped_codes(design.graph, flips)})
    assert design.plan is not None
    tables = [
        [words_of(step.fields["weight"]).tobytes() for step in steps_of(g, design.plan)[0] if "weight" in step.fields]
        for g in (design.graph, changed)
    ]
    made = Native.build(firmware).made.path.read_bytes()
    for before, after in zip(*tables, strict=True):
        assert made.count(before[:-3]) == 1
        made = made.replace(before[:-3], after[:-3])
    copy.write_bytes(made)
    return copy


@given(st.integers(1, 8), st.integers(0, 7), st.integers(0, 30), st.randoms(use_true_random=False))
def test_a_flip_changes_one_bit_of_the_packed_weights(bits: int, bit: int, index: int, chance: object) -> None:
    codes = np.random.default_rng(int(chance.random() * 2**32)).integers(-(1 << bits - 1), 1 << bits - 1, 31)  # type: ignore[attr-defined]
    codes = np.where(codes >= 0, 1, -1).astype(np.int8) if bits == 1 else codes.astype(np.int8)
    bit %= bits
    after = codes.copy()
    after[index] += changes(codes, bits, bit)[index]
    differing = np.unpackbits(pack(codes, bits).view(np.uint8) ^ pack(after, bits).view(np.uint8), bitorder="little")
    assert np.flatnonzero(differing).tolist() == [index * bits + bit]


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("bits", [1, 4, 8])
def test_the_same_flips_again_undo_themselves(bits: int, rounding: Rounding) -> None:
    graph = small_design("lenet5", bits, rounding).graph
    flips = random_flips(population(graph), 50, np.random.default_rng(1))
    changed = flipped(graph, flips)
    assert changed != graph
    assert flipped(changed, flips) == graph


@pytest.mark.parametrize(("name", "bits"), [("lenet5", 8), ("lenet5", 4), ("lenet5", 1), ("resnet8", 8)])
def test_flips_in_the_compiled_firmware_give_the_bytes_of_the_flipped_network(
    name: str, bits: int, tmp_path: Path
) -> None:
    design = small_design(name, bits)
    x = small_bench().data.test.real(slice(0, 16))
    emit(design, tmp_path / "firmware", x[:1])
    native = Native.build(tmp_path / "firmware")
    codes = reference.encode_input(design.graph, x)
    clean = native.run(codes)
    for count in (1, 5, 40):
        flips = random_flips(population(design.graph), count, np.random.default_rng(count))
        path = planted(tmp_path / "firmware", design, flips, tmp_path / f"{count}.so")
        found = replace(native, made=replace(native.made, path=path)).run(codes)
        changed = flipped(design.graph, flips)
        truth = exact.run(changed, codes).view(np.uint8).reshape(len(x), -1)
        assert (reference.run(changed, codes).view(np.uint8).reshape(len(x), -1) == truth).all()
        assert (found == truth).all()
    assert (found != clean).any()


def test_flips_of_what_is_no_weight_are_refused() -> None:
    graph = small_design("lenet5").graph
    part = population(graph)[0]
    bias = next(node.inputs[2] for node in graph.nodes if node.inputs[1:2] == (part.weight,))
    for flip in (Flip(bias, 0, 0), Flip("x", 0, 0), Flip(part.weight, part.size, 0), Flip(part.weight, 0, 8)):
        with pytest.raises(InputError, match="take flips of this network"):
            flipped(graph, [flip])
    with pytest.raises(InputError, match="flips twice"):
        flipped(graph, [Flip(part.weight, 0, 0)] * 2)
    with pytest.raises(InputError, match="layer 'fc9' is not one of the network's; known are: conv1"):
        population(graph, layers=("fc9",))
    with pytest.raises(GraphError, match="no weight has such a bit"):
        population(graph, bits=(8,))
    with pytest.raises(GraphError, match="quantize it first"):
        population(network("lenet5", (8, 8, 1), 4, 0))


def test_random_sets_hold_different_bits_of_all_layers_alike() -> None:
    parts = population(small_design("lenet5").graph)
    total = sum(8 * part.size for part in parts)
    flips = random_flips(parts, total, np.random.default_rng(0))
    assert len(set(flips)) == total
    few = random_flips(parts, total // 10, np.random.default_rng(1))
    for part in parts:
        share = sum(flip.weight == part.weight for flip in few) / len(few)
        assert share == pytest.approx(8 * part.size / total, abs=0.02)
    with pytest.raises(InputError, match="take fewer"):
        random_flips(parts, total + 1, np.random.default_rng(0))


@pytest.mark.parametrize("name", ["lenet5", "resnet8", "dscnn"])
def test_a_change_computed_from_the_middle_gives_the_logits_of_a_whole_run(name: str) -> None:
    graph = small_design(name).graph
    x = small_bench().data.test.real(slice(0, 8))
    course = Course(graph, x)
    logits = logits_of(graph)
    code = graph.types[logits].quant
    assert code is not None
    for part in population(graph):
        changed = flipped(graph, random_flips([part], 3, np.random.default_rng(part.size)))
        whole = code.decode(reference.trace(changed, x)[logits]).reshape(len(x), -1)
        assert (course.changed(changed, part.weight) == whole).all()


@pytest.mark.parametrize("name", ["lenet5", "resnet8"])
def test_the_slopes_are_those_by_which_integer_networks_learn(name: str) -> None:
    """Of another implementation, which trains the real weights of the same integers."""
    plain = fuse_activations(fold_norms(network(name, (8, 8, 1), 4, 0)))
    bench = small_bench()
    ranges = reference.calibrate(plain, [bench.data.train.real()], exact.evaluate)
    graph = quantize(plain, ranges, Rounding.DOUBLE)
    x, labels = bench.data.test.real(), bench.data.test.labels
    module = StraightThrough(plain, graph, learn_steps=False)
    F.cross_entropy(module(torch.from_numpy(x), upto=logits_of(plain)), torch.from_numpy(labels)).backward()
    slopes = weight_slopes(graph, x, labels)
    for node in plain.nodes:
        if node.op.channel_axis is None:
            continue
        for before, name in zip(node.inputs[1:], graph.producers[node.name].inputs[1:], strict=True):
            found, quant = module.floats.constant(before).grad, graph.types[name].quant
            assert found is not None and quant is not None
            step = np.reshape(quant.scale, [-1 if i == quant.axis else 1 for i in range(found.dim())])
            theirs = found.numpy() * step / module._units[before]
            inside = np.abs(graph.constants[name].astype(np.int64)) < quant.highest  # the others learn only inwards
            assert np.abs(theirs).max() > 0
            assert np.allclose(slopes[name][inside], theirs[inside], rtol=1e-3, atol=1e-5 * np.abs(theirs).max())


def test_a_search_needs_far_fewer_flips_than_chance(learned: tuple[Graph, Split, Split]) -> None:
    graph, batch, judged = learned
    rng = np.random.default_rng(0)
    found = attack(graph, Attacker(), batch, judged, Effort(most=40, stop=CHANCE), rng)
    blind = attack(graph, Attacker(knowledge=Knowledge.RANDOM), batch, judged, Effort(most=2000, stop=CHANCE), rng)
    needed, by_chance = found.needed(CHANCE), blind.needed(CHANCE)
    assert needed is not None
    assert by_chance is None or by_chance >= 10 * needed


def test_a_campaign_tells_what_its_flips_do(learned: tuple[Graph, Split, Split]) -> None:
    graph, batch, judged = learned
    found = attack(
        graph, Attacker(bits=(5, 6)), batch, judged, Effort(most=5, stop=0.0, tried=3), np.random.default_rng(0)
    )
    assert {flip.bit for flip in found.flips} <= {5, 6}
    assert len(set(found.flips)) == len(found.flips) == 5
    for count, accuracy in found.accuracies:
        outputs = reference.run(flipped(graph, found.flips[:count]), judged.real())
        assert accuracy == np.mean(outputs.reshape(len(judged), -1).argmax(1) == judged.labels)


def test_of_magnitudes_the_largest_change_comes_first(learned: tuple[Graph, Split, Split]) -> None:
    graph, batch, judged = learned
    knowing = Attacker(knowledge=Knowledge.MAGNITUDE, bits=(0, 1, 6))
    found = attack(graph, knowing, batch, judged, Effort(most=64, stop=0.0), np.random.default_rng(0))
    codes = {part.weight: graph.types[part.weight].quant for part in population(graph)}
    sizes = [
        2**flip.bit * code.scale[0 if code.axis is None else np.unravel_index(flip.index, shape)[code.axis]]
        for flip in found.flips
        if (code := codes[flip.weight]) is not None and (shape := graph.constants[flip.weight].shape)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert {flip.bit for flip in found.flips} == {6}


attackers = st.builds(
    Attacker,
    knowledge=st.sampled_from(Knowledge),
    bits=st.sampled_from([(), (7,), (6, 7), (0, 1, 2)]),
    layers=st.sampled_from([(), ("a",), ("a", "b")]),
)


@given(st.lists(st.tuples(attackers, st.none() | st.integers(1, 99)), min_size=1, max_size=12))
def test_more_capability_never_seems_to_need_more_flips(runs: list[tuple[Attacker, int | None]]) -> None:
    campaigns = [
        Campaign(attacker=a, flips=(), accuracies=((0, 1.0), *([] if n is None else [(n, 0.1)]))) for a, n in runs
    ]
    least = least_flips(campaigns, 0.1)
    for a in least:
        own = [n for other, n in runs if other == a and n is not None]
        assert least[a] is None or not own or least[a] <= min(own)  # type: ignore[operator]  # not None
        for b in least:
            if a.contains(b) and least[b] is not None:
                assert least[a] is not None and least[a] <= least[b]  # type: ignore[operator]  # not None


@given(attackers, attackers, attackers)
def test_capabilities_are_ordered(a: Attacker, b: Attacker, c: Attacker) -> None:
    assert a.contains(a)
    assert not (a.contains(b) and b.contains(c)) or a.contains(c)
    assert not (a.contains(b) and b.contains(a)) or a == b


def test_a_weaker_attacker_who_did_better_is_believed() -> None:
    strong, weak = Attacker(), Attacker(bits=(0, 1, 2, 3, 4, 5, 6))
    runs = [
        Campaign(attacker=strong, flips=(), accuracies=((0, 0.9), (89, 0.1))),
        Campaign(attacker=weak, flips=(), accuracies=((0, 0.9), (20, 0.1))),
    ]
    assert least_flips(runs, 0.1) == {strong: 20, weak: 20}
    assert least_flips(runs[:1], 0.05) == {strong: None}
