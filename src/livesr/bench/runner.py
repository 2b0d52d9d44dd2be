"""Runs suites, each in a fresh process on its own number of cores.

Owns the processes and the list of suites. A fresh process is the only place where every library counts its threads from the
cores that the suite may use, and one suite's threads do not warm or disturb another one's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from livesr.base.errors import LiveSRError, UsageError, suggestion
from livesr.bench.report import table, write_json
from livesr.bench.result import Environment, Result, Target
from livesr.bench.timing import Summary

SUITES = {
    "correct": 1,
    "sim": 1,
    "engine": 2,
    "shapes": 1,
    "start": 2,
    "training": 2,
    "hook": 2,
    "pipeline": 2,
    "storm": 2,
    "store": 2,
    "publish": 2,
    "view": 2,
}
"""Every suite, in the order in which they run, and how many cores it gets."""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_TIMEOUT_S = 900.0
UNAVAILABLE = 3
"""Exit code of a worker whose suite cannot run on this computer."""


class SuiteError(LiveSRError):
    """A suite did not come to its end."""


class SuiteUnavailableError(SuiteError):
    """A suite needs something that is not on this computer."""


def run(
    suites: Sequence[str] = ("all",),
    json_path: Path | None = None,
    quick: bool = False,
    *,
    quiet: bool = False,
) -> list[Result]:
    """Run `suites` one after the other and print a table.

    Parameters
    ----------
    suites
        Names from `SUITES`, or "all".
    json_path
        Where the results are written, after each suite; None writes nothing.
    quick
        A few small samples: shows that a suite works, its numbers mean little.
    quiet
        Print nothing.

    Raises
    ------
    UsageError
        If there is no such suite.
    SuiteError
        If a suite fails; with the end of what it said. Of "all", one that this computer lacks something for is left out.
    """
    names = list(SUITES) if "all" in suites else list(suites)
    for name in names:
        if name not in SUITES:
            raise UsageError(f"There is no benchmark suite {name!r}.{suggestion(name, list(SUITES))}")
    results: list[Result] = []
    console = Console(quiet=quiet)
    for name in names:
        with console.status(f"Measuring {name} on {SUITES[name]} core{'s' if SUITES[name] > 1 else ''}"):
            try:
                results += _in_process(name, quick)
            except SuiteUnavailableError as e:
                if "all" not in suites:
                    raise
                console.print(f"Left out: {e}")
        if json_path:
            write_json(results, json_path)
    console.print(table(results, notes=True))
    return results


def _in_process(name: str, quick: bool) -> list[Result]:
    cores = SUITES[name]
    environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(cores))}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "results.json")
        command = [
            sys.executable,
            "-m",
            "livesr.bench.worker",
            name,
            str(cores),
            str(path),
            "quick" if quick else "full",
        ]
        try:
            done = subprocess.run(  # noqa: S603 - this program itself
                command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as e:
            raise SuiteError(f"Suite {name!r} did not end within {_TIMEOUT_S:.0f} s and was stopped.") from e
        if done.returncode == UNAVAILABLE:
            raise SuiteUnavailableError(done.stderr.strip())
        if done.returncode or not path.is_file():
            said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
            raise SuiteError(f"Suite {name!r} failed with exit code {done.returncode}:\n{said}")
        return [_result(entry) for entry in json.loads(path.read_text(encoding="utf-8"))]


def _result(entry: dict[str, Any]) -> Result:
    for key in ("samples", "reference_samples"):
        entry[key] = Summary(**entry[key]) if entry[key] else None
    entry["targets"] = tuple(Target(**target) for target in entry["targets"])
    entry["ratio_interval"] = tuple(entry["ratio_interval"]) if entry["ratio_interval"] else None
    entry["environment"] = Environment(**entry["environment"])
    return Result(**entry)
