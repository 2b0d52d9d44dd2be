"""The browser is opened without showing anybody what lets it in.

A real Chromium, with every process watched meanwhile.
"""

from __future__ import annotations

import http.client
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from livesr.viewer.browser.opening import opened
from livesr.viewer.browser.server import PreviewServer
from livesr.viewer.chromium import FLAGS, Browser, ChromiumError, Page, find_chromium
from preview_source import MemorySource, flat

PATIENCE_S = 60


class Watch:
    """What every process of this computer was called, and what stood in its environment, while the
    block ran."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.is_set():
            for name in os.listdir("/proc"):
                if name.isdigit():
                    try:
                        self.seen.add(Path("/proc", name, "cmdline").read_bytes())
                    except OSError:  # it has ended
                        continue
            time.sleep(0.01)


@pytest.fixture
def launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Let `webbrowser` start Chromium as a desktop would.

    Gives where it says how to speak to it.
    """
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("this system lists its processes in another way")
    if (chromium := find_chromium()) is None:
        pytest.skip("no Chromium on this machine")
    said, number = tmp_path / "said.txt", tmp_path / "number"
    flags = shlex.join(
        [*FLAGS, "--remote-debugging-port=0", f"--user-data-dir={tmp_path / 'profile'}"]
    )
    script = tmp_path / "browser"
    script.write_text(f'#!/bin/sh\n{chromium} {flags} "$@" > {said} 2>&1 &\necho $! > {number}\n')
    script.chmod(0o700)
    monkeypatch.setenv("BROWSER", f"{script} %s")
    monkeypatch.setattr(webbrowser, "_tryorder", None)  # it looks at BROWSER once in a process
    monkeypatch.setattr(webbrowser, "_browsers", {})
    yield said
    if number.exists():
        os.kill(int(number.read_text()), signal.SIGTERM)


def waited_for(what: Any) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def said_by(page: Page, script: str) -> Any:
    """What a script returns; None while the page is on its way to another."""
    try:
        return page.run(script)
    except ChromiumError:
        return None


def page_of(browser: Browser) -> Page:
    def found() -> Page | None:
        targets = browser.call("Target.getTargets")["targetInfos"]
        for target in targets:
            if target["type"] == "page":
                session = browser.call(
                    "Target.attachToTarget", targetId=target["targetId"], flatten=True
                )["sessionId"]
                return Page(browser, target["targetId"], session)
        return None

    return waited_for(found)


def debugger(said: Path) -> str:
    def address() -> str | None:
        text = said.read_text() if said.exists() else ""
        return text.partition("DevTools listening on ")[2].partition("\n")[0] or None

    return waited_for(address)


SHOWS = (
    "() => document.getElementById('state-text')?.textContent === 'Live' &&"
    " !!document.querySelector('canvas')"
)


def test_no_process_shows_what_lets_the_browser_in(launcher: Path) -> None:
    source = MemorySource()
    source.say()
    source.give(flat(0, 100, 200, 300))
    with PreviewServer(source.pairs, host="0.0.0.0") as server, Watch() as watch:
        link = server.invite("localhost")
        code = link.partition("code=")[2]
        with (
            opened(link),
            connect(debugger(launcher), max_size=None, compression=None) as connection,
        ):
            page = page_of(Browser(connection))
            waited_for(lambda: said_by(page, "() => location.pathname + location.search") == "/")
            waited_for(lambda: said_by(page, SHOWS))
            assert page.run("() => document.cookie") == ""  # no script reads the pass
            page.call("Page.reload")
            waited_for(lambda: said_by(page, SHOWS))
            # The link once more, as from a browser's history or a terminal's scrollback, in another
            # browser.
            fresh = Browser(connection).call("Target.createBrowserContext")["browserContextId"]
            target = Browser(connection).call(
                "Target.createTarget", url=link, browserContextId=fresh
            )["targetId"]
            session = Browser(connection).call(
                "Target.attachToTarget", targetId=target, flatten=True
            )["sessionId"]
            other = Page(Browser(connection), target, session)
            waited_for(
                lambda: said_by(other, "() => document.body.innerText.includes('has been used')")
            )
    shown = b"\n".join(watch.seen)
    assert b"preview.html" in shown  # it was watched while the browser started
    assert code.encode() not in shown
    assert server._access._pass.encode() not in shown


def test_a_page_that_was_let_in_comes_back_by_itself(launcher: Path) -> None:
    source = MemorySource()
    source.say()
    source.give(flat(0, 100, 200, 300))
    server = PreviewServer(source.pairs, host="0.0.0.0")
    server.start()
    try:
        with (
            opened(server.invite("localhost")),
            connect(debugger(launcher), max_size=None, compression=None) as connection,
        ):
            page = page_of(Browser(connection))
            waited_for(lambda: said_by(page, "() => location.pathname + location.search") == "/")
            waited_for(lambda: said_by(page, SHOWS))
            server.stop()
            waited_for(
                lambda: said_by(
                    page, "() => document.body.innerText.toLowerCase().includes('reconnecting')"
                )
            )
            server.start()  # the same server: it knows the pass that it gave
            waited_for(lambda: said_by(page, SHOWS))
    finally:
        server.stop()


def test_the_file_is_the_owners_alone_and_does_not_stay(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    asked: list[str] = []
    monkeypatch.setattr("webbrowser.open", asked.append)
    with opened("http://localhost:1/?code=a&b=<c>"):
        (file,) = tmp_path.rglob("*.html")
        assert asked == [file.as_uri()]
        assert "code=a&amp;b=&lt;c&gt;" in file.read_text(encoding="utf-8")
        if os.name == "posix":
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert not list(tmp_path.iterdir())
    with opened("http://127.0.0.1:1/"):
        assert asked[-1] == "http://127.0.0.1:1/"


def test_a_new_link_is_printed_when_one_is_used(tmp_path: Path) -> None:
    """`livesr view` as a person starts it."""
    command = [
        sys.executable,
        "-m",
        "livesr",
        "view",
        "tcp://127.0.0.1:59999",
        "--host",
        "0.0.0.0",
        "--no-browser",
    ]
    environment = {**os.environ, "COLUMNS": "400"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout
            first = re.search(r"http://\S+:(\d+)/\?code=(\S+)", process.stdout.readline())
            assert first
            connection = http.client.HTTPConnection("127.0.0.1", int(first[1]), timeout=PATIENCE_S)
            connection.request("GET", f"/?code={first[2]}")
            assert connection.getresponse().status == 200
            connection.close()
            second = re.search(r"127\.0\.0\.1 has joined.*code=(\S+)", process.stdout.readline())
            assert second
            assert second[1] != first[2]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_S)
