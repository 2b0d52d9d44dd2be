"""`livesr process INPUT`: a run computed offline, from the raw frames of a store or of any
recording.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from livesr.cli import options
from livesr.cli.output import JSON, ProgressLines, console, print_json, progress

if TYPE_CHECKING:
    from livesr.base.compute import ComputeConfig


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(options.with_compute(process))


def process(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="Store that a run left, or TIFF, OME-Zarr, MRC, NDTiff of raw frames.",
        ),
    ],
    rig: Annotated[
        str | None,
        typer.Option(help="rig.yaml, its folder or a name; needed for all but a store of livesr."),
    ] = None,
    engine: options.Engine = None,
    upscale: options.Upscale = None,
    reconstruct: options.Reconstruct = None,
    restore: options.Restore = None,
    store: options.Store = None,
    axes: options.Axes = None,
    channel: options.Channel = None,
    pixel_size: options.PixelSize = None,
    origin: options.Origin = None,
    interval: options.Interval = None,
    *,
    compute: ComputeConfig,
    no_raw: options.NoRaw = False,
    no_recon: options.NoRecon = False,
    lines: ProgressLines = False,
    as_json: JSON = False,
) -> None:
    """Reconstruct and separate raw frames from a disk, nothing skipped, into a new store.

    A store brings its rig, engine, backend and normalisation along: the result is that of the live
    run.

    [dim]Example:[/] livesr process run.ome.zarr --store again.ome.zarr

    [dim]Example:[/] livesr process run.ome.zarr --reconstruct none --store classical.ome.zarr
    """
    from livesr.base.config import load_rig
    from livesr.store.process import process as process_raw
    from livesr.store.raw_input import ReadAs, raw_input

    out = console(quiet=as_json)
    config = load_rig(rig) if rig else None
    raw = raw_input(
        source,
        config,
        engine,
        upscale,
        how=ReadAs(axes, channel, pixel_size, origin, interval),
        raw={"restore": restore, "reconstruct": reconstruct},
    )
    target = store or source.with_name(f"{source.name.partition('.')[0]}_processed.ome.zarr")
    with progress(out, "frames", lines=lines) as show:
        report = process_raw(
            raw,
            target,
            compute=compute,
            record_raw=not no_raw,
            record_recon=not no_recon,
            on_progress=show,
        )
    for warning in report["warnings"]:
        out.print(f"[yellow]{escape(warning)}[/]")
    counts = (
        f"{report['recon_frames']} reconstructed, {report['sr_frames']} separated,"
        f" {report['sr_fps']:.1f} SR frames/s"
    )
    out.print(
        f"{report['raw_frames']} raw frames, {counts}: [bold]{escape(str(report['store']))}[/]"
    )
    if as_json:
        print_json(report)
