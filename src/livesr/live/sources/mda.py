"""The hook in the acquisition thread, and what its frames are.

Owns the hand-over from pymmcore-plus to the pipeline. Copies no pixel, never raises, never touches
a disk or a network.

pymmcore-plus calls `frameReady` synchronously between two pops of the camera's buffer: every
microsecond spent here is a microsecond in which the camera fills it. So the hook takes a time stamp
and hands over; all understanding of the event happens on the other side, in `Placing`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeAlias

from psygnal import SignalInstance
from useq import MDAEvent

from livesr.base.errors import ConfigError
from livesr.base.frames import CameraFrame, Pixels, StagePosition, Stream
from livesr.base.timing import now_ns
from livesr.live.sources.camera_setting import CameraSetting

log = logging.getLogger(__name__)

RAW_AXIS = "sim"
_FIRST = 1000  # priority among a signal's listeners; 0 is what others have


class Received(NamedTuple):
    """What the hook hands over, untouched.

    `pixels` belongs to the receiver (pymmcore-plus makes a fresh array). Every listener of
    `frameReady` is given the same one, so nobody can write into it from here on. `setting` is how
    the camera was set, None if nobody said.
    """

    pixels: Pixels
    event: MDAEvent
    metadata: Mapping[str, Any]
    t_host_ns: int
    setting: CameraSetting | None = None


class MDAHook:
    """Receives `frameReady` and hands over, in order, to whoever calls `get`.

    The queue is bounded by `limit`. At the limit `room` is asked for a new one: it falls as frames
    wait further down. An untriggered acquisition is then made to wait, which loses nothing; a
    triggered one cannot wait, nor can a continuous one whose buffer is nearly full, so
    `on_overflow` is called, once, and the frames that still come are taken.

    Parameters
    ----------
    room : returns how many frames may wait in the queue now
    on_overflow : called in the acquisition thread

    Attributes
    ----------
    received : frames that arrived
    fetched : those of them that the acquisition had left in the core's buffer
    limit : most frames that may wait in the queue
    missing : frames that the camera numbered and that never came; None where the source has no
        numbers
    newest : the pixels that came last, for previews; None before the first
    setting : returns how the camera is set for the frame that came, None if nobody says; asked once
        its time is taken
    """

    __slots__ = (
        "__weakref__",
        "_on_overflow",
        "_overflowed",
        "_queue",
        "_released",
        "_room",
        "fetched",
        "limit",
        "missing",
        "newest",
        "received",
        "setting",
        "waits",
    )

    def __init__(self, room: Callable[[], int], on_overflow: Callable[[], None]) -> None:
        self._queue: SimpleQueue[Received | None] = SimpleQueue()
        self._on_overflow = on_overflow
        self._overflowed = False
        self._released = threading.Event()
        self._room = room
        self.limit = room()
        self.missing: int | None = None
        self.newest: Pixels | None = None
        self.setting: Callable[[], CameraSetting | None] = _nobody_says
        self.received = self.fetched = 0
        self.waits = 0

    def frame_ready(self, image: Pixels, event: MDAEvent, metadata: Mapping[str, Any]) -> None:
        """Take one frame; called in the acquisition thread."""
        self.take(image, event, metadata, may_wait=lambda: not metadata.get("hardware_triggered"))

    def take(
        self,
        image: Pixels,
        event: MDAEvent,
        metadata: Mapping[str, Any],
        *,
        may_wait: Callable[[], bool],
    ) -> None:
        """Take one frame; at the limit, wait for room as long as `may_wait`."""
        self._put(Received(image, event, metadata, now_ns(), self.setting()), may_wait)

    def replay(self, received: Received) -> None:
        """Take a frame that was received before and keeps the time of then.

        Waits while the queue is full.
        """
        self._put(received, may_wait=lambda: True)

    def get(self) -> Received | None:
        """Return the next frame, or None after `end`; waits."""
        return self._queue.get()

    def end(self) -> None:
        """Let `get` return None after the frames already taken."""
        self._queue.put(None)

    def release(self) -> None:
        """Let a waiting acquisition go on whatever the limit says; for a run that ends."""
        self._released.set()

    @property
    def waiting(self) -> int:
        """Frames in the queue."""
        return self._queue.qsize()

    @property
    def full(self) -> bool:
        """Whether the queue is at its limit."""
        if self._queue.qsize() < self.limit:
            return False
        self.limit = self._room()
        return self._queue.qsize() >= self.limit

    def _put(self, received: Received, may_wait: Callable[[], bool]) -> None:
        try:
            # What listeners behind this one do in place would pass for the camera's. A copy of 4
            # megapixels takes a millisecond, this 0.2 us.
            try:
                received.pixels.setflags(write=False)
            except AttributeError:  # from an engine of somebody's own
                log.debug("no array, but %s came", type(received.pixels).__name__)
            if self.full:
                self._wait(may_wait)
        finally:  # Ctrl-C, or a camera that fails while a frame waits, does not cost the frame
            self.received += 1
            self.newest = received.pixels
            self._queue.put(received)

    def _wait(self, may_wait: Callable[[], bool]) -> None:
        waited = False
        while self.full and not self._released.is_set():
            if not may_wait():
                if not self._overflowed:
                    self._overflowed = True
                    self._on_overflow()
                break
            waited = True
            time.sleep(0.002)
        self.waits += waited


def _nobody_says() -> None:
    return None


def listen(signal: Any, listener: Callable[..., None], *, first: bool = False) -> None:
    """Connect a listener that runs where the signal is emitted; `unlisten` undoes it.

    With `first` it runs before those that were connected before: psygnal calls nobody behind one
    that raises, and what one wrote into a frame, those behind it would get. Qt's signals keep the
    order of connection, and call everybody.

    In a GUI pymmcore-plus has Qt's signals, which would run it in the main thread, whenever that
    has time: too late to set anything before a run, and with the window standing still while an
    acquisition is made to wait.
    """
    # pymmcore-plus wraps signals whose parameters have changed.
    inner = signal if isinstance(signal, SignalInstance) else getattr(signal, "_signal", signal)
    if isinstance(inner, SignalInstance):
        inner.connect(listener, priority=_FIRST if first else 0)
        return
    from qtpy.QtCore import Qt

    inner.connect(listener, Qt.ConnectionType.DirectConnection)


def unlisten(signal: Any, listener: Callable[..., None]) -> None:
    """Undo `listen`; nothing where Qt has taken the signal down, as a program does at its end."""
    with suppress(RuntimeError, TypeError):  # it is gone, or what was connected is
        signal.disconnect(listener)


Place: TypeAlias = tuple[Stream, int, int]
"""Stream, time point and raw index of an exposure."""


class Placing:
    """Turns what the hook received into the frames of one run, each at the place that its event
    gives it.

    An event without any index has nothing that says where it belongs: those are counted along time,
    each channel by itself. A stage of which neither core nor event say anything is where it was.

    Parameters
    ----------
    n_raw : exposures per super-resolution frame of a channel
    only_channel : name of the channel when the plan names none
    fields : position of every (p, g) of a plan with grids; a field that is not in it has no place

    Attributes
    ----------
    stage : where the stages were last
    """

    def __init__(
        self,
        n_raw: Callable[[str], int],
        only_channel: str = "",
        fields: Mapping[tuple[int, int], int] | None = None,
    ) -> None:
        self._n_raw, self._only = n_raw, only_channel
        self._fields = {} if fields is None else fields  # a plan summary goes on filling its own
        self._counted: dict[str, int] = {}
        self.stage = StagePosition()

    def frame(self, received: Received) -> CameraFrame:
        """Return the frame that was received.

        Raises
        ------
        ConfigError
            As `place`.
        """
        stream, t, raw = self.place(received.event)
        camera = received.metadata.get("camera_metadata") or {}
        self.stage = _stage(received, self.stage)
        return CameraFrame(
            pixels=received.pixels,
            stream=stream,
            t=t,
            raw=raw,
            t_host_ns=received.t_host_ns,
            t_camera_ms=_number(camera.get("ElapsedTime-ms")),
            exposure_ms=_number(received.metadata.get("exposure_ms")),
            stage=self.stage,
        )

    def place(self, event: MDAEvent) -> Place:
        """Return stream, time point and raw index.

        Raises
        ------
        ConfigError
            As `place_of`, or if the event is at a field of a grid that was not announced.
        """
        if not event.index and "sim_raw" not in event.metadata:
            return self._count(event)
        stream, t, raw = place_of(event, self._n_raw, self._only)
        if (g := event.index.get("g")) is None and not self._fields:
            return stream, t, raw
        try:
            return stream._replace(position=self._fields[stream.position, g or 0]), t, raw
        except KeyError:
            came = "no field" if g is None else f"field {g}"
            raise ConfigError(
                f"A frame of {came} of position {stream.position} came, and this run was opened"
                " without it: give the plan to LiveSR(plan=...)."
            ) from None

    def _count(self, event: MDAEvent) -> Place:
        channel = event.channel.config if event.channel else self._only
        number = self._counted.get(channel, 0)
        self._counted[channel] = number + 1
        return Stream(0, channel, 0), *divmod(number, self._n_raw(channel))


def place_of(event: MDAEvent, n_raw: Callable[[str], int], only_channel: str = "") -> Place:
    """Read from an event which stream, time point and raw index its exposure is.

    A plan without a raw axis counts raw frames along t: the running order of a pattern display
    advances by one with every exposure, so time point t of the plan is raw frame ``t % n`` of
    super-resolution frame ``t // n``.

    Parameters
    ----------
    event : of the acquisition
    n_raw : exposures per super-resolution frame of a channel
    only_channel : name of the channel when the plan names none

    Raises
    ------
    ConfigError
        If the plan has an axis that livesr cannot place, or more raw frames than the rig.
    """
    index = event.index
    channel = event.channel.config if event.channel else only_channel
    # `index` counts places along the plan's axis; the axis says in the metadata which raw frame a
    # place is.
    n, t, raw = (
        n_raw(channel),
        index.get("t", 0),
        event.metadata.get("sim_raw", index.get(RAW_AXIS)),
    )
    if raw is None:
        if n > 1 and any(index.get(axis) for axis in "pgcz"):
            raise no_raw_axis(n)
        t, raw = divmod(t, n)
    if not 0 <= raw < n:
        raise ConfigError(
            f"The plan's axis {RAW_AXIS!r} has a raw frame {raw}; rig.yaml describes {n} of channel"
            f" {channel!r}, 0 to {n - 1}."
        )
    return Stream(index.get("p", 0), channel, index.get("z", 0)), t, raw


def _stage(received: Received, before: StagePosition) -> StagePosition:
    """Return where the stages were.

    As the core said, else as the event asked, else where they were before.
    """
    said, event = received.metadata.get("position") or {}, received.event
    asked = (_number(said.get(axis, getattr(event, f"{axis}_pos", None))) for axis in "xyz")
    return StagePosition(
        *(now if now is not None else then for now, then in zip(asked, before, strict=True))
    )


def no_raw_axis(n_raw: int) -> ConfigError:
    """Return the error of a plan that counts raw frames along time, and has more than time."""
    return ConfigError(
        f"The plan has no axis {RAW_AXIS!r}, and with positions, channels or planes beside time the"
        f" order of the {n_raw} raw frames is unknown: take livesr.with_raw_frames(plan, rig) as"
        " the plan, or livesr.sim_sequence, or give every event its raw frame, as"
        f" MDAEvent(index={{'t': 0, 'z': 2, {RAW_AXIS!r}: 3}})."
    )


def _number(text: object) -> float | None:
    try:
        number = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number + 0.0 if math.isfinite(number) else None  # -0.0, as stages say it, is 0.0
