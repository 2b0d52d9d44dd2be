"""Whole frames, from raw frames on the host to channels on the host, beside the network alone.

Everything is in it that a run does but camera and store. Where a GPU reconstructs, what it makes is
also compared with what the CPU makes of the same raw frames.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from livesr.base.compute import ComputeConfig
from livesr.base.config import RigConfig, load_rig
from livesr.base.errors import BackendError, RunError
from livesr.base.frames import MulticolorFrame, SRFrame
from livesr.base.geometry import Geometry
from livesr.base.run_description import RunDescription
from livesr.base.timing import now_ns
from livesr.bench.gpu.speed import resident_call, wall_ms
from livesr.bench.gpu.subjects import FULL_ENGINE, SMALL_ENGINE, agreement, opened
from livesr.bench.result import AGREEMENT, LeftOut, Result, Target
from livesr.bench.timing import Summary, ratio_of_medians
from livesr.live.device import open_device
from livesr.live.inference.engine import load_engine
from livesr.live.keeping_up import COMPLETE
from livesr.live.paths import build_path
from livesr.live.pipeline import Pipeline
from livesr.live.sinks.sink import Sink
from livesr.live.sources.plan import sim_sequence
from livesr.modalities.registry import modality
from livesr.simulation.sequence import simulating_rig

_MAX_OF_NETWORK = 1.3
_MIN_AGREEMENT = {"recon": 0.9999, "sr": 0.998}
_WARM_UP, _BANK, _QUEUED = 6, 4, 4
_TIMEOUT_S = 300.0

Where = Literal["cpu", "cuda"]


def measure(quick: bool) -> list[Result | LeftOut]:
    """Return what a frame takes, and how far frames from the GPU agree with the CPU's."""
    entries: list[Result | LeftOut] = []
    where: Where = "cuda"
    try:
        open_device("cuda")
    except BackendError as e:
        entries.append(LeftOut("gpu.frame.recon", str(e)))
        where = "cpu"
    for side in (128,) if quick else (512, 1024):
        job = _Job.of(side, SMALL_ENGINE if quick else FULL_ENGINE)
        n = 12 if quick else 40
        made = job.run(where, _WARM_UP + n)
        entries.append(_timed(job, made, where))
        if where == "cuda":
            entries += _compared(job, made)
    return entries


@dataclass(eq=False)
class _Made(Sink):
    """What a run made, itself the sink that collects it: when, and the first frames."""

    name: str = "bench"
    lossless = essential = True
    times: list[float] = field(default_factory=list)
    recon_frames: list[NDArray[np.float32]] = field(default_factory=list)
    sr_frames: list[NDArray[np.uint16]] = field(default_factory=list)
    runtime: str = ""
    _came: threading.Condition = field(default_factory=threading.Condition)

    @property
    def frame_ms(self) -> list[float]:
        """Times between predictions; the last one comes when the run ends, and is left out."""
        return [1e3 * float(d) for d in np.diff(self.times[_WARM_UP:-1])]

    def recon(self, frame: SRFrame) -> None:
        """Keep the first measurements."""
        if len(self.recon_frames) < _BANK:
            self.recon_frames.append(frame.image.copy())

    def separated(self, frame: MulticolorFrame) -> None:
        """Note the time, and keep the first predictions."""
        with self._came:
            self.times.append(time.perf_counter())
            if len(self.sr_frames) < _BANK:
                self.sr_frames.append(frame.channels.copy())
            self._came.notify_all()

    def wait_for(self, count: int) -> None:
        """Wait for so many predictions.

        Raises
        ------
        RunError
            If they do not come.
        """
        with self._came:
            if not self._came.wait_for(lambda: len(self.times) >= count, _TIMEOUT_S):
                raise RunError(
                    f"{len(self.times)} of {count} frames came within {_TIMEOUT_S:.0f} s."
                )


@dataclass(frozen=True, slots=True)
class _Job:
    """Raw frames of a rig, and the engine that separates them; `side` is the reconstruction's."""

    side: int
    engine: str
    rig: RigConfig
    channel: str
    raw: NDArray[np.uint16]

    @classmethod
    def of(cls, side: int, engine: str) -> _Job:
        rig = load_rig(simulating_rig()).with_engine(engine)
        raw = modality(rig.modality).simulate(rig, side // 2, _BANK)
        return cls(side, engine, rig, next(iter(rig.channels)), raw)

    def run(self, where: Where, n: int) -> _Made:
        """Send `n` raw groups through a run on `where`, a few ahead of what has come out."""
        _, n_raw, *size = self.raw.shape
        camera = Geometry((size[0], size[1]), "uint16", 0.065)
        path = build_path(self.rig, self.channel, camera, ComputeConfig(device=where))
        session = path.networks.session
        assert session is not None
        made = _Made(runtime=f"{session.name} {session.precision}")
        run = RunDescription("bench", now_ns(), (path.description,))
        pipeline = Pipeline({self.channel: path}, run, [made], COMPLETE)
        pipeline.open()
        try:
            for i, event in enumerate(sim_sequence(n, [self.channel], n_raw)):
                t, raw = divmod(i, n_raw)
                pipeline.hook.frame_ready(self.raw[t % _BANK, raw].copy(), event, {})
                if raw == n_raw - 1:
                    made.wait_for(t - _QUEUED)  # the queue stays full, and short
        finally:
            pipeline.end()
            pipeline.join()
            path.close()
        if pipeline.error:
            raise pipeline.error
        return made


def _timed(job: _Job, made: _Made, where: Where) -> Result:
    network = _network_ms(job, made, len(made.frame_ms))
    ratio, interval = ratio_of_medians(made.frame_ms, network)
    alone = Summary.of(network)
    samples = Summary.of(made.frame_ms)
    return Result(
        f"gpu.frame.{job.side}",
        samples.median,
        "ms",
        alone.median,
        "its network alone",
        ratio,
        interval,
        (Target(_MAX_OF_NETWORK, "most", "ratio"),) if where == "cuda" else (),
        samples,
        alone,
        f"{job.raw.shape[1]} x {job.side // 2}^2 to {job.side}^2, {job.engine}, {made.runtime},"
        f" reconstructed on {where}",
    )


def _network_ms(job: _Job, made: _Made, n: int) -> list[float]:
    """Return the times of the network alone on the runtime that the run chose."""
    name, precision = made.runtime.split()
    with opened(name, load_engine(job.engine), job.side, precision) as session:
        call = resident_call(session) or (lambda: wall_ms(session.infer))
        call()
        return [call() for _ in range(n)]


def _compared(job: _Job, made: _Made) -> list[Result]:
    """Hold the first frames against those of a run that reconstructs on the CPU."""
    expected = job.run("cpu", _WARM_UP + _BANK)
    pairs: dict[str, tuple[Sequence[NDArray[Any]], Sequence[NDArray[Any]]]] = {
        "recon": (made.recon_frames, expected.recon_frames),
        "sr": (made.sr_frames, expected.sr_frames),
    }
    return [
        Result(
            f"gpu.frame.{kind}.{job.side}",
            min(agreement(a, b) for a, b in zip(ours, theirs, strict=True)),
            AGREEMENT,
            targets=(Target(_MIN_AGREEMENT[kind], "least"),),
            note=f"worst of {len(ours)} frames from the GPU against the CPU's",
        )
        for kind, (ours, theirs) in pairs.items()
    ]
