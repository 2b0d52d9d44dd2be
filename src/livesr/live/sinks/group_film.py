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

    Attributes
    ----------
    t : time point that is gathered, None between two
    """

    def __init__(self, updates: Sequence[int]) -> None:
        self._place = {newest: i for i, newest in enumerate(updates)}
        self._frame: SRFrame | None = None
        self._planes: dict[int, Pixels] = {}
        self._said: dict[int, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._place) + 1

    @property
    def t(self) -> int | None:
        """Time point that is gathered, None between two."""
        return self._frame.t if self._frame else None

    def add(self, frame: SRFrame, plane: Pixels) -> None:
        """Take a picture of the time point, as it is stored; it is copied."""
        i = self._place.get(frame.newest, len(self._place))
        self._frame, self._planes[i] = frame, plane.copy()
        self._said[i] = {
            "t_acq_ns": frame.t_acq_ns,
            "span_ms": round(frame.span_ms or 0.0, 3),
        }

    def take(self) -> Taken:
        """Return what was gathered, and begin anew."""
        frame, every = self._frame, range(len(self))
        assert frame is not None
        facts = {
            "t_acq_ns": frame.t_acq_ns,
            "t_camera_ms": frame.t_camera_ms,
            "pictures": [self._said.get(i) for i in every],
            "missing": tuple(i for i in every if i not in self._planes),
        }
        planes = tuple(self._planes.get(i) for i in every)
        self._frame, self._planes, self._said = None, {}, {}
        return Taken(frame.stream, frame.t, planes, facts)
