"""`livesr check RIG`: what can be said about a rig's files before a device moves, and with
`--hardware` of its frames.

`livesr check STORE`: whether everything that a run took is there, and can be read.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from livesr.base.words import counted
from livesr.check.finding import Finding
from livesr.cli import options
from livesr.cli.output import JSON, console, print_json

if TYPE_CHECKING:
    from livesr.check.store import StoreState

_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(check)


def check(
    rig: Annotated[
        str,
        typer.Argument(
            metavar="RIG|STORE",
            help="rig.yaml, its folder, a name in hardware_configs; or a store.",
        ),
    ],
    hardware: Annotated[
        bool,
        typer.Option(
            "--hardware", help="Load the devices, take a few groups, and say what they show."
        ),
    ] = False,
    channel: Annotated[
        str | None,
        typer.Option(help="--hardware: channel of rig.yaml to look at; the first without."),
    ] = None,
    picture: Annotated[
        Path,
        typer.Option(help="--hardware: PNG of raw group, widefield and reconstruction to write."),
    ] = Path("livesr-check.png"),
    as_json: JSON = False,
) -> None:
    """Check rig.cfg and rig.yaml without devices, or with them.

    Names, optics, patterns, corrections, engines, frames.

    Of a store: read every picture, and compare images, frames.jsonl and report. Nothing is changed.

    Exit code 0: no error was found; 1: at least one; 2: there is nothing to check, or a run is
    still going on.

    [dim]Example:[/] livesr check hardware_configs/my_rig

    [dim]Example:[/] livesr check run.ome.zarr

    [dim]Example:[/] livesr check my_rig --hardware --channel 488 --picture look.png
    """
    from livesr.base.config import rig_file
    from livesr.check.rig import check_rig

    if _is_store(Path(rig)):
        _check_store(Path(rig), as_json)
    _refuse_other(Path(rig))
    if hardware:
        options.to_write(picture)
    path = rig_file(rig)
    findings = check_rig(path)
    counts: Counter[str] = Counter(f.level for f in findings)
    out = console(quiet=as_json)
    if findings:
        out.print(_table(findings))
    said = ", ".join(counted(counts[level], level) for level in _STYLES)
    out.print(f"{escape(str(path))}: {said}.")
    seen = _hardware(str(path), channel, picture, out) if hardware and not counts["error"] else None
    code = 1 if counts["error"] or (seen and seen["error"]) else 0
    if as_json:
        listed = [{**asdict(f), "file": str(f.file), "place": f.place} for f in findings]
        report = {
            "rig": str(path),
            "findings": listed,
            **{level: counts[level] for level in _STYLES},
        }
        print_json({**report, **({"hardware": seen} if seen else {}), "exit_code": code})
    raise typer.Exit(code)


def _is_store(path: Path) -> bool:
    from livesr.formats.store import is_store

    return (
        is_store(path)
        or (path / "zarr.json").is_file()
        or (not path.exists() and ".zarr" in path.suffixes)
    )


def _refuse_other(path: Path) -> None:
    """Refuse what is neither a rig nor a store, in words that name both.

    Raises
    ------
    ConfigError
        With what it is, and what can be done with it.
    """
    from livesr.base.errors import ConfigError
    from livesr.base.other_files import RIG, STORE, other_than_yaml

    expected = f"{RIG} or {STORE}"
    if path.is_dir() and not (path / "rig.yaml").is_file():
        raise ConfigError(
            f"{path} is a folder without rig.yaml and no store of livesr; expected {expected}."
            " 'livesr new' makes a rig, 'livesr process' reads recordings of other programs."
        )
    if other := other_than_yaml(path, expected):
        raise ConfigError(other)


def _check_store(path: Path, as_json: bool) -> NoReturn:
    from livesr.check.store import check_store

    out = console(quiet=as_json)
    with out.status("Reading every picture"):
        state = check_store(path)
    out.print(_images(state))
    if state.findings:
        out.print(_table(list(state.findings)))
    counts: Counter[str] = Counter(f.level for f in state.findings)
    code = 1 if counts["error"] else 0
    said = (
        "everything is there and can be read" if not code else "not everything is there and right"
    )
    out.print(f"{escape(str(path))}: {said}.")
    if as_json:
        print_json(
            {**state.as_json(), **{level: counts[level] for level in _STYLES}, "exit_code": code}
        )
    raise typer.Exit(code)


def _images(state: StoreState) -> Table:
    table = Table(box=None, padding=(0, 1))
    names = ("time_points", "told", "readable", "damaged", "missing", "lost", "unlogged")
    for column in ("image", "t", "taken", "read", "damaged", "missing", "lost", "no line"):
        table.add_column(column, justify="left" if column == "image" else "right")
    table.add_column("crc")
    for image in state.images:
        checksums = "yes" if image.checksums else "no"
        table.add_row(image.name, *(str(getattr(image, name)) for name in names), checksums)
    return table


def _hardware(rig: str, channel: str | None, picture: Path, out: Console) -> dict[str, Any]:
    """Load the rig, look at one channel, draw it and print the table."""
    from livesr.base.config import load_rig
    from livesr.check.hardware import look
    from livesr.cli.experiment import Experiment
    from livesr.cli.session import Request, load_core
    from livesr.evaluation.contact_sheet import save

    config = load_rig(rig).with_engine("none")
    name = channel if channel is not None else next(iter(config.channels), "")
    config.channel(name)
    core = load_core(Request(rig=config, experiment=Experiment(frames=1)))
    try:
        found = look(core, config, name)
    finally:
        core.unloadAllDevices()
    save(found.picture(), picture)
    table = Table(
        box=None,
        padding=(0, 1),
        show_header=False,
        title=f"Channel {name or 'default'}",
        title_justify="left",
    )
    for m in found.measured:
        style = {"ok": "green"}.get(m.verdict) or _STYLES[m.verdict]
        table.add_row(
            f"[{style}]{m.verdict}[/]", m.name, f"{escape(m.value)} [dim]{escape(m.advice)}[/]"
        )
    out.print(table)
    out.print(f"Picture: [bold]{escape(str(picture))}[/]")
    measured = [asdict(m) for m in found.measured]
    errors = sum(m.verdict == "error" for m in found.measured)
    return {"channel": name, "measured": measured, "picture": str(picture), "error": errors}


def _table(findings: list[Finding]) -> Table:
    table = Table(box=None, padding=(0, 1), show_header=False)
    for _ in range(3):
        table.add_column(vertical="top")
    for f in findings:
        style = _STYLES[f.level]
        table.add_row(
            f"[{style}]{f.level}[/]",
            escape(f.place),
            f"{escape(f.says)} [dim]{escape(f.advice)}[/]",
        )
    return table
