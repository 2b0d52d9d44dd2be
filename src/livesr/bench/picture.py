"""Pictures of results: every ratio with its interval, and the curves of scaling.

Owns layout and scales. matplotlib is imported on use.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from livesr.base.errors import ConfigError
from livesr.bench.report import where
from livesr.bench.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ABOUT = {
    "scaling.size": "side of a raw frame, pixels",
    "scaling.channels": "acquisition channels",
    "scaling.rate": "camera's rate, raw frames/s",
    "scaling.length": "frames since the start",
}
_MET, _MISSED, _PLAIN = "#1b7f4d", "#c0392b", "#34495e"


def draw(results: Sequence[Result], path: Path) -> list[Path]:
    """Draw results as PNG; return the files: `path`, and curves beside it if there are both.

    Raises
    ------
    ConfigError
        If matplotlib is not installed, or makes no picture of the kind that `path` names.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise ConfigError("The picture needs matplotlib: pip install 'livesr[plots]'.") from e
    path.parent.mkdir(parents=True, exist_ok=True)
    curves = [r for r in results if r.at is not None]
    ratios = [r for r in results if r.at is None and r.ratio is not None]
    files = []
    if ratios:
        figure = Figure(figsize=(9, 1.2 + 0.3 * len(ratios)), layout="constrained")
        _ratios(figure.subplots(), ratios)
        files.append(_saved(figure, ratios, path))
    if curves:
        suites = list(dict.fromkeys(r.suite for r in curves))
        figure = Figure(figsize=(13, 3.3 * len(suites)), layout="constrained")
        for row, suite in zip(figure.subplots(len(suites), 3, squeeze=False), suites, strict=True):
            _curves(row, [r for r in curves if r.suite == suite])
        files.append(
            _saved(figure, curves, path.with_stem(f"{path.stem}-scaling") if ratios else path)
        )
    return files


def _saved(figure: Figure, results: Sequence[Result], path: Path) -> Path:
    if environment := results[0].environment:
        figure.supxlabel(
            f"{environment.cpu}, {environment.cores} cores, load {environment.load}", fontsize=8
        )
    about = {"Description": where(environment) if environment else ""}
    try:
        figure.savefig(path, dpi=100, metadata=about)
    except ValueError as e:  # no format is called so
        raise ConfigError(f"Cannot write {path}: {e}.") from e
    return path


def _ratios(axes: Axes, results: Sequence[Result]) -> None:
    """Draw one line per ratio, its interval as a bar, its target as a tick."""
    for y, r in enumerate(reversed(results)):
        assert r.ratio is not None
        colour = {True: _MET, False: _MISSED, None: _PLAIN}[r.met]
        axes.plot(
            r.ratio_interval or (r.ratio, r.ratio), (y, y), color=colour, linewidth=3, alpha=0.5
        )
        axes.plot(r.ratio, y, "o", color=colour, markersize=5)
        for target in r.targets:
            if target.of == "ratio":
                axes.plot(target.limit, y, "|", color="black", markersize=12)
    axes.axvline(1, color="0.7", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(
        range(len(results)),
        [f"{r.name}  /  {r.reference_name}" for r in reversed(results)],
        fontsize=7,
    )
    axes.set_title("ratio to the reference of the same run, 95 % interval, target |", fontsize=10)
    axes.grid(axis="x", alpha=0.3)


def _curves(row: Sequence[Axes], results: Sequence[Result]) -> None:
    """Draw time, memory and latency of one part, each beside its reference."""
    quantities = list(dict.fromkeys(_quantity(r) for r in results))
    panels = (
        [q for q in quantities if q in ("cpu", "frames")],
        [q for q in quantities if q == "memory"],
        [q for q in quantities if q.startswith("latency")],
    )
    for axes, shown in zip(row, panels, strict=True):
        for quantity in shown:
            _curve(axes, quantity, [r for r in results if _quantity(r) == quantity])
        axes.set_xlabel(_ABOUT[results[0].suite])
        if results[0].suite in ("scaling.size", "scaling.rate"):
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        ticks = sorted({r.at for r in results if r.at is not None})
        axes.set_xticks(ticks, [f"{at:.0f}" for at in ticks], rotation=45 if len(ticks) > 5 else 0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    row[0].set_title(results[0].suite, loc="left", fontweight="bold")


def _curve(axes: Axes, quantity: str, results: Sequence[Result]) -> None:
    """Draw medians with their middle halves where samples are known, and the reference."""
    at = [r.at for r in results if r.at is not None]
    axes.plot(at, [r.value for r in results], "o-", label=f"{quantity}, {results[0].unit}")
    if any(r.samples for r in results) and quantity == "latency":
        tails = [r.samples.p99 if r.samples else r.value for r in results]
        axes.plot(at, tails, ".:", color="tab:orange", label="its 99th percentile")
    if results[0].reference is not None:
        references = [r.reference for r in results if r.reference is not None]
        axes.plot(at, references, "--", color="0.5", label=results[0].reference_name)


def _quantity(result: Result) -> str:
    return result.name.removeprefix(f"{result.suite}.").split(".")[0]
