"""What people and scripts see: the consoles, one JSON object, and the table of a run.

Owns the rendering of reports. Computes nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

JSON = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")
]
ProgressLines = Annotated[
    bool,
    typer.Option(
        "--progress", help="For scripts: print one JSON object a line on stderr, one a second."
    ),
]


_CONTROLS = {
    i: "\N{REPLACEMENT CHARACTER}" for i in (*range(32), *range(127, 160)) if chr(i) not in "\n\t"
}


class _Terminal(Console):
    """A console to which text from a file or a network can do nothing.

    Its escape sequences would move, hide and rename.
    """

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(text.translate(_CONTROLS), **how)


def console(*, quiet: bool = False) -> Console:
    """Return the console for people; with `quiet` (``--json``) it prints nothing."""
    return _Terminal(quiet=quiet, highlight=False, emoji=False)


def dimly(out: Console) -> Callable[[str], None]:
    """Return what prints a sentence that is read only by who looks for it."""
    return lambda sentence: out.print(f"[dim]{escape(sentence)}[/]", soft_wrap=True)


def errors_console() -> Console:
    """Return the console on stderr."""
    return _Terminal(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def print_json(data: Mapping[str, Any]) -> None:
    """Write one JSON object and a newline.

    What is no number becomes null, which every reader takes.
    """
    from livesr.base.documents import to_json

    sys.stdout.write(to_json(data) + "\n")
    sys.stdout.flush()


class Lines:
    """Progress for scripts: one JSON object a line on stderr, at most one a second, and the last.

    Every line has ``done`` and ``total`` (null where it is not known) and what the command adds.
    """

    def __init__(self, what: str) -> None:
        self._what, self._due = what, 0.0

    def show(self, done: float, total: float | None, **facts: Any) -> None:
        """Write a line if one is due."""
        now = time.monotonic()
        if now < self._due and done != total:
            return
        self._due = now + 1.0
        from livesr.base.documents import to_json

        line = {"progress": self._what, "done": done, "total": total, **facts}
        sys.stderr.write(to_json(line) + "\n")
        sys.stderr.flush()


@contextmanager
def progress(
    out: Console, what: str, *, lines: bool = False
) -> Iterator[Callable[[int, int], None]]:
    """Show a bar, or `Lines`; give the function that moves it, (done, total)."""
    if lines:
        yield Lines(what).show
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(what), TimeRemainingColumn())
    with Progress(*columns, console=out, transient=True) as shown:
        task = shown.add_task("", total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def run_table(report: Mapping[str, Any]) -> Table:
    """Return the table of a run's report."""
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    for name, value in _rows(report):
        table.add_row(name, value)
    return table


def score_table(
    score: Mapping[str, Mapping[str, float]], title: str = "Against the simulated truth"
) -> Table:
    """Return the table of a score."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("structure")
    for metric in ("PCC", "SSIM", "NRMSE", "PCC of the input"):
        table.add_column(metric, justify="right")
    for name, s in score.items():
        table.add_row(name, *(f"{s[k]:.3f}" for k in ("pcc", "ssim", "nrmse", "input_pcc")))
    return table


def _predictions(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the rows of what a network made; a mean over no frame is no number."""
    lacking = f"{report['sr_skipped']} skipped, {report['groups_dropped']} groups dropped"
    rows = [("SR frames", f"{report['sr_frames']} separated, {lacking}")]
    if not report["sr_frames"]:
        return rows
    latency = report["latency_ms"]
    return [
        *rows,
        *([("SR frames/s", f"{report['sr_fps']:.1f}")] if report["sr_frames"] > 1 else []),
        ("true neighbours", f"{report['tc_complete']:.1%} of separated frames"),
        (
            "latency",
            f"{latency['p50']:.0f} ms p50, {latency['p99']:.0f} ms p99 (age of what is shown)",
        ),
        *_provisional(report),
    ]


