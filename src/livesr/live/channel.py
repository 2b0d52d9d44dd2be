"""One acquisition channel of one run.

Owns everything that is keyed by channel; by the thread that it belongs to. Moves no frame.
"""

from __future__ import annotations

from livesr.live.grouping.by_index import IndexGrouping
from livesr.live.measurement import Measurement
from livesr.live.paths import ChannelPath
from livesr.live.recorded import Recorded
from livesr.live.run_state import RunState
from livesr.live.separation import Separation
from livesr.live.sources.camera_setting import CameraSetting


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
    setting : how the camera was set for its first frame, of "livesr-ingest"; None if nobody said
    measurement : of the slots that measure; its docstring says how it is locked
    monitors : given groups by "livesr-reconstruct", asked by "livesr-monitor"
    separation : of the slots that separate, and "livesr-separate"; likewise locked. None where
        nothing is predicted
    """

    def __init__(
        self, path: ChannelPath, recorded: Recorded, state: RunState, streams: int
    ) -> None:
        self.path = path
        self.grouping: IndexGrouping | None = (
            None if path.parts else path.grouping(recorded.offline)
        )
        self.exposure = ExposureTime()
        self.setting: CameraSetting | None = None
        self.measurement = Measurement(path, recorded, state)
        self.monitors = path.monitors(recorded.offline)
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
