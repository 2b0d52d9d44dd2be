"""A plan file of useq, read within limits.

What no microscope can do is refused before anything is counted or moved.

Owns the reading and the limits of its numbers. Which plans livesr runs is said in `experiment.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ValidationError

from livesr.base.documents import read_json, read_yaml
from livesr.base.errors import ConfigError, DocumentError, suggestion
from livesr.cli.options import MAX_EXPOSURE_MS

if TYPE_CHECKING:
    from useq import MDASequence

MAX_TIME_POINTS: Final = (
    10_000_000  # a day at 100 frames/s; useq lists them before the first exposure
)
MAX_PLANES: Final = 10_000
MAX_INTERVAL_S: Final = 1e6
MAX_DURATION_S: Final = 1e9
MAX_NUMBER: Final = 1e9  # of any other kind: stages go to um, a plan has no larger ones
_LONGEST: Final = {"exposure": MAX_EXPOSURE_MS, "loops": MAX_TIME_POINTS}
_KINDS = {".json": read_json, ".yaml": read_yaml, ".yml": read_yaml}


def read_plan(path: Path) -> MDASequence:
    """Read a plan in useq's own format, YAML or JSON.

    Raises
    ------
    ConfigError
        If it cannot be read, is no plan, has a key that useq does not know, or asks for what no
        microscope does.
    """
    from useq import MDASequence

    if path.suffix not in _KINDS:
        raise ConfigError(f"{path} is no plan: expected a .yaml or .json as useq writes it.")
    try:
        data = _KINDS[path.suffix](path)
        _check_numbers(data, path)
        plan = MDASequence.model_validate(data)
    except DocumentError as e:
        raise ConfigError(f"{path.name} is no plan: {e}") from e
    except ValidationError as e:
        problem = e.errors()[0]
        where = ".".join(str(part) for part in problem["loc"][:2]) or "the plan"
        raise ConfigError(
            f"{path} is no useq plan: {where}: {problem['msg'].removeprefix('Value error, ')}."
        ) from e
    except ConfigError:
        raise
    except Exception as e:  # useq's validators raise whatever they stumble over
        reason = next(iter(str(e).splitlines()), type(e).__name__)[:300]
        raise ConfigError(
            f"{path} is no plan: {reason}. It is YAML or JSON as useq writes it."
        ) from e
    _check_keys(data, plan, path)
    for sequence in (plan, *_inner(plan)):
        _check_times(sequence.time_plan, path)
        _check_stack(sequence.z_plan, path)
    return plan


def _check_numbers(data: Any, path: Path) -> None:
    """Refuse numbers that are none, or that would take for ever.

    How often they are needed is checked later.
    """
    for place, value in _numbers(data):
        key = next((part for part in reversed(place.split(".")) if not part.isdigit()), "")
        most = _LONGEST.get(key, MAX_NUMBER)
        if not abs(value) <= most:  # also what is not a number
            raise ConfigError(
                f"{path}: {place} is {value:g}; expected a number of at most {most:g}."
            )


def _numbers(data: Any, place: str = "") -> Iterator[tuple[str, float]]:
    """Every number in plain values, with its place.

    Those of metadata are the user's own and ask for nothing.
    """
    if isinstance(data, int | float) and not isinstance(data, bool):
        yield place or "the plan", _finite(data)
    items = (
        data.items()
        if isinstance(data, Mapping)
        else enumerate(data)
        if isinstance(data, list)
        else ()
    )
    for key, inner in items:
        if key != "metadata":
            yield from _numbers(inner, f"{place}.{key}" if place else str(key))


def _finite(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of 400 digits
        return math.inf


def _check_keys(data: Any, understood: Any, path: Path, place: str = "") -> None:
    """Refuse names that useq does not know, at any depth: it leaves them out without a word.

    `understood` is what it made of `data`; metadata are the user's own.
    """
    if isinstance(data, list):
        parts = getattr(understood, "phases", understood)
        if isinstance(parts, Sequence) and len(parts) == len(data):
            for i, (inner, made) in enumerate(zip(data, parts, strict=True)):
                _check_keys(inner, made, path, f"{place}.{i}")
    if not (isinstance(data, Mapping) and isinstance(understood, BaseModel)):
        return
    known = type(understood).model_fields
    for key, inner in data.items():
        name = f"{place}.{key}".lstrip(".")
        if key not in known:
            raise ConfigError(f"{path}: unknown key {name!r}.{suggestion(str(key), list(known))}")
        if key != "metadata":
            _check_keys(inner, getattr(understood, key), path, name)


def _inner(plan: MDASequence) -> Iterator[MDASequence]:
    """Sequences of the positions, and of theirs."""
    for position in plan.stage_positions:
        if position.sequence is not None:
            yield position.sequence
            yield from _inner(position.sequence)


def _check_times(time_plan: Any, path: Path) -> None:
    """Refuse time plans that would be counted, or would run, for ever."""
    points = 0
    for phase in getattr(time_plan, "phases", [time_plan] if time_plan is not None else ()):
        try:
            interval_s, points = float(phase.interval.total_seconds()), points + int(phase.loops)
        except ArithmeticError:  # one loop, or no interval
            interval_s, points = (
                0.0,
                points + int(getattr(phase, "__dict__", {}).get("loops", MAX_TIME_POINTS + 1)),
            )
        duration_s = float(phase.duration.total_seconds()) if hasattr(phase, "duration") else 0.0
        if points > MAX_TIME_POINTS:
            raise too_many_time_points(points, f"{path}: its time_plan")
        if not (0 <= interval_s <= MAX_INTERVAL_S and 0 <= duration_s <= MAX_DURATION_S):
            raise ConfigError(
                f"{path}: time_plan has an interval of {interval_s:g} s and lasts {duration_s:g} s;"
                f" expected at most {MAX_INTERVAL_S:g} s from one time point to the next and"
                f" {MAX_DURATION_S:g} s in all."
            )


def too_many_time_points(n: float, what: str = "The run") -> ConfigError:
    """Return the refusal of a run with `n` time points."""
    return ConfigError(
        f"{what} would have {n:.3g} time points; at most {MAX_TIME_POINTS:,} can be planned: give"
        " less --frames or --duration, or a longer --interval."
    )


def _check_stack(z_plan: Any, path: Path) -> None:
    """Refuse stacks without planes, and those that would take all memory to count."""
    if z_plan is None:
        return
    try:
        planes = z_plan.num_positions()
    except (ValueError, ArithmeticError):
        planes = 0
    if not 1 <= planes <= MAX_PLANES:
        raise ConfigError(
            f"{path}: z_plan {z_plan.model_dump(exclude_defaults=True)} makes no stack of 1 to"
            f" {MAX_PLANES} planes: check its range and its step, both in um."
        )
