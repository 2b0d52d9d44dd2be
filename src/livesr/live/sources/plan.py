"""Describes a SIM acquisition to pymmcore-plus: which raw frame every exposure is.

Owns the raw axis of a plan, and what a plan is written down as. Drives no hardware.
`useq.MDASequence` knows the axes t, p, g, c and z only; `useq.v2` takes any, and `MDAEvent.index`
carries it to the frame.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from enum import Enum
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any, Protocol

import numpy as np
import useq.v2 as v2
import yaml
from pydantic import Field
from useq import Channel, MDAEvent, MDASequence, WellPlatePlan

from livesr.base.config import RigConfig
from livesr.base.errors import ConfigError
from livesr.base.files import not_expected
from livesr.live.sources.mda import RAW_AXIS

log = logging.getLogger(__name__)


class SIMAxis(v2.SimpleValueAxis[int]):
    """The raw frames of one super-resolution frame, fastest axis.

    Attributes
    ----------
    pattern_property : (device, property) that selects the pattern of an exposure, for rigs on which
        software does
    raw_frames : exposures of each channel, by name, where channels differ: a channel takes as many
        of the axis's values
    """

    axis_key: str = RAW_AXIS
    raw_frames: dict[str, int] = Field(default_factory=dict)
    pattern_property: tuple[str, str] | None = None

    def should_skip(self, prefix: Mapping[str, tuple[int, Any, Any]]) -> bool:
        """Leave out what a channel does not need.

        One exposure for widefield beside nine for SIM.
        """
        channel = prefix["c"][1].config if "c" in prefix else ""
        return prefix[self.axis_key][0] >= self.raw_frames.get(channel, len(self.values))

    def contribute_to_mda_event(self, value: int, index: Mapping[str, int]) -> MDAEvent.Kwargs:
        """Put the raw index into the event's metadata, and the pattern into its properties."""
        kwargs: MDAEvent.Kwargs = {"metadata": {"sim_raw": value}}
        if self.pattern_property is not None:
            # pymmcore-plus sequences property values only as text.
            kwargs["properties"] = [(*self.pattern_property, str(value))]
        return kwargs


def sim_sequence(
    n_t: int,
    channels: Sequence[str] = (),
    raw: int | Mapping[str, int] = 9,
    interval_s: float = 0.0,
    *,
    group: str = "Channel",
    pattern_property: tuple[str, str] | None = None,
) -> v2.MDASequence:
    """Return a time lapse with axes t, c and sim.

    Parameters
    ----------
    n_t : super-resolution frames per channel
    channels, group : presets of the rig's channel group, and its name; no channel axis if empty
    raw : exposures per super-resolution frame; by channel where they differ
    interval_s : time between the starts of two super-resolution frames. At 0 pymmcore-plus merges
        the whole time lapse of one channel into a single triggered sequence: group frames by
        `event.index`, never by sequence
    pattern_property : (device, property) to set to the raw index before each exposure. Leave it out
        where the pattern display follows the camera's trigger by itself; give it where software
        selects the pattern. A sequenceable property is still triggered in hardware

    Raises
    ------
    ConfigError
        If there would be no exposure, or an argument is of another kind.

    Notes
    -----
    The sequence can be iterated again and again, which pymmcore-plus needs to merge events. For a
    `useq.v2` sequence it announces an empty plan in `sequenceStarted`: give this one to the plugin.
    """
    _check_lapse(n_t, channels, raw, interval_s)
    axes: list[v2.AxisIterable[object]] = [v2.TIntervalLoops(interval=interval_s, loops=n_t)]
    if channels:
        axes.append(
            v2.ChannelsPlan(values=[Channel(config=name, group=group) for name in channels])
        )
    by_channel = dict(raw) if isinstance(raw, Mapping) else {}
    most = max(raw.values()) if isinstance(raw, Mapping) else raw
    axes.append(
        SIMAxis(values=list(range(most)), pattern_property=pattern_property, raw_frames=by_channel)
    )
    return v2.MDASequence(axes=tuple(axes), axis_order=tuple(axis.axis_key for axis in axes))


def _check_lapse(n_t: object, channels: object, raw: object, interval_s: object) -> None:
    """Refuse what would make no time lapse, or another one than was meant."""
    if not _counts(n_t):
        raise not_expected(n_t, "n_t", "a number of super-resolution frames, 1 or more")
    names = None if isinstance(channels, str) or not isinstance(channels, Iterable) else channels
    if names is None or not all(isinstance(name, str) for name in names):
        raise not_expected(channels, "channels", "a list of the names of presets, as ['488']")
    numbers = raw.values() if isinstance(raw, Mapping) else (raw,)
    if not numbers or not all(map(_counts, numbers)):
        raise not_expected(
            raw, "raw", "a number of exposures, 1 or more, or one for each channel, as {'488': 9}"
        )
    if not isinstance(interval_s, Real) or not 0 <= float(interval_s) < math.inf:
        raise not_expected(interval_s, "interval_s", "seconds, 0 or more")


def _counts(n: object) -> bool:
    return isinstance(n, Integral) and int(n) >= 1


