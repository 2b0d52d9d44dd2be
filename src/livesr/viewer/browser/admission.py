"""Who and what the preview's server answers: its own few files, and pages that came from it.

Owns the files, the headers sent with them, and the checks on token, Host and Origin. Opens no socket.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from http import HTTPStatus
from importlib import resources
from urllib.parse import parse_qs

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

STREAM_PATH = "/stream"
_FOLDER = "static"
_SCRIPTS = (
    "app", "channels", "connection", "format", "histogram", "panes", "planes", "playback", "readout", "shortcuts",
    "streams", "viewport",
)  # fmt: skip
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/index.html": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8") for name in _SCRIPTS},
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the address may hold the token
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Connection": "close",
}
_LOOPBACK_NAME = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?", re.IGNORECASE)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`; a name other than "localhost" counts as reachable."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Admission:
    """Answers plain requests, and lets a websocket pass or refuses it.

    On loopback the browser must have asked for a loopback name: a name that an attacker's DNS points here is refused. On
    any other address the page and its stream need `token`. A websocket must come from a page of the same Host.

    Attributes
    ----------
    token : secret part of the address, None on loopback
    """

    def __init__(self, host: str) -> None:
        self.token = None if is_loopback(host) else secrets.token_urlsafe(24)
        folder = resources.files(__package__) / _FOLDER
        self._files = {path: (folder.joinpath(name).read_bytes(), kind) for path, (name, kind) in _FILES.items()}

    def answer(self, request: Request) -> Response | None:
        """Return the response, or None to go on to the websocket's own handshake."""
        path, _, query = request.path.partition("?")
        hosts = request.headers.get_all("Host")
        if len(hosts) != 1 or not self._is_known(hosts[0]):
            return _refusal(HTTPStatus.MISDIRECTED_REQUEST, "This preview answers to the name localhost only.")
        if path != STREAM_PATH and path not in self._files:
            return _refusal(HTTPStatus.NOT_FOUND, "There is no such page.")
        if path in {"/", "/index.html", STREAM_PATH} and not self._has_token(query):
            return _refusal(HTTPStatus.FORBIDDEN, "Open the address that livesr printed; it ends with a token.")
        if path == STREAM_PATH:
            return self._check_origin(request.headers.get_all("Origin"), hosts[0])
        body, kind = self._files[path]
        return _response(HTTPStatus.OK, kind, body)

    def _is_known(self, host: str) -> bool:
        return self.token is not None or _LOOPBACK_NAME.fullmatch(host) is not None

    def _has_token(self, query: str) -> bool:
        given = parse_qs(query).get("token", [""])[0]
        return self.token is None or secrets.compare_digest(given.encode(), self.token.encode())

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
