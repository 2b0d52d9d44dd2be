"""How much faster two workers of a Dask cluster are than one, on this computer.

    python scripts/cluster_efficiency.py --groups 192 --folder efficiency

Simulated groups are recorded once, then processed with one worker and with two, in turns, each just
started and again when it is warm. Prints a table, the efficiency (time of one over twice the time
of two), the same of the workers' CPU time, and the load before and after. CPU time says on a busy
computer as well whether two do more work than one; only a computer with two free cores tells
whether they wait for each other.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

from livesr.base.compute import ComputeConfig
from livesr.bench.engine import bench_engine
from livesr.bench.pipeline import virtual_rig
from livesr.live.plugin import LiveSR
from livesr.live.sources.plan import sim_sequence
from livesr.simulation.sequence import simulating_rig
from livesr.store.cluster import folder_of, process_on
from livesr.store.parts import TIME_POINTS, Job
from livesr.store.raw_input import ReadAs

ONE_THREAD = {n: "1" for n in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


def main() -> None:
    """Record, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="made; on a fast disk")
    parser.add_argument("--groups", type=int, default=192, help=f"a multiple of {2 * TIME_POINTS}")
    parser.add_argument("--turns", type=int, default=2)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    store = recorded(asked.folder / f"raw-{asked.groups}.ome.zarr", asked.groups)
    before = os.getloadavg()[0]
    found: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for _ in range(asked.turns):
        for workers in (1, 2):
            with cluster(asked.folder, workers) as (address, processes):
                for state in ("just started", "warm"):
                    before_s = cpu_s(processes)
                    took = seconds(address, store, asked.folder / "out.ome.zarr")
                    busy = cpu_s(processes) - before_s
                    found.setdefault((workers, state), []).append((took, busy))
                    print(f"{workers} workers, {state}: {took:.1f} s, CPU {busy:.1f} s", flush=True)
    n_parts, after = asked.groups / TIME_POINTS, os.getloadavg()[0]
    print(f"\n{asked.groups} groups, {n_parts:g} parts; load {before:.1f}, then {after:.1f}")
    for state in ("just started", "warm"):
        one, two = (np.sum(found[workers, state], axis=0) for workers in (1, 2))
        print(f"{state}: efficiency {one[0] / (2 * two[0]):.2f}, by CPU time {one[1] / two[1]:.2f}")


def recorded(store: Path, groups: int) -> Path:
    """Record simulated groups without a network, if they are not there."""
    if not store.exists():
        with virtual_rig(simulating_rig(), SensorSize=256, TimePoints=12) as (core, rig):
            channel = next(iter(rig.channels))
            plan = sim_sequence(groups, [channel], n_raw := rig.raw_frames(channel))
            core.setExposure(200 / n_raw)
            named = rig.with_engine(str(bench_engine().folder))
            with LiveSR(core, rig=named, plan=plan, store=store) as sr:
                core.mda.run(plan)
                sr.wait()
    return store


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[tuple[str, list[psutil.Popen]]]:
    """Start a scheduler and workers of one thread each, as `dask` does; yield its address and the
    workers.
    """
    file = folder / "scheduler.json"
    file.unlink(missing_ok=True)
    environment = {**os.environ, **ONE_THREAD}
    processes: list[psutil.Popen] = []

    def start(module: str, *flags: str) -> None:
        command = [sys.executable, "-m", f"distributed.cli.{module}", *flags, "--no-dashboard"]
        # Where others compute as well, Linux shares the cores out by session, as if by computer.
        processes.append(
            psutil.Popen(
                command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True
            )
        )

    try:
        start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))
        while not file.exists():
            time.sleep(0.1)
        address = str(json.loads(file.read_text(encoding="utf-8"))["address"])
        for _ in range(workers):
            start("dask_worker", address, "--nthreads", "1", "--no-nanny",
                  "--local-directory", str(folder / "dask"))  # fmt: skip
        yield address, processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def cpu_s(processes: list[psutil.Popen]) -> float:
    """Return the CPU time of processes up to now."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def seconds(address: str, store: Path, out: Path) -> float:
    """Return how long a whole run takes."""
    compute = ComputeConfig(backend="openvino", precision="f32", device="cpu", threads=1)
    job = Job(store, None, None, None, ReadAs(), compute, False, True, folder_of(out))
    start = time.perf_counter()
    process_on(address, job, out)
    took = time.perf_counter() - start
    shutil.rmtree(out)
    return took


if __name__ == "__main__":
    main()
