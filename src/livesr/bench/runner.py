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
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from rich.console import Console

from livesr.base import documents
from livesr.base.errors import LiveSRError, UsageError, suggestion
from livesr.bench.report import read_json, table, write_json
from livesr.bench.result import Result
from livesr.modalities.modality import Benchmark
from livesr.modalities.registry import installed

SUITES = {
    "correct": 1,
    "engine": 2,
    "shapes": 1,
    "start": 2,
    "training": 2,
    "hook": 2,
    "pipeline": 2,
    "store": 2,
    "publish": 2,
    "view": 2,
    "scaling.size": 2,
    "scaling.channels": 2,
    "scaling.rate": 2,
    "scaling.length": 2,
}
"""Suites beside those of the modalities, in the order in which they run, and the cores of each."""

GROUPS = ("all", "scaling")
"""Names for several suites."""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_TIMEOUT_S = 1800.0
_LONG_S = {"scaling.length": 14_400.0}
UNAVAILABLE = 3
"""Exit code of a worker whose suite cannot run on this computer."""


def suites() -> dict[str, Benchmark]:
    """Return every suite by its name, in the order in which they run: those of the modalities
    first.
    """
    of_modalities = {
        name: suite
        for modality in installed()
        for name, suite in modality.benchmarks.items()
        if name not in (*SUITES, *GROUPS)
    }
    own = {name: Benchmark(f"livesr.bench.{name}", cores) for name, cores in SUITES.items()}
    return of_modalities | own


def _of_group(group: str, known: Iterable[str]) -> list[str]:
    """Return the suites of a group."""
    scaling = group == "scaling"
    return [name for name in known if name.startswith("scaling.") == scaling]


class SuiteError(LiveSRError):
    """A suite did not come to its end."""


class SuiteUnavailableError(SuiteError):
    """A suite needs something that is not on this computer."""


def run(
    names: Sequence[str] = ("all",),
    json_path: Path | None = None,
    quick: bool = False,
    *,
    resume: bool = False,
    quiet: bool = False,
) -> list[Result]:
    """Run suites one after the other and print a table.

    Parameters
    ----------
    names
        Of `suites` or `GROUPS`.
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
    known = suites()
    for name in names:
        if name not in (*known, *GROUPS):
            raise UsageError(
                f"There is no benchmark suite {name!r}.{suggestion(name, [*known, *GROUPS])}"
            )
    results = read_json(json_path) if resume and json_path and json_path.exists() else []
    console = Console(quiet=quiet)
    for name in _still_to_run(names, {r.suite for r in results}, list(known)):
        cores = known[name].cores
        with console.status(f"Measuring {name} on {cores} core{'s' if cores > 1 else ''}"):
            try:
                measured = _in_process(name, known[name], quick)
            except SuiteUnavailableError as e:
                if name in names:
                    raise
                console.print(f"Left out: {e}")
                continue
        kept = [r for r in results if r.suite != name]
        results = _in_order(kept + measured, list(known))
        if json_path:
            write_json(results, json_path)
    console.print(table(results, notes=True))
    return results


def _still_to_run(names: Sequence[str], done: Collection[str], known: list[str]) -> list[str]:
    """Return what is to be measured: a suite that is named, and of a group what is not `done`."""
    groups = [group for group in names if group in GROUPS]
    grouped = {name for group in groups for name in _of_group(group, known)} - set(done)
    return [name for name in known if name in names or name in grouped]


def _in_order(results: list[Result], known: list[str]) -> list[Result]:
    """Sort by suite, within one as it was measured; suites that are no more come last."""
    order = {name: at for at, name in enumerate(known)}
    return sorted(results, key=lambda r: order.get(r.suite, len(order)))


def _in_process(name: str, suite: Benchmark, quick: bool) -> list[Result]:
    cores = suite.cores
    environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(cores))}
    with tempfile.TemporaryDirectory() as folder:
        path, timeout_s = Path(folder, "results.json"), _LONG_S.get(name, _TIMEOUT_S)
        command = [
            sys.executable,
            "-m",
            "livesr.bench.worker",
            suite.module,
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
