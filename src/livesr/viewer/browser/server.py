"""The preview's server: gives a browser the page, then pushes it the newest pictures.

Owns one thread with its event loop, and the sockets. Who is let in is decided in `access.py`,
how a page is served in `page.py`, what a picture looks like in `pictures.py`. `websockets` is the
only server there is.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from livesr.base.errors import BindError
from livesr.viewer.browser.access import AccessControl
from livesr.viewer.browser.feed import Feed
from livesr.viewer.browser.page import Page
from livesr.viewer.frame_pairs import FramePairSource

log = logging.getLogger(__name__)
# To websockets every port scan is an error with a traceback; errors of this server's own still
# pass.
_connection_log = log.getChild("connections")
_connection_log.addFilter(lambda record: record.msg != "opening handshake failed")

_CLOSE_S = 1.0
_MAX_MESSAGE_BYTES = 32768
_MAX_CONNECTIONS = 64


class PreviewServer:
    """Serves the preview page of one stream until stopped; a context manager.

    Parameters
    ----------
    source : what is shown: `LiveFramePairs` of a stream, or a `StoreSource`. It is only read;
        closing it stays with the caller
    host : loopback by default. On any other address a browser needs an invitation, see `invite`
    port : 0 takes a free one; `port` then tells which
    """

    def __init__(self, source: FramePairSource, host: str = "127.0.0.1", port: int = 0) -> None:
        # "localhost" may be two addresses, which would get two different free ports.
        self.host = "127.0.0.1" if host == "localhost" else host
        self.port = port
        self._access = AccessControl(self.host)
        self._source = source
        self._running: _Running | None = None

    @property
    def url(self) -> str:
        """Address of the page; beyond loopback it opens for browsers that have been let in."""
        return self._address(self.host)

    @property
    def needs_invitation(self) -> bool:
        """Whether a browser must be let in."""
        return not self._access.is_open

    def invite(self, name: str | None = None) -> str:
        """Return an address that lets in one browser, once; on loopback, `url`.

        Parameters
        ----------
        name : of this computer as that browser knows it, instead of `host`
        """
        address = self._address(name or self.host)
        return f"{address}?code={self._access.invite()}" if self.needs_invitation else address

    def on_joined(self, call: Callable[[str, str], None]) -> None:
        """Let `call` be told when an invitation is used: its code and the browser's address.

        It must not take long.
        """
        self._access.on_joined = call

    def _address(self, host: str) -> str:
        return f"http://[{host}]:{self.port}/" if ":" in host else f"http://{host}:{self.port}/"

    def start(self) -> None:
        """Bind, then serve in a thread of its own.

        Raises
        ------
        BindError
            If the address cannot be bound.
        """
        running = _Running(self._access, self._source)
        try:
            self.port = running.start(self.host, self.port)
        except (OSError, OverflowError, UnicodeError) as e:
            raise BindError(
                f"The preview cannot be served on {self.host}:{self.port}:"
                f" {getattr(e, 'strerror', None) or e}. Try another port, or 0 for a free one."
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


class _Bounded(ServerConnection):
    """One of at most `_MAX_CONNECTIONS`.

    Idle ones must not take the files that a recording in this process needs.
    """

    def __init__(self, beside: set[_Bounded], *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._beside = beside

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or hang up at once."""
        if len(self._beside) >= _MAX_CONNECTIONS:
            cast("asyncio.Transport", transport).abort()
            return
        self._beside.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """End what was begun."""
        if self in self._beside:
            self._beside.remove(self)
            super().connection_lost(exc)


class _Running:
    """One start of the server: the thread, its loop, and what lives in it."""

    def __init__(self, access: AccessControl, source: FramePairSource) -> None:
        self._access = access
        self._feed = Feed(source)
        self._stopping = asyncio.Event()
        self._connections: set[_Bounded] = set()
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
        # The loop lives in this thread from its first moment: the caller may be inside a loop of
        # its own (a notebook).
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
            create_connection=cast("type[ServerConnection]", partial(_Bounded, self._connections)),
            close_timeout=_CLOSE_S,
            server_header=None,
            logger=_connection_log,
        )

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        return self._access.answer(request, str((connection.remote_address or ("",))[0]))

    async def _serve_page(self, connection: ServerConnection) -> None:
        await Page(connection, self._feed).serve()
