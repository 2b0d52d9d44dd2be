"""Raw groups for another computer that asks for them (docs/wire-format.md, "raw/frame").

Owns one ROUTER socket, the one thread that touches it, and the last groups in memory. A group that
is not there any more is read from the store that the run writes; nothing is sent that was not asked
for, and the run waits for nobody.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from livesr.base.errors import BindError, StoreError
from livesr.base.frames import RawStack
from livesr.base.memory import available_bytes
from livesr.base.run_description import RunDescription
from livesr.base.timing import now_ns
from livesr.formats import layout
from livesr.formats.keys import PublisherKeys
from livesr.formats.store import array_shape
from livesr.formats.wire import (
    ABOUT,
    ALIVE,
    ASK_ABOUT,
    ASK_ALIVE,
    ASK_GROUP,
    BYE,
    END,
    GONE,
    RAW,
    WireHeader,
    encode,
)
from livesr.formats.zarr_files import open_array
from livesr.live.sinks.doorway import Doorway, be_bounded
from livesr.live.sinks.headers import jsonable, plain_header
from livesr.live.sinks.sink import Sink
from livesr.live.sinks.zeromq import bind_problem, check_bind, checked_address

log = logging.getLogger(__name__)

_KEPT_BYTES, _SHARE = 256 << 20, 16  # of the free memory
_LOOK_MS, _AGAIN_S = 200, 0.5
_MAX_QUESTION, _MAX_QUESTION_WITH_KEYS = 64, 512  # bytes; longer ones end their connection
_MAX_ASKED, _MAX_CLIENTS, _MAX_CONNECTIONS = 64, 16, 64
_CLOSE_S, _SILENT_S = 5.0, 60.0  # of one whose network or disk is slow
_LINGER_MS = 20_000  # for what was sent and is on its way
_HIGH_WATER = 32  # what is beyond is dropped, and asked for again


class RawDoor(Sink):
    """Hands out the raw groups of a run on `address`, by number, to whoever asks.

    Parameters
    ----------
    address, insecure, keys : as of `ZeroMQSink`
    store : returns where the run is recorded, None where it is not

    Attributes
    ----------
    endpoint : the address with its real port, once it is open
    account : for the report: `groups` handed out, of which `from_store`, and their `bytes`; `gone`,
        which no store had; questions `refused`; `clients`, and how many groups the last one is
        `behind`

    Raises
    ------
    BindError
        If the address is none, or would let others in.
    ConfigError
        If the folder holds no publisher's keys.
    """

    name = "raw-door"
    lossless = True

    def __init__(
        self,
        address: str,
        *,
        insecure: bool = False,
        keys: Path | None = None,
        store: Callable[[], Path | None] = lambda: None,
    ) -> None:
        self._address = checked_address(address, insecure or keys is not None)
        self._keys = PublisherKeys.read(keys) if keys else None
        self._store = store
        self._desk: _Desk | None = None
        self.account: dict[str, Any] = {}
        self.endpoint: str | None = None

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
        router = context.socket(zmq.ROUTER)
        router.setsockopt(zmq.SNDHWM, _HIGH_WATER)
        router.setsockopt(zmq.LINGER, _LINGER_MS)
        router.setsockopt(zmq.MAXMSGSIZE, _MAX_QUESTION_WITH_KEYS if self._keys else _MAX_QUESTION)
        router.setsockopt(zmq.IPV6, "[" in self._address)
        be_bounded(router)
        authenticator = self._keys.protect(router) if self._keys else None

        def closed() -> None:
            router.close()
            if authenticator:
                authenticator.stop()
            context.term()

        try:
            router.bind(self._address)
        except zmq.ZMQError as e:
            closed()
            raise BindError(bind_problem(self._address, e)) from e
        self.endpoint = router.getsockopt_string(zmq.LAST_ENDPOINT)
        self._desk = _Desk(router, run, self._store, closed)
        self._desk.start()

    def raw(self, stack: RawStack) -> None:
        """Keep a raw group for whoever asks for it."""
        if self._desk:
            self._desk.add(stack)

    def status(self, status: Mapping[str, Any]) -> None:
        """Take note of what was handed out."""
        if self._desk:
            self.account.update(self._desk.account())

    def close(self, report: Mapping[str, Any]) -> None:
        """Say that the run has ended; go on handing out, in the thread, while somebody asks."""
        if self._desk:
            self._desk.stop(report)
            self.account.update(self._desk.account())

    def handed_out(self, timeout_s: float) -> bool:
        """Wait, after `close`, until everybody who asks has every group; whether that is so."""
        desk = self._desk
        if desk is None:
            return True
        over = desk.join(timeout_s)
        self.account.update(desk.account())
        return over


class _Desk:
    """The thread behind a `RawDoor`."""

    def __init__(
        self,
        router: zmq.Socket[Any],
        run: RunDescription,
        store: Callable[[], Path | None],
        closed: Callable[[], None],
    ) -> None:
        self._router, self._run, self._store, self._closed = router, run, store, closed
        self._lock = threading.Lock()
        self._known: list[RawStack] = []  # every group, without its pixels
        self._missing: list[tuple[int, ...]] = []
        self._recent: OrderedDict[int, RawStack] = OrderedDict()
        self._bytes, self._most = 0, min(_KEPT_BYTES, available_bytes() // _SHARE)
        self._asked: OrderedDict[tuple[bytes, int], float] = OrderedDict()  # when to look again
        self._clients: dict[bytes, list[float]] = {}  # next group that each wants, last heard
        self._counts = {"groups": 0, "from_store": 0, "gone": 0, "bytes": 0, "refused": 0}
        self._report: Mapping[str, Any] | None = None
        self._doorway = Doorway(router, _MAX_CONNECTIONS)
        self._thread = threading.Thread(target=self._loop, name="livesr-raw-door", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def account(self) -> dict[str, Any]:
        """Return what was handed out: `groups`, of which `from_store`; those that were `gone`."""
        with self._lock:
            behind = [
                max(len(self._known) - int(wanted), 0) for wanted, _ in self._clients.values()
            ]
            return {**self._counts, "clients": len(self._clients), "behind": max(behind, default=0)}

    def add(self, stack: RawStack) -> None:
        """Take the next group; the oldest in memory make room."""
        missing = tuple(i for i, frame in enumerate(stack.frames) if frame is None)
        with self._lock:
            n = len(self._known)
            self._known.append(replace(stack, frames=()))
            self._missing.append(missing)
            self._recent[n] = stack
            self._bytes += stack.nbytes
            while self._bytes > self._most and len(self._recent) > 1:
                _, oldest = self._recent.popitem(last=False)
                self._bytes -= oldest.nbytes

    def stop(self, report: Mapping[str, Any]) -> None:
        """End the stream; wait a little for whoever has nearly all of it."""
        self._report = report
        self._thread.join(_CLOSE_S)

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the thread; return whether it has come."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._doorway.monitor, zmq.POLLIN)
        try:
            while True:
                ended = self._report is not None
                poller.poll(5 if self._asked else _LOOK_MS)
                if self._doorway.look():  # they ask again, under other names
                    self._forget_all()
                self._take()
                self._hand_out()
                if ended and self._may_leave():
                    return
        finally:
            self._doorway.close()
            self._closed()

    def _may_leave(self) -> bool:
        """Whether everybody who asked has said goodbye, or is silent."""
        now = time.monotonic()
        with self._lock:
            return all(now - heard_s > _SILENT_S for _, heard_s in self._clients.values())

    def _take(self) -> None:
        """Take the questions that have come."""
        for _ in range(_MAX_ASKED):
            if not self._router.poll(0):
                return
            who, *question = self._router.recv_multipart()
            try:
                group = _group_asked(question)
            except ValueError:  # some other program: nobody who will take groups
                self._counts["refused"] += 1
                continue
            if who not in self._clients and len(self._clients) >= _MAX_CLIENTS:
                self._forget_silent()
                if len(self._clients) >= _MAX_CLIENTS:
                    self._counts["refused"] += 1
                    continue
            self._answer(who, question, group)

    def _answer(self, who: bytes, question: list[bytes], group: int | None) -> None:
        with self._lock:
            self._clients.setdefault(who, [0.0, 0.0])[1] = time.monotonic()
        if group is not None:
            if sum(one == who for one, _ in self._asked) < _MAX_ASKED:
                self._asked[who, group] = 0.0
            else:
                self._counts["refused"] += 1
        elif question == [BYE]:
            self._forget(who)
        elif question == [ASK_ALIVE]:
            self._send(who, ALIVE, plain_header(self._run, "status", 0, {}))
        else:
            self._send(who, ABOUT, plain_header(self._run, "start", 0, about(self._run)))

    def _hand_out(self) -> None:
        """Answer what can be answered by now."""
        for (who, n), due_s in list(self._asked.items()):
            with self._lock:
                there, stack = n < len(self._known), self._recent.get(n)
            if not there:
                if self._report is None:
                    continue
                self._clients[who][0] = n + 1.0
                status = {"groups": len(self._known), "error": self._report.get("error")}
                self._send(who, END, plain_header(self._run, "end", n, status))
            elif stack is not None:
                self._send_group(who, n, stack)
            elif time.monotonic() < due_s:
                continue
            elif not self._from_store(who, n):
                self._asked[who, n] = time.monotonic() + _AGAIN_S
                continue
            self._asked.pop((who, n), None)

    def _from_store(self, who: bytes, n: int) -> bool:
        """Send a group that memory has not; False if it is to be tried again."""
        with self._lock:
            known, missing = self._known[n], self._missing[n]
        store = self._store()
        if store is None or not self._run.record_raw:
            self._counts["gone"] += 1
            self._clients[who][0] = n + 1.0
            self._send(who, GONE, plain_header(self._run, "status", n, {}))
            return True
        stream = known.stream
        name = layout.series_name("raw", self._run, stream.position, stream.channel)
        channel = self._run.channel(stream.channel)
        folder = store / name / "0"
        try:
            film = len(channel.raw_labels) if channel.raw_along_t else 1
            shape = array_shape(folder, film)
            if known.t >= shape.length["t"]:
                return False
            block = np.asarray(open_array(folder)[shape.index(known.t, stream.z)])
        except (StoreError, OSError, ValueError, KeyError) as e:  # on its way to the disk
            log.debug("group %d cannot be read yet: %s", n, e)
            return False
        frames = tuple(None if i in missing else plane for i, plane in enumerate(block))
        self._counts["from_store"] += 1
        self._send_group(who, n, replace(known, frames=frames))
        return True

    def _send_group(self, who: bytes, n: int, stack: RawStack) -> None:
        channel = self._run.channel(stack.stream.channel)
        blank = np.zeros(channel.raw_shape, channel.raw_dtype)
        missing = [i for i, frame in enumerate(stack.frames) if frame is None]
        pixels = np.stack([blank if frame is None else frame for frame in stack.frames])
        header = WireHeader(
            type="frame",
            stream=self._run.stream_id,
            seq=n,
            t_pub_ns=now_ns(),
            t_acq_ns=stack.t_acq_ns,
            t_camera_ms=stack.t_camera_ms,
            position=stack.stream.position,
            position_name=self._run.positions[stack.stream.position],
            channel=stack.stream.channel,
            z=stack.stream.z,
            t=stack.t,
            dtype="|u1" if pixels.dtype == np.uint8 else "<u2",
            shape=pixels.shape,
            axes="tyx",
            pixel_size_um=channel.raw_pixel_size_um,
            status=jsonable(
                {
                    "missing": missing,
                    "exposure_ms": stack.exposure_ms,
                    "stage": list(stack.stage),
                    "groups": len(self._known),
                }
            ),
        )
        self._counts["groups"] += 1
        self._counts["bytes"] += pixels.nbytes
        self._clients[who][0] = n + 1.0
        self._send(who, RAW, header, pixels)

    def _send(self, who: bytes, topic: bytes, header: WireHeader, pixels: Any = None) -> None:
        # A ROUTER drops what whoever asked does not take in time; they ask again.
        self._router.send_multipart([who, *encode(topic, header, pixels)], copy=False)

    def _forget_silent(self) -> None:
        late_s = time.monotonic() - 2 * _SILENT_S
        for who in [w for w, (_, heard_s) in self._clients.items() if heard_s < late_s]:
            self._forget(who)

    def _forget_all(self) -> None:
        with self._lock:
            self._clients.clear()
        self._asked.clear()

    def _forget(self, who: bytes) -> None:
        with self._lock:
            self._clients.pop(who, None)
        for key in [key for key in self._asked if key[0] == who]:
            del self._asked[key]


def _group_asked(question: list[bytes]) -> int | None:
    """Return which group is asked for, None by another question; raise ValueError if it is none."""
    if question in ([BYE], [ASK_ALIVE], [ASK_ABOUT]):
        return None
    if len(question) == 2 and question[0] == ASK_GROUP and 0 <= (n := int(question[1])) < 1 << 53:
        return n
    raise ValueError(question)


def about(run: RunDescription) -> dict[str, Any]:
    """Return what whoever computes a run elsewhere must know of it, JSON-able."""
    return {
        "positions": list(run.positions),
        "z_planes": run.z_planes,
        "z_step_um": run.z_step_um,
        "interval_s": run.interval_s,
        "recon_offset_adu": run.recon_offset_adu,
        "started_ns": run.started_ns,
        "stacks": [[p, c, s.z_planes, s.z_step_um] for (p, c), s in run.stacks.items()],
        "channels": [
            {
                "name": channel.name,
                "exposures": len(channel.raw_labels),
                "camera": {
                    "shape": channel.raw_shape,
                    "dtype": channel.raw_dtype,
                    "pixel_size_um": channel.raw_pixel_size_um,
                    "origin_px": channel.raw_origin_px,
                    "mirrored": channel.raw_mirrored,
                    "bit_depth": channel.raw_bit_depth,
                    "camera": channel.camera,
                    "drawn": channel.camera_drawn,
                },
            }
            for channel in run.channels
            if not channel.parts
        ],
    }
