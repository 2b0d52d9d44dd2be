"""`livesr run RIG`: acquire on a real or virtual rig and separate live."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from livesr.cli import options
from livesr.cli.output import JSON, console, print_json, run_table

_FRAMES = 100


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(run)


def run(
    rig: Annotated[str, typer.Argument(help="rig.yaml, its folder, or a name in hardware_configs.")],
    frames: options.Frames = None,
    duration: options.Duration = None,
    engine: options.Engine = None,
    upscale: options.Upscale = None,
    store: options.Store = None,
    publish: options.Publish = None,
    keys: options.Keys = None,
    insecure: options.Insecure = False,
    policy: options.Policy = "latest",
    provisional: options.Provisional = "auto",
    backend: options.Backend = "auto",
    exposure: options.Exposure = None,
    interval: options.Interval = None,
    no_raw: options.NoRaw = False,
    no_recon: options.NoRecon = False,
    seed: options.Seed = None,
    view: options.View = False,
    as_json: JSON = False,
) -> None:
    """Acquire on a rig: reconstruct, separate, store and publish live.

    [dim]Example:[/] livesr run virtual_sim --frames 100 --store run.ome.zarr --publish tcp://127.0.0.1:5555
    """
    from livesr.base.config import load_rig
    from livesr.cli.session import Request, acquire, load_core

    config = load_rig(rig)
    exposure_ms = exposure or config.exposure_ms
    interval_s = config.interval_ms / 1e3 if interval is None else interval
    exposures = config.most_raw_frames * max(len(config.channels), 1)
    period_s = max(interval_s, exposure_ms * exposures / 1e3)
    if frames is None:
        frames = max(math.floor(duration / period_s), 1) if duration else _FRAMES
    request = Request(
        rig=config,
        frames=frames,
        engine=engine,
        upscale=upscale,
        store=store,
        publish=publish,
        keys=keys,
        insecure=insecure,
        policy=policy,
        provisional=provisional,
        backend=backend,
        record_raw=not no_raw,
        record_recon=not no_recon,
        exposure_ms=exposure_ms,
        interval_s=interval_s,
        view=view,
        properties={} if seed is None else {"Seed": str(seed)},
    )
    out = console(quiet=as_json)
    report = acquire(request, load_core(request), out)
    out.print(run_table(report))
    if as_json:
        print_json(report)
    raise typer.Exit(report["exit_code"])
