"""Wire format v1: what a message on the stream consists of.

Owns the header, encoding and decoding; docs/wire-format.md says the same for other languages. Knows
no socket.

A message has three parts: topic, JSON header, pixels (C order, little endian; empty unless the
topic carries pictures). Whoever decodes must expect anything: a port is not a promise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from livesr.base.quality import Judgement, Quality

VERSION: Final = 1
FRAME: Final = b"sr/frame"
INPUT: Final = b"sr/input"
UNCERTAINTY: Final = b"sr/uncertainty"
LIMITS: Final = b"sr/limits"
ERROR: Final = b"sr/error"
DEPTH: Final = b"sr/depth"
WIDEFIELD: Final = b"sr/widefield"
RAW: Final = b"raw/frame"
STATUS: Final = b"sr/status"
END: Final = b"end"
PICTURES: Final = (FRAME, INPUT, DEPTH, UNCERTAINTY, LIMITS, ERROR, WIDEFIELD, RAW)
TOPICS: Final = (*PICTURES, STATUS, END)

SILENCE_S: Final = 3.0
"""A stream that says nothing for so long has ended: a status comes every second."""

# What is asked of a run that hands out raw groups, and what it answers beside them.
ASK_ABOUT: Final = b"about"
ASK_GROUP: Final = b"group"
ASK_ALIVE: Final = b"alive"
BYE: Final = b"bye"
ABOUT: Final = b"raw/about"
GONE: Final = b"raw/gone"
ALIVE: Final = b"raw/alive"

MAX_HEADER_BYTES: Final = 1 << 20
MAX_MESSAGE_BYTES: Final = 1 << 30

_Size = Annotated[int, Field(ge=1, le=65536)]
_Count = Annotated[int, Field(ge=0, lt=1 << 53)]  # what a page of a browser counts exactly
_Nanoseconds = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]


MAX_NAME: Final = 1000
_Name = Annotated[str, Field(max_length=MAX_NAME)]


class WireError(ValueError):
    """A message is not wire format v1; says why."""


class _Part(BaseModel):
    # A key that is not known is a later addition: ignoring it is what lets v1 grow.
    model_config = ConfigDict(frozen=True, extra="ignore")


class WireChannel(_Part):
    """One channel: what to call it and how to show it.

    `window` is (low, high) in the values sent.
    """

    label: Annotated[str, Field(max_length=1000)]
    color: Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{6}$")] = "FFFFFF"
    window: tuple[FiniteFloat, FiniteFloat] | None = None


class WireVerdict(_Part):
    """What a channel is worth: one of the words of `livesr.base.quality`, and why."""

    word: _Name = ""
    reasons: tuple[str, ...] = ()


class WireJudgement(WireVerdict):
    """What a prediction is worth, and each of its channels by its label."""

    channels: dict[str, WireVerdict] = Field(default_factory=dict)


class WireCounts(_Part):
    """How many of something lie in each of equally wide bins from `low` to `high`."""

    low: FiniteFloat
    high: FiniteFloat
    counts: Annotated[tuple[_Count, ...], Field(max_length=256)]


class WireLocalised(_Part):
    """What a group added to a running image of localisations.

    `count` in all, `per_um2` in a frame and square micrometre, of which `median` is that of each
    quantity, and the others are histograms: over the frames of the group, of photo-electrons and of
    lateral uncertainty, of z and its uncertainty where there is one.
    """

    count: _Count
    per_um2: FiniteFloat | None = None
    median: dict[_Name, FiniteFloat] = Field(default_factory=dict)
    histograms: dict[_Name, WireCounts] = Field(default_factory=dict)


class WireHeader(_Part):
    """The header of every message; which fields a type fills is tabulated in docs/wire-format.md.

    Pictures carry every static field in every frame, so that whoever joins late has missed nothing.
    """

    v: Literal[1] = VERSION
    type: Literal["start", "frame", "status", "end"]
    stream: _Name
    seq: _Count
    t_pub_ns: _Nanoseconds
    t_acq_ns: _Nanoseconds | None = None
    t_camera_ms: float | None = None

    position: _Count = 0
    position_name: _Name = ""
    channel: _Name = ""
    z: _Count = 0
    t: _Count = 0
    z_um: FiniteFloat | None = None
    stage_um: tuple[FiniteFloat | None, FiniteFloat | None, FiniteFloat | None] | None = None
    raw_seq: tuple[_Count, _Count] | None = None

    dtype: Literal["|u1", "<u2", "<f4"] = "<u2"
    shape: Annotated[tuple[_Size, ...], Field(max_length=4)] = ()
    axes: Annotated[str, Field(pattern=r"^[tczyx]*$")] = ""
    encoding: Literal["raw"] = "raw"
    offset_adu: Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)] = 0
    pixel_size_um: Annotated[float, Field(gt=0, le=1e6)] | None = None
    unit: Annotated[str, Field(max_length=100)] = "ADU"
    unit_scale: Annotated[float, Field(gt=0, le=1e9)] = 1.0
    channels: tuple[WireChannel, ...] = ()
    ai: dict[str, Any] = Field(default_factory=dict)

    provisional: bool = False
    edge: bool = False
    true_neighbours: bool = True
    normalisation: dict[str, float | None] | None = None
    quality: dict[str, float | None] | None = None
    resolved: bool = True
    residual: float | None = None
    novelty: float | None = None
    unknown_light: float | None = None
    judgement: WireJudgement | None = None
    mixing: dict[str, tuple[FiniteFloat, FiniteFloat, FiniteFloat]] = Field(default_factory=dict)
    latency_ms: float | None = None
    warnings: tuple[str, ...] = ()
    score: dict[str, dict[str, float | None]] = Field(default_factory=dict)
    time_shift_ms: float | None = None
    span_ms: float | None = None
    newest_raw: _Count | None = None
    compared: dict[str, dict[str, float | None]] = Field(default_factory=dict)

    localised: WireLocalised | None = None

    status: dict[str, Any] = Field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Length of the pixels that belong to this header."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize if self.shape else 0


@dataclass(frozen=True, slots=True)
class Message:
    """A decoded message; `pixels` is read-only, None where the topic carries none."""

    topic: str
    header: WireHeader
    pixels: NDArray[Any] | None

    @property
    def quality(self) -> Quality | None:
        """One word for a prediction; None where nobody judged."""
        judged = self.judgement
        return judged and judged.word

    @property
    def judgement(self) -> Judgement | None:
        """What a prediction and its channels are worth, and why; None where nobody judged."""
        said = self.header.judgement
        return None if said is None else Judgement.read(said.model_dump())

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What it is the newest of: topic, channel, position, z."""
        return self.topic, self.header.channel, self.header.position, self.header.z


