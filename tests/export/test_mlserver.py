"""A real MLServer computes the network, where one is installed or named."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tritonclient.grpc", reason="the kserve backend needs tritonclient")

from backend_contract import session_on
from livesr.base.compute import ComputeConfig
from livesr.base.errors import BackendError
from livesr.live.inference import remote
from livesr.live.inference.engine import load_engine
from livesr.live.inference.kserve import name_that_says_it
from livesr.live.inference.remote import RemoteSession

LIGHT, SHAPE = "imcsr-mt-er-lyso-light", (64, 96)
MLSERVER = shutil.which(os.environ.get("LIVESR_MLSERVER", "mlserver"))
RUNTIME = Path(__file__).parents[1] / "support" / "mlserver_runtime.py"

pytestmark = pytest.mark.skipif(
    MLSERVER is None, reason="no mlserver is installed, and LIVESR_MLSERVER names none"
)


class MLServer:
    """A server of one engine in a process of its own; its Python has onnxruntime as well."""

    def __init__(self, folder: Path) -> None:
        self._folder, engine = folder, load_engine(LIGHT)
        ports = [_free_port() for _ in range(3)]
        self.endpoint = f"grpc://127.0.0.1:{ports[0]}"
        about = dict(zip(("grpc_port", "http_port", "metrics_port"), ports, strict=True))
        about |= {"host": "127.0.0.1", "parallel_workers": 0}
        (folder / "settings.json").write_text(json.dumps(about))
        (folder / "model.onnx").write_bytes(engine.read())
        shutil.copy(RUNTIME, folder / "mlserver_runtime.py")
        model = {
            "name": name_that_says_it(engine.manifest),
            "implementation": "mlserver_runtime.OnnxRuntime",
            "inputs": [{"name": "frames", "datatype": "FP32", "shape": [1, 3, -1, -1]}],
            "outputs": [{"name": "channels", "datatype": "FP32", "shape": [1, 3, -1, -1]}],
            "parameters": {"uri": str(folder / "model.onnx"), "version": "1"},
        }
        (folder / "model-settings.json").write_text(json.dumps(model))
        self._process: Any = None

    def start(self) -> None:
        assert MLSERVER is not None
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [MLSERVER, "start", str(self._folder)],
                env={"PATH": f"{Path(MLSERVER).parent}:/usr/bin:/bin"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        end = time.monotonic() + 90
        while "gRPC server running" not in (said := (self._folder / "log").read_text()):
            if self._process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"MLServer did not start: {said[-3000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MLServer]:
    monkeypatch.setattr(remote, "_LOOK_S", 0.1)
    monkeypatch.setattr(remote, "_MAX_LOOK_S", 0.2)
    made = MLServer(tmp_path)
    made.start()
    yield made
    made.kill()


def test_it_predicts_what_this_computer_does_and_is_taken_back_when_it_returns(
    server: MLServer,
) -> None:
    engine, on = load_engine(LIGHT), ComputeConfig(backend="kserve", endpoint=server.endpoint)
    with (
        RemoteSession(engine, SHAPE, on) as away,
        session_on(engine, SHAPE, "openvino", "f32") as here,
    ):

        def difference(seed: int) -> float:
            frames = np.random.default_rng(seed).random((3, *SHAPE), np.float32)
            away.input[...] = here.input[...] = frames
            return float(np.abs(away.infer() - here.infer()).max())

        assert max(difference(seed) for seed in range(8)) < 1e-5
        assert (away.name, away.replacements) == ("kserve", ())
        server.kill()
        assert difference(8) < 0.05  # this computer's own choice of precision
        assert away.name != "kserve"
        server.start()
        end = time.monotonic() + 90
        while away.name != "kserve":
            assert time.monotonic() < end
            time.sleep(0.05)
            difference(9)
        assert difference(10) < 1e-5


def test_another_network_under_the_name_is_refused(server: MLServer) -> None:
    engine = load_engine("identity")
    with pytest.raises(BackendError, match="identity"):
        RemoteSession(engine, SHAPE, ComputeConfig(backend="kserve", endpoint=server.endpoint))
