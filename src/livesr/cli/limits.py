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


_PAIRS = 4  # that are read for a sequence


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
            help="Simulated sequences of usual light, as many with weak structures, and four times"
            " as many for unknown light.",
        ),
    ] = 96,
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="Folder of training pairs to measure the brightness of structures on instead, in"
            " minutes, and residual and unknown light where none was measured; the rest stays."
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Recipe whose cells and microscopes are simulated: YAML file, or a name; without,"
            " that of the engine's name, or cells and microscopes of any kind."
        ),
    ] = None,
    threads: options.Threads = 0,
    backend: options.Backend = "auto",
    lines: ProgressLines = False,
    as_json: JSON = False,
) -> None:
    """Measure what a live run compares every frame with, and write it into the engine's manifest.

    Which input is unlike the training data, how much light of no known structure is usual, which
    structure is too weak, which are confused, which optics it knows, what its uncertainty is worth.
    'livesr export --limits' does it for a new engine.

    [dim]Example:[/] livesr limits engines/imcsr-mt-er-lyso-light
    """
    from livesr.base.errors import ConfigError
    from livesr.evaluation.limits import measure_limits, write_limits
    from livesr.live.inference.engine import load_engine
    from livesr.training.recipes import domain_of_engine

    out = console(quiet=as_json)
    if pairs and recipe:
        raise ConfigError(
            "--pairs take the place of what --recipe has simulated: give one of them."
        )
    loaded = load_engine(engine)
    options.check_beside(loaded.folder)
    folder, manifest = loaded.folder, loaded.manifest
    with progress(out, "pairs" if pairs else "sequences", lines=lines) as show:
        if pairs:
            measured = _on_pairs(folder, pairs, sequences, threads, show)
        else:
            measured = measure_limits(
                folder,
                sequences=sequences,
                threads=threads,
                backend=backend,
                domain=domain_of_engine(manifest.id, manifest.channel_names, recipe),
                progress=show,
            )
    manifest = write_limits(folder, measured)
    _show(manifest, out)
    out.print(f"Written into {escape(str(folder / 'manifest.yaml'))}.")
    if as_json:
        print_json(manifest.limits.model_dump(mode="json"))


def _on_pairs(
    folder: Path, pairs: Path, sequences: int, threads: int, show: Callable[[int, int], None]
) -> dict[str, Any]:
    """Measure what training pairs tell."""
    from livesr.evaluation.limits import measure_on_pairs
    from livesr.live.inference.engine import load_engine
    from livesr.training.sources import named_pairs

    haze = load_engine(folder).manifest.haze
    frames, targets = named_pairs(pairs, haze=haze).validation(_PAIRS * sequences)
    return measure_on_pairs(
        folder, zip(frames, targets, strict=True), threads=threads, progress=show
    )


def _show(manifest: Manifest, out: Console) -> None:
    found = manifest.limits
    for name, share in found.weak.items():
        out.print(f"{name}: weak below {share:.1%} of the light")
    for name, others in found.confusion.items():
        into = ", ".join(f"{share:.1%} into {other}" for other, share in others.items())
        out.print(f"{name} alone: {into}")
    if found.unknown_light is not None:
        out.print(f"Light of no known structure: unusual above {found.unknown_light:.1%} of all")
    if by_frame := found.usual_unknown_light:
        out.print(
            f"... in a frame of its own detail and noise: above {by_frame.least:.1%} to"
            f" {by_frame.most:.1%}"
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
