"""The preview's server: gives a browser the page, then pushes it the newest pictures.

Owns one thread with its event loop, the sockets, who is let in and how fast each page is served. What a picture looks like
is decided in `pictures.py`. Only `websockets` is used, for the page's own three files as well.

A page gets at most `IN_FLIGHT` frames that it has not acknowledged; when it acknowledges one, it gets the newest there is
then. So a slow page skips frames, a stalled one costs nothing, and neither is noticed by the others.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from importlib import resources
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from livesr.base.errors import BindError
from livesr.viewer.browser.pictures import Frame, PictureMaker, Source

log = logging.getLogger(__name__)
# Every port scan and closed tab is an error to websockets; failures of this server's own are logged here.
_connection_log = logging.getLogger(f"{__name__}.connections")
_connection_log.setLevel(logging.CRITICAL)

IN_FLIGHT = 2  # one on the page's screen, one on its way: hides the round trip without queueing old pictures
_POLL_S = 0.005
_STATUS_S = 1.0
_MAX_MESSAGE_BYTES = 4096

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/index.html": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
}
_STREAM_PATH = "/stream"
_SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the address may hold the token
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class PreviewServer:
    """Serves the preview page of one stream until stopped; a context manager.

    Parameters
    ----------
    source
        Where the newest frames come from (a `Subscriber`); it is only read, and stays the caller's to close.
    host
        Loopback by default. On any other address the page opens only with the secret token in `url`.
    port
        0 takes a free one.

    Notes
    -----
    A request must name this machine as the browser knows it (Host) and a websocket must come from this page (Origin): a
    page of another site, open in the same browser, is refused even on loopback.
    """

    def __init__(self, source: Source, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host = "127.0.0.1" if host == "localhost" else host
        self.port = port
        self.token = None if _is_loopback(self.host) else secrets.token_urlsafe(24)
        folder = resources.files(__package__)
        self._files = {path: (folder.joinpath(name).read_bytes(), kind) for path, (name, kind) in _FILES.items()}
        self._maker = PictureMaker(source)
        self._thread: threading.Thread | None = None
        self._started = threading.Event()
        self._start_error: OSError | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event

    @property
    def url(self) -> str:
        """Address to open, with the token where one is needed."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/" + (f"?token={self.token}" if self.token else "")

    def start(self) -> None:
        """Bind, then serve in a thread of its own.

        Raises
        ------
        BindError
            If the address cannot be bound.
        """
        self._started.clear()
        self._start_error = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="livesr-preview", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._start_error is not None:
            self._thread.join()
            self._thread = None
            raise BindError(
                f"The preview cannot be served on {self.host}:{self.port}: "
                f"{self._start_error.strerror or self._start_error}. Try another port, or 0 for a free one."
            ) from self._start_error

    def stop(self) -> None:
        """Close every page's connection and end the thread; nothing is left behind. Stopping twice is allowed."""
        if self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._thread = None

    def __enter__(self) -> PreviewServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            server = await self._bind()
        except OSError as e:
            self._start_error = e
            return
        finally:
            if self._start_error is not None:
                self._started.set()
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        with ThreadPoolExecutor(1, thread_name_prefix="livesr-preview-jpeg") as self._executor:
            feed = _Feed(self._maker, self._executor)
            self._feed = feed
            watching = asyncio.create_task(feed.watch())
            await self._stop.wait()
            watching.cancel()
            server.close()
            await server.wait_closed()
            with suppress(asyncio.CancelledError):
                await watching