_WRITTEN_EVENTS = 1000
_LISTED, _DEEPEST = (
    200,
    20,
)  # numbers of an array, characters of an object, and levels that are written down of metadata


class RawFramesPlan:
    """A useq plan in which every exposure is taken once for each raw frame, one after the other.

    Axis "sim", innermost.

    Everything else is the plan's: positions, planes and channels, focus offsets, stacks and time
    points that a channel leaves out, autofocus. It can be iterated again and again, which
    pymmcore-plus needs to merge events.

    Parameters
    ----------
    plan : without a raw axis
    n_raw : exposures per super-resolution frame of a channel; a channel with one gets no raw axis
    only_channel : name of the channel where the plan names none
    """

    def __init__(
        self, plan: MDASequence, n_raw: Callable[[str], int], only_channel: str = ""
    ) -> None:
        self.plan = plan
        self._n_raw, self._only = n_raw, only_channel

    def __iter__(self) -> Iterator[MDAEvent]:
        return self.everything()

    def everything(self) -> Iterator[MDAEvent]:
        """Iterate over all that may be exposed; what the run itself leaves out as well."""
        for event in self.plan:
            n = self._n_raw(event.channel.config if event.channel else self._only)
            if n == 1 or event.action.type != "acquire_image":
                yield event
                continue
            for raw in range(n):
                yield event.model_copy(
                    update={
                        "index": {**event.index, RAW_AXIS: raw},
                        "metadata": {**event.metadata, "sim_raw": raw},
                        "reset_event_timer": event.reset_event_timer and raw == 0,
                    }
                )

    def replace(self, **changes: Any) -> RawFramesPlan:
        """Return a copy with other fields of the plan."""
        return RawFramesPlan(self.plan.replace(**changes), self._n_raw, self._only)

    @property
    def used_axes(self) -> tuple[str, ...]:
        """Axes of the plan, outermost first, and the raw axis."""
        return (*self.plan.used_axes, RAW_AXIS)

    @property
    def channels(self) -> Sequence[Channel]:
        """Channels of the plan."""
        return self.plan.channels

    @property
    def stage_positions(self) -> Sequence[Any]:
        """Positions of the plan."""
        return tuple(self.plan.stage_positions)

    @property
    def z_plan(self) -> Any:
        """Planes of the plan, None for one."""
        return self.plan.z_plan

    @property
    def grid_plan(self) -> Any:
        """Fields around each position, None for one."""
        return self.plan.grid_plan

    @property
    def time_plan(self) -> Any:
        """Time points of the plan, None for one."""
        return self.plan.time_plan

    @property
    def setup(self) -> MDAEvent | None:
        """What is set before the first exposure.

        Pymmcore-plus does it for a plan of its own kind only.
        """
        return self.plan.setup


class AuditPlan(RawFramesPlan):
    """A plan of which some channels are left out where no audit is due.

    Parameters
    ----------
    plan : with the channels of everyday and the true ones, channels inside of time
    n_raw, only_channel : as of `RawFramesPlan`
    true_channels : that are taken when an audit is due
    schedule : asked for each time point, as the plan is walked through

    Raises
    ------
    ConfigError
        If time points follow each other without an interval: pymmcore-plus would walk through all
        of the plan before the first exposure, and no audit could depend on what was seen. If one
        channel is taken through all of time before the next.
    """

    def __init__(
        self,
        plan: MDASequence,
        n_raw: Callable[[str], int],
        true_channels: Sequence[str],
        schedule: Due,
    ) -> None:
        # First, so that they are there when an engine that waits for no later frame has predicted.
        channels = sorted(plan.channels, key=lambda channel: channel.config not in true_channels)
        super().__init__(plan.replace(channels=channels), n_raw)
        self.true_channels, self.schedule = tuple(true_channels), schedule
        axes = [axis for axis in plan.used_axes if axis in "tc"]
        if axes == ["c", "t"]:
            raise ConfigError(
                "Audits take the true channels at the time point that they score, and the plan"
                " takes one channel through all of time before the next: put t before c in its"
                " axis_order."
            )
        interval = getattr(plan.time_plan, "interval", None)
        if interval is not None and not interval.total_seconds():
            raise ConfigError(
                "An audit is decided as the run goes on, and time points without an interval are"
                " handed to the camera all at once: give the run an interval (--interval, or"
                " interval_ms in rig.yaml)."
            )

    def __iter__(self) -> Iterator[MDAEvent]:
        self.schedule.begin()
        for event in self.everything():
            name = event.channel.config if event.channel else ""
            if name not in self.true_channels or self.schedule.due(event.index.get("t", 0)):
                yield event

    def replace(self, **changes: Any) -> AuditPlan:
        """Return a copy with other fields of the plan."""
        return AuditPlan(
            self.plan.replace(**changes), self._n_raw, self.true_channels, self.schedule
        )


