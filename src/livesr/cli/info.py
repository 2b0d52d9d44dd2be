"""`livesr info`: what this computer can do."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape
from rich.table import Table

from livesr.cli.output import JSON, console, print_json

if TYPE_CHECKING:
    from livesr.live.inference.engine import Engine

_TRIED_PX = 64


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(info)


def info(as_json: JSON = False) -> None:
    """Show devices, runtimes, engines, rigs and what other packages add.

    [dim]Example:[/] livesr info --json
    """
    from livesr.modalities.registry import installed

    facts = collect()
    if as_json:
        print_json(facts)
        return
    out = console()
    machine = f"{facts['system']}, {facts['cores']} cores, {facts['memory_gib']} GiB"
    out.print(f"livesr {facts['version']}, Python {facts['python']}, {machine}")
    backends = [(b["name"], b["unavailable"] or _ready(b)) for b in facts["backends"]]
    titles = ", ".join(way.title for way in installed() if way.on_devices)
    out.print(f"{titles} frames are computed on {facts['device']}. {facts['no_gpu']}")
    out.print(f"Networks are computed by {escape(facts['auto']['computes'])}.", highlight=False)
    out.print(f"Plans for NVIDIA cards are kept in {escape(facts['plans'])}", soft_wrap=True)
    out.print(_table("Backends", ("name", "here"), backends))
    engines = [(e["id"], e["task"], e["channels"], e["note"]) for e in facts["engines"]]
    out.print(_table("Engines", ("id", "task", "channels", ""), engines))
    if facts["extensions"]:
        found = [(e["kind"], e["name"], e["package"]) for e in facts["extensions"]]
        out.print(_table("Of other packages", ("kind", "name", "package"), found))
    rigs = [(r["name"], r["modality"], r["description"]) for r in facts["rigs"]]
    out.print(_table("Rigs", ("name", "modality", "description"), rigs))


def _ready(backend: dict[str, Any]) -> str:
    named = " named by --endpoint" if backend["remote"] else ""
    return f"ready: {', '.join(backend['precisions'])} on {backend['devices'][0]}{named}"


def collect() -> dict[str, Any]:
    """Return everything `livesr info` shows."""
    import psutil

    import livesr
    from livesr.base.errors import BackendError
    from livesr.live.device import HOST_DEVICE, CudaDevice, Device
    from livesr.live.inference.plans import PlanCache

    device: Device = HOST_DEVICE
    no_gpu = ""
    try:
        device = CudaDevice()
    except BackendError as e:
        no_gpu = str(e)
    return {
        "version": livesr.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": psutil.cpu_count(logical=True),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "device": device.description,
        "no_gpu": no_gpu,
        "auto": _auto(),
        "plans": str(PlanCache().folder),
        "backends": _backends(),
        "engines": _engines(),
        "extensions": _extensions(),
        "rigs": _rigs(),
    }


def _auto() -> dict[str, Any]:
    """Return what "auto" takes here, tried with the engine that does nothing, and why not others.

    `backend` is None if none can run.
    """
    from livesr.base.compute import ComputeConfig
    from livesr.base.errors import LiveSRError
    from livesr.live.inference.engine import load_engine
    from livesr.live.inference.runner import open_session

    try:
        with open_session(load_engine("identity"), (_TRIED_PX, _TRIED_PX), ComputeConfig()) as made:
            return {
                "backend": made.name,
                "computes": made.described(),
                "skipped": list(made.skipped),
            }
    except LiveSRError as e:
        return {"backend": None, "computes": f"nothing: {e}", "skipped": []}


def _backends() -> list[dict[str, Any]]:
    from livesr.base.errors import BackendError
    from livesr.live.inference.runtime import BACKENDS, runtime_named, why_unavailable

    found: list[dict[str, Any]] = []
    for name in BACKENDS.names:
        try:
            here = why_unavailable(name)
            with BACKENDS.blamed(name, "cannot say what it has here", BackendError):
                facts = {} if here else runtime_named(name).facts()
        except BackendError as e:  # a package of others, or a driver that does not suit
            here, facts = str(e), {}
        found.append({"name": name, "unavailable": here, **facts})
    return found


def _engines() -> list[dict[str, Any]]:
    from livesr.base.errors import EngineError
    from livesr.live.inference.engine import engine_folders, load_engine

    found: list[dict[str, Any]] = []
    for name, folder in engine_folders().items():
        try:
            engine = load_engine(folder)
        except EngineError as e:  # one damaged engine must not hide the others
            found.append({"id": name, "task": "", "channels": "", "note": str(e)})
            continue
        manifest = engine.manifest
        found.append(
            {
                "id": name,
                "task": manifest.task,
                "channels": ", ".join(manifest.channel_names),
                "note": " ".join(_notes(engine)),
            }
        )
    return found


def _notes(engine: Engine) -> Iterator[str]:
    """Yield what is to be known of an engine before it is trusted."""
    manifest = engine.manifest
    if not manifest.trained:
        yield "untrained"
    yield from engine.notes
    for what, measured, option in (
        ("limits", manifest.limits, ""),
        ("scores", manifest.metrics, " --pairs FOLDER"),
    ):
        if measured.measured_with is None and measured != type(measured)():
            yield (
                f"Its {what} do not say which network they were measured with, and are believed:"
                f" 'livesr limits {engine.folder}{option}' measures anew."
            )


def _extensions() -> list[dict[str, str]]:
    """Return what other packages add; none of it is loaded."""
    from livesr.base.registry import announced, package_of

    return [
        {"kind": kind, "name": point.name, "package": package_of(point)}
        for kind in ("modalities", "backends", "sinks", "engines")
        for point in announced(f"livesr.{kind}")
    ]


def _rigs() -> list[dict[str, Any]]:
    from livesr.base.config import data_folders, load_rig
    from livesr.base.errors import ConfigError

    folders = reversed(data_folders("hardware_configs"))
    paths = {p.parent.name: p for folder in folders for p in folder.glob("[!_]*/rig.yaml")}
    found: list[dict[str, Any]] = []
    for name, path in sorted(paths.items()):
        try:
            rig = load_rig(path)
        except ConfigError as e:
            found.append({"name": name, "modality": "", "description": str(e)})
            continue
        found.append({"name": name, "modality": rig.modality, "description": rig.description})
    return found


def _table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    first, *others = columns
    table.add_column(first, no_wrap=True, overflow="fold")  # what is typed is never cut
    for column in others:
        table.add_column(column)
    for row in rows:
        table.add_row(*map(escape, row))
    return table
