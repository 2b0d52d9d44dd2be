"""`livesr quantise ENGINE`: convolutions in eight bits, for twice the speed where memory and
arithmetic allow.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from livesr.cli import options
from livesr.cli.output import JSON, ProgressLines, console, print_json, progress

if TYPE_CHECKING:
    from rich.console import Console

    from livesr.export.quantise import Pairs
    from livesr.live.inference.engine import Engine

_SEED = 20261123  # of no training, validation or evaluation


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(quantise)


def quantise(
    engine: Annotated[str, typer.Argument(help="Engine: a name or a folder, which is written to.")],
    pairs: Annotated[
        Path | None,
        typer.Option(
            help=(
                "Folder of pairs (pairs-validation of a training run) to calibrate on; without,"
                " simulated."
            )
        ),
    ] = None,
    n: Annotated[
        int,
        typer.Option(
            "-n",
            min=4,
            max=1_000_000,
            help="Pairs: half of them to calibrate on, half to measure the loss.",
        ),
    ] = 48,
    max_loss: Annotated[
        float,
        typer.Option(min=0.0, max=2.0, callback=options.finite, help="Mean PCC that may be lost."),
    ] = 0.005,
    threads: options.Threads = 0,
    lines: ProgressLines = False,
    as_json: JSON = False,
) -> None:
    """Write model-int8.onnx beside model.onnx, and its hash and what it costs into the manifest.

    [dim]Example:[/] livesr quantise engines/imcsr-mt-er-lyso-light
    """
    from livesr.base.errors import BackendError
    from livesr.live.inference.engine import load_engine

    try:
        import nncf  # noqa: F401
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import torch  # noqa: F401
    except ImportError as e:
        raise BackendError(f"Quantising needs {e.name}: pip install 'livesr[train]'.") from e
    from livesr.export.quantise import quantise_engine

    loaded, terminal = load_engine(engine), console(quiet=as_json)
    options.check_beside(loaded.folder)
    (frames, truths), data = (
        _folder(pairs, n, loaded) if pairs else _simulated(loaded, n, terminal, lines)
    )
    # Every second one: pairs of a folder may be in some order.
    with terminal.status("Calibrating and measuring the loss"):
        done = quantise_engine(
            loaded.folder,
            frames[::2],
            (frames[1::2], truths[1::2]),
            f"{len(frames[::2])} frames: {data}",
            max_loss=max_loss,
            threads=threads,
        )
    terminal.print(
        f"{loaded.manifest.id}: {done.convolutions} convolutions in int8, {len(done.in_float)} put"
        f" back; mean PCC on {len(frames[1::2])} other frames {done.pcc:.4f} in f32,"
        f" {done.pcc_int8:.4f} in int8."
    )
    if as_json:
        print_json(
            {
                "engine": str(loaded.folder),
                "sha256": done.manifest.weights.int8.sha256 if done.manifest.weights.int8 else None,
                "convolutions": done.convolutions,
                "in_float": done.in_float,
                "pcc": done.pcc,
                "pcc_int8": done.pcc_int8,
            }
        )


def _simulated(engine: Engine, n: int, terminal: Console, lines: bool) -> tuple[Pairs, str]:
    from livesr.export.quantise import simulated_pairs

    with progress(terminal, "pairs simulated", lines=lines) as show:
        return simulated_pairs(engine, n, _SEED, progress=lambda done: show(done, n))


def _folder(folder: Path, n: int, engine: Engine) -> tuple[Pairs, str]:
    from livesr.evaluation.pairs import targets_in_order
    from livesr.training.sources import named_pairs

    sees_all = engine.manifest.raw_frames or engine.manifest.beside  # planes of a pair
    window = None if sees_all else engine.manifest.window
    cached = named_pairs(folder, window, haze=engine.manifest.haze)
    frames, truths = cached.validation(n)
    order = targets_in_order(engine.manifest, tuple(cached.meta["channels"]))
    return (frames, truths[:, order]), f"pairs of {folder.name}"
