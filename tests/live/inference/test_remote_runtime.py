"""A runtime of another package, whose frames leave this computer: one file and one entry point."""

from __future__ import annotations

import socketserver
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend_contract import session_on, settings
from livesr.base.errors import BackendError
from livesr.base.geometry import Geometry
from livesr.live.inference import trial
from livesr.live.inference.engine import Engine
from livesr.live.inference.fallback import FallbackSession
from livesr.live.inference.identity import identity_engine
from livesr.live.inference.runner import in_order
from livesr.live.inference.runtime import BACKENDS, runtime_named, why_unavailable
from livesr.live.paths import build_path
from recorded_runs import mixing_engine, sim_rig

SHAPE = (24, 32)
CODE = """
import os
import socket

import numpy as np

from livesr.live.inference.padding import PaddedSession
from livesr.live.inference.runtime import Runtime


class Elsewhere(Runtime):
    name, title, remote, max_in_flight = "elsewhere", "A server elsewhere", True, 4
    precisions, devices = ("f32",), ("a server",)

    def unavailable(self):
        return None if "ELSEWHERE" in os.environ else "ELSEWHERE names no server."

    def open(self, engine, shape, compute):
        session = Session(engine, shape)
        session.precision = self.choose_precision(compute.precision, engine)
        session.connection = socket.create_connection(("127.0.0.1", int(os.environ["ELSEWHERE"])))
        session.infer()
        return session


class Session(PaddedSession):
    name, device = Elsewhere.name, "a server"

    def _run(self, padded):
        self.connection.sendall(padded.block.tobytes())
        with self.connection.makefile("rb") as stream:
            came = stream.read(self._output.nbytes)
        if len(came) < self._output.nbytes:
            raise ConnectionError("the server has gone")
        self._output[...] = np.frombuffer(came, np.float32).reshape(self._output.shape)

    def close(self):
        self.connection.close()
        super().close()
"""


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


class Answering(socketserver.StreamRequestHandler):
    """The middle of three frames, a third of it in each channel."""

    def handle(self) -> None:
        size = 3 * SHAPE[0] * SHAPE[1]
        while len(came := self.rfile.read(4 * size)) == 4 * size:
            frames = np.frombuffer(came, np.float32).reshape(3, *SHAPE)
            self.wfile.write(np.repeat(frames[1:2] / 3, 3, 0).tobytes())
            if frames.max() > 100:
                return


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Install the package, and start the server that it asks."""
    packages = tmp_path / "packages"
    info = packages / "elsewhere-1.0.dist-info"
    info.mkdir(parents=True)
    (packages / "elsewhere.py").write_text(CODE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[livesr.backends]\nelsewhere = elsewhere:Elsewhere\n")
    monkeypatch.syspath_prepend(packages)
    BACKENDS.__dict__.pop("_announced", None)
    with Server(("127.0.0.1", 0), Answering) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        monkeypatch.setenv("ELSEWHERE", str(server.server_address[1]))
        yield "elsewhere"
        server.shutdown()
        serving.join()
    BACKENDS.__dict__.pop("_announced", None)
    sys.modules.pop("elsewhere", None)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return identity_engine(tmp_path / "identity")


def test_it_says_what_it_can_do(elsewhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runtime_named(elsewhere).facts() == {
        "precisions": ["f32"],
        "devices": ["a server"],
        "resident": False,
        "remote": True,
        "max_in_flight": 4,
        "free_bytes": None,
    }
    assert why_unavailable(elsewhere) is None
    monkeypatch.delenv("ELSEWHERE")
    assert why_unavailable(elsewhere) == "ELSEWHERE names no server."


def test_frames_leave_this_computer_only_where_it_is_named(elsewhere: str) -> None:
    assert elsewhere in BACKENDS.names
    assert elsewhere not in in_order()


def test_it_separates_and_wants_no_tiles_of_its_own(elsewhere: str, engine: Engine) -> None:
    frames = np.random.default_rng(0).random((3, *SHAPE), np.float32)
    with session_on(engine, SHAPE, elsewhere, tile="auto") as session:
        session.input[...] = frames
        np.testing.assert_allclose(session.infer(), np.repeat(frames[1:2] / 3, 3, 0), rtol=1e-6)
        assert (session.name, session.tile) == (elsewhere, None)
    with pytest.raises(BackendError, match="A server elsewhere computes in f32 here, not in 'f16'"):
        session_on(engine, SHAPE, elsewhere, "f16")


def test_a_server_that_goes_away_is_said_in_a_sentence(elsewhere: str, engine: Engine) -> None:
    with FallbackSession(engine, SHAPE, settings(elsewhere)) as session:
        session.input[...] = 200  # the server answers, and leaves
        session.infer()
        for _ in range(2):
            with pytest.raises(BackendError, match="elsewhere failed on engine 'identity'"):
                session.infer()


def test_no_process_tries_out_what_runs_elsewhere(
    elsewhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    untrusted = mixing_engine(tmp_path / "mixing")
    command: Any = (sys.executable, "-c", "raise SystemExit('tried out')")
    monkeypatch.setattr(trial, "_COMMAND", command)
    trial.try_out(untrusted, SHAPE, settings(elsewhere))


def test_a_run_says_what_drew_its_pixels(elsewhere: str, engine: Engine) -> None:
    camera = Geometry((SHAPE[0] // 2, SHAPE[1] // 2), "uint16", 0.065)
    path = build_path(sim_rig(str(engine.folder)), "488", camera, settings(elsewhere))
    assert path.description.ai["runtime"] == {
        "backend": elsewhere,
        "device": "a server",
        "precision": "f32",
        "tile": None,
    }
    path.close()


def test_a_package_that_cannot_be_loaded_stops_no_other_runtime(
    elsewhere: str, engine: Engine, tmp_path: Path
) -> None:
    (tmp_path / "packages" / "elsewhere.py").write_text("raise RuntimeError('broken')")
    assert "RuntimeError: broken" in (why_unavailable(elsewhere) or "")
    with session_on(engine, SHAPE) as session:
        assert session.name in BACKENDS.names
