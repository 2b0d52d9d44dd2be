"""What a preview page is sent: the newest prediction with the measurement it was made from, as JPEG and plain JSON.

Owns the pairing, the choice of what is newest and the words of the status. Knows no socket and no page. Whatever came over
the wire is made presentable here: the page gets finite numbers and plain text only.
"""

from __future__ import annotations

import json
import logging
import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from livesr.base.timing import now_ns
from livesr.live.sinks.wire import Message
from livesr.viewer.composite import ChannelView, Compositor, Picture, auto_window, encode_jpeg, grayscale

log = logging.getLogger(__name__)

_MEASUREMENTS_KEPT = 4  # a prediction trails its measurement by one frame, by two when the network is late


class Source(Protocol):
    """What the preview needs of a `Subscriber`."""

    @property
    def endpoint(self) -> str:
        """Where it listens: an address, or the path of a store that is played back."""

    @property
    def heard(self) -> bool:
        """Whether anything came."""

    @property
    def ended(self) -> bool:
        """Whether the stream is over or silent."""

    @property
    def status(self) -> Mapping[str, Any]:
        """What the run last said of itself."""

    @property
    def last_rejection(self) -> str:
        """Why a message was refused, empty if none was."""

    def newest(
        self, topic: str = ..., *, channel: str | None = ..., position: int | None = ..., z: int | None = ...
    ) -> Message | None:
        """Return the newest message of a topic, or of one stream of it."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One moment to show; `id` grows from 1."""

    id: int
    prediction: Message | None
    measurement: Message | None

    @property
    def shown(self) -> Message:
        """The message that the numbers beside the pictures are about."""
        message = self.prediction or self.measurement
        assert message is not None
        return message


@dataclass(frozen=True, slots=True)
class Frame:
    """A scene ready to send: `pictures` are JPEG files, in the order in which `content` names them."""

    id: int
    t_acq_ns: int
    content: Mapping[str, Any]
    pictures: tuple[bytes, ...]

    def header(self) -> str:
        """JSON text that goes before the pictures. The age is as of now: the page's own clock may be another."""
        age_ms = max(0.0, (now_ns() - self.t_acq_ns) / 1e6)
        return json.dumps({"type": "frame", "id": self.id, "age_ms": round(age_ms, 1), **self.content}, allow_nan=False)


