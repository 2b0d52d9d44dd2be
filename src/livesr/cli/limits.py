"""`livesr limits ENGINE`: measure where an engine's predictions stop being those of its
validation.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from livesr.cli import options
from livesr.cli.output import JSON, ProgressLines, console, print_json, progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from livesr.live.inference.engine import Manifest


_PAIRS, _FRAMES = 4, 10  # pairs that are read, and frames that are made of them, for a sequence


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(limits)


def limits(
    engine: Annotated[str, typer.Argument(help="Engine that separates: a name or a folder.")],
    sequences: Annotated[
        int,
        typer.Option(
            min=1,
            max=100_000,
            help="Simulated sequences of usual light, and as many with weak structures.",
        ),
    ] = 96,
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="Folder of training pairs to measure on instead: minutes, for what the network"
            " knows and the brightness of structures; the rest stays."
        ),
    ] = None,
    threads: options.Threads = 0,
    backend: options.Backend = "auto",
    lines: ProgressLines = False,
    as_json: JSON = False,
) -> None:
    """Measure what a live run compares every frame with, and write it into the engine's manifest.

    Which input is unlike the training data, which structure is too weak, which are confused, which
    optics it knows, what its uncertainty is worth. 'livesr export --limits' does it for a new
    engine.

    [dim]Example:[/] livesr limits engines/imcsr-mt-er-lyso-light
    """
    from livesr.evaluation.limits import measure_limits
    from livesr.export.engine import write_limits
    from livesr.live.inference.engine import load_engine

    out = console(quiet=as_json)
    folder = load_engine(engine).folder
    with progress(out, "pairs" if pairs else "sequences", lines=lines) as show:
        if pairs:
            measured = _on_pairs(folder, pairs, sequences, threads, show, out)
        else:
            measured = measure_limits(
                folder, sequences=sequences, threads=threads, backend=backend, progress=show
            )
    manifest = write_limits(folder, measured)
    _show(manifest, out)
    out.print(f"Written into {escape(str(folder / 'manifest.yaml'))}.")
    if as_json:
        print_json(manifest.limits.model_dump(mode="json"))


def _on_pairs(
    folder: Path,
    pairs: Path,
    sequences: int,
    threads: int,
    show: Callable[[int, int], None],
    out: Console,
) -> dict[str, Any]:
    """Measure what training pairs tell; a network without a features output gets one first."""
    from livesr.base.errors import EngineError
    from livesr.evaluation.limits import measure_on_pairs
    from livesr.evaluation.unlike import measure_familiarity
    from livesr.export.features import add_features
    from livesr.live.inference.engine import load_engine
    from livesr.training.sources import CachedPairs

    try:
        add_features(folder)
    except EngineError as e:
        out.print(escape(str(e)), style="yellow")
    frames, targets = CachedPairs(pairs).validation(_PAIRS * sequences)
    measured = measure_on_pairs(
        folder, zip(frames, targets, strict=True), threads=threads, progress=show
    )
    known = measure_familiarity(
        load_engine(folder), (frames, targets), _FRAMES * sequences, threads=threads, progress=show
    )
    return {**measured, "limits": measured["limits"].model_copy(update={"familiarity": known})}


def _show(manifest: Manifest, out: Console) -> None:
    found = manifest.limits
    for name, share in found.weak.items():
        out.print(f"{name}: weak below {share:.1%} of the light")
    for name, others in found.confusion.items():
        into = ", ".join(f"{share:.1%} into {other}" for other, share in others.items())
        out.print(f"{name} alone: {into}")
    if found.familiarity:
        out.print(
            "What the engine knows is told from random textures with an area under the curve of"
            f" {found.familiarity.area:.2f}"
        )
    for name, mixing in found.mixing.items():
        out.print(
            f"{name}: weak where its channel is below {mixing.weak:.2f} of the brightest other"
            f" one, absent below {mixing.absent:.2f}"
        )
    if found.uncertainty:
        out.print(
            f"Uncertainty: {found.uncertainty.scale:.2f} times the spread of the views; rank"
            f" correlation with the error {found.uncertainty.correlation:.2f}"
        )
