"""Runs suites, each in a fresh process on its own number of cores.

Owns the processes and the list of suites. A fresh process is the only place where every library
counts its threads from the cores that the suite may use, and one suite's threads do not warm or
disturb another one's.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from livesr.base import documents
from livesr.base.errors import ConfigError, LiveSRError, UsageError, suggestion
from livesr.bench.report import measured, notes, read_json, table, where, write_json
from livesr.bench.result import LeftOut, Measured
from livesr.modalities.modality import Benchmark, Modality
from livesr.modalities.registry import MODALITIES, installed

log = logging.getLogger(__name__)

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
    "latency": 2,
    "gpu.parity": 4,
    "gpu.speed": 4,
    "gpu.frame": 4,
    "scaling.size": 2,
    "scaling.channels": 2,
    "scaling.rate": 2,
    "scaling.length": 2,
}
"""Suites beside those of the modalities, in the order in which they run, and the cores of each."""

GROUPS = ("all", "scaling", "gpu")
"""Names for several suites."""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_TIMEOUT_S = 1800.0
_LONG_S = {"scaling.length": 14_400.0, "gpu.parity": 7_200.0}
UNAVAILABLE = 3
"""Exit code of a worker whose suite cannot run on this computer."""


def _suites_of(way: Modality[Any]) -> Mapping[str, Benchmark]:
    """Return the suites of a modality; none where its package is broken."""
    try:
        with MODALITIES.blamed(way.name, "cannot name its benchmarks"):
            return way.benchmarks
    except ConfigError as e:
        log.warning("%s They are left out.", e)
        return {}


def suites() -> dict[str, Benchmark]:
    """Return every suite by its name, in the order in which they run.

    Those of the modalities come first.
    """
    of_modalities = {
        name: suite
        for modality in installed()
        for name, suite in _suites_of(modality).items()
        if name not in (*SUITES, *GROUPS)
    }
    own = {name: Benchmark(f"livesr.bench.{name}", cores) for name, cores in SUITES.items()}
    return of_modalities | own


PEERS = ".peers"
"""End of the names of suites that compare with other programs; those run only if asked for."""


def with_peers(names: Sequence[str]) -> list[str]:
    """Return the suites that compare what `names` measure with other programs; all without any.

    Raises
    ------
    UsageError
        If one of them has none.
    """
    there = [name.removesuffix(PEERS) for name in suites() if name.endswith(PEERS)]
    for name in names:
        if name not in there:
            raise UsageError(
                f"{name!r} is compared with no other program; these are: {', '.join(there)}."
            )
    return [f"{name}{PEERS}" for name in names or there]


def _of_group(group: str, suites: Iterable[str]) -> set[str]:
    """Return the suites of a group; "all" are those of none."""
    if group == "all":
        return {name for name in suites if "." not in name}
    return {name for name in suites if name.startswith(f"{group}.")}


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
) -> Measured:
    """Run suites one after the other and print a table.

    Parameters
    ----------
    names : of `suites` or `GROUPS`
    json_path : where the results are written, after each suite; None writes nothing
    quick : a few small samples: shows that a suite works, its numbers mean little
    resume : keep what `json_path` already holds: of a group only the suites that are missing there
        are measured, a suite by its own name is measured again
    quiet : print nothing

    Raises
    ------
    UsageError
        If there is no such suite.
    SuiteError
        If a suite that was named fails; with the end of what it said. Of a group the others still
        run: one that this computer lacks something for is left out, one that fails is a fault.
    """
    here = suites()
    for name in names:
        if name not in (*here, *GROUPS):
            raise UsageError(
                f"There is no benchmark suite {name!r}.{suggestion(name, [*here, *GROUPS])}"
            )
    known = read_json(json_path) if resume and json_path and json_path.exists() else Measured()
    console = Console(quiet=quiet, emoji=False)
    for name in _still_to_run(names, {r.suite for r in known.results}, here):
        cores = here[name].cores
        with console.status(f"Measuring {name} on {cores} core{'s' if cores > 1 else ''}"):
            try:
                found = _in_process(name, here[name], quick)
            except SuiteError as e:
                if name in names:
                    raise
                fault = not isinstance(e, SuiteUnavailableError)
                found = Measured(left_out=[LeftOut(name, str(e), fault)])
        known = _in_order(_with(known, name, found), list(here))
        if json_path:
            write_json(known, json_path)
    _show(known, console)
    return known


def _show(known: Measured, console: Console) -> None:
    """Print where it was measured, a table for each suite, and what was left out and why."""
    if environment := next((r.environment for r in known.results if r.environment), None):
        console.print(where(environment), style="dim", markup=False, highlight=False)
    for suite in dict.fromkeys(r.suite for r in known.results):
        results = [r for r in known.results if r.suite == suite]
        console.print()
        for line in table(results, console.width):
            console.print(line, highlight=False, soft_wrap=True)
        for note in notes(results):
            console.print(
                Padding(Text(note, style="dim"), (0, 0, 0, 2)), markup=False, highlight=False
            )
    for entry in known.left_out:
        console.print(f"Left out, {entry.name}: {entry.reason}", markup=False, highlight=False)


def _with(known: Measured, suite: str, found: Measured) -> Measured:
    """Return what is known once `suite` was measured, anew where it was known."""
    results = [r for r in known.results if r.suite != suite]
    left_out = [e for e in known.left_out if not f"{e.name}.".startswith(f"{suite}.")]
    return Measured([*results, *found.results], [*left_out, *found.left_out])


def _still_to_run(names: Sequence[str], done: Collection[str], here: Iterable[str]) -> list[str]:
    """Return what is to be measured: a suite that is named, and of a group what is not `done`."""
    here = list(here)
    groups = [name for name in names if name in GROUPS]
    grouped = {name for group in groups for name in _of_group(group, here)} - set(done)
    return [name for name in here if name in names or name in grouped]


def _in_order(known: Measured, here: list[str]) -> Measured:
    """Sort by suite, within one as it was measured; suites that are not here come last."""
    order = {name: at for at, name in enumerate(here)}
    results = sorted(known.results, key=lambda r: order.get(r.suite, len(order)))
    return replace(known, results=results)


def _in_process(name: str, suite: Benchmark, quick: bool) -> Measured:
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
        return measured(documents.read_json(path))
