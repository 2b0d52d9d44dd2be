"""`livesr backfill STORE`: compute what a live run skipped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from livesr.cli import options
from livesr.cli.output import JSON, ProgressLines, console, dimly, print_json, progress

if TYPE_CHECKING:
    from livesr.base.compute import ComputeConfig


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(options.with_compute(backfill))


def backfill(
    store: Annotated[Path, typer.Argument(help="OME-Zarr of a run that skipped frames.")],
    engine: Annotated[
        Path | None, typer.Option(help="Folder of the store's engine, if it is not found by name.")
    ] = None,
    upscale: Annotated[
        Path | None,
        typer.Option(help="Folder of the engine that enlarged before, if it is not found by name."),
    ] = None,
    *,
    compute: ComputeConfig,
    cluster: options.Cluster = None,
    lines: ProgressLines = False,
    as_json: JSON = False,
) -> None:
    """Compute the skipped predictions of a store, and both neighbours of a gap, from its raw
    frames.

    Ctrl-C or a crash loses nothing that was written: start it again and it goes on.

    [dim]Example:[/] livesr backfill run.ome.zarr
    """
    from livesr.store.completion import tell_where_pictures_are
    from livesr.store.levels import build_levels

    out = console(quiet=as_json)
    how: dict[str, Any] = {
        "engine": str(engine) if engine else None,
        "upscale": str(upscale) if upscale else None,
        "compute": compute,
    }
    with progress(out, "frames", lines=lines) as show:
        if cluster is None:
            from livesr.store.backfill import backfill as complete

            report = complete(store, on_progress=show, **how)
        else:
            from livesr.store.backfill_cluster import backfill_on

            report = backfill_on(cluster, store, on_progress=show, say=dimly(out), **how)
    with progress(out, "files of smaller levels", lines=lines) as show:
        report["levels"] = build_levels(store, on_progress=show)
    tell_where_pictures_are(store)
    for warning in report["warnings"]:
        out.print(f"[yellow]{escape(warning)}[/]")
    done = (
        f"{report['predicted']} predictions and {report['reconstructed']} reconstructions computed"
    )
    lack = (
        f"; {report['impossible']} cannot be, their exposures are incomplete"
        if report["impossible"]
        else ""
    )
    out.print(f"{done}{lack}: [bold]{escape(str(report['store']))}[/]")
    if as_json:
        print_json(report)
