"""Results as a table for people and as JSON for comparison over time.

Owns the layout, and the reading of what was written. Judges nothing: whether a target is met, a
`Result` knows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from livesr.base import documents
from livesr.base.errors import UsageError
from livesr.bench.result import Environment, Result

FORMAT = 1


def table(results: Sequence[Result], *, notes: bool = False) -> Table:
    """Return one row per result; with `notes`, what each number means below its name."""
    first = next((r.environment for r in results if r.environment), None)
    shown = Table(title="livesr bench", caption=where(first) if first else None)
    for heading in ("measurement", "median", "p99", "spread", "reference", "ratio", "target", ""):
        shown.add_column(
            heading, justify="left" if heading in ("measurement", "target", "") else "right"
        )
    for r in results:
        shown.add_row(
            f"{r.name}\n[dim]{r.note}[/dim]" if notes and r.note else r.name,
            f"{_number(r.value)} {r.unit}",
            *_distribution(r),
            (
                f"{_number(r.reference)}\n[dim]{r.reference_name}[/dim]"
                if r.reference is not None
                else ""
            ),
            _ratio(r),
            ", ".join(map(str, r.targets)),
            {True: "[green]met[/green]", False: "[red]not met[/red]", None: ""}[r.met],
        )
    return shown


def to_markdown(results: Sequence[Result]) -> str:
    """Return the table and its notes as Markdown, for docs/benchmarks.md."""
    rows = [
        "| measurement | median | p99 | spread | reference | ratio | target | met |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        reference = (
            f"{_number(r.reference)} {r.unit} ({r.reference_name})"
            if r.reference is not None
            else ""
        )
        met = {True: "yes", False: "**no**", None: ""}[r.met]
        targets = ", ".join(map(str, r.targets))
        cells = (
            r.name,
            f"{_number(r.value)} {r.unit}",
            *_distribution(r),
            reference,
            _ratio(r),
            targets,
            str(met),
        )
        rows.append(f"| {' | '.join(cells)} |")
    notes = [f"- `{r.name}`: {r.note}" for r in results if r.note]
    return "\n".join([*rows, "", *notes]) + "\n"


def to_json(results: Sequence[Result]) -> dict[str, Any]:
    """Return everything, JSON-able."""
    return {
        "format": FORMAT,
        "met": all(r.met for r in results if r.met is not None),
        "results": [r.to_json() for r in results],
    }


def write_json(results: Sequence[Result], path: Path) -> None:
    """Write `to_json` to `path`; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_json(results), indent=1) + "\n", encoding="utf-8", newline="\n")


def read_json(path: Path) -> list[Result]:
    """Return the results in a file that `write_json` wrote.

    Raises
    ------
    UsageError
        If there is no such file, or it holds something else.
    """
    try:
        written = documents.read_json(path)
        if written["format"] != FORMAT:
            raise UsageError(
                f"{path} has format {written['format']} of results, expected {FORMAT}: measure"
                " again."
            )
        return [Result.from_json(entry) for entry in written["results"]]
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise UsageError(
            f"{path} holds no results of livesr bench ({e}): name a file that --out wrote."
        ) from e


def where(environment: Environment) -> str:
    """Return machine, load and versions as a line."""
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    return (
        f"{environment.cpu}, load {environment.load}; {environment.system}, Python"
        f" {environment.python};"
        f" {versions}{'; quick: not to be quoted' if environment.quick else ''}"
    )


def _distribution(result: Result) -> tuple[str, str]:
    """Return the 99th percentile and the spread of a result's samples.

    Nothing where it has none.
    """
    if result.samples is None:
        return "", ""
    return _number(result.samples.p99), f"{result.samples.spread:.0%}"


def _ratio(result: Result) -> str:
    if result.ratio is None:
        return ""
    if result.ratio_interval is None:
        return f"{result.ratio:.2f}"
    low, high = result.ratio_interval
    return f"{result.ratio:.2f} ({low:.2f} to {high:.2f})"


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
