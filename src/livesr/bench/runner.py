"""Runs suites, each in a fresh process on its own number of cores.

Owns the processes and the list of suites. A fresh process is the only place where every library
counts its threads from the cores that the suite may use, and one suite's threads do not warm or
disturb another one's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from rich.console import Console

from livesr.base import documents
from livesr.base.errors import LiveSRError, UsageError, suggestion
from livesr.bench.report import read_json, table, write_json
from livesr.bench.result import Result

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
    "scaling.size": 2,
    "scaling.channels": 2,
    "scaling.rate": 2,
    "scaling.length": 2,
}
"""Every suite, in the order in which they run, and how many cores it gets."""

GROUPS = {
    "all": tuple(name for name in SUITES if not name.startswith("scaling.")),
    "scaling": tuple(name for name in SUITES if name.startswith("scaling.")),
}
"""Names for several suites."""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_TIMEOUT_S = 1800.0
_LONG_S = {"scaling.length": 14_400.0}
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
    resume: bool = False,
    quiet: bool = False,
) -> list[Result]:
    """Run `suites` one after the other and print a table.

    Parameters
    ----------
    suites
        Names from `SUITES` or `GROUPS`.
    json_path
        Where the results are written, after each suite; None writes nothing.
    quick
        A few small samples: shows that a suite works, its numbers mean little.
    resume
        Keep what `json_path` already holds: of a group only the suites that are missing there are
        measured, a suite by its own name is measured again.
    quiet
        Print nothing.

    Raises
    ------
    UsageError
        If there is no such suite.
    SuiteError
        If a suite fails; with the end of what it said. Of "all", one that this computer lacks
        something for is left out.
    """
    for name in suites:
        if name not in (*SUITES, *GROUPS):
            raise UsageError(
                f"There is no benchmark suite {name!r}.{suggestion(name, [*SUITES, *GROUPS])}"
            )
    results = read_json(json_path) if resume and json_path and json_path.exists() else []
    console = Console(quiet=quiet)
    for name in _still_to_run(suites, {r.suite for r in results}):
        with console.status(
            f"Measuring {name} on {SUITES[name]} core{'s' if SUITES[name] > 1 else ''}"
        ):
            try:
                measured = _in_process(name, quick)
            except SuiteUnavailableError as e:
                if name in suites:
                    raise
                console.print(f"Left out: {e}")
                continue
        results = _in_order([r for r in results if r.suite != name] + measured)
        if json_path:
            write_json(results, json_path)
    console.print(table(results, notes=True))
    return results


def _still_to_run(suites: Sequence[str], known: Collection[str]) -> list[str]:
    """Return what is to be measured: a suite that is named, and of a group what is not `known`."""
    grouped = {
        name for group in suites if group in GROUPS for name in GROUPS[group] if name not in known
    }
    return [name for name in SUITES if name in suites or name in grouped]


def _in_order(results: list[Result]) -> list[Result]:
    order = list(SUITES)
    return sorted(
        results, key=lambda r: order.index(r.suite)
    )  # stable: within a suite as it was measured


def _in_process(name: str, quick: bool) -> list[Result]:
    cores = SUITES[name]
    environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(cores))}
    with tempfile.TemporaryDirectory() as folder:
        path, timeout_s = Path(folder, "results.json"), _LONG_S.get(name, _TIMEOUT_S)
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
                command,
                env=environment,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as e:
            raise SuiteError(
                f"Suite {name!r} did not end within {timeout_s:.0f} s and was stopped."
            ) from e
        if done.returncode == UNAVAILABLE:
            raise SuiteUnavailableError(done.stderr.strip())
        if done.returncode or not path.is_file():
            said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
            raise SuiteError(f"Suite {name!r} failed with exit code {done.returncode}:\n{said}")
        return [Result.from_json(entry) for entry in documents.read_json(path)]
