"""A stream in memory for tests of the preview: messages as `Subscriber` would give them, decoded from real wire bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

from livesr.base.timing import now_ns
from livesr.live.sinks.wire import FRAME, INPUT, Message, WireChannel, WireHeader, decode, encode

CHANNELS = (
    WireChannel(label="Microtubules", color="00FF00", window=(0, 1000)),
    WireChannel(label="ER", color="FF00FF", window=(0, 1000)),
    WireChannel(label="Lysosomes", color="FFFF00", window=(0, 1000)),
)


def _through_the_wire(topic: bytes, header: WireHeader, pixels: np.ndarray) -> Message:
    return decode([bytes(memoryview(part)) for part in encode(topic, header, np.ascontiguousarray(pixels))])


def prediction(t: int, pixels: np.ndarray, **fields: Any) -> Message:
    given = {
        "type": "frame", "stream": "test", "seq": t, "t": t, "t_pub_ns": now_ns(), "t_acq_ns": now_ns(), "shape": pixels.shape,
        "axes": "cyx", "pixel_size_um": 0.05, "channels": CHANNELS, "residual": 0.034, "latency_ms": 61.5,
    }  # fmt: skip
    return _through_the_wire(FRAME, WireHeader(**{**given, **fields}), pixels)


def measurement(t: int, pixels: np.ndarray, **fields: Any) -> Message:
    given = {
        "type": "frame", "stream": "test", "seq": t, "t": t, "t_pub_ns": now_ns(), "t_acq_ns": now_ns(), "shape": pixels.shape,
        "axes": "yx", "pixel_size_um": 0.05, "channels": (WireChannel(label="sim", window=(0, 1000)),),
    }  # fmt: skip
    return _through_the_wire(INPUT, WireHeader(**{**given, **fields}), pixels)


class MemorySource:
    """What the preview needs of a `Subscriber`, set by the test."""

    def __init__(self) -> None:
        self.endpoint, self.last_rejection = "tcp://127.0.0.1:5555", ""
        self.heard = self.ended = False
        self.status: dict[str, Any] = {}
        self._newest: dict[str, Message] = {}

    def give(self, *messages: Message) -> None:
        """Put messages in place together, in this order."""
        self.heard = True
        for message in messages:
            self._newest[message.topic] = message

    def say(self, **status: Any) -> None:
        self.heard, self.status = True, status

    def end(self) -> None:
        self.ended = True
        header = WireHeader(type="end", stream="test", seq=0, t_pub_ns=now_ns())
        self._newest["end"] = decode([b"end", header.model_dump_json(exclude_unset=True).encode(), b""])

    def newest(
        self, topic: str = "sr/frame", *, channel: str | None = None, position: int | None = None, z: int | None = None
    ) -> Message | None:
        return self._newest.get(topic)


def flat(t: int, *levels: int, size: int = 64) -> Message:
    """A prediction of three uniform channels."""
    return prediction(t, np.broadcast_to(np.array(levels, np.uint16)[:, None, None], (len(levels), size, size)))
