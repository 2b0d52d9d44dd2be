"""The command that `--on-finish` runs when a run is over, whatever became of it.

Copy the store, send a message.

Owns how the command is split, what it is given and how long it may take. It changes neither what
was kept nor the exit code.

The command gets the report as JSON on stdin, and in its environment LIVESR_REPORT (a file that
holds the same, for as long as the command runs), LIVESR_STORE (empty without a store) and
LIVESR_EXIT_CODE. ``{report}``, ``{store}`` and ``{exit_code}`` in its words are replaced by these.
No shell is involved unless the command names one.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from livesr.base.errors import ConfigError, LiveSRError

_STDERR = 2  # stdout may be promised to a JSON object

_TIMEOUT_S = 3600.0


@dataclass(frozen=True, slots=True)
class OnFinish:
    """A command that can run.

    Its words (none: nothing is run), and the seconds that it may take (0: as many as it likes).
    """

    words: tuple[str, ...]
    timeout_s: float

    def run(self, report: Mapping[str, Any], console: Console) -> dict[str, Any]:
        """Run the command, show what it prints, return the report with its outcome.

        A failure becomes a warning.
        """
        if not self.words:
            return dict(report)
        console.print(f"--on-finish: {self.words[0]}", markup=False)
        start_s = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="livesr-") as folder:
            code, trouble = self._run(report, Path(folder) / "report.json")
        outcome = {
            "command": list(self.words),
            "exit_code": code,
            "seconds": round(time.monotonic() - start_s, 1),
        }
        warnings = list(report.get("warnings", ()))
        if trouble:
            warnings.append(
                f"The command of --on-finish {trouble}. What the run kept is not affected."
            )
            console.print(warnings[-1], style="yellow", markup=False)
        return {**report, "warnings": warnings, "on_finish": outcome}

    @contextmanager
    def also_of_a_failed_start(self, console: Console) -> Iterator[None]:
        """Run the command, and let the error go on, if the block raises what keeps a run from
        starting.
        """
        try:
            yield
        except KeyboardInterrupt:
            self.run({"error": None, "interrupted": True, "exit_code": 130, "store": None}, console)
            raise
        except LiveSRError as e:
            self.run(
                {"error": str(e), "interrupted": False, "exit_code": e.exit_code, "store": None},
                console,
            )
            raise

    def _run(self, report: Mapping[str, Any], file: Path) -> tuple[int | None, str]:
        text = json.dumps(report, default=str)
        file.write_text(text, encoding="utf-8")
        given = {
            "report": str(file),
            "store": str(report.get("store") or ""),
            "exit_code": str(report["exit_code"]),
        }
        environment = {
            **os.environ,
            **{f"LIVESR_{name.upper()}": value for name, value in given.items()},
        }
        try:
            process = subprocess.Popen(  # noqa: S603 the user's own command, without a shell
                _filled(self.words, given),
                env=environment,
                stdin=subprocess.PIPE,
                stdout=_STDERR,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # so that all that it starts can be ended with it
            )
        except OSError as e:
            return None, f"could not be started: {e.strerror or e}"
        try:
            process.communicate(text, timeout=self.timeout_s or None)
        except subprocess.TimeoutExpired:
            _end(process)
            return None, f"was ended after {self.timeout_s:g} s (--on-finish-timeout)"
        except KeyboardInterrupt:
            _end(process)
            return None, "was interrupted"
        return (
            process.returncode,
            "" if process.returncode == 0 else f"ended with {process.returncode}",
        )


def command_of(command: str | None, timeout_s: float | None) -> OnFinish:
    """Split the command of the flag; checked before a run begins, not in the morning after.

    It is ended after `timeout_s`, an hour if nobody says.

    Raises
    ------
    ConfigError
        If it is no command line, its program is not on this computer, or a time without a command
        came.
    """
    if command is None and timeout_s is not None:
        raise ConfigError(
            "--on-finish-timeout ends the command of --on-finish, and there is none: add"
            " --on-finish, or leave it out."
        )
    timeout_s = _TIMEOUT_S if timeout_s is None else timeout_s
    if command is None:
        return OnFinish((), timeout_s)
    try:
        words = split(command)
    except ValueError as e:
        raise ConfigError(
            f"--on-finish {command!r} is no command line: {e}. Check its quotes."
        ) from e
    program = shutil.which(words[0]) if words else None
    if program is None:
        raise ConfigError(
            f"--on-finish {command!r} names no program that is found here. Give its path; shell"
            " commands need their shell: sh -c '...', or cmd /c ..."
        )
    return OnFinish((program, *words[1:]), timeout_s)


def split(command: str, *, windows: bool = sys.platform == "win32") -> list[str]:
    """Split a command line into words.

    On Windows a backslash is a backslash and only double quotes quote.

    Raises
    ------
    ValueError
        If a quote is not closed.
    """
    if not windows:
        return shlex.split(command)
    lexer = shlex.shlex(command, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters, lexer.escape, lexer.quotes = True, "", "", '"'
    return list(lexer)


def _filled(words: Sequence[str], given: Mapping[str, str]) -> list[str]:
    # After splitting, so that a path with a space stays one word; other braces, as of JSON or awk,
    # are left alone.
    filled = []
    for word in words:
        for name, value in given.items():
            word = word.replace("{" + name + "}", value)
        filled.append(word)
    return filled


def _end(process: subprocess.Popen[str]) -> None:
    """End the command and, where the system has process groups, everything it started."""
    if sys.platform == "win32":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin:
        process.stdin.close()
