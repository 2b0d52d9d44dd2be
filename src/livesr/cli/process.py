"""`livesr process INPUT`: a run computed offline, from the raw frames of a store or of any
recording.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.markup import escape

from livesr.cli import options
from livesr.cli.output import JSON, ProgressLines, audits_line, console, dimly, print_json, progress

if TYPE_CHECKING:
    from rich.console import Console

    from livesr.base.compute import ComputeConfig
    from livesr.base.config import RigConfig, Step
    from livesr.base.progress import Progress
    from livesr.live.run_state import Report
    from livesr.store.raw_input import ReadAs


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(options.with_compute(process))


def process(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help="Stores that runs left, or TIFF, OME-Zarr, MRC, NDTiff of raw frames.",
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
    localiser: options.Localiser = None,
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
    cluster: options.Cluster = None,
    refine_drift: Annotated[
        bool,
        typer.Option(
            "--refine-drift",
            help="Draw running images with the drift that all localisations of a store show"
            " together, not the one that the live run followed group by group.",
        ),
    ] = False,
    volume: Annotated[
        bool,
        typer.Option(
            "--volume",
            help="Reconstruct every stack as a whole, with a transfer function in three dimensions:"
            " three-beam SIM. Engines are left out.",
        ),
    ] = False,
    z_step: Annotated[
        float | None,
        typer.Option(
            min=1,
            max=1e5,
            callback=options.finite,
            metavar="NM",
            help="With --volume: from plane to plane, in nm.",
        ),
    ] = None,
    lines: ProgressLines = False,
    as_json: JSON = False,
) -> None:
    """Reconstruct and separate raw frames from a disk, nothing skipped, into a new store.

    A store brings its rig, engine, backend and normalisation along: the result is that of the live
    run.

    [dim]Example:[/] livesr process run.ome.zarr --store again.ome.zarr

    [dim]Example:[/] livesr process run.ome.zarr --reconstruct none --store classical.ome.zarr

    [dim]Example:[/] livesr process stack.tif --rig my_rig --axes z,raw --volume --z-step 125
    """
    from livesr.base.config import load_rig
    from livesr.base.errors import ConfigError
    from livesr.store.raw_input import ReadAs

    out = console(quiet=as_json)
    if store and len(sources) > 1:
        raise ConfigError("--store names one store, and several inputs make several: leave it out.")
    how = ReadAs(axes, channel, pixel_size, origin, interval)
    if refine_drift and cluster:
        raise ConfigError(
            "--refine-drift looks at a whole run, and --cluster computes it in parts: leave one"
            " out."
        )
    if volume and (refine_drift or cluster or no_recon):
        raise ConfigError(
            "--volume reconstructs stacks, here and in one process: leave out --refine-drift,"
            " --cluster and --no-recon."
        )
    if z_step and not volume:
        raise ConfigError("--z-step is for --volume: single planes need no distance.")
    raw: dict[Step, str | None] = {"restore": restore, "reconstruct": reconstruct}
    read = load_rig(rig) if rig else None
    asked = _Asked(read, engine, upscale, how, compute, not no_raw, not no_recon, raw, localiser)
    reports = []
    targets = [store or _beside(source) for source in sources]
    for target in targets:
        options.to_make(target)
    for source, target in zip(sources, targets, strict=True):
        with progress(out, "frames" if cluster is None else "time points", lines=lines) as show:
            if volume:
                report = _volumes(asked, source, target, show, z_step, out)
            elif cluster is None:
                report = _here(asked, source, target, show, refine_drift)
            else:
                report = _there(cluster, asked, source, target, show, out)
        _tell(out, report)
        reports.append(report)
    if as_json:
        print_json(reports[0] if len(reports) == 1 else {"runs": reports})


def _beside(source: Path) -> Path:
    """Return where the result goes if nobody says it; of object storage, the working directory."""
    from livesr.formats.object_store import address_of

    name = f"{source.name.partition('.')[0]}_processed.ome.zarr"
    return Path(name) if address_of(source) else source.with_name(name)


class _Asked(NamedTuple):
    """What is asked of every input."""

    rig: RigConfig | None
    engine: str | None
    upscale: str | None
    how: ReadAs
    compute: ComputeConfig
    record_raw: bool
    record_recon: bool
    raw: Mapping[Step, str | None]
    localiser: str | None


def _here(asked: _Asked, source: Path, target: Path, show: Progress, refine_drift: bool) -> Report:
    from livesr.store.process import process as process_raw
    from livesr.store.raw_input import raw_input

    raw = raw_input(
        source, asked.rig, asked.engine, asked.upscale, asked.how, asked.raw, asked.localiser
    )
    return process_raw(
        raw,
        target,
        compute=asked.compute,
        record_raw=asked.record_raw,
        record_recon=asked.record_recon,
        refine_drift=refine_drift,
        on_progress=show,
    )


def _volumes(
    asked: _Asked, source: Path, target: Path, show: Progress, z_step: float | None, out: Console
) -> Report:
    from livesr.store.raw_input import raw_input
    from livesr.store.volumes import process_volumes

    raw = raw_input(source, asked.rig, "none", "none", asked.how, {"reconstruct": "none"})
    return process_volumes(
        raw,
        target,
        z_step_um=z_step / 1e3 if z_step else None,
        record_raw=asked.record_raw,
        on_progress=show,
        say=lambda sentence: out.print(f"[dim]{escape(sentence)}[/]", soft_wrap=True),
    )


def _there(
    address: str, asked: _Asked, source: Path, target: Path, show: Progress, out: Console
) -> Report:
    from livesr.formats.object_store import address_of, refuse_to_write
    from livesr.store.cluster import folder_of, process_on
    from livesr.store.parts import Job

    refuse_to_write(target)
    place = source if address_of(source) else source.absolute()
    job = Job(place, folder=folder_of(target), **asked._asdict())
    return process_on(
        address,
        job,
        target,
        on_progress=show,
        say=dimly(out),
    )


def _tell(out: Console, report: Report) -> None:
    for warning in report["warnings"]:
        out.print(f"[yellow]{escape(warning)}[/]")
    counts = (
        f"{report['recon_frames']} reconstructed, {report['sr_frames']} separated,"
        f" {report['sr_fps']:.1f} SR frames/s"
    )
    if audits := audits_line(report):
        out.print(f"audits: {audits}")
    out.print(
        f"{report['raw_frames']} raw frames, {counts}: [bold]{escape(str(report['store']))}[/]"
    )
