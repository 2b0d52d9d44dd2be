"""What watches the raw groups of one channel through one run, beside their reconstruction.

Owns the base class and what a look says. A monitor sees what a reconstruction of single groups
cannot: a raw order that is rotated, patterns that drift away. `livesr.live.stages` says when it is
asked; a modality says which ones its channels have (`ChannelPath.monitors`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from livesr.base.frames import FrameQuality, RawStack


class Observation(NamedTuple):
    """What a monitor found since it was last asked.

    Attributes
    ----------
    warnings : sentences for the run; each is counted and shown once
    frame_warnings : those that every prediction of the channel must carry from now on as well
    counts : what to add to the counts of the run's report, by their names there
    """

    warnings: tuple[str, ...] = ()
    frame_warnings: tuple[str, ...] = ()
    counts: Mapping[str, int] = {}


class Monitor:
    """Watches one channel through one run; its methods do nothing.

    `before` and `after` are called in one thread, in the order of the groups, and must return at
    once: they copy what is worth a look. `look` is called in another thread and may take its time.

    Attributes
    ----------
    watches : what it looks at, as in "Looking at the raw order failed"
    """

    watches = "a channel"

    def before(self, stack: RawStack) -> None:
        """Take a complete raw group before it is reconstructed, also one that will be refused."""

    def after(self, stack: RawStack, quality: FrameQuality) -> None:
        """Take a raw group that was reconstructed, and what its reconstruction said of it."""

    def look(self) -> Observation:
        """Look at what was taken; once a second, and once at the end of the run."""
        return Observation()
