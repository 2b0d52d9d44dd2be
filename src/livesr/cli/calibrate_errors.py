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
    from collections.abc import Sequence

    from rich.console import Console

    from livesr.base.compute import ComputeConfig
    from livesr.base.config import RigConfig
    from livesr.base.error_bars import ErrorBars
    from livesr.base.taken_with import MadeWith
    from livesr.evaluation.error_bars import Known, Recordings
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
    from livesr.evaluation.error_bars import Recordings, calibrated
    from livesr.formats.store import is_store

    out = console(quiet=as_json)
    config, channels, engines = _rig_and_engines(rig or sources[0])
    if not dry_run:
        options.check_beside(config.folder)
    engine = engines[-1]
    compute = ComputeConfig(backend=backend, threads=threads, ensemble=ensemble)
    labels = engine.manifest.channel_names
    simulated, made = rig is None, None
    if simulated:
        known = _simulated(engine, cells, compute, out, lines=lines)
    else:
        known, recordings = [], Recordings()
        with progress(out, "sources", lines=lines) as show:
            for done, source in enumerate(sources, 1):
                more, how = _known(Path(source), config, channels, engines, compute, recordings)
                _refuse_other(source, how, [made] if made else [], sources[0])
                known, made = known + more, made or how
                show(done, len(sources))
    bars = calibrated(
        known,
        labels,
        engine,
        "simulation" if simulated else "pairs",
        coverage=coverage,
        confidence=confidence,
        ensemble=ensemble,
        made=made,
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


def _rig_and_engines(name: str) -> tuple[RigConfig, list[str], list[Engine]]:
    """Return the rig, the channels of which a prediction is made, and the engines that frames go
    through, in order.
    """
    from livesr.base.config import ChannelConfig, load_rig
    from livesr.base.errors import ConfigError
    from livesr.formats.store import is_store
    from livesr.live.networks import load_engines

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
    if config.superpose and config.sums:
        channels, behind = list(config.superpose.channels), config.superposed
    else:
        each = {key: config.channel(key) for key in config.channels}
        first = next((key for key, of in each.items() if of.separate), None)
        channels, behind = [first or ""], each.get(first or "", ChannelConfig())
    if behind.separate is None:
        raise ConfigError(
            f"No channel of rig {config.name!r} has an engine: there is no prediction."
        )
    return config, channels, load_engines(behind)


def _refuse_other(source: str, made: MadeWith, ways: Sequence[MadeWith], whose: str) -> None:
    """Raise ConfigError if predictions of a source are made in none of the ways of another."""
    from livesr.base.errors import ConfigError

    differs = [made.differs(way) for way in ways]
    if differs and all(differs):
        raise ConfigError(
            f"Predictions of {source} are made with {differs[0]} as {whose}: error bars are of one"
            " way to make them. Leave it out, or let 'livesr process' make it again with --rig."
        )


def _ways(
    rig: RigConfig, channels: Sequence[str], engines: Sequence[Engine], parts: Sequence[str]
) -> list[MadeWith]:
    """Return how a rig makes predictions: of the sum of `parts`, if it has them, and of the
    `channels` whose engine is calibrated.
    """
    from livesr.live.networks import load_engines
    from livesr.live.taken_with import made_with

    own = [made_with(rig, channels, engines)]
    if not set(parts) <= set(rig.channels):  # true channels of another rig.yaml
        return own
    summed = rig.superposing(list(parts))
    return [made_with(summed, parts, load_engines(summed.superposed) or engines), *own]


def _known(
    source: Path,
    rig: RigConfig,
    channels: Sequence[str],
    engines: Sequence[Engine],
    compute: ComputeConfig,
    recordings: Recordings,
) -> tuple[list[Known], MadeWith]:
    """Return what is known of the predictions of a source, and how they were made; pairs, of
    `channels`, as the rig does.
    """
    from dataclasses import replace

    from livesr.base.errors import ConfigError
    from livesr.evaluation.error_bars import from_pairs, from_store
    from livesr.formats.store import RecordedStore, is_store
    from livesr.live.taken_with import made_with
    from livesr.training.true_channels import fields_of

    engine = engines[-1]
    if not is_store(source):
        if enlarging := next((one for one in engines if one.manifest.task == "upscale"), None):
            raise ConfigError(
                f"{source} holds pictures as they were reconstructed, and rig {rig.name!r} enlarges"
                f" them by {enlarging} before they are separated: give stores, which hold its"
                " predictions."
            )
        known = from_pairs(fields_of(source, engine.manifest.channel_names), engine, compute)
        recordings.take(str(source), None, known)
        made = made_with(rig, channels, engines)
    else:
        store = RecordedStore(source)
        known, labels, views, made = from_store(store)
        recordings.take(str(source), store, known)
        if (made.engines[-1], labels) != (str(engine), engine.manifest.channel_names):
            raise ConfigError(
                f"{source} was separated by engine {made.engines[-1]}, and the rig names {engine}:"
                " 'livesr process' separates it again."
            )
        parts = next(iter(store.superposed.values()))["channels"]
        ways = _ways(rig, channels, engines, parts)
        _refuse_other(str(source), made, ways, f"rig {rig.name!r}")
        if views != compute.averaged:
            came, wanted = (
                f"the mean of several views ({one})" if one else "of single views"
                for one in (views, compute.averaged)
            )
            advice = f"give --ensemble {views}" if views else "leave out --ensemble"
            raise ConfigError(
                f"Predictions of {source} are {came}, and the error bars are to be for those that"
                f" are {wanted}: {advice}, or let 'livesr process' separate it again."
            )
    return [replace(one, field=(str(source), one.field)) for one in known], made


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
