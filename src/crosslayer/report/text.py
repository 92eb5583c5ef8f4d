"""The data sheet's figures and verdicts for the terminal."""

from rich.table import Table
from rich.text import Text

from crosslayer.core.audit import Audit
from crosslayer.core.robustness import Alone, Robustness
from crosslayer.core.score import Score
from crosslayer.core.sheet import Sheet, Verdict
from crosslayer.report.figures import SHARE, amount, between, interval, spell
from crosslayer.report.verdicts import bound, sentence


def verdict_table(sheet: Sheet) -> Table:
    """Required figures first, with limit and verdict, then all others; below them the verdicts in one sentence."""
    table = Table(box=None, pad_edge=False, caption=Text(sentence(sheet.verdicts)), caption_justify="left")
    table.add_column("figure", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("interval", no_wrap=True)
    table.add_column("origin", no_wrap=True)
    table.add_column("required", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    judged = {verdict.score.name for verdict in sheet.verdicts}
    for verdict in sheet.verdicts:
        table.add_row(*_figure(verdict.requirement, verdict.score), Text(bound(verdict)), _outcome(verdict))
    for score in sheet.scores:
        if score.name not in judged:
            table.add_row(*_figure(score.name, score))
    return table


def attack_tables(found: Robustness) -> tuple[Table, ...]:
    """Each attack's own figure; the checks; and what is claimed, in one sentence."""
    attacks = Table("attack", "samples", "stayed right", "95 % interval", "seconds", box=None, pad_edge=False)
    for one in found.attacks:
        share = amount(one.right / one.samples, SHARE) if one.samples else ""
        bounds = between(one.low, one.high, one.high, SHARE)
        attacks.add_row(one.name, str(one.samples), share, bounds, f"{one.seconds:.1f}")
    claim = (
        f"{amount(found.score.value, SHARE)} ({interval(found.score)}) not broken by these attacks at {found.budget}; "
        f"{amount(found.clean.value, SHARE)} without attack; {found.replayed} samples on the C, {found.differing} "
        "bytes differ"
        if found.believable
        else "nothing is claimed: the evaluation fails its checks"
    )
    checks = Table("check", "verdict", "found", box=None, pad_edge=False, caption=Text(claim), caption_justify="left")
    for check in found.checks:
        checks.add_row(
            check.name,
            Text("holds" if check.holds else "fails", style="" if check.holds else "bold red"),
            check.finding,
        )
    return attacks, checks


def attack_alone_text(found: Alone) -> Text:
    """What one attack leaves, in one sentence."""
    return Text(
        f"{amount(found.score.value, SHARE)} ({interval(found.score)}) left right by {found.attack} alone at "
        f"{found.budget}; {amount(found.clean.value, SHARE)} without attack; {found.replayed} samples on the C, "
        f"{found.differing} bytes differ. Other attacks may find more."
    )


def audit_tables(found: Audit) -> tuple[Table, ...]:
    """Triggers by class; copies by number of queries; attacks on membership. What they amount to is below each."""
    return _trigger_table(found), _copies_table(found), _membership_table(found)


def _trigger_table(found: Audit) -> Table:
    scan = found.backdoors
    flagged = ", ".join(map(str, scan.flagged))
    claim = (
        f"class {flagged}: a trigger too small to be chance (index above {scan.limit:g})"
        if scan.flagged
        else f"no trigger stands out (index above {scan.limit:g}): no backdoor of a fixed place was found"
    ) + f"; integers and float network agree on {_share(scan.agreement)} of samples with triggers"
    table = Table("class", "places", "index", "turned", "in float", box=None, pad_edge=False)
    table.caption, table.caption_justify = Text(claim), "left"
    for trigger in scan.triggers:
        awake = " (by quantization)" if trigger.awakened else ""
        table.add_row(
            str(trigger.target),
            f"{trigger.size:.1f}",
            f"{trigger.index:.1f}",
            _share(trigger.turned) + awake,
            _share(trigger.turned_float),
        )
    return table


def _copies_table(found: Audit) -> Table:
    table = Table("answers", "queries", "agreement", box=None, pad_edge=False)
    claims: list[str] = []
    for one in found.extraction:
        for point in one.curve:
            table.add_row(one.answers, str(point.queries), _share(point.agreement))
        queries = "not reached" if one.needed is None else f"{one.needed.value:g} ({interval(one.needed) or 'surely'})"
        claims.append(f"90 % agreement from {one.answers}, {one.inputs}: {queries}")
    table.caption, table.caption_justify = Text("; ".join(claims)), "left"
    return table


def _membership_table(found: Audit) -> Table:
    title = f"{found.membership.samples} members; an area of 50 % tells nothing"
    table = Table("attack", "outputs", "area under the curve", "found at 1 % false", box=None, pad_edge=False)
    table.caption, table.caption_justify = Text(title), "left"
    for one in found.membership.attacks:
        table.add_row(one.attack, one.outputs, _share(one.auc), _share(one.tpr))
    return table


def _share(score: Score) -> str:
    bounds = interval(score)
    return amount(score.value, score.unit) + (f" ({bounds})" if bounds else "")


def _figure(name: str, score: Score) -> tuple[Text, ...]:
    # Text, not str: rich would read square brackets in a user's words as its own markup
    words = (spell(name), amount(score.value, score.unit), interval(score), score.origin.value)
    return tuple(Text(word) for word in words)


def _outcome(verdict: Verdict) -> Text:
    return Text("holds", style="green") if verdict.holds else Text("fails", style="bold red")
