"""`LiveSR`: livesr on a running Micro-Manager core.

Owns the binding to pymmcore-plus events: what is opened when. What every run has is in `session.py`, the way of a frame in
`pipeline.py`.
"""

from __future__ import annotations

import atexit
import logging
import os
import time
import uuid
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from pymmcore import CMMCore
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.mda import FinishReason

from livesr.base.config import RigConfig, RunConfig, load_rig, parse
from livesr.base.errors import ConfigError, LiveSRError, RunError
from livesr.base.timing import now_ns
from livesr.live.optical_state import mirrored_since
from livesr.live.paths import Geometry, build_path, build_superposition
from livesr.live.pipeline import Pipeline
from livesr.live.session import Session
from livesr.live.sinks.sink import RunDescription
from livesr.live.sources.continuous import LiveMode
from livesr.live.sources.mda import listen
from livesr.live.sources.plan import plan_text
from livesr.live.sources.triggered import trigger_unused
from livesr.live.survey import Survey, survey

log = logging.getLogger(__name__)
_CORE_LOG = logging.getLogger("pymmcore-plus")

_MISSING_SHARE = 0.01  # of the announced frames: more, and the camera failed; fewer, and it lost some


class LiveSR(Session):
    """Separates what a core acquires, live.

    A context manager: on entering, the engine is compiled and, if the plan is given, store and address are opened; every
    multi-dimensional acquisition inside becomes one run with its own store, which ends when the acquisition does; on
    leaving, everything received is processed and stored. A script that ends without leaving is left for it.

    With `live` "own" or "peek" every sequence acquisition outside an MDA, as the live mode of a GUI, becomes a run as well;
    leaving ends that run and lets the camera go on (Ctrl-C stops it). Each run is then opened when it starts.

    Parameters
    ----------
    core : the core that acquires
    rig : a rig.yaml, its folder, a name in hardware_configs, or a `RigConfig`
    engine : separates the only channel that is separated, instead of rig.yaml's; "none" leaves the separation out
    upscale : enlarges the only channel that is upscaled (or separated, or there is), likewise
    store : OME-Zarr to write; a path that exists gets the next number; None keeps nothing
    publish : ZeroMQ address to publish on, such as "tcp://127.0.0.1:5555"
    spare : folder on another disk, where the store goes on when its own disk is full or fails
    plan : the useq sequence to come; needed when it has positions or z and is no plain `useq.MDASequence`
    **settings : fields of `livesr.base.config.RunConfig` (policy, live, backend, precision, threads ...)

    Attributes
    ----------
    frame_ready : signal with every final `MulticolorFrame` (a prediction); emitted in a thread of its own
    provisional_ready : signal with provisional ones, which the final frame of the same time point replaces; likewise
    input_ready : signal with every `SRFrame` (a measurement); likewise
    finished : signal with the report of every run
    report : report of the last run, {} before
    error : the first error that ended a run early, None without one; raised on leaving
    interrupted : whether Ctrl-C cut short what was left to compute

    Raises
    ------
    UsageError
        On entering, if rig, engine or backend cannot work, or store or address when the plan is given; nothing is started.

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
        rig: str | os.PathLike[str] | RigConfig,
        engine: str | None = None,
        upscale: str | None = None,
        store: str | os.PathLike[str] | None = None,
        publish: str | None = None,
        spare: str | os.PathLike[str] | None = None,
        plan: Any = None,
        **settings: Any,
    ) -> None:
        rig = rig if isinstance(rig, RigConfig) else load_rig(rig)
        rig = rig.with_engine(engine) if engine else rig
        super().__init__(
            rig.with_engine(upscale, "upscale") if upscale else rig,
            parse(RunConfig, {**settings, "store": store, "publish": publish, "spare": spare}, "LiveSR"),
        )
        self._core = core
        _detach_at_exit(core)
        self._plan = plan
        self._live = LiveMode(core, self.rig, self.settings.live, self._open_live, self._release_pipeline, self.fail)
        self._camera: Geometry | None = None
        self._announced = 0
        self._core_log_level = logging.NOTSET
        self._entered = False
        self._survey: tuple[Any, Survey] | None = None

    # -- life --------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._entered:
            raise ConfigError("This LiveSR is already in use: make another one for another 'with' block.")
        # pymmcore-plus logs every event; at its default level that costs more than the hook itself.
        self._core_log_level = _CORE_LOG.level
        _CORE_LOG.setLevel(logging.WARNING)
        try:
            self._open_paths(self._channel_names(self._plan))
            if self._plan is not None and self.settings.live == "off":
                self._arm(self._plan)
            self._live.connect()
        except BaseException:
            self._close_paths()
            _CORE_LOG.setLevel(self._core_log_level)
            raise
        self._entered = True
        # A script that never leaves the block, or is torn out of it, still gets a whole store and its report.
        atexit.register(self.__exit__, SystemExit, None, None)
        for signal, listener in self._listeners():
            listen(signal, listener)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        atexit.unregister(self.__exit__)
        self._end_acquisition(kind)
        for signal, listener in self._listeners():
            signal.disconnect(listener)
        self._live.disconnect()
        self._release_pipeline()
        self.wait()
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

    def _end_acquisition(self, kind: type[BaseException] | None) -> None:
        """See to it that no acquisition outlives the block: one in another thread is waited for, after an error stopped."""
        if kind is KeyboardInterrupt and self._core.isSequenceRunning():
            self._core.stopSequenceAcquisition()  # it was torn out of its loop and left the camera running
            return
        if kind is not None and self._core.mda.is_running():
            self._core.mda.cancel()
        while kind is not KeyboardInterrupt and self._core.mda.is_running():
            time.sleep(0.02)

    def wait(self) -> dict[str, Any]:
        """Wait until the run that has ended is processed and stored; return its report.

        Ctrl-C while waiting leaves out what is not computed yet, and still stores everything received.
        """
        self._live.settle()
        return super().wait()

    # -- events of the core ----------------------------------------------------------------------------------------

    def _sequence_started(self, sequence: Any, metadata: Mapping[str, Any]) -> None:
        """Open what the run needs; in the acquisition thread, before its first frame."""
        try:
            self._live.finish()
            self.wait()
            if self._pipeline is None:
                self._arm(self._plan if self._plan is not None else sequence)
            elif (now := camera_geometry(self._core, self.rig)) != self._camera:
                raise ConfigError(
                    f"The camera delivers {now}, and the session was opened for {self._camera}: "
                    "open LiveSR after ROI, binning and pixel type are set."
                )
            if self.rig.sim and self.rig.sim.pattern_property:
                self._core.setProperty(*self.rig.sim.pattern_property, 0)
        except Exception as e:
            self.error = (
                e if isinstance(e, LiveSRError) else RunError(f"The run cannot start: {type(e).__name__}: {e}.")
            )
            log.exception("the run cannot start")
            self._core.mda.cancel()

    def _event_started(self, event: Any) -> None:
        """Count what the acquisition announces: pymmcore-plus reports a camera that fails to deliver to the log alone."""
        for exposure in getattr(event, "events", (event,)):
            self._announced += exposure.action.type == "acquire_image"

    def _frame_ready(self, image: Any, event: Any, metadata: Mapping[str, Any]) -> None:
        """Hand one frame over; in the acquisition thread."""
        if (pipeline := self._pipeline) is not None:
            pipeline.hook.frame_ready(image, event, metadata)

    def _sequence_finished(self, sequence: Any) -> None:
        if self._pipeline and self._core.mda.status.finish_reason != FinishReason.CANCELED:
            self._check_delivery(self._pipeline)
        self._release_pipeline()

    def _check_delivery(self, pipeline: Pipeline) -> None:
        """Compare what the acquisition announced with what came; one frame in a hundred missing is a failure."""
        announced, received = self._announced, pipeline.hook.received
        if received >= announced:
            return
        pipeline.hook.missing = announced - received
        sentence = (
            f"The camera delivered {received} of {announced} frames. What came is kept; the log of pymmcore-plus says what "
            "the camera or its driver reported."
        )
        if announced - received > _MISSING_SHARE * announced:
            pipeline.stop(RunError(sentence))
        else:
            pipeline.warn(sentence)

    def _open_live(self, plan: Any, on_stop: Callable[[], None]) -> Pipeline:
        """Open the run of a sequence acquisition outside an MDA."""
        self.wait()
        return self._arm(plan, on_stop)

    # -- runs ----------------------------------------------------------------------------------------------------------

    def _arm(self, plan: Any, on_stop: Callable[[], None] | None = None) -> Pipeline:
        """Build the run that comes next: description, sinks, threads; `on_stop` stops the camera, by default the MDA."""
        camera = camera_geometry(self._core, self.rig)
        names = self._channel_names(plan)
        if camera != self._camera or not set(names) <= set(self._paths):
            self._close_paths()
            self._open_paths(names)
        self._announced = 0
        armed: list[Pipeline] = []

        def cancel() -> None:
            if armed and self._pipeline is armed[0]:  # what is acquired later is the next run's
                self._core.mda.cancel()

        pipeline = self._open_run(self._describe(plan, names), on_stop or cancel)
        armed.append(pipeline)
        if sentence := trigger_unused(self._core, self.rig):
            pipeline.warn(sentence)
        return pipeline

    def _describe(self, plan: Any, names: list[str]) -> RunDescription:
        about = self._surveyed(plan)
        for name in sorted(about.lone):
            if name in self._paths and self._paths[name].backend and self._paths[name].window > 1:
                raise ConfigError(
                    f"The plan never acquires channel {name!r} at two time points in a row, and its engine looks at three: "
                    "acquire it at every time point, or leave out its engine (engine='none')."
                )
        if self.rig.superpose and about.channels_apart:
            raise ConfigError(
                f"The plan takes a channel of {self.rig.superpose.name} at later time points before another at this one, and "
                "there is no sum until all are there: put channels inside time (axis order t, c)."
            )
        interval_s = about.interval_s
        if interval_s and not about.raw_axis:
            interval_s *= max(self._paths[name].n_raw for name in names)  # raw frames are counted along time
        files = self.rig.files()
        for path in self._paths.values():
            for engine in path.engines:
                files[f"manifest-{engine.manifest.id}.yaml"] = engine.folder / "manifest.yaml"
        text = plan_text(plan)
        return RunDescription(
            stream_id=uuid.uuid4().hex,
            started_ns=now_ns(),
            channels=tuple(self._paths[name].description for name in (*names, *self._sums)),
            **about.places(),
            z_step_um=about.z_step_um,
            interval_s=interval_s,
            record_raw=self.settings.record_raw,
            record_recon=self.settings.record_recon,
            sidecars={
                **{name: file for name, file in files.items() if file.is_file()},
                **({"plan.yaml": text} if text else {}),
            },
        )

    def _surveyed(self, plan: Any) -> Survey:
        """Return what the plan will deliver; each plan is walked through once."""
        if plan is None:
            return Survey()
        if self._survey is None or self._survey[0] is not plan:
            only = next(iter(self.rig.channels), "") if len(self.rig.channels) == 1 else ""
            self._survey = plan, survey(plan, self.rig.raw_frames, only)
        return self._survey[1]

    def _channel_names(self, plan: Any) -> list[str]:
        """Channels that the plan acquires, or those of rig.yaml when it does not say."""
        named = list(self._surveyed(plan).channels)
        # An iterable of events is announced as a plan without axes: it may well name channels.
        if not named and len(getattr(plan, "used_axes", "")) > 0 and len(self.rig.channels) > 1:
            raise ConfigError(
                f"The plan names no channel, and rig {self.rig.name!r} describes {', '.join(self.rig.channels)}: "
                "say in the plan which of them are acquired."
            )
        return named or list(self.rig.channels) or [""]

    def _open_paths(self, names: list[str]) -> None:
        self._camera = camera_geometry(self._core, self.rig)
        settings = self.settings.model_dump(
            include={"backend", "precision", "threads", "tile", "residual_plane", "uncertainty"}
        )
        for name in names:
            self._paths[name] = build_path(self.rig, name, self._camera, device=self.settings.device, **settings)
        for name in self._sums:
            self._paths[name] = build_superposition(self.rig, self._paths, **settings)

    @property
    def _sums(self) -> tuple[str, ...]:
        """Names of what no plan acquires, because it is made of channels that it does."""
        return (self.rig.superpose.name,) if self.rig.superpose else ()


def _detach_at_exit(core: CMMCorePlus) -> None:
    """Take the core's callback away before the interpreter goes: a callback that still arrives then aborts the process."""
    reference = weakref.ref(core)

    def detach() -> None:
        if (alive := reference()) is not None:
            CMMCore.registerCallback(alive, None)

    atexit.register(detach)


