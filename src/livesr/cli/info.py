"""`livesr info`: what this computer can do."""

from __future__ import annotations

import platform
from typing import Any

import typer
from rich.table import Table

from livesr.cli.output import JSON, console, print_json


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(info)


def info(as_json: JSON = False) -> None:
    """Show devices, runtimes, engines and rigs.

    [dim]Example:[/] livesr info --json
    """
    facts = collect()
    if as_json:
        print_json(facts)
        return
    out = console()
    out.print(f"livesr {facts['version']}, Python {facts['python']}, {facts['system']}, {facts['cores']} cores, {facts['memory_gib']} GiB")
    out.print(_table("Backends", ("name", "here"), [(b["name"], b["unavailable"] or "[green]ready[/]") for b in facts["backends"]]))
    engines = [(e["id"], e["task"], e["channels"], e["note"]) for e in facts["engines"]]
    out.print(_table("Engines", ("id", "task", "channels", ""), engines))
    out.print(_table("Rigs", ("name", "modality", "description"), [(r["name"], r["modality"], r["description"]) for r in facts["rigs"]]))


def collect() -> dict[str, Any]:
    """Return everything `livesr info` shows."""
    import psutil

    import livesr
    from livesr.live.inference.backend import BACKENDS

    backends = [{"name": n, "unavailable": BACKENDS.load(n).is_unavailable()} for n in BACKENDS.names]
    return {
        "version": livesr.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": psutil.cpu_count(logical=True),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "backends": backends,
        "engines": _engines(),
        "rigs": _rigs(),
    }


def _engines() -> list[dict[str, Any]]:
    from livesr.live.inference.engine import list_engines

    return [
        {
            "id": e.manifest.id,
            "task": e.manifest.task,
            "channels": ", ".join(c.name for c in e.manifest.channels),
            "note": "" if e.manifest.trained else "[yellow]untrained[/]",
        }
        for e in list_engines()
    ]


def _rigs() -> list[dict[str, Any]]:
    from livesr.base.config import data_folders, load_rig

    found = {p.parent.name: p for folder in reversed(data_folders("hardware_configs")) for p in folder.glob("*/rig.yaml")}
    rigs = [(name, load_rig(path)) for name, path in sorted(found.items())]
    return [{"name": n, "modality": r.modality, "description": r.description} for n, r in rigs]


def _table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    return table
