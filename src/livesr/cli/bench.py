"""`livesr bench`: how fast this computer is, as ratios against references in the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from livesr.cli.output import JSON, print_json


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(bench)


def bench(
    suites: Annotated[list[str] | None, typer.Argument(help="Suites to run; all without.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few repetitions: to see that it runs, not to quote.")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
    as_json: JSON = False,
) -> None:
    """Measure the steps of the live path.

    [dim]Example:[/] livesr bench hook sim --out bench.json
    """
    from livesr.bench import run
    from livesr.bench.report import to_json, to_markdown

    results = run(suites or ["all"], json_path=out, quick=quick, quiet=as_json)
    if markdown:
        markdown.write_text(to_markdown(results), encoding="utf-8", newline="\n")
    if as_json:
        print_json(to_json(results))
