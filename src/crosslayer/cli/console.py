"""What commands have in common: how they say something, and the statuses they end with."""

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

T = TypeVar("T")
HOLDS, BAD_INPUT, FAILS, INTERRUPTED = 0, 2, 3, 130

stderr = Console(stderr=True)
stdout = Console(markup=False)  # square brackets in a user's names are no markup


def track(items: Iterable[T], title: str, total: int | None) -> Iterator[T]:
    """The items, with a progress bar on stderr that disappears at the end."""
    with progress_bar() as bar:
        yield from bar.track(items, description=title, total=total)


def progress_bar() -> Progress:
    """On stderr, if that is a terminal; disappears at the end."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal)


def print_json(document: Any) -> None:
    """One line on stdout."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")


def print_figures(title: str, figures: dict[str, Any], as_json: bool) -> None:
    """A table of names and values, or one JSON object."""
    if as_json:
        print_json(figures)
        return
    table = Table("figure", "value", title=title)
    for name, value in figures.items():
        table.add_row(name, f"{value:.6g}" if isinstance(value, float) else str(value))
    stdout.print(table)


def plain(text: str) -> str:
    """Text without meaning to the console's markup."""
    from rich.markup import escape

    return escape(text)
