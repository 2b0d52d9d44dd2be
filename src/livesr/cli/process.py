"""`livesr process INPUT`: a run computed offline, from a store's raw frames or a TIFF stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from livesr.cli import options
from livesr.cli.output import JSON, console, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from livesr.store.raw_input import RawInput

Precision = Annotated[str, typer.Option(help="auto (that of the live run), f32, bf16 or f16.")]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(process)


def process(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="Store that a run left, or TIFF stack of raw frames.")
    ],
    rig: Annotated[str | None, typer.Option(help="rig.yaml, its folder or a name; needed for a TIFF stack.")] = None,
    engine: options.Engine = None,
    upscale: options.Upscale = None,
    store: options.Store = None,
    channel: Annotated[str | None, typer.Option(help="TIFF: its channel, if rig.yaml has several.")] = None,
    pixel_size: Annotated[float | None, typer.Option(min=1.0, help="TIFF: camera pixel in the sample, nm.")] = None,
    origin: Annotated[tuple[float, float], typer.Option(help="TIFF: y and x of its corner on the chip.")] = (0.0, 0.0),
    interval: options.Interval = None,
    backend: options.Backend = "auto",
    precision: Precision = "auto",
    no_raw: options.NoRaw = False,
    no_recon: options.NoRecon = False,
    as_json: JSON = False,
) -> None:
    """Reconstruct and separate raw frames from a disk, nothing skipped, into a new store.

    A store brings its rig, engine, backend and normalisation along: the result is that of the live run.

    [dim]Example:[/] livesr process run.ome.zarr --store again.ome.zarr
    """
    from livesr.store.process import process as process_raw

    out = console(quiet=as_json)
    raw = _input(source, rig, {"separate": engine, "upscale": upscale}, channel, pixel_size, origin, interval)
    target = store or source.with_name(f"{source.name.partition('.')[0]}_processed.ome.zarr")
    with progress(out, "frames") as show:
        report = process_raw(
            raw,
            target,
            backend=backend,
            precision=precision,
            record_raw=not no_raw,
            record_recon=not no_recon,
            on_progress=show,
        )
    for warning in report["warnings"]:
        out.print(f"[yellow]{warning}[/]")
    counts = f"{report['recon_frames']} reconstructed, {report['sr_frames']} separated"
    out.print(
        f"{report['raw_frames']} raw frames, {counts}, {report['sr_fps']:.1f} SR frames/s: [bold]{report['store']}[/]"
    )
    if as_json:
        print_json(report)


def _input(
    source: Path,
    rig: str | None,
    engines: Mapping[Literal["separate", "upscale"], str | None],
    channel: str | None,
    pixel_size_nm: float | None,
    origin_px: tuple[float, float],
    interval_s: float | None,
) -> RawInput:
    from livesr.base.config import load_rig
    from livesr.base.errors import ConfigError
    from livesr.store.raw_input import store_input, tiff_input
    from livesr.store.recorded import RecordedStore

    if not source.exists():
        raise ConfigError(f"There is no {source}: expected a store that a run left, or a TIFF stack.")
    config = load_rig(rig) if rig else None
    if source.is_dir():
        raw = store_input(RecordedStore(source), config, engines["separate"], engines["upscale"])
    elif config is None:
        raise ConfigError(f"{source.name} does not say on what it was acquired: give --rig.")
    else:
        raw = tiff_input(
            source, config, channel=channel, pixel_size_nm=pixel_size_nm, origin_px=origin_px, interval_s=interval_s
        )
    for step, engine in engines.items():
        if engine:
            raw = replace(raw, rig=raw.rig.with_engine(engine, step))
    return raw


@contextmanager
def progress(out: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar; give the function that moves it, (done, total)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(what), TimeRemainingColumn())
    with Progress(*columns, console=out, transient=True) as shown:
        task = shown.add_task("", total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)
