"""What the verdicts say together, and how far each figure is from its limit."""

import math
from collections.abc import Sequence

from crosslayer.core.score import Better
from crosslayer.core.sheet import Verdict
from crosslayer.report.figures import difference, spell

SIGNS = {Better.LOWER: "≤", Better.HIGHER: "≥"}


def sentence(verdicts: Sequence[Verdict]) -> str:
    """One sentence on all requirements."""
    failed = [spell(v.requirement).lower() for v in verdicts if not v.holds]
    total = len(verdicts)
    if not total:
        return "No requirement was stated."
    if not failed:
        return f"All {total} requirements hold." if total > 1 else "The one requirement holds."
    named = " and ".join(part for part in (", ".join(failed[:-1]), failed[-1]) if part)
    if total == 1:
        return f"The one requirement does not hold: {named}."
    return f"{len(failed)} of {total} requirements {'does' if len(failed) == 1 else 'do'} not hold: {named}."


def bound(verdict: Verdict) -> str:
    """The limit as the user wrote it, with its direction."""
    return f"{SIGNS[verdict.score.better]} {verdict.written}"


def margin(verdict: Verdict) -> str:
    """How far the figure is on the good or the bad side of its limit."""
    gap = abs(verdict.limit - verdict.score.value)
    if math.isnan(gap):
        return "unknown"
    if gap == 0:
        return "exactly at the limit"
    return f"{difference(gap, verdict.score.unit)} {'to spare' if verdict.holds else 'beyond'}"


def torn(verdict: Verdict) -> bool:
    """True if one end of the figure's interval meets the limit and the other does not."""
    score, limit = verdict.score, verdict.limit
    if score.better is Better.LOWER:
        return score.low <= limit < score.high
    return score.low < limit <= score.high
