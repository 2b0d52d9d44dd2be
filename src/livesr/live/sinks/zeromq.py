"""Frames on a ZeroMQ socket, for viewers and scripts in other processes (wire format v1,
docs/wire-format.md).

Owns one XPUB socket and the one thread that touches it. What the pipeline hands over is only put
into a queue; it is converted, encoded and sent in that thread, and not even queued while nobody
listens.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import socket as net
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import zmq
from zmq.auth.thread import ThreadAuthenticator

from livesr.base.errors import BindError
from livesr.base.frames import FrameErrors, MulticolorFrame, RawStack, SRFrame, Widefield
from livesr.base.hosts import is_loopback
from livesr.base.run_description import RunDescription
from livesr.formats.keys import PublisherKeys
from livesr.formats.wire import (
    DEPTH,
    END,
    ERROR,
    FRAME,
    INPUT,
    LIMITS,
    STATUS,
    TOPICS,
    UNCERTAINTY,
    WIDEFIELD,
    WireHeader,
    encode,
)
from livesr.live.sinks.doorway import Doorway, be_bounded
from livesr.live.sinks.headers import PictureHeaders, plain_header
from livesr.live.sinks.sink import Sink, to_uint16

log = logging.getLogger(__name__)

# Time points of each channel that may wait for a subscriber: one that is slower than the run sees
# few old frames, not thirty seconds of them. ZeroMQ counts messages, and a time point is up to
# four, the measurement, its widefield picture, the provisional and the final prediction, and with
# its uncertainty five.
_MESSAGES, _WAITING_TIME_POINTS, _MAX_WAITING_MESSAGES = 4, 2, 16
_QUEUE_FRAMES = 8
_LINGER_MS = 500
_END_REPEATS, _END_EVERY_S = 3, 0.05
# The longest topic is 14 bytes. ZeroMQ remembers whatever is subscribed to, a list node for every
# byte: 4 KiB at full speed were 400 MiB/s. Longer messages end their connection; with keys the
# handshake is longer, and subscribers are known.
_MAX_BYTES, _MAX_BYTES_WITH_KEYS = 64, 512
_SUBSCRIPTIONS_AT_ONCE = 64  # then it is the turn of the frames
_MAX_CONNECTIONS = 256
_ALL = b"sr/"  # who subscribes to it gets what there is, and has nothing made that is on demand

_Content: TypeAlias = SRFrame | Widefield | FrameErrors | MulticolorFrame | Mapping[str, Any]
_Item: TypeAlias = tuple[bytes, _Content, int]  # topic, what to send, seq


class ZeroMQSink(Sink):
    """Publishes a run on `address`, such as ``tcp://127.0.0.1:5555``; port ``*`` takes a free one.

    Parameters
    ----------
    address : of this computer only, unless there are `keys` or it is `insecure`: whoever reaches
        the port sees the frames
    insecure : allow an address that others can reach, without encryption
    keys : folder of CURVE keys: the stream is encrypted and only the viewers named there receive it

    Raises
    ------
    BindError
        If the address is none, or would let others in.
    ConfigError
        If the folder holds no publisher's keys.
    """

    name = "zeromq"

    def __init__(self, address: str, insecure: bool = False, keys: Path | None = None) -> None:
        self._address = checked_address(address, insecure or keys is not None)
        self._keys = PublisherKeys.read(keys) if keys else None
        self._authenticator: ThreadAuthenticator | None = None
        self._publisher: _Publisher | None = None
        self.endpoint: str | None = None
        self._counts = {"sent": 0, "replaced": 0, "unwatched": 0, "refused": 0}

    @property
    def counts(self) -> Mapping[str, int]:
        """Frames sent, replaced by newer ones before they were, not listened for, and refused
        because they fit no header.

        What a slow subscriber misses, ZeroMQ drops without a word; the subscriber sees it as a gap
        in `seq`.
        """
        return dict(self._counts)

    def check(self) -> None:
        """Bind and let go.

        Raises
        ------
        BindError
            As `open`.
        """
        check_bind(self._address)

    def open(self, run: RunDescription) -> None:
        """Bind and start the thread; `endpoint` then holds the real port.

        Raises
        ------
        BindError
            If the address is taken or not one of this computer's.
        """
        context = zmq.Context()
        xpub = context.socket(zmq.XPUB)
        messages = sum(
            _MESSAGES
            + bool(channel.uncertainty)
            + bool(channel.error_map)
            + bool(channel.error_bars)
            + bool(channel.depth_range_nm)
            for channel in run.channels
        )
        _configure(xpub, self._address, messages, with_keys=self._keys is not None)
        self._authenticator = self._keys.protect(xpub) if self._keys else None
        try:
            xpub.bind(self._address)
        except zmq.ZMQError as e:
            xpub.close(0)
            self._end_authentication()
            context.term()
            raise BindError(bind_problem(self._address, e)) from e
        self.endpoint = xpub.getsockopt_string(zmq.LAST_ENDPOINT)
        self._publisher = _Publisher(context, xpub, run, self._counts, self._end_authentication)
        self._publisher.start()

    def recon(self, frame: SRFrame) -> None:
        """Publish a measurement on `sr/input`, right after its depth on `sr/depth`."""
        if frame.depth_nm is not None:
            self._offer(DEPTH, frame)
        self._offer(INPUT, frame)

    def updated(self, frame: SRFrame) -> None:
        """Publish a picture of a group under way on `sr/input`, as a provisional one."""
        self._offer(INPUT, frame)

    @property
    def watches_exposures(self) -> bool:  # type: ignore[override]
        """Whether somebody has subscribed to `sr/widefield` itself."""
        return self._publisher is not None and self._publisher.watched(WIDEFIELD)

    def exposed(self, stack: RawStack) -> None:
        """Publish the mean of the exposures on `sr/widefield`.

        A single exposure has none: its mean is the measurement.
        """
        if self._publisher and len(stack.frames) > 1:
            self._publisher.offer(WIDEFIELD, Widefield.of(stack))

    def separated(self, frame: MulticolorFrame) -> None:
        """Publish a prediction, provisional or final, on `sr/frame`.

        Before it its uncertainty, if it has one.
        """
        if frame.uncertainty is not None:  # whoever has the prediction has all that belongs to it
            self._offer(UNCERTAINTY, frame)
        if frame.error_bars is not None and not frame.provisional:
            self._offer(LIMITS, frame)
        self._offer(FRAME, frame)

    def errors(self, frame: FrameErrors) -> None:
        """Publish a comparison with widefield on `sr/error`."""
        if self._publisher:
            self._publisher.offer(ERROR, frame)

    def status(self, status: Mapping[str, Any]) -> None:
        """Publish the run's state on `sr/status`.

        As long as it comes, subscribers know that the run lives.
        """
        if self._publisher:
            self._publisher.offer(STATUS, dict(status))

    def close(self, report: Mapping[str, Any]) -> None:
        """Say that the stream has ended, give subscribers half a second to take what is on its way,
        unbind.
        """
        if self._publisher:
            self._publisher.stop(report)
            self._publisher = None

    def _end_authentication(self) -> None:
        if self._authenticator:
            self._authenticator.stop()
            self._authenticator = None

    def _offer(self, topic: bytes, frame: SRFrame | MulticolorFrame) -> None:
        if self._publisher:
            self._publisher.offer(topic, frame)


class _Publisher:
    """The thread behind a `ZeroMQSink`.

    Takes what is offered, newest first to survive, and sends it.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        xpub: zmq.Socket[Any],
        run: RunDescription,
        counts: dict[str, int],
        on_closed: Callable[[], None],
    ) -> None:
        self._on_closed = on_closed
        self._context, self._xpub, self._run, self._counts = context, xpub, run, counts
        self._queue: deque[_Item] = deque()
        self._lock = threading.Lock()
        self._seq = dict.fromkeys(TOPICS, 0)
        self._subscribed: frozenset[bytes] = frozenset()
        self._last_status: Mapping[str, Any] = {}
        self._report: Mapping[str, Any] | None = None
        self._headers = PictureHeaders(run)
        # The thread sleeps on its socket and on this pair, of which one end wakes it.
        self._wake, self._woken = net.socketpair()
        self._wake.setblocking(False)
        self._doorway = Doorway(xpub, _MAX_CONNECTIONS)
        self._thread = threading.Thread(target=self._loop, name="livesr-zeromq", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def offer(self, topic: bytes, content: _Content) -> None:
        """Queue something to send, in place of the oldest frame if there is no room.

        From any thread.
        """
        with self._lock:
            seq = self._next_seq(topic)
            if topic == STATUS and isinstance(content, Mapping):
                self._last_status = content  # for whoever joins later
            if not any(topic.startswith(prefix) for prefix in self._subscribed):
                self._counts["unwatched"] += topic != STATUS
                return
            if len(self._queue) >= _QUEUE_FRAMES:
                self._counts["replaced"] += self._queue.popleft()[0] != STATUS
            self._queue.append((topic, content, seq))
        self._ring()

    def watched(self, topic: bytes) -> bool:
        """Whether somebody asks for a topic by more of its name than all topics have."""
        return any(topic.startswith(p) and len(p) > len(_ALL) for p in self._subscribed)

    def stop(self, report: Mapping[str, Any]) -> None:
        """End the stream and the thread; waits for at most the linger time."""
        self._report = report
        self._ring()
        self._thread.join()
        self._wake.close()
        self._woken.close()

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it has been woken often enough
            self._wake.send(b"\0")

    def _next_seq(self, topic: bytes) -> int:
        seq = self._seq[topic]
        self._seq[topic] = seq + 1
        return seq

    def _loop(self) -> None:
        poller = zmq.Poller()
        poller.register(self._xpub, zmq.POLLIN)
        poller.register(self._woken, zmq.POLLIN)
        poller.register(self._doorway.monitor, zmq.POLLIN)
        try:
            while self._report is None:
                ready = dict(poller.poll(self._doorway.closed_for_ms))
                if self._woken.fileno() in ready:
                    self._woken.recv(4096)
                self._doorway.look()
                self._take_subscriptions()
                self._send_queued()
            self._send_end()
        finally:
            self._doorway.close()
            self._xpub.close(_LINGER_MS)
            self._on_closed()
            self._context.term()

    def _take_subscriptions(self) -> None:
        for _ in range(_SUBSCRIPTIONS_AT_ONCE):
            if not self._xpub.poll(0):
                return
            parts = self._xpub.recv_multipart()
            if len(parts) != 1 or parts[0][:1] not in (b"\0", b"\1"):
                continue  # not a subscription: some other program talks to this port
            prefix = parts[0][1:]
            if not any(topic.startswith(prefix) for topic in TOPICS):
                continue  # nothing is ever sent there
            joined = parts[0][:1] == b"\1"
            with self._lock:
                self._subscribed = (
                    self._subscribed | {prefix} if joined else self._subscribed - {prefix}
                )
            if joined and STATUS.startswith(prefix):
                self._greet()

    def _greet(self) -> None:
        """Tell whoever joins what is running, without waiting for the next status.

        What waits goes first: others count by `seq` what they miss.
        """
        with self._lock:
            waiting = [item for item in self._queue if item[0] == STATUS]
            self._queue = deque(item for item in self._queue if item[0] != STATUS)
            seq, status = self._next_seq(STATUS), self._last_status
        for topic, content, number in waiting:
            self._try(partial(self._send_one, topic, content, number))
        self._try(lambda: self._send(STATUS, plain_header(self._run, "start", seq, status), None))

    def _send_queued(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    return
                topic, content, seq = self._queue.popleft()
            self._try(partial(self._send_one, topic, content, seq))

    def _try(self, send: Callable[[], None]) -> None:
        """Send something; what cannot be sent must not end the stream."""
        try:
            send()
        except Exception as e:
            self._counts["refused"] += 1
            log.debug("not published: %s", e)

    def _send_one(self, topic: bytes, content: _Content, seq: int) -> None:
        if topic == UNCERTAINTY and isinstance(content, MulticolorFrame):
            self._send(topic, self._headers.uncertainty(content, seq), content.uncertainty)
        elif topic == LIMITS and isinstance(content, MulticolorFrame):
            if limits := content.limits:
                self._send(topic, self._headers.limits(content, seq), np.concatenate(limits))
        elif topic == DEPTH and isinstance(content, SRFrame):
            self._send(topic, self._headers.depth(content, seq), content.depth_nm)
        elif isinstance(content, FrameErrors):
            self._send(topic, self._headers.errors(content, seq), content.planes)
        elif isinstance(content, MulticolorFrame):
            self._send(topic, self._headers.prediction(content, seq), content.channels)
        elif isinstance(content, Widefield):
            pixels = np.rint(content.image).astype(np.uint16)
            self._send(topic, self._headers.widefield(content, seq, pixels), pixels)
        elif isinstance(content, SRFrame):
            pixels = to_uint16(content.image, self._run.recon_offset_adu)
            self._send(topic, self._headers.measurement(content, seq, pixels), pixels)
        else:
            self._send(topic, plain_header(self._run, "status", seq, content), None)

    def _send_end(self) -> None:
        """Finish the queue, then say goodbye more than once.

        A subscriber at its high-water mark misses the first.
        """
        self._take_subscriptions()
        self._send_queued()
        if not self._subscribed:
            return
        for repeat in range(_END_REPEATS):
            self._try(partial(self._say_end, repeat))
            time.sleep(_END_EVERY_S)

    def _say_end(self, repeat: int) -> None:
        self._send(END, plain_header(self._run, "end", repeat, self._report or {}), None)

    def _send(self, topic: bytes, header: WireHeader, pixels: Any) -> None:
        parts = encode(topic, header, pixels)
        self._counts["sent"] += pixels is not None
        # A send looks at most once a millisecond at how much subscribers have taken, and drops what
        # would exceed the high-water mark as it was then; asking for the events looks now.
        self._xpub.getsockopt(zmq.EVENTS)
        # Pixels are handed over by reference: nobody writes into a frame's arrays, and converted
        # ones are fresh.
        self._xpub.send_multipart(parts, copy=False)


def _configure(xpub: zmq.Socket[Any], address: str, messages: int, *, with_keys: bool) -> None:
    xpub.setsockopt(zmq.SNDHWM, min(messages * _WAITING_TIME_POINTS, _MAX_WAITING_MESSAGES))
    xpub.setsockopt(zmq.LINGER, _LINGER_MS)
    xpub.setsockopt(zmq.XPUB_VERBOSE, 1)  # every joiner is greeted, not only the first
    xpub.setsockopt(zmq.MAXMSGSIZE, _MAX_BYTES_WITH_KEYS if with_keys else _MAX_BYTES)
    xpub.setsockopt(zmq.IPV6, "[" in address)
    # A pulled cable says nothing: without a heartbeat the subscriber would be kept for hours.
    xpub.setsockopt(zmq.HEARTBEAT_IVL, 1000)
    xpub.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3000)
    be_bounded(xpub)


def checked_address(address: str, insecure: bool) -> str:
    """Return the address to bind, or raise BindError if it is none or would let others in."""
    if address.startswith("ipc://"):
        return address
    match = re.fullmatch(r"tcp://(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(\*|\d{1,5})", address)
    if match is None or (match[2] != "*" and int(match[2]) > 65535):
        raise BindError(
            f"Cannot publish on {address!r}: expected something like tcp://127.0.0.1:5555."
        )
    host = "127.0.0.1" if match[1] == "localhost" else match[1]
    if not insecure and not is_loopback(host.strip("[]")):
        raise BindError(
            f"{address} can be reached from other computers, and the stream is not encrypted: make"
            f" keys with 'livesr keys' and give --keys, publish on tcp://127.0.0.1:{match[2]}, or"
            " accept it with --insecure."
        )
    return f"tcp://{host}:{match[2]}"


def check_bind(address: str) -> None:
    """Bind an address and let go of it; nobody connects meanwhile.

    Not one of files: ZeroMQ takes such an address from whoever has it.

    Raises
    ------
    BindError
        If it is taken or not one of this computer's.
    """
    if not address.startswith("tcp://"):
        return
    with zmq.Context() as context, context.socket(zmq.XPUB) as xpub:
        xpub.setsockopt(zmq.LINGER, 0)
        xpub.setsockopt(zmq.IPV6, "[" in address)
        be_bounded(xpub)
        try:
            xpub.bind(address)
        except zmq.ZMQError as e:
            raise BindError(bind_problem(address, e)) from e


def bind_problem(address: str, error: zmq.ZMQError) -> str:
    """Return why an address could not be bound, and what to try."""
    if error.errno == errno.EADDRINUSE:
        return (
            f"{address} is already in use, by another run or another program: end it, choose"
            " another port, or let tcp://127.0.0.1:* pick a free one."
        )
    if error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV):
        return (
            f"{address} is no address of this computer: use 127.0.0.1, or with --keys or --insecure"
            " one that it has."
        )
    return (
        f"Cannot publish on {address}: {error.strerror}. Try tcp://127.0.0.1:*, which picks a free"
        " port."
    )
