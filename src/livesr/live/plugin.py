"""`LiveSR`: livesr on a running Micro-Manager core.

Owns the binding to pymmcore-plus events: what is opened when. What every run has is in
`session.py`, the way of a frame in `pipeline.py`.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from types import TracebackType
from typing import Any, Literal, Self

from pymmcore_plus import CMMCorePlus
from pymmcore_plus.mda import FinishReason
from useq import MDAEvent, MDASequence

from livesr.base.compute import DeviceChoice, ErrorMaps, Views
from livesr.base.config import RigConfig, load_rig, parse
from livesr.base.errors import ConfigError, LiveSRError, RunError
from livesr.base.files import not_expected
from livesr.base.geometry import Geometry
from livesr.base.run_config import AnyPath, LiveConfig, named_in
from livesr.base.run_description import RunDescription
from livesr.base.threads import before_threads_end
from livesr.base.timing import starts_ns
from livesr.base.words import counted
from livesr.live.audit import AuditSchedule
from livesr.live.beside import check_companions
from livesr.live.camera import Cameras, channel_cameras, size_fields, stage_position
from livesr.live.core_end import detach_at_exit
from livesr.live.honoured import check_honoured
from livesr.live.inference.engine import manifest_files
from livesr.live.networks import NO_NETWORKS
from livesr.live.optical_state import ChannelState
from livesr.live.paths import build_path, build_superposition
from livesr.live.pipeline import Pipeline
from livesr.live.plan_summary import PlanSummary, summarise
from livesr.live.run_state import Report
from livesr.live.session import Session, check_places
from livesr.live.sinks.sink import Sink
from livesr.live.sources.acquiring import acquires, acquires_elsewhere, acquiring_threads
from livesr.live.sources.continuous import LiveMode
from livesr.live.sources.delivery import DRAINED, Delivery
from livesr.live.sources.mda import listen, unlisten
from livesr.live.sources.plan import RawFramesPlan, plan_text
from livesr.live.sources.triggered import trigger_unused
from livesr.modalities.registry import modalities_of

log = logging.getLogger(__name__)
_CORE_LOG = logging.getLogger("pymmcore-plus")

_NOTHING = (
    "Nothing was acquired before the block was left, and nothing is recorded. core.run_mda returns"
    " at once: join the thread that it returns inside of the block, or use core.mda.run."
)
_LEFT = (
    "LiveSR was left while a plan was being acquired: the acquisition was cancelled, what came is"
    " kept."
)
_LEFT_TO_ANOTHER = (
    "LiveSR was left while a plan was being acquired, and another LiveSR on the same core goes on"
    " with it: what came until then is kept."
)
_UNDER_WAY = (
    "An acquisition is under way on this core, and was when LiveSR was entered: it is not recorded."
    " Those are that start inside of the block."
)
_BROKEN_OFF = (
    "The acquisition was broken off from outside, by Ctrl-C for instance, and never said that it"
    " has finished: what came is kept."
)
_ERRORED = "core.mda.run raises it, the thread of core.run_mda prints it. What came is kept."
_CAMERA_FAILED = "The log of pymmcore-plus says what the camera or its driver reported."
_OVERLAP = (
    "An acquisition was started while another one on the same core was under way, and both would"
    " have used one camera at a time: the second was refused, the first goes on. From a listener or"
    " another thread, wait for the end of the first (sr.finished, or the thread of core.run_mda),"
    " or hand its generator the exposures to come."
)
_ENTERED: dict[int, LiveSR] = {}  # those in use, for when the interpreter ends without leaving them

_MISSING_SHARE = (
    0.01  # of the announced frames: more, and the camera failed; fewer, and it lost some
)


class LiveSR(Session):
    """Separates what a core acquires, live.

    A context manager: on entering, the engine is compiled and, if the plan is given, store and
    address are opened; every multi-dimensional acquisition inside becomes one run with its own
    store, which ends when the acquisition does. On leaving, an acquisition that still runs in
    another thread is cancelled, and everything received is processed and stored: wait for the
    thread of `core.run_mda` before you leave. A script that ends without leaving is left for it.

    With `live` "own" or "peek" every sequence acquisition outside an MDA, as the live mode of a
    GUI, becomes a run as well; leaving ends that run and lets the camera go on (Ctrl-C stops it).
    Each run is then opened when it starts.

    Parameters
    ----------
    core : the core that acquires
    rig : a rig.yaml, its folder, a name in hardware_configs, or a `RigConfig`
    engine : separates the only channel that is separated, instead of rig.yaml's; "none" leaves the
        separation out
    upscale : enlarges the only channel that is upscaled (or separated, or there is), likewise
    sinks : where frames go as well: objects of classes derived from `livesr.Sink`, each of which
        serves one run after the other, or names under which packages announce theirs
    plan : the useq sequence to come; needed when it has positions or z and is no plain
        `useq.MDASequence`
    live : what happens to sequence acquisitions outside an MDA: "own" takes every frame out of
        Micro-Manager's buffer, where previews then find none; "peek" copies the newest and may miss
        some
    store, spare, flush_s : OME-Zarr to write, None keeps nothing (a path that exists gets the next
        number); a folder on another disk, where it goes on when its own disk is full or fails;
        every how many seconds all of it is written through to the disk
    publish_raw : ZeroMQ address on which another computer may ask for the raw groups
    publish, insecure, keys : ZeroMQ address to publish on, such as "tcp://127.0.0.1:5555"; whether
        one that other computers reach may be unencrypted; the folder of the keys that encrypt
    policy, provisional : "latest" skips predictions when the network is slow and, with "auto",
        shows a frame before its successor came; "complete" skips nothing and lets latency grow
    record_raw, record_recon : whether raw frames and reconstructions are stored
    pairs : folder for the true channels of a superposition, to train on
    raw_queue_bytes : memory for frames that wait, None takes a quarter of what is free
    backend, endpoint, precision, device, threads, tile, resample : how it is computed, as in
        `ComputeConfig`
    ensemble, uncertainty : views of every frame that are averaged and compared, likewise
    error_map, error_bars, residual_plane : what is told of its pictures, likewise

    Attributes
    ----------
    frame_ready : signal with every final `MulticolorFrame` (a prediction); emitted in a thread of
        its own
    provisional_ready : signal with provisional ones, which the final frame of the same time point
        replaces; likewise
    input_ready : signal with every `SRFrame` (a measurement); likewise
    finished : signal with the report of every run
    report : report of the last run, {} before
    error : the first error that ended a run early, None without one; raised on leaving
    newest_error : the last one, or what let none begin
    interrupted : whether Ctrl-C cut short what was left to compute
    audit_schedule : of a rig with audits, for `livesr.with_raw_frames`; else None

    Raises
    ------
    ConfigError
        At once, if `core` is no core, or a setting is wrong.
    UsageError
        On entering, if rig, engine, backend, store or address cannot work; nothing is started.

    Examples
    --------
    >>> with LiveSR(core, rig="hardware_configs/virtual_sim", store="run.ome.zarr") as sr:
    ...     sr.frame_ready.connect(react)
    ...     core.mda.run(sequence)
    >>> print(sr.report)
    """

    def __init__(
        self,
        core: CMMCorePlus,
        *,
        rig: AnyPath | RigConfig | None = None,
        engine: str | None = None,
        upscale: str | None = None,
        sinks: Sequence[Sink | str] = (),
        plan: Any = None,
        live: Literal["off", "own", "peek"] = "off",
        store: AnyPath | None = None,
        spare: AnyPath | None = None,
        flush_s: float | None = None,
        publish: str | None = None,
        publish_raw: str | None = None,
        insecure: bool = False,
        keys: AnyPath | None = None,
        policy: Literal["latest", "complete"] = "latest",
        provisional: Literal["auto", "off"] = "auto",
        record_raw: bool = True,
        record_recon: bool = True,
        pairs: AnyPath | None = None,
        raw_queue_bytes: int | None = None,
        backend: str = "auto",
        endpoint: str | None = None,
        precision: str = "auto",
        device: DeviceChoice = "auto",
        threads: int = 0,
        tile: int | Literal["auto", "off"] = "auto",
        resample: Literal["auto", "off"] | None = None,
        uncertainty: Views | None = None,
        ensemble: Views | None = None,
        error_map: ErrorMaps | None = None,
        error_bars: bool = False,
        residual_plane: bool = False,
    ) -> None:
        settings = parse(LiveConfig, named_in(LiveConfig, locals()), "LiveSR")
        _check_core(core)
        _check_plan(plan)
        super().__init__(_rig(rig, engine, upscale), settings, sinks)
        self._core, self._mode = core, live
        detach_at_exit(core)
        self._plan = plan
        self.audit_schedule = AuditSchedule(self.rig.audit) if self.rig.audit else None
        self._live = LiveMode(
            core, self.rig, live, self._open_live, self._release_pipeline, self.fail
        )
        self._cameras = Cameras({})
        self._built: dict[str, Geometry] = {}
        self._delivery = Delivery(core)
        self._unheeded: tuple[str, ...] = ()
        self._core_log_level = logging.NOTSET
        self._entered = self._begun = False
        self._under_way = False  # whether there is an acquisition that began before the block
        self._refused = 0  # acquisitions that were begun inside of another, and still have to end
        self._connected: tuple[tuple[Any, Any], ...] = ()
        self._summary: tuple[Any, PlanSummary] | None = None
        self._report_before = self.report

    # -- life --------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._entered:
            raise ConfigError(
                "This LiveSR is already in use: make another one for another 'with' block."
            )
        if self._mode == "own" and any(
            other.has_hold_of(self._core, "live view") for other in list(_ENTERED.values())
        ):
            raise ConfigError(
                "Another LiveSR takes every frame of this core's live view, and each of the two"
                " would get a part of them: leave that one first (Stop, in its window), or leave"
                " the live view to it with live='off'."
            )
        self.error = self.newest_error = None  # those of another block were raised when it was left
        self._report_before = self.report
        # pymmcore-plus logs every event; at its default level that costs more than the hook itself.
        self._core_log_level = _CORE_LOG.level
        _CORE_LOG.setLevel(logging.WARNING)
        try:
            check_places(self.settings, self._own_sinks)
            self._open_paths(self._cameras_of(self._plan, self._channel_names(self._plan)))
            # What a plan sets before its first exposure may change what the camera delivers: wait
            # for it.
            if (
                self._plan is not None
                and self._mode == "off"
                and getattr(self._plan, "setup", None) is None
            ):
                self._arm(self._plan)
            self._live.connect()
        except BaseException:
            self._release_pipeline()
            self.wait()
            self._close_paths()
            _CORE_LOG.setLevel(self._core_log_level)
            raise
        self._entered = True
        if acquires(self._core):
            self._under_way = True
            log.warning("%s", _UNDER_WAY)
        # A script that never leaves the block, or is torn out of it, still gets a whole store and
        # its report.
        _leave_when_the_interpreter_ends()
        _ENTERED[id(self)] = self
        self._connected = self._listeners()
        for signal, listener in self._connected:
            listen(signal, listener, first=listener in (self._frame_ready, self._sequence_finished))
        return self

    def has_hold_of(self, core: CMMCorePlus, what: Literal["live view", "acquisition"]) -> bool:
        """Return whether it takes every frame out of the buffer of this core, in live mode, or
        takes part in what its MDA acquires now.
        """
        held = self._mode == "own" if what == "live view" else self._begun
        return self._entered and held and self._core is core

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._forked:
            return
        _ENTERED.pop(id(self), None)
        self._end_acquisition()
        if kind is KeyboardInterrupt and self._core.isSequenceRunning():
            self._core.stopSequenceAcquisition()  # of live mode, which goes on otherwise
        for signal, listener in self._connected:
            unlisten(signal, listener)
        self._live.disconnect()
        self._release_pipeline()
        report = self.wait()
        nothing = not report or report is self._report_before
        if kind is None and nothing and self._mode == "off" and self.error is None:
            log.warning("%s", _NOTHING)
        self._close_paths()
        _CORE_LOG.setLevel(self._core_log_level)
        self._entered = False
        if kind is None and self.error is not None:
            raise self.error

    def _listeners(self) -> tuple[tuple[Any, Any], ...]:
        events = self._core.mda.events
        return (
            (events.sequenceStarted, self._sequence_started),
            (events.eventStarted, self._event_started),
            (events.frameReady, self._frame_ready),
            (events.sequenceFinished, self._sequence_finished),
        )

    def _end_acquisition(self) -> None:
        """See to it that no acquisition outlives the block.

        What began before it goes on, and what another session on the same core records. One in
        another thread is cancelled, and waited for until it has told everybody that it has
        finished. One that was torn out of its loop, as by Ctrl-C, never will.
        """
        runner = self._core.mda
        if runner.status.phase == "idle":
            return
        if acquiring_threads(self._core):
            others = any(o.has_hold_of(self._core, "acquisition") for o in list(_ENTERED.values()))
            if self._under_way or others:
                if self._begun and self._pipeline:
                    self._pipeline.warn(_LEFT_TO_ANOTHER)
                self._begun = self._under_way = False
                return
            if self._pipeline and runner.is_running():
                self._pipeline.warn(_LEFT)
            runner.cancel()
            with suppress(KeyboardInterrupt):
                while acquires_elsewhere(self._core):
                    time.sleep(0.02)
            return
        runner.cancel()
        self._end_broken_off()

    def _end_broken_off(self) -> None:
        """End the run of an acquisition that was torn out of its loop, and left its camera on."""
        if not self._begun:
            return
        self._begun, self._refused = False, 0
        if self._core.isSequenceRunning():
            self._core.stopSequenceAcquisition()
        if self._pipeline:
            self._delivery.settle(self._pipeline.hook)
            self._pipeline.warn(_BROKEN_OFF)
        self._release_pipeline()

    def wait(self) -> Report:
        """Wait until the run that has ended is processed and stored; return its report.

        Ctrl-C while waiting leaves out what is not computed yet, and still stores everything
        received.
        """
        self._live.settle()
        return super().wait()

    # -- events of the core ------------------------------------------------------------------------

    def _sequence_started(self, sequence: Any, metadata: Mapping[str, Any]) -> None:
        """Open what the run needs; in the acquisition thread, before its first frame."""
        if self._begun and len(acquiring_threads(self._core)) > 1:
            self._refuse_inside_another()
            return
        self._end_broken_off()
        self._begun, self._under_way = True, False
        try:
            self._live.finish()
            self.wait()
            engine = self._core.mda.engine
            if engine and isinstance(self._plan, RawFramesPlan) and self._plan.setup is not None:
                engine.setup_event(self._plan.setup)
            if self._pipeline is None:
                self._arm(self._plan_of(sequence))
            else:
                self._check_cameras()
            if self._pipeline is not None:
                self._pipeline.begin_at(stage_position(self._core))
            for way, section in modalities_of(self.rig):
                way.prepare_run(self._core, section)
        except Exception as e:
            if isinstance(e, LiveSRError):
                self._went_wrong(e)
                log.error("The run cannot start: %s", e)
            else:
                self._went_wrong(RunError(f"The run cannot start: {type(e).__name__}: {e}."))
                log.exception("the run cannot start")
            self._core.mda.cancel()

    def _plan_of(self, announced: Any) -> Any:
        """Return the plan of an acquisition that begins: what it says itself, if it does.

        An iterable of events is announced as a plan without axes.
        """
        if self._plan is None or type(announced) is MDASequence:
            return announced
        return self._plan

    def _refuse_inside_another(self) -> None:
        """End an acquisition that was begun before the last one has ended."""
        self._refused += 1
        self._went_wrong(RunError(_OVERLAP))
        if self._pipeline:
            self._pipeline.warn(_OVERLAP)
        self._core.mda.cancel()

    def _check_cameras(self) -> None:
        """Refuse a run whose cameras were set otherwise since the session was opened for it."""
        now = self._cameras_of(self._plan, list(self._cameras.geometries))
        for name, geometry in now.geometries.items():
            if geometry != (opened := self._cameras.geometries[name]):
                raise ConfigError(
                    f"The camera delivers {geometry.words()}, and the session was opened for"
                    f" {opened.words()}: open LiveSR after ROI, binning and pixel type are set."
                )

    def _event_started(self, event: Any) -> None:
        """Count what the acquisition announces.

        Pymmcore-plus reports a camera that fails to deliver to the log alone.
        """
        if (pipeline := self._pipeline) is not None and self._begun:
            self._delivery.event_started(event, pipeline.hook)

    def _frame_ready(self, image: Any, event: Any, metadata: Mapping[str, Any]) -> None:
        """Hand one frame over; in the acquisition thread."""
        if (pipeline := self._pipeline) is not None and self._begun:
            vanished = self._delivery.vanished
            event = self._delivery.event_of(event, metadata)
            pipeline.hook.frame_ready(image, event, metadata)
            if self._delivery.vanished > vanished:
                pipeline.hook.missing = self._delivery.vanished
                pipeline.warn(DRAINED)

    def _sequence_finished(self, sequence: Any) -> None:
        if self._refused:
            self._refused -= 1
            return
        if self._under_way:
            self._under_way = False
            return
        self._begun = False
        if self._pipeline:
            self._delivery.settle(self._pipeline.hook)
            if self._core.mda.status.finish_reason != FinishReason.CANCELED:
                self._check_delivery(self._pipeline)
            elif self._delivery.vanished:
                self._pipeline.hook.missing = self._delivery.vanished
        self._release_pipeline()

    def _check_delivery(self, pipeline: Pipeline) -> None:
        """Compare what the acquisition announced with what came.

        One frame in a hundred missing is a failure, and so is an acquisition that an exception
        ended. What the acquisition engine left out on purpose is neither.
        """
        announced, received = self._delivery.announced, pipeline.hook.received
        if skipped := self._delivery.skipped:
            pipeline.warn(_skipped(skipped))
        if received < announced:
            pipeline.hook.missing = announced - received
            if self._delivery.vanished:
                pipeline.warn(DRAINED)
        failed = announced - skipped - received
        if self._core.mda.status.finish_reason == FinishReason.ERRORED:
            came = f"The camera delivered {received} of {announced} frames, and the"
            broke_off = f"acquisition broke off with an error after frame {received}: {_ERRORED}"
            pipeline.stop(RunError(f"{came if failed > 0 else 'The'} {broke_off}"))
        elif failed > _MISSING_SHARE * announced:
            why = DRAINED if self._delivery.vanished else _CAMERA_FAILED
            pipeline.stop(
                RunError(
                    f"The camera delivered {received} of {announced} frames. What came is kept."
                    f" {why}"
                )
            )

    def _open_live(self, plan: Any, on_stop: Callable[[], None]) -> Pipeline:
        """Open the run of a sequence acquisition outside an MDA."""
        self._end_broken_off()
        self.wait()
        return self._arm(plan, on_stop)

    # -- runs --------------------------------------------------------------------------------------

    def _arm(self, plan: Any, on_stop: Callable[[], None] | None = None) -> Pipeline:
        """Build the run that comes next: description, sinks, threads.

        `on_stop` stops the camera, by default the MDA.
        """
        names = self._channel_names(plan)
        cameras = self._cameras_of(plan, names)
        if any(self._built.get(name) != geometry for name, geometry in cameras.geometries.items()):
            self._close_paths()
            self._open_paths(cameras)
        self._cameras = cameras
        self._delivery.begin()
        armed: list[Pipeline] = []

        def cancel() -> None:
            if armed and self._pipeline is armed[0]:  # what is acquired later is the next run's
                self._core.mda.cancel()

        pipeline = self._open_run(self._describe(plan, names), on_stop or cancel)
        armed.append(pipeline)
        if on_stop is None:
            pipeline.hook.setting = self._delivery.setting
        for sentence in (
            trigger_unused(self._core, self.rig),
            *cameras.notes,
            *self._unheeded,
            *self._summarised(plan).notes,
        ):
            if sentence:
                pipeline.warn(sentence)
        return pipeline

    def _reacting(self) -> list[Sink]:
        return [s for way, _ in modalities_of(self.rig) for s in way.sinks(self._core, self.rig)]

    def _describe(self, plan: Any, names: list[str]) -> RunDescription:
        about = self._summarised(plan)
        for name in sorted(about.lone):
            networks = self._paths[name].networks if name in self._paths else NO_NETWORKS
            if networks.engine and networks.window > 1:
                raise ConfigError(
                    f"The plan never acquires channel {name!r} at two time points in a row, and its"
                    " engine looks at three: acquire it at every time point, or leave out its"
                    " engine (engine='none')."
                )
        if self.rig.sums and self.rig.superpose and about.channels_apart:
            raise ConfigError(
                f"The plan takes a channel of {self.rig.superpose.name} at later time points before"
                " another at this one, and there is no sum until all are there: put channels"
                " inside time (axis order t, c)."
            )
        interval_s = about.interval_s
        if interval_s and not about.raw_axis:
            interval_s *= max(
                self._paths[name].n_raw for name in names
            )  # raw frames are counted along time
        files = self.rig.files()
        files |= manifest_files(e for path in self._paths.values() for e in path.networks.engines)
        text = plan_text(plan)
        return RunDescription(
            stream_id=uuid.uuid4().hex,
            started_ns=starts_ns(),
            channels=tuple(self._paths[name].description for name in (*names, *self.rig.sums)),
            **about.places(),
            interval_s=interval_s,
            record_raw=self.settings.record_raw,
            record_recon=self.settings.record_recon,
            sidecars={
                **{name: file for name, file in files.items() if file.is_file()},
                **({"plan.yaml": text} if text else {}),
            },
        )

    @property
    def _audit_schedule(self) -> AuditSchedule | None:
        return getattr(self._plan, "schedule", None) or self.audit_schedule

    def _summarised(self, plan: Any) -> PlanSummary:
        """Return what the plan will deliver; each plan is walked through once."""
        if plan is None:
            return PlanSummary()
        if self._summary is None or self._summary[0] is not plan:
            only = next(iter(self.rig.channels), "") if len(self.rig.channels) == 1 else ""
            size_fields(self._core, plan)
            self._summary = plan, summarise(plan, self.rig.raw_frames, only)
        return self._summary[1]

    def _channel_names(self, plan: Any) -> list[str]:
        """Channels that the plan acquires, or those of rig.yaml when it does not say."""
        named = list(self._summarised(plan).channels)
        # An iterable of events is announced as a plan without axes: it may well name channels.
        if not named and len(getattr(plan, "used_axes", "")) > 0 and len(self.rig.channels) > 1:
            raise ConfigError(
                f"The plan names no channel, and rig {self.rig.name!r} describes"
                f" {', '.join(self.rig.channels)}: say in the plan which of them are acquired."
            )
        return named or list(self.rig.channels) or [""]

    def _cameras_of(self, plan: Any, names: list[str]) -> Cameras:
        """Return what the cameras will deliver for the channels of a plan.

        Without one, for each channel by itself.
        """
        states = self._summarised(plan).states
        asked = {name: states.get(name, ChannelState()) for name in names}
        if plan is not None:
            return channel_cameras(self._core, self.rig, asked)
        apart = [
            channel_cameras(self._core, self.rig, {name: state}) for name, state in asked.items()
        ]
        return Cameras({name: g for each in apart for name, g in each.geometries.items()})

    def _open_paths(self, cameras: Cameras) -> None:
        compute = self.settings.compute
        self._built = dict(cameras.geometries)
        for name, geometry in cameras.geometries.items():
            self._paths[name] = build_path(self.rig, name, geometry, compute)
        check_companions(self._paths)
        for name in self.rig.sums:
            self._paths[name] = build_superposition(self.rig, self._paths, compute)
        self._unheeded = check_honoured(self._paths, compute)


def _skipped(n: int) -> str:
    return (
        f"The acquisition engine skipped {counted(n, 'exposure')} (SkipEvent): zeros"
        " stand in their place in raw."
    )


def _check_core(core: object) -> None:
    if isinstance(core, CMMCorePlus):
        return
    came = "None" if core is None else f"a {type(core).__name__}"
    raise ConfigError(
        f"LiveSR was given {came} as its core, and expects pymmcore-plus' CMMCorePlus: pass"
        " CMMCorePlus.instance() after loadSystemConfiguration, or the core that your window shows."
    )


def _check_plan(plan: object) -> None:
    if isinstance(plan, str | bytes | Mapping | MDAEvent) or not (
        plan is None or isinstance(plan, Iterable)
    ):
        raise not_expected(
            plan,
            "plan",
            "what core.mda.run is given: a useq.MDASequence, livesr.sim_sequence, or events"
            " (of a file: useq.MDASequence.from_file)",
        )


def _rig(rig: AnyPath | RigConfig | None, engine: str | None, upscale: str | None) -> RigConfig:
    """Return the rig of a run, with the engines that are named instead of its own."""
    if rig is None:
        raise ConfigError(
            "LiveSR was given no rig, and expects what describes the microscope: rig='my_rig', a"
            " folder with rig.yaml, or a name that 'livesr info' lists."
        )
    found = rig if isinstance(rig, RigConfig) else load_rig(rig)
    return found.with_engines({"separate": engine, "upscale": upscale})


@cache
def _leave_when_the_interpreter_ends() -> None:
    """See to it that every store is closed; once in a process.

    Before the interpreter waits for its threads: it would wait for the last frame of an
    acquisition, and from Python 3.12 on start no more of them.
    """
    before_threads_end(_leave_all)


def _leave_all() -> None:
    for session in reversed(tuple(_ENTERED.values())):
        try:
            session.__exit__(SystemExit, None, None)
        except BaseException:  # the others are left all the same
            log.exception("LiveSR could not be left as it should")
