"""Age of a published frame when a subscriber has it decoded, beside a copy handed over in a plain
queue.

The subscriber is a thread of this process, over loopback TCP: what is measured is the encoding, the
socket and the decoding, not another process's start.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

import numpy as np
import zmq

from livesr.base.frames import MulticolorFrame
from livesr.base.timing import now_ns
from livesr.bench.frames import Frames, description
from livesr.bench.result import Result, compared
from livesr.bench.timing import interleave
from livesr.formats.wire import FRAME, decode
from livesr.live.sinks.zeromq import ZeroMQSink

_PERIOD_S = 0.04
_WAIT_MS = 5000


def measure(quick: bool) -> list[Result]:
    """Return the latency of 3 x 512 x 512 at 25 frames/s."""
    side, n, blocks = (64, 5, 2) if quick else (256, 50, 6)
    frames = Frames(side)
    comparison = interleave(lambda: _published(frames, side, n), lambda: _queued(frames, n), blocks)
    return [
        compared(
            "publish.latency",
            comparison,
            "ms",
            "copy and SimpleQueue",
            note=(
                f"3 x {2 * side}^2 uint16 at {1 / _PERIOD_S:.0f} frames/s over loopback TCP,"
                " encoded and decoded"
            ),
        )
    ]


def _published(frames: Frames, side: int, n: int) -> list[float]:
    sink = ZeroMQSink("tcp://127.0.0.1:*")
    sink.open(description(side))
    ages_ms: list[float] = []
    ready = threading.Event()
    try:
        assert sink.endpoint is not None
        subscriber = threading.Thread(
            target=_subscribe, args=(sink.endpoint, n, ready, ages_ms), name="bench-subscriber"
        )
        subscriber.start()
        ready.wait()
        time.sleep(0.3)  # the subscription has to arrive
        _play(frames, n, sink.separated)
        subscriber.join()
    finally:
        sink.close({})
    if not ages_ms:
        raise RuntimeError("the subscriber got no frame")
    return ages_ms


def _subscribe(endpoint: str, n: int, ready: threading.Event, ages_ms: list[float]) -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.connect(endpoint)
        socket.subscribe(FRAME)
        ready.set()
        while len(ages_ms) < n and socket.poll(_WAIT_MS):
            header = decode([part.buffer for part in socket.recv_multipart(copy=False)]).header
            ages_ms.append((now_ns() - (header.t_acq_ns or 0)) / 1e6)
        socket.linger = 0


def _queued(frames: Frames, n: int) -> list[float]:
    queue: SimpleQueue[tuple[int, object] | None] = SimpleQueue()
    ages_ms: list[float] = []

    def take() -> None:
        while (item := queue.get()) is not None:
            ages_ms.append((now_ns() - item[0]) / 1e6)

    reader = threading.Thread(target=take, name="bench-queue-reader")
    reader.start()
    _play(frames, n, lambda frame: queue.put((frame.source.t_acq_ns, np.copy(frame.channels))))
    queue.put(None)
    reader.join()
    return ages_ms


def _play(frames: Frames, n: int, give: Callable[[MulticolorFrame], object]) -> None:
    due = time.perf_counter()
    for t in range(n):
        due += _PERIOD_S
        time.sleep(max(due - time.perf_counter(), 0))
        give(frames.at(t).separated)
