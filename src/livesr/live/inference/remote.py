"""A network on a server, with this computer's own when the server fails.

Owns when the server is left and when it is taken back, what is said of it, and the sessions on
either side. Knows no protocol: any runtime that is `remote` serves. Measurement and recording do
not depend on it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from livesr.base.compute import ComputeConfig
from livesr.base.errors import BackendError, EngineError, LiveSRError
from livesr.base.threads import wait_for
from livesr.base.timing import Histogram
from livesr.live.inference.engine import Engine
from livesr.live.inference.fallback import FallbackSession
from livesr.live.inference.runner import open_on
from livesr.live.inference.runtime import runtime_named
from livesr.live.inference.session import InferenceSession
from livesr.live.inference.trial import try_out

log = logging.getLogger(__name__)

MAX_DIFFERENCE = 0.1
"""Root mean square difference of a test frame, server against this computer, over that of the
frame.

What int8 and f16 differ by is below a third of it.
"""

Inferred = tuple[NDArray[np.float32], NDArray[np.float32] | None]
"""Output and features of a frame."""

_LOOK_S, _MAX_LOOK_S = 1.0, 15.0  # how often a server that failed is asked, at first and at last
_SOON_S = 30.0  # a server that fails again within it is asked less often
_MIN_DEADLINE_S, _MAX_DEADLINE_S = 2.0, 30.0
_TIMES_SLOWER = 20.0  # a frame may take so many times what the slower side takes for one
_END_S = 5.0
_OFTEN_S = 0.5


class RemoteSession(InferenceSession):
    """Opens an engine on the server that `compute` names, and on this computer beside it.

    The server's network is compared with this computer's by a test frame before it is used, at the
    start and whenever it comes back. A frame that the server fails on, or does not return in time,
    is inferred here, and so are those that follow until a thread of its own has found the server
    in order again.

    Parameters
    ----------
    engine, shape, compute : as of `open_session`

    Attributes
    ----------
    lanes : sessions that may infer at once, each in one thread, and each with its own memory

    Raises
    ------
    BackendError, EngineError
        If the server cannot be had at the start, or has another network.
    """

    lanes: tuple[InferenceSession, ...] = ()

    def __init__(self, engine: Engine, shape: tuple[int, int], compute: ComputeConfig) -> None:
        self._engine, self._shape, self._compute = engine, shape, compute
        self._lock, self._local_lock = threading.Lock(), threading.Lock()
        self._away: tuple[InferenceSession, ...] = ()
        self._left: list[InferenceSession] = []  # failed; closed by the thread that looks
        self._log = _Log()
        self._closing = threading.Event()
        self._here, self._why_none = self._opened_here()
        try:
            self._adopt(self._opened_away())
        except BaseException:
            self._release()
            raise
        out = engine.output_shape(shape)
        self.lanes = tuple(
            _Lane(partial(self.inferred, i), (engine.manifest.inputs, *shape), out)
            for i in range(len(self._away))
        )
        self._looking = threading.Thread(target=self._look, name="livesr-remote", daemon=True)
        self._looking.start()

    @property
    def input(self) -> NDArray[np.float32]:
        """The (window, y, x) block that `infer` reads, that of the first lane."""
        return self.lanes[0].input

    def infer(self) -> NDArray[np.float32]:
        """Return (c, scale y, scale x) for the current `input`; errors as of `inferred`."""
        return self.lanes[0].infer()

    @property
    def features(self) -> NDArray[np.float32] | None:
        """Those of the first lane."""
        return self.lanes[0].features

    @property
    def account(self) -> dict[str, Any]:
        """What the report of a run says: where frames were computed, and how long it took."""
        with self._lock:
            away = self._away
        if away:
            self._log.look(away[0])
        return self._log.account(self._compute.backend)

    def close(self) -> None:
        """Leave the server, and release both sides."""
        if self._closing.is_set():
            return
        self._closing.set()
        late_s = time.monotonic() + _END_S  # it may be asking a server that does not answer
        wait_for(self._looking, lambda: time.monotonic() > late_s)
        self._release()

    def inferred(
        self, lane: int, frames: NDArray[np.float32], out: NDArray[np.float32]
    ) -> Inferred:
        """Return what the network makes of `frames`, and its features, from the server if it is
        there.

        Parameters
        ----------
        lane : whose session on the server is used, by no other thread
        frames : float32 (window, y, x)
        out : float32 (c, scale y, scale x), written if it is computed here

        Raises
        ------
        BackendError
            If the server has failed and nothing here can run the engine.
        """
        with self._lock:
            session = self._away[lane] if self._away else None
        if session is not None:
            try:
                begun = time.perf_counter()
                session.input[...] = frames
                result = session.infer()
                self._log.answered(time.perf_counter() - begun)
                return result, session.features
            except Exception as e:  # a client raises whatever its library raises
                self._lose(session, e)
        return self._inferred_here(frames, out)

    def _inferred_here(self, frames: NDArray[np.float32], out: NDArray[np.float32]) -> Inferred:
        with self._local_lock:
            if self._here is None:
                raise BackendError(f"{self._why_none} No server answers either.")
            self._here.input[...] = frames
            out[...] = self._here.infer()
            of_frame = self._here.features
            features = None if of_frame is None else of_frame.copy()
            self._log.frames_here += 1
            replaced = self._here.replacements
        for sentence in replaced:
            with self._lock:
                self._say(sentence)
        return out, features

    # -- the two sides -----------------------------------------------------------------------------

    def _opened_here(self) -> tuple[InferenceSession | None, str]:
        """Return what takes over, opened before it is needed; or None, and why there is none."""
        local = self._compute.model_copy(
            update={"backend": "auto", "precision": "auto", "endpoint": None}
        )
        try:
            try_out(self._engine, self._shape, local)
            return FallbackSession(self._engine, self._shape, local), ""
        except LiveSRError as e:
            log.warning("Nothing here can take over from the server: %s", e)
            return None, str(e)

    def _opened_away(self) -> tuple[InferenceSession, ...]:
        """Return sessions on the server whose network is the engine's."""
        name, sessions = self._compute.backend, []
        try:
            for _ in range(runtime_named(name).max_in_flight):
                session = open_on(name, self._engine, self._shape, self._compute)
                sessions.append(session)
            deadline_s = self._compared(sessions[0])
            for session in sessions:
                session.set_deadline(deadline_s)
        except BaseException:
            for session in sessions:
                session.close()
            raise
        return tuple(sessions)

    def _compared(self, session: InferenceSession) -> float:
        """Compare the server's network with this computer's by a test frame.

        Returns
        -------
        Seconds that a frame may take from here on.

        Raises
        ------
        EngineError
            If they make something else of it.
        """
        frames = _test_frames(session.input.shape)
        begun = time.perf_counter()
        session.input[...] = frames
        away = session.infer()
        slower_s = time.perf_counter() - begun
        if self._here is not None:
            with self._local_lock:
                begun = time.perf_counter()
                self._here.input[...] = frames
                here = self._here.infer()
                slower_s = max(slower_s, time.perf_counter() - begun)
                difference = _difference(away, here)
            if not difference <= MAX_DIFFERENCE:
                raise EngineError(
                    f"{session.device} makes something else of a test frame than engine"
                    f" {self._engine.manifest.id!r} makes here (they differ by {difference:.0%},"
                    f" and {MAX_DIFFERENCE:.0%} are expected at most): it has another network, and"
                    " is not taken."
                )
        return min(max(_TIMES_SLOWER * slower_s, _MIN_DEADLINE_S), _MAX_DEADLINE_S)

    def _adopt(self, away: tuple[InferenceSession, ...]) -> None:
        with self._lock:
            self._away = away
            self._log.baseline(away[0])
            self.like(away[0])

    def _lose(self, session: InferenceSession, error: Exception) -> None:
        """Leave the server, unless another lane did."""
        with self._lock:
            if session not in self._away:
                return
            self._left += self._away
            self._away = ()
            self._log.outages += 1
            where = f"{session.name} at {session.device}"
            if self._here is None:
                return
            self.like(self._here)
            self._say(
                f"Engine {self._engine.manifest.id!r} runs on {self._here.name} since {where}"
                f" failed ({error}); what it makes of a frame differs a little."
            )

    def _say(self, sentence: str) -> None:
        if sentence not in self.replacements:  # a server that comes and goes says it once
            log.warning("%s", sentence)
            self.replacements = (*self.replacements, sentence)

    def _release(self) -> None:
        with self._lock:
            sessions = [*self._left, *self._away, *([self._here] if self._here else [])]
            self._left, self._away = [], ()
        for session in sessions:
            session.close()

    # -- the thread that looks ---------------------------------------------------------------------

    def _look(self) -> None:
        """Ask the server for its times while it is there, and for itself while it is not."""
        wait_s, back_s = _LOOK_S, 0.0
        while not self._closing.wait(wait_s):
            with self._lock:
                away, left, self._left = self._away, self._left, []
            for session in left:
                session.close()
            if away:
                if changed := self._changed(away[0]):
                    self._lose(away[0], changed)
                wait_s = _LOOK_S
                continue
            soon = time.monotonic() - back_s < _SOON_S
            if self._returned():
                wait_s = min(4 * wait_s, _MAX_LOOK_S) if soon else _LOOK_S
                back_s = time.monotonic()
            else:
                wait_s = min(1.5 * wait_s, _MAX_LOOK_S)

    def _changed(self, session: InferenceSession) -> LiveSRError | None:
        """Return why a server that answers must not be believed any more; None if it may be.

        Between two frames it can be started anew, or load another model, and no frame fails.
        """
        self._log.look(session)
        try:
            session.verify()
        except EngineError as e:
            return EngineError(f"{e} What was predicted in the last seconds may be of that one")
        except BackendError:
            return None  # a frame will find out
        if self._log.anew:
            return BackendError(
                "It was started anew, or loaded its model anew: its network is compared once more"
            )
        return None

    def _returned(self) -> bool:
        """Take the server back if it is in order."""
        try:
            away = self._opened_away()
        except EngineError as e:  # it is there, and has another network
            with self._lock:
                self._say(f"The server is not taken back: {e}")
            return False
        except Exception as e:
            log.info("The server is not back: %s", e)
            return False
        self._adopt(away)
        with self._lock:
            self._say(
                f"Engine {self._engine.manifest.id!r} runs on {away[0].name} at {away[0].device}"
                " again."
            )
        return True


