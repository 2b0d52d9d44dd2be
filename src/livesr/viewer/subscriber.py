"""The receiving end of a stream: whoever asks gets the newest frame, however slowly they ask.

Owns one SUB socket and the one thread that empties it. Draws nothing.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import zmq

from livesr.base.errors import ConfigError
from livesr.base.files import not_expected
from livesr.formats.keys import ViewerKeys
from livesr.formats.wire import (
    DEPTH,
    END,
    ERROR,
    FRAME,
    INPUT,
    MAX_MESSAGE_BYTES,
    SILENCE_S,
    STATUS,
    UNCERTAINTY,
    WIDEFIELD,
    Message,
    WireError,
    decode,
)

log = logging.getLogger(__name__)

_HIGH_WATER = 2
_POLL_MS = 50
_MAX_KEYS = 512
_MAX_BYTES = 512 << 20  # of pixels that are kept for streams which nobody may ever look at
_MEASUREMENTS_KEPT = (
    16  # a prediction trails its measurement by one frame, by several when the network is late
)
_UNCERTAINTIES_KEPT = 2  # which come right before their prediction
_BESIDE = {
    INPUT.decode(): _MEASUREMENTS_KEPT,
    WIDEFIELD.decode(): _MEASUREMENTS_KEPT,
    UNCERTAINTY.decode(): _UNCERTAINTIES_KEPT,
    DEPTH.decode(): _MEASUREMENTS_KEPT,
}
_WANTED_S = 3.0  # after which what is sent on demand is asked for no longer


class StreamName(NamedTuple):
    """One series of pictures that a run sends.

    Acquisition channel, position and its name, plane of a stack; how far the plane is from the
    first one, and where the stage was, um, None where nobody said.
    """

    channel: str
    position: int
    position_name: str
    z: int
    z_um: float | None = None
    x_um: float | None = None
    y_um: float | None = None


class Subscriber:
    """Listens to `endpoint` from `open` to `close`; a context manager.

    Of every (topic, channel, position, z) only the newest message is kept, and a few measurements
    and uncertainties for the predictions that they belong to. What is no wire format v1 is refused
    and counted.

    Parameters
    ----------
    endpoint : where a run publishes, such as ``tcp://127.0.0.1:5555``. It need not run yet, and may
        start again
    topics : what to receive; `end` always is
    keys : folder of this viewer's CURVE keys, for a stream that is encrypted

    Attributes
    ----------
    received, rejected : messages taken and refused
    missed : messages that the publisher numbered and that never came
    last_rejection : why the last one was refused
    """

    def __init__(
        self,
        endpoint: str,
        topics: tuple[bytes, ...] = (FRAME, INPUT, DEPTH, UNCERTAINTY, ERROR, STATUS),
        keys: Path | None = None,
    ) -> None:
        if not isinstance(endpoint, str):
            raise not_expected(endpoint, "The address", "text such as 'tcp://127.0.0.1:5555'")
        self._keys = ViewerKeys.read(keys) if keys else None
        self.endpoint = endpoint
        self.received = self.rejected = self.missed = 0
        self.last_rejection = ""
        self._topics = topics
        self._newest: OrderedDict[tuple[str, str, int, int], tuple[int, Message]] = OrderedDict()
        self._beside: dict[tuple[str, str, int, int], deque[Message]] = {}
        self._streams: dict[tuple[str, int, int], StreamName] = {}
        self._wanted_s = -math.inf
        self._changed = threading.Condition()
        self._listeners: tuple[Callable[[], None], ...] = ()
        self._count = 0
        self._taken: dict[str, int] = {}
        self._status: Mapping[str, Any] = {}
        self._stream = ""
        self._seq: dict[str, int] = {}
        self._said_end = False
        self._heard_s: float | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Connect and start receiving.

        Raises
        ------
        ConfigError
            If `endpoint` is no address.
        """
        context = zmq.Context()
        socket = context.socket(zmq.SUB)
        socket.setsockopt(zmq.RCVHWM, _HIGH_WATER)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IPV6, "[" in self.endpoint)
        for topic in {*self._topics, END}:
            socket.subscribe(topic)
        if self._keys:
            self._keys.protect(socket)
        try:
            socket.connect(self.endpoint)
        except zmq.ZMQError as e:
            socket.close()
            context.term()
            raise ConfigError(
                f"Cannot connect to {self.endpoint!r}: {e.strerror}. Expected something like"
                " tcp://127.0.0.1:5555."
            ) from e
        self._stop.clear()
        self._thread = threading.Thread(
            target=self._receive, args=(context, socket), name="livesr-subscriber", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Disconnect; may be called twice."""
        if self._thread:
            self._stop.set()
            self._thread.join()
            self._thread = None
        with self._changed:
            self._changed.notify_all()

    def __enter__(self) -> Subscriber:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def ended(self) -> bool:
        """Whether a stream was heard and is over.

        It said so, or has been silent for three seconds.
        """
        silent = self._heard_s is not None and time.monotonic() - self._heard_s > SILENCE_S
        return self._said_end or silent

    @property
    def heard(self) -> bool:
        """Whether anything came at all."""
        return self._heard_s is not None

    @property
    def status(self) -> Mapping[str, Any]:
        """What the run last said about itself; its report once it has ended."""
        return self._status

    def newest(
        self,
        topic: str = "sr/frame",
        *,
        channel: str | None = None,
        position: int | None = None,
        z: int | None = None,
    ) -> Message | None:
        """Return the newest message of a topic, of one stream where `channel`, `position` or `z`
        are given; else None.
        """
        wanted = (topic, channel, position, z)
        with self._changed:
            for key, (_, message) in reversed(self._newest.items()):
                if all(w is None or w == k for w, k in zip(wanted, key, strict=True)):
                    return message
        return None

    def streams(self) -> tuple[StreamName, ...]:
        """Return every stream of pictures that was heard, in the order of its first picture."""
        with self._changed:
            return tuple(self._streams.values())

    def measurement_of(self, prediction: Message) -> Message | None:
        """Return the measurement that a prediction was made from, else the newest of its stream."""
        with self._changed:
            kept = self._beside.get((INPUT.decode(), *prediction.key[1:]), ())
            return _of_moment(kept, prediction.header.t) or (kept[-1] if kept else None)

    def widefield_of(self, message: Message) -> Message | None:
        """Return the mean of the exposures of a picture, else the newest of its stream.

        It is computed and sent for those who ask: from the first call on, until there was none for
        some seconds. None until one has come, and where there is none.
        """
        with self._changed:
            self._wanted_s = time.monotonic()
            kept = self._beside.get((WIDEFIELD.decode(), *message.key[1:]), ())
            return _of_moment(kept, message.header.t) or (kept[-1] if kept else None)

    def uncertainty_of(self, prediction: Message) -> Message | None:
        """Return the uncertainty that was estimated for a prediction, None where there is none."""
        with self._changed:
            kept = self._beside.get((UNCERTAINTY.decode(), *prediction.key[1:]), ())
            return None if prediction.header.provisional else _of_moment(kept, prediction.header.t)

    def listen(self, call: Callable[[], None]) -> Callable[[], None]:
        """Have `call` called, in the subscriber's thread, with every message; return what ends
        that.

        It must not take long, nor raise.
        """
        with self._changed:
            self._listeners = (*self._listeners, call)

        def end() -> None:
            with self._changed:
                self._listeners = tuple(one for one in self._listeners if one is not call)

        return end

    def depth_of(self, measurement: Message) -> Message | None:
        """Return how high what a running image draws lies, None where there is none."""
        with self._changed:
            kept = self._beside.get((DEPTH.decode(), *measurement.key[1:]), ())
            return _of_moment(kept, measurement.header.t)

    def next_frame(self, topic: str = "sr/frame", timeout_s: float | None = None) -> Message | None:
        """Wait for a message of a topic that was not returned here before.

        The newest of any stream.

        Returns None when the time is over, the stream has ended and nothing is left, or the
        subscriber was closed.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while True:
                if (message := self._unseen(topic)) is not None:
                    return message
                left = 0.1 if deadline is None else min(0.1, deadline - time.monotonic())
                if left <= 0 or self.ended or self._thread is None:
                    return None
                self._changed.wait(left)

    def __iter__(self) -> Iterator[Message]:
        """Yield predicted frames, the newest at each time, until the stream ends or the subscriber
        is closed.
        """
        while (message := self.next_frame()) is not None:
            yield message

    def _unseen(self, topic: str) -> Message | None:
        """Return the oldest kept message that came after the last one returned, so that streams
        take turns.
        """
        for key, (number, message) in self._newest.items():
            if key[0] == topic and number > self._taken.get(topic, 0):
                self._taken[topic] = number
                return message
        return None

    def _receive(self, context: zmq.Context[Any], socket: zmq.Socket[Any]) -> None:
        asked = False
        try:
            while not self._stop.is_set():
                wanted = time.monotonic() - self._wanted_s < _WANTED_S
                if wanted != asked:
                    if wanted:  # what was sent to others meanwhile is not missed here
                        self._seq.pop(WIDEFIELD.decode(), None)
                    (socket.subscribe if wanted else socket.unsubscribe)(WIDEFIELD)
                    asked = wanted
                if socket.poll(_POLL_MS):
                    self._take([frame.buffer for frame in socket.recv_multipart(copy=False)])
        finally:
            socket.close()
            context.term()

    def _take(self, parts: list[memoryview]) -> None:
        try:
            message = decode(parts)
        except WireError as e:
            self.rejected += 1
            self.last_rejection = str(e)
            log.debug("message refused: %s", e)
            return
        with self._changed:
            self._keep(message)
            self._changed.notify_all()
        for call in self._listeners:
            call()

    def _keep(self, message: Message) -> None:
        header = message.header
        if header.stream != self._stream:  # another run took over the address
            self._stream, self._said_end = header.stream, False
            self._seq.clear()
            self._newest.clear()
            self._beside.clear()
            self._streams.clear()
        self._heard_s = time.monotonic()
        self.received += 1
        self._said_end |= header.type == "end"
        self._count_missed(message)
        if message.pixels is None:
            self._status = header.status
        self._count += 1
        self._newest[message.key] = (self._count, message)
        self._newest.move_to_end(message.key)
        if message.pixels is not None:
            self._keep_picture(message)
        while len(self._newest) > 1 and (
            len(self._newest) > _MAX_KEYS or self._kept_bytes() > _MAX_BYTES
        ):
            self._forget()

    def _keep_picture(self, message: Message) -> None:
        header = message.header
        key = message.key[1:]
        if key not in self._streams and len(self._streams) < _MAX_KEYS:
            x_um, y_um, _ = header.stage_um or (None, None, None)
            place = header.channel, header.position, header.position_name, header.z
            self._streams[key] = StreamName(*place, header.z_um, x_um, y_um)
        kept = _BESIDE.get(message.topic)
        update = message.topic == INPUT.decode() and header.provisional
        if kept is not None and not update:  # no prediction is made from a group under way
            self._beside.setdefault(message.key, deque(maxlen=kept)).append(message)

    def _forget(self) -> None:
        """Make room: old measurements go first, then the stream that has been silent for
        longest.
        """
        longest = max(self._beside.values(), key=len, default=deque())
        if len(longest) > 1:
            longest.popleft()
            return
        key, _ = self._newest.popitem(last=False)
        for topic in _BESIDE:
            self._beside.pop((topic, *key[1:]), None)

    def _kept_bytes(self) -> int:
        newest = sum(m.pixels.nbytes for _, m in self._newest.values() if m.pixels is not None)
        return newest + sum(
            m.pixels.nbytes for kept in self._beside.values() for m in kept if m.pixels is not None
        )

    def _count_missed(self, message: Message) -> None:
        expected = self._seq.get(message.topic)
        if expected is not None and message.header.seq > expected:
            self.missed += message.header.seq - expected
        self._seq[message.topic] = message.header.seq + 1


def _of_moment(kept: Iterable[Message], t: int) -> Message | None:
    return next((m for m in kept if m.header.t == t), None)
