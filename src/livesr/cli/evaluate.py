"""`livesr evaluate ENGINE`: how good an engine is, as a page and as numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from livesr.cli import options
from livesr.cli.output import JSON, ProgressLines, console, print_json, progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from livesr.evaluation.composites import StructureImages
    from livesr.evaluation.pictures import PictureRow
    from livesr.simulation.domain import Domain

    Pairs = Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]

Conditions = Literal["calibrated", "full", "medium", "high", "very high"]

_PICTURES = 4
_DATA = "a folder of pairs, a folder of images of each structure, or a YAML file that names images"
_DIAGNOSED = 4


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(evaluate)


def evaluate(
    engine: Annotated[str, typer.Argument(help="Engine: a name or a folder.")],
    data: Annotated[
        str,
        typer.Option(
            help=(
                "simulated; a folder of pairs, as livesr train makes them; a folder with a folder"
                " of images of each "
                "structure, which are mixed in many ways; or a YAML file with a recipe's images"
                " section."
            )
        ),
    ] = "simulated",
    out: Annotated[
        Path, typer.Option(callback=options.to_fill, help="Folder for report.html and report.json.")
    ] = Path("evaluation"),
    n: Annotated[int, typer.Option("--n", min=1, max=100_000, help="Sequences or pairs.")] = 24,
    size: Annotated[int, typer.Option(min=64, max=16_384, help="Side of the frames.")] = 512,
    conditions: Annotated[
        Conditions,
        typer.Option(
            help=(
                "Of simulated rigs: in good order, all that training draws from, or one of three"
                " levels of light."
            )
        ),
    ] = "calibrated",
    null_tests: Annotated[
        bool,
        typer.Option(
            "--null-tests/--no-null-tests",
            help="Shuffled time, a still scene, resolution; simulated only.",
        ),
    ] = True,
    ensemble: options.Ensemble = None,
    threads: options.Threads = 0,
    backend: options.Backend = "auto",
    lines: ProgressLines = False,
    as_json: JSON = False,
) -> None:
    """Score an engine against truths it never saw, test it on scenes of which the answer is known,
    and write a page.

    A folder of single-structure images is mixed alike, with each structure at half and at a
    quarter, missing and alone; its report is report.md.

    [dim]Example:[/] livesr evaluate imcsr-mt-er-lyso-light --out evaluation
    """
    from livesr.evaluation.report import write_report

    terminal = console(quiet=as_json)
    rows: list[PictureRow] = []
    runtime = {"backend": backend, "threads": threads, "ensemble": ensemble}
    call = _Call(engine, n, size, runtime, rows, terminal, lines)
    if Path(data).is_dir() and not (Path(data) / "meta.json").is_file():
        _report_composites(call.composites(Path(data)), out, terminal, as_json)
        return
    result = (
        call.simulated(_conditions(conditions, engine), null_tests)
        if data == "simulated"
        else call.pairs(Path(data))
    )
    page = write_report(out, result, rows)
    for name, entry in result["structures"].items():
        network, given = entry["network"]["pcc"]["mean"], entry["input"]["pcc"]["mean"]
        terminal.print(f"{name}: PCC {_number(network)}, input {_number(given)}")
    terminal.print(f"The report is {page}.")
    if as_json:
        print_json({**result, "report": str(page)})


class _Call:
    """One evaluation, with its progress and its pictures."""

    def __init__(
        self,
        engine: str,
        n: int,
        size: int,
        runtime: dict[str, Any],
        rows: list[PictureRow],
        terminal: Console,
        lines: bool,
    ) -> None:
        self._engine, self._n, self._size = engine, n, size
        self._runtime = runtime
        self._rows, self._terminal, self._lines = rows, terminal, lines

    def simulated(self, conditions: Domain, null_tests: bool) -> dict[str, Any]:
        from livesr.evaluation.engines import SEEDS, diagnose_engine, evaluate_engine

        common: dict[str, Any] = {"size": self._size, "conditions": conditions, **self._runtime}
        with progress(self._terminal, "sequences scored", lines=self._lines) as scored:
            result = evaluate_engine(
                self._engine, sequences=self._n, progress=scored, show=self._show, **common
            )
        if null_tests:
            seeds = SEEDS[: min(self._n, _DIAGNOSED)]
            with progress(self._terminal, "null tests", lines=self._lines) as tested:
                result["diagnostics"] = diagnose_engine(
                    self._engine, seeds=seeds, progress=tested, **common
                )
        return result

    def pairs(self, data: Path) -> dict[str, Any]:
        from livesr.evaluation.pairs import evaluate_pairs

        pairs, names, what = _folder(data, self._n) if data.is_dir() else self._own_images(data)
        with progress(self._terminal, "pairs scored", lines=self._lines) as scored:
            return evaluate_pairs(
                self._engine,
                pairs,
                names,
                what,
                progress=lambda done: scored(done, self._n),
                show=self._show,
                **self._runtime,
            )

    def composites(self, folder: Path) -> dict[str, Any]:
        from livesr.evaluation.composites import evaluate_composites

        with progress(self._terminal, "mixtures scored", lines=self._lines) as scored:
            return evaluate_composites(
                self._engine,
                _single_structures(folder, self._engine),
                n=self._n,
                progress=scored,
                **self._runtime,
            )

    def _own_images(self, path: Path) -> tuple[Pairs, list[str], str]:
        from livesr.base.config import load_yaml, parse
        from livesr.base.errors import ConfigError
        from livesr.base.other_files import other_than_yaml
        from livesr.live.inference.engine import load_engine
        from livesr.training.composites import CoarsePairs, CompositePairs
        from livesr.training.images import OwnImages

        if not path.is_file():
            raise ConfigError(
                f"There is no {path}: neither a folder of pairs nor a YAML file that names images."
            )
        if other := other_than_yaml(path, _DATA):
            raise ConfigError(other)
        content = load_yaml(path)
        images = parse(OwnImages, content.get("images", content), str(path))
        scale, what = (
            load_engine(self._engine).manifest.scale,
            f"patches of {self._size} x {self._size} of own images",
        )
        if scale > 1:
            coarse = CoarsePairs.find(images, self._size, scale, "all")
            pairs = (coarse.make((0, i)) for i in range(self._n))
            return pairs, [images.modality], f"{what}, sampled {scale} times more coarsely ({path})"
        maker = CompositePairs.find(images, self._size, "all")
        pairs = (maker.make((0, i)) for i in range(self._n))
        return pairs, list(images.folders), f"{what}, added ({path})"

    def _show(self, row: PictureRow) -> None:
        if len(self._rows) < _PICTURES:
            self._rows.append(row)


def _single_structures(folder: Path, engine: str) -> dict[str, StructureImages]:
    """Read the images of each structure of the engine, from the folder of its name.

    (t, y, x) gives one field a frame.
    """
    from livesr.base.errors import ConfigError
    from livesr.evaluation.composites import SMALLEST_PX, StructureImages
    from livesr.live.inference.engine import load_engine
    from livesr.training.images import find_images, read_image

    here, found = {path.name.casefold(): path for path in folder.iterdir() if path.is_dir()}, {}
    names = load_engine(engine).manifest.channel_names
    if missing := [name for name in names if name.casefold() not in here]:
        raise ConfigError(
            f"{folder} holds no pairs (meta.json) and no folder named {', '.join(missing)}. Give it"
            f" one folder of images for each structure of the engine: {', '.join(names)}."
        )
    for name in names:
        files = find_images(here[name.casefold()], SMALLEST_PX)
        clean = [frame for file in files for frame in read_image(file.path)]
        noisy = [frame for file in files if file.noisy for frame in read_image(file.noisy)]
        found[name] = StructureImages(clean, noisy or None)
    return found


def _report_composites(result: dict[str, Any], out: Path, terminal: Console, as_json: bool) -> None:
    import json

    from livesr.evaluation.composites import composites_table, summary

    table, means = composites_table(result), summary(result)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(
        json.dumps(result, indent=1) + "\n", encoding="utf-8", newline="\n"
    )
    (out / "report.md").write_text(table, encoding="utf-8", newline="\n")
    for name, value in means.items():
        terminal.print(f"{name}: {value:.3f}")
    terminal.print(f"The report is {out / 'report.md'}.")
    if as_json:
        print_json({**result, "summary": means, "report": str(out / "report.md")})


def _folder(folder: Path, n: int) -> tuple[Pairs, list[str], str]:
    from livesr.training.sources import named_pairs

    cached = named_pairs(folder)
    frames, targets = cached.validation(n)
    return zip(frames, targets, strict=True), cached.meta["channels"], f"of {folder}"


def _conditions(name: Conditions, engine: str) -> Domain:
    """Return what is drawn from, with the structures that the engine separates if all of them can
    be simulated; for an engine of one microscope, under that one.
    """
    from livesr.base.errors import UsageError
    from livesr.live.inference.engine import load_engine
    from livesr.live.own_engine import own_domain
    from livesr.simulation.domain import CALIBRATED, SNR, Domain, calibrated_like
    from livesr.simulation.specimens import simulated

    domains = {"calibrated": CALIBRATED, "full": Domain(), **SNR}
    manifest = load_engine(engine).manifest
    if manifest.task != "separate":
        raise UsageError(
            f"Engine {manifest.id!r} does {manifest.task!r}, and simulated cells are for engines"
            " that separate. Give --data a folder of pairs, such as a training run's"
            " pairs-validation."
        )
    domain = domains[name]
    if own := own_domain(manifest):
        in_order = calibrated_like(own)
        light = {"photons": domain.photons} if name in SNR else {}
        domain = own if name == "full" else in_order.model_copy(update=light)
    wanted = simulated(manifest.channel_names)
    if set(wanted) <= set(domain.structures):
        return domain
    return domain.model_copy(update={"structures": wanted})


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
