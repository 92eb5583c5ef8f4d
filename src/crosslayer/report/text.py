"""The data sheet's figures and verdicts for the terminal."""

from rich.table import Table
from rich.text import Text

from crosslayer.core.robustness import Robustness
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


def _figure(name: str, score: Score) -> tuple[Text, ...]:
    # Text, not str: rich would read square brackets in a user's words as its own markup
    words = (spell(name), amount(score.value, score.unit), interval(score), score.origin.value)
    return tuple(Text(word) for word in words)


def _outcome(verdict: Verdict) -> Text:
    return Text("holds", style="green") if verdict.holds else Text("fails", style="bold red")
