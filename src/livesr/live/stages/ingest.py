"""Thread "livesr-ingest": what the hook received becomes raw groups.

Owns where a frame belongs, the groups that are open and what is said of frames that do not fit.
Looks at no pixel.
"""

from __future__ import annotations

from dataclasses import replace

from livesr.base.errors import FrameShapeError, LiveSRError, RunError
from livesr.base.frames import CameraFrame, RawStack, StagePosition, Stream
from livesr.base.words import counted
from livesr.formats.skips import RAW_MISSING
from livesr.live.asked_interval import AskedInterval
from livesr.live.channel import Channel
from livesr.live.left_out import left_out
from livesr.live.report import raw_missing
from livesr.live.run import Run
from livesr.live.sources.camera_setting import CameraSetting
from livesr.live.sources.mda import MDAHook, Placing, Received


class Ingest:
    """Takes frames from the hook, gives raw groups to the queue of stacks and the lossless sinks.

    Parameters
    ----------
    run : what the stages share
    hook : where frames come in
    """

    def __init__(self, run: Run, hook: MDAHook) -> None:
        self._run, self._hook, self._state = run, hook, run.state
        self._asked_interval = AskedInterval(
            None if run.description.recorded_interval_s else run.description.interval_s
        )
        only = next(iter(run.channels)) if len(run.channels) == 1 else ""
        self._placing = Placing(
            lambda channel: self._channel(channel).path.n_raw, only, run.description.fields
        )
        self._groupings = {
            name: channel.grouping for name, channel in run.channels.items() if channel.grouping
        }

    def begin_at(self, stage: StagePosition) -> None:
        """Take note of where the stages are; before the first frame, in any thread."""
        self._placing.stage = stage

    def work(self) -> None:
        """Take frames until the hook has no more."""
        while (received := self._hook.get()) is not None:
            self._state.count("raw_frames")
            self._take(received)
        for grouping in self._groupings.values():
            for stack in grouping.flush():
                self._group(stack)
            self._state.count("groups_incomplete", grouping.incomplete)
            self._state.count("raw_missing", grouping.missing)
            self._state.count("raw_repeated", grouping.repeated)
        counts = self._state.counts
        exposed = [c.path for c in self._run.channels.values() if c.grouping]
        for sentence in left_out(
            raw_missing(self._state, self._hook),
            counts["raw_repeated"],
            counts["raw_unplaced"],
            running=all(path.accumulates for path in exposed),
        ):
            self._state.warn(sentence)
        self._run.queues.stacks.close()

    def _take(self, received: Received) -> None:
        """Put a frame into its group.

        One that cannot be placed ends the run; it is kept, as those that still come.
        """
        try:
            with self._state.steps.measure("group"):
                frame = self._frame(received)
                stacks = self._groupings[frame.stream.channel].push(frame)
        except Exception as e:
            self._state.stop(
                e
                if isinstance(e, LiveSRError)
                else RunError(f"A frame cannot be placed: {e or type(e).__name__}.")
            )
            self._keep_unplaced(received)
            return
        for stack in stacks:
            self._group(stack)
        self._hook.limit = self._run.queues.room_frames()

    def _group(self, stack: RawStack) -> None:
        """Hand over a group that is closed, or an update of one that is not."""
        if stack.newest:
            self._run.queues.put_update(stack)
            return
        self._run.sinks.raw(stack)
        self._run.dose.exposed(stack)
        if late := self._asked_interval.late(stack):
            self._state.warn(late)
        if stack.unplaced:
            return
        if not stack.complete and not self._run.channels[stack.stream.channel].path.accumulates:
            self._run.skip(stack.stream, stack.t, RAW_MISSING)
            return
        self._state.count("groups")
        for dropped in self._run.queues.put_stack(stack):
            self._state.count("groups_dropped")
            self._run.dropped.add(dropped)
            self._run.skip(dropped.stream, dropped.t, "reconstruction cannot keep up")

    def _keep_unplaced(self, received: Received) -> None:
        """Keep a frame that has no place in the run."""
        self._state.count("raw_unplaced")
        t, now_ns = received.event.index.get("t", 0), received.t_host_ns
        self._run.sinks.unplaced(RawStack((received.pixels,), Stream(), t, now_ns, now_ns))

    # -- where a frame belongs ---------------------------------------------------------------------

    def _frame(self, received: Received) -> CameraFrame:
        """Place a frame; one that does not fit raises what the user has to know."""
        frame = self._placing.frame(received)
        if (planes := self._run.description.planes_as_positions) > 1:
            position, channel, z = frame.stream
            frame = replace(frame, stream=Stream(position * planes + z, channel))
        self._check_fits(frame)
        self._check_setting(frame, received.setting)
        self._state.placed(frame.t_host_ns)
        self._look_at_exposure(frame)
        return frame

    def _check_fits(self, frame: CameraFrame) -> None:
        run, stream = self._run.description, frame.stream
        expected = self._channel(stream.channel).path.description
        if stream.z >= run.stack(stream.position, stream.channel).z_planes:
            raise FrameShapeError(
                f"A frame of channel {stream.channel or 'default'} at position {stream.position},"
                f" plane {stream.z} came; this run was opened for"
                f" {counted(len(run.positions), 'position')} and"
                f" {counted(run.z_planes, 'plane')}, and not for this one. Give the plan to"
                " LiveSR(plan=...)."
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

    def _check_setting(self, frame: CameraFrame, setting: CameraSetting | None) -> None:
        """Refuse a frame of the right size that shows another place, or in other pixels."""
        if setting is None:
            return
        channel = self._run.channels[frame.stream.channel]
        y, x = opened = channel.path.description.raw_origin_px
        if channel.setting is None and setting.origin_px not in {None, opened}:
            raise FrameShapeError(
                f"The camera delivers {setting.words()} for channel"
                f" {frame.stream.channel or 'default'} (time point {frame.t}), and the run was"
                f" opened for pixels from ({x:g}, {y:g}) of the chip. Everything received is kept;"
                " give the plan to LiveSR(plan=...) if its events set region or binning, or set"
                " them before the run."
            )
        channel.setting = before = channel.setting or setting
        if setting != before:
            raise FrameShapeError(
                f"The camera was set otherwise while channel {frame.stream.channel or 'default'}"
                f" was acquired (time point {frame.t}): it delivers {setting.words()}, and the run"
                f" began with {before.words()}. An image has one region and one pixel size. The"
                " run has ended and everything received is kept; start a new run for other"
                " settings."
            )

    def _look_at_exposure(self, frame: CameraFrame) -> None:
        """Warn, once a channel, of an exposure that changed.

        The frames still fit, what they measure does not.
        """
        channel, now_ms = frame.stream.channel, frame.exposure_ms
        before_ms = self._run.channels[channel].exposure.changed_from(now_ms)
        if before_ms is not None:
            self._state.warn(
                f"The exposure of channel {channel or 'default'} changed from {before_ms:g} to"
                f" {now_ms:g} ms at time point {frame.t}: intensities before and after do not"
                " compare, and no prediction looks across. Start a new run for another exposure."
            )

    def _channel(self, name: str) -> Channel:
        try:
            return self._run.channels[name]
        except KeyError:
            if not name:
                raise FrameShapeError(
                    "A frame came whose event names no channel; this run was opened for"
                    f" {', '.join(map(repr, self._run.channels))}: name one of them in the event,"
                    " as MDAEvent(channel=...), or in the plan."
                ) from None
            raise FrameShapeError(
                f"A frame of channel {name!r} came; this run was opened for"
                f" {', '.join(map(repr, self._run.channels))}. Give the plan to LiveSR(plan=...),"
                " or name the channel in rig.yaml."
            ) from None
