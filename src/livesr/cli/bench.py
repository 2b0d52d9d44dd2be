"""`livesr bench`: how fast this computer is, as ratios against references in the same run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from livesr.cli import options
from livesr.cli.output import JSON, console, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from livesr.bench.compare import Compared


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(bench)


def bench(
    suites: Annotated[
        list[str] | None,
        typer.Argument(
            help="Suites to run: hook, pipeline, ..., all (without any), scaling or gpu."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few repetitions: to see that it runs, not to quote.")
    ] = False,
    peers: Annotated[
        bool,
        typer.Option(
            "--peers", help="Compare with other programs on the same frames: time and quality."
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(callback=options.to_write, help="JSON file to write.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(callback=options.to_write, help="Markdown file to write.")
    ] = None,
    png: Annotated[
        Path | None, typer.Option(callback=options.to_write, help="Picture to write.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Keep what --out holds; a suite by its own name is measured again."
        ),
    ] = False,
    compare: Annotated[
        Path | None, typer.Option(help="JSON file of an earlier run: say what moved.")
    ] = None,
    compare_fail: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1e6,
            callback=options.finite,
            help="Exit with 1 if a figure is worse than in --compare by more percent than this.",
        ),
    ] = None,
    other_machine: Annotated[
        bool, typer.Option("--other-machine", help="Compare although machine or settings differ.")
    ] = False,
    as_json: JSON = False,
) -> None:
    """Measure the steps of the live path.

    `gpu` also compares what every runtime computes with what it should be, and ends with exit
    code 1 if one of them differs; its last lines are to be pasted into an issue.

    [dim]Examples:[/]
      livesr bench hook sim --out bench.json
      livesr bench hook sim --compare bench.json --compare-fail 10
      livesr bench scaling --out scaling.json --png scaling.png --resume
      livesr bench gpu --out gpu.json
      livesr bench sim storm fluctuation --peers --markdown peers.md
    """
    from livesr.base.errors import UsageError
    from livesr.bench import run
    from livesr.bench.compare import compare as compared_with
    from livesr.bench.gpu.paste import to_paste
    from livesr.bench.picture import draw
    from livesr.bench.report import read_json, to_json, to_markdown
    from livesr.bench.runner import with_peers

    if compare_fail is not None and compare is None:
        raise UsageError(
            "--compare-fail needs something to compare with: give --compare OLD.json, too."
        )
    if resume and out is None:
        raise UsageError("--resume goes on with the file of --out: give --out FILE.json, too.")
    old = read_json(compare).results if compare else []  # before hours of measuring
    names = with_peers(suites or []) if peers else suites or ["all"]
    known = run(names, json_path=out, quick=quick, resume=resume, quiet=as_json)
    results = known.results
    if markdown:
        markdown.write_text(to_markdown(results), encoding="utf-8", newline="\n")
    if png:
        draw(results, png)
    shown, object_ = console(quiet=as_json), to_json(known)
    worse = []
    if compare:
        found = compared_with(old, results, other_machine=other_machine)
        worse = found.losses_beyond(compare_fail) if compare_fail is not None else []
        _show_changes(found, shown)
        object_["moved"] = {c.name: c.relative for c in found.changes if c.moved}
        object_["worse"] = [c.name for c in worse]
    if worse:
        shown.print(
            f"Worse by more than {compare_fail:g} %: {', '.join(c.name for c in worse)}.",
            markup=False,
        )
    if known.wrong:
        shown.print(f"Wrong, or failed: {', '.join(known.wrong)}.", markup=False)
    if _of_gpu(suites):
        object_["text"] = to_paste(known)
        shown.print("\nTo paste into an issue:\n", style="bold")
        shown.print(object_["text"], markup=False, soft_wrap=True)
    if as_json:
        print_json(object_)
    if worse or known.wrong:
        raise typer.Exit(1)


def _show_changes(found: Compared, shown: Console) -> None:
    from livesr.bench.compare import change_table

    for line in change_table(found, shown.width):
        shown.print(line, soft_wrap=True)
    for sentence in (*(f"Not compared: {s}" for s in found.left_out), *found.versions):
        shown.print(sentence, style="dim", markup=False)


def _of_gpu(suites: list[str] | None) -> bool:
    return any(name.partition(".")[0] == "gpu" for name in suites or ())
