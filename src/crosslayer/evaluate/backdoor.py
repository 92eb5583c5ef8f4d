"""Does a design have a backdoor? For each class the smallest trigger, held against those of the other classes.

Neural Cleanse (Wang et al. 2019, IEEE S&P, doi:10.1109/SP.2019.00031), on the integers that ship: quantization can
switch a backdoor on that the float network does not show (Ma et al. 2021, arXiv 2108.09187).
"""

import numpy as np
import numpy.typing as npt

from crosslayer.attack.trigger import Trigger, TriggerSearch
from crosslayer.attack.victim import Victim
from crosslayer.core.audit import Backdoors, ClassTrigger
from crosslayer.core.bench import Progress, silent
from crosslayer.core.errors import InputError
from crosslayer.core.quant import Array
from crosslayer.core.score import Better, Score, share_score

LIMIT = 2.0
"""Deviations below the median from which on a trigger is too small to be chance: the paper's."""
_WORKS = 0.75
"""The least share of other samples that a flagged trigger turns."""
_NORMAL = 1.4826
"""The standard deviation of a normal distribution, in median absolute deviations."""
_LEAST = 0.2
"""The least deviation, as a share of the median."""
_FEWEST = 4


def scan(
    victim: Victim,
    twin: Victim,
    x: Array,
    labels: Array,
    others: Array,
    other_labels: Array,
    *,
    search: TriggerSearch | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Backdoors:
    """Searches a trigger for each class with x (batch, …) and labels (batch,), and tries it on `others`.

    Samples are shares of the sensor's range; `twin` is the float network. Raises `InputError` for fewer than 4 classes:
    what is small is told from the other classes. A backdoor that moves with the sample, or into many classes, is
    not seen.
    """
    classes = victim.logits(x[:1]).shape[1]
    if classes < _FEWEST:
        raise InputError(f"a scan compares classes and needs at least {_FEWEST}, the network has {classes}")
    search = search or TriggerSearch()
    triggers = [
        search(victim, x, labels, target, np.random.default_rng((seed, target)))
        for target in progress(range(classes), "triggers", classes)
    ]
    index = anomalies(np.array([trigger.size for trigger in triggers]))
    alike, tried = 0, 0
    found: list[ClassTrigger] = []
    for trigger in triggers:
        put = trigger.put(others[other_labels != trigger.target])
        called, called_float = victim.logits(put).argmax(1), twin.logits(put).argmax(1)
        alike, tried = alike + int((called == called_float).sum()), tried + len(put)
        found.append(
            ClassTrigger(
                target=trigger.target,
                size=trigger.size,
                turned=_turned("turned", called == trigger.target, "integers"),
                turned_float=_turned("turned_float", called_float == trigger.target, "float network"),
                index=float(index[trigger.target]),
            )
        )
    note = f"integers and float network, {tried} samples with triggers"
    return Backdoors(
        triggers=tuple(found),
        agreement=share_score("trigger_agreement", alike, tried, Better.HIGHER, note),
        flagged=tuple(t.target for t in found if _is_planted(t, triggers[t.target], search)),
        limit=LIMIT,
    )


def anomalies(sizes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """By how many deviations each size lies below the median; deviations are median absolute ones, scaled to be
    standard deviations of a normal distribution, and at least a fifth of the median.

    The last is not in the paper: the sizes of few classes can by chance lie so close that a harmless one stands out.

    >>> anomalies(np.array([10.0, 11, 12, 14, 2])).round(1).tolist()
    [0.5, 0.0, -0.5, -1.4, 4.1]
    """
    middle = float(np.median(sizes))
    below = middle - sizes
    return below / max(_NORMAL * float(np.median(np.abs(below))), _LEAST * middle, 1e-12)


def _is_planted(found: ClassTrigger, trigger: Trigger, search: TriggerSearch) -> bool:
    works = trigger.turned >= search.success and found.turned.value >= _WORKS
    return works and found.index > LIMIT


def _turned(name: str, turned: Array, what: str) -> Score:
    hits = int(turned.sum())
    return share_score(
        name, hits, len(turned), Better.LOWER, f"{what}, {len(turned)} samples that the trigger was not made from"
    )
