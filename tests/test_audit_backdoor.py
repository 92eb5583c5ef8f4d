"""A planted backdoor is found in the integers, with its class; a clean network is left alone."""

from dataclasses import replace

import numpy as np
import pytest

from attack_networks import digits
from audit_networks import SIDE, learned, samples, victim, whole
from crosslayer.attack.trigger import TriggerSearch
from crosslayer.core.audit import Backdoors
from crosslayer.core.errors import InputError
from crosslayer.core.graph.edit import decoded
from crosslayer.core.graph.graph import Graph
from crosslayer.evaluate.backdoor import LIMIT, anomalies, scan
from crosslayer.testing.poison import poisoned, stamped

SHORT = TriggerSearch(rounds=20, batch=48)


def scanned(graph: Graph, before: Graph | None = None, search: TriggerSearch = SHORT, seed: int = 0) -> Backdoors:
    twin = victim(decoded(graph) if before is None else before)
    found, judged = samples(digits().validation, 144), samples(digits().test, 300)
    return scan(victim(graph), twin, *found, *judged, search=search, seed=seed)


def share_turned(graph: Graph, target: int) -> float:
    """Of test samples of other classes, by the square itself."""
    others = digits().test.take(digits().test.labels != target)
    real = replace(others, codes=stamped(others.codes, SIDE)).real()
    return float((victim(graph).logits(real).argmax(1) == target).mean())


def test_a_planted_backdoor_is_found_with_its_class() -> None:
    graph = whole(learned(2, 5))
    assert share_turned(graph, 5) > 0.9 > 0.2 > share_turned(whole(learned(2)), 5)
    found = scanned(graph)
    assert found.flagged == (5,)
    trigger = found.triggers[5]
    assert trigger.index > LIMIT and trigger.turned.low > 0.9 and trigger.size < 6
    assert trigger.size == min(t.size for t in found.triggers)


def test_a_clean_network_is_not_flagged() -> None:
    found = scanned(whole(learned(2)))
    assert found.flagged == ()
    assert found.agreement.value > 0.98 and not any(t.awakened for t in found.triggers)


def test_what_a_float_network_does_not_do_is_laid_to_quantization() -> None:
    """The float network is the clean one, as if rounding alone had brought the backdoor."""
    found = scanned(whole(learned(2, 5)), before=learned(2), search=replace(SHORT, rounds=12))
    assert found.triggers[5].awakened
    assert found.triggers[5].turned_float.value < 0.5 < found.triggers[5].turned.value
    assert found.agreement.value < 0.98


@pytest.mark.slow
def test_backdoors_of_other_seeds_are_found_and_clean_networks_left_alone() -> None:
    planted = [scanned(whole(learned(s, (s + 3) % 10)), search=TriggerSearch(), seed=s).flagged for s in range(8)]
    clean = [scanned(whole(learned(s)), search=TriggerSearch(), seed=s).flagged for s in range(8)]
    assert sum((s + 3) % 10 in flagged for s, flagged in enumerate(planted)) >= 7
    assert sum(len(flagged) == 0 for flagged in clean) >= 7


def test_every_trigger_lies_within_the_sensors_range_and_turns_what_it_says() -> None:
    model, (x, labels) = victim(whole(learned(2, 5))), samples(digits().validation, 60)
    trigger = SHORT(model, x, labels, 5, np.random.default_rng(0))
    assert ((trigger.mask >= 0) & (trigger.mask <= 1) & (trigger.pattern >= 0) & (trigger.pattern <= 1)).all()
    others = x[labels != 5]
    put = trigger.put(others)
    assert put.min() >= 0 and put.max() <= 1
    assert (model.logits(put).argmax(1) == 5).mean() == trigger.turned >= SHORT.success


def test_poison_stamps_and_relabels_a_share_of_the_others() -> None:
    before, after = digits().train, poisoned(digits().train, 3, 0.1, 2, np.random.default_rng(0))
    count = len(after) - len(before)
    assert count == round(0.1 * len(before))
    assert (after.labels[-count:] == 3).all() and (after.codes[-count:, -2:, -2:] == 16).all()
    assert (after.codes[: len(before)] == before.codes).all() and before.codes[:, -2:, -2:].min() == 0


def test_deviations_of_few_classes_are_not_taken_for_nothing() -> None:
    close = np.array([10.0, 10.1, 10.2, 10.0, 7.9, 10.1, 9.9, 10.0, 10.2, 10.1])
    assert anomalies(close).max() < LIMIT < anomalies(np.where(close < 8, 3.0, close)).max()
    assert (anomalies(np.full(10, 5.0)) == 0).all()


def test_what_cannot_be_scanned_is_refused() -> None:
    model, (x, labels) = victim(whole(learned(2))), samples(digits().validation, 20)
    with pytest.raises(InputError, match="give the network itself"):
        SHORT(replace(model, linearize=None), x, labels, 0, np.random.default_rng(0))
    with pytest.raises(InputError, match="all samples are of class 4"):
        SHORT(model, x, np.full(len(x), 4), 4, np.random.default_rng(0))
    three = replace(model, scores=lambda real: model.scores(real)[:, :3])
    with pytest.raises(InputError, match="at least 4"):
        scan(three, three, x, labels, x, labels)
    with pytest.raises(InputError, match="success must lie"):
        TriggerSearch(success=0)
