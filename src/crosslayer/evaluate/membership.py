"""Do a design's outputs tell which samples it was trained on?

By the loss alone (Yeom et al. 2018, arXiv 1709.01604), and by the loss less what networks make of the sample that were
not trained on it (difficulty calibration, Watson et al. 2022, arXiv 2111.08440), both in the logit scale of Carlini et
al. 2022 (arXiv 2112.03570). Who has the float network and its integers may learn more than from either (CompLeak, arXiv
2507.16872); so both are tried together.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from crosslayer.attack.victim import Victim
from crosslayer.core.audit import Membership, MembershipAttack
from crosslayer.core.bench import Executor, Progress, silent
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array
from crosslayer.core.score import Better, Origin, Score, share_score
from crosslayer.core.stage import check_parameters
from crosslayer.evaluate.rejection import auroc
from crosslayer.evaluate.substitute import fresh, one_hot, taught

FALSE = 0.01
"""The share of non-members that may be taken for members."""
_FEWEST = 100
_Floats = npt.NDArray[np.float64]


def infer_membership(
    victim: Victim,
    twin: Victim,
    graph: Graph,
    members: tuple[Array, Array],
    others: tuple[Array, Array],
    executor: Executor,
    *,
    references: int = 4,
    steps: int = 1000,
    seed: int = 0,
    progress: Progress = silent,
) -> Membership:
    """Attacks by what the logits say of samples (count, …), shares of the sensor's range, with labels (count,).

    `references` networks of the same shape are trained in pairs, each on a random half of all these samples and its
    other on the rest, so that half of them have not seen a given sample. The attacker has the logits of the integers
    (the device's shares tell less), those of `twin`, or both (the mean). Raises `InputError` for fewer than 100 members
    or others, of which no 1 % can be told, or for an odd number of references.
    """
    check_parameters(
        (min(len(members[1]), len(others[1])) >= _FEWEST, f"membership needs at least {_FEWEST} members and others"),
        (references >= 2 and references % 2 == 0, "references are trained in pairs: give an even number of at least 2"),
    )
    x, labels = (np.concatenate(pair) for pair in zip(members, others, strict=True))
    inside = np.arange(len(labels)) < len(members[1])
    rng, spared = np.random.default_rng(seed), list[Array]()
    classes = victim.logits(x[:1]).shape[1]
    for number in progress(range(references // 2), "references, in pairs", references // 2):
        half = rng.permutation(len(labels)) < len(labels) // 2
        unseen = np.zeros(len(labels))
        for seen in (half, ~half):
            given = victim.sensor.real(x[seen]), one_hot(labels[seen], classes)
            reference = taught(fresh(graph, rng), *given, steps=steps, seed=seed + number)
            unseen[~seen] = _sureness(Victim.of(reference, victim.sensor, executor), x[~seen], labels[~seen])
        spared.append(unseen)
    whole, real = (_sureness(network, x, labels) for network in (victim, twin))
    easy = np.mean(spared, axis=0)
    signs: Mapping[tuple[str, str], _Floats] = {
        (attack, outputs): found - expected
        for attack, expected in (("threshold", np.zeros(len(x))), ("calibrated", easy))
        for outputs, found in (("integers", whole), ("float", real), ("both", (whole + real) / 2))
    }
    return Membership(
        samples=int(inside.sum()),
        attacks=tuple(
            MembershipAttack(
                attack=attack,
                outputs=outputs,
                auc=auc(sign[inside], sign[~inside]),
                tpr=tpr(sign[inside], sign[~inside]),
            )
            for (attack, outputs), sign in signs.items()
        ),
    )


def auc(members: _Floats, others: _Floats) -> Score:
    """How often a member has the higher sign, ties half, with its 95 % interval."""
    value, low, high = auroc(members, others)
    return Score(
        name="membership_auc",
        value=value,
        unit="1",
        low=low,
        high=high,
        better=Better.LOWER,
        origin=Origin.MEASURED,
        note=f"0.5 tells nothing; {len(members)} members, {len(others)} others",
    )


def tpr(members: _Floats, others: _Floats) -> Score:
    """The share of members with a sign that at most 1 % of the others exceed, with its 95 % Wilson interval.

    The interval is over members, at the threshold that these others give.
    """
    threshold = np.sort(others)[::-1][int(FALSE * len(others))]
    hits = int((members > threshold).sum())
    note = f"at most {FALSE:.0%} of {len(others)} others are taken for members"
    return share_score("membership_tpr", hits, len(members), Better.LOWER, note)


def _sureness(victim: Victim, x: Array, labels: Array) -> _Floats:
    """log(p / (1 − p)) of the label's share p: falls as the loss −log p rises, and does not run out of numbers."""
    logits, rows = victim.logits(x).astype(np.float64), np.arange(len(labels))
    own = logits[rows, labels]
    logits[rows, labels] = -np.inf
    return own - np.logaddexp.reduce(logits, axis=1)
