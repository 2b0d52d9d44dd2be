"""What a run does where a step is slower than the camera, or has time left.

Owns the policy, and when there is time for provisional frames. Drops nothing itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from livesr.base.frames import Stream
from livesr.base.timing import Pace

Policy = Literal["latest", "complete"]


@dataclass(frozen=True, slots=True)
class KeepingUp:
    """How a run keeps up with its camera.

    Parameters
    ----------
    policy : "latest" gives up frames so that what is shown is new, "complete" gives up none
    provisional : whether "latest" may show frames before their successor came, in time that the
        network has left over
    raw_queue_bytes : most bytes of frames that may wait anywhere in the run
    """

    policy: Policy = "latest"
    provisional: bool = False
    raw_queue_bytes: int = 1 << 30

    @property
    def skips(self) -> bool:
        """Whether frames may be given up."""
        return self.policy == "latest"


LATEST, COMPLETE = KeepingUp("latest"), KeepingUp("complete")


class ProvisionalFrames:
    """Whether frames are shown before their successor came.

    Any thread may call any method: the pace has its own lock, and `wanted` only ever turns False.

    Attributes
    ----------
    wanted : whether any are shown at all
    """

    def __init__(self, keeping_up: KeepingUp) -> None:
        self.wanted = keeping_up.provisional and keeping_up.skips
        self._pace = Pace()

    def came(self, stream: Stream) -> None:
        """Take note that a frame of `stream` was measured."""
        self._pace.came(stream, time.perf_counter())

    def separated(self, seconds: float) -> None:
        """Take note of how long the network had a window."""
        self._pace.worked(seconds)

    def fit(self) -> bool:
        """Return whether one will probably be done before the next frame is measured."""
        return self.wanted and self._pace.allows(time.perf_counter())

    def end(self) -> None:
        """Show none from here on."""
        self.wanted = False
