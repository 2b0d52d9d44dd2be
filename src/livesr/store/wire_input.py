"""The raw frames of a run on another computer, asked for one group after the other.

Owns the connection, what is asked for ahead and again, and the count of what came how. The other
end is `livesr.live.sinks.raw_door`. What comes is data from outside: it is compared with what the
run said of itself, and with the rig here.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import zmq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from livesr.base.config import RigConfig
from livesr.base.errors import ConfigError, DamagedFileError
from livesr.base.frames import CameraFrame, RawStack, StagePosition, Stream
from livesr.base.geometry import Geometry
from livesr.base.run_description import Stack
from livesr.formats.keys import ViewerKeys
from livesr.formats.wire import (
    ABOUT,
    ASK_ABOUT,
    ASK_ALIVE,
    ASK_GROUP,
    BYE,
    END,
    GONE,
    MAX_MESSAGE_BYTES,
    RAW,
    Message,
    WireError,
    decode,
)
from livesr.store.raw_input import RawInput, frames_of

AHEAD = 4
"""Groups that are asked for at a time: the way there and back is hidden behind them."""

_ANSWER_S = 10.0  # without a word of a run that goes on
_AGAIN_S, _ALIVE_S = 3.0, 1.0
_SLOW_BYTES_S, _SLOWEST_BYTES_S = 5e6, 1e6  # a message is heard when it is whole
_LOOK_MS = 200
_LINGER_MS = 500  # for the goodbye
_ADDRESS = re.compile(r"tcp://(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):\d{1,5}")

_Side = Annotated[int, Field(ge=1, le=65536)]


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=False)


class _Camera(_Said):
    shape: tuple[_Side, _Side]
    dtype: Annotated[str, Field(pattern="^uint(8|16)$")]
    pixel_size_um: Annotated[float, Field(gt=0, le=1e6)]
    origin_px: tuple[float, float] = (0.0, 0.0)
    mirrored: tuple[bool, bool] = (False, False)
    bit_depth: Annotated[int, Field(ge=1, le=16)] = 16
    camera: Annotated[str, Field(max_length=1000)] = ""
    drawn: bool = False


class _Channel(_Said):
    name: Annotated[str, Field(max_length=1000)]
    exposures: Annotated[int, Field(ge=1, le=100_000)]
    camera: _Camera


class _About(_Said):
    """What a run says of itself."""

    positions: Annotated[tuple[str, ...], Field(min_length=1, max_length=100_000)]
    z_planes: Annotated[int, Field(ge=1, le=100_000)]
    z_step_um: float = 1.0
    interval_s: float | None = None
    recon_offset_adu: Annotated[int, Field(ge=0, le=65535)] = 1000
    started_ns: int = 0
    stacks: tuple[tuple[int, str, int, float], ...] = ()
    channels: Annotated[tuple[_Channel, ...], Field(min_length=1, max_length=1000)]

    @property
    def largest_bytes(self) -> int:
        """Bytes of the largest group."""
        return max(2 * c.exposures * c.camera.shape[0] * c.camera.shape[1] for c in self.channels)


def is_address(recording: object) -> bool:
    """Whether a recording is a run on another computer."""
    return isinstance(recording, str | Path) and _as_address(recording) is not None


def _as_address(recording: str | Path) -> str | None:
    """Return the address, which a path has made one slash of two of."""
    text = re.sub(r"^tcp:/+", "tcp://", str(recording).replace("\\", "/"))
    return text if _ADDRESS.fullmatch(text) else None


def raw_on_wire(
    address: str,
    rig: RigConfig | None,
    engine: str | None = None,
    upscale: str | None = None,
    *,
    keys: Path | None = None,
) -> RawInput:
    """Describe the raw frames of a run that hands them out at `address` (``tcp://rig:5556``).

    Frames come from the first of the run on, none left out: what is not in that computer's memory
    any more comes from its store.

    Parameters
    ----------
    rig : what they are acquired on, here; the channels must be the same
    engine, upscale : instead of rig.yaml's
    keys : folder of this computer's CURVE keys, for a run that hands out with keys

    Raises
    ------
    ConfigError
        If nobody answers, or the run does not fit the rig.
    """
    endpoint = _as_address(address)
    if endpoint is None:
        raise ConfigError(f"{address!r} is no address; expected tcp://HOST:5556.")
    if rig is None:
        raise ConfigError(f"The run at {endpoint} brings no rig along: give --rig, or the rig's.")
    wire = _Wire(endpoint, keys)
    try:
        about = wire.about()
        for channel in about.channels:
            _check(rig, channel, endpoint)
    except BaseException:
        wire.close()
        raise
    chosen = rig.model_copy(
        update={"channels": {c.name: rig.channel(c.name) for c in about.channels}}
    )
    run: dict[str, Any] = {
        "positions": about.positions,
        "z_planes": about.z_planes,
        "z_step_um": about.z_step_um,
        "stacks": {(p, c): Stack(n, step) for p, c, n, step in about.stacks},
        "interval_s": about.interval_s,
        "recon_offset_adu": about.recon_offset_adu,
        "sidecars": rig.files(),
    }
    return RawInput(
        path=Path(endpoint.rpartition("/")[2].replace(":", "-")),
        rig=chosen.with_engines({"separate": engine, "upscale": upscale}),
        cameras={c.name: Geometry(**c.camera.model_dump()) for c in about.channels},
        groups=0,
        frames=wire.frames,
        between=lambda first, end: (f for f in wire.frames() if first <= f.t < end),
        there=dict,
        run=run,
        remarks=wire.remarks,
        close=wire.close,
        cancel=wire.cancelled.set,
        account=wire.account,
    )


def _check(rig: RigConfig, channel: _Channel, endpoint: str) -> None:
    expected = rig.raw_frames(channel.name)  # refuses a channel that the rig has not
    if expected != channel.exposures:
        raise ConfigError(
            f"Channel {channel.name!r} of the run at {endpoint} has {channel.exposures} exposures a"
            f" group, and rig {rig.name!r} has {expected}: use the rig.yaml of that run."
        )


class _Wire:
    """The connection; `frames` is for one thread, `cancelled` for any.

    Attributes
    ----------
    account : what came, for the report: groups; `from_behind` of which were not the newest when
        they came; `lost`, which no store had; `asked_again`; `behind`, groups that wait at the run
    """

    def __init__(self, endpoint: str, keys: Path | None) -> None:
        self.endpoint, self.cancelled = endpoint, threading.Event()
        self.account: dict[str, Any] = {
            "endpoint": endpoint,
            "groups": 0,
            "bytes": 0,
            "from_behind": 0,
            "most_behind": 0,
            "lost": 0,
            "asked_again": 0,
        }
        self._protect = ViewerKeys.read(keys).protect if keys else None
        self._context: zmq.Context[Any] | None = zmq.Context()
        self._said: _About | None = None
        self._patience_s, self._again_s = _ANSWER_S, _AGAIN_S
        self._socket = self._connected()

    def about(self) -> _About:
        """Ask what the run is.

        Raises
        ------
        ConfigError
            If nobody answers, or what comes is no description of a run.
        """
        deadline_s = time.monotonic() + _ANSWER_S
        self._socket.send_multipart([ASK_ABOUT])
        while time.monotonic() < deadline_s and not self.cancelled.is_set():
            message = self._next()
            if message is not None and message.topic == ABOUT.decode():
                try:
                    self._said = _About.model_validate(message.header.status)
                except ValidationError as e:
                    raise ConfigError(f"What {self.endpoint} says is no run's: {e}") from e
                self._patience_s += AHEAD * self._said.largest_bytes / _SLOWEST_BYTES_S
                self._again_s += AHEAD * self._said.largest_bytes / _SLOW_BYTES_S
                return self._said
        raise ConfigError(
            f"No run hands out raw groups at {self.endpoint}: start it there with --publish-raw"
            " tcp://ADDRESS:PORT, and with keys if other computers reach it."
        )

    def frames(self) -> Iterator[CameraFrame]:
        """Yield the exposures of every group, in the order of the run, until it has ended.

        Raises
        ------
        DamagedFileError
            If the other computer falls silent.
        """
        wanted, asked = 0, -1
        came: dict[int, Message] = {}
        heard_s = group_s = alive_s = time.monotonic()
        while not self.cancelled.is_set():
            for n in range(max(asked + 1, wanted), wanted + AHEAD):
                self._ask(n)
                asked = n
            message, now_s = self._next(), time.monotonic()
            if message is None:
                self._check_alive(now_s - heard_s)
                if now_s - max(heard_s, alive_s) > _ALIVE_S:
                    self._socket.send_multipart([ASK_ALIVE])
                    alive_s = now_s
            else:
                heard_s = now_s
                if message.topic in (RAW.decode(), GONE.decode(), END.decode()):
                    came[message.header.seq], group_s = message, now_s
            if now_s - group_s > self._again_s:  # one of them was dropped, or the way was cut
                asked, group_s = wanted - 1, now_s
                self.account["asked_again"] += 1
            while wanted in came:
                message = came.pop(wanted)
                if message.topic == END.decode():
                    self._done(message)
                    return
                yield from self._taken(message)
                wanted += 1
                heard_s = group_s = time.monotonic()  # who takes frames may have taken its time
            for n in [n for n in came if n < wanted]:
                del came[n]

    def _check_alive(self, silent_s: float) -> None:
        if silent_s > self._patience_s:
            raise DamagedFileError(
                f"{self.endpoint} has been silent for {silent_s:.0f} s. What came until then is"
                " computed; look after the run and the network."
            )

    def _done(self, message: Message) -> None:
        """Take note of how the run ended there."""
        if error := message.header.status.get("error"):
            self.account["error"] = str(error)[:1000]

    def _ask(self, n: int) -> None:
        self._socket.send_multipart([ASK_GROUP, str(n).encode()])

    def _taken(self, message: Message) -> Iterator[CameraFrame]:
        if message.pixels is None:
            self.account["lost"] += 1
            return iter(())
        header = message.header
        behind = int(header.status.get("groups") or 0) - header.seq - 1
        self.account["groups"] += 1
        self.account["bytes"] += message.pixels.nbytes
        self.account["from_behind"] += behind > 0
        self.account["most_behind"] = max(self.account["most_behind"], behind)
        return frames_of([self._stack(message)])

    def _stack(self, message: Message) -> RawStack:
        """Return the group of a message that fits what the run said of itself.

        Raises
        ------
        DamagedFileError
            If it does not.
        """
        header, pixels, said = message.header, message.pixels, self._said
        assert said is not None
        assert pixels is not None
        channel = next((c for c in said.channels if c.name == header.channel), None)
        if (
            channel is None
            or pixels.shape != (channel.exposures, *channel.camera.shape)
            or pixels.dtype != np.dtype(channel.camera.dtype)
            or header.position >= len(said.positions)
            or header.z >= said.z_planes
        ):
            raise DamagedFileError(
                f"{self.endpoint} sent {pixels.dtype} {pixels.shape} of channel"
                f" {header.channel[:60]!r}, which is not what it said of the run."
            )
        missing = {int(i) for i in header.status.get("missing", ()) if isinstance(i, int)}
        stage = header.status.get("stage") or ()
        known = [v if isinstance(v, int | float) else None for v in stage][:3]
        exposure = header.status.get("exposure_ms")
        t_ns = header.t_acq_ns or 0
        return RawStack(
            tuple(None if i in missing else plane for i, plane in enumerate(pixels)),
            Stream(header.position, header.channel, header.z),
            header.t,
            t_ns,
            t_ns,
            header.t_camera_ms,
            exposure_ms=exposure if isinstance(exposure, int | float) else None,
            stage=StagePosition(*known) if len(known) == 3 else StagePosition(),
        )

    def remarks(self) -> tuple[str, ...]:
        """Say what did not come."""
        error = self.account.get("error")
        said = [f"The run at {self.endpoint} ended early: {error}"] if error else []
        if not self.account["lost"]:
            return tuple(said)
        return (
            *said,
            f"{self.account['lost']} groups of the run at {self.endpoint} are missing: this"
            " computer, or the network, is slower than the run, which records no raw frames that"
            " they could be fetched from.",
        )

    def close(self) -> None:
        """Disconnect; may be called twice."""
        self.cancelled.set()
        context, self._context = self._context, None
        if context is not None:
            with suppress(zmq.ZMQError):  # nobody is there any more
                self._socket.send_multipart([BYE], zmq.DONTWAIT)
            self._socket.close(_LINGER_MS)
            context.term()

    def _next(self) -> Message | None:
        """Return the next message, None if none came in time or what came is none."""
        if not self._socket.poll(_LOOK_MS):
            return None
        try:
            return decode([part.bytes for part in self._socket.recv_multipart(copy=False)])
        except WireError:
            return None

    def _connected(self) -> zmq.Socket[Any]:
        assert self._context is not None
        socket: zmq.Socket[Any] = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.RCVHWM, 2 * AHEAD)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IPV6, "[" in self.endpoint)
        if self._protect:
            self._protect(socket)
        socket.connect(self.endpoint)
        return socket
