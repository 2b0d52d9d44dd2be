"""What a terminal of 80 columns shows, as text files that a reviewer reads.

``LIVESR_SNAPSHOTS=write pytest tests/cli/test_terminal.py`` writes them anew; read the difference.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import typer.main
from rich.console import Console

from livesr import cli
from livesr.bench.compare import change_table, compare
from livesr.bench.result import Environment, Measured, Result, Target
from livesr.bench.runner import _show
from livesr.bench.timing import Summary
from livesr.cli.output import Lines, run_table, score_table

REPOSITORY = Path(__file__).parents[2]
SNAPSHOTS = Path(__file__).parent / "snapshots"
WIDTH = 80
LONG = ["backfill", "build", "calibrate-errors", "demo", "evaluate", "export", "limits", "process"]
LONG += ["quantise", "run", "train"]
HELP = ["demo", "run", "check", "calibrate", "process", "view", "train", "bench"]


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    monkeypatch.chdir(REPOSITORY)


def matches(name: str, shown: str) -> None:
    """Compare with the file of that name; nothing may be wider than the terminal."""
    shown = "\n".join(line.rstrip() for line in shown.splitlines()) + "\n"
    assert max(map(len, shown.splitlines())) <= WIDTH
    path = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("LIVESR_SNAPSHOTS") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(shown, encoding="utf-8", newline="\n")
    assert shown == path.read_text(encoding="utf-8")


def printed(*lines: object) -> str:
    shown = Console(width=WIDTH, file=io.StringIO())
    shown.print(*lines, sep="\n", soft_wrap=all(isinstance(line, str) for line in lines))
    assert isinstance(shown.file, io.StringIO)
    return shown.file.getvalue()


@pytest.mark.parametrize("command", ["", *HELP])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._run([*([command] if command else []), "--help"]) == 0
    matches(f"help-{command or 'livesr'}", capsys.readouterr().out)


def test_common_options_come_first_and_no_sentence_is_squeezed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cli._run(["demo", "--help"])
    first, *panels = capsys.readouterr().out.split("\n\nOptions\n")[1].split("\n\n")
    common = {line.split()[0] for line in first.splitlines() if line.startswith("  -")}
    assert {"--frames", "--engine", "--store", "--view", "--json"} <= common
    assert not {"--threads", "--tile", "--on-finish-timeout"} & common
    for panel in (first, *panels):
        columns = {
            len(line) - len(line.lstrip()) for line in panel.splitlines() if line[:3] == "   "
        }
        assert all(WIDTH - column >= 48 for column in columns), panel


@pytest.mark.parametrize("rig", ["demo", "tirf_sim", "storm_ti"])
def test_check_of_a_rig(rig: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli._run(["check", f"hardware_configs/{rig}"])
    matches(f"check-{rig}", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("no-such-recipe", ["train", "--recipe", "imcsr-mt-er-lyso-lite"]),
        ("no-such-rig", ["run", "virtual_sin"]),
        ("no-such-option", ["demo", "--frame", "5"]),
        ("not-a-number", ["demo", "--frames", "two"]),
    ],
)
def test_errors(name: str, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._run(arguments) == 2
    said = capsys.readouterr()
    assert not said.out
    assert "Traceback" not in said.err
    assert said.err.startswith("livesr: ")


HERE = Environment("a CPU", 2, True, 1.0, "an OS", "3.11", {"numpy": "2"})
RESULTS = [
    Result(
        "gpu.speed.openvino.int8.imcsr-mt-er-lyso-light",
        1827.0,
        "SR frames/s",
        849.0,
        "a listener that only counts",
        0.86,
        (0.86, 0.88),
        (Target(0.9, "least", "ratio"),),
        note="triggered MDA of 60 frames of the demo camera, 512x512",
        samples=Summary(20, 1827.0, 1990.0, 0.1),
        reference_samples=Summary(20, 849.0, 849.0, 0.1),
        environment=HERE,
    ),
    Result(
        "hook.body",
        23.4,
        "us",
        14.8,
        "SimpleQueue.put",
        1.61,
        (1.3, 1.91),
        (Target(3, "most", "ratio"),),
        samples=Summary(20, 23.4, 38.56, 0.39),
        reference_samples=Summary(20, 14.8, 20, 0.1),
        environment=HERE,
    ),
]


def test_bench() -> None:
    shown = Console(width=WIDTH, file=io.StringIO())
    _show(Measured(RESULTS), shown)
    assert isinstance(shown.file, io.StringIO)
    text = shown.file.getvalue()
    assert RESULTS[0].name in text.splitlines(), "a name is never cut"
    matches("bench", text)
    matches("bench-compared", printed(*change_table(compare(RESULTS, RESULTS), WIDTH)))


def report() -> dict[str, Any]:
    return {
        "raw_frames": 136,
        "raw_lost": 0,
        "raw_missing": 8,
        "sr_frames": 15,
        "sr_skipped": 2,
        "groups_dropped": 1,
        "sr_fps": 10.3,
        "tc_complete": 0.9,
        "latency_ms": {"p50": 159.0, "p99": 203.0},
        "sr_provisional": 0,
        "recon_frames": 15,
        "steps_ms": {
            name: {"p50": 1.0}
            for name in ("group", "reconstruct", "normalise", "window", "infer", "compose")
        },
        "engine": {"488": "imcsr-mt-er-lyso-light"},
        "computes": {"488": "openvino 2026.4 INT8 on a CPU, compiled 4 s ago"},
        "store": "run.ome.zarr",
        "publish": "tcp://127.0.0.1:5555",
        "warnings": ["8 exposures never came: groups that lack one are not reconstructed."],
    }


def test_the_table_of_a_run_counts_what_never_came() -> None:
    shown = printed(run_table(report()))
    assert "8 never came" in shown
    matches("run-table", shown)
    assert "raw missing" not in printed(run_table({**report(), "raw_missing": 0}))
    score = {"ER": {"pcc": 0.9, "ssim": 0.8, "nrmse": 0.1, "input_pcc": 0.5}}
    matches("score", printed(score_table(score)))


@pytest.mark.parametrize("command", LONG)
def test_what_takes_long_tells_scripts_how_far_it_is(command: str) -> None:
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    assert any("--progress" in parameter.opts for parameter in commands[command].params)


def test_progress_lines_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines("frames")
    for done in range(6):
        lines.show(done, 5, sr_fps=2.0)
    said = capsys.readouterr()
    assert not said.out
    first, *_, last = map(json.loads, said.err.splitlines())
    assert first == {"progress": "frames", "done": 0, "total": 5, "sr_fps": 2.0}
    assert last["done"] == 5
    assert len(said.err.splitlines()) == 2
