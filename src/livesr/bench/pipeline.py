"""The whole live path on two cores.

Virtual SIM rig, 9 raw frames of 256 x 256 to three structures of 512 x 512, and larger ones.

Camera, hook, reconstruction, network and composition run as in `livesr demo`, without store and
publisher, which have suites of their own. The camera is simulated on the same two cores, in Python,
and a real one is not. So the pipeline is compared with the bare loop of reconstruction and
inference three times, in turns: as it is, without the camera, and with the camera beside both.
"""

from __future__ import annotations

import math
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import useq
import useq.v2 as v2
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.experimental.unicore import UniMMCore

from livesr.base.compute import ComputeConfig
from livesr.base.config import RigConfig, load_rig
from livesr.base.frames import MulticolorFrame, SRFrame
from livesr.base.threads import one_blas_thread
from livesr.bench.engine import bench_engine
from livesr.bench.result import Result, Target, compared
from livesr.bench.timing import Summary, in_turns, paired
from livesr.live.camera import camera_geometry
from livesr.live.core_end import detach_at_exit
from livesr.live.inference.engine import Engine
from livesr.live.inference.runner import open_session
from livesr.live.paths import build_path
from livesr.live.plugin import LiveSR
from livesr.live.run_state import Report
from livesr.live.sources.plan import sim_sequence
from livesr.simulation.camera import KnowsTruth, find_virtual_camera, prepare_virtual_camera
from livesr.simulation.sequence import simulating_rig

_PACED_FPS = 8.0
_MAX_RAW_FPS = (
    1500.0  # well below what a triggered acquisition takes: an overflow would measure Micro-Manager
)
_CAMERA = 0.95  # of the bare loop's rate
_SR_FPS, _SR_FPS_LARGE = Target(8, "least"), Target(6, "least")
_NEAR_BARE = Target(0.9, "least", "ratio")
_REFERENCES = {
    "bare": "reconstruction and inference in a bare loop",
    "beside": "the same beside pymmcore-plus and its simulated camera",
}
_OVERHEAD = Target(0.10, "most")
_TC = Target(0.99, "least")

Acquire = Callable[[v2.MDASequence], None]
"""Acquires a plan, or does as if."""


def measure(quick: bool) -> list[Result]:
    """Return sustained frame rates, overhead and latency at a steady rate, and what happens under
    twice the load.
    """
    seconds, rounds = (1.0, 1) if quick else (6.0, 4)
    engine = bench_engine()
    size, n_t, larger = (64, 3, (96,)) if quick else (256, 12, (512, 1024))
    # As in a run, or threads of BLAS that wait for a core take it from the bare loop as well.
    with one_blas_thread():
        with virtual_rig(simulating_rig(), SensorSize=size, TimePoints=n_t) as (core, rig):
            bench = _Bench(core, rig, engine)
            found = bench.in_turns(seconds, rounds)
            sustained_fps = found[0].value
            found += bench.paced(min(_PACED_FPS, 0.8 * sustained_fps), 1.5 * seconds)
            found.append(bench.network_twice_slower(sustained_fps, seconds))
        for side in larger:
            with virtual_rig(simulating_rig(), SensorSize=side, TimePoints=3) as (core, rig):
                found.append(_Bench(core, rig, engine).larger(seconds))
    return found


@contextmanager
def virtual_rig(name: str, **properties: float) -> Iterator[tuple[CMMCorePlus, RigConfig]]:
    """Load a virtual rig with other pre-init properties of its camera, all of it computed."""
    rig = load_rig(name)
    text = rig.cfg_path.read_text(encoding="utf-8")
    for key, value in properties.items():
        text = re.sub(rf"(?m)^(#py Property,Camera,{key}),.*$", rf"\g<1>,{value}", text)
    core = detach_at_exit(UniMMCore())
    with tempfile.TemporaryDirectory() as folder:
        cfg = Path(folder, "rig.cfg")
        cfg.write_text(text, encoding="utf-8")
        core.loadSystemConfiguration(str(cfg))
    prepare_virtual_camera(core, None)  # what is measured is no simulation
    try:
        yield core, rig
    finally:
        core.unloadAllDevices()


