"""frames.jsonl: what became of every frame of a run.

Owns the line format and its reader; `livesr.live.sinks.frames_log` writes it. Knows no array.

One line per event, written when it has happened: a picture has its line as soon as the operating
system has the picture. ``array[t]`` holds a picture where the last line about it says
``"stored": true``, else zeros.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import (
    Annotated,
    Any,
    BinaryIO,
    Literal,
    NamedTuple,
    NotRequired,
    Required,  # pydantic needs these before Python 3.12
    TypeAlias,
    cast,
)

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json
from typing_extensions import TypedDict

from livesr.base import contained
from livesr.base.errors import StoreError
from livesr.base.frames import Stream

Event: TypeAlias = dict[str, Any]
"""A line that is understood: `Line`, with keys of later versions."""
SeriesName: TypeAlias = Literal[
    "raw", "recon", "rolling", "depth", "sr", "uncertainty", "limits", "error"
]
_MAX_LINE_BYTES = 1 << 20
_MAX_RAW = 100_000  # exposures of a time point, as of `storm.frames`
_LONGEST_PATH = 1 << 15
_Index = Annotated[int, Field(ge=0, lt=1 << 31)]
_Count = Annotated[int, Field(ge=0, lt=1 << 53)]
_Name = Annotated[str, Field(max_length=1000)]
_Nanoseconds = Annotated[int, Field(ge=0, lt=1 << 63)]
_Milliseconds = Annotated[float, Field(ge=0, le=1e9)]
_Numbers = Annotated[list[float], Field(max_length=1000)]
State: TypeAlias = Literal[
    "raw", "raw_incomplete", "recon", "rolling", "separated", "estimated", "skipped", "stray"
]
STORED_STATES: Mapping[SeriesName, State] = {
    "raw": "raw",
    "recon": "recon",
    "rolling": "rolling",
    "depth": "estimated",
    "sr": "separated",
    "uncertainty": "estimated",
    "limits": "estimated",
    "error": "estimated",
}
"""What the line about a picture that is whole says."""


class _NormalisedWith(TypedDict):
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)  # type: ignore[misc]

    background: float
    headroom: Annotated[float, Field(gt=0)]


class _Verdict(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow", strict=True)  # type: ignore[misc]

    word: _Name
    reasons: NotRequired[list[str]]


class _Judged(_Verdict):
    channels: dict[_Name, _Verdict]


class _Shown(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)  # type: ignore[misc]

    t_acq_ns: _Nanoseconds
    span_ms: _Milliseconds


class _Beside(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow", strict=True)  # type: ignore[misc]

    channel: _Name
    t: _Index


class Line(TypedDict, total=False):
    """What livesr understands of a line.

    Docs/store-layout.md says what each key is. Others are kept as they are.
    """

    __pydantic_config__ = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)  # type: ignore[misc]

    series: Required[SeriesName]
    state: Required[State]
    t: Required[_Index]
    position: Required[_Index]
    channel: Required[_Name]
    z: Required[_Index]
    stored: Required[bool]
    t_acq_ns: _Nanoseconds | None
    t_camera_ms: float | None
    exposure_ms: _Milliseconds | None
    missing: Annotated[list[_Index], Field(max_length=_MAX_RAW)]
    damaged: Annotated[list[_Index], Field(max_length=_MAX_RAW)]
    normalisation: _NormalisedWith
    quality: dict[str, float | None]
    resolved: bool
    doubt: str | None
    pattern_drift_rad: _Numbers
    vector_drift_per_um: _Numbers
    saturated: _Count
    localisations: _Count
    emitters_per_um2: float | None
    drift_nm: _Numbers
    drift_jump_nm: _Numbers
    span_ms: _Milliseconds
    pictures: Annotated[list[_Shown | None], Field(max_length=_MAX_RAW)]
    clipped: _Count
    residual: float | None
    novelty: float | None
    unknown_light: Annotated[float, Field(ge=0, le=1)] | None
    judgement: _Judged
    mixing: dict[_Name, _Numbers]
    beside: _Beside
    latency_ms: float | None
    edge: bool
    true_neighbours: bool
    warnings: list[str]
    reason: str
    backfilled: bool
    lost: bool
    elsewhere: Annotated[str, Field(max_length=_LONGEST_PATH)]
    file: Annotated[str, Field(max_length=_LONGEST_PATH)]
    x_um: float | None
    y_um: float | None
    z_um: float | None
    repaired: bool
    compared: dict[str, dict[str, float | None]]


_PLACE = {"series", "state", "t", "position", "channel", "z", "stored"}
_LINE: TypeAdapter[Line] = TypeAdapter(Line)


class Unknown(NamedTuple):
    """A line, or a part of one, that says nothing livesr understands.

    Attributes
    ----------
    number : of the line, from 1
    text : as it stands in the file, without its end; cut after 1 MiB
    why : what is wrong with it
    keys : what was left out of an event that is otherwise understood; () where the whole line is
        not
    """

    number: int
    text: bytes
    why: str
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LogContents:
    """What a frames.jsonl says.

    Attributes
    ----------
    events : every line that is understood, in order: `Line`, with keys of later versions
    unknown : what is not understood
    torn : whether the last line ends in the middle, as a killed process leaves it; it is in neither
    """

    events: list[dict[str, Any]]
    unknown: tuple[Unknown, ...] = ()
    torn: bool = False

    @property
    def problem(self) -> str:
        """A sentence about what is not understood, "" if all of it is."""
        if not self.unknown:
            return ""
        first, lost = self.unknown[0], sum(not line.keys for line in self.unknown)
        return (
            f"{len(self.unknown)} lines of frames.jsonl are damaged, the first is line"
            f" {first.number} ({first.why}): what {lost} of them say, and parts of the others, is"
            " not known."
        )


def read_log(path: Path) -> LogContents:
    """Read what can be known from a file that a crash, a disk or a stranger may have damaged.

    Lines end with a line feed and nothing else: U+2028 in a name is a letter. Of a line that says
    of which picture it speaks (series, state, t, position, channel, z, stored), other keys of a
    wrong type are left out.

    Raises
    ------
    StoreError
        If the file cannot be read at all.
    """
    events: list[dict[str, Any]] = []
    unknown: list[Unknown] = []
    torn = False
    try:
        with contained.open_to_read(path.parent, path.name) as file:
            for number, (line, ended) in enumerate(_lines(file), start=1):
                if not line.strip():
                    continue
                event, wrong = _understood(line)
                torn = not ended and event is None
                if event is not None:
                    events.append(event)
                if wrong is not None and not torn:
                    why, keys = wrong
                    unknown.append(Unknown(number, line.rstrip(b"\n"), why, keys))
    except OSError as e:
        raise StoreError(f"Cannot read {path}: {e.strerror or e}.") from e
    return LogContents(events, tuple(unknown), torn)


def _lines(file: BinaryIO) -> Iterator[tuple[bytes, bool]]:
    """Yield every line, of one that has no end within 1 MiB the beginning, and whether it ends
    before the file does.
    """
    while line := file.readline(_MAX_LINE_BYTES):
        rest = line
        while not rest.endswith(b"\n") and len(rest) == _MAX_LINE_BYTES:
            rest = file.readline(_MAX_LINE_BYTES)
        yield line, rest.endswith(b"\n")


def _understood(line: bytes) -> tuple[dict[str, Any] | None, tuple[str, tuple[str, ...]] | None]:
    """Return what a line says, None if it is not understood.

    And what is wrong with it, None if nothing is.
    """
    try:
        return cast("dict[str, Any]", _LINE.validate_json(line)), None
    except ValidationError as e:
        problem = e.errors(include_url=False, include_input=False)[0]
        wrong = {
            str(p["loc"][0]) if p["loc"] else ""
            for p in e.errors(include_url=False, include_input=False)
        }
        why = f"{'.'.join(map(str, problem['loc']))[:80]}: {problem['msg']}".removeprefix(": ")
    if "" in wrong or wrong & _PLACE:
        return None, (why, ())
    plain = {key: value for key, value in from_json(line).items() if key not in wrong}
    return cast("dict[str, Any]", _LINE.validate_python(plain)), (why, tuple(sorted(wrong)))


def stream_of(event: Mapping[str, Any]) -> Stream:
    """Return the stream that a line of frames.jsonl is about."""
    return Stream(event["position"], event["channel"], event["z"])


def interval_s(events: Iterable[Event], position: object, channel: object) -> float | None:
    """Return the median time from one time point of a position and channel to the next.

    None where the lines do not tell.
    """
    taken = [
        event
        for event in events
        if (event["position"], event["channel"]) == (position, channel) and event.get("t_acq_ns")
    ]
    first = min((event["z"] for event in taken), default=0)  # a channel may leave plane 0 out
    times = {event["t"]: event["t_acq_ns"] for event in taken if event["z"] == first}
    steps = [(times[b] - times[a]) / (b - a) for a, b in pairwise(sorted(times))]
    return median(steps) / 1e9 if steps else None


def stored_lines(events: Iterable[Event]) -> dict[tuple[Stream, int], Event]:
    """Return the last line about every picture of one kind that is stored.

    The later of two lines holds.
    """
    stored: dict[tuple[Stream, int], Event] = {}
    for event in events:
        key = stream_of(event), event["t"]
        if event["stored"]:
            stored[key] = event
        elif event.get("lost") or event.get("elsewhere"):
            stored.pop(key, None)
    return stored