def camera_geometry(core: CMMCorePlus, rig: RigConfig) -> Geometry:
    """Return what the core's camera delivers now.

    Raises
    ------
    ConfigError
        If there is no camera, more than one, colour pixels, no pixel size, or a binning that SIM cannot take.
    """
    if not core.getCameraDevice():
        raise ConfigError("The core has no camera: load a system configuration, or set the core's Camera property.")
    if (cameras := core.getNumberOfCameraChannels()) > 1:
        raise ConfigError(f"The camera delivers {cameras} images at once; livesr takes one. Select a single camera.")
    if (components := core.getNumberOfComponents()) != 1:
        raise ConfigError(f"The camera delivers {components} colour components a pixel; set a monochrome PixelType.")
    x0, y0, width, height = core.getROI()
    camera = core.getCameraDevice()
    binning = str(core.getProperty(camera, "Binning")) if core.hasProperty(camera, "Binning") else "1"
    n = int(binning.partition("x")[0])
    # Micro-Manager's own pixel size is that of the binned pixel.
    pixel_size_um = n * rig.optics.pixel_size_nm / 1e3 if rig.optics.pixel_size_nm else core.getPixelSizeUm()
    if not pixel_size_um > 0:
        raise ConfigError(
            "The pixel size is unknown: set optics.pixel_size_nm in rig.yaml, or a pixel size in Micro-Manager."
        )
    if n > 1 and rig.sim and 1e3 * pixel_size_um > (finest := _finest_nm(rig)):
        raise ConfigError(
            f"Binning is {binning}: pixels of {1e3 * pixel_size_um:.0f} nm remove the resolution that SIM needs "
            f"({finest:.0f} nm or less). Set Binning to 1."
        )
    mirrored = mirrored_since(core, rig.sim.calibrated_with, rig.name) if rig.sim else (False, False)
    if rig.corrections.per_pixel and any(mirrored):
        raise ConfigError(
            f"The picture is mirrored since rig {rig.name!r} was calibrated, and its corrections are maps of the chip: set the "
            "camera's mirrors back, or use a rig.yaml without maps."
        )
    if rig.corrections.per_pixel and binning not in ("1", "1x1"):
        raise ConfigError(
            f"Binning is {binning}: the corrections of rig {rig.name!r} are for single pixels of the chip. Set Binning to 1, "
            "or use a rig.yaml without them."
        )
    if (width_bytes := core.getBytesPerPixel()) not in (1, 2):
        raise ConfigError(
            f"The camera delivers {8 * width_bytes} bit pixels; livesr takes 8 and 16 bit. Set PixelType."
        )
    dtype = "uint8" if width_bytes == 1 else "uint16"
    # The centre of the first binned pixel lies between the pixels of the chip.
    half = (n - 1) / (2 * n)
    return Geometry((height, width), dtype, pixel_size_um, (y0 + half, x0 + half), mirrored)


def _finest_nm(rig: RigConfig) -> float:
    """Largest pixel that samples all that the objective passes, in the SIM channel of the shortest emission."""
    channels = [rig.channel(name) for name in rig.channels or [""]]
    emissions = [c.emission_nm or rig.optics.emission_nm for c in channels if c.reconstruct == "sim"]
    return min(emissions, default=rig.optics.emission_nm) / (4 * rig.optics.na)
