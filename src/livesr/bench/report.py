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

from rich.cells import cell_len
from rich.text import Text

from livesr.base import documents
from livesr.base.errors import UsageError
from livesr.bench.result import Environment, LeftOut, Measured, Result

FORMAT = 1


_COLUMNS = ("measurement", "median", "p99", "spread", "ratio", "target")
_LEFT = ("measurement", "target", "")
_GAP = "  "


def table(results: Sequence[Result], width: int = 80) -> Iterator[str]:
    """Yield title and lines of one result each, as rich's markup.

    A column that would be empty is left out. What each ratio is to, `notes` says.
    """
    yield f"[bold]{_title(results)}[/bold]"
    yield from columns(_COLUMNS, [_row(r) for r in results], width)


def columns(
    headings: Sequence[str], rows: Sequence[Sequence[str]], width: int = 80
) -> Iterator[str]:
    """Yield the lines of a table whose first column is never cut, as rich's markup.

    Names that leave no room for the rest have a line to themselves.
    """
    kept = [i for i in range(len(headings)) if any(row[i] for row in rows)]
    shown = [tuple(row[i] for i in kept) for row in rows]
    heads = tuple(headings[i] for i in kept)
    wide = [max(cell_len(Text.from_markup(row[i]).plain) for row in (heads, *shown))
            for i in range(len(kept))]  # fmt: skip
    stacked = sum(wide) + len(_GAP) * (len(wide) - 1) > width
    if stacked:
        wide[0] = min(wide[0], max(width - sum(wide[1:]) - len(_GAP) * len(wide[1:]), 4))
    for line, style in ((heads, "[dim]"), *((row, "") for row in shown)):
        name, *rest = line
        if stacked and cell_len(name) > wide[0]:
            yield f"{style}{name}"
            name = ""
        cells = [name.ljust(wide[0])]
        for heading, cell, space in zip(heads[1:], rest, wide[1:], strict=True):
            padding = " " * (space - cell_len(Text.from_markup(cell).plain))
            cells.append(cell + padding if heading in _LEFT else padding + cell)
        yield f"{style}{_GAP.join(cells)}".rstrip()


def _title(results: Sequence[Result]) -> str:
    suites = {r.suite for r in results}
    return f"livesr bench {suites.pop()}" if len(suites) == 1 else "livesr bench"


def notes(results: Sequence[Result]) -> Iterator[str]:
    """Yield what each ratio is to, and what the numbers mean, each note once, behind the names that
    it is for.
    """
    for r in results:
        if r.reference is not None:
            interval = "" if r.ratio_interval is None else f" ({_interval(r)})"
            yield (
                f"{r.name}: ratio{interval} to {r.reference_name}, {_number(r.reference)} {r.unit}"
            )
    names: dict[str, list[str]] = {}
    for r in results:
        if r.note:
            names.setdefault(r.note, []).append(r.name)
    for note, meant in names.items():
        yield f"{', '.join(meant)}: {note}"


def _row(r: Result) -> tuple[str, ...]:
    met = {True: " [green]met[/green]", False: " [red]not met[/red]", None: ""}[r.met]
    ratio = "" if r.ratio is None else f"{r.ratio:.2f}"
    return (
        r.name,
        f"{_number(r.value)} {r.unit}",
        *_distribution(r),
        ratio,
        ", ".join(map(str, r.targets)) + met,
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
    return f"{result.ratio:.2f} ({_interval(result)})"


def _interval(result: Result) -> str:
    assert result.ratio_interval is not None
    low, high = result.ratio_interval
    return f"{low:.2f} to {high:.2f}"


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
