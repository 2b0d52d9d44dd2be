"""What a plan will deliver, found out before its first frame.

Streams, planes, and whether each frame has a place.

Owns the walk through a plan's events. Moves no stage and takes no frame; what the events cannot say
before a run is checked again with every frame, in `stages/ingest.py`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from useq import MDAEvent

from livesr.base.errors import ConfigError
from livesr.base.files import not_expected
from livesr.base.frames import CameraFrame, RawStack, Stream
from livesr.base.run_description import Stack
from livesr.live.grouping.by_index import IndexGrouping
from livesr.live.optical_state import ChannelState
from livesr.live.sources.mda import RAW_AXIS, Placing, no_raw_axis

_MAX_EVENTS = 20_000  # 0.4 s of a useq plan
_TIME_POINTS = 4  # enough to see what repeats; more where channels are left out at some
_NO_PIXELS = np.zeros((1, 1), np.uint8)


@dataclass(slots=True)
class PlanSummary:
    """What a plan says of itself.

    Attributes
    ----------
    channels : names in the order of their first exposure, () where the plan names none
    positions : names in the order of their index; a field of a grid is a position of its own
    fields : position of every (p, g), {} without a grid
    stacks : what is acquired of a channel at a position; {} where the plan was not seen to its end
    z_planes, z_step_um : of the largest stack; z_planes is 1 without
    interval_s : from time point to time point, None where the plan has several or says none
    raw_axis : whether raw frames have an axis of their own; without, they are counted along time
    states : what the events of a channel set for the camera, beside its preset
    lone : channels that are never acquired at two time points in a row, although at several
    z_outside_t : whether a later plane of a stack comes after a later time point of an earlier one
    channels_apart : whether a channel is acquired at a later time point before another is at an
        earlier one
    notes : sentences to be said with the run
    """

    channels: tuple[str, ...] = ()
    positions: tuple[str, ...] = ("0",)
    fields: dict[tuple[int, int], int] = field(default_factory=dict)
    stacks: dict[tuple[int, str], Stack] = field(default_factory=dict)
    z_planes: int = 1
    z_step_um: float = 1.0
    interval_s: float | None = None
    raw_axis: bool = False
    states: dict[str, ChannelState] = field(default_factory=dict)
    lone: set[str] = field(default_factory=set)
    z_outside_t: bool = False
    channels_apart: bool = False
    notes: tuple[str, ...] = ()

    def places(self) -> dict[str, Any]:
        """Return the fields of a `RunDescription` that say where frames lie.

        An image grows along time, one whole stack after the other. Where time runs inside z, every
        plane of a position is therefore an image of its own, as if it were a position.
        """
        about: dict[str, Any] = {"fields": self.fields, "z_step_um": self.z_step_um}
        if not self.z_outside_t:
            return {
                **about,
                "positions": self.positions,
                "z_planes": self.z_planes,
                "stacks": self.stacks,
            }
        planes = tuple(f"{name}-z{z}" for name in self.positions for z in range(self.z_planes))
        apart = {
            (position * self.z_planes + z, channel): Stack(1, stack.z_step_um, every=stack.every)
            for (position, channel), stack in self.stacks.items()
            for z in range(stack.z_planes)
        }
        return {**about, "positions": planes, "planes_as_positions": self.z_planes, "stacks": apart}


def summarise(plan: Any, n_raw: Callable[[str], int], only_channel: str = "") -> PlanSummary:
    """Walk through the first time points of a useq plan (v1, v2, or a list of events).

    A plan that can be iterated only once says nothing before it runs.

    Parameters
    ----------
    plan : what `CMMCorePlus.mda.run` is given
    n_raw : exposures per super-resolution frame of a channel
    only_channel : name of the channel where the plan names none

    Raises
    ------
    ConfigError
        If an exposure would have no place, two would have the same, no group of a channel would be
        complete, or the camera's region changes within a channel.
    """
    walk = _walked(plan, n_raw, only_channel, fields=False)
    if walk.fields_came_late:  # the positions before are fields of their own as well
        walk = _walked(plan, n_raw, only_channel, fields=True)
    found = walk.found
    names = [
        _name(position, str(p))
        for p, position in enumerate(getattr(plan, "stage_positions", ()) or ())
    ]
    found.positions = walk.names(names) or ("0",)
    return found


def _walked(plan: Any, n_raw: Callable[[str], int], only_channel: str, *, fields: bool) -> _Walk:
    """Return the walk through the first time points of a plan."""
    found = PlanSummary(
        raw_axis=RAW_AXIS in getattr(plan, "used_axes", ()), interval_s=_interval_s(plan)
    )
    walk = _Walk(found, n_raw, only_channel, fields=fields)
    if isinstance(plan, Iterable) and not isinstance(plan, Iterator):
        events = _first_time_points(plan)
        for event in islice(events, _MAX_EVENTS * (10 if _has_places(plan) else 1)):
            walk.take(event)
            if walk.fields_came_late:
                return walk
        walk.finish(whole=next(events, None) is None)
    return walk


class _Walk:
    """Groups the exposures of a plan as a run will, without pixels.

    Attributes
    ----------
    found : what is known so far
    fields_came_late : whether the plan has a grid, and exposures before it that are at no field
    positions : how many have been seen
    """

    def __init__(
        self,
        found: PlanSummary,
        n_raw: Callable[[str], int],
        only_channel: str,
        *,
        fields: bool = False,
    ) -> None:
        self.found = self._found = found
        self._n_raw, self._fields = n_raw, fields
        self.fields_came_late = False
        self._placing = Placing(n_raw, only_channel, found.fields)
        self._groupings: dict[str, IndexGrouping] = {}
        self._incomplete: dict[str, RawStack] = {}
        self._done: set[str] = set()
        self._gapped: set[str] = set()
        self._in_a_row: set[str] = set()
        self._last: dict[Stream, int] = {}
        self._newest: defaultdict[tuple[int, str], tuple[int, int]] = defaultdict(lambda: (-1, -1))
        self._newest_t: defaultdict[tuple[int, int], int] = defaultdict(lambda: -1)
        self._z_um: dict[tuple[int, str], dict[int, float]] = {}
        self._raw_axis = False
        self._streams: set[Stream] = set()
        self._every: defaultdict[tuple[int, str], int] = defaultdict(int)
        self._states: dict[str, _States] = {}
        self.positions = 0

    def take(self, event: MDAEvent) -> None:
        if not isinstance(event, MDAEvent):
            raise not_expected(event, "What the plan yields", "a useq.MDAEvent")
        if event.action.type != "acquire_image":
            return
        self._number_field(event)
        if self.fields_came_late:
            return
        stream, t, raw = self._placing.place(event)
        if event.channel and event.channel.config not in self._found.channels:
            self._found.channels += (event.channel.config,)
        self._states.setdefault(stream.channel, _States()).take(event)
        self._raw_axis |= RAW_AXIS in event.index
        self._streams.add(stream)
        place = stream.position, stream.channel
        self._every[place] = math.gcd(self._every[place], t)
        self.positions = max(self.positions, stream.position + 1)
        self._found.z_planes = max(self._found.z_planes, stream.z + 1)
        if event.z_pos is not None:
            self._z_um.setdefault((stream.position, stream.channel), {}).setdefault(
                stream.z, event.z_pos
            )
        n_raw = self._n_raw(stream.channel)
        grouping = self._groupings.setdefault(stream.channel, IndexGrouping(n_raw))
        for stack in grouping.push(CameraFrame(_NO_PIXELS, stream, t, raw, 0)):
            self._check(stack)

    def finish(self, *, whole: bool) -> None:
        """Draw the conclusions; `whole` if the walk has seen every event."""
        max_raw = max((self._n_raw(stream.channel) for stream in self._streams), default=1)
        if not self._raw_axis and max_raw > 1 and len(self._streams) > 1:
            raise no_raw_axis(max_raw)
        if (
            whole and self._raw_axis
        ):  # a plan that counts raw frames along time may end within a group
            for grouping in self._groupings.values():
                for stack in grouping.flush():
                    self._check(stack)
        for channel in self._incomplete.keys() - self._done:
            stack = self._incomplete[channel]
            raise ConfigError(
                f"The plan leaves time point {stack.t} of {stack.stream} with {len(stack.came)} of"
                f" {len(stack.frames)} raw frames before it goes on: put axis {RAW_AXIS!r}, with"
                " all raw frames, inside time."
            )
        self._found.lone = self._gapped - self._in_a_row
        self._found.states = {name: states.state(name) for name, states in self._states.items()}
        self._look_at_stacks(whole=whole)

    def names(self, given: Sequence[str]) -> tuple[str, ...]:
        """Return a name for every position, from those that the plan gives its own."""
        named = {p: name for p, name in enumerate(given)}
        if not self._found.fields:
            return tuple(named.get(p, str(p)) for p in range(max(len(named), self.positions)))
        several = len({p for p, _ in self._found.fields}) > 1 or any(
            not name.isdigit() for name in given
        )
        return tuple(
            f"{named.get(p, str(p))}-g{g}" if several else f"g{g}" for p, g in self._found.fields
        )

    def _number_field(self, event: MDAEvent) -> None:
        """Give a field of a grid the next position.

        In a plan with grids, one for a position without as well, also for those that come before
        the first grid.
        """
        self.fields_came_late |= "g" in event.index and not self._fields and bool(self._streams)
        self._fields |= "g" in event.index
        if self._fields:
            key = event.index.get("p", 0), event.index.get("g", 0)
            self._found.fields.setdefault(key, len(self._found.fields))

    def _look_at_stacks(self, *, whole: bool) -> None:
        """Say how deep every stack is and how far its planes are apart.

        Where they are not evenly, that.
        """
        steps: dict[tuple[int, str], list[float]] = {
            place: [abs(z[i + 1] - z[i]) for i in sorted(z) if i + 1 in z]
            for place, z in self._z_um.items()
        }
        middle = {
            place: round(float(np.median(found)), 4) for place, found in steps.items() if found
        }
        self._found.z_step_um = next(iter(middle.values()), 1.0)
        uneven = {
            round(step, 4)
            for found in steps.values()
            for step in found
            if len({round(s, 4) for s in found}) > 1
        }
        if uneven:
            self._found.notes += (
                (
                    f"The planes of a stack are {' and '.join(f'{s:g}' for s in sorted(uneven))} um"
                    " apart: an image has one step, the median, and frames.jsonl says where every"
                    " plane is (z_um)."
                ),
            )
        if any(z[i + 1] < z[i] for z in self._z_um.values() for i in z if i + 1 in z):
            self._found.notes += (
                (
                    "The planes of a stack go down: the z axis of an image counts from its first"
                    " plane on, so that the place it gives in um is right for that plane alone;"
                    " frames.jsonl says where every plane is (z_um)."
                ),
            )
        if whole:
            depth: dict[int, int] = {}
            for stream in (
                self._streams
            ):  # a channel that leaves planes out has the place of its position's stack
                depth[stream.position] = max(depth.get(stream.position, 0), stream.z + 1)
            self._found.stacks = {
                place: Stack(
                    depth[place[0]],
                    middle.get(place, self._found.z_step_um),
                    tuple(
                        z for z in range(depth[place[0]]) if Stream(*place, z) not in self._streams
                    ),
                    every or 1,
                )
                for place, every in sorted(self._every.items())
            }

    def _check(self, stack: RawStack) -> None:
        stream, t = stack.stream, stack.t
        if stack.unplaced:
            raise ConfigError(
                f"The plan acquires time point {t} of {stream} more than once: a position's own"
                " sequence must not have a time plan inside the plan's, and time must not run"
                " backwards."
            )
        if not stack.complete:
            self._incomplete.setdefault(stream.channel, stack)
            return
        self._done.add(stream.channel)
        if stream in self._last:
            (self._in_a_row if t == self._last[stream] + 1 else self._gapped).add(stream.channel)
        self._last[stream] = t
        here = stream.position, stream.z
        self._found.channels_apart |= t < self._newest_t[here]
        self._newest_t[here] = max(self._newest_t[here], t)
        place = stream.position, stream.channel
        self._found.z_outside_t |= (t, stream.z) < self._newest[place]
        self._newest[place] = max(self._newest[place], (t, stream.z))


class _States:
    """What the events of a channel set for the camera."""

    def __init__(self) -> None:
        self._group: str | None = None
        self._rois: set[tuple[int, int, int, int] | None] = set()
        self._values: defaultdict[tuple[str, str], set[str]] = defaultdict(set)

    def take(self, event: MDAEvent) -> None:
        self._group = event.channel.group if event.channel else self._group
        roi = getattr(event, "roi", None)
        self._rois.add(None if roi is None else (roi.offset_x, roi.offset_y, roi.width, roi.height))
        for device, name, value in event.properties or ():
            self._values[device, name].add(str(value))

    def state(self, channel: str) -> ChannelState:
        if len(self._rois) > 1:
            raise ConfigError(
                f"The plan takes channel {channel or 'default'} with several regions of the camera:"
                " an image has one size. Give every event of a channel the same region, or acquire"
                " them in runs of their own."
            )
        # What changes from exposure to exposure, as a pattern, does not concern the size of
        # pictures.
        constant = tuple(
            (*key, next(iter(values))) for key, values in self._values.items() if len(values) == 1
        )
        return ChannelState(self._group, next(iter(self._rois), None), constant)


def _first_time_points(plan: Any) -> Iterator[MDAEvent]:
    """Iterate over a plan with its time axis cut short where that is possible."""
    most = _TIME_POINTS + max((c.acquire_every for c in _channels(plan)), default=1)
    if not _has_places(plan):
        return iter(plan)  # nothing hides behind a long time axis
    if isinstance(axes := getattr(plan, "axes", None), tuple):  # useq.v2
        short = tuple(_shortened(axis, most) if axis.axis_key == "t" else axis for axis in axes)
        return iter(plan.model_copy(update={"axes": short}))
    if getattr(plan, "time_plan", None) is not None:
        return iter(plan.replace(time_plan=_shortened(plan.time_plan, most)))
    return iter(plan)


def _has_places(plan: Any) -> bool:
    """Whether a plan says by itself that it has positions, fields or planes."""
    return bool(len(getattr(plan, "stage_positions", ()) or ())) or any(
        getattr(plan, axis, None) is not None for axis in ("z_plan", "grid_plan")
    )


def _shortened(time_plan: Any, most: int) -> Any:
    # Plans with phases, or that last for a duration, stay: the limit of events cuts them off.
    loops = getattr(time_plan, "loops", None)
    return (
        time_plan
        if loops is None or loops <= most
        else time_plan.model_copy(update={"loops": most})
    )


def _channels(plan: Any) -> list[Any]:
    """Return the channels of a plan and of its positions' own sequences."""
    inner = [
        getattr(position, "sequence", None)
        for position in getattr(plan, "stage_positions", ()) or ()
    ]
    own = list(getattr(plan, "channels", ()) or ())
    return own + [c for sequence in inner if sequence is not None for c in sequence.channels]


def _name(position: Any, number: str) -> str:
    # In useq.v2 a position with a sequence of its own is the sequence, and its value the position.
    return str(getattr(getattr(position, "value", None) or position, "name", None) or number)


def _interval_s(plan: Any) -> float | None:
    interval = getattr(getattr(plan, "time_plan", None), "interval", None)
    seconds = interval.total_seconds() if interval is not None else 0.0
    return seconds if seconds > 0 else None
