"""The newest frames of a run, for a window that looks when it has time.

Owns one measurement and one prediction of every channel. Knows no Qt, and keeps nobody waiting: it
is a sink that may lose frames, and only puts references down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from livesr.base.frames import MulticolorFrame, SRFrame, Stream
from livesr.base.run_description import RunDescription
from livesr.live.sinks.sink import Sink


class Newest(Sink):
    """Keeps what came last; what is there is read from any thread.

    Parameters
    ----------
    opened : called when a run begins, in the thread that opens it

    Attributes
    ----------
    run : what is known of the run, None before the first
    measurements, predictions : the last frame of every channel; of the last run once it is over
    version : another number whenever there is something else to see
    """

    name = "window"

    def __init__(self, opened: Callable[[], None] = lambda: None) -> None:
        self._opened = opened
        self.run: RunDescription | None = None
        self.measurements: dict[str, SRFrame] = {}
        self.predictions: dict[str, MulticolorFrame] = {}
        self.version = 0

    def open(self, run: RunDescription) -> None:
        """Forget the run before."""
        self.measurements, self.predictions = {}, {}
        self.run = run
        self.version += 1
        self._opened()

    def recon(self, frame: SRFrame) -> None:
        """Keep a measurement."""
        self.measurements[frame.stream.channel] = frame
        self.version += 1

    def separated(self, frame: MulticolorFrame) -> None:
        """Keep a prediction; the final one takes the place of a provisional one."""
        self.predictions[frame.stream.channel] = frame
        self.version += 1

    def skipped(self, stream: Stream, t: int, reason: str) -> None:
        """Do nothing: skips are counted in the state of the run."""

    def close(self, report: Mapping[str, Any]) -> None:
        """Keep the last picture."""
