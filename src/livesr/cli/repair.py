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
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Look at the index of every file only; do not decode the pictures."
        ),
    ] = False,
    as_json: JSON = False,
) -> None:
    """Make a store readable and consistent after its process was killed or its disk failed.

    No picture is deleted.

    Ends with 1 if something could not be repaired, or if pictures are gone from the middle of the
    store; the rest is repaired.

    [dim]Example:[/] livesr repair run.ome.zarr
    """
    from livesr.store.repair import repair as repair_store

    out = console(quiet=as_json)
    with out.status("Looking at every picture" if not quick else "Looking at every file"):
        report = repair_store(store, decode=not quick).as_json()
    out.print(_table(report))
    for problem in (*report["damage"], *report["problems"]):
        out.print(f"[yellow]{escape(problem)}[/]")
    out.print(_summary(report))
    if as_json:
        print_json(report)
    raise typer.Exit(1 if report["problems"] or report["holes"] else 0)


def _table(report: dict[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2))
    for column in ("image", "length before", "readable to", "length now", "pictures lost", "found"):
        table.add_column(column, justify="left" if column == "image" else "right")
    for name, image in report["images"].items():
        lengths = image["before"], image["readable"], image["after"]
        numbers = (*lengths, report["lacking"].get(name, 0), report["found"].get(name, 0))
        table.add_row(name, *map(str, numbers))
    return table


def _summary(report: dict[str, Any]) -> str:
    store = escape(str(report["store"]))
    if not report["changed"] and not (report["lacking"] or report["damage"] or report["problems"]):
        return "The store is fine: nothing was touched."
    if not report["changed"]:
        return (
            "Nothing is left to repair, but the store is not whole. What is there: [bold]livesr"
            f" check {store}[/]"
        )
    kept = (
        f" Unreadable files are kept in {store}: {escape(', '.join(report['torn']))}."
        if report["torn"]
        else ""
    )
    return (
        f"The store is repaired.{kept} Predictions that are missing: [bold]livesr backfill"
        f" {store}[/]"
    )
