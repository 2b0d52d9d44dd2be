"""The pictures of one group, from the first made while it was under way to that of the whole.

Owns copies of them until the store takes them together. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from livesr.base.frames import Pixels, SRFrame, Stream


class Taken(NamedTuple):
    """What is stored of a group: `planes` in their order, None where a picture was not made."""

    stream: Stream
    t: int
    planes: tuple[Pixels | None, ...]
    facts: Mapping[str, Any]


class GroupFilm:
    """Gathers the pictures of one time point after the other.

    Parameters
    ----------
    updates : exposures of a group after which a picture is made before the group is whole
    """

    def __init__(self, updates: Sequence[int]) -> None:
        self._place = {newest: i for i, newest in enumerate(updates)}
        self._frame: SRFrame | None = None
        self._planes: dict[int, Pixels] = {}
        self._said: dict[int, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._place) + 1

    def add(self, frame: SRFrame, plane: Pixels) -> list[Taken]:
        """Take a picture as it is stored; it is copied.

        Return the groups that it ends: its own if it shows the whole, and one before of which no
        whole picture came, as it was refused.
        """
        ended = self.flush() if self._frame and self._frame.t != frame.t else []
        i = self._place.get(frame.newest, len(self._place))
        self._frame, self._planes[i] = frame, plane.copy()
        span_ms = round(frame.span_ms or 0.0, 3)
        self._said[i] = {"t_acq_ns": frame.t_acq_ns, "span_ms": span_ms}
        return ended if frame.newest else ended + self.flush()

    def flush(self) -> list[Taken]:
        """Return the group that is gathered, if there is one."""
        frame, every = self._frame, range(len(self))
        if frame is None:
            return []
        facts = {
            "t_acq_ns": frame.t_acq_ns,
            "t_camera_ms": frame.t_camera_ms,
            "pictures": [self._said.get(i) for i in every],
            "missing": tuple(i for i in every if i not in self._planes),
        }
        planes = tuple(self._planes.get(i) for i in every)
        self._frame, self._planes, self._said = None, {}, {}
        return [Taken(frame.stream, frame.t, planes, facts)]
