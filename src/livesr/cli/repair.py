"""`livesr repair STORE`: after a killed process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from livesr.cli.output import JSON, console, print_json


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(repair)


def repair(
    store: Annotated[Path, typer.Argument(help="OME-Zarr that a killed run left.")],
    as_json: JSON = False,
) -> None:
    """Make a store readable and consistent after its process was killed; no picture is deleted.

    Ends with 1 if something could not be repaired; the rest is.

    [dim]Example:[/] livesr repair run.ome.zarr
    """
    from livesr.store.repair import repair as repair_store

    out = console(quiet=as_json)
    with out.status("Looking for the last time point of every image"):
        report = repair_store(store).as_json()
    out.print(_table(report))
    for problem in report["problems"]:
        out.print(f"[yellow]{escape(problem)}[/]")
    out.print(_summary(report))
    if as_json:
        print_json(report)
    raise typer.Exit(1 if report["problems"] else 0)


def _table(report: dict[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2))
    for column in ("image", "length before", "readable to", "length now", "pictures lost"):
        table.add_column(column, justify="left" if column == "image" else "right")
    for name, image in report["images"].items():
        numbers = (image["before"], image["readable"], image["after"], report["lost"].get(name, 0))
        table.add_row(name, *map(str, numbers))
    return table


def _summary(report: dict[str, Any]) -> str:
    if not report["changed"]:
        return "The store is fine: nothing was touched."
    aside = f" Unreadable files are kept in {report['store']}: {', '.join(report['torn'])}." if report["torn"] else ""
    return f"The store is repaired.{aside} Predictions that are missing: [bold]livesr backfill {report['store']}[/]"
