"""One connected page: how fast it is served, and what it asked for.

A page gets at most `IN_FLIGHT` frames that it has not acknowledged; when it acknowledges one, it
gets the newest there is then. So a slow page skips frames, a stalled one costs nothing, and neither
is noticed by the others.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from livesr.base.errors import LiveSRError
from livesr.viewer.browser.feed import Feed
from livesr.viewer.browser.messages import (
    Acknowledgement,
    Measure,
    Play,
    Probe,
    Seek,
    SetView,
    TakeMovie,
    TakeSnapshot,
    View,
    parse_message,
)
from livesr.viewer.browser.past import Past
from livesr.viewer.browser.pictures import Frame
from livesr.viewer.frame_pairs import FramePair

log = logging.getLogger(__name__)

# one on the page's screen, one on its way: hides the round trip without queueing old pictures
IN_FLIGHT = 2
_FRAME_S = 1 / 90  # no screen shows more, and every frame takes time from the run
_STATUS_S = 0.1  # how soon a page knows that the stream has begun or ended
_HISTOGRAM_S = 0.2
_PLAYED_S = 0.1  # from one moment of a store to the next


class Page:
    """Serves one connection."""

    def __init__(self, connection: ServerConnection, feed: Feed) -> None:
        self._connection, self._feed = connection, feed
        self._view = View()
        self._index, self._playing = 0, True
        self._lacking: int | None = None  # a moment of a store of which nothing can be read
        self._past = Past()
        self._at: tuple[float, ...] | None = None
        self._measure: Measure | None = None
        self._shown: Frame | None = None
        self._number = 0
        self._unacknowledged: set[int] = set()
        self._room = asyncio.Semaphore(IN_FLIGHT)
        self._sending = asyncio.Lock()  # a header and its pictures follow each other
        self._histogram_due_s = 0.0
        self._movie: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        """Serve until the page goes, misbehaves or the server stops."""
        try:
            async with asyncio.TaskGroup() as tasks:
                # a run may become a recording while the page is there
                loops = [self._send_frames(), self._send_status(), self._play()]
                sending = [tasks.create_task(loop) for loop in loops]
                await self._receive()
                for task in sending:
                    task.cancel()
        except* ConnectionClosed:
            log.debug("a page has gone")
        finally:
            if self._movie is not None:
                self._movie.cancel()

    # -- what the page says ------------------------------------------------------------------------

    async def _receive(self) -> None:
        async for message in self._connection:
            if not await self._take(message):
                await self._connection.close(
                    CloseCode.POLICY_VIOLATION, "this is nothing that the page says"
                )

    async def _take(self, message: str | bytes) -> bool:
        """Do what the page says; False if it says nothing sensible."""
        said = parse_message(message)
        match said:
            case Acknowledgement():
                return self._acknowledge(said.id)
            case SetView():
                if said.view.selection != self._view.selection:
                    self._past.forget()
                self._view, self._histogram_due_s = said.view, 0.0
            case Play():
                self._play_or_pause(said.playing)
            case Seek():
                self._index, self._playing = said.index, False
                if self._live:
                    self._past.seek(said.index)
            case Probe():
                self._at = said.at
                await self._send_probe()
                return True
            case Measure():
                self._measure = said if said.at else None
                await self._send_measured()
                return True
            case TakeSnapshot():
                await self._send_snapshot(said)
                return True
            case TakeMovie():
                if self._movie is None or self._movie.done():
                    self._movie = asyncio.create_task(self._send_movie(said))
                return True
            case _:
                return False
        await self._feed.notify()
        return True

    @property
    def _live(self) -> bool:
        """Whether there is a newest picture to follow, rather than a recording."""
        return self._feed.source.length is None

    @property
    def _looked_at(self) -> FramePair | None:
        """What a live picture is frozen at; None where it is not."""
        return self._past.pair if self._live else None

    def _play_or_pause(self, playing: bool) -> None:
        """Let a recording play, or stop it; freeze a live picture, or follow the stream again."""
        self._playing = playing
        if playing:
            self._past.thaw()
        elif self._live:
            self._past.freeze()

    def _acknowledge(self, number: int) -> bool:
        """Make room for the next frame; False if `number` was not sent."""
        if number not in self._unacknowledged:
            return False
        self._unacknowledged.remove(number)
        self._room.release()
        return True

    # -- what the page is sent ---------------------------------------------------------------------

    async def _send_frames(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room.acquire()
            frame = await self._next()
            self._shown, due = frame, loop.time() + _FRAME_S
            if self._live and not self._past.frozen:
                self._past.keep(frame.pair)
            self._number += 1
            self._unacknowledged.add(self._number)
            await self._send(frame.header(self._number), *frame.pictures)
            await self._send_probe()
            await self._send_measured()
            await self._send_histograms(frame)
            await asyncio.sleep(due - loop.time())

    async def _next(self) -> Frame:
        """Wait for a frame other than the one that is shown."""
        while True:
            view, index, version = self._view, self._index, self._feed.source.version
            frozen = self._looked_at
            frame = await self._feed.make(view, index, frozen)
            self._lacking = index if frame is None and self._feed.source.length else None
            if frame is not None and (self._shown is None or frame.key != self._shown.key):
                return frame
            async with self._feed.changed:
                now = self._view, self._index, self._feed.source.version
                if (view, index, version) == now and frozen is self._looked_at:
                    await self._feed.changed.wait()

    async def _play(self) -> None:
        """Go from moment to moment of a store, round and round."""
        while True:
            await asyncio.sleep(_PLAYED_S)
            length = self._feed.source.length or 1
            # A page that does not show what it has is not run away from.
            seen = {self._lacking, self._shown.pair.index if self._shown else None}
            if self._playing and self._index % length in seen:
                self._index = (self._index + 1) % length
                await self._feed.notify()

    async def _send_probe(self) -> None:
        if self._shown is not None and self._at is not None:
            await self._send(_text("probe", **self._feed.probe(self._shown, self._at)))

    async def _send_measured(self) -> None:
        if self._shown is not None and (wanted := self._measure) is not None:
            found = await self._feed.measured(self._shown, self._view, wanted)
            await self._send(_text("measured", **found))

    async def _send_histograms(self, frame: Frame) -> None:
        now = asyncio.get_running_loop().time()
        if self._view.histogram and now >= self._histogram_due_s:
            self._histogram_due_s = now + _HISTOGRAM_S
            await self._send(
                _text("histograms", histograms=await self._feed.histograms(frame, self._view))
            )

    async def _send_snapshot(self, wanted: TakeSnapshot) -> None:
        if self._shown is None:
            return
        name, png = await self._feed.snapshot(self._shown, self._view, wanted)
        await self._send(_text("snapshot", name=name), png)

    async def _send_movie(self, wanted: TakeMovie) -> None:
        """Make a film while pictures go on, saying how far it is."""

        async def tell(done: int, total: int) -> None:
            await self._send(_text("movie", done=done, total=total))

        try:
            name, film = await self._feed.movie(self._view, wanted, tell)
            await self._send(_text("movie", name=name), film)
        except LiveSRError as e:
            await self._send(_text("movie", problem=str(e)))
        except ConnectionClosed:
            log.debug("a page has gone before its film was ready")

    async def _send_status(self) -> None:
        said: dict[str, Any] = {}
        while True:
            status = self._feed.status(self._shown)
            status["playing"] = self._playing and status["length"] is not None
            status["frozen"] = len(self._past.frozen) if self._live else 0
            if status != said:
                await self._send(_text("status", **status))
                said = status
            await asyncio.sleep(_STATUS_S)

    async def _send(self, *parts: str | bytes | memoryview) -> None:
        async with self._sending:
            for part in parts:
                await self._connection.send(part)


def _text(kind: str, **content: Any) -> str:
    return json.dumps({"type": kind, **content}, allow_nan=False)
