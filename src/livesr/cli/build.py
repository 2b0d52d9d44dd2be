"""`livesr build ENGINE`: compiles an engine for the GPU of this computer, so that no run has to wait for it."""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from livesr.base.errors import BackendError, UsageError
from livesr.cli.output import JSON, console, print_json

if TYPE_CHECKING:
    from livesr.live.inference.engine import Engine
    from livesr.live.inference.plans import PlanCache


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(build)


def build(
    engine: Annotated[str, typer.Argument(help="Engine: a name or a folder.")],
    shape: Annotated[
        list[str], typer.Option(help="Size of the frames that the engine sees, y x x; may be given several times.")
    ] = ["1024x1024"],  # noqa: B006 - typer copies it
    precision: Annotated[
        str, typer.Option(help="auto (f16), f32, f16, int8, or f8 (FP8: TensorRT 10 and later).")
    ] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Build also what is there already.")] = False,
    as_json: JSON = False,
) -> None:
    """Compile an engine with TensorRT and keep the plan, for this GPU, this version and these sizes.

    A run does so by itself when a plan is missing, but waits minutes for it. SIM doubles the camera's size.

    [dim]Example:[/] livesr build imcsr-mt-er-lyso-light --shape 1024x1024 --shape 512x512
    """
    from livesr.live.inference.engine import load_engine
    from livesr.live.inference.plans import PlanCache
    from livesr.live.inference.tensorrt import TensorRTBackend, choose_precision

    sizes = [_size(text) for text in shape]
    chosen, loaded, cache = choose_precision(precision), load_engine(engine), PlanCache()
    if reason := TensorRTBackend.is_unavailable():
        raise BackendError(reason)
    terminal = console(quiet=as_json)
    plans = []
    for size in sizes:
        plans.append(made := _build(loaded, size, chosen, cache, force, terminal))
        what = f"built in {made['seconds']:.0f} s" if made["built"] else "there already"
        terminal.print(f"{loaded.manifest.id}, {size[0]} x {size[1]}, {chosen}, {made['device']}: {what}")
        terminal.print(f"[dim]{made['plan']}[/]", soft_wrap=True)
    if as_json:
        print_json({"engine": loaded.manifest.id, "sha256": loaded.manifest.sha256, "plans": plans})


def _build(
    engine: Engine, size: tuple[int, int], precision: str, cache: PlanCache, force: bool, terminal: Any
) -> dict[str, Any]:
    from livesr.live.inference.tensorrt import build_plan, plan_key

    key = plan_key(engine, size, precision)
    started, there = time.perf_counter(), not force and cache.load(key) is not None
    if not there:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=terminal, transient=True) as bar:
            task = bar.add_task(f"Compiling for {key.device}", total=None)

            def show(what: str, step: int, steps: int) -> bool:
                bar.update(task, description=what, completed=step, total=steps)
                return not stop.is_set()

            stop = threading.Event()
            _in_thread(lambda: build_plan(engine, key, cache, progress=show), stop)
    return {
        **key.facts(),
        "plan": str(cache.path(key)),
        "bytes": cache.path(key).stat().st_size,
        "built": not there,
        "seconds": time.perf_counter() - started,
    }


def _in_thread(work: Any, stop: threading.Event) -> None:
    """Run `work` in a thread, so that Ctrl-C is heard meanwhile: an exception must not rise through TensorRT."""
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


def _size(text: str) -> tuple[int, int]:
    if not (match := re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)):
        raise UsageError(f"--shape is y x x in pixels, such as 1024x1024; got {text!r}.")
    return int(match[1]), int(match[2])
