import logging
import subprocess
import sys
from pathlib import Path

import pytest

from backend_contract import make_engine, model_of, session_on, small_network
from livesr.base.errors import BackendError, EngineError
from livesr.live.inference.engine import Engine
from livesr.live.inference.runtime import BACKENDS, why_unavailable


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return make_engine(tmp_path / "small", small_network())


def test_asking_what_there_is_loads_no_runtime() -> None:
    code = (
        "import sys; from livesr.live.inference import engine, runner, runtime; from livesr.live"
        " import compose\nreasons = [runtime.why_unavailable(name) for name in"
        " runtime.BACKENDS.names]\nprint([name for name in ('torch', 'onnx', 'openvino') if name in"
        " sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_auto_takes_the_first_that_can(engine: Engine) -> None:
    able = [name for name in BACKENDS.names if why_unavailable(name) is None]
    assert session_on(engine, (32, 32)).name == able[0]


def test_auto_says_what_it_skipped(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with caplog.at_level(logging.INFO):
        backend = session_on(engine, (32, 32), precision="f32")
    assert backend.name == "torch"
    assert "Backend openvino is skipped: OpenVINO is not installed" in caplog.text


def test_auto_with_nothing_left_gives_every_reason(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for runtime in ("openvino", "torch"):
        monkeypatch.setitem(sys.modules, runtime, None)
    with pytest.raises(
        BackendError, match=r"openvino: .*pip install.*torch: .*pip install 'livesr\[train\]'"
    ):
        session_on(engine, (32, 32))


def test_a_named_one_is_not_replaced(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BackendError, match="pip install"):
        session_on(engine, (32, 32), backend="torch")


def test_unknown_names_get_a_suggestion(engine: Engine) -> None:
    with pytest.raises(BackendError, match="Did you mean 'openvino'"):
        session_on(engine, (32, 32), backend="openvno")
    with pytest.raises(BackendError, match="Known: auto, bf16, f16, f32, f8, int8"):
        session_on(engine, (32, 32), precision="q")


def test_an_engine_that_does_not_fit_is_no_reason_to_try_another_runtime(engine: Engine) -> None:
    with pytest.raises(EngineError, match="too small"):
        session_on(engine, (2, 2))


def test_a_runtime_that_refuses_the_network_is_skipped(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    onnx = pytest.importorskip("onnx")
    nodes = [onnx.helper.make_node("Conv", ["frames", "absent"], ["channels"])]
    with pytest.raises((BackendError, EngineError)):
        session_on(make_engine(tmp_path / "broken", model_of(nodes, [])), (32, 32))
