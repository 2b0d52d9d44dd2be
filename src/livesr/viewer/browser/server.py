"""The preview's server: gives a browser the page, then pushes it the newest pictures.

Owns one thread with its event loop, the sockets, and how fast each page is served. Who is let in is decided in
`admission.py`, what a picture looks like in `pictures.py`. `websockets` is the only server there is.

A page gets at most `IN_FLIGHT` frames that it has not acknowledged; when it acknowledges one, it gets the newest there is
then. So a slow page skips frames, a stalled one costs nothing, and neither is noticed by the others.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from livesr.base.errors import BindError
from livesr.viewer.browser.admission import Admission
from livesr.viewer.browser.pictures import Frame, PictureMaker, Source

log = logging.getLogger(__name__)
# To websockets every port scan is an error with a traceback; errors of this server's own still pass.
_connection_log = log.getChild("connections")
_connection_log.addFilter(lambda record: record.msg != "opening handshake failed")

IN_FLIGHT = 2  # one on the page's screen, one on its way: hides the round trip without queueing old pictures
_POLL_S = 0.005
_FRAME_S = 1 / 30  # faster than the eye needs would only take time from the network
_STATUS_S = 0.1  # how soon a page knows that the stream has begun or ended
_CLOSE_S = 1.0
_MAX_MESSAGE_BYTES = 4096


class PreviewServer:
    """Serves the preview page of one stream until stopped; a context manager.

    Parameters
    ----------
    source
        Where the newest frames come from (a `Subscriber`). It is only read; closing it stays with the caller.
    host
        Loopback by default. On any other address the page opens only with the secret token in `url`.
    port
        0 takes a free one; `port` then tells which.
    """

    def __init__(self, source: Source, host: str = "127.0.0.1", port: int = 0) -> None:
        # "localhost" may be two addresses, which would get two different free ports.
        self.host = "127.0.0.1" if host == "localhost" else host
        self.port = port
        self._admission = Admission(self.host)
        self._maker = PictureMaker(source)
        self._running: _Running | None = None

    @property
    def url(self) -> str:
        """Address to open, with the token where one is needed."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        token = self._admission.token
        return f"http://{host}:{self.port}/" + (f"?token={token}" if token else "")

    def start(self) -> None:
        """Bind, then serve in a thread of its own.

        Raises
        ------
        BindError
            If the address cannot be bound.
        """
        running = _Running(self._admission, self._maker)
        try:
            self.port = running.start(self.host, self.port)
        except (OSError, OverflowError, UnicodeError) as e:
            raise BindError(
                f"The preview cannot be served on {self.host}:{self.port}: {getattr(e, 'strerror', None) or e}. "
                "Try another port, or 0 for a free one."
            ) from e
        self._running = running

    def stop(self) -> None:
        """Close every page's connection and end the thread; stopping twice is allowed."""
        if self._running is not None:
            self._running.stop()
            self._running = None

    def __enter__(self) -> PreviewServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Running:
    """One start of the server: the thread, its loop, and what lives in it."""

    def __init__(self, admission: Admission, maker: PictureMaker) -> None:
        self._admission = admission
        self._feed = _Feed(maker)
        self._stopping = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop
        self._port: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, name="livesr-preview", daemon=True)

    def start(self, host: str, port: int) -> int:
        """Return the bound port, or raise what binding it raised; the thread has ended then."""
        self._address = (host, port)
        self._thread.start()
        try:
            return self._port.result()
        except BaseException:
            self._thread.join()
            raise

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        # The loop lives in this thread from its first moment: the caller may be inside a loop of its own (a notebook).
        try:
            asyncio.run(self._serve())
        finally:
            self._feed.close()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            server = await self._bind(*self._address)
        except Exception as e:  # not handled here: raised again in `start`
            self._port.set_exception(e)
            return
        self._port.set_result(next(iter(server.sockets)).getsockname()[1])
        watching = asyncio.create_task(self._feed.watch())
        await self._stopping.wait()
        watching.cancel()
        server.close()
        await server.wait_closed()

    async def _bind(self, host: str, port: int) -> Server:
        return await serve(
            self._serve_page,
            host,
            port,
            process_request=self._answer,
            compression=None,  # JPEG does not shrink further
            max_size=_MAX_MESSAGE_BYTES,
            close_timeout=_CLOSE_S,
            server_header=None,
            logger=_connection_log,
        )

    def _answer(self, _connection: ServerConnection, request: Request) -> Response | None:
        return self._admission.answer(request)

    async def _serve_page(self, connection: ServerConnection) -> None:
        await _Page(connection, self._feed).serve()


