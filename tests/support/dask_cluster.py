"""A real Dask cluster of this computer, whose workers are killed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


class Cluster:
    """A scheduler and workers, each in a process of its own, as `dask` starts them."""

    def __init__(self, folder: Path, workers: int) -> None:
        self._folder, self._environment = folder, {**os.environ, "OMP_NUM_THREADS": "1"}
        file = folder / "scheduler.json"
        self.processes: list[Any] = []
        self._scheduler = self._started(
            "distributed.cli.dask_scheduler",
            *("--host", "127.0.0.1", "--port", "0", "--no-dashboard"),
            *("--scheduler-file", str(file)),
        )
        for _ in range(600):
            if file.exists():
                break
            time.sleep(0.1)
        self.address = str(json.loads(file.read_text())["address"])
        for _ in range(workers):
            self.add()

    def add(self) -> None:
        self.processes.append(
            self._started(
                "distributed.cli.dask_worker",
                *(self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard"),
                *("--local-directory", str(self._folder / "dask")),
            )
        )

    def _started(self, module: str, *flags: str) -> Any:
        with (self._folder / "dask.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", module, *flags],
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill_one(self) -> None:
        """Kill a worker as a power cut does, and start another."""
        victim = self.processes.pop(random.randrange(len(self.processes)))
        victim.kill()
        victim.wait()
        self.add()

    def close(self) -> None:
        for process in (*self.processes, self._scheduler):
            process.kill()
            process.wait()