def acquired_per_second(core: CMMCorePlus, rig: RigConfig, groups: int, raw: int) -> float:
    """Record `groups` of `raw` frames; return camera frames/s from the first picture on."""
    arrivals_s: list[float] = []

    def arrived(frame: SRFrame) -> None:
        arrivals_s.append(time.perf_counter())

    plan = sim_sequence(groups, channels=list(rig.channels), raw=raw)
    with (
        tempfile.TemporaryDirectory() as folder,
        LiveSR(
            core, rig=rig, store=Path(folder, "run.ome.zarr"), plan=plan, policy="complete"
        ) as session,
    ):
        session.input_ready.connect(arrived)
        core.mda.run(plan)
    return raw * (len(arrivals_s) - 1) / (arrivals_s[-1] - arrivals_s[0])


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

    @property
    def fps(self) -> float:
        """Super-resolution frames per second."""
        return 1e3 / float(np.mean(self.intervals_ms))


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

    def in_turns(self, seconds: float, rounds: int) -> list[Result]:
        """Frames per second when the camera is a little too fast, beside the two unavoidable steps.

        With and without the camera beside either.
        """
        fps, played, handed = self._rate(), list[Report](), list[Report]()
        found = in_turns(
            {
                "played": lambda: _kept(self._run(fps, seconds), played),
                "handed": lambda: _kept(self._run(fps, seconds, self._hand_over), handed),
                "bare": lambda: self._bare.fps(seconds / 2),
                "beside": lambda: self._bare_beside_camera(fps, seconds / 2),
            },
            rounds,
        )
        with_camera = f"{self._shape}; {_pace(fps, played)}"
        without = f"{self._shape}; frames copied and handed over, no camera; {_pace(fps, handed)}"
        return [
            _ratio("sustained", found, "played", "bare", _SR_FPS, with_camera),
            _ratio("no_camera", found, "handed", "bare", _NEAR_BARE, without),
            _ratio("camera_beside_both", found, "played", "beside", _NEAR_BARE, with_camera),
        ]

    def larger(self, seconds: float) -> Result:
        """Frames per second of larger frames, beside the two unavoidable steps."""
        fps, played = self._rate(), list[Report]()
        found = in_turns(
            {
                "played": lambda: _kept(self._run(fps, seconds), played),
                "bare": lambda: self._bare.fps(seconds / 2),
            },
            2,
        )
        name, note = f"raw_{self._core.getImageHeight()}", f"{self._shape}; {_pace(fps, played)}"
        return _ratio(name, found, "played", "bare", _SR_FPS_LARGE, note)

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

    def _rate(self) -> float:
        """Return the camera's rate: what a run should keep up with, and a little more.

        Not the best that the bare loop does, for what is given up was reconstructed all the same.
        """
        return self._camera_fps(_CAMERA * max(self._bare.fps(0.5) for _ in range(6)))

    def _plan(self, fps: float, seconds: float) -> v2.MDASequence:
        """Set the camera to `fps`; return what it is to acquire."""
        self._core.setExposure(1e3 / fps / self._n_raw)
        return sim_sequence(max(round(fps * seconds), 4), [self._channel], self._n_raw)

    def _run(self, fps: float, seconds: float, acquire: Acquire | None = None) -> _Run:
        """Separate what the core's camera plays, or what `acquire` hands over."""
        plan = self._plan(fps, seconds)
        arrivals: list[float] = []
        true_neighbours: list[bool] = []

        def note(frame: MulticolorFrame) -> None:
            arrivals.append(time.perf_counter())
            if not frame.edge:
                true_neighbours.append(frame.true_neighbours)

        with LiveSR(self._core, rig=self._rig, plan=plan) as sr:
            sr.frame_ready.connect(note)
            (acquire or self._core.mda.run)(plan)
            report = sr.wait()
        if len(arrivals) < 2:
            raise RuntimeError(f"{len(arrivals)} frames were separated: {report.get('error')}")
        return _Run(report, arrivals, true_neighbours)

    def _hand_over(self, plan: v2.MDASequence) -> None:
        """Hand frames to livesr as pymmcore-plus does, at the camera's rate, without a camera.

        Copied, as popping a frame from the core's buffer copies it.
        """
        signals, groups = self._core.mda.events, self._bare.groups
        exposures, period_s = list(plan), self._core.getExposure() / 1e3
        signals.sequenceStarted.emit(useq.MDASequence(), {})
        due = time.perf_counter()
        for i, exposure in enumerate(exposures):
            due += period_s
            time.sleep(max(due - time.perf_counter(), 0))
            t, raw = divmod(i, self._n_raw)
            pixels = groups[t % len(groups), raw].copy()
            signals.frameReady.emit(pixels, exposure, {"hardware_triggered": True})
        signals.sequenceFinished.emit(useq.MDASequence())

    def _bare_beside_camera(self, fps: float, seconds: float) -> float:
        """Frames per second of the two unavoidable steps while the camera plays to nobody."""
        acquiring = threading.Thread(target=self._core.mda.run, args=(self._plan(fps, seconds),))
        came, frame_ready = threading.Event(), self._core.mda.events.frameReady

        def note(*frame: object) -> None:
            came.set()

        frame_ready.connect(note)
        acquiring.start()
        try:
            while not came.wait(0.1) and acquiring.is_alive():
                pass
            return self._bare.fps_while(acquiring.is_alive)
        finally:
            acquiring.join()
            frame_ready.disconnect(note)


