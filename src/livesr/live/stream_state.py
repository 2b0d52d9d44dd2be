"""What follows one stream of a run from frame to frame.

Owns the window, the normalisation and the running image of every stream, which belong to the thread
that reconstructs, and the span of groups that were given up. Moves no frame.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from livesr.base.frames import Normalisation, Pixels, RawStack, Stream, Window
from livesr.live.normalise import FollowingNormalisation
from livesr.live.paths import ChannelPath
from livesr.live.window import FrameWindow

_ROWS = 32  # of a frame, that are kept


class StreamState:
    """What the frames of one stream leave behind for those that follow; one thread.

    Attributes
    ----------
    window : the last frames
    running : what a stream accumulates; None where every picture is made of its own group alone
    last : of the raw frames
    normalised : with what the last frame was
    """

    def __init__(self, path: ChannelPath) -> None:
        self.window = FrameWindow(path.networks.window)
        self.running = path.running()
        self.last = LastFrame()
        self.normalised = Normalisation(0.0, 1.0)
        self._normalisation = FollowingNormalisation()

    def normalisation(self, levels: Normalisation, *, recorded: bool) -> Normalisation:
        """Return what the next frame is normalised with: what was recorded, or what follows."""
        follow = self._normalisation.resume if recorded else self._normalisation.update
        self.normalised = Normalisation(*follow(*levels))
        return self.normalised


class LastFrame:
    """Some rows of the last raw frame of a stream, by which a camera that stands still is seen from
    group to group; one thread.
    """

    def __init__(self) -> None:
        self._rows: Pixels | None = None

    def is_first_of(self, frames: Sequence[Pixels | None]) -> bool:
        """Take the frames of the next group; say whether the first of it is the last of the one
        before.

        Noise makes no two exposures alike pixel by pixel. Frames of one value say nothing.
        """
        came = [frame for frame in frames if frame is not None]
        if not came:
            return False
        before, (first, last) = self._rows, (_some_rows(came[i]) for i in (0, -1))
        self._rows = last.copy()
        return before is not None and first.min() < first.max() and np.array_equal(first, before)


def _some_rows(frame: Pixels) -> Pixels:
    return frame[:: max(frame.shape[0] // _ROWS, 1)]


class Streams:
    """The state of every stream, made with its first frame; one thread.

    Parameters
    ----------
    paths : of every channel, by name
    """

    def __init__(self, paths: Mapping[str, ChannelPath]) -> None:
        self._paths = paths
        self._states: dict[Stream, StreamState] = {}

    def __getitem__(self, stream: Stream) -> StreamState:
        if stream not in self._states:
            self._states[stream] = StreamState(self._paths[stream.channel])
        return self._states[stream]

    def flush(self) -> Iterator[Window]:
        """End every series; the windows of the last frames, in the order of a stored stack."""
        last = [window for state in self._states.values() for window in state.window.flush()]
        return iter(sorted(last, key=lambda window: (window.centre.t, window.centre.stream.z)))


class DroppedGroups:
    """Time points whose groups were given up before they were reconstructed.

    "livesr-ingest" adds them, "livesr-reconstruct" asks; locked.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: dict[Stream, tuple[int, int]] = {}  # first and last time point

    def add(self, stack: RawStack) -> None:
        """Take note of a group that was given up; those of a stream in their order."""
        with self._lock:
            first, _ = self._spans.get(stack.stream, (stack.t, stack.t))
            self._spans[stack.stream] = first, stack.t

    def lacks_neighbour(self, window: Window) -> bool:
        """Whether a frame beside the centre was given up.

        What seems the first or last of its series may be neither.
        """
        with self._lock:
            if not self._spans or not window.true_neighbours:
                return bool(self._spans)
            first, last = self._spans.get(window.centre.stream, (math.inf, -1))
        starts, ends = window.before is window.centre, window.after is window.centre
        return window.edge and (
            (starts and first < window.centre.t) or (ends and last > window.centre.t)
        )
