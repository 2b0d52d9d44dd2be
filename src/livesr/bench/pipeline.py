"""The whole live path on two cores.

Virtual SIM rig, 9 raw frames of 256 x 256 to three structures of 512 x 512.

Camera, hook, reconstruction, network and composition run as in `livesr demo`, without store and
publisher, which have suites of their own. The camera's playback counts: it runs on the same two
cores, as everything does.
"""

from __future__ import annotations

import math
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.experimental.unicore import UniMMCore

from livesr.base.compute import ComputeConfig
from livesr.base.config import RigConfig, load_rig
from livesr.base.frames import MulticolorFrame
from livesr.bench.engine import bench_engine
from livesr.bench.result import Result, Target
from livesr.bench.timing import Comparison, Summary, calls_ms, interleave
from livesr.live.camera import camera_geometry
from livesr.live.inference.engine import Engine
from livesr.live.inference.runner import open_session
from livesr.live.paths import build_path
from livesr.live.plugin import LiveSR
from livesr.live.run_state import Report
from livesr.live.sources.plan import sim_sequence
from livesr.simulation.camera import KnowsTruth, find_virtual_camera
from livesr.simulation.sequence import simulating_rig

_PACED_FPS = 8.0
_MAX_RAW_FPS = (
    1500.0  # well below what a triggered acquisition takes: an overflow would measure Micro-Manager
)
_SR_FPS = Target(8, "least")
_OVERHEAD = Target(0.10, "most")
_TC = Target(0.99, "least")


def measure(quick: bool) -> list[Result]:
    """Return sustained frame rate, overhead and latency at a steady rate, and what happens under
    twice the load.
    """
    seconds = 1.0 if quick else 12.0
    engine = bench_engine()
    size, n_t = (64, 3) if quick else (256, 12)
    with virtual_rig(simulating_rig(), SensorSize=size, TimePoints=n_t) as (core, rig):
        bench = _Bench(core, rig, engine)
        capacity_fps = bench.capacity_fps(5 if quick else 30)
        sustained = bench.sustained(capacity_fps, seconds, 1 if quick else 4)
        return [
            sustained,
            *bench.paced(min(_PACED_FPS, 0.8 * sustained.value), seconds),
            bench.network_twice_slower(sustained.value, seconds),
        ]


@contextmanager
def virtual_rig(name: str, **properties: float) -> Iterator[tuple[CMMCorePlus, RigConfig]]:
    """Load a virtual rig with other pre-init properties of its camera."""
    rig = load_rig(name)
    text = rig.cfg_path.read_text(encoding="utf-8")
    for key, value in properties.items():
        text = re.sub(rf"(?m)^(#py Property,Camera,{key}),.*$", rf"\g<1>,{value}", text)
    core = UniMMCore()
    with tempfile.TemporaryDirectory() as folder:
        cfg = Path(folder, "rig.cfg")
        cfg.write_text(text, encoding="utf-8")
        core.loadSystemConfiguration(str(cfg))
    try:
        yield core, rig
    finally:
        core.unloadAllDevices()


@dataclass(frozen=True, slots=True)
class _Run:
    """One acquisition: its report, and when each separated frame came and whether its neighbours
    were true.
    """

    report: Report
    arrivals_s: list[float]
    true_neighbours: list[bool]

    @property
    def intervals_ms(self) -> list[float]:
        # The last frame needs no later one and comes at once: it is not paced by anything.
        paced = self.arrivals_s[:-1] if len(self.arrivals_s) > 3 else self.arrivals_s
        return [float(d) for d in np.diff(paced) * 1e3]