def _kept(run: _Run, reports: list[Report]) -> float:
    """Return the frames per second of a run, whose report is added to others."""
    reports.append(run.report)
    return run.fps


def _pace(camera_fps: float, reports: Sequence[Report]) -> str:
    """Say how fast the camera was, and how many frames were given up: if none, it was too slow."""
    given_up = sum(r["sr_skipped"] + r["groups_dropped"] for r in reports)
    came = given_up + sum(r["sr_frames"] for r in reports)
    return f"camera at {camera_fps:.1f} SR frames/s, policy latest, {given_up} of {came} given up"


def _ratio(
    name: str,
    found: Sequence[Mapping[str, float]],
    subject: str,
    reference: str,
    target: Target,
    note: str,
) -> Result:
    """Return how two of the ways that were measured in turns compare."""
    return compared(
        f"pipeline.{name}",
        paired([(one[subject], one[reference]) for one in found]),
        "SR frames/s",
        _REFERENCES[reference],
        (target,),
        note,
    )


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
        self.groups = camera.bank.frames
        plain = rig.with_engine("none")
        self._reconstructor = build_path(plain, channel, camera_geometry(core, plain)).reconstructor
        self._session = open_session(engine, self._reconstructor.shape, ComputeConfig(tile="off"))
        self._session.input[...] = np.random.default_rng(0).random(
            self._session.input.shape, np.float32
        )

    def fps(self, seconds: float) -> float:
        """Frames per second, of at least two."""
        end = time.perf_counter() + seconds
        return self.fps_while(lambda: time.perf_counter() < end)

    def fps_while(self, going_on: Callable[[], bool]) -> float:
        """Frames per second, of at least two, as long as something goes on."""
        start, n = time.perf_counter(), 0
        while n < 2 or going_on():
            self._frame()
            n += 1
        return n / (time.perf_counter() - start)

    def _frame(self) -> None:
        """Do the work of one frame."""
        self._session.input[-1] = self._reconstructor.reconstruct(list(self.groups[0]))
        self._session.infer()
