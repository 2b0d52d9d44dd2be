"""`livesr train`: make the weights of an engine from a recipe."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from livesr.cli import options
from livesr.cli.output import JSON, Lines, ProgressLines, console, dimly, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from livesr.training.journal import Progress
    from livesr.training.recipes import Recipe
    from livesr.training.sources import TrainSource, ValidationSource


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(train)


def train(
    recipe: Annotated[
        str | None,
        typer.Option(
            help="YAML file, or the name of a recipe of livesr; imcsr-mt-er-lyso-light without, or"
            " that of the engine that separates the channel of --rig."
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            callback=options.to_make, help="Folder of the run; an interrupted run continues there."
        ),
    ] = Path("runs/light"),
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=1e7,
            callback=options.finite,
            help="Training time, instead of the recipe's.",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, max=1_000_000_000, help="Training steps, instead of the recipe's minutes."
        ),
    ] = None,
    pairs: Annotated[
        int | None,
        typer.Option(min=1, max=10_000_000, help="Training pairs, instead of the recipe's."),
    ] = None,
    validation: Annotated[
        int | None,
        typer.Option(min=1, max=10_000_000, help="Validation pairs, instead of the recipe's."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            callback=options.to_make,
            help="Folder of the pairs, for several runs on the same ones; without, in --out.",
        ),
    ] = None,
    rig: Annotated[
        str | None,
        typer.Option(
            help="For one microscope: cells as this rig shows them, by what its rig.yaml says, and"
            " its engine to begin with. Takes minutes."
        ),
    ] = None,
    channel: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Channel of --rig, if several are separated."),
    ] = None,
    photons: Annotated[
        tuple[float, float] | None,
        typer.Option(
            min=0.1,
            max=1e6,
            callback=options.finite,
            metavar="LEAST MOST",
            help="Photo-electrons of the bright parts of a raw frame of --rig, where known: (level"
            " - offset_adu) x gain_e_per_adu.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            help="Finished run, weights or engine to begin with, instead of the recipe's."
        ),
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(help="Finished run of a larger network that this one learns from as well."),
    ] = None,
    for_minutes: Annotated[
        float | None,
        typer.Option(
            "--slice",
            min=0.01,
            max=1e7,
            callback=options.finite,
            help="Stop after so many minutes with a checkpoint; the same command goes on.",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or auto, instead of the recipe's.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Processes that simulate.")] = 2,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Make the pairs on the workers of a Dask cluster, not in --workers: its"
            " scheduler, tcp://HOST:8786. Own images must be there under the same paths.",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=options.MAX_THREADS, help="Threads that train.")
    ] = None,
    lines: ProgressLines = False,
    as_json: JSON = False,
) -> None:
    """Make training pairs, train a network, validate it; resumes where it was interrupted.

    [dim]Example:[/] livesr train --recipe imcsr-mt-er-lyso-light --out runs/light

    [dim]Example:[/] livesr train --rig my_rig --channel 488 --out runs/mine
    """
    from livesr.base.errors import ConfigError

    if teacher and not (teacher / "best.pt").is_file():
        raise ConfigError(
            f"{teacher} holds no best.pt, so there is nothing to learn from. Give a finished"
            " training run."
        )
    budget: dict[str, Any] = (
        {"minutes": None, "steps": steps} if steps else {"minutes": minutes} if minutes else {}
    )
    given = {
        "threads": threads,
        "device": device,
        "start": start,
        "teacher": str(teacher / "best.pt") if teacher else None,
    }
    budget |= {name: value for name, value in given.items() if value}
    chosen = _recipe(recipe, rig, channel, photons, budget)
    amounts = {
        name: value for name, value in (("train", pairs), ("validation", validation)) if value
    }
    chosen = chosen.model_copy(update={"data": chosen.data.model_copy(update=amounts)})
    _check_unknown(chosen)
    _check_haze(chosen)
    _require_torch()  # behind what can be wrong in a recipe: a typo costs no installation
    session = _Session(chosen, out, data or out, for_minutes, console(quiet=as_json), lines)
    result = session.run(workers, cluster)
    if as_json:
        print_json(result)


def _recipe(
    recipe: str | None,
    rig: str | None,
    channel: str | None,
    photons: tuple[float, float] | None,
    train: dict[str, Any],
) -> Recipe:
    from livesr.base.config import load_rig
    from livesr.base.errors import UsageError
    from livesr.training.for_rig import DEFAULT_RECIPE, channel_for, recipe_for
    from livesr.training.recipes import load_recipe

    if rig is not None:
        config = load_rig(rig)
        return recipe_for(config, channel_for(config, channel), recipe, photons, **train)
    for option, value in (("--channel", channel), ("--photons", photons)):
        if value is not None:
            raise UsageError(f"{option} is of a rig: give --rig too, or leave it out.")
    return load_recipe(recipe or DEFAULT_RECIPE, **train)


def _check_unknown(recipe: Recipe) -> None:
    """Refuse crops with unknown structures for a network that draws none, and the reverse, before
    pairs are made for hours.
    """
    from livesr.base.errors import ConfigError

    shown, drawn = recipe.data.unknown, bool(recipe.train.parameters.get("unknown"))
    if shown and not drawn:
        raise ConfigError(
            f"'data: unknown' is {shown:g}, but the network draws no unknown light: set 'unknown:"
            " true' in 'train: parameters', or leave 'data: unknown' out."
        )
    if drawn and not shown:
        raise ConfigError(
            "The network draws unknown light ('train: parameters'), but none of the crops has some:"
            " set 'data: unknown', to 0.3 say, and 'recombined' beside it."
        )


def _check_haze(recipe: Recipe) -> None:
    """Refuse truth without haze for a network that shares it out, and a teacher of other truth."""
    from livesr.base.errors import ConfigError
    from livesr.training.recipes import load_recipe

    if recipe.train.parameters.get("haze") and not recipe.data.haze_in_truth:
        raise ConfigError(
            "The network shares out haze ('train: parameters'), but the truth has none: set"
            " 'haze_in_truth: true' in 'data: domain'."
        )
    told = Path(recipe.train.teacher).parent / "recipe.json" if recipe.train.teacher else None
    if told is None or not told.is_file():
        return
    theirs = load_recipe(told).data.haze_in_truth
    if theirs != recipe.data.haze_in_truth:
        learned, shown = ("with" if haze else "without" for haze in (theirs, not theirs))
        raise ConfigError(
            f"The teacher, {told.parent}, learned truth {learned} haze, and that of this recipe is"
            f" {shown} ('haze_in_truth'): one of the two is wrong. Take another teacher, or none."
        )


def _require_torch() -> None:
    """Refuse to train where what trains, or draws the curves, is not installed."""
    from livesr.base.errors import BackendError

    try:
        import matplotlib  # noqa: F401 - the curves
        import torch  # noqa: F401
    except ImportError as e:
        raise BackendError(f"Training needs {e.name}: pip install 'livesr[train]'.") from e


class _SliceOver(Exception):  # noqa: N818 - no error: the time that the caller gave is used up
    """The pairs are not complete and the slice is over."""


class _Session:
    """One call of the command: pairs first, then training, within the slice."""

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        data: Path,
        minutes: float | None,
        terminal: Console,
        lines: bool,
    ) -> None:
        self._recipe, self._out, self._data, self._terminal = recipe, out, data, terminal
        self._minutes, self._until, self._went_on = minutes, math.inf, False
        self._validation: dict[str, float] = {}
        self._lines, self._steps = lines, Lines("steps")

    def run(self, workers: int, cluster: str | None = None) -> dict[str, Any]:
        """Return what ``--json`` prints.

        Raises
        ------
        ConfigError
            If recipe, pairs or run do not fit each other, or a file is where a folder must be.
        """
        from livesr.base.errors import ConfigError, UsageError
        from livesr.base.other_files import no_folder

        for option, folder in (("--out", self._out), ("--data", self._data)):
            if other := no_folder(folder, f"the folder of {option}, which is made if need be"):
                raise ConfigError(other)
        self._out.mkdir(parents=True, exist_ok=True)
        told = self._out / "recipe.json"
        before = told.read_bytes() if told.is_file() else None
        told.write_text(self._recipe.model_dump_json(indent=2) + "\n", encoding="utf-8")
        try:
            self._begin()
            if self._minutes:  # from here, or loading PyTorch might take a short slice
                self._until = time.monotonic() + 60 * self._minutes
            finished = self._train(*self._pairs(workers, cluster))
        except _SliceOver:
            finished = False
        except (ValueError, FileNotFoundError, UsageError) as e:
            if before is not None:  # what lies in the folder is still of the recipe that was there
                told.write_bytes(before)
            else:
                told.unlink()
            if isinstance(e, UsageError):
                raise
            raise ConfigError(f"{e}.") from e
        self._say_gain()
        command = f"livesr export {self._out} --out engines/{self._recipe.engine['id']}"
        self._terminal.print(
            f"Done. Next: {command}" if finished else "The slice is over; the same command goes on."
        )
        log = str(self._out / "log.csv")
        return {
            "out": str(self._out),
            "finished": finished,
            "validation": self._validation,
            "log": log,
        }

    def _begin(self) -> None:
        """Say what the network begins with.

        One that cannot be, or cannot be trained so, is refused before pairs are made for it.
        """
        from livesr.training import networks
        from livesr.training.optimisers import make_optimiser
        from livesr.training.start import begin_with
        from livesr.training.trainer import find_device

        config, rig = self._recipe.train, self._recipe.rig
        if rig and rig.unmeasured:
            self._terminal.print(
                f"rig.yaml does not say {', '.join(rig.unmeasured)}: cells are simulated over"
                " the usual range. livesr calibrate and livesr characterise measure them."
            )
        find_device(config.device)
        network = networks.build(config.architecture, **config.parameters)
        make_optimiser(config.optimiser, network, config.lr, config.weight_decay)
        step = int(getattr(network, "multiple_of", 1))
        if config.patch % step:
            raise ValueError(
                f"patch is {config.patch}, and this network takes sides that are multiples of"
                f" {step}: choose {max(config.patch // step, 1) * step}"
            )
        if config.start and not (self._out / "checkpoint.pt").is_file():
            begun = begin_with(network, config.start, self._structures, config.begin_as)
            self._terminal.print(begun.words())

    def _say_gain(self) -> None:
        """Say how much better the network is than what it began with."""
        from livesr.training.journal import read_log

        validated = [row for row in read_log(self._out / "log.csv") if row.get("val_pcc")]
        if len(validated) > 1 and validated[0]["step"] == "0":
            before, best = (
                float(validated[0]["val_pcc"]),
                max(float(r["val_pcc"]) for r in validated),
            )
            self._terminal.print(
                f"Mean PCC on validation pairs: {best:.3f} at best, {before:.3f} at the start."
            )

    @property
    def _structures(self) -> list[str]:
        return [channel["name"] for channel in self._recipe.engine["channels"]]

    def _train(self, train_pairs: TrainSource, validation_pairs: ValidationSource) -> bool:
        from livesr.training.trainer import Trainer

        left = (self._until - time.monotonic()) / 60
        if left <= 0:
            return False
        names = [*self._structures, *["unknown"] * bool(self._recipe.data.unknown)]
        trainer = Trainer(self._recipe.train, train_pairs, validation_pairs, self._out, names)
        trainer.run(self._show, minutes=left if self._minutes else None)
        return trainer.finished

    def _show(self, progress: Progress) -> None:
        if progress.validation:
            self._validation.update(progress.validation)
        left = progress.minutes_left if progress.step else None  # nobody knows the pace at first
        if self._lines:
            self._steps.show(
                progress.step,
                None,
                minutes_left=left,
                **progress.losses,
                **progress.validation,
            )
            return
        numbers = "  ".join(
            f"{k} {v:.4f}" for k, v in {**progress.losses, **progress.validation}.items()
        )
        if left is None:
            self._terminal.print(f"step 0  {numbers}  what it begins with")
            return
        waiting = f", {progress.waiting:.0%} waiting for them" if progress.waiting > 0.02 else ""
        self._terminal.print(
            f"step {progress.step}  {numbers}  lr {progress.lr:.1e}  {progress.patches_per_s:.0f}"
            f" patches/s{waiting}  {left:.0f} min left"
        )

    def _pairs(self, workers: int, cluster: str | None) -> tuple[TrainSource, ValidationSource]:
        from rich.progress import Progress as Bars

        from livesr.training.pair_folder import write_pairs
        from livesr.training.recombine import as_told
        from livesr.training.sources import CachedPairs

        data, folders = (
            self._recipe.data,
            (self._data / "pairs-train", self._data / "pairs-validation"),
        )
        makers = (data.maker("train"), data.maker("validation"))
        numbers = ((data.train, data.seed), (data.validation, data.validation_seed))
        with Bars(console=self._terminal, transient=True) as bars:
            for folder, maker, (n, seed) in zip(folders, makers, numbers, strict=True):
                task = bars.add_task(f"making {folder.name}", total=n)
                said = Lines(folder.name)

                def step(done: int, total: int, task: Any = task, said: Lines = said) -> None:
                    bars.update(task, completed=done, total=total)
                    if self._lines:
                        said.show(done, total)
                    if self._went_on and time.monotonic() > self._until and done < total:
                        raise _SliceOver
                    self._went_on = True  # the first call says what was there

                write_pairs(
                    folder,
                    maker,
                    n,
                    seed=seed,
                    workers=workers,
                    cluster=cluster,
                    progress=step,
                    say=dimly(self._terminal),
                )
        window = None if data.whole_groups else int(self._recipe.engine["window"])
        learned, validation = (CachedPairs(folder, window=window) for folder in folders)
        if not data.recombined:
            return learned, validation
        composed, shown = (as_told(pairs, data) for pairs in (learned, validation))
        return composed, shown if data.unknown else validation
