"""One suite in a process of its own.

``python -m livesr.bench.worker MODULE CORES RESULTS.json quick|full``.

Owns the pinning to cores, which comes before the suite is imported, so that every library counts
its threads from them.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path

import psutil

from livesr.bench.result import Environment, LeftOut, Result
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
    """Run the suite of `module` on `cores` cores; write what it measured and left out to `path`."""
    environment = Environment.here(pin(cores), quick)
    found: list[Result | LeftOut] = import_module(module).measure(quick)
    results = [replace(r, environment=environment) for r in found if isinstance(r, Result)]
    left_out = [entry for entry in found if isinstance(entry, LeftOut)]
    written = {
        "results": [r.to_json() for r in results],
        "left_out": [asdict(entry) for entry in left_out],
    }
    path.write_text(json.dumps(written), encoding="utf-8")


if __name__ == "__main__":
    try:
        work(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4] == "quick")
    except SuiteUnavailableError as e:
        sys.stderr.write(f"{e}\n")
        sys.exit(UNAVAILABLE)
    except ModuleNotFoundError as e:
        if e.name is None or e.name.startswith("livesr"):
            raise
        sys.stderr.write(f"This Python has no {e.name}.\n")
        sys.exit(UNAVAILABLE)
