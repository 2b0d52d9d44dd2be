"""Results as a table for people and as JSON for comparison over time.

Owns the layout. Judges nothing: whether a target is met, a `Result` knows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from livesr.bench.result import Result

FORMAT = 1


def table(results: Sequence[Result], *, notes: bool = False) -> Table:
    """Return one row per result; with `notes`, what each number means below its name."""
    first = next((r.environment for r in results if r.environment), None)
    caption = f"{first.cpu}, load {first.load}; {first.system}, Python {first.python}" if first else None
    shown = Table(title="livesr bench", caption=caption)
    for heading in ("measurement", "value", "reference", "ratio", "target", ""):
        shown.add_column(heading, justify="right" if heading in ("value", "reference", "ratio") else "left")
    for r in results:
        shown.add_row(
            f"{r.name}\n[dim]{r.note}[/dim]" if notes and r.note else r.name,
            f"{_number(r.value)} {r.unit}",
            f"{_number(r.reference)}\n[dim]{r.reference_name}[/dim]" if r.reference is not None else "",
            _ratio(r),
            ", ".join(map(str, r.targets)),
            {True: "[green]met[/green]", False: "[red]not met[/red]", None: ""}[r.met],
        )
    return shown


def to_markdown(results: Sequence[Result]) -> str:
    """Return the table and its notes as Markdown, for docs/benchmarks.md."""
    rows = ["| measurement | value | reference | ratio | target | met |", "|---|---|---|---|---|---|"]
    for r in results:
        reference = f"{_number(r.reference)} {r.unit} ({r.reference_name})" if r.reference is not None else ""
        met = {True: "yes", False: "**no**", None: ""}[r.met]
        targets = ", ".join(map(str, r.targets))
        rows.append(f"| {r.name} | {_number(r.value)} {r.unit} | {reference} | {_ratio(r)} | {targets} | {met} |")
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


def _ratio(result: Result) -> str:
    if result.ratio is None:
        return ""
    if result.ratio_interval is None:
        return f"{result.ratio:.2f}"
    low, high = result.ratio_interval
    return f"{result.ratio:.2f} ({low:.2f} to {high:.2f})"


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
