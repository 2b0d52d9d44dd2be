"""`livesr train`: make the weights of an engine from a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from livesr.cli.output import JSON, console, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from livesr.training.recipes import Recipe
    from livesr.training.sources import CachedPairs


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(train)


def train(
    recipe: Annotated[
        str, typer.Option(help="YAML file, or the name of a recipe of livesr.")
    ] = "imcsr-mt-er-lyso-light",
    out: Annotated[Path, typer.Option(help="Folder of the run; an interrupted run continues there.")] = Path(
        "runs/light"
    ),
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Training time, instead of the recipe's.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps, instead of the recipe's minutes.")] = None,
    pairs: Annotated[int | None, typer.Option(min=8, help="Training sequences, instead of the recipe's.")] = None,
    validation: Annotated[
        int | None, typer.Option(min=1, help="Validation sequences, instead of the recipe's.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that simulate.")] = 2,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads that train.")] = None,
    as_json: JSON = False,
) -> None:
    """Simulate training pairs, train a network, validate it; resumes where it was interrupted.

    [dim]Example:[/] livesr train --recipe imcsr-mt-er-lyso-light --out runs/light
    """
    from livesr.base.errors import BackendError

    try:
        import torch  # noqa: F401
    except ImportError as e:
        raise BackendError("Training needs PyTorch: pip install 'livesr[train]'.") from e
    from livesr.training.recipes import load_recipe

    chosen = load_recipe(recipe)
    data = chosen.data.model_copy(update={k: v for k, v in (("train", pairs), ("validation", validation)) if v})
    budget = {"minutes": None, "steps": steps} if steps else {"minutes": minutes} if minutes else {}
    config = chosen.train.model_copy(update={**budget, **({"threads": threads} if threads else {})})
    chosen = chosen.model_copy(update={"data": data, "train": config})
    result = _train(chosen, out, workers, console(quiet=as_json))
    if as_json:
        print_json(result)


def _train(recipe: Recipe, out: Path, workers: int, terminal: Console) -> dict[str, Any]:
    from livesr.training.trainer import Progress, Trainer

    train_pairs, validation_pairs = _data(recipe, out, workers, terminal)
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.json").write_text(recipe.model_dump_json(indent=2) + "\n", encoding="utf-8")
    last: dict[str, float] = {}

    def show(progress: Progress) -> None:
        if progress.validation:
            last.update(progress.validation)
        line = "  ".join(f"{k} {v:.4f}" for k, v in {**progress.losses, **progress.validation}.items())
        left = progress.minutes / max(progress.fraction, 1e-6) * (1 - progress.fraction)
        terminal.print(
            f"step {progress.step}  {line}  lr {progress.lr:.1e}  {progress.patches_per_s:.0f} patches/s  {left:.0f} min left"
        )

    Trainer(recipe.train, train_pairs, validation_pairs, out).run(show)
    terminal.print(f"Done. Next: livesr export {out} --out engines/{recipe.engine['id']}")
    return {"out": str(out), "validation": last, "log": str(out / "log.csv")}


def _data(recipe: Recipe, out: Path, workers: int, terminal: Console) -> tuple[CachedPairs, CachedPairs]:
    from rich.progress import Progress

    from livesr.training.datasets import write_pairs
    from livesr.training.sources import CachedPairs

    data, folders = recipe.data, (out / "pairs-train", out / "pairs-validation")
    sets = zip(folders, (data.train, data.validation), (data.seed, data.validation_seed), strict=True)
    with Progress(console=terminal, transient=True) as progress:
        for folder, n, seed in sets:
            task = progress.add_task(f"simulating {folder.name}", total=n)
            write_pairs(
                folder,
                n,
                seed=seed,
                workers=workers,
                size=data.size,
                domain=data.domain,
                progress=lambda done, total, task=task: progress.update(task, completed=done, total=total),  # type: ignore[misc]
            )
    return CachedPairs(folders[0]), CachedPairs(folders[1])
