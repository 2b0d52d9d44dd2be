"""Exposures to raw stacks by the index that the acquisition gave them.

SIM (9 of one time point) and widefield (1 of 1).

Owns the groups that are not complete yet. Copies no pixel, reads no clock.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from livesr.base.frames import CameraFrame, Pixels, RawStack, Stream


@dataclass(slots=True)
class _Group:
    slots: list[CameraFrame | None]
    repeats: list[CameraFrame] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return None not in self.slots


class IndexGrouping:
    """Collects the `n_raw` exposures of each (stream, time point), in whatever order they arrive.

    A stream may have two groups open at once, so exposures that swap places across a group's border
    are no harm. A third time point, or a complete later group, closes the older ones as they are.
    An exposure that comes after its group was closed, or twice, makes a stack of its own, which the
    store keeps aside: nothing that arrived is lost.

    Parameters
    ----------
    n_raw : exposures of a group
    updates : how many exposures of a group, in their order, make an update with those of the whole
        group before in the place of the others

    Attributes
    ----------
    incomplete : groups closed with exposures missing
    missing : exposures that never came
    repeated : exposures that came twice, or after their group was closed

    Raises
    ------
    ValueError
        If `n_raw` is below 1.
    """

    OPEN_GROUPS = 2

    def __init__(self, n_raw: int, updates: Collection[int] = ()) -> None:
        if n_raw < 1:
            raise ValueError(f"n_raw is {n_raw}, expected at least 1")
        self._n_raw, self._updates = n_raw, frozenset(updates)
        self._whole: list[CameraFrame] = []  # the last group; one, however many streams there are
        self._open: dict[Stream, dict[int, _Group]] = {}
        self._closed_up_to: dict[Stream, int] = {}
        self.incomplete = self.missing = self.repeated = 0

    def push(self, frame: CameraFrame) -> list[RawStack]:
        """Add an exposure; return the stacks that it closes, in time order within the stream.

        Raises
        ------
        ValueError
            If ``frame.raw`` is not in 0 .. n_raw-1.
        """
        if not 0 <= frame.raw < self._n_raw:
            raise ValueError(f"raw index {frame.raw} came, expected 0 to {self._n_raw - 1}")
        if frame.t <= self._closed_up_to.get(frame.stream, -1):
            self.repeated += 1
            return [self._unplaced(frame)]
        groups = self._open.setdefault(frame.stream, {})
        group = groups.setdefault(frame.t, _Group([None] * self._n_raw))
        if group.slots[frame.raw] is not None:
            self.repeated += 1
            group.repeats.append(frame)
            return []
        group.slots[frame.raw] = frame
        if group.complete:
            return self._close(frame.stream, frame.t)
        if len(groups) > self.OPEN_GROUPS:
            return self._close(frame.stream, min(groups))
        return self._update(group, frame) if self._updates else []

    def _update(self, group: _Group, newest: CameraFrame) -> list[RawStack]:
        """Return the update that an exposure makes; none where exposures are missing."""
        came = sum(slot is not None for slot in group.slots)
        before, follows = self._whole, False
        if before:
            follows = (before[0].stream, before[0].t) == (newest.stream, newest.t - 1)
        if came not in self._updates or newest.raw != came - 1 or not follows:
            return []
        if None in group.slots[:came] or before[0].exposure_ms != newest.exposure_ms:
            return []
        mixed: list[CameraFrame | None] = [*group.slots[:came], *before[came:]]
        stack = self._stack(_Group(mixed))
        return [replace(stack, newest=came, before=tuple(f.pixels for f in before))]

    def flush(self) -> list[RawStack]:
        """Close every open group as it is; for the end of a run."""
        return [
            stack
            for stream in list(self._open)
            for t in sorted(self._open[stream])
            for stack in self._close(stream, t)
        ]

    def _close(self, stream: Stream, t: int) -> list[RawStack]:
        """Close the groups of `stream` up to `t`."""
        groups = self._open[stream]
        stacks: list[RawStack] = []
        for older in sorted(g for g in groups if g <= t):
            group = groups.pop(older)
            stack = self._stack(group)
            if self._updates:
                self._whole = [f for f in group.slots if f and stack.complete]
            self.incomplete += not stack.complete
            self.missing += len(stack.frames) - len(stack.came)
            stacks.append(stack)
            stacks += [self._unplaced(f) for f in group.repeats]
        self._closed_up_to[stream] = max(t, self._closed_up_to.get(stream, -1))
        return stacks

    def _stack(self, group: _Group) -> RawStack:
        came = [f for f in group.slots if f is not None]
        first, last = min(f.t_host_ns for f in came), max(f.t_host_ns for f in came)
        exposures = [f.exposure_ms for f in came if f.exposure_ms is not None]
        clocks = [f.t_camera_ms for f in came if f.t_camera_ms is not None]
        return RawStack(
            frames=tuple(f.pixels if f else None for f in group.slots),
            stream=came[0].stream,
            t=came[0].t,
            t_acq_ns=(first + last) // 2,
            t_last_ns=last,
            t_camera_ms=(min(clocks) + max(clocks)) / 2 if clocks else None,
            exposure_ms=_mean(exposures),
            stage=came[0].stage,
        )

    def _unplaced(self, frame: CameraFrame) -> RawStack:
        frames: list[Pixels | None] = [None] * self._n_raw
        frames[frame.raw] = frame.pixels
        t = frame.t_host_ns
        return RawStack(
            tuple(frames),
            frame.stream,
            frame.t,
            t,
            t,
            frame.t_camera_ms,
            unplaced=True,
            exposure_ms=frame.exposure_ms,
            stage=frame.stage,
        )


def _mean(exposures_ms: list[float]) -> float | None:
    """Mean exposure of a group: of equal ones exactly that, of different ones neither."""
    if len(set(exposures_ms)) < 2:
        return exposures_ms[0] if exposures_ms else None
    return sum(exposures_ms) / len(exposures_ms)