class _Bench:
    """One engine on one core."""

    def __init__(self, core: CMMCorePlus, rig: RigConfig, engine: Engine) -> None:
        self._core, self._engine = core, engine
        self._rig = rig.with_engine(str(engine.folder))
        self._channel = next(iter(rig.channels))
        self._n_raw = rig.raw_frames(self._channel)
        self._shape = (
            f"{self._n_raw} x {core.getImageHeight()}x{core.getImageWidth()} to"
            f" {len(engine.manifest.channels)} x "
        )
        self._shape += (
            f"{2 * core.getImageHeight()}x{2 * core.getImageWidth()}, {engine.manifest.id}"
        )
        self._bare = _Bare(core, self._rig, self._channel, engine)

    def capacity_fps(self, n: int) -> float:
        """Frames per second of the two unavoidable steps with nothing beside them."""
        self._bare.frame()
        return 1e3 / float(np.median(calls_ms(self._bare.frame, n)))

    def sustained(self, capacity_fps: float, seconds: float, blocks: int) -> Result:
        """Frames per second when the camera is faster than the computer, beside the two unavoidable
        steps alone.
        """
        fps = self._camera_fps(1.5 * capacity_fps)

        def live() -> list[float]:
            intervals = self._run(fps, seconds).intervals_ms
            return [1e3 / float(np.mean(intervals))]

        def bare() -> list[float]:
            return [
                1e3
                / float(
                    np.mean(calls_ms(self._bare.frame, max(round(capacity_fps * seconds / 4), 2)))
                )
            ]

        found: Comparison = interleave(live, bare, blocks, warm_up=False)
        return Result(
            name="pipeline.sustained",
            value=found.subject.median,
            unit="SR frames/s",
            reference=found.reference.median,
            reference_name="reconstruction and inference in a bare loop",
            ratio=found.ratio,
            ratio_interval=found.ratio_interval,
            targets=(_SR_FPS,),
            samples=found.subject,
            reference_samples=found.reference,
            note=f"{self._shape}; camera at {fps:.1f} SR frames/s, policy latest",
        )

    def paced(self, fps: float, seconds: float) -> list[Result]:
        """Latency, and the share of what is neither reconstruction nor inference, at a rate that
        can be kept.
        """
        run = self._run(fps, seconds)
        report, steps = run.report, run.report["steps_ms"]
        per_frame = {
            name: (s["mean"] or 0.0) * (self._n_raw if name == "group" else 1)
            for name, s in steps.items()
        }
        all_ms = sum(per_frame.values())
        rest_ms = all_ms - per_frame["reconstruct"] - per_frame["infer"]
        skipped = report["sr_skipped"] + report["groups_dropped"]
        pace = (
            f"camera at {fps:.1f} SR frames/s, {report['sr_frames']} separated, {skipped} skipped"
        )
        parts = ", ".join(f"{name} {ms:.2f}" for name, ms in per_frame.items())
        latency = report["latency_ms"]
        return [
            Result(
                "pipeline.overhead",
                rest_ms / all_ms,
                "of the frame time",
                reference=all_ms,
                reference_name="ms, all steps",
                targets=(_OVERHEAD,),
                note=f"{self._shape}; {pace}; ms per frame: {parts}",
            ),
            *(
                Result(
                    f"pipeline.latency_{q}",
                    latency[q] or math.nan,
                    "ms",
                    note=(
                        f"{pace}; from the middle of the exposures to the composed frame,"
                        f" {1e3 / fps:.0f} ms of it for t+1"
                    ),
                )
                for q in ("p50", "p99")
            ),
            Result(
                "pipeline.paced",
                1e3 / float(np.mean(run.intervals_ms)),
                "SR frames/s",
                samples=Summary.of(run.intervals_ms),
                note=f"{pace}; samples are ms between frames",
            ),
        ]

    def network_twice_slower(self, sustained_fps: float, seconds: float) -> Result:
        """Share of separated frames with true neighbours when every second one has to be
        skipped.
        """
        fps = self._camera_fps(2 * sustained_fps)
        run = self._run(fps, seconds)
        report = run.report
        seen = f"{np.mean(run.true_neighbours):.4f} counted by a listener"
        return Result(
            "pipeline.tc_complete",
            float(report["tc_complete"]),
            "of the separated frames",
            # An engine so fast that no camera outruns it proves nothing here.
            targets=(_TC,) if report["sr_skipped"] else (),
            note=(
                f"camera at {fps:.1f} SR frames/s, {report['sr_frames']} separated,"
                f" {report['sr_skipped']} skipped, {report['groups_dropped']} groups dropped,"
                f" {seen}"
            ),
        )

    def _camera_fps(self, wanted_fps: float) -> float:
        """Super-resolution frames per second that the camera is set to."""
        return min(wanted_fps, _MAX_RAW_FPS / self._n_raw)

    def _run(self, fps: float, seconds: float) -> _Run:
        n_t = max(round(fps * seconds), 4)
        plan = sim_sequence(n_t, [self._channel], self._n_raw)
        self._core.setExposure(1e3 / fps / self._n_raw)
        arrivals: list[float] = []
        true_neighbours: list[bool] = []

        def note(frame: MulticolorFrame) -> None:
            arrivals.append(time.perf_counter())
            if not frame.edge:
                true_neighbours.append(frame.true_neighbours)

        with LiveSR(self._core, rig=self._rig, plan=plan) as sr:
            sr.frame_ready.connect(note)
            self._core.mda.run(plan)
            report = sr.wait()
        if len(arrivals) < 2:
            raise RuntimeError(
                f"{len(arrivals)} of {n_t} frames were separated: {report.get('error')}"
            )
        return _Run(report, arrivals, true_neighbours)


class _Bare:
    """Reconstruction and inference, one after the other, and nothing else.

    Raises
    ------
    RuntimeError
        If the rig has no virtual camera.
    """

    def __init__(self, core: CMMCorePlus, rig: RigConfig, channel: str, engine: Engine) -> None:
        camera = find_virtual_camera(core, KnowsTruth)
        if camera is None:
            raise RuntimeError("the virtual rig has no virtual camera")
        self._raw = camera.bank.frames[0]
        plain = rig.with_engine("none")
        self._reconstructor = build_path(plain, channel, camera_geometry(core, plain)).reconstructor
        self._session = open_session(engine, self._reconstructor.shape, ComputeConfig(tile="off"))
        self._session.input[...] = np.random.default_rng(0).random(
            self._session.input.shape, np.float32
        )
        self.infer = self._session.infer

    def frame(self) -> None:
        """Do the work of one frame."""
        self._session.input[-1] = self._reconstructor.reconstruct(list(self._raw))
        self.infer()
