"""Thread "livesr-reconstruct": raw groups become measurements, three of them a window.

Owns the order of measurements and what follows from it: normalisation, windows, sums of channels.
What is done to the pixels is in `livesr.live.measurement`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from livesr.base.frames import RawStack, SRFrame, Stream, Window
from livesr.formats.skips import none_yet, refused
from livesr.live.beside import Companions
from livesr.live.measurement import Measured
from livesr.live.ordered_workers import OrderedWorkers
from livesr.live.reconstruct.reconstructor import DoubtfulFrameError, RunningImage
from livesr.live.run import Run
from livesr.live.stages.superpose import Sum
from livesr.live.stream_state import Streams
from livesr.optics.raw_quality import repeated_quality

Result: TypeAlias = Callable[[], Measured | None]
"""Returns what was made of a group, or raises why nothing was; None if the step has ended."""


class Reconstruct:
    """Takes raw groups from the queue of stacks, gives windows to the queue of windows.

    The groups are measured in slots, `_measure`, and land here in their order. With the CPU's one
    slot, or where a running image needs its groups in order, that is the same thread.

    Parameters
    ----------
    run : what the stages share
    """

    def __init__(self, run: Run) -> None:
        self._run, self._state, self._recorded = run, run.state, run.recorded
        paths = {name: channel.path for name, channel in run.channels.items()}
        self._streams = Streams(paths, run.recorded)
        self._companions = Companions(paths)
        self._sums = [Sum(run, path, self._streams) for path in paths.values() if path.parts]
        in_slots = all(path.on_device for path in paths.values() if not path.parts)
        slots = max(len(path.on_device) for path in paths.values()) if in_slots else 1
        self._workers = OrderedWorkers(self._measure, max(slots, 1), "measure")
        self._updating = True

    def work(self) -> None:
        """Measure groups until there are no more, then give the windows of the last frames."""
        for stack, result in self._workers.over(self._run.queues.stacks):
            self._land(stack, result)
        for window in self._streams.flush():
            centre = window.centre
            if self._run.dropped.lacks_neighbour(window):
                self._run.skip_centre(centre.stream, centre.t, "a neighbour was dropped")
            elif self._recorded.wanted(centre.stream, centre.t):
                self._run.queues.put_window(window, keep=True)
        self._run.queues.windows.close()

    def _measure(self, slot: int, stack: RawStack) -> Measured | None:
        if self._state.ended("reconstruct"):
            return None
        channel = self._run.channels[stack.stream.channel]
        if stack.newest:
            return channel.measurement.update(slot, stack)
        running = self._streams[stack.stream].running if channel.path.accumulates else None
        return channel.measurement.measure(slot, stack, running)

    def _land(self, stack: RawStack, result: Result) -> None:
        """Hand on what was made of a group, or say why there is nothing."""
        if stack.newest:
            self._show_update(stack, result)
            return
        if not self._state.ended("reconstruct"):
            try:
                if self._measured(stack, result):
                    return
            except DoubtfulFrameError as e:
                self._state.count("recon_refused")
                self._warn_of_doubt(stack, "refused", e.cause, str(e))
                self._run.skip(stack.stream, stack.t, refused(e))
                return
            except BaseException as e:  # raw frames go on being recorded whatever it raises
                self._state.step_failed("reconstruct", e)
        self._state.count("recon_failed")
        self._run.skip(stack.stream, stack.t, self._state.ended("reconstruct"))

    def _show_update(self, stack: RawStack, result: Result) -> None:
        """Show what was made of a group under way; nothing follows from it."""
        if not self._updating or self._state.ended("reconstruct"):
            return
        try:
            if measured := result():
                self._state.count("recon_updates")
                self._run.sinks.recon(self._updated(stack, measured))
        except DoubtfulFrameError as e:
            self._state.count("updates_refused")
            self._warn_of_doubt(stack, "not shown before their group is complete", e.cause, str(e))
        except Exception as e:  # what is only a courtesy must not end the frames that count
            self._updating = False
            self._state.warn(
                f"A picture of a group under way failed ({type(e).__name__}: {e}); only whole"
                " groups are shown from here on."
            )

    def _updated(self, stack: RawStack, measured: Measured) -> SRFrame:
        return SRFrame(
            measured.image,
            stack.stream,
            stack.t,
            stack.t_acq_ns,
            stack.t_last_ns,
            self._streams[stack.stream].normalised,
            measured.exposures.saturated,
            stack.t_camera_ms,
            quality=measured.quality,
            exposure_ms=stack.exposure_ms,
            stage=stack.stage,
            newest=stack.newest,
            span_ms=stack.span_ms,
        )

    def _measured(self, stack: RawStack, result: Result) -> bool:
        """Hand on a measurement, and the windows that it completes; False if there is none."""
        monitors = self._run.channels[stack.stream.channel].monitors if stack.complete else ()
        for monitor in monitors:
            with self._state.survived(f"Looking at {monitor.watches}"):
                monitor.before(stack)
        stands_still = self._streams[stack.stream].last.is_first_of(stack.frames)
        if (measured := result()) is None:
            return False
        if stands_still:
            measured = measured._replace(quality=repeated_quality(measured.quality, stack.frames))
        frame = self._companions.with_companion(self._frame(stack, measured))
        if quality := measured.quality:
            for monitor in monitors:
                with self._state.survived(f"Looking at {monitor.watches}"):
                    monitor.after(stack, quality)
        self._state.measured()
        self._run.errors.exposed(stack)
        self._hand_on(frame)
        self._run.sinks.exposed(stack)
        for sum_ in self._sums:
            if summed := sum_.add(frame):
                self._hand_on(summed)
        return True

    # -- a measurement -----------------------------------------------------------------------------

    def _frame(self, stack: RawStack, measured: Measured) -> SRFrame:
        """Add to a measurement what follows from the frames before it."""
        stream = self._streams[stack.stream]
        recorded = self._recorded.normalisation(stack.stream, stack.t) is not None
        self._recorded.levels(stack.stream, stack.t, measured.levels)
        normalisation = stream.normalisation(measured.levels, recorded=recorded)
        self._look_at_quality(stack, measured)
        if stream.running is None and not recorded:  # those lag behind the specimen
            self._run.dose.measured(stack.stream, measured.levels.scale)
        return SRFrame(
            measured.image,
            stack.stream,
            stack.t,
            stack.t_acq_ns,
            stack.t_last_ns,
            normalisation,
            measured.exposures.saturated,
            stack.t_camera_ms,
            localisations=stream.running.localisations if stream.running else None,
            drift_nm=stream.running.drift_nm if stream.running else None,
            jump_nm=self._jump_nm(stack, stream.running),
            quality=measured.quality,
            resident=measured.resident,
            exposure_ms=stack.exposure_ms,
            emitters_per_um2=stream.running.emitters_per_um2 if stream.running else None,
            depth_nm=stream.running.depth_nm if stream.running else None,
            group=measured.group,
            span_ms=(stack.span_ms or None)  # recorded frames have the time of their group
            if self._run.channels[stack.stream.channel].path.updates
            else None,
            stage=stack.stage,
        )

    def _jump_nm(self, stack: RawStack, running: RunningImage | None) -> tuple[float, float] | None:
        """Return by how much the specimen jumped before a group, and warn of it."""
        if running is None or (jump_nm := running.jump_nm) is None:
            return None
        self._state.warn_with_example(
            f"The specimen of channel {stack.stream.channel or 'default'} jumped. What follows is"
            " laid on what was before; the group in which it jumped is blurred.",
            f"First at time point {stack.t}: by {jump_nm[0]:.0f} nm in y, {jump_nm[1]:.0f} nm in x."
            " frames.jsonl has each (drift_jump_nm). Look at the stage, its clamps and cables.",
        )
        return jump_nm

    def _look_at_quality(self, stack: RawStack, measured: Measured) -> None:
        quality = measured.quality
        if measured.exposures.saturated:
            self._look_at_ceiling(stack)
        if quality and quality.doubt:
            self._state.count("recon_doubtful")
            shown = "shown" if quality.resolved else "shown as widefield"
            self._warn_of_doubt(stack, shown, quality.cause, quality.doubt)
        elif measured.exposures.clipped:
            self._state.warn(
                f"Channel {stack.stream.channel or 'default'} saturates in a few pixels: its"
                " brightest structures are dimmer than they are. frames.jsonl says in which"
                " frames; expose less."
            )

    def _look_at_ceiling(self, stack: RawStack) -> None:
        """Warn of pixels above the camera's ceiling, of which there can be none."""
        path = self._run.channels[stack.stream.channel].path
        if max(int(f.max()) for f in stack.came) > path.ceiling:
            self._state.warn(
                f"Pixels of channel {path.name or 'default'} exceed {path.ceiling}, which rig.yaml"
                " or Micro-Manager say is the camera's ceiling: what is counted as saturated is"
                " not. Correct camera.bit_depth, or the camera's pixel type."
            )

    def _warn_of_doubt(self, stack: RawStack, shown: str, cause: str, doubt: str) -> None:
        """Warn of a doubtful frame.

        The first of its cause is the example, frames.jsonl has the numbers of each.
        """
        self._state.warn_with_example(
            f"Frames of channel {stack.stream.channel or 'default'} are doubtful and {shown}:"
            f" {cause}.",
            f"First at time point {stack.t}: {doubt}. frames.jsonl has each.",
        )

    # -- its windows -------------------------------------------------------------------------------

    def _hand_on(self, frame: SRFrame) -> None:
        """Hand a measurement over, and to the window if it is to be separated."""
        self._run.sinks.recon(frame)
        self._run.errors.measured(frame)
        self._run.audits.measured(frame)
        channel = self._run.channels[frame.stream.channel]
        if channel.separation is None:
            return
        if (other := channel.path.networks.beside) and frame.beside is None:
            self._run.skip_centre(frame.stream, frame.t, none_yet(other))
            return
        with self._state.steps.measure("window"):
            windows = self._streams[frame.stream].window.push(frame)
        for window in windows:
            self._offer(window)
        self._offer_provisional(frame.stream)

    def _offer(self, window: Window) -> None:
        """Give a window to the network.

        Under "latest" it replaces one of its stream that still waits, unless true channels were
        exposed to score that one.
        """
        stream, t = window.centre.stream, window.centre.t
        if not self._recorded.wanted(stream, t):
            return
        skips = self._run.keeping_up.skips
        if skips and self._run.dropped.lacks_neighbour(window):
            self._run.skip_centre(stream, t, "a neighbour was dropped")
            return
        keep = not skips and self._network_has_room()
        rare = self._run.audits.taken(window.centre)
        for displaced in self._run.queues.put_window(window, keep=keep, rare=rare):
            centre = displaced.centre
            self._run.skip_centre(centre.stream, centre.t, "the network cannot keep up")

    def _network_has_room(self) -> bool:
        """Wait until a window more may wait for the network.

        False if the network does not answer.
        """
        while not (room := self._run.queues.wait_for_room()) and not self._run.watchdog.overdue:
            pass
        return room

    def _offer_provisional(self, stream: Stream) -> None:
        """Offer the newest frame of `stream` to a network that has nothing else to do.

        Any complete window displaces it.
        """
        if self._run.provisional.wanted:
            self._run.provisional.came(stream)
            if window := self._streams[stream].window.provisional():
                self._run.queues.windows.put_idle(window)
