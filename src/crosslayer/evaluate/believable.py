"""Whether an evaluation under attack can be believed: each check is something that a masked network gets wrong.

After Carlini et al. 2019 (arXiv 1902.06705), the flags of AutoAttack (Croce & Hein 2020), and what integers need.
"""

import itertools
from collections.abc import Iterator

import numpy as np

from crosslayer.attack.losses import cross_entropy
from crosslayer.attack.victim import Victim
from crosslayer.core.quant import Array
from crosslayer.core.robustness import Check
from crosslayer.evaluate.robustness import Knowledge, Outcome, still

_TOLERANCE = 0.002
"""Of the samples, or two of them: how far an attack that knows less may be ahead (AutoAttack's is the same share)."""
_TWIN_GAP = 0.03
_MOVED = 0.99
_REPEATS = 5
_PROBED = 100


def checks(victim: Victim, outcome: Outcome) -> tuple[Check, ...]:
    """All checks of an evaluation of a victim."""
    return tuple(_checks(victim, outcome))


def _checks(victim: Victim, outcome: Outcome) -> Iterator[Check]:
    x, labels, worst = outcome.x[:_PROBED], outcome.labels[:_PROBED], outcome.worst[:_PROBED]
    yield _worst_is_worst(victim, outcome)
    yield _deterministic(victim, x)
    if victim.linearize is not None:
        yield _same_logits(victim, x)
        yield _no_zero_slopes(victim, x, labels, "at the samples")
        yield _no_zero_slopes(victim, worst, labels, "at the worst points")
        yield Check(
            name="attacks by slopes change nearly every sample",
            holds=outcome.moved > _MOVED,
            finding=f"{100 * outcome.moved:.1f} % of the attacked samples were changed",
        )
    yield from _order(outcome)
    yield _falling(outcome)
    yield _ends_at_chance(victim, outcome)
    yield Check(
        name="twice the steps change hardly anything",
        holds=outcome.turned <= still(len(outcome.x)),
        finding=f"{outcome.steps} turned {outcome.turned} of {len(outcome.x)} samples more",
    )
    if outcome.twin_right is not None:
        gap = float(np.mean(outcome.right) - np.mean(outcome.twin_right & outcome.clean))
        yield Check(
            name="no more robust than its float network",
            holds=gap <= _TWIN_GAP,
            finding=f"{100 * gap:+.1f} points beside the float network; at most {100 * _TWIN_GAP:.0f} can be believed",
        )


def _worst_is_worst(victim: Victim, outcome: Outcome) -> Check:
    fooled = victim.fooled(outcome.worst, outcome.labels)
    wrong = int((fooled == outcome.right).sum()) + int((outcome.right & ~outcome.clean).sum())
    return Check(
        name="each verdict is that of its stored sample",
        holds=wrong == 0,
        finding=f"{wrong} of {len(fooled)} stored samples give another verdict",
    )


def _deterministic(victim: Victim, x: Array) -> Check:
    first = victim.logits(x)
    others = sum(not np.array_equal(victim.logits(x), first) for _ in range(_REPEATS))
    return Check(
        name="the same sample gets the same logits",
        holds=others == 0,
        finding=f"{others} of {_REPEATS} repeats gave other logits",
    )


def _same_logits(victim: Victim, x: Array) -> Check:
    logits, _ = victim.slopes(x)
    wrong = int((logits != victim.logits(x)).any(1).sum())
    return Check(
        name="slopes belong to the logits of what ships",
        holds=wrong == 0,
        finding=f"{wrong} of {len(x)} samples get other logits in the forward pass of the attack",
    )


def _no_zero_slopes(victim: Victim, x: Array, labels: Array, where: str) -> Check:
    logits, back = victim.slopes(x)
    _, along = cross_entropy(logits, labels)
    slopes = back(along.astype(np.float32)).reshape(len(x), -1)
    zero = int((~np.isfinite(slopes).all(1) | (slopes == 0).all(1)).sum())
    return Check(
        name=f"the loss has a slope {where}",
        holds=zero == 0,
        finding=f"{zero} of {len(x)} slopes are zero or not finite",
    )


def _order(outcome: Outcome) -> Iterator[Check]:
    """Who knows more must not do worse."""
    weaker = (
        (Knowledge.SLOPES, Knowledge.ONE_STEP),
        (Knowledge.ONE_STEP, Knowledge.NOTHING),
        (Knowledge.SLOPES, Knowledge.SCORES),
        (Knowledge.SLOPES, Knowledge.LABELS),
        (Knowledge.SLOPES, Knowledge.TWIN),
    )
    for more, less in weaker:
        if more not in outcome.union or less not in outcome.union:
            continue
        both = outcome.seen[more] & outcome.seen[less]
        count = max(1, int(both.sum()))
        ours, theirs = (int(outcome.union[kind][both].sum()) for kind in (more, less))
        allowed = max(2, round(_TOLERANCE * count))
        yield Check(
            name=f"attacks that know {more} beat those that know {less}",
            holds=ours - theirs <= allowed,
            finding=f"{ours} and {theirs} of {count} samples stayed right",
        )


def _falling(outcome: Outcome) -> Check:
    curve = outcome.curve
    rises = [after.accuracy - before.accuracy for before, after in itertools.pairwise(curve)]
    most = max(rises, default=0.0)
    return Check(
        name="accuracy falls as the budget grows",
        holds=most <= max(_TOLERANCE, 2 / max(1, len(outcome.x[:200]))),
        finding=f"the largest rise along the curve is {100 * most:.1f} points",
    )


def _ends_at_chance(victim: Victim, outcome: Outcome) -> Check:
    classes = victim.logits(outcome.x[:1]).shape[1]
    last = outcome.curve[-1]
    return Check(
        name="an unlimited attacker always wins",
        holds=last.low <= 1 / classes,
        finding=f"{100 * last.accuracy:.1f} % stay right at {last.size:g}; chance is {100 / classes:.0f} %",
    )
