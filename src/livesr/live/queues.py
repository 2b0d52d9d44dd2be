"""What waits between the threads of a run, and how much of it may.

Owns the two queues between the stages and the bound in bytes that all waiting frames share. Knows
nothing of what is done to them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from livesr.base.buffers import BoundedQueue, LatestPerKey
from livesr.base.frames import RawStack, Window
from livesr.base.run_description import RunDescription
from livesr.live.keeping_up import KeepingUp
from livesr.live.paths import ChannelPath
from livesr.live.sinks.thread import SinkThreads

_STACKS_LATEST = 4  # groups of a channel that may wait for reconstruction before they are given up
_STACKS_COMPLETE = 1 << 20  # bounded in truth by the bytes of the run
_MIN_FRAMES, _GROUPS = 16, 3
_WINDOWS_COMPLETE = 8
"""Windows that may wait for the network before reconstruction waits: at least these, and ..."""

_WINDOWS_SHARE = 4  # ... a quarter of the run's memory
_LOOK_S = 0.2


class Queues:
    """The queues between the stages; each has its own lock, what is asked here changes nothing.

    Parameters
    ----------
    paths : of every channel, by name
    run : whose frames wait
    keeping_up : what is given up, and the bytes that may wait
    sinks : in front of which frames wait as well

    Attributes
    ----------
    stacks : "livesr-ingest" to "livesr-reconstruct"
    windows : "livesr-reconstruct" to "livesr-separate"
    limit_bytes : most bytes of frames that may wait anywhere in the run
    """

    def __init__(
        self,
        paths: Mapping[str, ChannelPath],
        run: RunDescription,
        keeping_up: KeepingUp,
        sinks: SinkThreads,
    ) -> None:
        # Dropping every second group would leave no frame its neighbours: what cannot be kept is
        # dropped in a row.
        self.stacks: BoundedQueue[RawStack] = (
            BoundedQueue(_STACKS_LATEST * len(paths), "drop_all")
            if keeping_up.skips
            else BoundedQueue(_STACKS_COMPLETE, "block")
        )
        self.windows: LatestPerKey[tuple[int, str], Window] = LatestPerKey()
        self._sinks, self._keeps_all = sinks, not keeping_up.skips
        self._frame_bytes = _frame_bytes(run)
        self._window_bytes = max(path.window_bytes for path in paths.values())
        self.limit_bytes = limit_bytes(paths, run, keeping_up)
        self._max_windows = _WINDOWS_COMPLETE
        if not any(path.on_device for path in paths.values()):  # their memory is not the run's
            share = self.limit_bytes // _WINDOWS_SHARE // self._window_bytes
            self._max_windows = max(_WINDOWS_COMPLETE, share)

    def room_frames(self) -> int:
        """Most frames that the hook may hold, given what already waits downstream."""
        return (self.limit_bytes - self._downstream_bytes()) // self._frame_bytes

    def filled(self, frames: int) -> float:
        """Return the share of the bound that is waiting now, `frames` of it in the hook."""
        held = frames * self._frame_bytes + self._downstream_bytes()
        return round(held / self.limit_bytes, 4)

    def put_stack(self, stack: RawStack) -> list[RawStack]:
        """Queue a raw group; return those that are given up for it."""
        return self.stacks.put(stack, stack.nbytes)

    def put_update(self, stack: RawStack) -> None:
        """Queue an update of a group under way.

        Where frames may be given up it is the first to be: whatever else waits takes its place.
        """
        if self._keeps_all:
            self.put_stack(stack)
        elif not self.windows:
            self.stacks.put_idle(stack)

    def put_window(self, window: Window, *, keep: bool, rare: bool = False) -> list[Window]:
        """Queue a window.

        Return those that it displaces: of the same place, and of whole time points. One that is
        `rare` is displaced by its like alone.
        """
        stream = window.centre.stream
        return self.windows.put(
            (stream.position, stream.channel),
            window,
            group=window.centre.t,
            keep=keep,
            rare=rare,
        )

    def wait_for_room(self) -> bool:
        """Wait a while until another window may wait for the network; False if none may yet."""
        return self.windows.wait_below(self._max_windows, _LOOK_S)

    def close(self) -> None:
        """Take nothing more; the threads behind the queues end when they are empty."""
        self.stacks.close()
        self.windows.close()

    def _downstream_bytes(self) -> int:
        return self.stacks.weight + len(self.windows) * self._window_bytes + self._sinks.weight


def limit_bytes(
    paths: Mapping[str, ChannelPath], run: RunDescription, keeping_up: KeepingUp
) -> int:
    """Return how many bytes of frames may wait in a run: what was asked for, or what it needs.

    A whole group waits before it is reconstructed, while the next one comes in and the last is
    being stored.
    """
    groups = _GROUPS * max((path.n_raw for path in paths.values()), default=1)
    return max(keeping_up.raw_queue_bytes, max(_MIN_FRAMES, groups) * _frame_bytes(run))


def _frame_bytes(run: RunDescription) -> int:
    return max(math.prod(c.raw_shape) * np.dtype(c.raw_dtype).itemsize for c in run.channels)
