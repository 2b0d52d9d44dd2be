"""What a window does with livesr: open it, acquire, leave it.

Owns a `LiveSR` from entering to leaving, and the threads in which both happen, because an engine is
compiled in the one and a store is closed in the other. Knows no Qt: a window asks `state`,
`problem` and `reports` as often as it draws.

::

    idle -- start --> opening -- engine compiled --> ready <--> acquiring
     ^                                                 |            |
     +-------- left: the store is closed --------------+-- stop ----+
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from pymmcore_plus import CMMCorePlus
from useq import MDASequence, TIntervalLoops

from livesr.base.compute import Augmentation
from livesr.base.config import RigConfig, load_rig
from livesr.base.errors import ConfigError, LiveSRError
from livesr.base.frames import Pixels
from livesr.gui.newest import Newest
from livesr.live.plugin import LiveSR
from livesr.live.run_state import Report, Status
from livesr.live.sources.acquiring import acquires
from livesr.live.sources.continuous import camera_runs
from livesr.live.sources.plan import with_raw_frames
from livesr.live.sources.triggered import follow_trigger, trigger_of

log = logging.getLogger(__name__)

State = Literal["idle", "opening", "ready", "acquiring", "finishing"]
_KEPT_REPORTS = 20


@dataclass(frozen=True, slots=True)
class Choice:
    """What a person has chosen.

    Attributes
    ----------
    rig : name, folder or file, as for `LiveSR`
    engine : instead of rig.yaml's; None takes that, "none" separates nothing
    store : OME-Zarr to write, None keeps nothing
    policy, live, ensemble : as for `LiveSR`
    """

    rig: str
    engine: str | None = None
    store: Path | None = None
    policy: Literal["latest", "complete"] = "latest"
    live: Literal["off", "own", "peek"] = "own"
    ensemble: Augmentation | None = None


class Control:
    """One `LiveSR` at a time on a core.

    Parameters
    ----------
    core : the core of the program; what its windows acquire between `start` and `stop` is recorded

    Attributes
    ----------
    newest : the frames to show
    reports : of the runs so far, the newest last
    problem : the last thing that went wrong, as a sentence; "" if nothing has since `start`, or
        since a run began
    """

    def __init__(self, core: CMMCorePlus) -> None:
        self.core = core
        self.newest = Newest(self._run_began)
        self.reports: deque[Report] = deque(maxlen=_KEPT_REPORTS)
        self.problem = ""
        self._lock = threading.Lock()
        self._session: LiveSR | None = None
        self._opening = self._leaving = False
        self._live: Literal["off", "own", "peek"] = "off"
        self._came_late = False
        self._thread: threading.Thread | None = None
        self._seen: LiveSRError | None = None

    # -- what a window asks ------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where it is."""
        if self._leaving:
            return "finishing"
        if self._opening:
            return "opening"
        if self._session is None:
            return "idle"
        return "acquiring" if self.status else "ready"

    @property
    def status(self) -> Status:
        """State of the run in progress, {} between runs."""
        session = self._session
        return session.status() if session else Status()

    @property
    def store(self) -> Path | None:
        """What the run in progress, or the last one, writes or wrote."""
        session = self._session
        return session.store if session else None

    @property
    def camera_pixels(self) -> Pixels | None:
        """The exposure that livesr took last, (y, x) in ADU; None between runs."""
        session = self._session
        return session.camera_pixels if session else None

    @property
    def takes_frames(self) -> bool:
        """Whether other readers of the core's buffer must leave it alone now."""
        return self.state != "idle" and (self._live != "off" or acquires(self.core))

    @property
    def records_live(self) -> bool:
        """Whether live views are recorded, and not acquisitions alone."""
        return self._live != "off"

    @property
    def overlooks(self) -> Literal["", "acquisition", "live view"]:
        """What is acquired now and not recorded, although a session is open for it.

        An MDA that ran before the session began; a live view whose run could not begin.
        """
        if self.state != "ready":
            return ""
        if acquires(self.core):
            return "acquisition" if self._came_late else ""
        return "live view" if self.records_live and camera_runs(self.core) else ""

    def look(self) -> None:
        """Take over an error that the session met by itself, such as a run that cannot start."""
        self._came_late = self._came_late and acquires(self.core)
        session = self._session
        error = session.newest_error if session else None
        if error is not None and error is not self._seen:
            self._seen = error
            self.problem = str(error)

    # -- what a window does ------------------------------------------------------------------------

    def start(self, choice: Choice) -> None:
        """Open a session; returns at once, and nothing happens where there is one."""
        with self._lock:
            if self.state != "idle":
                return
            self._opening, self.problem, self._seen = True, "", None
            self._thread = threading.Thread(
                target=self._open, args=(choice,), name="livesr-window", daemon=True
            )
        self._thread.start()

    def stop(self) -> None:
        """End what runs and leave the session; returns at once.

        Everything that was received is processed and stored meanwhile.
        """
        with self._lock:
            if self._leaving or self.state == "idle":
                return
            self._leaving = True
            if self._opening:  # it leaves again when it is open
                return
            self._thread = threading.Thread(target=self._leave, name="livesr-window", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until what `start` or `stop` began is done; return whether it is."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)
        return thread is None or not thread.is_alive()

    def close(self) -> None:
        """Stop and wait: for a program that ends. May be called again."""
        self.stop()
        self.wait()

    def acquire(self, rig: RigConfig, frames: int) -> None:
        """Begin an MDA of so many super-resolution frames of every channel of the rig; of the true
        ones of audits where one is due.

        Raises
        ------
        ConfigError
            If something is acquired already, or a rig with audits says no interval.
        """
        if acquires(self.core) or camera_runs(self.core):
            raise ConfigError("The camera is in use: stop the live view or the acquisition first.")
        channels = [{"config": name, "group": rig.channel_group} for name in rig.channels]
        loops = TIntervalLoops(interval=rig.interval_ms / 1e3, loops=frames)
        plan = MDASequence(time_plan=loops, channels=channels)
        session = self._session
        self.core.mda.cancel()  # one that Ctrl-C tore out of its loop says that it still runs
        self.core.run_mda(with_raw_frames(plan, rig, session.audit_schedule if session else None))

    def toggle_live(self) -> None:
        """Start the camera, or stop it."""
        if acquires(self.core):
            raise ConfigError("An acquisition is running: stop it before the live view.")
        if camera_runs(self.core):
            self.core.stopSequenceAcquisition()
        else:
            self.core.startContinuousSequenceAcquisition()

    # -- in threads of their own -------------------------------------------------------------------

    def _open(self, choice: Choice) -> None:
        session: LiveSR | None = None
        try:
            rig = load_rig(choice.rig)
            # before the session is entered: a camera that runs already is taken from there on
            self._live = "off" if trigger_of(rig) else choice.live
            follow_trigger(self.core, rig)
            session = LiveSR(
                self.core,
                rig=rig,
                engine=choice.engine,
                store=choice.store,
                policy=choice.policy,
                live=self._live,
                ensemble=choice.ensemble,
                sinks=[self.newest],
            )
            session.finished.connect(self._finished)
            session.__enter__()
            self._came_late = acquires(self.core)
        except Exception as e:  # a driver or a runtime may raise anything
            self._say(e)
            session = None
        with self._lock:
            self._session, self._opening = session, False
            leave = self._leaving
        if leave:
            self._leave()

    def _leave(self) -> None:
        session = self._session
        self.look()
        told = session.error if session else None  # the first error of a session is raised again
        try:
            if session is not None:
                session.__exit__(None, None, None)
        except Exception as e:  # a driver may raise anything
            if e is not told:
                self._say(e)
        finally:
            with self._lock:
                self._session, self._leaving = None, False

    def _run_began(self) -> None:
        """Forget what kept an earlier one from it, or was not recorded: this one is."""
        session = self._session
        self._seen = session.newest_error if session else None
        self.problem, self._came_late = "", False

    def _finished(self, report: Mapping[str, Any]) -> None:
        self.reports.append(cast("Report", dict(report)))
        if report.get("error"):
            self.problem = str(report["error"])

    def _say(self, error: Exception) -> None:
        if isinstance(error, LiveSRError):
            self.problem = str(error)
            return
        log.exception("livesr failed in the window")
        self.problem = f"{type(error).__name__}: {error}"
