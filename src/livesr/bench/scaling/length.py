"""A run of 100,000 frames.

What a frame costs, how late it is and what memory is held, tenth by tenth.

Small frames through everything that a run has (hook, grouping, reconstruction, window, network,
store, publisher with a subscriber), because what grows with the number of frames does so whatever
their size. Time is the processor time of the whole process, which other programs on a busy machine
do not lengthen as they lengthen the clock's. The reference of every tenth is the first one.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import useq
import zmq
from numpy.typing import NDArray

from livesr.base.compute import ComputeConfig
from livesr.base.config import load_rig
from livesr.base.frames import MulticolorFrame
from livesr.base.geometry import Geometry
from livesr.base.run_description import RunDescription
from livesr.base.timing import now_ns
from livesr.bench.engine import NO_ENGINE
from livesr.bench.result import Result, Target
from livesr.bench.timing import Summary, ratio_of_medians
from livesr.live.keeping_up import KeepingUp
from livesr.live.paths import build_path
from livesr.live.pipeline import Pipeline
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.live.sinks.sink import Sink
from livesr.live.sinks.zeromq import ZeroMQSink

_CHANNEL, _SIDE = "488", 32
_TENTHS, _BLOCKS = 10, 100  # blocks of the whole run: ten in a tenth
_IN_FLIGHT = 64
_WAITING_FRAMES = (
    4096  # what may wait for the disk counts in raw frames: no backlog must pass for growth
)
_LAST = {"cpu": Target(1.1, "most", "ratio"), "memory": Target(1.02, "most", "ratio")}


def measure(quick: bool) -> list[Result]:
    """Return processor time a frame, latency, resident memory and open files of each tenth."""
    n = 500 if quick else 100_000
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        seen = _run(n, Path(folder, "run.ome.zarr"))
    note = (
        f"{n} frames of {_SIDE}^2, one exposure each, {NO_ENGINE} engine, store and publisher; "
        f"{seen.frames_per_s:.0f} frames/s at a load of {psutil.getloadavg()[0]:.0f}"
    )
    return [
        *_curve("cpu", "ms of CPU per frame", seen.cpu_ms, n, note),
        *_curve("latency", "ms", seen.latency_ms, n, note),
        *_curve("memory", "MiB", seen.memory_mib, n, note),
        *_curve("open_files", "files and sockets", seen.open_files, n, note),
    ]


def _curve(what: str, unit: str, samples: NDArray[np.float64], n: int, note: str) -> list[Result]:
    """Return one result for each tenth of `samples`, beside the first tenth."""
    tenths = [tenth.tolist() for tenth in np.split(samples, _TENTHS)]
    results = []
    for i, tenth in enumerate(tenths):
        ratio, interval = ratio_of_medians(tenth, tenths[0])
        summary, first = Summary.of(tenth), Summary.of(tenths[0])
        results.append(
            Result(
                name=f"scaling.length.{what}.{(i + 1) * n // _TENTHS}",
                value=summary.median,
                unit=unit,
                reference=first.median,
                reference_name="the first tenth of the run",
                ratio=ratio,
                ratio_interval=interval,
                targets=(_LAST[what],) if what in _LAST and i == _TENTHS - 1 else (),
                samples=summary,
                reference_samples=first,
                note=note,
                at=(i + 1) * n / _TENTHS,
            )
        )
    return results


def _run(n: int, store: Path) -> _Watch:
    """Send `n` frames through a run, as fast as it takes them; return what was seen of it."""
    rig = load_rig("demo")
    rig = rig.model_copy(update={"channels": {_CHANNEL: rig.channels[_CHANNEL]}}).with_engine(
        NO_ENGINE
    )
    path = build_path(
        rig,
        _CHANNEL,
        Geometry((_SIDE, _SIDE), "uint16", 0.065),
        ComputeConfig(device="cpu", threads=1),
    )
    publisher, watch = ZeroMQSink("tcp://127.0.0.1:*"), _Watch(n)
    run = RunDescription(stream_id="bench", started_ns=now_ns(), channels=(path.description,))
    pipeline = Pipeline(
        {_CHANNEL: path},
        run,
        [publisher, OMEZarrSink(store, reserve_bytes=0), watch],
        KeepingUp("complete", raw_queue_bytes=_WAITING_FRAMES * _SIDE * _SIDE * 2),
    )
    pixels = np.random.default_rng(0).integers(100, 4000, (64, _SIDE, _SIDE), np.uint16)
    pipeline.open()
    assert publisher.endpoint is not None
    subscriber = threading.Thread(
        target=_subscribe, args=(publisher.endpoint,), name="bench-subscriber"
    )
    subscriber.start()
    for t in range(n):
        watch.let_one_in()
        pipeline.hook.frame_ready(
            pixels[t % 64].copy(), useq.MDAEvent(index={"t": t}, channel=_CHANNEL), {}
        )
    pipeline.end()
    report = pipeline.join()
    subscriber.join()
    path.close()
    if report["sr_frames"] != n or report["raw_lost"] or report["error"]:
        raise RuntimeError(
            f"{report['sr_frames']} of {n} frames came, {report['raw_lost']} lost:"
            f" {report['error']}"
        )
    return watch


def _subscribe(endpoint: str) -> None:
    """Receive until the end of the stream, and forget."""
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.linger = 0
        socket.subscribe(b"")
        socket.connect(endpoint)
        while socket.recv_multipart()[0] != b"end":
            pass


class _Watch(Sink):
    """A sink that takes note of the process at every block of frames, and limits how many frames
    are on their way.

    Attributes
    ----------
    latency_ms : of each frame
    cpu_ms : processor time of the process per frame, of each block
    memory_mib, open_files : of the process, at the end of each block
    """

    name = "bench-watch"
    lossless = essential = True

    def __init__(self, n: int) -> None:
        self._process, self._every = psutil.Process(), n // _BLOCKS
        # Windows has handles, which psutil's types for Linux do not know.
        self._count: Callable[[], int] = getattr(self._process, "num_fds", None) or getattr(  # noqa: B009
            self._process, "num_handles"
        )
        # Everything that is noted has its memory from the start: the watch must not be what grows.
        self.latency_ms = np.zeros(n)
        self.cpu_ms, self.memory_mib, self.open_files = (np.zeros(_BLOCKS) for _ in range(3))
        self._seen, self._cpu_s, self._start_s, self.frames_per_s = 0, 0.0, 0.0, 0.0
        self._room = threading.Semaphore(_IN_FLIGHT)

    def let_one_in(self) -> None:
        """Wait until one more frame may be on its way."""
        self._room.acquire()

    def open(self, run: RunDescription) -> None:
        self._cpu_s, self._start_s = time.process_time(), time.perf_counter()

    def separated(self, frame: MulticolorFrame) -> None:
        self.latency_ms[self._seen] = frame.latency_ms
        self._seen += 1
        self._room.release()
        if self._seen % self._every == 0:
            self._note(self._seen // self._every - 1)

    def close(self, report: Mapping[str, Any]) -> None:
        self.frames_per_s = self._seen / (time.perf_counter() - self._start_s)

    def _note(self, block: int) -> None:
        cpu_s = time.process_time()
        self.cpu_ms[block] = (cpu_s - self._cpu_s) / self._every * 1e3
        self._cpu_s = cpu_s
        self.memory_mib[block] = self._process.memory_info().rss / 2**20
        self.open_files[block] = self._count()