def with_raw_frames(
    plan: MDASequence, rig: RigConfig, schedule: Due | None = None
) -> RawFramesPlan:
    """Return a plan with the raw frames of every channel of a rig innermost.

    For plans with positions, planes or grids, of rigs that expose several raw frames for one
    super-resolution frame. Give it to `LiveSR` and to ``core.mda.run``.

    Parameters
    ----------
    plan : without raw frames
    rig : says how many each channel has
    schedule : of a rig with audits, what says when one is due: true channels are left out where
        none is

    Raises
    ------
    ConfigError
        If `plan` is no `useq.MDASequence`. With audits, if time points follow each other without an
        interval, or one channel is taken through all of time before the next.
    """
    if not isinstance(plan, MDASequence):
        raise not_expected(plan, "plan", "a useq.MDASequence, which has no raw frames yet")
    if schedule and rig.superpose:
        return AuditPlan(plan, rig.raw_frames, rig.superpose.channels, schedule)
    only = next(iter(rig.channels), "") if len(rig.channels) == 1 else ""
    return RawFramesPlan(plan, rig.raw_frames, only)


class Due(Protocol):
    """Says when an audit is due, see `livesr.live.audit.AuditSchedule`."""

    def begin(self) -> None:
        """Begin a run."""

    def due(self, t: int) -> bool:
        """Whether the true channels are taken at time point `t`."""


def with_field_of_view(plan: MDASequence, width_um: float, height_um: float) -> MDASequence:
    """Return a plan whose grids, around positions, inside them and in wells, have fields of this
    size, in um.

    pymmcore-plus sets it when a `useq.MDASequence` runs, of which `RawFramesPlan` is none; without
    it fields are 1 um wide.
    """
    fov = {"fov_width": width_um, "fov_height": height_um}

    def grid(one: Any) -> Any:
        return one.model_copy(update=fov) if hasattr(one, "fov_width") else one

    def position(one: Any) -> Any:
        inner = one.sequence
        return (
            one
            if inner is None
            else one.replace(sequence=with_field_of_view(inner, width_um, height_um))
        )

    places: Any = plan.stage_positions
    if isinstance(places, WellPlatePlan):
        places = places.replace(well_points_plan=grid(places.well_points_plan))
    else:
        places = [position(one) for one in places]
    return plan.replace(grid_plan=grid(plan.grid_plan), stage_positions=places)


def plan_text(plan: Any) -> str | None:
    """Return what is kept of a plan beside the data.

    YAML that `useq.MDASequence.from_file` reads where the plan is one.

    None for a plan that says nothing before it runs (a generator, or none at all). What YAML has no
    words for, as arrays, paths, objects and pictures of an SLM, is described: nothing that only
    accompanies a run can stop it.
    """
    try:
        return _text(plan)
    except Exception as e:  # metadata may hold objects of any kind, with errors of any kind
        log.warning("The plan cannot be written down: %s: %s", type(e).__name__, e)
        return f"# The plan could not be written down ({type(e).__name__}).\n"


def _text(plan: Any) -> str | None:
    if isinstance(plan, RawFramesPlan):
        return (
            f"# livesr took every exposure once per raw frame (axis {RAW_AXIS!r},"
            f" innermost).\n{_sequence_yaml(plan.plan)}"
        )
    if isinstance(plan, v2.MDASequence):
        axes = [{"axis": axis.axis_key, **_dumped(axis)} for axis in plan.axes]
        return _yaml({"useq": "v2", "axis_order": list(plan.axis_order or ()), "axes": axes})
    if isinstance(plan, MDASequence):
        return _sequence_yaml(plan) if plan.used_axes or plan.channels else None
    if isinstance(plan, Sequence):
        events = [_dumped(event) for event in plan[:_WRITTEN_EVENTS]]
        return f"# The first {len(events)} of {len(plan)} events.\n{_yaml(events)}"
    return None


def _sequence_yaml(plan: MDASequence) -> str:
    try:
        return str(plan.yaml())
    except Exception:  # yaml and pydantic raise errors of their own, as do objects in metadata
        return _yaml(plan.model_dump(exclude_unset=True, exclude={"uid"}))


def _yaml(value: object) -> str:
    return str(yaml.safe_dump(_plain(value), sort_keys=False, allow_unicode=True))


def _dumped(model: Any) -> dict[str, Any]:
    dumped: dict[str, Any] = model.model_dump(exclude_defaults=True)
    return dumped


def _plain(value: object, depth: int = 0) -> object:
    """Return what YAML can say; a few words for what it cannot."""
    if depth > _DEEPEST:
        return "..."
    if isinstance(value, Mapping):
        return {str(_plain(k, depth + 1)): _plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return _array(value, depth)
    if isinstance(value, np.generic | Enum):
        return _plain(value.item() if isinstance(value, np.generic) else value.value, depth + 1)
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v, depth + 1) for v in value]
    if isinstance(value, bool | int | float | None):
        return value
    return _words(value)


def _array(value: np.ndarray[Any, Any], depth: int) -> object:
    """Return the values of a small array, the size of a large one."""
    if value.size <= _LISTED:
        return _plain(value.tolist(), depth + 1)
    return f"array {value.dtype} {value.shape}"


def _words(value: object) -> str:
    if isinstance(value, str | PurePath | timedelta):
        return str(value)
    try:
        return repr(value)[:_LISTED]
    except Exception:  # an object's own
        return type(value).__name__
