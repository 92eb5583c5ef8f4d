"""A network is copied from its answers; more of them make better copies."""

import numpy as np
import pytest

from attack_networks import digits
from audit_networks import learned, samples, sensor, victim, whole
from crosslayer.core.audit import Extraction, Imitation
from crosslayer.core.errors import InputError
from crosslayer.core.quant import Array
from crosslayer.core.score import Better, Origin, Score, wilson
from crosslayer.evaluate.extraction import Answers, extract, needed
from crosslayer.evaluate.substitute import fresh, taught
from crosslayer.flow import execute


def copied(pool: Array, answers: Answers, *, first: int = 50) -> Extraction:
    graph, (judged, _) = whole(learned(0)), samples(digits().test, 359)
    return extract(victim(graph), graph, pool, judged, answers, execute, inputs="digits", first=first, steps=400)


@pytest.mark.parametrize("answers", Answers)
def test_answers_to_inputs_of_the_same_kind_copy_a_network(answers: Answers) -> None:
    found = copied(samples(digits().train, 800)[0], answers)
    agreements = [point.agreement.value for point in found.curve]
    assert [point.queries for point in found.curve][:3] == [50, 100, 200]
    assert agreements[0] < agreements[-1] > 0.9
    assert found.needed is not None and found.needed.low <= found.needed.value <= found.needed.high
    assert found.needed.value == next(p.queries for p in found.curve if p.agreement.value >= 0.9)


def test_noise_copies_less_than_digits() -> None:
    noise = np.random.default_rng(0).random((400, 8, 8, 1), np.float32)
    found = copied(noise, Answers.LABELS, first=400)
    assert found.needed is None
    assert (
        found.curve[-1].agreement.high
        < copied(samples(digits().train, 400)[0], Answers.LABELS, first=400).curve[-1].agreement.low
    )


def test_agreement_is_with_the_design_and_not_with_the_labels() -> None:
    """An untrained design is copied too, though it is right no more often than chance."""
    graph, (judged, labels) = whole(learned(0)), samples(digits().test, 359)
    wrong = fresh(graph, np.random.default_rng(3))
    model = victim(wrong)
    found = extract(
        model, wrong, samples(digits().train, 800)[0], judged, Answers.LOGITS, execute, inputs="", first=800, steps=600
    )
    assert found.curve[0].agreement.value > 0.75 > 0.4 > (model.logits(judged).argmax(1) == labels).mean()


def test_the_needed_number_has_the_interval_of_its_agreements() -> None:
    def point(queries: int, hits: int) -> Imitation:
        low, high = wilson(hits, 100)
        agreement = Score(
            name="agreement",
            value=hits / 100,
            unit="1",
            low=low,
            high=high,
            better=Better.LOWER,
            origin=Origin.MEASURED,
        )
        return Imitation(queries=queries, agreement=agreement)

    curve = [point(100, 70), point(200, 86), point(400, 91), point(800, 99)]
    found = needed(curve)
    assert found is not None and (found.low, found.value, found.high) == (200, 400, 800)
    open_end = needed(curve[:3])
    assert open_end is not None and open_end.high == 400 and "most that were tried" in open_end.note
    assert needed(curve[:2]) is None


def test_fresh_weights_have_the_shape_and_nothing_of_the_old_ones() -> None:
    graph = whole(learned(0))
    new = fresh(graph, np.random.default_rng(7))
    assert not new.is_integer and new.producers.keys() == graph.producers.keys()
    layers = [node for node in graph.nodes if node.op.channel_axis is not None]
    for node in layers:
        weight = new.constants[node.inputs[1]]
        assert weight.shape == graph.constants[node.inputs[1]].shape
        assert abs(np.corrcoef(weight.ravel(), graph.constants[node.inputs[1]].ravel())[0, 1]) < 0.1
        assert weight.std() == pytest.approx(np.sqrt(2 * len(weight) / weight.size), rel=0.15)
        assert (new.constants[node.inputs[2]] == 0).all()
    assert len(layers) == 2


def test_a_copy_learns_the_shares_that_it_is_given() -> None:
    x, _ = samples(digits().train, 256)
    wanted = np.random.default_rng(0).dirichlet(np.ones(10), 1).repeat(256, 0)
    copy = taught(fresh(whole(learned(0)), np.random.default_rng(0)), sensor().real(x), wanted, steps=300, seed=0)
    assert np.abs(execute(copy, sensor().real(x)).mean(0) - wanted[0]).max() < 0.05


def test_too_few_inputs_are_refused() -> None:
    with pytest.raises(InputError, match="give more to query with"):
        copied(samples(digits().train, 20)[0], Answers.LABELS)
