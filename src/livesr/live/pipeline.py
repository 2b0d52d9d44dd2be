"""The map: the way of a frame from the hook to the sinks.

Only this file knows the order, the threads and the queues.

::

    acquisition thread      hook: time stamp, hand over                              (sources/mda.py)
    or "livesr-live"        polls the core's buffer outside MDAs, same hook          (sources/continuous.py)
          | raw queue, bounded in bytes: full -> an untriggered camera waits, a triggered run stops cleanly
    "livesr-ingest"         event -> CameraFrame -> grouping -> RawStack             (sources, grouping)
          |-> sinks.raw
          | stacks: "latest" gives up whole groups in a row, "complete" keeps all (they count in the raw queue)
    "livesr-reconstruct"    RawStack -> SRFrame (measurement) -> window of three     (correct, reconstruct, normalise, window)
                            the pixels on the CPU, or in two slots of a GPU          (flight, device, arrays)
          |-> sinks.recon
          |   superposition: the frames of all its channels -> their sum, an SRFrame of its own   (superpose)
          | windows, the newest stack of each place: "latest" skips older centres, never their neighbours, and while none waits
          |     and time allows shows the newest frame provisionally, before its successor was acquired
    "livesr-separate"       Window -> enlarged, if the channel is to be              (upscale, inference)
          |                 Window -> network -> MulticolorFrame (prediction)        (inference, compose)
          |                 likewise in slots, whose frames never left the GPU
          |                 of a superposition: its score against the true channels             (quality_limits)
          |-> sinks.separated, or sinks.skipped for what was given up
    "livesr-<sink>" each    store (lossless), publisher, signals                     (sinks)
    "livesr-monitor"        once a second: status, warnings

A slot is what one of several frames in flight has to itself, and a thread: `_measure` and
`_network` run there, all else in the threads above, in the frames' order. With the CPU's one slot
they run in the threads above too.

Arrays are handed from step to step by reference and never written again. A step that fails ends the
steps behind it, never the recording; a recording that fails ends the run.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from livesr.base.buffers import BoundedQueue, LatestPerKey
from livesr.base.errors import BacklogError, FrameShapeError, LiveSRError, RecordingError, RunError
from livesr.base.frames import (
    CameraFrame,
    FrameQuality,
    MulticolorFrame,
    Normalisation,
    RawStack,
    SRFrame,
    StagePosition,
    Stream,
    Window,
)
from livesr.base.threads import wait_for
from livesr.base.timing import Histogram, Pace, StepTimes, now_ns
from livesr.live.arrays import HOST
from livesr.live.channel_scores import MeanScore, scored
from livesr.live.compose import Arithmetic, Composition
from livesr.live.device import HOST_DEVICE, Device, Slot, StreamLock
from livesr.live.inference.backend import ResidentBackend
from livesr.live.left_out import left_out
from livesr.live.normalise import BORDER, FollowingNormalisation, background_and_scale
from livesr.live.ordered_workers import OrderedWorkers
from livesr.live.paths import ChannelPath, Measuring
from livesr.live.reconstruct.reconstructor import (
    DoubtfulFrameError,
    Reconstructor,
    ReportsQuality,
    RunningImage,
)
from livesr.live.reconstruct.superpose import Superposition
from livesr.live.sinks.sink import RunDescription, Sink, time_shift_ms
from livesr.live.sinks.thread import SinkThread
from livesr.live.sources.mda import MDAHook, Placing, Received
from livesr.live.upscale import WINDOW, normalise_into
from livesr.live.watchdog import Watchdog
from livesr.live.window import FrameWindow
from livesr.optics.exposure import Exposures

log = logging.getLogger(__name__)

Policy = Literal["latest", "complete"]
STEPS = (
    "group",
    "reconstruct",
    "normalise",
    "superpose",
    "window",
    "upscale",
    "infer",
    "compose",
    "score",
    "hand_over",
)
_STACKS_LATEST = 4  # groups of a channel that may wait for reconstruction before they are given up
_QUEUE_WARNS = 0.5  # share of the raw queue
_NETWORK_WARNING = (
    "The network does not answer. Measurement and recording go on without predictions."
)
_QUEUE_WARNING = (
    "The raw queue is more than half full: the disk or the computer is slower than the camera."
)
_LOOK_S = 0.2
_WINDOWS_COMPLETE = (
    8  # windows that may wait for the network before reconstruction waits: at least these, and
)
_WINDOWS_SHARE = 4  # a quarter of the run's memory


class Pipeline:
    """One run, from the first frame to the report.

    Life: construct -> `open` -> `hook.frame_ready` ... -> `end` -> `join` -> `report`.

    Parameters
    ----------
    paths : what happens to each acquisition channel
    run : what the sinks are told
    sinks : (sink, lossless)
    policy : "latest" or "complete" (design rule: keeping up)
    provisional : whether "latest" may show frames before their successor came, in time that the
        network has left over
    raw_queue_bytes : most bytes of frames that may wait anywhere in the run
    on_stop : called once, from a thread of the pipeline, when the camera must stop
    normalisations : values to use for frames that were measured before, by stream and time point;
        what they do not name follows from them as in a live run
    pattern_drifts : likewise, what phases and vectors of SIM patterns were corrected by (as in
        `FrameQuality`); without, vectors are watched and followed in the background, which what was
        recorded must not be: it has to give the same again
    wanted : whether the network is to see the frame at (stream, t); all without
    disk_free : bytes left where the run is stored, for the status

    Attributes
    ----------
    network_left : whether the network was left behind, still in a call that does not return; its
        path must not be closed
    """

    def __init__(
        self,
        paths: Mapping[str, ChannelPath],
        run: RunDescription,
        sinks: Sequence[tuple[Sink, bool]],
        *,
        policy: Policy = "latest",
        provisional: bool = False,
        raw_queue_bytes: int = 1 << 30,
        on_stop: Callable[[], None] = lambda: None,
        normalisations: Mapping[tuple[Stream, int], Normalisation] | None = None,
        pattern_drifts: (
            Mapping[tuple[Stream, int], tuple[Sequence[float], Sequence[float]]] | None
        ) = None,
        wanted: Callable[[Stream, int], bool] = lambda stream, t: True,
        disk_free: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._paths, self._run, self._policy = dict(paths), run, policy
        self._provisional = provisional and policy == "latest"
        self._pace = Pace()
        self._on_stop = on_stop
        self._recorded_normalisations, self._wanted = normalisations or {}, wanted
        self._disk_free = disk_free
        self._recorded_drifts = pattern_drifts or {}
        only = next(iter(paths)) if len(paths) == 1 else ""
        self._placing = Placing(lambda channel: self._path(channel).n_raw, only, run.fields)
        self._sinks = [
            SinkThread(sink, lossless=lossless, on_error=self._sink_failed)
            for sink, lossless in sinks
        ]
        self._frame_bytes = max(
            math.prod(c.raw_shape) * np.dtype(c.raw_dtype).itemsize for c in run.channels
        )
        # A whole group waits before it is reconstructed, while the next one comes in and the last
        # is being stored.
        max_frames = max(16, 3 * max((path.n_raw for path in paths.values()), default=1))
        self.raw_queue_bytes = max(raw_queue_bytes, max_frames * self._frame_bytes)
        # Dropping every second group would leave no frame its neighbours: what cannot be kept is
        # dropped in a row.
        self._stacks: BoundedQueue[RawStack] = (
            BoundedQueue(_STACKS_LATEST * len(paths), "drop_all")
            if policy == "latest"
            else BoundedQueue(1 << 20, "block")
        )
        self._windows: LatestPerKey[tuple[int, str], Window] = LatestPerKey()
        self._window_bytes = max(4 * math.prod(c.recon_shape) for c in run.channels)
        self.hook = MDAHook(self._room_frames, self._cannot_wait)
        slots = max((len(path.on_device) for path in paths.values()), default=0) or 1
        in_slots = all(
            path.on_device for path in paths.values() if not path.parts
        )  # a running image needs its groups in order
        self._measuring = OrderedWorkers(self._measure, slots if in_slots else 1, "measure")
        self._separating = OrderedWorkers(self._network, slots, "separate")
        # The CPU's part of a path serves one slot at a time, and a measurement never waits for a
        # prediction.
        self._measuring_turns = {name: threading.Lock() for name in paths}
        self._separating_turns = {name: threading.Lock() for name in paths}
        self._watchdog, self._handing_on, self.network_left = Watchdog(), threading.Lock(), False
        self._network_turns = {name: StreamLock() for name in paths}
        self._arithmetics: dict[tuple[str, int | None], Arithmetic] = {}
        self._left_device: set[str] = set()
        self._composers = {
            name: composer for name, path in paths.items() if (composer := path.composer())
        }
        streams = len(run.positions) * run.z_planes
        self._upscalers = {
            name: upscaler for name, path in paths.items() if (upscaler := path.upscaler(streams))
        }
        self._views = {name: views for name, path in paths.items() if (views := path.views())}
        self._monitors = {
            name: path.monitors(recorded=pattern_drifts is not None) for name, path in paths.items()
        }
        self._gatherings = {name: path.gathering() for name, path in paths.items() if path.parts}
        self._score, self._time_shift_ms = MeanScore(), 0.0
        self._normalisations: dict[Stream, FollowingNormalisation] = {}
        self._running_images: dict[Stream, RunningImage | None] = {}
        self._frame_windows: dict[Stream, FrameWindow] = {}
        self._dropped: dict[
            Stream, tuple[int, int]
        ] = {}  # first and last time point of groups that were given up
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=f"livesr-{name}", daemon=True)
            for name, work in (
                ("ingest", self._ingest),
                ("reconstruct", self._reconstruct),
                ("separate", self._separate),
            )
        ]
        self._monitor = threading.Thread(target=self._watch, name="livesr-monitor", daemon=True)
        self._over = threading.Event()
        self._blas: threadpool_limits | None = None
        self._failed: dict[str, str] = {}
        self.error: LiveSRError | None = None
        self.counts: Counter[str] = Counter()
        self.steps = StepTimes(STEPS)
        self.latency = Histogram()
        self.latency_provisional = Histogram()
        self.warnings: dict[str, int] = {}
        self._first_ns = self._last_ns = 0
        self._exposures_ms: dict[
            str, float | None
        ] = {}  # by channel; None once it was said to change

    # -- life --------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the sinks and start the threads.

        Raises
        ------
        UsageError
            If a sink cannot start; those already open are closed again.
        """
        opened: list[SinkThread] = []
        try:
            for sink in self._sinks:
                sink.open(self._run)
                opened.append(sink)
        except BaseException:
            for sink in opened:
                sink.close({"error": "another sink could not be opened"})
            raise
        for note in dict.fromkeys(
            n for path in self._paths.values() for n in (*path.notes, *path.warnings)
        ):
            self.warn(note)
        # The reconstruction's products of small matrices gain nothing from several threads, which
        # turn in place while they wait for a core that the network has: on a busy machine a frame
        # cost 32 ms of CPU instead of 4.5.
        self._blas = threadpool_limits(1, "blas")
        for thread in (*self._threads, self._monitor):
            thread.start()

    def begin_at(self, stage: StagePosition) -> None:
        """Take note of where the stages are before the first frame."""
        self._placing.stage = stage

    def end(self) -> None:
        """Take note that no more frames will come. Returns at once."""
        self.hook.release()
        self.hook.end()

    def join(self, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Wait until everything received is processed and stored.

        Close the sinks; return the report with `about` in it.
        """
        ingest, reconstruct, separate = self._threads
        wait_for(ingest)
        wait_for(reconstruct)
        wait_for(separate, lambda: self._watchdog.overdue)
        if separate.is_alive():
            self._leave_network()
        if self._blas:
            self._blas.restore_original_limits()
        for sink in self._sinks:
            if sink.lossless:
                sink.drain()
        self._over.set()
        wait_for(self._monitor)
        self._take_notes()
        for sink in self._sinks:
            sink.close({**self.report(), **(about or {})})
        return {**self.report(), **(about or {})}

    def abandon(self) -> None:
        """Compute nothing more, and wait for nothing that computes.

        What was received is still stored.
        """
        self._watchdog.hurry()
        self._failed.update(dict.fromkeys(("reconstruct", "separate"), "abandoned"))

    def stop(self, error: LiveSRError) -> None:
        """End the run because of `error`: the camera is stopped, what was received is kept.

        The first error counts.
        """
        if self.error is None:
            self.error = error
            log.error("%s", error)
            self.hook.release()
            with self._survived("Stopping the camera"):  # it may be what failed
                self._on_stop()

    # -- ingest: what the hook received becomes raw groups -----------------------------------------

    def _ingest(self) -> None:
        groupings = {name: path.grouping() for name, path in self._paths.items() if not path.parts}
        while (received := self.hook.get()) is not None:
            self.counts["raw_frames"] += 1
            try:
                with self.steps.measure("group"):
                    frame = self._frame(received)
                    stacks = groupings[frame.stream.channel].push(frame)
            except Exception as e:  # a frame that cannot be placed ends the run; it is kept, as those that still come
                self.stop(
                    e
                    if isinstance(e, LiveSRError)
                    else RunError(f"A frame cannot be placed: {e or type(e).__name__}.")
                )
                self._unplaced(received)
                continue
            for stack in stacks:
                self._raw(stack)
            self.hook.limit = self._room_frames()
        for grouping in groupings.values():
            for stack in grouping.flush():
                self._raw(stack)
            self.counts["groups_incomplete"] += grouping.incomplete
            self.counts["raw_missing"] += grouping.missing
            self.counts["raw_repeated"] += grouping.repeated
        for sentence in left_out(
            self.raw_missing, self.counts["raw_repeated"], self.counts["raw_aside"]
        ):
            self.warn(sentence)
        self._stacks.close()

    def _frame(self, received: Received) -> CameraFrame:
        """Place a frame; one that does not fit raises what the user has to know."""
        frame = self._placing.frame(received)
        if (planes := self._run.planes_as_positions) > 1:
            position, channel, z = frame.stream
            frame = replace(frame, stream=Stream(position * planes + z, channel))
        stream, expected = frame.stream, self._path(frame.stream.channel).description
        if stream.z >= self._run.stack(stream.position, stream.channel).z_planes:
            raise FrameShapeError(
                f"A frame of channel {stream.channel or 'default'} at position {stream.position},"
                f" plane {stream.z} came; this run was opened for {len(self._run.positions)}"
                f" positions and {self._run.z_planes} planes, and not for this one. Give the plan"
                " to LiveSR(plan=...)."
            )
        if frame.pixels.shape != expected.raw_shape or frame.pixels.dtype != expected.raw_dtype:
            came = f"{frame.pixels.shape[0]}x{frame.pixels.shape[1]} {frame.pixels.dtype}"
            raise FrameShapeError(
                f"A frame of {came} came in a run of"
                f" {expected.raw_shape[0]}x{expected.raw_shape[1]} {expected.raw_dtype} (time point"
                f" {frame.t}): ROI, binning or pixel type changed. The run has ended and everything"
                " received is kept; start a new run with the new size, or give the plan to"
                " LiveSR(plan=...) if its events set them."
            )
        self._first_ns = self._first_ns or frame.t_host_ns
        self._look_at_exposure(frame)
        return frame

    def _look_at_exposure(self, frame: CameraFrame) -> None:
        """Warn, once a channel, of an exposure that changed.

        The frames still fit, what they measure does not.
        """
        channel, exposure_ms = frame.stream.channel, frame.exposure_ms
        before_ms = self._exposures_ms.setdefault(channel, exposure_ms)
        if before_ms is None or exposure_ms is None or exposure_ms == before_ms:
            return
        self._exposures_ms[channel] = None
        self.warn(
            f"The exposure of channel {channel or 'default'} changed from {before_ms:g} to"
            f" {exposure_ms:g} ms at time point {frame.t}: intensities before and after do not"
            " compare, and no prediction looks across. Start a new run for another exposure."
        )

    def _path(self, channel: str) -> ChannelPath:
        try:
            return self._paths[channel]
        except KeyError:
            raise FrameShapeError(
                f"A frame of channel {channel!r} came; this run was opened for"
                f" {', '.join(map(repr, self._paths))}. Give the plan to LiveSR(plan=...), or name"
                " the channel in rig.yaml."
            ) from None

    def _unplaced(self, received: Received) -> None:
        """Keep a frame that has no place in the run."""
        self.counts["raw_aside"] += 1
        index = received.event.index
        stack = RawStack(
            (received.pixels,), Stream(), index.get("t", 0), received.t_host_ns, received.t_host_ns
        )
        for sink in self._sinks:
            if sink.lossless:
                sink.unplaced(stack)

    def _raw(self, stack: RawStack) -> None:
        for sink in self._sinks:
            if sink.lossless:
                sink.raw(stack)
        if stack.unplaced:
            return
        if not stack.complete and not self._paths[stack.stream.channel].accumulates:
            self._skip(stack.stream, stack.t, "raw frames missing")
            return
        self.counts["groups"] += 1
        for dropped in self._stacks.put(
            stack, sum(f.nbytes for f in stack.frames if f is not None)
        ):
            self.counts["groups_dropped"] += 1
            first, _ = self._dropped.get(dropped.stream, (dropped.t, dropped.t))
            self._dropped[dropped.stream] = first, dropped.t
            self._skip(dropped.stream, dropped.t, "reconstruction cannot keep up")

    def _room_frames(self) -> int:
        """Most frames that the hook may hold, given what already waits downstream."""
        return (self.raw_queue_bytes - self._downstream_bytes()) // self._frame_bytes

    def _downstream_bytes(self) -> int:
        windows = len(self._windows) * self._window_bytes
        return self._stacks.weight + windows + sum(s.weight for s in self._sinks)

    def _cannot_wait(self) -> None:
        self.stop(
            BacklogError(
                f"{self.raw_queue_bytes / 2**20:.0f} MiB of frames are waiting for the disk and a"
                " triggered camera cannot wait, nor can a continuous one whose buffer is full. The"
                " run has ended and everything received is kept; record to a faster disk, lower"
                " the frame rate, or raise raw_queue_bytes."
            )
        )

    # -- reconstruct: raw groups become measurements, three of them a window -----------------------

    def _reconstruct(self) -> None:
        for stack, measured in self._measuring.over(self._stacks):
            if "reconstruct" not in self._failed:
                try:
                    for monitor in self._monitors[stack.stream.channel]:
                        monitor.before(stack)
                    if made := measured():
                        self._reconstructed(stack, made)
                        continue
                except DoubtfulFrameError as e:
                    self.counts["recon_refused"] += 1
                    self._warn_of_doubt(stack, "refused", e.cause, str(e))
                    self._skip(stack.stream, stack.t, f"refused: {e}")
                    continue
                except (
                    BaseException
                ) as e:  # whatever a reconstruction may raise, the raw frames go on being recorded
                    self._step_failed("reconstruct", e)
            self.counts["recon_failed"] += 1
            self._skip(stack.stream, stack.t, self._failed["reconstruct"])
        last = [
            window
            for frame_window in self._frame_windows.values()
            for window in frame_window.flush()
        ]
        for window in sorted(
            last, key=lambda window: (window.centre.t, window.centre.stream.z)
        ):  # as a stack is stored
            stream, t = window.centre.stream, window.centre.t
            if self._lacks_neighbour(window):
                self._skip_centre(stream, t, "a neighbour was dropped")
            elif self._wanted(stream, t):
                self._wait_for_network(window, keep=True)
        self._windows.close()

    def _measure(self, slot: int, stack: RawStack) -> _Measured | None:
        """Reconstruct a group in a slot, on the CPU if the slot's device fails.

        None if nothing is to be measured any more.
        """
        if "reconstruct" in self._failed:
            return None
        path = self._paths[stack.stream.channel]
        if path.on_device and path.name not in self._left_device:
            try:
                return self._measure_with(path.on_device[slot], path.device, slot, path, stack)
            except DoubtfulFrameError:
                raise
            except Exception as e:  # a driver may raise anything
                self._leave_device(path, e)
        with self._measuring_turns[path.name]:
            return self._measure_with(path.measuring, HOST_DEVICE, 0, path, stack)

    def _measure_with(
        self, measuring: Measuring, device: Device, slot: int, path: ChannelPath, stack: RawStack
    ) -> _Measured:
        (correction, reconstructor), arrays = measuring, device.arrays
        with device.slots[slot] as place:
            with self.steps.measure("reconstruct"):
                frames = place.upload([f for f in stack.frames if f is not None])
                exposures = path.exposures(frames, arrays)
                running = self._running_image(stack.stream)
                if running:
                    image = running.add(stack)
                else:
                    self._correct_drift(reconstructor, stack)
                    if isinstance(reconstructor, ReportsQuality):
                        reconstructor.look_at(exposures)
                    image = reconstructor.reconstruct(
                        correction.apply(frames) if correction else frames
                    )
            with self.steps.measure("normalise"):
                recorded = self._recorded_normalisations.get((stack.stream, stack.t))
                levels = recorded or background_and_scale(image, border=BORDER, arrays=arrays)
                quality = (
                    reconstructor.quality
                    if isinstance(reconstructor, ReportsQuality)
                    else path.quality(exposures, stack.frames)
                )
                stays = image if device is not HOST_DEVICE and path.resident else None
                return _Measured(
                    place.download(image), Normalisation(*levels), exposures, quality, stays
                )

    def _leave_device(self, path: ChannelPath, error: Exception) -> None:
        """Compute the frames of a channel on the CPU from here on."""
        log.error("channel %s leaves its device", path.name, exc_info=error)
        self._left_device.add(path.name)
        self.warn(
            f"Channel {path.name or 'default'} is reconstructed on the CPU since"
            f" {path.device.description} failed ({type(error).__name__}: {error})."
        )

    def _reconstructed(self, stack: RawStack, measured: _Measured) -> None:
        """Hand on a measurement, and the windows that it completes; in the order of the groups."""
        frame = self._follow(stack, measured)
        if measured.quality:
            for monitor in self._monitors[stack.stream.channel]:
                monitor.after(stack, measured.quality)
        self.counts["recon_frames"] += 1
        self._hand_on(frame)
        for name, gathering in self._gatherings.items():
            if frame.stream.channel in self._paths[name].parts and (parts := gathering.add(frame)):
                self._hand_on(self._add_up(name, parts))

    def _hand_on(self, frame: SRFrame) -> None:
        """Hand a measurement over, and to the window if it is to be separated."""
        for sink in self._sinks:
            sink.recon(frame)
        if self._paths[frame.stream.channel].backend:
            with self.steps.measure("window"):
                windows = self._window(frame.stream).push(frame)
            for window in windows:
                self._offer(window)
            self._offer_provisional(frame.stream)

    def _follow(self, stack: RawStack, measured: _Measured) -> SRFrame:
        """Add to a measurement what follows from the frames before it."""
        follow = self._normalisations.setdefault(stack.stream, FollowingNormalisation())
        recorded = (stack.stream, stack.t) in self._recorded_normalisations
        normalisation = (follow.resume if recorded else follow.update)(*measured.levels)
        quality, running = measured.quality, self._running_image(stack.stream)
        if measured.exposures.saturated:
            self._look_at_ceiling(stack)
        if quality and quality.doubt:
            self.counts["recon_doubtful"] += 1
            shown = "shown" if quality.resolved else "shown as widefield"
            self._warn_of_doubt(stack, shown, quality.cause, quality.doubt)
        elif measured.exposures.clipped:
            self.warn(_saturated(stack.stream))
        return SRFrame(
            measured.image,
            stack.stream,
            stack.t,
            stack.t_acq_ns,
            stack.t_last_ns,
            Normalisation(*normalisation),
            measured.exposures.saturated,
            stack.t_camera_ms,
            localisations=running.localisations if running else None,
            drift_nm=running.drift_nm if running else None,
            quality=quality,
            resident=measured.resident,
            exposure_ms=stack.exposure_ms,
        )

    def _look_at_ceiling(self, stack: RawStack) -> None:
        """Warn of pixels above the camera's ceiling, of which there can be none."""
        path, most = (
            self._paths[stack.stream.channel],
            max(int(f.max()) for f in stack.frames if f is not None),
        )
        if most > path.ceiling:
            self.warn(
                f"Pixels of channel {path.name or 'default'} exceed {path.ceiling}, which rig.yaml"
                " or Micro-Manager say is the camera's ceiling: what is counted as saturated is"
                " not. Correct camera.bit_depth, or the camera's pixel type."
            )

    def _add_up(self, name: str, parts: tuple[SRFrame, ...]) -> SRFrame:
        """Return the sum of the true channels of one time point."""
        superposition = self._paths[name].reconstructor
        assert isinstance(superposition, Superposition)
        with self.steps.measure("superpose"):
            image = superposition.add_up(parts)
            first = parts[0]
            stream = Stream(first.stream.position, name, first.stream.z)
            doubtful = [p.quality for p in parts if p.quality and p.quality.doubt]
            self._time_shift_ms = max(self._time_shift_ms, time_shift_ms(parts) or 0.0)
            follow = self._normalisations.setdefault(stream, FollowingNormalisation())
            recorded = self._recorded_normalisations.get((stream, first.t))
            normalisation = (
                follow.resume(*recorded)
                if recorded
                else follow.update(*background_and_scale(image, border=BORDER))
            )
            return SRFrame(
                image,
                stream,
                first.t,
                sum(p.t_acq_ns for p in parts) // len(parts),
                max(p.t_last_ns for p in parts),
                Normalisation(*normalisation),
                sum(p.saturated for p in parts),
                quality=doubtful[0] if doubtful else first.quality,
                parts=parts,
                exposure_ms=sum(p.exposure_ms or 0.0 for p in parts) or None,
            )

    def _correct_drift(self, reconstructor: Reconstructor, stack: RawStack) -> None:
        """Reconstruct a recorded group with the phases and vectors that it was reconstructed
        with.
        """
        drift = self._recorded_drifts.get((stack.stream, stack.t))
        if drift is not None and isinstance(reconstructor, ReportsQuality):
            reconstructor.correct_drift(*drift)

    def _running_image(self, stream: Stream) -> RunningImage | None:
        if stream not in self._running_images:
            self._running_images[stream] = self._paths[stream.channel].running()
        return self._running_images[stream]

    def _window(self, stream: Stream) -> FrameWindow:
        if stream not in self._frame_windows:
            self._frame_windows[stream] = FrameWindow(self._paths[stream.channel].window)
        return self._frame_windows[stream]

    def _offer(self, window: Window) -> None:
        """Give a window to the network.

        Under "latest" it replaces one of its stream that still waits.
        """
        stream, t = window.centre.stream, window.centre.t
        if not self._wanted(stream, t):
            return
        if self._policy == "latest" and self._lacks_neighbour(window):
            self._skip_centre(stream, t, "a neighbour was dropped")
            return
        keep = self._policy == "complete" and self._network_has_room()
        for displaced in self._wait_for_network(window, keep=keep):
            self._skip_centre(
                displaced.centre.stream, displaced.centre.t, "the network cannot keep up"
            )

    def _network_has_room(self) -> bool:
        """Wait until a window more may wait for the network.

        False if the network does not answer.
        """
        most = _WINDOWS_COMPLETE
        if not any(
            path.on_device for path in self._paths.values()
        ):  # their memory is not the run's
            most = max(most, self.raw_queue_bytes // _WINDOWS_SHARE // self._window_bytes)
        while not (room := self._windows.wait_below(most, _LOOK_S)) and not self._watchdog.overdue:
            pass
        return room

    def _lacks_neighbour(self, window: Window) -> bool:
        """Whether a frame beside the centre was given up.

        What seems the first or last of its series may be neither.
        """
        if not self._dropped or not window.true_neighbours:
            return bool(self._dropped)
        first, last = self._dropped.get(window.centre.stream, (math.inf, -1))
        starts, ends = window.before is window.centre, window.after is window.centre
        return window.edge and (
            (starts and first < window.centre.t) or (ends and last > window.centre.t)
        )

    def _wait_for_network(self, window: Window, *, keep: bool) -> list[Window]:
        """Queue a window.

        Return those that it displaces: of the same place, and of whole time points.
        """
        stream = window.centre.stream
        return self._windows.put(
            (stream.position, stream.channel), window, group=window.centre.t, keep=keep
        )

    def _offer_provisional(self, stream: Stream) -> None:
        """Offer the newest frame of `stream` to a network that has nothing else to do.

        Any complete window displaces it.
        """
        if self._provisional:
            self._pace.came(stream, time.perf_counter())
            if window := self._window(stream).provisional():
                self._windows.put_idle(window)

    # -- separate: windows become predictions ------------------------------------------------------

    def _separate(self) -> None:
        for window, separated in self._separating.over(self._windows):
            prediction: _Prediction | None = None
            error: BaseException | None = None
            try:
                prediction = separated()
            except (
                BaseException
            ) as e:  # whatever a runtime may raise, measurement and recording go on
                error = e
            with self._handing_on:
                if self.network_left:
                    return
                (self._show_provisional if window.provisional else self._land)(
                    window, prediction, error
                )

    def _land(
        self, window: Window, prediction: _Prediction | None, error: BaseException | None
    ) -> None:
        """Hand on what the network made of a window, or say that it has nothing."""
        try:
            if error:
                raise error
            if prediction:
                self._predicted(prediction)
                return
        except BaseException as e:  # likewise of a composer
            self._step_failed("separate", e)
        self._no_prediction(window)

    def _no_prediction(self, window: Window) -> None:
        self.counts["sr_failed"] += 1
        self._skip(window.centre.stream, window.centre.t, self._failed["separate"])

    def _leave_network(self) -> None:
        """End the run without a network that does not answer.

        What it may still give comes too late.
        """
        with self._handing_on:
            self.network_left = True
        self._failed.setdefault("separate", "the network did not answer")
        left = []
        while (window := self._windows.get()) is not None:
            left.append(window)
        left = [
            window for window in (*self._separating.under_way(), *left) if not window.provisional
        ]
        for window in sorted(left, key=lambda window: window.centre.t):
            self._no_prediction(window)
        self.warn(
            f"The network did not answer: {len(left)} predictions are missing at the end. 'livesr"
            " backfill' computes them."
        )

    def _predicted(self, prediction: _Prediction) -> None:
        """Hand on a prediction; in the order of the windows."""
        window, frame = prediction.window, self._composed(prediction)
        if window.centre.parts:
            with self.steps.measure("score"):
                frame = scored(frame, self._run.channel(window.centre.stream.channel).labels)
                self._score.add(frame)
        with self.steps.measure("hand_over"):
            self._last_ns = now_ns()
            self.latency.add(frame.latency_ms)
            self.counts["sr_frames"] += 1
            self.counts["sr_edges"] += window.edge
            self.counts["sr_true_neighbours"] += window.true_neighbours and not window.edge
            for warning in frame.warnings:
                self.warn(warning)
            for sink in self._sinks:
                sink.separated(frame)

    def _show_provisional(
        self, window: Window, prediction: _Prediction | None, error: BaseException | None
    ) -> None:
        """Show a frame that its successor may still change."""
        if error:  # what is only a courtesy must not end the predictions that count
            self._provisional = False
            self.warn(
                f"A provisional frame failed ({type(error).__name__}: {error}); only final frames"
                " are shown from here on."
            )
        if prediction is None:
            return
        frame = self._composed(prediction)
        self.latency_provisional.add(frame.latency_ms)
        self.counts["sr_provisional"] += 1
        for sink in self._sinks:
            sink.separated(frame)

    def _composed(self, prediction: _Prediction) -> MulticolorFrame:
        """Add to a prediction what follows from the frames before it."""
        channel = prediction.window.centre.stream.channel
        composer = self._composers[channel]
        for sentence in self._paths[channel].replacements:
            self.warn(sentence)
            composer.warn(sentence)
        return composer.frame(prediction.made, prediction.seen, prediction.window.centre)

    def _network(self, slot: int, window: Window) -> _Prediction | None:
        """Separate a window in a slot.

        None if nothing is to be separated, or it would keep a complete window waiting.
        """
        if "separate" in self._failed:
            return None
        if window.provisional and not (
            self._provisional and self._pace.allows(time.perf_counter())
        ):
            return None
        with self._watchdog.call():
            return self._separated(slot, window)

    def _separated(self, slot: int, window: Window) -> _Prediction:
        path, start_s = self._paths[window.centre.stream.channel], time.perf_counter()
        runtime = (
            path.resident
            if all(frame.resident is not None for frame in _seen(window, path))
            else None
        )
        if runtime:
            try:
                made = self._separate_on_device(slot, runtime, path, window)
                self._pace.worked(time.perf_counter() - start_s)
                return _Prediction(window, window, made)
            except Exception as e:  # a driver may raise anything
                with self._separating_turns[path.name], self._network_turns[path.name].alone():
                    path.give_up(runtime, e)
        with self._separating_turns[path.name]:
            seen = self._enlarged(window, path)
            with self._network_turns[
                path.name
            ].on_host():  # windows before it may be on the device still
                made = self._separate_on_host(path, seen)
        self._pace.worked(time.perf_counter() - start_s)
        return _Prediction(window, seen, made)

    def _separate_on_host(self, path: ChannelPath, seen: Window) -> Composition:
        assert path.backend is not None
        with self.steps.measure("infer"):
            for plane, frame in zip(path.backend.input, _seen(seen, path), strict=True):
                normalise_into(plane, frame.image, *seen.centre.normalisation)
            views = None if seen.provisional else self._views.get(path.name)
            output = views.infer(path.backend) if views else path.backend.infer()
        with self.steps.measure("compose"):
            spread, centre = views.spread if views else None, seen.centre
            return self._arithmetic(path, None).compose(
                output, centre.image, centre.normalisation, spread
            )

    def _separate_on_device(
        self, slot: int, runtime: ResidentBackend, path: ChannelPath, window: Window
    ) -> Composition:
        """Separate frames that are on the device; only what is shown and stored comes down."""
        arrays, centre = path.device.arrays, window.centre
        with path.device.network_slots[slot] as place:
            with self.steps.measure("infer"), self._network_turns[path.name].of(place):
                block = arrays.xp.asarray(runtime.device_input)
                for i, frame in enumerate(_seen(window, path)):
                    normalise_into(block[i, :, :], frame.resident, *centre.normalisation, arrays)
                # A copy: the network's memory is the next slot's as soon as this turn is over.
                output = arrays.xp.asarray(runtime.enqueue(place.stream)) + 0
            with self.steps.measure("compose"):
                made = self._arithmetic(path, slot).compose(
                    output, centre.resident, centre.normalisation
                )
                return _downloaded(made, place)

    def _arithmetic(self, path: ChannelPath, slot: int | None) -> Arithmetic:
        """Return what composes in a slot, or on the CPU."""
        key = path.name, slot
        if key not in self._arithmetics:
            arrays = HOST if slot is None else path.device.arrays
            self._arithmetics[key] = self._composers[path.name].arithmetic(arrays)
        return self._arithmetics[key]

    def _enlarged(self, window: Window, path: ChannelPath) -> Window:
        """Return what the network sees.

        Enlarged here, not before the window, so that a skipped centre costs nothing.
        """
        if (upscaler := self._upscalers.get(path.name)) is None:
            return window
        with self.steps.measure("upscale"):
            return (
                upscaler.enlarge(window)
                if path.window == WINDOW
                else upscaler.enlarge_centre(window)
            )

    # -- bookkeeping -------------------------------------------------------------------------------

    def _skip_centre(self, stream: Stream, t: int, reason: str) -> None:
        """Leave out the prediction of a frame that was measured."""
        self.counts["sr_skipped"] += 1
        self._skip(stream, t, reason)

    def _skip(self, stream: Stream, t: int, reason: str) -> None:
        for sink in self._sinks:
            sink.skipped(stream, t, reason)
        for name in self._gatherings:
            if stream.channel in self._paths[name].parts:
                self._skip(
                    Stream(stream.position, name, stream.z),
                    t,
                    f"channel {stream.channel}: {reason}",
                )

    def warn(self, sentence: str) -> None:
        """Add a sentence to the warnings of the run, once."""
        if sentence not in self.warnings:
            log.warning("%s", sentence)
        self.warnings[sentence] = self.warnings.get(sentence, 0) + 1

    def _warn_of_doubt(self, stack: RawStack, shown: str, cause: str, doubt: str) -> None:
        """Warn of a doubtful frame.

        The first of its cause is the example, frames.jsonl has the numbers of each.
        """
        start = (
            f"Frames of channel {stack.stream.channel or 'default'} are doubtful and {shown}:"
            f" {cause}."
        )
        known = (sentence for sentence in self.warnings if sentence.startswith(start))
        self.warn(
            next(known, f"{start} First at time point {stack.t}: {doubt}. frames.jsonl has each.")
        )

    def _step_failed(self, step: str, error: BaseException) -> None:
        """End a step; what comes before it goes on."""
        sentence = f"{step} failed: {type(error).__name__}: {error}"
        log.error("%s; recording goes on without it", sentence, exc_info=error)
        self._failed[step] = sentence
        self.warn(f"{sentence}. Recording went on without it.")

    def _sink_failed(self, sink: SinkThread, error: LiveSRError) -> None:
        if sink.lossless:
            self.stop(error)
        else:
            self.warn(f"{error} The run goes on without it.")

    def _guarded(self, work: Callable[[], None]) -> None:
        """Run the loop of a thread; an error that no step foresaw still ends in a report."""
        try:
            work()
        except BaseException as e:
            log.exception("%s ended", threading.current_thread().name)
            self.stop(
                RecordingError(
                    f"Internal error in {work.__name__.strip('_')}: {type(e).__name__}: {e}."
                )
            )
            self._stacks.close()
            self._windows.close()

    def _watch(self) -> None:
        status: dict[str, Any] = {}
        while not self._over.wait(1.0):
            with self._survived("Taking the state of the run"):
                status = self.status()
                if status["raw_queue"] > _QUEUE_WARNS:
                    self.warn(_QUEUE_WARNING)
                if self._watchdog.overdue:
                    self.warn(_NETWORK_WARNING)
            self._take_notes()
            for sink in (
                self._sinks
            ):  # the last known state, if need be: subscribers take silence for the end
                sink.status({**status, "warnings": list(self.warnings)})
            self._ask_monitors()
        self._ask_monitors()  # a run may have been shorter than a second

    def _take_notes(self) -> None:
        """Add what sinks want people to know to the warnings."""
        for note in (note for sink in self._sinks for note in sink.notes):
            if note not in self.warnings:
                self.warn(note)

    @contextmanager
    def _survived(self, what: str) -> Iterator[None]:
        """Let an error in what only watches over the run become a warning."""
        try:
            yield
        except Exception as e:  # a driver, a file system or a check may raise anything
            self.warn(f"{what} failed: {type(e).__name__}: {e}. Recording went on.")

    def _ask_monitors(self) -> None:
        """Take what the monitors of all channels found."""
        for channel, monitors in self._monitors.items():
            for monitor in monitors:
                with self._survived(f"Looking at {monitor.watches}"):
                    found = monitor.look()
                    self.counts.update(found.counts)
                    for sentence in found.warnings:
                        self.warn(sentence)
                    for sentence in found.frame_warnings if channel in self._composers else ():
                        self._composers[channel].warn(sentence)

    def status(self) -> dict[str, Any]:
        """State of the running run, for people who look at it."""
        seconds = max((self._last_ns - self._first_ns) / 1e9, 1e-9)
        held = self.hook.waiting * self._frame_bytes + self._downstream_bytes()
        free: int | None = None
        with self._survived("Looking at the free space"):
            free = self._disk_free()
        return {
            "raw_frames": self.hook.received,
            "recon_frames": self.counts["recon_frames"],
            "sr_frames": self.counts["sr_frames"],
            "sr_skipped": self.counts["sr_skipped"],
            "sr_provisional": self.counts["sr_provisional"],
            "groups_dropped": self.counts["groups_dropped"],
            "sr_fps": (
                round(self.counts["sr_frames"] / seconds, 2)
                if self.counts["sr_frames"] > 1
                else 0.0
            ),
            "latency_ms": self.latency.summary(),
            "latency_provisional_ms": self.latency_provisional.summary(),
            "raw_queue": round(held / self.raw_queue_bytes, 4),
            "disk_free_bytes": free,
            "warnings": list(self.warnings),
            "engine": {n: p.engine_id for n, p in self._paths.items() if p.backend},
            **(
                {"score": self._score.summary(), "time_shift_ms": round(self._time_shift_ms, 3)}
                if self._gatherings
                else {}
            ),
            "upscale": {
                n: e.manifest.id
                for n, p in self._paths.items()
                for e in p.engines
                if e.manifest.task == "upscale"
            },
            "backend": {n: p.backend.name for n, p in self._paths.items() if p.backend},
        }

    @property
    def raw_missing(self) -> int:
        """Exposures that were announced, numbered or begun as a group, and never came."""
        return self.counts["raw_missing"] if self.hook.missing is None else self.hook.missing

    def report(self) -> dict[str, Any]:
        """Everything that is known about the run, for the table, `--json` and report.json."""
        counts = self.counts
        inner = counts["sr_frames"] - counts["sr_edges"]
        return {
            **self.status(),
            "raw_lost": (
                self.hook.received - counts["raw_frames"] + sum(s.raw_lost for s in self._sinks)
            ),
            **{name: value for s in self._sinks for name, value in s.accounts.items()},
            "raw_missing": self.raw_missing,
            "raw_fetched": self.hook.fetched,
            "raw_repeated": counts["raw_repeated"],
            "raw_aside": counts["raw_aside"],
            "groups": counts["groups"],
            "groups_incomplete": counts["groups_incomplete"],
            "recon_failed": counts["recon_failed"],
            "recon_doubtful": counts["recon_doubtful"],
            "recon_refused": counts["recon_refused"],
            "pattern_vectors_corrected": counts["pattern_vectors_corrected"],
            "sr_failed": counts["sr_failed"],
            "tc_complete": round(counts["sr_true_neighbours"] / inner, 4) if inner > 0 else 1.0,
            "device": {
                n: "cpu" if n in self._left_device else p.device.name
                for n, p in self._paths.items()
            },
            "steps_ms": self.steps.summary(),
            "acquisition_waits": self.hook.waits,
            "channels": {
                c.name: {
                    "labels": c.labels,
                    "colors": c.colors,
                    "pixel_size_um": c.sr_pixel_size_um or c.recon_pixel_size_um,
                }
                for c in self._run.channels
            },
            "sink_dropped": {s.sink.name: s.dropped for s in self._sinks if not s.lossless},
            "error": str(self.error) if self.error else None,
        }


def _saturated(stream: Stream) -> str:
    return (
        f"Channel {stream.channel or 'default'} saturates in a few pixels: its brightest structures"
        " are dimmer than they are. frames.jsonl says in which frames; expose less."
    )


class _Measured(NamedTuple):
    """What a slot makes of a raw group.

    The image (y, x), on the host and, if the network is there, on the device too.
    """

    image: NDArray[np.float32]
    levels: Normalisation
    exposures: Exposures
    quality: FrameQuality | None
    resident: Any


class _Prediction(NamedTuple):
    """What a slot makes of a window.

    `seen` is the window that the network saw, enlarged if the channel is.
    """

    window: Window
    seen: Window
    made: Composition


def _seen(window: Window, path: ChannelPath) -> tuple[SRFrame, ...]:
    """Return the frames that the network sees.

    The centre's normalisation is used for all, so that none stands out.
    """
    return (window.centre,) if path.window == 1 else (window.before, window.centre, window.after)


def _downloaded(made: Composition, slot: Slot) -> Composition:
    plane = None if made.plane is None else slot.download(made.plane)
    return made._replace(channels=slot.download(made.channels), plane=plane)
