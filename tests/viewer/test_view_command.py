"""`livesr view` as its user runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from websockets.sync.client import connect

from contracts import small_store
from livesr.viewer.icons import CACHE


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return small_store(tmp_path / "run.ome.zarr", 3)


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
def test_it_prints_a_link_for_one_browser_then_the_next_until_ctrl_c(store: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "livesr",
        "view",
        str(store),
        "--host",
        "0.0.0.0",
        "--no-browser",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as view:
        links = []
        for _ in range(2):
            links.append(view.stdout.readline().split()[-1])
            here = re.sub(
                r"//[^:/]+:", "//127.0.0.1:", links[-1]
            )  # printed with the computer's name
            with urllib.request.urlopen(here, timeout=60) as page:
                assert page.status == 200
        assert len({link.partition("?code=")[2] for link in links} - {""}) == 2
        view.send_signal(signal.SIGINT)
        assert view.wait(20) == 130
        assert "Traceback" not in view.stderr.read()


_WITHOUT_THE_EXTRA = """
import importlib.abc, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {%s}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from livesr.__main__ import main
main()
"""


@pytest.mark.parametrize("missing", ["'pyconify'", "'ndv'", "'qtpy'", "'pyconify', 'ndv', 'qtpy'"])
def test_a_window_without_its_extra_is_a_sentence(store: Path, missing: str) -> None:
    script = _WITHOUT_THE_EXTRA % missing
    done = subprocess.run(
        [sys.executable, "-c", script, "view", str(store), "--window"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYCONIFY_CACHE": str(CACHE)},  # as a process with a window leaves it
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "pip install 'livesr[viewer]'" in " ".join(done.stderr.split())


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
def test_the_page_of_a_run_stays_until_ctrl_c_and_plays_what_it_left(tmp_path: Path) -> None:
    settings = ["--frames", "3", "--size", "64", "--engine", "none", "--view"]
    command = [sys.executable, "-m", "livesr", "demo", *settings, "--store", "d.ome.zarr"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "BROWSER": "true", "COLUMNS": "200"},
    ) as demo:
        said: list[str] = []
        while not said or "until Ctrl-C" not in said[-1]:
            line = demo.stdout.readline()
            assert line, demo.stderr.read()
            said.append(line)
        url = next(re.search(r"http://\S+", line) for line in said if "http://" in line)[0]
        with urllib.request.urlopen(url, timeout=60) as page:
            assert page.status == 200
        told = json.loads(first_status(url))
        assert (told["state"], told["length"]) == ("recorded", 3)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(30) == 0
        assert "Traceback" not in demo.stderr.read()


def first_status(url: str) -> str:
    """Return what the server says of its source to a page that opens."""
    address = url.partition("?")[0].replace("http", "ws", 1)
    with connect(f"{address}stream", origin=address.replace("ws", "http", 1).rstrip("/")) as page:
        for message in page:
            if isinstance(message, str) and '"status"' in message:
                return message
    raise AssertionError("the server said nothing")