def _time_left(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say what would draw better at the camera's pace."""
    if not (left := report.get("time_left")):
        return []
    said = (
        f"a frame every {left['interval_ms']:.0f} ms, of which the network took"
        f" {left['network_ms']:.0f}: --ensemble {left['ensemble']} draws better and would keep up"
    )
    return [("time left", said)]


def _superposition(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not report.get("time_shift_ms"):
        return []
    return [
        (
            "superposed",
            (
                f"channels up to {report['time_shift_ms']:.0f} ms apart: the sum shows each at its"
                " own moment"
            ),
        )
    ]


def _dose(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [("dose", escape(line))] if (line := report.get("dose_line")) else []


def audits_line(report: Mapping[str, Any]) -> str:
    """Return what audits found, with markup; "" where nothing was scored."""
    return next((line for _, line in _audits(report)), "")


def _audits(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say how trust went along the run: the first, the worst and the last audit."""
    audits, missed = report.get("audits") or [], report.get("audits_missed", 0)
    lost = f"{missed} more could not be scored: no prediction, or not all true channels came"
    if not audits:
        return [("audits", f"[yellow]{lost.replace(' more', '')}[/]")] if missed else []

    def mean(audit: Mapping[str, Any]) -> float:
        pccs = [pcc for pcc in audit["pcc"].values() if pcc is not None and pcc == pcc]
        return sum(pccs) / len(pccs) if pccs else 0.0

    chosen = {"first": audits[0], "worst": min(audits, key=mean), "last": audits[-1]}
    said = ", ".join(
        f"{name} {mean(audit):.2f} at t={audit['t']}" for name, audit in chosen.items()
    )
    n = f"{len(audits)} frame{'s' if len(audits) > 1 else ''} beside their true channels"
    line = escape(f"{n}: PCC {said}")
    return [("audits", f"{line}; [yellow]{lost}[/]" if missed else line)]


def _compared(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say of each channel how its pictures compare with widefield."""
    return [
        (
            "widefield",
            escape(
                f"{name or 'default'}, {what}: RSP {n['rsp']:.3f}, lowest {n['rsp_lowest']:.3f},"
                f" RSE {n['rse']:.3g} ADU in {n['frames']} frames"
            ),
        )
        for name, of in report.get("error_map", {}).items()
        for what, n in of.items()
    ]


def _updates(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not (shown := report.get("recon_updates")):
        return []
    refused = report.get("updates_refused", 0)
    doubtful = f", {refused} more were doubtful" if refused else ""
    return [("updates", f"{shown} pictures of groups under way{doubtful}")]


def _provisional(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not report["sr_provisional"]:
        return []
    latency = report["latency_provisional_ms"]
    shown = (
        f"{report['sr_provisional']} frames shown before their successor came, {latency['p50']:.0f}"
        " ms p50"
    )
    return [("provisional", shown)]


def _raw_frames(report: Mapping[str, Any]) -> str:
    """Count the exposures: those that came, and every kind of those that are not where they
    belong.
    """
    rare = (("raw_repeated", "twice or too late"), ("raw_unplaced", "without a place"))
    said = [
        f"{report['raw_frames']} received",
        *([f"{elsewhere} beside the images"] if (elsewhere := report.get("raw_elsewhere")) else []),
        f"{report['raw_lost']} lost",
        f"{report.get('raw_missing', 0)} never came",
    ]
    return ", ".join(said + [f"{report[name]} {what}" for name, what in rare if report.get(name)])


def _missing(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not (missing := report.get("raw_missing")):
        return []
    share = missing / (missing + report["raw_frames"])
    return [("raw missing", f"[yellow]{missing} never came, {share:.1%} of all[/]")]


def _servers(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say of each way to a server how long it took, and how often it was left."""
    rows = []
    for ways in report.get("remote", {}).values():
        for way in ways:
            times, share = way["latency_ms"], way["network_share"]
            said = f"{way['endpoint']}: {way['frames']} frames"
            if times["p50"] is not None:
                said += f", {times['p50']:.0f} ms p50, {times['p99']:.0f} ms p99"
            if share is not None:
                said += f", {share:.0%} of it network"
            if way["outages"]:
                said += f"; left {way['outages']} times, {way['frames_here']} frames computed here"
            rows.append(("server", escape(said)))
    return rows


def _engines(report: Mapping[str, Any]) -> str:
    """Name every network once: two copies of an engine differ in their weights alone."""
    networks = [name for names in report.get("networks", {}).values() for name in names]
    return ", ".join(dict.fromkeys(networks or report["engine"].values())) or "none"


def _rows(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    steps = ", ".join(f"{name} {t['p50']:.1f}" for name, t in report["steps_ms"].items())
    measured = [
        (
            "SR frames",
            f"{report['recon_frames']} measured, {report['groups_dropped']} groups dropped",
        )
    ]
    rows = [
        ("raw frames", _raw_frames(report)),
        *_missing(report),
        *(_predictions(report) if report["engine"] else measured),
        *_updates(report),
        *_superposition(report),
        *_time_left(report),
        *_dose(report),
        *_audits(report),
        *_compared(report),
        ("steps", f"{steps} ms" if steps else "none"),
        ("engine", escape(_engines(report))),
        *(
            ("computed by", escape(line))
            for line in dict.fromkeys(report.get("computes", {}).values())
        ),
        *_servers(report),
    ]
    if report.get("store"):
        rows.append(("store", escape(str(report["store"]))))
    if report.get("publish"):
        rows.append(("published on", escape(str(report["publish"]))))
    rows += [("warning", f"[yellow]{escape(w)}[/]") for w in report["warnings"]]
    if report.get("error"):
        rows.append(("error", f"[red]{escape(report['error'])}[/]"))
    return rows
