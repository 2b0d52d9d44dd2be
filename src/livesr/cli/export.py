"""`livesr export RUN`: an engine from a training run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from livesr.cli import options
from livesr.cli.output import JSON, console, print_json

if TYPE_CHECKING:
    from livesr.training.recipes import Recipe

_REAL_SIZE = 384  # of the fine patches of real images: a multiple of twice every scale


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(export)


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    out: Annotated[Path, typer.Option(help="Folder of the engine.")],
    weights: Annotated[str, typer.Option(help="best (of the validations) or final.")] = "best",
    sequences: Annotated[
        int,
        typer.Option(
            min=0, max=100_000, help="Unseen simulated sequences to evaluate on; 0: none."
        ),
    ] = 24,
    limits: Annotated[
        bool,
        typer.Option(
            "--limits", help="Measure its limits too, as 'livesr limits' does: 200 more sequences."
        ),
    ] = False,
    time_points: Annotated[int, typer.Option(min=3, max=100_000, help="Time points of each.")] = 5,
    threads: options.Threads = 0,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the pairs, where training had one; own images and upscaling."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help=(
                "Real images to score an engine that upscales on as well: a folder or file that no"
                " training saw."
            )
        ),
    ] = None,
    as_json: JSON = False,
) -> None:
    """Write model.onnx (FP16 weights), manifest, metrics on unseen data, and the model card.

    [dim]Example:[/] livesr export runs/light --out engines/imcsr-mt-er-lyso-light
    """
    from livesr.base.errors import BackendError, ConfigError

    try:
        import torch  # noqa: F401
    except ImportError as e:
        raise BackendError("Exporting needs PyTorch and ONNX: pip install 'livesr[train]'.") from e
    from livesr.base.config import parse
    from livesr.base.documents import read_json
    from livesr.evaluation.limits import measure_limits
    from livesr.export.card import card
    from livesr.export.engine import export_engine, write_limits
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
        with terminal.status("Evaluating"):
            result["metrics"] = (
                _evaluate(recipe, out, sequences, time_points, threads)
                if simulated
                else _validate(recipe, out, data or run, images, sequences, threads)
            )
    if limits:
        with terminal.status("Measuring its limits"):
            write_limits(out, measure_limits(out, threads=threads, domain=recipe.data.domain))
    elif manifest.task == "separate":
        terminal.print(f"What its warnings compare with is not measured yet: livesr limits {out}")
    card(recipe, out, result.get("metrics"), run / "log.csv")
    attempt = (
        f"run {simulating_rig(recipe.data.modality)} --upscale {out}"
        if recipe.data.kind == "upscale"
        else f"demo --engine {out}"
    )
    terminal.print(f"Engine, manifest and card are in {out}. Try it: livesr {attempt}")
    if as_json:
        print_json(result)


def _evaluate(
    recipe: Recipe, engine: Path, sequences: int, time_points: int, threads: int
) -> dict[str, Any]:
    from livesr.evaluation.engines import SEEDS, run
    from livesr.export.engine import write_metrics
    from livesr.simulation.domain import CALIBRATED

    structures = recipe.data.domain.structures
    conditions = {
        "calibrated": CALIBRATED.model_copy(update={"structures": structures}),
        "full_range": recipe.data.domain,
    }
    seeds = range(SEEDS.start, SEEDS.start + sequences)
    results = {
        name: run(
            engine,
            engine,
            seeds=seeds,
            n_t=time_points,
            threads=threads,
            conditions=domain,
            structures=structures,
            stem=f"evaluation-{name.replace('_', '-')}",
            pictures=3 if name == "calibrated" else 0,
        )
        for name, domain in conditions.items()
    }
    write_metrics(engine, results)
    return results


def _validate(
    recipe: Recipe, engine: Path, data: Path, images: Path | None, n: int, threads: int
) -> dict[str, Any]:
    """Evaluate on pairs that training never learned from: own images have no other truth."""
    from livesr.evaluation.engines import SEEDS
    from livesr.evaluation.pairs import evaluate_pairs
    from livesr.export.engine import write_metrics
    from livesr.training.sources import CachedPairs

    results = {}
    if recipe.data.images is None:
        maker = recipe.data.maker("validation")
        unseen = (maker.make((SEEDS.start, i)) for i in range(n))
        results["unseen"] = evaluate_pairs(
            engine, unseen, maker.meta()["channels"], "unseen simulated images", threads=threads
        )
    else:
        pairs = CachedPairs(data / "pairs-validation", window=int(recipe.engine["window"]))
        kept = zip(*pairs.validation(n), strict=True)
        results["validation"] = evaluate_pairs(
            engine, kept, pairs.meta["channels"], "validation pairs", threads=threads
        )
    if images:
        results["real"] = _on_real_images(recipe, engine, images, n, threads)
    write_metrics(engine, results)
    return results


def _on_real_images(
    recipe: Recipe, engine: Path, images: Path, n: int, threads: int
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
    )
