"""A Chromium without a screen, told what to do over its own protocol.

For the bench and the pictures in the documents.

Owns the browser's process and the connection to it. The preview itself opens whatever browser the
user has. Nothing is watched but what is asked for: a tool that listens to every message of a page
would be the larger part of what is measured.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from websockets.sync.client import ClientConnection, connect

from livesr.base.errors import UsageError

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
"""Software rendering, no calls home; the sandbox needs rights that a container has not."""

_ANSWER_S = 60.0
_ON_ITS_WAY = "Cannot find default execution context"
"""Chromium's answer while a page is between two documents.

Nothing was run, so it can be asked again.
"""


class ChromiumError(UsageError):
    """There is no Chromium, or it does not do what it is told."""


def find_chromium() -> str | None:
    """Return the path of a Chromium, None if there is none."""
    return next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )


@contextmanager
def chromium(*flags: str) -> Iterator[Browser]:
    """Run a browser with a profile of its own while the block runs.

    Raises
    ------
    ChromiumError
        If there is none or it does not start.
    """
    if (path := find_chromium()) is None:
        raise ChromiumError(
            "There is no Chromium on this computer: install chromium or Google Chrome."
        )
    with tempfile.TemporaryDirectory(
        prefix="livesr-chromium-", ignore_cleanup_errors=True
    ) as profile:
        command = [
            path,
            *FLAGS,
            *flags,
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
            "about:blank",
        ]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)  # noqa: S603 - found on the PATH
        try:
            with connect(_address(process), max_size=None, compression=None) as connection:
                yield Browser(connection)
        finally:
            process.terminate()
            process.communicate(timeout=_ANSWER_S)


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if "DevTools listening on " in line:
            return line.partition("DevTools listening on ")[2].strip()
    raise ChromiumError(
        "Chromium ended before it could be spoken to. Does it start from a terminal?"
    )


class Browser:
    """A running browser; opens pages."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = count(1)

    def open(
        self,
        url: str,
        width: int = 1280,
        height: int = 900,
        *,
        scheme: str = "dark",
        touch: bool = False,
    ) -> Page:
        """Open a page of the given size; `scheme` is "dark" or "light"."""
        target = self.call("Target.createTarget", url="about:blank", newWindow=True)[
            "targetId"
        ]  # a hidden tab draws nothing
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, target, session)
        page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        page.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        if touch:
            page.call("Emulation.setTouchEmulationEnabled", enabled=True)
        page.call("Page.navigate", url=url)
        return page

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol; return its answer.

        Raises
        ------
        ChromiumError
            If the browser refuses it.
        """
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        self._connection.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while (answer := json.loads(self._connection.recv(timeout=_ANSWER_S))).get("id") != number:
            pass
        if "error" in answer:
            raise ChromiumError(f"Chromium refuses {method}: {answer['error'].get('message')}.")
        result: dict[str, Any] = answer["result"]
        return result


class Page:
    """One page of a browser."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self._browser, self._target, self._session = browser, target, session

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command for this page; return its answer."""
        return self._browser.call(method, self._session, **parameters)

    def run(self, script: str, *arguments: Any) -> Any:
        """Call a JavaScript function in the page and wait for what it returns.

        Raises
        ------
        ChromiumError
            If it throws.
        """
        expression = f"({script})(...{json.dumps(arguments)})"
        answer = self._evaluate(expression)
        if "exceptionDetails" in answer:
            raise ChromiumError(
                "The page threw:"
                f" {answer['exceptionDetails'].get('exception', {}).get('description')}."
            )
        return answer["result"].get("value")

    def _evaluate(self, expression: str) -> dict[str, Any]:
        deadline = time.monotonic() + _ANSWER_S
        while True:
            try:
                return self.call(
                    "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
                )
            except ChromiumError as error:
                if _ON_ITS_WAY not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def wait(self, seconds: float) -> None:
        """Let the page go on for a while."""
        self.run("ms => new Promise(done => setTimeout(done, ms))", 1000 * seconds)

    def wait_for(self, script: str, *arguments: Any) -> None:
        """Wait until a JavaScript function returns something true."""
        self.run(
            f"async (...a) => {{ while (!({script})(...a)) await new Promise(f => setTimeout(f,"
            " 20)); }",
            *arguments,
        )

    def press(self, key: str) -> None:
        """Press a key."""
        self.run(
            "key => { document.body.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles:"
            " true})) }",
            key,
        )

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """Send a mouse event of the protocol.

        MouseMoved, mousePressed, mouseReleased, mouseWheel.
        """
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def screenshot(self) -> bytes:
        """Return what is shown as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def close(self) -> None:
        """Close the page."""
        self._browser.call("Target.closeTarget", targetId=self._target)