class PictureMaker:
    """Chooses what to show and draws it.

    `poll` and `status` belong to one thread, `make` to another (or the same); they share one scene, which is never changed.

    Attributes
    ----------
    id : of the newest scene; 0 before the first
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._measurements: OrderedDict[tuple[Any, ...], Message] = OrderedDict()
        self._scene: Scene | None = None
        self._compositor = Compositor((1, 1))
        self._color: Picture = np.empty((1, 1, 3), np.uint8)
        self._problem = ""

    @property
    def id(self) -> int:
        """Id of the newest scene."""
        return self._scene.id if self._scene else 0

    def poll(self) -> bool:
        """Look at the source; True if there is a new scene."""
        measurement, prediction = self._source.newest("sr/input"), self._source.newest("sr/frame")
        if measurement is not None:
            self._remember(measurement)
        if prediction is not None:
            measurement = self._measurement_of(prediction)
        shown, last = prediction or measurement, self._scene.shown if self._scene else None
        if shown is None or shown is last:
            return False
        self._scene = Scene(self.id + 1, prediction, measurement)
        return True

    def _remember(self, measurement: Message) -> None:
        self._measurements[_moment(measurement)] = measurement
        while len(self._measurements) > _MEASUREMENTS_KEPT:
            self._measurements.popitem(last=False)

    def _measurement_of(self, prediction: Message) -> Message | None:
        """Return the one it was predicted from, else the newest of its stream: the page writes both time points."""
        header = prediction.header
        return self._measurements.get(_moment(prediction)) or self._source.newest(
            "sr/input", channel=header.channel, position=header.position, z=header.z
        )

    def make(self) -> Frame | None:
        """Draw the newest scene; None if there is none or it cannot be drawn, which `status` then says."""
        scene = self._scene
        if scene is None:
            return None
        try:
            frame = self._draw(scene)
        except ValueError as e:
            self._problem = f"A frame came that cannot be shown: {e}."
            log.debug("scene %d cannot be drawn", scene.id, exc_info=True)
            return None
        self._problem = ""
        return frame

    def _draw(self, scene: Scene) -> Frame:
        named: list[dict[str, Any]] = []
        pictures: list[bytes] = []
        for name, message, draw in (
            ("composite", scene.prediction, self._composite),
            ("measurement", scene.measurement, self._measurement),
        ):
            if message is not None:
                named.append(
                    {"name": name, "t": message.header.t, "pixel_size_um": _finite(message.header.pixel_size_um)}
                )
                pictures.append(encode_jpeg(draw(message)))
        header = scene.shown.header
        content = {
            "pictures": named,
            "channels": [
                _legend(view, c.label) for view, c in zip(_views(scene.prediction), header.channels, strict=False)
            ],
            "latency_ms": _finite(header.latency_ms),
            "residual": _finite(header.residual),
            "provisional": header.provisional,
            "position": header.position_name,
            "warnings": list(header.warnings),
        }
        return Frame(scene.id, header.t_acq_ns or 0, content, tuple(pictures))

    def _composite(self, message: Message) -> Picture:
        channels = _as_uint16(message, "cyx")
        shape = (channels.shape[1], channels.shape[2])
        if self._compositor.shape != shape:
            self._compositor, self._color = Compositor(shape), np.empty((*shape, 3), np.uint8)
        return self._compositor.render(channels, _views(message), self._color)

    @staticmethod
    def _measurement(message: Message) -> Picture:
        image = _as_uint16(message, "yx")
        window = message.header.channels[0].window if message.header.channels else None
        return grayscale(image, window or auto_window(image))

    def fail(self, error: Exception) -> None:
        """Let `status` say that nothing more will come because the source failed."""
        self._problem = f"The preview has stopped: {type(error).__name__}: {error}."

    def status(self) -> dict[str, Any]:
        """State of the stream in words and numbers for the page."""
        said = self._source.status
        warnings = [*_texts(said.get("warnings")), self._problem]
        if not self._source.heard and self._source.last_rejection:
            warnings.append(f"Messages come that are no livesr stream: {self._source.last_rejection}.")
        return {
            "state": self._state(),
            "source": self._source.endpoint,
            "fps": _finite(said.get("sr_fps")),
            "skipped": _finite(said.get("sr_skipped")),
            "engine": _of_shown(said.get("engine"), self._scene),
            "backend": _of_shown(said.get("backend"), self._scene),
            "warnings": [w for w in warnings if w],
        }

    def _state(self) -> str:
        if not self._source.heard:
            return "waiting"
        if self._source.newest("end") is not None:
            return "ended"
        if self._source.ended:
            return "silent"
        if "://" not in self._source.endpoint:
            return "recorded"
        return "live" if self._source.newest("sr/frame") or self._source.newest("sr/input") else "starting"


def _moment(message: Message) -> tuple[Any, ...]:
    header = message.header
    return header.stream, header.channel, header.position, header.z, header.t


def _views(message: Message | None) -> list[ChannelView]:
    """How the channels of a prediction are shown; those without a window get one from their pixels."""
    if message is None or message.pixels is None:
        return []
    return [
        ChannelView(channel.color, channel.window or auto_window(plane))
        for channel, plane in zip(message.header.channels, message.pixels, strict=False)
    ]


def _legend(view: ChannelView, label: str) -> dict[str, Any]:
    return {"label": label, "color": view.color, "window": [_finite(view.window[0]), _finite(view.window[1])]}


def _as_uint16(message: Message, axes: str) -> NDArray[np.uint16]:
    """Pixels with the expected axes as uint16, without a copy where they are."""
    pixels, header = message.pixels, message.header
    if pixels is None or header.axes != axes:
        raise ValueError(f"its axes are {header.axes!r}, expected {axes!r}")
    if pixels.dtype.kind == "f":
        pixels = np.nan_to_num(pixels).clip(0, np.iinfo(np.uint16).max)
    return pixels.astype(np.uint16, copy=False)


def _finite(value: object) -> float | None:
    """Return a number that JSON can hold, else None."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    return None


def _texts(value: object) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list | tuple) else []


def _of_shown(value: object, scene: Scene | None) -> str:
    """Engine or backend of the channel on the page; a run gives them per channel."""
    if not isinstance(value, Mapping):
        return str(value or "")
    channel = scene.shown.header.channel if scene else None
    return str(value[channel]) if channel in value else ", ".join(dict.fromkeys(str(v) for v in value.values()))
