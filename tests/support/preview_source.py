"""A stream in memory for tests of the preview.

Messages as `Subscriber` would give them, decoded from real wire bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from livesr.base.timing import now_ns
from livesr.formats.wire import (
    FRAME,
    INPUT,
    WIDEFIELD,
    Message,
    WireChannel,
    WireHeader,
    decode,
    encode,
)
from livesr.viewer.frame_pairs import LiveFramePairs
from livesr.viewer.subscriber import Subscriber

CHANNELS = (
    WireChannel(label="Microtubules", color="00FF00", window=(0, 1000)),
    WireChannel(label="ER", color="FF00FF", window=(0, 1000)),
    WireChannel(label="Lysosomes", color="FFFF00", window=(0, 1000)),
)


def _through_the_wire(topic: bytes, header: WireHeader, pixels: np.ndarray) -> Message:
    return decode(
        [bytes(memoryview(part)) for part in encode(topic, header, np.ascontiguousarray(pixels))]
    )


def prediction(t: int, pixels: np.ndarray, **fields: Any) -> Message:
    given = {
        "type": "frame",
        "stream": "test",
        "seq": t,
        "t": t,
        "t_pub_ns": now_ns(),
        "t_acq_ns": now_ns(),
        "shape": pixels.shape,
        "axes": "cyx",
        "pixel_size_um": 0.05,
        "channels": CHANNELS[: len(pixels)],
        "residual": 0.034,
        "latency_ms": 61.5,
    }
    return _through_the_wire(FRAME, WireHeader(**{**given, **fields}), pixels)


def widefield(t: int, pixels: np.ndarray, **fields: Any) -> Message:
    return measurement(
        t,
        pixels,
        WIDEFIELD,
        **{"channels": (WireChannel(label="widefield", window=(0, 1000)),), **fields},
    )


def measurement(t: int, pixels: np.ndarray, topic: bytes = INPUT, **fields: Any) -> Message:
    given = {
        "type": "frame",
        "stream": "test",
        "seq": t,
        "t": t,
        "t_pub_ns": now_ns(),
        "t_acq_ns": now_ns(),
        "shape": pixels.shape,
        "axes": "yx",
        "pixel_size_um": 0.05,
        "channels": (WireChannel(label="sim", window=(0, 1000)),),
    }
    return _through_the_wire(topic, WireHeader(**{**given, **fields}), pixels)


class MemorySource(Subscriber):
    """A subscriber that is given its messages by the test, and is never silent."""

    ended = False

    def __init__(self) -> None:
        super().__init__("tcp://127.0.0.1:5555")
        self.pairs = LiveFramePairs(self)

    def give(self, *messages: Message) -> None:
        """Receive messages together, in this order."""
        with self._changed:
            for message in messages:
                self._keep(message)
        for call in self._listeners:
            call()

    def say(self, **status: Any) -> None:
        self._plain(b"sr/status", "status", status)

    def end(self) -> None:
        self._plain(b"end", "end", {})

    def _plain(self, topic: bytes, kind: str, status: dict[str, Any]) -> None:
        header = WireHeader(
            type=kind, stream="test", seq=self.received, t_pub_ns=now_ns(), status=status
        )
        self.give(decode([topic, header.model_dump_json(exclude_unset=True).encode(), b""]))


def flat(t: int, *levels: int, size: int = 64) -> Message:
    """A prediction of three uniform channels."""
    return prediction(
        t, np.broadcast_to(np.array(levels, np.uint16)[:, None, None], (len(levels), size, size))
    )
