"""The newest pictures of a run in this process, which need no address: its signals hand them over.

Owns which frames are the newest. The thread of the run only puts a frame in the place of the one
before; it is converted when somebody looks, and none that nobody looked at is.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from livesr.base.frames import MulticolorFrame, SRFrame, Stream
from livesr.formats.wire import FRAME, INPUT, UNCERTAINTY, Message
from livesr.live.sinks.headers import PictureHeaders
from livesr.live.sinks.sink import to_uint16
from livesr.viewer.frame_pairs import FramePair, Selection
from livesr.viewer.subscriber import StreamName

if TYPE_CHECKING:
    from livesr.base.run_description import RunDescription
    from livesr.live.session import Session


class RunPairs:
    """The pairs of a `LiveSR` or `Replay`: always the newest.

    Looking belongs to one thread, whichever it is.

    Parameters
    ----------
    session : whose frames are shown, whenever it runs
    """

    length, problem = None, ""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._newest: dict[tuple[bytes, Stream], SRFrame | MulticolorFrame] = {}
        self._run: RunDescription | None = None
        self._headers: PictureHeaders | None = None
        self._made: dict[tuple[bytes, Stream], tuple[object, Message]] = {}
        self.version = 0
        session.input_ready.connect(self._take_measurement)
        session.frame_ready.connect(self._take_prediction)
        session.provisional_ready.connect(self._take_prediction)

    def close(self) -> None:
        """Listen no longer; may be called twice."""
        self._session.input_ready.disconnect(self._take_measurement, missing_ok=True)
        self._session.frame_ready.disconnect(self._take_prediction, missing_ok=True)
        self._session.provisional_ready.disconnect(self._take_prediction, missing_ok=True)

    @property
    def endpoint(self) -> str:
        """What is followed, in words."""
        return "the run in this program"

    @property
    def state(self) -> str:
        """One of waiting, starting, live, ended."""
        if not self._session.status():
            return "ended" if self.version else "waiting"
        return "live" if self._newest else "starting"

    @property
    def status(self) -> Mapping[str, Any]:
        """State of the run; its report once it has ended."""
        return dict(self._session.status() or self._session.report)

    def streams(self) -> tuple[StreamName, ...]:
        """Return every stream that gave a picture in this run."""
        streams = dict.fromkeys(stream for _, stream in self._frames())
        return tuple(
            StreamName(s.channel, s.position, self._run.positions[s.position], s.z)
            for s in streams
            if self._run
        )

    def pair(
        self, selection: Selection, index: int = 0, *, measured: bool = False
    ) -> FramePair | None:
        """Return the newest pair; `index` means nothing here."""
        frames = self._frames()
        prediction = _newest(frames, FRAME, selection)
        measurement = _newest(frames, INPUT, selection)
        if isinstance(prediction, MulticolorFrame) and not (measured and measurement):
            return FramePair(
                self._message(FRAME, prediction),
                self._message(INPUT, prediction.source),
                uncertainty=self._message(UNCERTAINTY, prediction),
            )
        if measurement is None:
            return None
        return FramePair(None, self._message(INPUT, measurement), separated=prediction is not None)

    def _take_measurement(self, frame: SRFrame) -> None:
        self._take(INPUT, frame)

    def _take_prediction(self, frame: MulticolorFrame) -> None:
        self._take(FRAME, frame)

    def _take(self, topic: bytes, frame: SRFrame | MulticolorFrame) -> None:
        """Keep a frame in the place of the one before; in a thread of the run."""
        key = topic, frame.stream
        with self._lock:
            self._newest.pop(key, None)  # the newest stream is the last
            self._newest[key] = frame
            self.version += 1

    def _frames(self) -> dict[tuple[bytes, Stream], SRFrame | MulticolorFrame]:
        """Return the newest frames of the run that is open, or was last."""
        run = self._session.description
        with self._lock:
            if run is not self._run:  # what is left of the run before has no header in this one
                self._run, self._headers = run, PictureHeaders(run) if run else None
                self._newest.clear()
                self._made.clear()
            return dict(self._newest)

    def _message(self, topic: bytes, frame: SRFrame | MulticolorFrame) -> Message | None:
        """Return a frame as viewers take it, made once; None for an uncertainty that is not."""
        key = topic, frame.stream
        made_of, message = self._made.get(key, (None, None))
        if made_of is not frame and (message := self._converted(topic, frame)) is not None:
            self._made[key] = frame, message
        return message

    def _converted(self, topic: bytes, frame: SRFrame | MulticolorFrame) -> Message | None:
        headers, run = self._headers, self._run
        assert headers is not None
        assert run is not None
        name = topic.decode()
        if isinstance(frame, SRFrame):
            pixels = to_uint16(frame.image, run.recon_offset_adu)
            return Message(name, headers.measurement(frame, frame.t, pixels), pixels)
        if topic == FRAME:
            return Message(name, headers.prediction(frame, frame.t), frame.channels)
        if frame.uncertainty is None:
            return None
        return Message(name, headers.uncertainty(frame, frame.t), frame.uncertainty)


def _newest(
    frames: Mapping[tuple[bytes, Stream], SRFrame | MulticolorFrame],
    topic: bytes,
    selection: Selection,
) -> SRFrame | MulticolorFrame | None:
    wanted = selection.position, selection.channel, selection.z
    for (kind, stream), frame in reversed(frames.items()):
        fits = all(w is None or w == s for w, s in zip(wanted, stream, strict=True))
        if kind == topic and fits:
            return frame
    return None