class _Feed:
    """Notices new frames and turns the newest into pictures, once for all pages that ask for it."""

    def __init__(self, maker: PictureMaker) -> None:
        self._maker = maker
        self._changed = asyncio.Condition()
        self._making = asyncio.Lock()
        self._frame: Frame | None = None
        # Its own thread: an acknowledgement or a new page never waits for a JPEG.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="livesr-preview-pictures")

    def close(self) -> None:
        self._executor.shutdown()

    async def watch(self) -> None:
        """Look at the source until cancelled; if it fails, the pages say so and keep their last picture."""
        try:
            while True:
                if self._maker.poll():
                    async with self._changed:
                        self._changed.notify_all()
                await asyncio.sleep(_POLL_S)
        except Exception as e:
            log.exception("the source of the preview failed")
            self._maker.fail(e)

    async def newest(self, after: int) -> Frame:
        """Wait for a frame with an id above `after`; the newest when its turn to be made has come."""
        while True:
            async with self._changed:
                while self._maker.id <= after:
                    await self._changed.wait()
            frame = await self._make()
            if frame is not None:
                return frame
            after = self._maker.id

    async def _make(self) -> Frame | None:
        async with self._making:
            if self._frame is None or self._frame.id != self._maker.id:
                loop = asyncio.get_running_loop()
                self._frame = await loop.run_in_executor(self._executor, self._maker.make)
            return self._frame

    def status(self) -> str:
        """JSON text of what the page says beside the pictures."""
        return json.dumps({"type": "status", **self._maker.status()})


class _Page:
    """One connected page."""

    def __init__(self, connection: ServerConnection, feed: _Feed) -> None:
        self._connection, self._feed = connection, feed
        self._unacknowledged: set[int] = set()
        self._room = asyncio.Semaphore(IN_FLIGHT)

    async def serve(self) -> None:
        """Serve until the page goes, misbehaves or the server stops."""
        try:
            async with asyncio.TaskGroup() as tasks:
                sending = [tasks.create_task(self._send_frames()), tasks.create_task(self._send_status())]
                await self._receive()
                for task in sending:
                    task.cancel()
        except* ConnectionClosed:
            log.debug("a page has gone")

    async def _receive(self) -> None:
        async for message in self._connection:
            if not self._acknowledge(message):
                await self._connection.close(CloseCode.POLICY_VIOLATION, 'expected {"type": "ack", "id": <frame>}')

    def _acknowledge(self, message: str | bytes) -> bool:
        """Make room for the next frame; False if `message` acknowledges nothing that was sent."""
        try:
            content = json.loads(message)
            if content["type"] != "ack":
                return False
            self._unacknowledged.remove(content["id"])
        except (ValueError, TypeError, KeyError, RecursionError):
            return False
        self._room.release()
        return True

    async def _send_frames(self) -> None:
        loop, last = asyncio.get_running_loop(), 0
        while True:
            await self._room.acquire()
            frame = await self._feed.newest(after=last)
            last, due = frame.id, loop.time() + _FRAME_S
            self._unacknowledged.add(last)
            await self._connection.send(frame.header())
            for picture in frame.pictures:
                await self._connection.send(picture)
            await asyncio.sleep(due - loop.time())

    async def _send_status(self) -> None:
        said = ""
        while True:
            if (status := self._feed.status()) != said:
                await self._connection.send(status)
                said = status
            await asyncio.sleep(_STATUS_S)
