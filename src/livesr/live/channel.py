"""One acquisition channel of one run.

Owns everything that is keyed by channel; by the thread that it belongs to. Moves no frame.
"""

from __future__ import annotations

from livesr.base.frames import FrameQuality, RawStack
from livesr.live.grouping.by_index import IndexGrouping
from livesr.live.measurement import Measurement
from livesr.live.paths import ChannelPath
from livesr.live.reconstruct.monitor import Monitor, Observation
from livesr.live.recorded import Recorded
from livesr.live.run_state import RunState
from livesr.live.separation import Separation
from livesr.modalities.sim.raw_order import RawOrderCheck
from livesr.modalities.sim.vector_drift import VectorDrift


class Channel:
    """What one channel has through one run.

    Parameters
    ----------
    path : its steps, constant
    recorded : what an offline run uses again
    state : of the run
    streams : how many streams of the channel there are

    Attributes
    ----------
    grouping : open groups, of "livesr-ingest"; None of a superposition, for which nothing is
        exposed
    exposure : what it was, of "livesr-ingest"
    measurement : of the slots that measure; its docstring says how it is locked
    monitors : given groups by "livesr-reconstruct", asked by "livesr-monitor"
    separation : of the slots that separate, and "livesr-separate"; likewise locked. None where
        nothing is predicted
    """

    def __init__(
        self, path: ChannelPath, recorded: Recorded, state: RunState, streams: int
    ) -> None:
        self.path = path
        self.grouping: IndexGrouping | None = None if path.parts else path.grouping()
        self.exposure = ExposureTime()
        self.measurement = Measurement(path, recorded, state)
        self.monitors = _monitors(path, recorded)
        self.separation: Separation | None = None
        if composer := path.composer():
            network = path.networks.steps[-1]
            self.separation = Separation(path, network, composer, streams, state)


class ExposureTime:
    """The exposure time of a channel's frames, until it changes; one thread."""

    def __init__(self) -> None:
        self._first = True
        self._ms: float | None = None

    def changed_from(self, exposure_ms: float | None) -> float | None:
        """Take the exposure time of the next frame, None if nobody said.

        Returns what it was before if it has changed, once; else None.
        """
        if self._first:
            self._first, self._ms = False, exposure_ms
        before_ms = self._ms
        if before_ms is None or exposure_ms is None or exposure_ms == before_ms:
            return None
        self._ms = None
        return before_ms


def _monitors(path: ChannelPath, recorded: Recorded) -> list[Monitor]:
    monitors: list[Monitor] = []
    if check := path.order_check():
        monitors.append(_RawOrder(path, check))
    if not recorded.offline and (vectors := path.vector_check()):
        monitors.append(_PatternVectors(path, vectors))
    return monitors


class _RawOrder(Monitor):
    """Warns of a pattern display that did not begin at its first pattern.

    The images alone show it.
    """

    watches = "the raw order"

    def __init__(self, path: ChannelPath, check: RawOrderCheck) -> None:
        self._path, self._check = path, check

    def before(self, stack: RawStack) -> None:
        """Take a group, also one that will be refused for its order."""
        self._check.offer([f for f in stack.frames if f is not None])

    def look(self) -> Observation:
        """Say that the raw order of the channel is rotated."""
        if not (rotation := self._check.look()):
            return Observation()
        sentence = (
            f"Channel {self._path.name!r}: the raw order is rotated by {rotation} of"
            f" {self._path.n_raw}: raw frame 0 shows pattern {rotation}. The reconstruction is"
            " wrong. Stop, set the pattern display to its first pattern (sim.pattern_property in"
            " rig.yaml does it before each run) and start again."
        )
        return Observation((sentence,), (sentence,))


class _PatternVectors(Monitor):
    """Lets the next frames be reconstructed with pattern vectors that drifted."""

    watches = "the pattern vectors"

    def __init__(self, path: ChannelPath, check: VectorDrift) -> None:
        self._path, self._check = path, check

    def after(self, stack: RawStack, quality: FrameQuality) -> None:
        """Take a group that can be trusted."""
        self._check.offer(stack.frames, quality)

    def look(self) -> Observation:
        """Exchange vectors that have moved."""
        exchanged = self._check.look()
        lost = (
            f"Channel {self._path.name or 'default'}: the pattern vectors drifted too far to be"
            " followed: 'livesr calibrate'."
        )
        return Observation(
            (lost,) if self._check.lost else (),
            counts={"pattern_vectors_corrected": exchanged},
        )
