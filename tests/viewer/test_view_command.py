"""`livesr view` as its user runs it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from contracts import describe, feed
from livesr.live.sinks.ome_zarr import OMEZarrSink


@pytest.fixture
def store(tmp_path: Path) -> Path:
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    sink.open(describe())
    for t in range(3):
        feed(sink, t)
    sink.close({})
    return sink.path


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
