"""Commands that list what there is to choose from, and fetch data sets."""

from typing import Annotated

import typer
from rich.table import Table

from crosslayer.cli.console import print_json, progress_bar, stdout
from crosslayer.cli.options import Json
from crosslayer.core.codec import to_plain

app = typer.Typer()
_PANEL = "What there is"
data_app = typer.Typer(help="Data sets: which are found, and fetching them.", invoke_without_command=True)
app.add_typer(data_app, name="datasets", rich_help_panel=_PANEL)


@app.command(rich_help_panel=_PANEL)
def targets(as_json: Json = False) -> None:
    """List the devices, or where a figure of theirs comes from (--json)."""
    from crosslayer.core.target import MemoryKind
    from crosslayer.hardware.catalogue import list_targets

    found = list_targets()
    if as_json:
        print_json({"targets": [to_plain(target) for target in found]})
        return
    table = Table("name", "device", "core", "MHz", "flash KiB", "RAM KiB")
    for t in found:
        sizes = (str(t.capacity(kind) // 1024) for kind in (MemoryKind.FLASH, MemoryKind.RAM))
        table.add_row(t.name, t.title, t.core.value, f"{t.clock_hz / 1e6:g}", *sizes)
    stdout.print(table)


@app.command(rich_help_panel=_PANEL)
def networks(as_json: Json = False) -> None:
    """List the reference networks."""
    from crosslayer.networks.zoo import NETWORKS

    found = {name: (function.__doc__ or "").splitlines()[0] for name, function in NETWORKS.items()}
    if as_json:
        print_json({"networks": [{"name": name, "what": what} for name, what in found.items()]})
        return
    table = Table("name", "what it is")
    for row in found.items():
        table.add_row(*row)
    stdout.print(table)


@app.command(rich_help_panel=_PANEL)
def stages(as_json: Json = False) -> None:
    """List the stages of a recipe and their parameters."""
    import dataclasses

    from crosslayer.study import STAGES

    if as_json:
        listed = [
            {"name": s.name(), "parameters": to_plain(s()), "what": (s.__doc__ or "").splitlines()[0]} for s in STAGES
        ]
        print_json({"stages": listed})
        return
    table = Table("use", "parameters", "what it does")
    for stage in STAGES:
        fields = dataclasses.fields(stage)  # type: ignore[arg-type]  # every stage is a dataclass
        shown = "\n".join(f"{f.name} = {to_plain(getattr(stage(), f.name))!r}" for f in fields)
        table.add_row(stage.name(), shown, (stage.__doc__ or "").splitlines()[0])
    stdout.print(table)


@data_app.callback()
def datasets(context: typer.Context, as_json: Json = False) -> None:
    """List the data sets, and where they are found."""
    if context.invoked_subcommand is not None:
        return
    from crosslayer.datasets.catalog import catalog, locate, whereabouts

    if as_json:
        listed = [
            {
                "name": s.name,
                "title": s.title,
                "licence": s.licence,
                "citation": s.citation,
                "where": whereabouts(s.name),
                "path": None if (path := locate(s.name)) is None else str(path),
            }
            for s in catalog()
        ]
        print_json({"datasets": listed})
        return
    table = Table("name", "set", "where")
    for s in catalog():
        table.add_row(s.name, s.title, whereabouts(s.name))
    stdout.print(table)


@data_app.command("get")
def get_dataset(
    name: Annotated[str, typer.Argument(help="Name of a data set.")],
    url: Annotated[str | None, typer.Option(help="Folder on another server that holds the same files.")] = None,
    as_json: Json = False,
) -> None:
    """Download a data set, with checksum; an interrupted download goes on where it stopped."""
    from crosslayer.datasets.download import get

    with progress_bar() as bar:
        task = bar.add_task(name, total=None)
        folder = get(name, base_url=url, progress=lambda done, total: bar.update(task, completed=done, total=total))
    if as_json:
        print_json({"name": name, "path": str(folder)})
    else:
        stdout.print(str(folder), soft_wrap=True)
