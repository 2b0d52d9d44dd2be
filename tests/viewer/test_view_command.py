"""`livesr view` as its user runs it."""

from __future__ import annotations

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
def test_it_prints_an_address_that_opens_until_ctrl_c(store: Path) -> None:
    command = [sys.executable, "-m", "livesr", "view", str(store), "--host", "0.0.0.0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as view:
        here, elsewhere = view.stdout.readline().split()[-1], view.stdout.readline().split()[-1]
        assert "?token=" in here
        assert (
            here.partition(":" + here.split(":")[2])[1] in elsewhere
        )  # the same port and token under the computer's name
        with urllib.request.urlopen(here.replace("0.0.0.0", "127.0.0.1"), timeout=60) as page:
            assert b"<title>livesr</title>" in page.read()
        view.send_signal(signal.SIGINT)
        assert view.wait(20) == 130
        assert "Traceback" not in view.stderr.read()
