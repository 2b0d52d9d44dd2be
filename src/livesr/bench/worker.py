"""One suite in a process of its own.

``python -m livesr.bench.worker MODULE CORES RESULTS.json quick|full``.

Owns the pinning to cores, which comes before the suite is imported, so that every library counts
its threads from them.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import psutil

from livesr.bench.result import Environment
from livesr.bench.runner import UNAVAILABLE, SuiteUnavailableError


def pin(cores: int) -> bool:
    """Keep this process on `cores` cores.

    False where the system has no such thing (macOS) or not as many.
    """
    process = psutil.Process()
    if not hasattr(process, "cpu_affinity"):
        return False
    allowed = process.cpu_affinity()
    process.cpu_affinity(allowed[:cores])
    return len(allowed) >= cores


def work(module: str, cores: int, path: Path, quick: bool) -> None:
    """Run the suite of `module` on `cores` cores and write its results to `path`."""
    environment = Environment.here(pin(cores), quick)
    results = import_module(module).measure(quick)
    path.write_text(
        json.dumps([replace(r, environment=environment).to_json() for r in results]),
        encoding="utf-8",
    )


if __name__ == "__main__":
    try:
        work(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4] == "quick")
    except SuiteUnavailableError as e:
        sys.stderr.write(f"{e}\n")
        sys.exit(UNAVAILABLE)
