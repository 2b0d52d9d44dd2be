"""`livesr export RUN`: an engine from a training run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from livesr.cli.output import JSON, console, print_json


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(export)


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    out: Annotated[Path, typer.Option(help="Folder of the engine.")],
    weights: Annotated[str, typer.Option(help="best (of the validations) or final.")] = "best",
    sequences: Annotated[int, typer.Option(min=0, help="Unseen simulated sequences to evaluate on; 0: none.")] = 24,
    time_points: Annotated[int, typer.Option(min=3, help="Time points of each.")] = 5,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the runtime; 0 leaves it the choice.")] = 0,
    as_json: JSON = False,
) -> None:
    """Write model.onnx (FP16 weights), manifest, metrics on unseen simulated sequences, and the model card.

    [dim]Example:[/] livesr export runs/light --out engines/imcsr-mt-er-lyso-light
    """
    from livesr.base.errors import BackendError, ConfigError

    try:
        import torch  # noqa: F401
    except ImportError as e:
        raise BackendError("Exporting needs PyTorch and ONNX: pip install 'livesr[train]'.") from e
    from livesr.export.engine import card, export_engine
    from livesr.training.recipes import Recipe

    recipe_path, weights_path = run / "recipe.json", run / f"{weights}.pt"
    for path in (recipe_path, weights_path):
        if not path.is_file():
            raise ConfigError(f"{run} holds no {path.name}, so it is no finished training run. livesr train makes one.")
    terminal = console(quiet=as_json)
    recipe = Recipe.model_validate(json.loads(recipe_path.read_text(encoding="utf-8")))
    with terminal.status("Writing and checking the network"):
        manifest, error = export_engine(recipe, weights_path, out)
    terminal.print(f"{manifest.id}: largest difference from torch {error:.1e}")
    result: dict[str, Any] = {"engine": str(out), "id": manifest.id, "sha256": manifest.sha256, "max_error": error}
    if sequences:
        result["metrics"] = _evaluate(out, sequences, time_points, threads, terminal)
    card(recipe, out, result.get("metrics"), run / "log.csv")
    terminal.print(f"Engine, manifest and card are in {out}. Try it: livesr demo --engine {out}")
    if as_json:
        print_json(result)


def _evaluate(engine: Path, sequences: int, time_points: int, threads: int, terminal: Any) -> dict[str, Any]:
    from livesr.evaluation.engines import SEEDS, run
    from livesr.export.engine import write_metrics
    from livesr.simulation.domain import CALIBRATED, Domain

    seeds = range(SEEDS.start, SEEDS.start + sequences)
    results: dict[str, Any] = {}
    for name, conditions in (("calibrated", CALIBRATED), ("full_range", Domain())):
        with terminal.status(f"Evaluating on {sequences} unseen sequences, {name.replace('_', ' ')}"):
            results[name] = run(
                engine,
                engine,
                seeds=seeds,
                n_t=time_points,
                threads=threads,
                conditions=conditions,
                stem=f"evaluation-{name.replace('_', '-')}",
                pictures=3 if name == "calibrated" else 0,
            )
    write_metrics(engine, results)
    return results
