"""Who and what the preview's server answers: its own few files, and pages that came from it.

Owns the files, the headers sent with them, the invitations, and the checks on pass, Host and
Origin. Opens no socket.

Beyond loopback whoever opens the page must hold an invitation: an address with a code that lets in
one browser, once. That browser keeps a pass, a cookie which no script reads and no other site
sends; pages that it reloads or opens anew show it. So neither a terminal's scrollback, a browser's
history nor a list of processes holds anything that opens the page a second time.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from http import HTTPStatus
from importlib import resources
from urllib.parse import parse_qs

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from livesr.base.hosts import is_loopback

STREAM_PATH = "/stream"
_FOLDER = "static"
_SCRIPTS = (
    "app",
    "channels",
    "connection",
    "format",
    "histogram",
    "localised",
    "measure",
    "panes",
    "planes",
    "playback",
    "readout",
    "shortcuts",
    "streams",
    "viewport",
)
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/index.html": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8") for name in _SCRIPTS},
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the address may hold a code
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Connection": "close",
}
_MAX_INVITATIONS = 100
_UNINVITED = "Open the link that livesr printed: it lets this browser in."
_USED = (
    "This link has been used, or belongs to an earlier start: every link lets in one browser, once."
    " The terminal in which livesr runs shows the next one."
)
# A page of this server must ask for the next one: a browser that came from elsewhere does not send
# a strict cookie yet.
_WELCOME = b"""<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=/"><title>livesr</title>
<p>Welcome. <a href="/">To the preview</a></p>
"""
_LOOPBACK_NAME = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?", re.IGNORECASE)


class AccessControl:
    """Answers plain requests, and lets a websocket pass or refuses it.

    On loopback the browser must have asked for a loopback name: a name that an attacker's DNS
    points here is refused. On any other address the page and its stream need a pass. A websocket
    must come from a page of the same Host.

    Attributes
    ----------
    is_open : whether everybody who reaches the address is let in: on loopback
    on_joined : called in the server's thread when an invitation is used, with its code and the
        browser's address
    """

    def __init__(self, host: str) -> None:
        self.is_open = is_loopback(host)
        self.on_joined: Callable[[str, str], None] = lambda code, address: None
        self._pass = secrets.token_urlsafe(24)
        # Cookies of one host are shared by all its ports: a name of its own for every server.
        self._cookie = f"livesr-{secrets.token_hex(4)}"
        self._invitations: dict[str, None] = {}
        folder = resources.files(__package__) / _FOLDER
        self._files = {
            path: (folder.joinpath(name).read_bytes(), kind)
            for path, (name, kind) in _FILES.items()
        }

    def invite(self) -> str:
        """Return a code that lets in one browser.

        Of those that nobody has used, the newest hundred hold.
        """
        code = secrets.token_urlsafe(24)
        self._invitations[code] = None
        while len(self._invitations) > _MAX_INVITATIONS:
            self._invitations.pop(next(iter(self._invitations)))
        return code

    def answer(self, request: Request, address: str = "") -> Response | None:
        """Return the response to a browser at `address`, or None to go on to the websocket's own
        handshake.
        """
        path, _, query = request.path.partition("?")
        hosts = request.headers.get_all("Host")
        if len(hosts) != 1 or not self._is_known(hosts[0]):
            return _refusal(
                HTTPStatus.MISDIRECTED_REQUEST, "This preview answers to the name localhost only."
            )
        if path != STREAM_PATH and path not in self._files:
            return _refusal(HTTPStatus.NOT_FOUND, "There is no such page.")
        if path in {"/", "/index.html", STREAM_PATH} and not self._has_pass(
            request.headers.get_all("Cookie")
        ):
            return (
                self._admit(query, address)
                if path != STREAM_PATH
                else _refusal(HTTPStatus.FORBIDDEN, _UNINVITED)
            )
        if path == STREAM_PATH:
            return self._check_origin(request.headers.get_all("Origin"), hosts[0])
        body, kind = self._files[path]
        return _response(HTTPStatus.OK, kind, body)

    def _is_known(self, host: str) -> bool:
        return not self.is_open or _LOOPBACK_NAME.fullmatch(host) is not None

    def _has_pass(self, cookies: list[str]) -> bool:
        shown = [
            c.strip().partition("=")[2]
            for line in cookies
            for c in line.split(";")
            if self._cookie in c
        ]
        return self.is_open or any(
            secrets.compare_digest(s.encode(), self._pass.encode()) for s in shown
        )

    def _admit(self, query: str, address: str) -> Response:
        """Take an invitation for a pass."""
        code = parse_qs(query).get("code", [""])[0]
        if not code:
            return _refusal(HTTPStatus.FORBIDDEN, _UNINVITED)
        if code not in self._invitations:
            return _refusal(HTTPStatus.FORBIDDEN, _USED)
        del self._invitations[code]
        self.on_joined(code, address)
        response = _response(HTTPStatus.OK, "text/html; charset=utf-8", _WELCOME)
        response.headers["Set-Cookie"] = (
            f"{self._cookie}={self._pass}; Path=/; HttpOnly; SameSite=Strict"
        )
        return response

    @staticmethod
    def _check_origin(origins: list[str], host: str) -> Response | None:
        same_site = {f"http://{host}".lower(), f"https://{host}".lower()}
        if len(origins) == 1 and origins[0].lower() in same_site:
            return None
        return _refusal(HTTPStatus.FORBIDDEN, "The stream is for the page of this preview only.")


def _refusal(status: HTTPStatus, sentence: str) -> Response:
    return _response(status, "text/plain; charset=utf-8", f"{sentence}\n".encode())


def _response(status: HTTPStatus, kind: str, body: bytes) -> Response:
    headers = Headers(_HEADERS)
    headers["Content-Type"], headers["Content-Length"] = kind, str(len(body))
    return Response(status.value, status.phrase, headers, body)
