"""`livesr build ENGINE`: compiles an engine for the GPU of this computer or of another, so that no
run has to wait for it.
"""

from __future__ import annotations

import re
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from livesr.base.errors import BackendError, UsageError
from livesr.cli import options
from livesr.cli.output import JSON, Lines, ProgressLines, console, print_json

if TYPE_CHECKING:
    from livesr.live.inference.engine import Engine
    from livesr.live.inference.plans import PlanCache
    from livesr.live.inference.tensorrt import Card
    from livesr.live.inference.tensorrt_build import Library


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(build)


def build(
    engine: Annotated[str, typer.Argument(help="Engine: a name or a folder.")],
    shape: Annotated[
        list[str],
        typer.Option(
            help="Size of the frames that the engine sees, y x x; may be given several times."
        ),
    ] = ["1024x1024"],  # noqa: B006 - typer copies it
    precision: Annotated[
        str,
        typer.Option(help="auto (f16), f32, f16, int8, or f8 (FP8: from Ada and TensorRT 10 on)."),
    ] = "auto",
    for_: Annotated[
        str,
        typer.Option(
            "--for", help="Cards, such as 'RTX 4090', or ada,blackwell: no GPU is needed for those."
        ),
    ] = "",
    to: Annotated[
        Path | None,
        typer.Option(
            callback=options.to_fill,
            help="Folder for the plans; without, where runs look for them.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Build also what is there already.")
    ] = False,
    lines: ProgressLines = False,
    as_json: JSON = False,
) -> None:
    """Compile an engine with TensorRT and keep the plan, for a GPU, this version and these sizes.

    A run does so by itself when a plan is missing, but waits for it. SIM doubles the camera's size.
    Plans that were built for the cards of another computer ([bold]--for[/]) go into the folder of
    plans there: 'livesr info' says where that is.

    [dim]Example:[/] livesr build imcsr-mt-er-lyso-light --shape 1024x1024 --for "RTX 4090,
    blackwell"
    """
    from livesr.live.inference.cards import FP8_SINCE
    from livesr.live.inference.engine import load_engine
    from livesr.live.inference.plans import PlanCache

    sizes = [size_of(text) for text in shape]
    chosen, cache = precision_of(precision), PlanCache(to)
    loaded = load_engine(engine)
    library, cards = _targets(for_)
    if lacking := [card for card in cards if chosen == "f8" and card.capability < FP8_SINCE]:
        raise UsageError(
            f"{lacking[0].name} computes no FP8, which cards have from Ada (8.9) on. Use"
            " --precision int8 or f16."
        )
    terminal = console(quiet=as_json)
    plans = []
    for card in cards:
        for size in sizes:
            plans.append(
                made := compiled(loaded, size, chosen, library, card, cache, force, terminal, lines)
            )
            what = f"built in {made['seconds']:.1f} s" if made["built"] else "there already"
            what += f", {made['bytes'] / 1e6:.1f} MB"
            if frame := made["figures"].get("frame_bytes"):
                what += f", {frame / 1e6:.0f} MB of the GPU's memory while a frame is computed"
            terminal.print(
                f"{loaded.manifest.id}, {size[0]} x {size[1]}, {chosen}, {made['device']}: {what}"
            )
            terminal.print(f"[dim]{made['plan']}[/]", soft_wrap=True)
    if as_json:
        print_json({"engine": loaded.manifest.id, "sha256": loaded.manifest.sha256, "plans": plans})


def precision_of(asked: str) -> str:
    """Return the precision that is asked for, of those that the libraries build for some card."""
    from livesr.live.inference.tensorrt_build import PRECISIONS

    if asked == "auto":
        return PRECISIONS[0]
    if asked not in PRECISIONS:
        raise UsageError(
            f"TensorRT computes in {', '.join(PRECISIONS)}, not in {asked!r}. Use --precision auto."
        )
    return asked


def _targets(cards: str) -> tuple[Library, list[Card]]:
    """Return what compiles, and for which cards: those that are named, or the one that is here."""
    from livesr.live.inference.cards import capability_of
    from livesr.live.inference.tensorrt import Card, TensorRTRTXRuntime, TensorRTRuntime
    from livesr.live.inference.tensorrt_build import RTX, TENSORRT, capabilities

    if not cards:
        reasons = [kind().unavailable() for kind in (TensorRTRuntime, TensorRTRTXRuntime)]
        if all(reasons):
            raise BackendError(
                f"{reasons[1]} To compile for the card of another computer, name it: --for 'RTX"
                " 4090'."
            )
        return (RTX if reasons[0] else TENSORRT), [Card.here()]
    if missing := [name for name in (RTX.module, "onnx") if find_spec(name) is None]:
        raise BackendError(
            f"Compiling for a card that is not here needs {' and '.join(missing)}: pip install"
            " 'livesr[gpu]'."
        )
    named = [Card(name.strip(), capability_of(name)) for name in cards.split(",")]
    for card in named:
        if card.capability not in capabilities():
            known = ", ".join(f"{c // 10}.{c % 10}" for c in capabilities())
            raise BackendError(
                f"{card.name} has compute capability"
                f" {card.capability // 10}.{card.capability % 10}, and {RTX.said_version} compiles"
                f" for {known}. Install TensorRT on the computer that has the card, and build"
                " there."
            )
    return RTX, list({card.capability: card for card in named}.values())


def compiled(
    engine: Engine,
    size: tuple[int, int],
    precision: str,
    library: Library,
    card: Card,
    cache: PlanCache,
    force: bool,
    terminal: Any,
    lines: bool,
) -> dict[str, Any]:
    """Find or build the plan for frames of `size` (y, x), and return what it is."""
    from livesr.live.inference.tensorrt import build_plan, plan_key

    key = plan_key(engine, size, precision, library, card)
    aim = card.capability if library.for_cards else None
    started, there = time.perf_counter(), not force and cache.load(key) is not None
    if not there:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=terminal, transient=True) as bar:
            task = bar.add_task(f"Compiling for {key.device}", total=None, visible=not lines)
            written = Lines("steps of the compiler") if lines else None

            def show(what: str, step: int, steps: int) -> bool:
                bar.update(task, description=what, completed=step, total=steps)
                if written:
                    written.show(step, steps, device=key.device, phase=what)
                return not stop.is_set()

            stop = threading.Event()
            _in_thread(lambda: build_plan(engine, key, cache, library, aim, progress=show), stop)
    return {
        **key.facts(),
        "plan": str(cache.path(key)),
        "bytes": cache.path(key).stat().st_size,
        "figures": cache.figures(key),
        "built": not there,
        "seconds": time.perf_counter() - started,
    }


def _in_thread(work: Any, stop: threading.Event) -> None:
    """Run `work` in a thread, so that Ctrl-C is heard meanwhile.

    An exception must not rise through TensorRT.
    """
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as e:
            failed.append(e)

    thread = threading.Thread(target=run, name="livesr-build", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.2)
    except KeyboardInterrupt:
        stop.set()  # TensorRT asks between two steps
        thread.join(5)
        raise
    if failed:
        raise failed[0]


def size_of(text: str, option: str = "--shape") -> tuple[int, int]:
    """Return (y, x) of "1024x1024"; raises UsageError if it is no size."""
    if not (match := re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)):
        raise UsageError(f"{option} is y x x in pixels, such as 1024x1024; got {text!r}.")
    return int(match[1]), int(match[2])
