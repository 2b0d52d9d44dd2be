"""The newest pictures of a run in this program, which need no address.

Owns how they are said to be. The thread of the run only puts a frame in the place of the one before
(`livesr.gui.newest`); it is converted when somebody looks, and what nobody looked at never is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from livesr.base.frames import MulticolorFrame, SRFrame
from livesr.formats.wire import DEPTH, FRAME, INPUT, UNCERTAINTY, Message
from livesr.gui.newest import Newest
from livesr.live.session import Session
from livesr.live.sinks.headers import PictureHeaders
from livesr.live.sinks.sink import to_uint16
from livesr.viewer.frame_pairs import FramePair, Selection
from livesr.viewer.subscriber import StreamName

if TYPE_CHECKING:
    from livesr.base.run_description import RunDescription


class RunPairs:
    """The pairs of a run: always the newest of each channel. Looking belongs to one thread.

    Parameters
    ----------
    newest : the frames that came last
    status : gives the state of the run in progress, {} between runs
    """

    length, problem, endpoint = None, "", "the run in this program"

    def __init__(self, newest: Newest, status: Callable[[], Mapping[str, Any]]) -> None:
        self._newest, self._status = newest, status
        self._run: RunDescription | None = None
        self._headers: PictureHeaders | None = None
        self._made: dict[tuple[bytes, str], tuple[object, Message]] = {}

    def close(self) -> None:
        """Do nothing: a run goes on, whether or not somebody looks."""

    @property
    def version(self) -> int:
        """Grows when there may be a newer pair."""
        return self._newest.version

    @property
    def state(self) -> str:
        """One of waiting, starting, live, ended."""
        pictures = bool(self._newest.measurements or self._newest.predictions)
        if not self._status():
            return "ended" if pictures else "waiting"
        return "live" if pictures else "starting"

    @property
    def status(self) -> Mapping[str, Any]:
        """State of the run in progress, {} between runs."""
        return self._status()

    def streams(self) -> tuple[StreamName, ...]:
        """Return the newest stream of every channel that gave a picture."""
        run = self._follow_run()
        if run is None:
            return ()
        streams = {name: frame.stream for name, frame in self._newest.measurements.items()}
        streams |= {name: frame.stream for name, frame in self._newest.predictions.items()}
        known = [stream for name, stream in streams.items() if name in _names(run)]
        return tuple(
            StreamName(s.channel, s.position, run.positions[s.position], s.z) for s in known
        )

    def listen(self, call: Callable[[], None]) -> Callable[[], None]:
        """Call nothing: layers look now and then."""
        return lambda: None

    def pair(
        self,
        selection: Selection,
        index: int = 0,
        *,
        measured: bool = False,
        widefield: bool = False,
    ) -> FramePair | None:
        """Return the newest pair of a channel, of the first without one; `index` means nothing.

        Nobody here asks for `widefield`.
        """
        run = self._follow_run()
        name = selection.channel
        if name is None and (streams := self.streams()):
            name = streams[0].channel
        if run is None or name is None or name not in _names(run):
            return None
        measurement = self._newest.measurements.get(name)
        prediction = self._newest.predictions.get(name)
        if prediction is not None and not (measured and measurement is not None):
            return FramePair(
                self._message(FRAME, prediction),
                self._message(INPUT, prediction.source),
                uncertainty=self._message(UNCERTAINTY, prediction),
                depth=self._message(DEPTH, prediction.source),
            )
        if measurement is None:
            return None
        return FramePair(
            None,
            self._message(INPUT, measurement),
            separated=prediction is not None,
            depth=self._message(DEPTH, measurement),
        )

    def _follow_run(self) -> RunDescription | None:
        if (run := self._newest.run) is not self._run:
            self._run, self._headers = run, PictureHeaders(run) if run else None
            self._made.clear()
        return run

    def _message(self, topic: bytes, frame: SRFrame | MulticolorFrame) -> Message | None:
        """Return a frame as viewers take it, made once; None for what it does not have."""
        key = topic, frame.stream.channel
        made_of, message = self._made.get(key, (None, None))
        if made_of is not frame and (message := self._converted(topic, frame)) is not None:
            self._made[key] = frame, message
        return message

    def _converted(self, topic: bytes, frame: SRFrame | MulticolorFrame) -> Message | None:
        headers, run = self._headers, self._run
        assert headers is not None
        assert run is not None
        name = topic.decode()
        if topic == DEPTH and isinstance(frame, SRFrame):
            if frame.depth_nm is None:
                return None
            return Message(name, headers.depth(frame, frame.t), frame.depth_nm)
        if isinstance(frame, SRFrame):
            pixels = to_uint16(frame.image, run.recon_offset_adu)
            return Message(name, headers.measurement(frame, frame.t, pixels), pixels)
        if topic == FRAME:
            return Message(name, headers.prediction(frame, frame.t), frame.channels)
        if frame.uncertainty is None:
            return None
        return Message(name, headers.uncertainty(frame, frame.t), frame.uncertainty)


class SessionPairs(RunPairs):
    """The pairs of a `LiveSR` or `Replay` that may be running already, by its signals.

    Parameters
    ----------
    session : whose frames are shown, whenever it runs
    """

    def __init__(self, session: Session) -> None:
        super().__init__(Newest(), lambda: dict(session.status()))
        self._session = session
        session.input_ready.connect(self._newest.recon)
        session.frame_ready.connect(self._newest.separated)
        session.provisional_ready.connect(self._newest.separated)

    def close(self) -> None:
        """Listen no longer; may be called twice."""
        self._session.input_ready.disconnect(self._newest.recon, missing_ok=True)
        self._session.frame_ready.disconnect(self._newest.separated, missing_ok=True)
        self._session.provisional_ready.disconnect(self._newest.separated, missing_ok=True)

    def _follow_run(self) -> RunDescription | None:
        self._newest.run = self._session.description
        return super()._follow_run()


def _names(run: RunDescription) -> set[str]:
    return {channel.name for channel in run.channels}
