"""`livesr check RIG`: what can be said about a rig's files before a device moves."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from livesr.check.finding import Finding
from livesr.cli.output import JSON, console, print_json

_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(check)


def check(
    rig: Annotated[str, typer.Argument(help="rig.yaml, its folder, or a name in hardware_configs.")],
    as_json: JSON = False,
) -> None:
    """Check rig.cfg and rig.yaml without devices: names, optics, patterns, corrections, engines.

    Exit code 0: no error was found; 1: at least one.

    [dim]Example:[/] livesr check hardware_configs/my_rig
    """
    from livesr.base.config import rig_file
    from livesr.check.rig import check_rig

    path = rig_file(rig)
    findings = check_rig(path)
    counts: Counter[str] = Counter(f.level for f in findings)
    out = console(quiet=as_json)
    if findings:
        out.print(_table(findings))
    said = ", ".join(f"{counts[level]} {level}{'' if counts[level] == 1 else 's'}" for level in _STYLES)
    out.print(f"{escape(str(path))}: {said}.")
    code = 1 if counts["error"] else 0
    if as_json:
        listed = [{**asdict(f), "file": str(f.file), "place": f.place} for f in findings]
        print_json(
            {"rig": str(path), "findings": listed, **{level: counts[level] for level in _STYLES}, "exit_code": code}
        )
    raise typer.Exit(code)


def _table(findings: list[Finding]) -> Table:
    table = Table(box=None, padding=(0, 1), show_header=False)
    for _ in range(3):
        table.add_column(vertical="top")
    for f in findings:
        style = _STYLES[f.level]
        table.add_row(f"[{style}]{f.level}[/]", escape(f.place), f"{escape(f.says)} [dim]{escape(f.advice)}[/]")
    return table
