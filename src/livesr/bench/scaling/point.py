"""One point of the curves of size and channels.

Frames through a run, one time point after the other.

``python -m livesr.bench.scaling.point SIDE CHANNELS TIME_POINTS`` prints what it found as JSON. A
process of its own, because memory belongs to processes. The reference of a time point are the
Fourier transforms that its reconstructions cannot do without, computed right before or after it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import psutil

from livesr.base.compute import ComputeConfig
from livesr.base.config import RigConfig, load_rig
from livesr.base.frames import MulticolorFrame, SRFrame
from livesr.base.geometry import Geometry
from livesr.base.run_description import RunDescription
from livesr.base.timing import now_ns
from livesr.bench.engine import NO_ENGINE
from livesr.bench.result import Result, compared
from livesr.bench.timing import paired
from livesr.bench.transforms import Transforms
from livesr.live.keeping_up import COMPLETE
from livesr.live.paths import ChannelPath, build_path, close_all
from livesr.live.pipeline import Pipeline
from livesr.live.sinks.sink import Sink
from livesr.live.sources.plan import sim_sequence
from livesr.modalities.registry import modality
from livesr.simulation.sequence import simulating_rig

_N_RAW, _WARM_UP = 9, 2
_TIMEOUT_S = 300.0


def point(curve: str, at: int, side: int, channels: int, time_points: int) -> list[Result]:
    """Measure in a new process.

    Return processor time, latency and memory at place `at` of `curve`.

    Raises
    ------
    RuntimeError
        If the process fails.
    """
    command = [
        sys.executable,
        "-m",
        "livesr.bench.scaling.point",
        *map(str, (side, channels, time_points)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - this program itself
    if done.returncode:
        raise RuntimeError(f"{side}^2 in {channels} channels: {done.stderr.strip()[-800:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    note = (
        f"{channels} x {_N_RAW} x {side}^2 to {channels} x 3 x {2 * side}^2, {NO_ENGINE} engine,"
        f" {time_points} time points, no patterns in the frames"
    )
    memory_mib, content_mib = found["memory_mib"], found["content_mib"]
    results = [
        compared(
            f"{curve}.cpu.{at}",
            paired(found["cpu_ms"]),
            "ms of CPU per time point",
            "its FFTs alone",
            note=note,
        ),
        compared(
            f"{curve}.latency.{at}",
            paired(found["wall_ms"]),
            "ms",
            "its FFTs alone",
            note=f"{note}; {_LATENCY}",
        ),
        Result(
            f"{curve}.memory.{at}",
            memory_mib,
            "MiB",
            content_mib,
            "one time point: raw, measurement, prediction",
            memory_mib / content_mib,
            note=f"{note}; resident at most, less what the process held before the run was built",
        ),
    ]
    return [replace(r, at=at) for r in results]


_LATENCY = (
    "from the first raw frame handed over, all at once, to the last prediction that they complete"
)


class _Run:
    """A run that is given its next time point when it is done with the last one."""

    def __init__(self, side: int, channels: int, time_points: int) -> None:
        self._process = psutil.Process()
        rng = np.random.default_rng(0)
        self._raw = rng.integers(100, 4000, (_N_RAW, side, side), np.uint16)
        self._transforms = Transforms(self._raw)
        names = [f"c{i}" for i in range(channels)]
        plan = list(sim_sequence(time_points, names, _N_RAW))
        self._events = [
            [event for event in plan if event.index["t"] == t] for t in range(time_points)
        ]
        self._t, self._channels = 0, channels
        self._before = self._process.memory_info().rss
        rig = _rig(names)
        self._paths = {
            name: build_path(
                rig,
                name,
                Geometry((side, side), "uint16", 0.065),
                ComputeConfig(device="cpu", threads=1),
            )
            for name in names
        }
        self._watch = _Watch(self._process)
        described = tuple(path.description for path in self._paths.values())
        run = RunDescription(stream_id="bench", started_ns=now_ns(), channels=described)
        self._pipeline = Pipeline(self._paths, run, [self._watch], COMPLETE)
        self._content = sum(_content_bytes(path) for path in self._paths.values())

    def measure(self) -> dict[str, Any]:
        """Send every time point.

        Return pairs (run, transforms) of CPU and clock in ms, and memory in MiB.

        Raises
        ------
        RuntimeError
            If the run fails or loses a frame.
        """
        self._pipeline.open()
        found: dict[str, Any] = {"cpu_ms": [], "wall_ms": []}
        works = (self._time_point, self._transform)
        for i in range(len(self._events)):
            times: list[tuple[float, float]] = [(0.0, 0.0)] * 2
            for which in (0, 1) if i % 2 == 0 else (1, 0):
                times[which] = _timed_ms(works[which])
            if i >= _WARM_UP:
                for name, pair in zip(("cpu_ms", "wall_ms"), zip(*times, strict=True), strict=True):
                    found[name].append(pair)
        self._pipeline.end()
        report = self._pipeline.join()
        if report["error"] or report["sr_frames"] != len(self._events) * self._channels:
            raise RuntimeError(
                f"{report['sr_frames']} frames were separated: {report['error']},"
                f" {report['warnings']}"
            )
        close_all(self._paths)
        memory = (self._watch.max_bytes - self._before) / 2**20
        return {**found, "memory_mib": memory, "content_mib": self._content / 2**20}

    def _time_point(self) -> None:
        for i, event in enumerate(self._events[self._t]):
            self._pipeline.hook.frame_ready(self._raw[i % _N_RAW].copy(), event, {})
        # A prediction trails by one frame: the first time point has none yet.
        self._watch.wait(self._channels * (2 if self._t else 1))
        self._t += 1

    def _transform(self) -> None:
        for _ in range(self._channels):
            self._transforms.run()


def _timed_ms(work: Callable[[], None]) -> tuple[float, float]:
    """Return the milliseconds of CPU and of the clock that `work` takes, all threads together."""
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    work()
    return (time.process_time() - cpu_s) * 1e3, (time.perf_counter() - wall_s) * 1e3


def _rig(names: list[str]) -> RigConfig:
    """Return the virtual rig with these channels.

    It reconstructs frames that show no pattern, too.
    """
    rig = load_rig(simulating_rig())
    channel = next(iter(rig.channels.values())).model_copy(update={"separate": NO_ENGINE})
    believing = modality(rig.modality).believing(rig)
    return believing.model_copy(update={"channels": dict.fromkeys(names, channel)})


def _content_bytes(path: ChannelPath) -> int:
    """Bytes of one time point: raw frames and predictions of 16 bit, a measurement of 32."""
    described = path.description
    raw, recon, sr = (
        int(np.prod(s)) for s in (described.raw_shape, described.recon_shape, described.sr_shape)
    )
    return 2 * _N_RAW * raw + 4 * recon + 2 * len(described.labels) * sr


class _Watch(Sink):
    """A sink that counts what came, and looks at the memory of the process at every prediction."""

    name = "bench-watch"
    lossless = essential = True

    def __init__(self, process: psutil.Process) -> None:
        self._process, self._came = process, threading.Semaphore(0)
        self.max_bytes = 0

    def wait(self, n: int) -> None:
        """Wait for `n` measurements and predictions.

        Raises
        ------
        RuntimeError
            If one does not come.
        """
        for _ in range(n):
            if not self._came.acquire(timeout=_TIMEOUT_S):
                raise RuntimeError("no frame came")

    def recon(self, frame: SRFrame) -> None:
        self._came.release()

    def separated(self, frame: MulticolorFrame) -> None:
        self.max_bytes = max(self.max_bytes, self._process.memory_info().rss)
        self._came.release()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_Run(*map(int, sys.argv[1:4])).measure()) + "\n")
