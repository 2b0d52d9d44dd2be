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
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

from livesr.base.errors import LiveSRError, UsageError, suggestion
from livesr.bench.report import write_json
from livesr.bench.result import Environment, Result, Target
from livesr.bench.timing import Summary

SUITES = ("sim", "engine", "hook", "pipeline", "store", "publish")
"""In the order in which they run."""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_TIMEOUT_S = 900.0


class SuiteError(LiveSRError):
    """A suite did not come to its end."""


def run(
    suites: Sequence[str] = SUITES,
    json_path: Path | None = None,
    quick: bool = False,
    *,
    progress: Callable[[str], None] | None = None,
) -> list[Result]:
    """Run `suites` one after the other.

    Parameters
    ----------
    suites
        Names from `SUITES`.
    json_path
        Where all results are written; None writes nothing.
    quick
        A few small samples: shows that a suite works, its numbers mean little.
    progress
        Called with the name of each suite before it starts.

    Raises
    ------
    UsageError
        If there is no such suite.
    SuiteError
        If a suite fails; with the end of what it said.
    """
    for name in suites:
        if name not in SUITES:
            raise UsageError(f"There is no benchmark suite {name!r}.{suggestion(name, list(SUITES))}")
    results: list[Result] = []
    for name in suites:
        if progress:
            progress(name)
        results += _in_process(name, quick)
        if json_path:
            write_json(results, json_path)
    return results


def _in_process(name: str, quick: bool) -> list[Result]:
    cores = int(import_module(f"livesr.bench.{name}").CORES)
    environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(cores))}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "results.json")
        command = [sys.executable, "-m", "livesr.bench.runner", name, str(path), "quick" if quick else "full"]
        try:
            done = subprocess.run(  # noqa: S603 - this program itself
                command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as e:
            raise SuiteError(f"Suite {name!r} did not end within {_TIMEOUT_S:.0f} s and was stopped.") from e
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


def _pin(cores: int) -> bool:
    """Keep this process on `cores` cores; False where the system has no such thing (macOS) or not as many."""
    process = psutil.Process()
    if not hasattr(process, "cpu_affinity"):
        return False
    allowed = process.cpu_affinity()
    process.cpu_affinity(allowed[:cores])
    return len(allowed) >= cores


def _worker(name: str, path: Path, quick: bool) -> None:
    module = import_module(f"livesr.bench.{name}")
    environment = Environment.here(_pin(module.CORES))
    results = [asdict(replace(result, environment=environment)) for result in module.measure(quick)]
    path.write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    _worker(sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "quick")
