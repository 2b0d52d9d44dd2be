"""The command of `--on-finish`.

What it is given, that it comes after every run, and that it changes none.
"""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from livesr.base.errors import ConfigError
from livesr.cli.on_finish import OnFinish, command_of, split
from waiting import until

QUIET = Console(quiet=True)
REPORT = {
    "store": "/data/a cell's run.ome.zarr",
    "exit_code": 1,
    "error": "The disk is full.",
    "warnings": ["dim"],
}
NOTES = """
import json, os, sys
given = {k: v for k, v in os.environ.items() if k.startswith("LIVESR_")}
file = json.load(open(os.environ["LIVESR_REPORT"]))
said = {"argv": sys.argv[2:], "env": given, "stdin": json.load(sys.stdin), "file": file}
json.dump(said, open(sys.argv[1], "w"))
print("copied")
"""


def noting(tmp_path: Path, *words: str) -> tuple[str, Path]:
    """A command that writes down all that it is given."""
    script, notes = tmp_path / "note it.py", tmp_path / "notes.json"
    script.write_text(NOTES)
    return shlex.join([sys.executable, str(script), str(notes), *words]), notes


def python(code: str) -> str:
    return shlex.join([sys.executable, "-c", code])


def test_it_is_given_the_report_in_every_way(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command, notes = noting(tmp_path, "{store}", "to/{exit_code}", '{"text": 1}', "a  b")
    report = command_of(command, 60).run(REPORT, QUIET)
    seen = json.loads(notes.read_text())
    assert seen["argv"] == [REPORT["store"], "to/1", '{"text": 1}', "a  b"]
    assert seen["stdin"] == seen["file"] == REPORT
    assert seen["env"]["LIVESR_STORE"] == REPORT["store"]
    assert seen["env"]["LIVESR_EXIT_CODE"] == "1"
    assert not Path(seen["env"]["LIVESR_REPORT"]).exists()
    out, err = capfd.readouterr()
    assert (out, err) == ("", "copied\n")  # stdout may be promised to a JSON object
    assert report["on_finish"]["exit_code"] == 0
    assert {k: report[k] for k in REPORT} == REPORT


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise SystemExit(3)", "ended with 3"),
        ("import os; os.close(0); os._exit(4)", "ended with 4"),
    ],
)
def test_its_failure_is_a_warning_and_nothing_else(code: str, words: str) -> None:
    report = command_of(python(code), 60).run(REPORT, QUIET)
    assert report["warnings"][0] == "dim"
    assert words in report["warnings"][1]
    assert (report["exit_code"], report["error"]) == (1, "The disk is full.")


@pytest.mark.skipif(sys.platform == "win32", reason="process groups are POSIX")
def test_one_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    child = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    for seconds in (2, 10, 50):  # a busy computer may not have started it within the first
        report = command_of(python(code), seconds).run(REPORT, QUIET)
        assert f"was ended after {seconds} s" in report["warnings"][-1]
        if pid.is_file() and pid.read_text():
            break
    until(lambda: not psutil.pid_exists(int(pid.read_text())))


def test_without_a_command_the_report_stays_as_it_is() -> None:
    assert command_of(None, None).run(REPORT, QUIET) == REPORT


def test_a_time_for_no_command_is_refused() -> None:
    with pytest.raises(ConfigError, match="--on-finish-timeout ends the command"):
        command_of(None, 60)


def test_what_cannot_run_is_refused_before_the_run() -> None:
    for command, words in (
        ("rsnyc {store} server:", "names no program that is found"),
        ("sh -c 'unfinished", "Check its quotes"),
        ("", "names no program"),
    ):
        with pytest.raises(ConfigError, match=words):
            command_of(command, 60)


def test_a_program_that_went_away_is_a_warning(tmp_path: Path) -> None:
    report = OnFinish((str(tmp_path / "gone"),), 60).run(REPORT, QUIET)
    assert "could not be started" in report["warnings"][-1]


def test_a_windows_command_line_keeps_its_backslashes() -> None:
    line = r'C:\tools\copy.exe "D:\my data\{store}" /log:it' + r"'s.txt #1"
    assert split(line, windows=True) == [
        r"C:\tools\copy.exe",
        r"D:\my data\{store}",
        r"/log:it's.txt",
        "#1",
    ]
    assert split("a 'b c' d\\ e", windows=False) == ["a", "b c", "d e"]


def livesr(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "livesr", *arguments],
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_run_calls_it_with_its_final_report(tmp_path: Path) -> None:
    command, notes = noting(tmp_path, "{store}")
    process = livesr(
        tmp_path,
        "run",
        "demo",
        "--frames",
        "3",
        "--exposure",
        "2",
        "--store",
        "r.ome.zarr",
        "--json",
        "--on-finish",
        command,
    )
    out, err = process.communicate(timeout=120)
    report, seen = json.loads(out), json.loads(notes.read_text())
    assert process.returncode == 0, err
    assert err.strip().endswith("copied")
    assert seen["argv"] == [report["store"]]
    assert seen["stdin"] == {k: v for k, v in report.items() if k != "on_finish"}
    assert seen["stdin"]["exit_code"] == 0


def test_a_run_that_cannot_start_calls_it_too(tmp_path: Path) -> None:
    command, notes = noting(tmp_path)
    process = livesr(
        tmp_path, "run", "demo", "--store", "/proc/nowhere/x.ome.zarr", "--on-finish", command
    )
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    seen: dict[str, Any] = json.loads(notes.read_text())
    assert seen["stdin"]["exit_code"] == 2
    assert "/proc/nowhere" in seen["stdin"]["error"]
    assert seen["env"]["LIVESR_STORE"] == ""


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_an_interrupted_run_calls_it_too(tmp_path: Path) -> None:
    command, notes = noting(tmp_path)
    process = livesr(
        tmp_path,
        "run",
        "demo",
        "--frames",
        "5000",
        "--exposure",
        "5",
        "--store",
        "r.ome.zarr",
        "--on-finish",
        command,
    )
    log = tmp_path / "r.ome.zarr" / "livesr" / "frames.jsonl"
    try:
        until(lambda: process.poll() is not None or (log.is_file() and log.stat().st_size), 200)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, err
    seen = json.loads(notes.read_text())
    assert (seen["stdin"]["interrupted"], seen["stdin"]["exit_code"]) == (True, 130)
    assert seen["stdin"]["raw_lost"] == 0


def test_the_script_of_the_guide_sends_its_message(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
    (code,) = [
        c
        for c in re.findall(r"^```python\n(.*?)^```", guide, re.M | re.S)
        if "json.load(sys.stdin)" in c
    ]
    script = tmp_path / "message.py"
    script.write_text(code)
    received: list[dict[str, str]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        report = command_of(shlex.join([sys.executable, str(script), address]), 60).run(
            REPORT, QUIET
        )
        thread.join()
    assert report["on_finish"]["exit_code"] == 0
    assert received == [{"text": "livesr ended with 1: The disk is full."}]
