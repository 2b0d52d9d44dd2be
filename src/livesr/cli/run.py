"""`livesr run RIG`: acquire on a real or virtual rig and separate live."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from livesr.cli import options
from livesr.cli.output import JSON, console, print_json, run_table


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(run)


def run(
    rig: Annotated[str, typer.Argument(help="rig.yaml, its folder, or a name in hardware_configs.")],
    frames: options.Frames = None,
    duration: options.Duration = None,
    engine: options.Engine = None,
    store: options.Store = None,
    publish: options.Publish = None,
    policy: options.Policy = "latest",
    backend: options.Backend = "auto",
    exposure: options.Exposure = None,
    interval: options.Interval = 0.0,
    no_raw: options.NoRaw = False,
    no_recon: options.NoRecon = False,
    seed: options.Seed = 0,
    view: options.View = False,
    as_json: JSON = False,
) -> None:
    """Acquire on a rig: reconstruct, separate, store and publish live.

    [dim]Example:[/] livesr run virtual_sim --frames 100 --store run.ome.zarr --publish tcp://127.0.0.1:5555
    """
    from livesr.base.config import load_rig
    from livesr.cli.session import Request, acquire, load_core

    config = load_rig(rig)
    if frames is None:
        n_raw = max(config.raw_frames(channel) for channel in config.channels or [""])
        frames = _frames_in(duration, interval, exposure or config.exposure_ms, n_raw)
    request = Request(
        rig=config,
        frames=frames,
        engine=engine,
        store=store,
        publish=publish,
        policy=policy,
        backend=backend,
        record_raw=not no_raw,
        record_recon=not no_recon,
        exposure_ms=exposure,
        interval_s=interval,
        view=view,
        properties={"Seed": str(seed)} if config.core == "unicore" else {},
    )
    out = console(quiet=as_json)
    report = acquire(request, load_core(request), out)
    out.print(run_table(report))
    if as_json:
        print_json(report)
    raise typer.Exit(report["exit_code"])


def _frames_in(duration_s: float | None, interval_s: float, exposure_ms: float, n_raw: int) -> int:
    """Super-resolution frames that fit into `duration_s`; 100 when neither frames nor duration was given."""
    if duration_s is None:
        return 100
    return max(math.floor(duration_s / max(interval_s, exposure_ms * n_raw / 1e3)), 1)
