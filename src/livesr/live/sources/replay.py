"""A recording as a live source.

Its frames reach the hook as a camera's do, read ahead on a thread of its own.

Owns the pace and the look-ahead. Opens no file: `recordings/` reads, and `livesr.store.raw_input`
says what a frame is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

from useq import MDAEvent

from livesr.base.buffers import BoundedQueue
from livesr.base.frames import CameraFrame
from livesr.base.timing import now_ns
from livesr.live.sources.mda import RAW_AXIS, MDAHook, Received

Rate: TypeAlias = float | Literal["recorded", "max"]
"""Exposures a second; or as they were recorded; or as fast as the pipeline takes them."""

_AGES_S = 1e9  # a date after none: no recording lasts so long
_LOOK_AHEAD = 16  # frames that are read before they are due


def feed(hook: MDAHook, frames: Iterable[CameraFrame], stopped: threading.Event) -> None:
    """Hand over every frame with the time that it was recorded at.

    Waits where the pipeline is behind.
    """
    with _read_ahead(frames) as ahead:
        for frame in ahead:
            if stopped.is_set():
                return
            hook.replay(_received(frame, frame.t_host_ns))


def play(
    hook: MDAHook,
    frames: Iterable[CameraFrame],
    stopped: threading.Event,
    rate: Rate,
    spacing_s: float = 0.0,
) -> None:
    """Hand over every frame as if it was exposed now.

    Whatever the rate, a full raw queue makes the recording wait, because it can: nothing is lost at
    the source.

    Parameters
    ----------
    stopped : ends the replay at once
    rate : "recorded" goes by the camera's clock where a frame has one, else by the time of its
        arrival
    spacing_s : from one exposure of a group to the next, where all of them bear the time of the
        group
    """
    pace = _Pace(rate, spacing_s)
    with _read_ahead(frames) as ahead:
        for frame in ahead:
            if (
                stopped.wait(max(pace.due_s(frame) - time.monotonic(), 0))
                if rate != "max"
                else stopped.is_set()
            ):
                return
            hook.replay(_received(frame, now_ns()))


class _Pace:
    """When each frame is due, on the clock of `time.monotonic`."""

    def __init__(self, rate: Rate, spacing_s: float) -> None:
        self._rate, self._spacing_s = rate, spacing_s
        self._count, self._begun_s, self._first_s, self._last_s = 0, 0.0, float("inf"), 0.0

    def due_s(self, frame: CameraFrame) -> float:
        """Return when the next frame, `frame`, is due."""
        if isinstance(self._rate, float):
            self._begun_s = self._begun_s or time.monotonic()
            self._count += 1
            return self._begun_s + (self._count - 1) / self._rate
        # Not the camera's clock, which many cameras begin anew with every sequence: where a file
        # has no other, its readers made this of it.
        recorded_s = frame.t_host_ns / 1e9 + frame.raw * self._spacing_s
        leapt = recorded_s - self._last_s > _AGES_S  # of a group before, a repair found no time
        if recorded_s < self._first_s or leapt:  # the first frame, or a clock that began anew
            self._begun_s, self._first_s = time.monotonic(), recorded_s
        self._last_s = recorded_s
        return self._begun_s + recorded_s - self._first_s


def _received(frame: CameraFrame, t_ns: int) -> Received:
    """Return the frame as the hook of an acquisition would have handed it over."""
    stream = frame.stream
    index = {"t": frame.t, "p": stream.position, "z": stream.z, RAW_AXIS: frame.raw}
    about = {
        "camera_metadata": {"ElapsedTime-ms": frame.t_camera_ms},
        "exposure_ms": frame.exposure_ms,
        "position": dict(zip("xyz", frame.stage, strict=True)),
    }
    return Received(
        frame.pixels, MDAEvent(index=index, channel=stream.channel or None), about, t_ns
    )


@contextmanager
def _read_ahead(frames: Iterable[CameraFrame]) -> Iterator[Iterator[CameraFrame]]:
    """Give an iterator over `frames` that are read in a thread, a few before they are asked for.

    What reading raises is raised by the iterator, after the frames before it.
    """
    queue: BoundedQueue[CameraFrame] = BoundedQueue(_LOOK_AHEAD, "block")
    failure: list[BaseException] = []
    leave = threading.Event()

    def read() -> None:
        try:
            for frame in frames:
                queue.put(frame)
                if leave.is_set():
                    return
        except BaseException as e:  # belongs to whoever iterates
            failure.append(e)
        finally:
            queue.close()

    def taken() -> Iterator[CameraFrame]:
        while (frame := queue.get()) is not None:
            yield frame
        if failure:
            raise failure[0]

    reader = threading.Thread(target=read, name="livesr-read", daemon=True)
    reader.start()
    try:
        yield taken()
    finally:
        leave.set()
        queue.close()
        reader.join()
