"""What a run acquires, as flags or a plan file say it: positions, planes, channels, time points.

Owns the reading of both, and the sentence that says what they amount to. Moves nothing, opens
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from livesr.base.config import RigConfig
from livesr.base.documents import read_text
from livesr.base.errors import ConfigError, DocumentError, suggestion
from livesr.cli.plan_file import (
    MAX_NUMBER,
    MAX_PLANES,
    MAX_TIME_POINTS,
    read_plan,
    too_many_time_points,
)

if TYPE_CHECKING:
    from pymmcore_plus import CMMCorePlus
    from useq import MDASequence

    from livesr.live.sources.plan import RawFramesPlan

_FRAMES = 100
_ROUNDED = 1e-9  # 0.9 s of 0.09 s each are ten
_MAX_FIELDS = 100_000
_MAX_COUNTED = (
    200_000  # exposures of a plan with exceptions that are counted one by one: about a second
)


@dataclass(frozen=True, slots=True)
class Experiment:
    """What the flags say; what is None is not said.

    Attributes
    ----------
    frames, duration_s, interval_s : time points, or how long, and the time between their starts
    positions, z, channels : as the flags take them
    plan : file in useq's own format, instead of all of these
    """

    frames: int | None = None
    duration_s: float | None = None
    interval_s: float | None = None
    positions: str | None = None
    z: str | None = None
    channels: str | None = None
    plan: Path | None = None


def plan_of(
    experiment: Experiment, rig: RigConfig, exposure_ms: float, core: CMMCorePlus | None = None
) -> Any:
    """Return the plan, with the raw frames of every channel innermost.

    Planes that are relative to a position without z are around where the focus of `core` is now:
    useq would take 0.

    Raises
    ------
    ConfigError
        If the flags contradict each other or the rig, or the file is no plan.
    """
    from livesr.live.audit import AuditSchedule
    from livesr.live.sources.plan import with_raw_frames

    plan = _read(experiment) if experiment.plan else _from_flags(experiment, rig, exposure_ms)
    _check_time_points(getattr(plan.time_plan, "loops", 1))
    _check_channels([channel.config for channel in plan.channels], rig)
    if core is not None:
        plan = _sized(_around_focus(plan, core), core, rig)
    return with_raw_frames(plan, rig, AuditSchedule(rig.audit) if rig.audit else None)


@dataclass(frozen=True, slots=True)
class Extent:
    """How much a plan is: sizes of its axes, exposures in all, and for how long.

    `exact` if no exception makes it less.
    """

    positions: int
    planes: int
    channels: int
    time_points: int
    raw: tuple[int, ...]
    exposures: int
    seconds: float
    exact: bool

    @property
    def groups(self) -> int:
        """Super-resolution frames in all."""
        return self.positions * self.planes * self.channels * self.time_points

    def sentence(self, nbytes: int | None = None) -> str:
        """Say it as the first line of a run does; `nbytes` is the most that the store takes."""
        axes = [
            _count(n, what)
            for n, what in (
                (self.positions, "position"),
                (self.planes, "plane"),
                (self.channels, "channel"),
            )
            if n > 1
        ]
        axes.append(_count(self.time_points, "time point"))
        least = "" if self.exact else "up to "
        raw = " or ".join(map(str, self.raw))
        total = f"{least}{_count(self.exposures, 'exposure')}, at least {_duration(self.seconds)}"
        size = f", up to {_size(nbytes)} before compression" if nbytes else ""
        return (
            f"{' x '.join(axes)}, {raw} raw frame{'s' if raw != '1' else ''} each: {total}{size}."
        )


def extent(plan: RawFramesPlan, rig: RigConfig, exposure_ms: float) -> Extent:
    """Measure a plan.

    Exposures of channels that give no exposure of their own last `exposure_ms`.
    """
    from livesr.live.sources.plan import AuditPlan

    sequence = plan.plan
    positions, planes, time_points, fields = (
        max(sequence.sizes.get(axis, 0), 1) for axis in "pztg"
    )
    positions *= fields
    names = [channel.config for channel in sequence.channels] or [next(iter(rig.channels), "")]
    raw = [rig.raw_frames(name) for name in names]
    per_time_point = positions * planes * sum(raw)
    exposures, exact = per_time_point * time_points, True
    if _has_exceptions(sequence):
        exact = exposures <= _MAX_COUNTED
        exposures = (
            sum(event.action.type == "acquire_image" for event in plan.everything())
            if exact
            else exposures
        )
    exact &= not isinstance(plan, AuditPlan)  # how many are due is not known before
    own = [channel.exposure or exposure_ms for channel in sequence.channels] or [exposure_ms]
    round_s = positions * planes * sum(n * ms for n, ms in zip(raw, own, strict=True)) / 1e3
    exposed_s = round_s * time_points * (exposures / max(per_time_point * time_points, 1))
    seconds = max(_last_start_s(sequence.time_plan) + round_s, exposed_s)
    return Extent(
        positions,
        planes,
        len(names),
        time_points,
        tuple(sorted(set(raw))),
        exposures,
        seconds,
        exact,
    )


def _last_start_s(time_plan: Any) -> float:
    """Seconds from the start of a run to its last time point."""
    if time_plan is None:
        return 0.0
    if (loops := getattr(time_plan, "loops", None)) and (
        interval := getattr(time_plan, "interval", None)
    ) is not None:
        return float(interval.total_seconds() * (loops - 1))
    return max((float(delta.total_seconds()) for delta in time_plan.deltas()), default=0.0)


def check_stages(plan: RawFramesPlan, core: CMMCorePlus) -> None:
    """Refuse a plan that moves a stage which the core does not have.

    Raises
    ------
    ConfigError
        With the stage that is missing.
    """
    sequence = plan.plan
    moves_xy = sequence.grid_plan is not None or any(
        p.x is not None or p.y is not None for p in sequence.stage_positions
    )
    if moves_xy and not core.getXYStageDevice():
        raise ConfigError(
            "The run moves to positions in x and y, and rig.cfg names no XY stage: add"
            " Property,Core,XYStage,<label>, or leave the positions out."
        )
    moves_z = sequence.z_plan is not None or any(p.z is not None for p in sequence.stage_positions)
    if moves_z and not core.getFocusDevice():
        raise ConfigError(
            "The run moves in z, and rig.cfg names no focus drive: add Property,Core,Focus,<label>,"
            " or leave z out."
        )


# -- a plan file -----------------------------------------------------------------------------------


def _read(experiment: Experiment) -> MDASequence:
    said = [name for name, value in _flags(experiment).items() if value is not None]
    if said:
        raise ConfigError(
            f"--plan says all of what is acquired: leave out {', '.join(said)}, or the plan."
        )
    path = experiment.plan
    assert path is not None
    plan = read_plan(path)
    return plan


def _flags(experiment: Experiment) -> dict[str, object]:
    return {
        "--frames": experiment.frames,
        "--duration": experiment.duration_s,
        "--interval": experiment.interval_s,
        "--positions": experiment.positions,
        "--z": experiment.z,
        "--channels": experiment.channels,
    }


# -- flags -----------------------------------------------------------------------------------------


def _from_flags(experiment: Experiment, rig: RigConfig, exposure_ms: float) -> MDASequence:
    from useq import MDASequence, TIntervalLoops

    if experiment.frames is not None and experiment.duration_s is not None:
        raise ConfigError(
            "--frames and --duration both say how long the run is: leave one of them out."
        )
    names = _names(experiment.channels) if experiment.channels is not None else list(rig.channels)
    _check_channels(names, rig)
    interval_s = rig.interval_ms / 1e3 if experiment.interval_s is None else experiment.interval_s
    fields: dict[str, Any] = {
        "channels": [{"config": name, "group": rig.channel_group} for name in names],
        "stage_positions": (
            positions_of(experiment.positions) if experiment.positions is not None else ()
        ),
        "z_plan": z_plan_of(experiment.z) if experiment.z is not None else None,
    }
    one = MDASequence(**fields)
    frames = experiment.frames or _FRAMES
    if experiment.duration_s is not None:
        round_s = _round_s(one, names, rig, exposure_ms)
        last_s = experiment.duration_s - round_s  # when the last one that fits may begin
        frames = max(math.floor(last_s / max(interval_s, round_s) + _ROUNDED) + 1, 1)
    _check_time_points(frames)
    return one.replace(time_plan=TIntervalLoops(interval=interval_s, loops=frames))


def _check_time_points(n: int) -> None:
    if n > MAX_TIME_POINTS:
        raise too_many_time_points(n)


def _round_s(plan: MDASequence, names: Sequence[str], rig: RigConfig, exposure_ms: float) -> float:
    """Seconds of exposure in one time point."""
    planes = len(list(plan.z_plan)) if plan.z_plan else 1
    raw = sum(rig.raw_frames(name) for name in names or [""])
    return max(len(plan.stage_positions), 1) * planes * raw * exposure_ms / 1e3


def positions_of(text: str) -> list[dict[str, Any]]:
    """Read ``x,y[,z[,name]];...`` in um, or a file that has one position a line.

    Raises
    ------
    ConfigError
        If a position has other than two to four fields, or no numbers.
    """
    path = Path(text)
    if path.suffix in (".txt", ".csv") or (text and not set(text) & set(";,") and path.exists()):
        try:
            text = read_text(path)
        except DocumentError as e:
            raise ConfigError(f"Cannot read the positions: {e}") from e
    lines = (line.partition("#")[0].strip() for line in text.replace(";", "\n").splitlines())
    positions = [_position(line) for line in lines if line]
    if not positions:
        raise ConfigError(
            "--positions names no position: give x,y or x,y,z in um, separated by semicolons, or a"
            " file."
        )
    return positions


def _position(line: str) -> dict[str, Any]:
    fields = [field.strip() for field in line.split(",")]
    try:
        if not 2 <= len(fields) <= 4:
            raise ValueError(line)
        position: dict[str, Any] = dict(zip("xyz", map(float, fields[:3]), strict=False))
        if not all(abs(um) <= MAX_NUMBER for um in position.values()):
            raise ValueError(line)
    except ValueError:
        raise ConfigError(
            f"Position {line!r} is not x,y or x,y,z or x,y,z,name with numbers in um; separate"
            " positions by semicolons."
        ) from None
    return {**position, "name": fields[3]} if len(fields) == 4 else position


def z_plan_of(text: str) -> dict[str, Any]:
    """Read ``range:step``, planes around each position, or ``first..last:step``, where the drive
    goes to; in um.

    Raises
    ------
    ConfigError
        If it is neither, or the step does not fit.
    """
    extent_um, _, step_um = text.partition(":")
    first, is_absolute, last = extent_um.partition("..")
    try:
        step, numbers = (
            float(step_um),
            [float(n) for n in ((first, last) if is_absolute else (first,))],
        )
        if not all(map(math.isfinite, (step, *numbers))):
            raise ValueError(text)
    except ValueError:
        raise ConfigError(
            f"--z {text!r} is neither range:step, as 5:0.5 (around each position), nor"
            " first..last:step, as 10..15:0.5; in um."
        ) from None
    size = abs(numbers[-1] - numbers[0]) if is_absolute else numbers[0]
    if not 0 < step <= size:
        raise ConfigError(
            f"--z {text!r} has steps of {step:g} um over {size:g} um: the step must be above 0 and"
            " fit in."
        )
    if size / step >= MAX_PLANES:
        raise ConfigError(
            f"--z {text!r} is {size / step + 1:.3g} planes; at most {MAX_PLANES:,} can be planned."
        )
    if not is_absolute:
        return {"range": size, "step": step}
    return {
        "top": max(numbers),
        "bottom": min(numbers),
        "step": step,
        "go_up": numbers[0] <= numbers[1],
    }


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise ConfigError(
            f"--channels {text!r} names no channel, or one twice; expected something like 488,561."
        )
    return names


def _check_channels(names: Sequence[str], rig: RigConfig) -> None:
    for name in names:
        if name not in rig.channels:
            raise ConfigError(
                f"Rig {rig.name!r} describes no channel"
                f" {name!r}.{suggestion(name, list(rig.channels))}"
            )


def _sized(plan: MDASequence, core: CMMCorePlus, rig: RigConfig) -> MDASequence:
    """Return the plan with its grids' fields as large as the camera's region in the sample."""
    from livesr.live.camera import binning_of
    from livesr.live.sources.plan import with_field_of_view

    *_, width, height = core.getROI()
    _, binned = binning_of(core, core.getCameraDevice())
    pixel_um = core.getPixelSizeUm() or binned * (rig.optics.pixel_size_nm or 0) / 1e3
    if not pixel_um:
        return plan
    sized = with_field_of_view(plan, width * pixel_um, height * pixel_um)
    for grid in (
        sized.grid_plan,
        *(p.sequence.grid_plan for p in sized.stage_positions if p.sequence),
    ):
        if grid is not None and (n := _fields(grid)) > _MAX_FIELDS:
            raise ConfigError(
                f"The plan's grid has {n:,} fields of {width * pixel_um:.3g} x"
                f" {height * pixel_um:.3g} um; at most {_MAX_FIELDS:,} can be planned: cover a"
                " smaller area, or check the pixel size."
            )
    return sized


def _fields(grid: Any) -> int:
    return int(grid.num_positions())


def _around_focus(plan: MDASequence, core: CMMCorePlus) -> MDASequence:
    if plan.z_plan is None or not plan.z_plan.is_relative or not core.getFocusDevice():
        return plan
    here_um = core.getZPosition()
    places = [p if p.z is not None else p.replace(z=here_um) for p in plan.stage_positions]
    return plan.replace(stage_positions=places or [{"z": here_um}])


# -- words -----------------------------------------------------------------------------------------


def _has_exceptions(plan: MDASequence) -> bool:
    """Whether a plan acquires less than the product of its axes."""
    return any(c.acquire_every > 1 or not c.do_stack for c in plan.channels) or any(
        p.sequence is not None for p in plan.stage_positions
    )


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _duration(seconds: float) -> str:
    for limit, unit_s, unit in ((90, 1, "s"), (5400, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit_s:.3g} {unit}"
    return f"{seconds / 86400:.3g} days"


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.3g} GB" if nbytes >= 1e8 else f"{nbytes / 1e6:.3g} MB"
