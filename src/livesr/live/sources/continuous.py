"""Sequence acquisition outside an MDA.

Continuous, as the live mode of a GUI, or of a number of frames.

Owns the thread that polls the core's circular buffer, and when it runs. Reconstructs nothing, opens
no store, and never starts a camera. pymmcore-plus pushes nothing here: its events say when to poll,
the frames must be fetched.

::

    ...AcquisitionStarting   former run ended, buffer emptied and sized, run opened  (user's thread)
    ...AcquisitionStarted    polling begins                                          ("livesr-live")
    sequenceAcquisitionStopped, camera no longer running, MDA started, `LiveMode.finish`
                             what is in the buffer is taken, the run ends, polling ends
    the run fails            likewise, after the camera was stopped

A continuous acquisition is a plan along t: its frame k is the frame with `ImageNumber` k. What the
plan's t becomes in a group of n exposures, `livesr.live.sources.mda.place_of` knows.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Any, Literal, Protocol

import psutil
from pymmcore_plus import CMMCorePlus, Metadata
from useq import MDAEvent, MDASequence

from livesr.base.config import RigConfig
from livesr.base.errors import ConfigError, LiveSRError, RunError
from livesr.base.frames import Pixels
from livesr.live.sources.acquiring import acquires
from livesr.live.sources.delivery import DRAINED
from livesr.live.sources.mda import MDAHook, listen, unlisten
from livesr.live.sources.triggered import trigger_of

log = logging.getLogger(__name__)

Mode = Literal["off", "own", "peek"]
BUFFER_S = 2.0
_POLL_S = 0.001
_ROW_MS = 0.005  # to read a row of a fast sCMOS camera: of one that tells no exposure
_ASK_CAMERA_S = (
    0.05  # an empty buffer is older than this before the camera is asked whether it still runs
)
# Part of the core's buffer that is left to the frames that come while the camera stops: half a
# second. On two busy cores it took a tenth of one to see how full it is and to stop.
_RESERVE = 0.25

OVERFLOWED = (
    "Micro-Manager's buffer was full: the core then throws away the frames that wait in it, or"
    " stops the camera. This computer took frames out of it more slowly than the camera made"
    " them: lower the frame rate, close other programs, or make the buffer larger"
    " (core.setCircularBufferMemoryFootprint)."
)

FULL_BEFORE = (
    "Frames vanish, and Micro-Manager's buffer had been full before this run joined the camera:"
    " whether it was full again or another program takes frames, nothing tells. Start the camera"
    " when livesr is there: then it is told."
)


class Run(Protocol):
    """What polling needs of a run."""

    hook: MDAHook

    def stop(self, error: LiveSRError) -> None:
        """End the run because of `error`; calls the `on_stop` that it was opened with."""

    def warn(self, sentence: str) -> None:
        """Add a sentence to the warnings of the run, once."""


OpenRun = Callable[[MDASequence, Callable[[], None]], Run]


class Numbering:
    """`ImageNumber` to place along the run, so that a lost frame never shifts the phase of those
    after it.

    Place k is raw frame ``k % n_raw`` of time point ``k // n_raw``, and ``k % n_raw`` is always
    ``ImageNumber % n_raw``. A number that goes backwards is a camera that was started anew
    unnoticed: its frames follow after one time point that stays empty, so that no window spans the
    break.

    Parameters
    ----------
    n_raw : exposures per super-resolution frame
    joined : the camera ran before; the group of the first number is time point 0, and nothing
        before it is missing

    Attributes
    ----------
    joined : whether the camera ran before and no frame of it came yet
    last : the last number, -1 before the first
    missing : numbers that never came
    restarts : how often the number went backwards
    """

    __slots__ = ("_n_raw", "_shift", "joined", "last", "missing", "restarts")

    def __init__(self, n_raw: int, *, joined: bool = False) -> None:
        self._n_raw, self.joined = n_raw, joined
        self.last, self._shift = -1, 0
        self.missing = self.restarts = 0

    @property
    def time_point(self) -> int:
        """Where the next frame belongs."""
        return max(self.last + 1 + self._shift, 0) // self._n_raw

    def place(self, number: int) -> int:
        """Return the place of the frame with `number`, and count what is missing before it."""
        if self.joined:
            self.joined, self._shift, self.last = False, -self._group_start(number), number - 1
        elif number <= self.last:
            self.restarts += 1
            self._shift = self._group_start(self.last + self._shift) + 2 * self._n_raw
            self.last = -1
        self.missing += number - self.last - 1
        self.last = number
        return number + self._shift

    def _group_start(self, place: int) -> int:
        return place - place % self._n_raw


class LiveMode:
    """Turns sequence acquisitions of a core outside MDAs into runs, one each.

    The camera stays the user's: it is stopped only when a run fails (a full queue, a full disk,
    another frame size), never because polling ends.

    Parameters
    ----------
    core : the core whose events say when to poll
    rig : names the channels
    mode : "own" pops every frame: nothing is lost, but other readers of the buffer, such as a GUI's
        preview, get none. "peek" copies the newest frame and leaves it there: frames may be missed.
        "off" says once what could be set
    open_run : called with the plan and what stops the camera; raises LiveSRError if there can be no
        run
    end_run : called once per opened run when no more frames come, from the user's thread or from
        the poller's
    fail : called with what `open_run` raised; the camera goes on
    """

    def __init__(
        self,
        core: CMMCorePlus,
        rig: RigConfig,
        mode: Mode,
        open_run: OpenRun,
        end_run: Callable[[], None],
        fail: Callable[[LiveSRError], None],
    ) -> None:
        self._core, self._rig, self._mode = core, rig, mode
        self._open_run, self._end_run, self._fail = open_run, end_run, fail
        self._poller: Poller | None = None
        self._told = False
        self._connected: tuple[tuple[Any, Callable[..., None]], ...] = ()

    def connect(self) -> None:
        """Follow the core's events; a sequence that runs already becomes a run from here on.

        Raises
        ------
        ConfigError
            If frames are to be peeked at and several make one super-resolution frame, or if a
            trigger must let the pattern display run.
        """
        if self._mode != "off" and (trigger := trigger_of(self._rig)):
            raise ConfigError(
                f"Live mode does not raise {trigger.place} of rig {self._rig.name!r}, and its"
                " display would show no patterns: acquire with an MDA, or use a rig.yaml without"
                f" {trigger.place} where the display runs by itself."
            )
        if self._mode == "peek" and (n := self._rig.max_raw_frames) > 1:
            raise ConfigError(
                f"Live mode 'peek' may miss frames, and rig {self._rig.name!r} needs {n} in their"
                " order: use live='own'."
            )
        if self._mode == "own":
            log.warning(
                "Live mode 'own' takes every frame out of Micro-Manager's buffer: previews of other"
                " programs on this core will not get frames. Show livesr's own instead, or use"
                " live='peek' where frames may be missed."
            )
        self._connected = self._listeners()
        for signal, listener in self._connected:
            listen(signal, listener)
        if self._mode != "off" and not acquires(self._core) and camera_runs(self._core):
            self._open(joined=True)
            self._started()

    def disconnect(self) -> None:
        """Follow no more; a run in progress ends, its camera goes on."""
        for signal, listener in self._connected:
            unlisten(signal, listener)
        self.finish()

    def _listeners(self) -> tuple[tuple[Any, Callable[..., None]], ...]:
        events = self._core.events
        return (
            (events.continuousSequenceAcquisitionStarting, self._starting),
            (events.continuousSequenceAcquisitionStarted, self._started),
            (events.sequenceAcquisitionStarting, self._starting),
            (events.sequenceAcquisitionStarted, self._started),
            (events.sequenceAcquisitionStopped, self._stopped),
            (events.configSet, self._config_set),
            (events.pixelSizeChanged, self._pixel_size_changed),
        )

    def finish(self) -> None:
        """Take what is in the buffer now and end the run, if there is one.

        Returns when that is done.
        """
        if self._poller is not None:
            self._poller.finish()

    def settle(self) -> None:
        """End the run if its camera has stopped by itself; a run in progress goes on."""
        if self._poller is not None and self._poller.started and not camera_runs(self._core):
            self._poller.finish()

    # -- events of the core ------------------------------------------------------------------------

    # Without parameters: continuous and finite acquisitions announce themselves with different
    # ones.
    def _starting(self) -> None:
        if acquires(self._core) or camera_runs(self._core):
            # triggered sequences of an MDA come by frameReady; a second start is refused by the
            # core
            return
        if self._mode == "off":
            self._say_what_could_be_set()
            return
        self.finish()
        self._open(joined=False)

    def _started(self) -> None:
        if self._poller is not None and not acquires(self._core):
            self._poller.start()

    def _stopped(self, label: str) -> None:
        # Not by the label: UniMMCore announces a camera written in Python as "".
        if not camera_runs(self._core):
            self.finish()

    def _config_set(self, group: str, preset: str) -> None:
        if self._poller is not None and group == self._rig.channel_group:
            self._poller.preset_set(preset)

    def _pixel_size_changed(self, size_um: float) -> None:
        if self._poller is not None:
            self._poller.pixel_size_set(float(size_um))

    # -- runs --------------------------------------------------------------------------------------

    def _open(self, *, joined: bool) -> None:
        self._poller = None
        try:
            if not joined:
                prepare_buffer(self._core, self._mode)
            plan = live_plan(self._core, self._rig)
            preset = set_preset(self._core, self._rig.channel_group)
            run = self._open_run(plan, self._abort)
        except (LiveSRError, RuntimeError) as e:
            log.error("Live mode does not start: %s", e)
            self._fail(
                e if isinstance(e, LiveSRError) else RunError(f"Live mode did not start: {e}.")
            )
            return
        channel = plan.channels[0].config if plan.channels else ""
        numbering = Numbering(self._rig.raw_frames(channel), joined=joined)
        poller = Poller(self._core, run, self._mode, numbering, self._end_run, channel)
        poller.preset_set(preset)
        self._poller = poller

    def _abort(self) -> None:
        if self._poller is not None:
            self._poller.abort()

    def _say_what_could_be_set(self) -> None:
        if not self._told:
            self._told = True
            log.warning(
                "The camera was started outside an MDA and live mode is off: its frames are not"
                " processed. LiveSR(..., live='own') takes them."
            )


class Poller:
    """Fetches the frames of one run, in a thread of its own, every millisecond.

    Parameters
    ----------
    core, mode : as for `LiveMode`
    run : gets the frames
    numbering : places them
    end_run : called once, when no more frames come
    channel : what the frames are called, "" where the rig names none
    """

    def __init__(
        self,
        core: CMMCorePlus,
        run: Run,
        mode: Mode,
        numbering: Numbering,
        end_run: Callable[[], None],
        channel: str = "",
    ) -> None:
        self._core, self._run, self._numbering, self._end_run = core, run, numbering, end_run
        self._channel = self._preset = channel
        self._own = mode == "own"
        self._fetch = self._pop if self._own else self._peek
        self._thread = threading.Thread(target=self._work, name="livesr-live", daemon=True)
        self._finish = threading.Event()
        self._abort = self._ended = False
        self._count, self._look_again_s = 0, 0.0
        self._capacity = self._reserve = 0
        self._was_full = False
        self._exposure_ms: float | None = None
        self._pixel_size_um = float(core.getPixelSizeUm(True))
        run.hook.missing = 0

    @property
    def started(self) -> bool:
        """Whether polling has begun."""
        return self._thread.ident is not None

    def preset_set(self, preset: str) -> None:
        """Say it where the light is no longer that of the channel; "" is no preset."""
        if self._ended or not self._channel or preset in {"", self._preset}:
            return
        self._preset = preset
        again = ", again" if preset == self._channel else ""
        self._run.warn(
            f"Preset {preset} is set from time point {self._numbering.time_point} on{again}. Frames"
            f" of this run are called {self._channel} whatever is set: stop the camera, set the"
            " channel, and start it again."
        )

    def pixel_size_set(self, size_um: float) -> None:
        """Say it where another objective, or magnifier, has come: a region and a binning cannot
        change while the camera runs.
        """
        before_um, self._pixel_size_um = self._pixel_size_um, size_um
        if self._ended or math.isclose(size_um, before_um, rel_tol=1e-6):
            return
        now = f"{1e3 * size_um:g} nm" if size_um else "unknown"
        self._run.warn(
            f"Micro-Manager's pixel size was {1e3 * before_um:g} nm, and is {now} from time point"
            f" {self._numbering.time_point} on, as with another objective. Pictures of this run"
            " keep the one that it began with, and what they show from there on is of another size:"
            " stop the camera and start it again."
        )

    def start(self) -> None:
        """Begin to poll; the camera runs."""
        if not self.started and not self._ended:
            self._capacity = self._core.getBufferTotalCapacity()
            self._reserve = max(int(self._capacity * _RESERVE), 2)
            self._was_full = self._core.isBufferOverflowed()
            self._thread.start()

    def finish(self) -> None:
        """Take what is in the buffer now, end the run.

        Returns when that is done. May be called again, by any thread.
        """
        # What is left is taken without waiting for room: it is at most one core buffer, and a user
        # waits here.
        self._run.hook.release()
        self._finish.set()
        if not self.started:
            self._end()
        elif self._thread is not threading.current_thread():
            self._thread.join()

    def abort(self) -> None:
        """Stop the camera and finish.

        Returns at once. The poller does it, before it takes another frame: the caller may be any
        thread of the run.
        """
        self._abort = True
        self._finish.set()

    def _work(self) -> None:
        try:
            if self._numbering.joined and self._own:
                self._discard()
            self._poll()
            self._heed_abort()
            self._fetch()
            if self._own and self._overflowed():
                self._run.warn(OVERFLOWED)
        except Exception as e:  # whatever a driver raises ends this run, not the process
            self._run.stop(
                RunError(
                    f"Live mode ended with an error of the camera or core: {type(e).__name__}: {e}."
                )
            )
            self._abort = True
            self._heed_abort()
            self._take_what_is_left()
        finally:
            self._end()

    def _poll(self) -> None:
        seen_s = time.monotonic()
        while not self._finish.is_set():
            if self._fetch():
                seen_s = time.monotonic()
                continue
            if time.monotonic() - seen_s > _ASK_CAMERA_S:
                if not camera_runs(self._core):
                    return
                seen_s = time.monotonic()
            self._finish.wait(_POLL_S)

    def _take_what_is_left(self) -> None:
        try:
            self._fetch()
        except Exception as e:  # the run has ended already, with its own error
            self._run.warn(
                "What was left in Micro-Manager's buffer could not be fetched:"
                f" {type(e).__name__}: {e}."
            )

    def _pop(self) -> int:
        """Take what is in the buffer now, oldest first; return how many frames that were."""
        remaining = self._core.getRemainingImageCount()
        for taken in range(remaining):
            self._heed_abort()
            try:
                image, metadata = self._core.popNextImageAndMD()
            except IndexError:  # somebody else takes frames as well
                return taken
            self._hand_over(image, metadata)
        return remaining

    def _peek(self) -> int:
        """Take a copy of the newest frame if it is new."""
        count = self._core.getRemainingImageCount()
        if (
            not count
            or (count == self._count and time.monotonic() < self._look_again_s)
            or self._run.hook.full
        ):
            return 0
        # Copying the newest frame only to see its number is dear. As many frames as before are
        # mostly the same frames.
        self._count, self._look_again_s = count, time.monotonic() + self._core.getExposure() / 2e3
        try:
            image, metadata = self._core.getLastImageAndMD()
        except IndexError:  # somebody else took it
            return 0
        if int(metadata["ImageNumber"]) == self._numbering.last:
            return 0
        self._hand_over(image, metadata)
        return 1

    def _hand_over(self, image: Pixels, metadata: Metadata) -> None:
        numbering, number = self._numbering, int(metadata["ImageNumber"])
        missing, restarts = numbering.missing, numbering.restarts
        event = MDAEvent(index={"t": numbering.place(number)})
        self._run.hook.missing = numbering.missing
        if self._own and (gap := numbering.missing - missing):
            self._run.warn(self._why_lost(gap))
        if restarts < numbering.restarts:
            log.warning("ImageNumber went back to %d: the camera was started anew.", number)
        camera = {"ElapsedTime-ms": metadata.get("ElapsedTime-ms", None)}
        about = {"camera_metadata": camera, "exposure_ms": self._exposure_now_ms()}
        self._run.hook.take(image, event, about, may_wait=self._buffer_has_room)

    def _exposure_now_ms(self) -> float | None:
        """Return what is set now, or was before if the camera does not say.

        A frame of live mode is in the buffer for a millisecond, unless the run cannot keep up.
        """
        try:
            self._exposure_ms = self._core.getExposure()
        except Exception as e:  # whatever a driver raises: the frame is here, and is kept
            self._run.warn(f"The camera does not say its exposure: {type(e).__name__}: {e}.")
        return self._exposure_ms

    def _buffer_has_room(self) -> bool:
        if not camera_runs(self._core):
            # Nothing fills the buffer any more, but a new region would empty it: what is left does
            # not wait.
            self._run.hook.release()
        return self._core.getBufferFreeCapacity() > self._reserve

    def _why_lost(self, gap: int) -> str:
        """Return what is to be said of `gap` frames that never came."""
        if self._overflowed(gap):
            return OVERFLOWED
        return FULL_BEFORE if self._was_full else DRAINED

    def _overflowed(self, gap: int = 0) -> bool:
        """Return whether the core's buffer is known to have been full in this run.

        MMCore clears a full buffer of a camera that is not to stop, and forgets that it was full
        (12.5.1): what is missing then is all that the buffer holds. UniMMCore remembers it until
        the camera is started anew, so that of one that ran before the run nothing can be said.
        """
        full = self._core.isBufferOverflowed()
        self._was_full = self._was_full and full
        return gap >= self._capacity or (full and not self._was_full)

    def _discard(self) -> None:
        """Throw away what was exposed before the run.

        Popped one by one, for UniMMCore cannot clear a running buffer.
        """
        for _ in range(self._core.getRemainingImageCount()):
            try:
                self._core.popNextImage()
            except IndexError:
                return

    def _heed_abort(self) -> None:
        """Stop the camera if it must: while frames are taken, a running one fills the buffer."""
        if not self._abort:
            return
        self._abort = False
        try:
            self._core.stopSequenceAcquisition()
        except Exception as e:  # the run has ended already, with its own error
            log.error("The camera could not be stopped: %s", e)

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._end_run()


def live_plan(core: CMMCorePlus, rig: RigConfig) -> MDASequence:
    """Return what a sequence acquisition acquires, as a plan.

    The rig's only channel, or the preset that is set.

    Raises
    ------
    ConfigError
        If the rig describes several channels and none of them is set.
    """
    if not rig.channels:
        return MDASequence()
    name = next(iter(rig.channels))
    if len(rig.channels) > 1:
        group = rig.channel_group
        name = set_preset(core, group)
        if name not in rig.channels:
            raise ConfigError(
                f"Rig {rig.name!r} describes channels {', '.join(rig.channels)} and group {group!r}"
                f" is at {name or 'none of its presets'!r}: set one of them before the camera"
                " starts."
            )
    return MDASequence(channels=[name])


def set_preset(core: CMMCorePlus, group: str) -> str:
    """Return which preset of a group is set; "" where none is, or there is no such group."""
    return core.getCurrentConfig(group) if group in core.getAvailableConfigGroups() else ""


def frame_ms(core: CMMCorePlus) -> float:
    """Return the least time from frame to frame: the exposure, or the time to read its rows of a
    camera that tells none.
    """
    return core.getExposure() or core.getImageHeight() * _ROW_MS


def prepare_buffer(core: CMMCorePlus, mode: Mode) -> None:
    """Empty the core's circular buffer and, for "own", make it hold `BUFFER_S` of frames.

    The camera must not run.
    """
    frame_bytes = core.getImageWidth() * core.getImageHeight() * core.getBytesPerPixel()
    wanted = frame_bytes * BUFFER_S * 1e3 / frame_ms(core)
    mib = math.ceil(min(wanted, psutil.virtual_memory().available / 4) / 2**20)
    if mode == "own" and mib > core.getCircularBufferMemoryFootprint():
        core.setCircularBufferMemoryFootprint(mib)
    # Started with a camera's label, as pymmcore-plus starts finite sequences, MMCore does not
    # promise to empty it.
    core.initializeCircularBuffer()
    size = core.getCircularBufferMemoryFootprint()
    seconds = size * 2**20 / wanted * BUFFER_S
    log.info("Micro-Manager's buffer: %d MiB, %.1f s of frames at this exposure.", size, seconds)


def camera_runs(core: CMMCorePlus) -> bool:
    """Return whether a sequence acquisition runs."""
    try:
        return core.isSequenceRunning()
    except (
        AttributeError
    ):  # UniMMCore drops its thread between two lines when it is asked while it stops
        return False
