"""What is done behind a run before its command ends: `--complete`.

Owns the flag's words, the progress and what is said. The work is `livesr.store.completion`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from livesr.base.errors import ConfigError
from livesr.cli.output import progress

if TYPE_CHECKING:
    from rich.console import Console

    from livesr.base.compute import ComputeConfig

AUTO_S = 300.0
_MOST_S = 1e6


def seconds_of(complete: str) -> float | None:
    """Return how long it may take, None for not at all.

    Raises
    ------
    ConfigError
        If `complete` is neither auto, off nor a number of seconds.
    """
    if complete == "off":
        return None
    try:
        seconds = AUTO_S if complete == "auto" else float(complete)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= _MOST_S:
        raise ConfigError(f"--complete is {complete!r}; expected auto, off, or seconds above 0.")
    return seconds


def completed(
    report: Mapping[str, Any],
    within_s: float | None,
    out: Console,
    *,
    compute: ComputeConfig,
    engine: str | None,
    upscale: str | None = None,
    lines: bool,
) -> dict[str, Any]:
    """Complete the store of a run that went to its end; return its report with what was done.

    `engine` and `upscale` are those of the command line; with `lines` progress is JSON.

    A run that was interrupted or failed is left as it is: somebody wants to be done, or has to
    look first.
    """
    store = report.get("store")
    if within_s is None or not store or report["exit_code"]:
        return dict(report)
    from livesr.store.completion import complete_behind  # only now: a second Ctrl-C waits for none

    with progress(out, "skipped frames computed; Ctrl-C leaves the rest", lines=lines) as show:
        done = complete_behind(
            Path(store),
            within_s=within_s,
            engine=_of_all(engine),
            upscale=_of_all(upscale),
            compute=compute,
            on_progress=show,
        )
    made = done.predicted + done.reconstructed
    if made or done.left:
        rest = f", {done.left} left: livesr backfill {store}" if done.left else ""
        out.print(f"{made} skipped frames computed afterwards{escape(rest)}", soft_wrap=True)
    for problem in done.problems:
        out.print(f"Not completed: {escape(problem)}", style="yellow")
    return {**report, "completed": done.as_json()}


def _of_all(engine: str | None) -> str | None:
    """Return an engine of the command line that is every channel's; others are found by name."""
    return None if engine is None or engine == "none" or "=" in engine else engine