class _Lane(InferenceSession):
    """One way through a `RemoteSession`; one thread at a time."""

    def __init__(
        self,
        inferred: Callable[[NDArray[np.float32], NDArray[np.float32]], Inferred],
        shape: tuple[int, int, int],
        output_shape: tuple[int, int, int],
    ) -> None:
        self._inferred = inferred
        self._frames = np.zeros(shape, np.float32)
        self._output = np.zeros(output_shape, np.float32)
        self._features: NDArray[np.float32] | None = None

    @property
    def input(self) -> NDArray[np.float32]:
        """The (window, y, x) block that `infer` reads; the same memory for the session's life."""
        return self._frames

    def infer(self) -> NDArray[np.float32]:
        """Return (c, scale y, scale x) for the current `input`; errors as of
        `RemoteSession.inferred`.
        """
        output, self._features = self._inferred(self._frames, self._output)
        return output

    @property
    def features(self) -> NDArray[np.float32] | None:
        """Those of the last frame, from wherever it was computed."""
        return self._features

    def close(self) -> None:
        """Leave it to the session that it is a way through."""


class _Served(NamedTuple):
    """What a server has counted: requests, and the seconds that it took for them."""

    requests: int
    seconds: float


class _Log:
    """What is known of the way to the server; any thread may write.

    Attributes
    ----------
    frames_here, outages : frames inferred on this computer, times that the server was left
    anew : whether the server has counted less than before, so that it began anew
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._round_trip = Histogram()
        self._server = _Served(0, 0.0)
        self._before: _Served | None = None
        self._device, self.frames_here, self.outages = "", 0, 0
        self._session: InferenceSession | None = None
        self._shares_memory = False
        self._looked_s = 0.0
        self.anew = False

    def answered(self, seconds: float) -> None:
        """Count a frame that the server returned."""
        with self._lock:
            self._round_trip.add(seconds * 1e3)

    def baseline(self, session: InferenceSession) -> None:
        """Count from here on what a server counts, which may have been started anew."""
        self._session, self._device = session, session.device
        self._shares_memory = session.shares_memory
        counted = session.served()
        with self._lock:
            self._before, self.anew = _Served(*counted) if counted else None, False

    def look(self, session: InferenceSession) -> None:
        """Add what the server has counted since it was asked last; not more often than twice a
        second.
        """
        with self._lock:
            if self._server.requests and time.monotonic() - self._looked_s < _OFTEN_S:
                return
            self._looked_s = time.monotonic()
        counted = session.served()
        if counted is None:
            return
        now = _Served(*counted)
        with self._lock:
            before, self._before = self._before, now
            if not before or session is not self._session:
                return
            if now.requests < before.requests:
                self.anew = True
            else:
                self._server = _Served(
                    self._server.requests + now.requests - before.requests,
                    self._server.seconds + now.seconds - before.seconds,
                )

    def account(self, backend: str) -> dict[str, Any]:
        """Return everything, JSON-able."""
        with self._lock:
            times = self._round_trip.summary()
            requests, seconds = self._server
            mean_ms = times["mean"]
        server_ms = round(seconds / requests * 1e3, 3) if requests else None
        network_ms = None
        if server_ms is not None and mean_ms is not None:
            network_ms = round(max(mean_ms - server_ms, 0.0), 3)
        return {
            "backend": backend,
            "endpoint": self._device,
            "shared_memory": self._shares_memory,
            "frames": self._round_trip.count,
            "frames_here": self.frames_here,
            "outages": self.outages,
            "latency_ms": times,
            "server_ms": server_ms,
            "network_share": (
                round(network_ms / mean_ms, 3) if network_ms is not None and mean_ms else None
            ),
        }


def _test_frames(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return normalised frames (window, y, x): bright lines that move, on a dark background."""
    window, height, width = shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    frames = np.zeros(shape, np.float32)
    for angle, period in ((0.3, 37.0), (1.2, 23.0), (2.4, 51.0)):
        across = x * np.cos(np.float32(angle)) + y * np.sin(np.float32(angle))
        for t in range(window):
            distance = (across + t) % np.float32(period) - np.float32(period / 2)
            frames[t] += np.float32(0.4) * np.exp(-(distance**2) / np.float32(5))
    return frames


def _difference(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return the root mean square difference over that of `expected`."""
    scale = float(np.sqrt(np.mean(np.square(expected, dtype=np.float64))))
    off = float(np.sqrt(np.mean(np.square(found - expected, dtype=np.float64))))
    return off / max(scale, 1e-6)
