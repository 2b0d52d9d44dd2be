"""`livesr calibrate-errors STORE|PAIRS|RIG`: how far predictions are from true channels becomes
error bars beside the rig.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from livesr.cli import options
from livesr.cli.output import JSON, ProgressLines, console, print_json, progress

if TYPE_CHECKING:
    from rich.console import Console

    from livesr.base.compute import ComputeConfig
    from livesr.base.config import RigConfig
    from livesr.base.error_bars import ErrorBars
    from livesr.evaluation.error_bars import Known
    from livesr.live.inference.engine import Engine


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("calibrate-errors")(calibrate_errors)


def calibrate_errors(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="STORE|PAIRS|RIG ...",
            help=(
                "Stores of a superposition, or folders that --pairs made; a rig alone takes the"
                " engine's simulation."
            ),
        ),
    ],
    rig: Annotated[
        str | None,
        typer.Option(help="Rig to write error_bars.yaml beside; STORE and PAIRS need it."),
    ] = None,
    coverage: Annotated[
        float,
        typer.Option(
            min=0.5,
            max=0.99,
            callback=options.finite,
            help="Share of the pixels within the bounds.",
        ),
    ] = 0.9,
    confidence: Annotated[
        float | None,
        typer.Option(
            min=0.5,
            max=0.999,
            callback=options.finite,
            help="Probability that the coverage is held; without, it is held on average.",
        ),
    ] = None,
    cells: Annotated[int, typer.Option(min=2, max=10_000, help="RIG: simulated cells.")] = 64,
    ensemble: options.Ensemble = None,
    threads: options.Threads = 0,
    backend: options.Backend = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Measure and print; change no file.")
    ] = False,
    lines: ProgressLines = False,
    as_json: JSON = False,
) -> None:
    """Find between which bounds the true light of each structure lies, and write them beside the
    rig.

    From then on every prediction has a lower and an upper image: frame.limits in Python, sr/limits
    on the stream, and an image in the store with [bold]--error-bars[/]. Record true channels of as
    many cells as you can: the bounds hold for cells like those. Stores know what the network saw;
    pairs are cut at their edges.

    [dim]Example:[/] livesr calibrate-errors cell-*.ome.zarr --rig my_rig
    """
    from livesr.base.compute import ComputeConfig
    from livesr.base.error_bars import FILE
    from livesr.evaluation.error_bars import calibrated
    from livesr.formats.store import is_store

    out = console(quiet=as_json)
    config, engine = _rig_and_engine(rig or sources[0])
    compute = ComputeConfig(backend=backend, threads=threads, ensemble=ensemble)
    labels = engine.manifest.channel_names
    simulated = rig is None
    if simulated:
        known = _simulated(engine, cells, compute, out, lines=lines)
    else:
        known = []
        with progress(out, "sources", lines=lines) as show:
            for done, source in enumerate(sources, 1):
                known += _known(Path(source), engine, compute)
                show(done, len(sources))
    bars = calibrated(
        known,
        labels,
        engine,
        "simulation" if simulated else "pairs",
        coverage=coverage,
        confidence=confidence,
        ensemble=ensemble,
        cut=not simulated and not all(is_store(Path(source)) for source in sources),
    )
    file = config.folder / FILE
    if not dry_run:
        bars.save(file)
    out.print(escape(bars.sentence))
    out.print(_table(bars))
    if not dry_run:
        out.print(f"Written into {escape(str(file))}.", soft_wrap=True)
    if as_json:
        print_json({**bars.model_dump(mode="json", by_alias=True), "sentence": bars.sentence})


def _rig_and_engine(name: str) -> tuple[RigConfig, Engine]:
    """Return the rig, and the engine whose predictions are calibrated."""
    from livesr.base.config import load_rig
    from livesr.base.errors import ConfigError
    from livesr.formats.store import is_store
    from livesr.live.inference.engine import load_engine

    path = Path(name)
    if is_store(path) or (path.is_dir() and not (path / "rig.yaml").is_file()):
        whose = (
            "is a store, and its copy of rig.yaml is a record"
            if is_store(path)
            else "is no rig, for it holds no rig.yaml"
        )
        raise ConfigError(
            f"{name} {whose}: say with --rig beside which rig the error bars are to be written."
        )
    config = load_rig(name)
    channels = [config.superposed] if config.superpose else [*map(config.channel, config.channels)]
    engine = next((channel.separate for channel in channels if channel.separate), None)
    if engine is None:
        raise ConfigError(
            f"No channel of rig {config.name!r} has an engine: there is no prediction."
        )
    return config, load_engine(engine)


def _known(source: Path, engine: Engine, compute: ComputeConfig) -> list[Known]:
    from dataclasses import replace

    from livesr.base.errors import ConfigError
    from livesr.evaluation.error_bars import from_pairs, from_store
    from livesr.formats.store import RecordedStore, is_store
    from livesr.training.true_channels import fields_of

    if not is_store(source):
        known = from_pairs(fields_of(source, engine.manifest.channel_names), engine, compute)
    else:
        known, labels, made_by, views = from_store(RecordedStore(source))
        if (made_by, labels) != (engine.manifest.id, engine.manifest.channel_names):
            raise ConfigError(
                f"{source} was separated by engine {made_by!r}, and the rig names"
                f" {engine.manifest.id!r}: 'livesr process' separates it again."
            )
        if views != compute.averaged:
            made, wanted = (
                f"the mean of several views ({one})" if one else "of single views"
                for one in (views, compute.averaged)
            )
            advice = f"give --ensemble {views}" if views else "leave out --ensemble"
            raise ConfigError(
                f"Predictions of {source} are {made}, and the error bars are to be for those that"
                f" are {wanted}: {advice}, or let 'livesr process' separate it again."
            )
    return [replace(one, field=(str(source), one.field)) for one in known]


def _simulated(
    engine: Engine, cells: int, compute: ComputeConfig, out: Console, *, lines: bool
) -> list[Known]:
    from livesr.evaluation.error_bars import from_simulation

    with progress(out, "cells", lines=lines) as show:
        return from_simulation(engine, cells, compute, show)


def _table(bars: ErrorBars) -> Table:
    table = Table(title="In shares of the frame's scale", title_justify="left")
    for column in ("structure", "from", "below", "above", "outside"):
        table.add_column(column, justify="left" if column == "structure" else "right")
    for name, of in bars.structures.items():
        for i, start in enumerate(of.from_):
            numbers = (start, of.below[i], of.above[i])
            missed = f"{of.miss[i]:.1%}" if i < len(of.miss) else ""
            table.add_row("" if i else name, *(f"{n:.4f}" for n in numbers), missed)
    return table