Buffer = bytes | memoryview


def encode(topic: bytes, header: WireHeader, pixels: NDArray[Any] | None = None) -> list[Any]:
    """Return the three parts; `pixels` are not copied and must not change until they are sent.

    Raises
    ------
    WireError
        If the header describes no picture, or another than these pixels.
    """
    if pixels is None:
        return [topic, _to_json(header), b""]
    _check_picture(header)
    if pixels.shape != header.shape or pixels.dtype != np.dtype(header.dtype):
        raise WireError(
            f"pixels are {pixels.dtype} {pixels.shape}, the header says {np.dtype(header.dtype)}"
            f" {header.shape}"
        )
    return [topic, _to_json(header), np.ascontiguousarray(pixels)]


def decode(parts: Sequence[Buffer]) -> Message:
    """Check everything, then return the message; its pixels are a view of the third part.

    Raises
    ------
    WireError
        If it is not a message of this version, or its parts contradict each other.
    """
    if len(parts) != 3:
        raise WireError(f"{len(parts)} parts came, expected 3: topic, header, pixels")
    topic, head, data = parts
    if bytes(topic) not in (*TOPICS, ABOUT, GONE, ALIVE):
        raise WireError(f"unknown topic {bytes(topic)[:32]!r}")
    if len(head) > MAX_HEADER_BYTES:
        raise WireError(f"a header of {len(head)} bytes came, at most {MAX_HEADER_BYTES} are taken")
    try:
        header = WireHeader.model_validate_json(bytes(head))
    except ValidationError as e:
        raise WireError(_sentence(e)) from e
    size = data.nbytes if isinstance(data, memoryview) else len(data)
    if size != header.nbytes:
        raise WireError(
            f"{size} bytes of pixels came, {header.shape} {header.dtype} needs {header.nbytes}"
        )
    if bytes(topic) in PICTURES:
        return Message(bytes(topic).decode(), header, _pixels(header, data))
    return Message(bytes(topic).decode(), header, None)


def _pixels(header: WireHeader, data: Buffer) -> NDArray[Any]:
    _check_picture(header)
    pixels = np.frombuffer(data, header.dtype).reshape(header.shape)
    pixels.flags.writeable = False
    return pixels


def _check_picture(header: WireHeader) -> None:
    if (
        header.type != "frame"
        or not header.shape
        or len(header.axes) != len(header.shape)
        or header.t_acq_ns is None
    ):
        raise WireError(
            "a picture needs type 'frame', t_acq_ns, a shape and one axis letter for each of its"
            " sizes"
        )
    if "c" in header.axes and len(header.channels) != header.shape[header.axes.index("c")]:
        raise WireError(
            f"{len(header.channels)} channels are described, the picture has shape {header.shape}"
        )


def _to_json(header: WireHeader) -> bytes:
    # What has its default is left out: a reader that validates has the same defaults, a reader that
    # does not asks for the fields of the table, which are always set.
    return header.model_dump_json(exclude_unset=True).encode()


def _sentence(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(p) for p in problem["loc"])
    came = problem.get("input")
    shown = (
        f" (got {came!r})" if isinstance(came, str | int | float) and len(str(came)) < 80 else ""
    )
    return f"header{'.' + where if where else ''}: {problem['msg']}{shown}"
