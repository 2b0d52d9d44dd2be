"""`livesr export`: what a run left for other programs, or an engine from a training run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from livesr.cli import options
from livesr.cli.output import JSON, ProgressLines, console, print_json, progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from livesr.training.recipes import Recipe

    Show = Callable[[int, int], None]

_REAL_SIZE = 384  # of the fine patches of real images: a multiple of twice every scale


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(export)


_STORE, _RUN = "Of a store", "Of a training run"


def export(
    source: Annotated[
        Path, typer.Argument(help="OME-Zarr that a run left, or folder of a training run.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            callback=options.to_make,
            help="What to write; of a store beside it, if not given. Nothing is replaced.",
        ),
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option(
            help=(
                "tiff (OME-BigTIFF), imagej (hyperstack), ome-zarr-0.4, mp4, csv, picasso (HDF5 of"
                " localisations); a number is the last time point."
            ),
            rich_help_panel=_STORE,
        ),
    ] = None,
    movie: Annotated[
        Path | None,
        typer.Option(
            callback=options.to_make, help="As --to mp4, to this file.", rich_help_panel=_STORE
        ),
    ] = None,
    series: Annotated[
        str | None,
        typer.Option(
            help="Images: raw,recon,rolling,depth,sr,uncertainty,limits,error; all without.",
            rich_help_panel=_STORE,
        ),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(help="Acquisition channels or structures: 488,ER.", rich_help_panel=_STORE),
    ] = None,
    positions: Annotated[
        str | None, typer.Option(help="Names of positions.", rich_help_panel=_STORE)
    ] = None,
    first: Annotated[
        int,
        typer.Option("--from", min=0, max=10**9, help="First time point.", rich_help_panel=_STORE),
    ] = 0,
    until: Annotated[
        int | None,
        typer.Option(min=0, max=10**9, help="Last time point.", rich_help_panel=_STORE),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            help="x,y,width,height in um from the upper left corner.", rich_help_panel=_STORE
        ),
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option(
            min=1e-6,
            max=1e6,
            callback=options.finite,
            help="Of a film: so many times faster than it was; else 10 moments a second.",
            rich_help_panel=_STORE,
        ),
    ] = None,
    show: Annotated[
        str,
        typer.Option(
            help="Of a film: beside, split, channels, prediction or measurement.",
            rich_help_panel=_STORE,
        ),
    ] = "beside",
    weights: Annotated[
        str,
        typer.Option(help="best (of the validations) or final.", rich_help_panel=_RUN),
    ] = "best",
    sequences: Annotated[
        int,
        typer.Option(
            min=0,
            max=100_000,
            help="Unseen simulated sequences to evaluate on; 0: none.",
            rich_help_panel=_RUN,
        ),
    ] = 24,
    limits: Annotated[
        bool,
        typer.Option(
            "--limits",
            help="Measure its limits too, as 'livesr limits' does: 600 more sequences.",
            rich_help_panel=_RUN,
        ),
    ] = False,
    time_points: Annotated[
        int,
        typer.Option(min=3, max=100_000, help="Time points of each.", rich_help_panel=_RUN),
    ] = 5,
    threads: options.Threads = 0,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the pairs, where training had one; own images and upscaling.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help=(
                "Real images to score an engine that upscales on as well: a folder or file that no"
                " training saw."
            ),
            rich_help_panel=_RUN,
        ),
    ] = None,
    lines: ProgressLines = False,
    as_json: JSON = False,
) -> None:
    """Write a store, or a part of it, for other programs; of a training run, its engine.

    A prediction is called one in every format. Ctrl-C leaves nothing half written.

    [dim]Example:[/] livesr export run.ome.zarr --to imagej --series recon,sr

    [dim]Example:[/] livesr export run.ome.zarr --movie talk.mp4 --from 10 --until 80 --speed 4

    [dim]Example:[/] livesr export runs/light --out engines/imcsr-mt-er-lyso-light
    """
    from livesr.formats.store import is_store

    if to or movie or is_store(source):
        from livesr.cli.export_store import Wanted, export_store

        wanted = Wanted(
            to=to or (),
            out=out,
            movie=movie,
            series=series,
            channels=channels,
            positions=positions,
            first=first,
            until=until,
            region=region,
            speed=speed,
            show=show,
            lines=lines,
        )
        export_store(source, wanted, as_json=as_json)
        return
    if out is None:
        raise typer.BadParameter("An engine needs a folder to be written to: --out FOLDER.")
    _export_engine(
        source, out, weights, sequences, limits, time_points, threads, data, images, lines, as_json
    )


def _export_engine(
    run: Path,
    out: Path,
    weights: str,
    sequences: int,
    limits: bool,
    time_points: int,
    threads: int,
    data: Path | None,
    images: Path | None,
    lines: bool,
    as_json: bool,
) -> None:
    """Write model.onnx (FP16 weights), manifest, metrics on unseen data, and the model card."""
    from livesr.base.errors import BackendError, ConfigError

    try:
        import torch  # noqa: F401
    except ImportError as e:
        raise BackendError("Exporting needs PyTorch and ONNX: pip install 'livesr[train]'.") from e
    from livesr.base.config import parse
    from livesr.base.documents import read_json
    from livesr.evaluation.engines import start_text
    from livesr.evaluation.limits import measure_limits, write_limits
    from livesr.export.card import card
    from livesr.export.engine import export_engine
    from livesr.simulation.sequence import simulating_rig
    from livesr.training.recipes import Recipe

    recipe_path, weights_path = run / "recipe.json", run / f"{weights}.pt"
    for path in (recipe_path, weights_path):
        if not path.is_file():
            raise ConfigError(
                f"{run} holds no {path.name}, so it is no finished training run. livesr train makes"
                " one."
            )
    terminal = console(quiet=as_json)
    recipe = parse(Recipe, read_json(recipe_path), str(recipe_path))
    with terminal.status("Writing and checking the network"):
        manifest, error = export_engine(recipe, weights_path, out)
    terminal.print(f"{manifest.id}: largest difference from torch {error:.1e}")
    result: dict[str, Any] = {
        "engine": str(out),
        "id": manifest.id,
        "sha256": manifest.sha256,
        "max_error": error,
    }
    if sequences:
        simulated = recipe.data.kind == "separate" and recipe.data.images is None
        what = "sequences evaluated" if simulated else "pairs evaluated"
        with progress(terminal, what, lines=lines) as show:
            result["metrics"] = (
                _evaluate(recipe, out, sequences, time_points, threads, show)
                if simulated
                else _validate(recipe, out, data or run, images, sequences, threads, show)
            )
        if told := start_text(result["metrics"].get("calibrated", {})):
            terminal.print(told)
    if limits:
        domain = recipe.data.domain
        with progress(terminal, "sequences for its limits", lines=lines) as show:
            write_limits(out, measure_limits(out, threads=threads, domain=domain, progress=show))
    elif manifest.task == "separate":
        terminal.print(f"What its warnings compare with is not measured yet: livesr limits {out}")
    card(recipe, out, result.get("metrics"), run / "log.csv")
    rig = simulating_rig(recipe.data.modality)
    attempts = {
        "upscale": f"livesr run {rig} --upscale {out}",
        "localise": f"livesr run RIG --localiser {out}, where emitters are localised",
        "sparse": f"livesr run RIG --upscale {out}, with a widefield channel beside the other",
        "reconstruct": f"livesr run {rig} --reconstruct {out} --engine none",
    }
    own = f"livesr run RIG --engine {out}" if recipe.rig else f"livesr demo --engine {out}"
    attempt = attempts.get(recipe.data.kind, own)
    terminal.print(f"Engine, manifest and card are in {out}. Try it: {attempt}")
    if as_json:
        print_json(result)


def _evaluate(
    recipe: Recipe, engine: Path, sequences: int, time_points: int, threads: int, show: Show
) -> dict[str, Any]:
    from livesr.evaluation.engines import SEEDS, run
    from livesr.export.engine import write_metrics
    from livesr.simulation.domain import calibrated_like

    structures = recipe.data.domain.structures
    conditions = {
        "calibrated": calibrated_like(recipe.data.domain),
        "full_range": recipe.data.domain,
    }
    seeds = range(SEEDS.start, SEEDS.start + sequences)
    begun = _begun_with(recipe)
    total = (len(conditions) + (begun is not None)) * sequences
    results: dict[str, Any] = {}
    before = 0
    for name, domain in conditions.items():
        first = not results
        results[name] = run(
            engine,
            engine,
            seeds=seeds,
            n_t=time_points,
            threads=threads,
            conditions=domain,
            structures=structures,
            stem=f"evaluation-{name.replace('_', '-')}",
            start=begun if first else None,
            pictures=3 if first else 0,
            progress=_after(show, before, total),
        )
        before += sequences * (2 if first and begun else 1)
    write_metrics(engine, results)
    return results


def _begun_with(recipe: Recipe) -> str | None:
    """Return the engine that the training began with, if it draws the same structures."""
    from livesr.base.errors import EngineError
    from livesr.live.inference.engine import load_engine

    if recipe.train.start is None:
        return None
    try:
        drawn = load_engine(recipe.train.start).manifest.channel_names
    except EngineError:  # a run's weights
        return None
    same = list(drawn) == [channel["name"] for channel in recipe.engine["channels"]]
    return recipe.train.start if same else None


def _after(show: Show, before: int, total: int) -> Show:
    """Return `show` for a part of the work, before which so much was done."""
    return lambda done, _: show(before + done, total)


def _validate(
    recipe: Recipe,
    engine: Path,
    data: Path,
    images: Path | None,
    n: int,
    threads: int,
    show: Show,
) -> dict[str, Any]:
    """Evaluate on pairs that training never learned from: own images have no other truth."""
    from livesr.evaluation.engines import SEEDS
    from livesr.evaluation.pairs import evaluate_pairs
    from livesr.export.engine import write_metrics
    from livesr.training.sources import CachedPairs

    results = {}
    total = 2 * n if images else n
    if recipe.data.images is None:
        maker = recipe.data.maker("validation")
        unseen = (maker.make((SEEDS.start, i)) for i in range(n))
        results["unseen"] = evaluate_pairs(
            engine,
            unseen,
            maker.meta()["channels"],
            "unseen simulated images",
            threads=threads,
            progress=lambda done: show(done, total),
        )
    else:
        window = None if recipe.data.whole_groups else int(recipe.engine["window"])
        pairs = CachedPairs(data / "pairs-validation", window=window)
        kept = zip(*pairs.validation(n), strict=True)
        results["validation"] = evaluate_pairs(
            engine,
            kept,
            pairs.meta["channels"],
            "validation pairs",
            threads=threads,
            progress=lambda done: show(done, total),
        )
    if images:
        real = _after(show, n, total)
        results["real"] = _on_real_images(recipe, engine, images, n, threads, real)
    write_metrics(engine, results)
    return results


def _on_real_images(
    recipe: Recipe, engine: Path, images: Path, n: int, threads: int, show: Show
) -> dict[str, Any]:
    from livesr.base.errors import UsageError
    from livesr.evaluation.pairs import evaluate_pairs
    from livesr.training.composites import CoarsePairs

    scale, modality = recipe.data.scale, recipe.data.modality
    if scale == 1:
        raise UsageError(
            "--images scores engines that upscale. 'livesr evaluate --data' takes images of several"
            " structures."
        )
    maker = CoarsePairs.of(images, _REAL_SIZE, scale, modality)
    pairs = (maker.make((0, i)) for i in range(n))
    return evaluate_pairs(
        engine,
        pairs,
        [modality],
        f"patches of {_REAL_SIZE} x {_REAL_SIZE} of real images",
        threads=threads,
        progress=lambda done: show(done, n),
    )
