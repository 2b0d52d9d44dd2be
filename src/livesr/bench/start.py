"""How long until there is something to see.

Importing the package, and from the command to the first separated frame.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from livesr.bench.engine import bench_engine
from livesr.bench.result import Result, Target, compared
from livesr.bench.timing import Summary, interleave
from livesr.simulation.sequence import simulating_rig

_FIRST_FRAME = """
import json, sys, threading, time
start = time.perf_counter()
import livesr.cli
from livesr.bench.pipeline import virtual_rig
from livesr.live.plugin import LiveSR
from livesr.live.sources.plan import sim_sequence
loading = time.perf_counter()
with virtual_rig(sys.argv[3], SensorSize=int(sys.argv[2]), TimePoints=2) as (core, rig):
    loaded = time.perf_counter()
    channel = next(iter(rig.channels))
    plan = sim_sequence(3, [channel], rig.raw_frames(channel))
    core.setExposure(1.0)
    first = []
    with LiveSR(core, rig=rig.with_engine(sys.argv[1]), plan=plan) as sr:
        sr.frame_ready.connect(lambda frame: first.append(time.perf_counter()))
        core.mda.run(plan)
        sr.wait()
print(json.dumps({"s": first[0] - start - (loaded - loading)}))
"""


def measure(quick: bool) -> list[Result]:
    """Return the seconds of an import beside those of an interpreter that imports nothing, and
    those to the first frame.
    """
    imports = interleave(
        lambda: [_seconds("import livesr")],
        lambda: [_seconds("pass")],
        1 if quick else 10,
        warm_up=False,
    )
    engine, size = bench_engine(), 64 if quick else 256
    firsts = Summary.of([_first_frame(str(engine.folder), size) for _ in range(1 if quick else 5)])
    return [
        compared(
            "start.import",
            imports,
            "s",
            "an interpreter that imports nothing",
            (Target(0.3, "most"),),
            note="a fresh process each time, its start included; bytecode compiled",
        ),
        Result(
            "start.first_frame",
            firsts.median,
            "s",
            targets=(Target(3.0, "most"),),
            samples=firsts,
            note=(
                f"a fresh process: imports, {engine.manifest.id} compiled for {2 * size}^2, nine"
                " exposures of 1 ms, reconstruction, network; without loading Micro-Manager's"
                " devices, here a microscope to be simulated"
            ),
        ),
    ]


def _seconds(statement: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)  # noqa: S603 - this interpreter
    return time.perf_counter() - start


def _first_frame(engine: str, size: int) -> float:
    command = [sys.executable, "-c", _FIRST_FRAME, engine, str(size), simulating_rig()]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - as above
    return float(json.loads(done.stdout.splitlines()[-1])["s"])
