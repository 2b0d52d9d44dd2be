"""Results as a table for people and as JSON for comparison over time.

Owns the layout, and the reading of what was written. Judges nothing: whether a target is met, a
`Result` knows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from livesr.base import documents
from livesr.base.errors import UsageError
from livesr.bench.result import Environment, LeftOut, Measured, Result

FORMAT = 1


_COLUMNS = ("measurement", "median", "p99", "spread", "reference", "ratio", "target", "")


def table(results: Sequence[Result]) -> Table:
    """Return one row per result; a column that would be empty is left out."""
    shown = Table(title=_title(results))
    rows = [_row(r) for r in results]
    kept = [i for i in range(len(_COLUMNS)) if any(row[i] for row in rows)]
    for i in kept:
        left = _COLUMNS[i] in ("measurement", "target", "")
        shown.add_column(_COLUMNS[i], justify="left" if left else "right", overflow="fold")
    for row in rows:
        shown.add_row(*(row[i] for i in kept))
    return shown


def _title(results: Sequence[Result]) -> str:
    suites = {r.suite for r in results}
    return f"livesr bench {suites.pop()}" if len(suites) == 1 else "livesr bench"


def notes(results: Sequence[Result]) -> Iterator[str]:
    """Yield what the numbers mean, each note once, behind the names that it is for."""
    names: dict[str, list[str]] = {}
    for r in results:
        if r.note:
            names.setdefault(r.note, []).append(r.name)
    for note, meant in names.items():
        yield f"{', '.join(meant)}: {note}"


def _row(r: Result) -> tuple[str, ...]:
    reference = (
        f"{_number(r.reference)}\n[dim]{r.reference_name}[/dim]" if r.reference is not None else ""
    )
    return (
        r.name,
        f"{_number(r.value)} {r.unit}",
        *_distribution(r),
        reference,
        _ratio(r),
        ", ".join(map(str, r.targets)),
        {True: "[green]met[/green]", False: "[red]not met[/red]", None: ""}[r.met],
    )


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
    said = [f"- `{r.name}`: {r.note}" for r in results if r.note]
    return "\n".join([*rows, "", *said]) + "\n"


def to_json(known: Measured) -> dict[str, Any]:
    """Return everything, JSON-able."""
    return {
        "format": FORMAT,
        "met": all(r.met for r in known.results if r.met is not None),
        "wrong": known.wrong,
        "results": [r.to_json() for r in known.results],
        "left_out": [asdict(entry) for entry in known.left_out],
    }


def measured(written: Mapping[str, Any]) -> Measured:
    """Return what `to_json` was made of; files of before it kept what was left out have none."""
    return Measured(
        [Result.from_json(entry) for entry in written["results"]],
        [LeftOut(**entry) for entry in written.get("left_out", ())],
    )


def write_json(known: Measured, path: Path) -> None:
    """Write `to_json` to `path`; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_json(known), indent=1) + "\n", encoding="utf-8", newline="\n")


def read_json(path: Path) -> Measured:
    """Return what is in a file that `write_json` wrote.

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
        return measured(written)
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise UsageError(
            f"{path} holds no results of livesr bench ({e}): name a file that --out wrote."
        ) from e


def where(environment: Environment) -> str:
    """Return machine, load and versions as a line."""
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    gpu = f"{environment.gpu}; " if environment.gpu else ""
    return (
        f"{gpu}{environment.cpu}, load {environment.load}; {environment.system}, Python"
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
