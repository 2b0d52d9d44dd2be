"""Thread "livesr-monitor": looks at the run once a second, and asks what watches over it.

Owns no frame. What fails here is a warning; subscribers take silence for the end of the run.
"""

from __future__ import annotations

import threading

from livesr.live.channel import Channel
from livesr.live.report import status_of
from livesr.live.run import Run
from livesr.live.run_state import Status
from livesr.live.sources.mda import MDAHook

_EVERY_S = 1.0
_QUEUE_WARNS = 0.5  # share of the raw queue
_QUEUE_WARNING = (
    "The raw queue is more than half full: the disk or the computer is slower than the camera."
)
_NETWORK_WARNING = (
    "The network does not answer. Measurement and recording go on without predictions."
)


class RunMonitor:
    """Tells the sinks the state of the run, and asks every channel's monitors.

    Parameters
    ----------
    run : what the stages share
    hook : where frames come in
    """

    def __init__(self, run: Run, hook: MDAHook) -> None:
        self._run, self._hook, self._state = run, hook, run.state
        self._over = threading.Event()

    def work(self) -> None:
        """Look on until the run is over, and a last time then: it may have been short."""
        status = Status()
        while not self._over.wait(_EVERY_S):
            status = self._look(status)
            # The last known state, if need be.
            self._run.sinks.status({**status, "warnings": self._state.warnings})
            self._ask_monitors()
        self._ask_monitors()

    def end(self) -> None:
        """Take note that the run is over; any thread."""
        self._over.set()

    def take_notes(self) -> None:
        """Add what sinks want people to know to the warnings; any thread."""
        for note in self._run.sinks.notes:
            if note not in self._state.warnings:
                self._state.warn(note)

    def _look(self, before: Status) -> Status:
        """Return the state of the run, that of `before` if it cannot be told."""
        status = before
        with self._state.survived("Taking the state of the run"):
            status = status_of(self._run, self._hook)
            if status["raw_queue"] > _QUEUE_WARNS:
                self._state.warn(_QUEUE_WARNING)
            if self._run.watchdog.overdue:
                self._state.warn(_NETWORK_WARNING)
        self.take_notes()
        return status

    def _ask_monitors(self) -> None:
        for channel in self._run.channels.values():
            self._ask(channel)

    def _ask(self, channel: Channel) -> None:
        for monitor in channel.monitors:
            with self._state.survived(f"Looking at {monitor.watches}"):
                found = monitor.look()
                for name, n in found.counts.items():
                    self._state.count(name, n)
                for sentence in found.warnings:
                    self._state.warn(sentence)
                if separation := channel.separation:
                    for sentence in found.frame_warnings:
                        separation.warn(sentence)
