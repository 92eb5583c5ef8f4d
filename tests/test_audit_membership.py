"""Overfitted networks tell what they were trained on; untrained ones, and samples of one kind, tell nothing."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from attack_networks import digits
from audit_networks import layers, learn, learned, samples, victim, whole
from crosslayer.core.audit import MembershipAttack
from crosslayer.core.dataset import Split
from crosslayer.core.errors import InputError
from crosslayer.core.graph.edit import decoded
from crosslayer.core.graph.graph import Graph
from crosslayer.evaluate.membership import auc, infer_membership, tpr
from crosslayer.execute.training import Training
from crosslayer.flow import execute

COUNT = 200


@cache
def few() -> Split:
    """Random training samples, a tenth of them with a wrong label: they can be learned by heart alone."""
    rng = np.random.default_rng(1)
    part = digits().train.take(rng.permutation(len(digits().train))[:COUNT])
    wrong = rng.random(COUNT) < 0.1
    return replace(part, labels=np.where(wrong, (part.labels + 1) % 10, part.labels))


def others() -> Split:
    """Samples that were not trained on, with as many wrong labels."""
    rng = np.random.default_rng(2)
    part = digits().test.take(rng.permutation(len(digits().test))[:COUNT])
    wrong = rng.random(COUNT) < 0.1
    return replace(part, labels=np.where(wrong, (part.labels + 1) % 10, part.labels))


def attacks(graph: Graph, members: Split, apart: Split) -> dict[tuple[str, str], MembershipAttack]:
    twin = victim(decoded(graph))
    found = infer_membership(
        victim(graph), twin, graph, samples(members, COUNT), samples(apart, COUNT), execute, steps=200
    )
    assert found.samples == min(COUNT, len(members))
    return {(one.attack, one.outputs): one for one in found.attacks}


def test_an_overfitted_network_tells_its_training_data() -> None:
    heavy = learn(layers(0), few(), Training(epochs=80, batch=32, decay=0), 0)
    found = attacks(whole(heavy), few(), others())
    assert len(found) == 6
    assert all(one.auc.low > 0.5 for one in found.values())
    calibrated = found["calibrated", "integers"]
    assert calibrated.auc.low > 0.6
    assert calibrated.tpr.low > 0.01  # more than are taken for members by mistake


def test_an_untrained_network_tells_nothing() -> None:
    for one in attacks(whole(layers(5)), few(), others()).values():
        assert one.auc.low <= 0.5 <= one.auc.high


def test_of_samples_that_were_both_not_trained_on_nothing_is_told() -> None:
    half = np.random.default_rng(0).permutation(len(digits().test)) < len(digits().test) // 2
    fresh, apart = (digits().test.take(part) for part in (half, ~half))
    for one in attacks(whole(learned(0)), fresh, apart).values():
        assert one.auc.low <= 0.5 <= one.auc.high


def test_the_area_counts_pairs_and_the_share_keeps_its_false_alarms() -> None:
    rng = np.random.default_rng(0)
    members, apart = rng.integers(0, 9, 150).astype(float), rng.integers(0, 7, 250).astype(float)
    pairs = (members[:, None] > apart) + 0.5 * (members[:, None] == apart)
    assert auc(members, apart).value == pytest.approx(pairs.mean())
    for signs in (apart, rng.normal(size=250), np.zeros(250)):
        found = tpr(signs, signs)
        assert found.value <= 0.01  # at its threshold as many others are taken for members
    assert tpr(apart + 10, apart).value == 1 and tpr(apart - 10, apart).value == 0


def test_too_few_samples_and_odd_references_are_refused() -> None:
    graph = whole(layers(5))
    model, some = victim(graph), samples(few(), 120)
    with pytest.raises(InputError, match="at least 100 members"):
        infer_membership(model, model, graph, samples(few(), 99), some, execute)
    with pytest.raises(InputError, match="in pairs"):
        infer_membership(model, model, graph, some, some, execute, references=3)
