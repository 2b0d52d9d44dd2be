"""TensorRT: what holds without a GPU, and on one (marked `gpu`).

The real package is asked where it is installed, driver or not: that the names are there which the
backend uses, in whatever version it is, and that its build ends in a sentence where no driver is.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

from backend_contract import (
    RuntimeContract,
    SessionContract,
    make_engine,
    random_frames,
    session_on,
    settings,
    small_network,
)
from livesr.base.errors import BackendError
from livesr.live.inference import cuda, tensorrt
from livesr.live.inference.cards import capability_of
from livesr.live.inference.cuda import why_no_gpu
from livesr.live.inference.engine import Engine, load_engine
from livesr.live.inference.fallback import FallbackSession
from livesr.live.inference.plans import PlanCache
from livesr.live.inference.tensorrt import Card, TensorRTRuntime, TensorRTSession
from livesr.live.inference.tensorrt_build import TENSORRT
from quantised import quantised

SHIPPED = Path(__file__).parents[3] / "engines"
LIGHT = SHIPPED / "imcsr-mt-er-lyso-light"
without_gpu = pytest.mark.skipif(why_no_gpu() is None, reason="a GPU is here")

USED = {
    "Builder": {"create_network", "create_builder_config", "build_serialized_network"},
    "OnnxParser": {"parse", "num_errors", "get_error"},
    "IBuilderConfig": {
        "set_tactic_sources",
        "clear_flag",
        "set_flag",
        "create_timing_cache",
        "set_timing_cache",
        "get_timing_cache",
    },
    "ITimingCache": {"serialize"},
    "BuilderFlag": {"TF32"},
    "TacticSource": {"EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"},
    "ILogger": {"ERROR", "INTERNAL_ERROR", "VERBOSE", "log"},
    "Runtime": {"deserialize_cuda_engine"},
    "ICudaEngine": {
        "create_execution_context",
        "num_io_tensors",
        "get_tensor_name",
        "get_tensor_mode",
        "get_tensor_shape",
    },
    "IExecutionContext": {"engine", "set_tensor_address", "execute_async_v3"},
    "TensorIOMode": {"INPUT"},
}
USED_BY_8 = {
    "NetworkDefinitionCreationFlag": {"EXPLICIT_BATCH"},
    "BuilderFlag": {"FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"},
    "INetworkDefinition": {"num_layers", "get_layer", "get_output"},
    "ILayer": {
        "type",
        "precision",
        "num_inputs",
        "num_outputs",
        "get_input",
        "get_output",
        "set_output_type",
    },
    "LayerType": {"CONVOLUTION", "CONSTANT", "SHAPE", "CAST"},
    "DataType": {"FLOAT", "HALF"},
}
USED_BY_10 = {"NetworkDefinitionCreationFlag": {"STRONGLY_TYPED"}}
USED_SINCE_10 = {
    "IProgressMonitor": {"phase_start", "step_complete", "phase_finish"},
    "IBuilderConfig": {"progress_monitor"},
}


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return make_engine(tmp_path / "small", small_network())


@pytest.fixture
def installed() -> ModuleType:
    return pytest.importorskip("tensorrt", exc_type=ImportError)


def test_the_names_that_are_used_are_in_the_package(installed: ModuleType) -> None:
    major = int(installed.__version__.split(".")[0])
    more = [USED_BY_8] if major < 10 else [USED_SINCE_10] + ([USED_BY_10] if major == 10 else [])
    for table in (USED, *more):
        for owner, names in table.items():
            assert names - set(dir(getattr(installed, owner))) == set(), owner


def test_messages_reach_the_log_and_errors_are_kept(
    installed: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    from livesr.live.inference.tensorrt_build import logger

    logger().errors.clear()
    with caplog.at_level(logging.INFO):
        logger().log(installed.ILogger.WARNING, "a warning")
        logger().log(installed.ILogger.ERROR, "an error")
    assert "a warning" in caplog.text
    assert "an error" in logger().said()


@without_gpu
@pytest.mark.parametrize(
    "folder", sorted(p.parent for p in SHIPPED.glob("*/model.onnx")), ids=lambda p: p.name
)
def test_a_build_goes_as_far_as_the_driver(installed: ModuleType, folder: Path) -> None:
    from livesr.live.inference.tensorrt_build import build

    engine = load_engine(folder)
    with pytest.raises(BackendError, match=rf"TensorRT {installed.__version__} finds no GPU"):
        build(engine.read(), "f16", (1, engine.manifest.window, 64, 64))


@without_gpu
def test_without_a_gpu_that_is_what_is_said(engine: Engine) -> None:
    assert "NVIDIA" in (TensorRTRuntime().unavailable() or "")
    with pytest.raises(BackendError, match="NVIDIA"):
        TensorRTRuntime().open(engine, (32, 32), settings())
    with pytest.raises(BackendError, match="NVIDIA"):
        session_on(engine, (32, 32), "tensorrt")


def test_a_library_that_is_no_driver_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_LIBRARY", "no-such-library.so")
    why_no_gpu.cache_clear()
    try:
        assert "no-such-library.so was not found" in (why_no_gpu() or "")
    finally:
        monkeypatch.undo()
        why_no_gpu.cache_clear()


@without_gpu
def test_auto_goes_on_to_the_next_runtime_and_says_why(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        backend = session_on(engine, (32, 32), precision="f32", threads=1)
    assert backend.name == "openvino"
    assert "Backend tensorrt is skipped: TensorRT needs an NVIDIA GPU" in caplog.text
    backend.close()


def with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the driver be there: what follows fails for want of a package."""
    monkeypatch.setattr("livesr.live.inference.tensorrt.why_no_gpu", lambda: None)


def test_a_missing_package_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    with_a_gpu(monkeypatch)
    for module in ("tensorrt", "cupy"):
        monkeypatch.setitem(sys.modules, module, None)
    assert "tensorrt and cupy: pip install 'livesr[gpu]'" in (TensorRTRuntime().unavailable() or "")


@without_gpu
def test_whatever_goes_wrong_at_the_start_lets_the_next_runtime_try(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TensorRTRuntime, "unavailable", lambda self: None)
    monkeypatch.setitem(sys.modules, "cupy", None)  # as a package that cannot load its libraries
    with pytest.raises(BackendError, match="TensorRT does not start with engine 'small'"):
        TensorRTRuntime().open(engine, (32, 32), settings())


@without_gpu
def test_what_stops_cupy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(BackendError, match="CuPy cannot use the GPU"):
        TensorRTRuntime().free_bytes()


def test_a_gpu_that_failed_does_not_stop_the_next_runtime() -> None:
    def dead() -> None:
        raise RuntimeError("cudaErrorIllegalAddress")

    session = TensorRTSession.__new__(TensorRTSession)
    session._stream, session._wait = object(), dead
    session.close()
    with pytest.raises(BackendError, match="closed"):
        session.infer()


def test_precisions() -> None:
    assert TensorRTRuntime().choose_precision("auto") == "f16"
    with pytest.raises(BackendError, match="f16, f32, int8, f8"):
        TensorRTRuntime().choose_precision("bf16")


@pytest.mark.parametrize(("card", "has"), [("RTX 3080", False), ("RTX 4090", True)])
def test_eight_bit_floats_are_offered_where_the_card_has_them(
    card: str, has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Card, "here", lambda: Card(card, capability_of(card)))
    assert ("f8" in TensorRTRuntime().precisions) is has


def test_closed_means_closed() -> None:
    session = TensorRTSession.__new__(TensorRTSession)  # as it is when its start has failed
    session.close()
    session.close()
    assert session.resident is None
    for use in (session.infer, lambda: session.input, lambda: session.device_input):
        with pytest.raises(BackendError, match="closed"):
            use()


# -- on a GPU --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plans")


@pytest.fixture
def gpu(plans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT as it is here; each plan is built once a session."""
    if reason := TensorRTRuntime().unavailable():
        pytest.skip(reason)
    monkeypatch.setenv("LIVESR_CACHE", str(plans))


def opened(engine: Engine, shape: tuple[int, int], precision: str = "auto") -> Any:
    return session_on(engine, shape, "tensorrt", precision)


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
class TestTensorRT(SessionContract):
    name = "tensorrt"
    needs: ClassVar = ("tensorrt", "cupy", "onnx")


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
class TestTensorRTRuntime(RuntimeContract):
    name = "tensorrt"
    needs: ClassVar = ("tensorrt", "cupy", "onnx")


def reference(engine: Engine, frames: np.ndarray) -> np.ndarray:
    """Torch in f32, else OpenVINO in f32 where torch is missing (the kit's Python)."""
    backend = session_on(engine, frames.shape[1:], "torch" if _has_torch() else "openvino", "f32")
    backend.input[...] = frames
    found = backend.infer().copy()
    backend.close()
    return found


def _has_torch() -> bool:
    from importlib.util import find_spec

    return find_spec("torch") is not None


def check_parity(output: np.ndarray, expected: np.ndarray, least: float = 0.999) -> None:
    for channel, other in zip(output, expected, strict=True):
        assert np.corrcoef(channel.ravel(), other.ravel())[0, 1] >= least


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("precision", ["f32", "f16"])
def test_parity_with_torch(precision: str) -> None:
    engine, frames = load_engine(LIGHT), random_frames((130, 194))
    backend = opened(engine, frames.shape[1:], precision)
    backend.input[...] = frames
    check_parity(backend.infer(), reference(engine, frames))
    backend.close()


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("precision", ["int8", "f8"])
def test_codes_of_eight_bits_on_the_gpu(tmp_path: Path, precision: str) -> None:
    if precision == "f8" and TENSORRT.version()[0] < 10:
        pytest.skip("TensorRT 8 has no FP8")
    frames = random_frames((64, 96))
    engine = make_engine(tmp_path / "quantised", quantised(small_network(), frames))
    try:
        backend = opened(engine, frames.shape[1:], precision)
    except BackendError as e:
        if precision == "f8":  # GPUs before sm_89 have none
            pytest.skip(str(e))
        raise
    backend.input[...] = frames
    check_parity(
        backend.infer(), reference(make_engine(tmp_path / "plain", small_network()), frames), 0.99
    )
    backend.close()


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
def test_a_plan_is_built_once_and_again_when_it_is_damaged(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVESR_CACHE", str(tmp_path / "cache"))
    builds, build = [], tensorrt.build
    monkeypatch.setattr(tensorrt, "build", lambda *a, **k: builds.append(a) or build(*a, **k))
    opened(engine, (64, 64)).close()
    opened(engine, (64, 64)).close()
    assert len(builds) == 1
    folder = PlanCache().folder
    assert list(folder.glob("*.timings"))
    (plan,) = folder.glob("*.plan")
    plan.write_bytes(plan.read_bytes()[:-100])
    opened(engine, (64, 64)).close()
    opened(engine, (66, 64)).close()
    assert len(builds) == 3


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
def test_a_plan_that_tensorrt_refuses_is_built_anew(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from livesr.live.inference.tensorrt import plan_key

    monkeypatch.setenv("LIVESR_CACHE", str(tmp_path / "cache"))
    PlanCache().store(plan_key(engine, (64, 64), "f16"), b"whole, and no plan")
    backend = opened(engine, (64, 64))
    assert backend.infer().shape == (3, 64, 64)
    backend.close()


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
def test_frames_on_the_gpu_stay_there(engine: Engine) -> None:
    cupy = pytest.importorskip("cupy")
    frames = random_frames((63, 97))  # padded inside
    backend = opened(engine, frames.shape[1:], "f32")
    assert backend.resident is backend
    backend.input[...] = frames
    expected = backend.infer().copy()
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]
    for stream in streams:
        with stream:
            backend.device_input[...] = cupy.asarray(frames)  # `set` takes contiguous arrays only
            found = backend.enqueue(stream.ptr).get(stream=stream)
        stream.synchronize()
        np.testing.assert_array_equal(found, expected)
    backend.close()


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
def test_the_step_can_be_part_of_a_callers_graph(engine: Engine) -> None:
    cupy = pytest.importorskip("cupy")
    frames = random_frames((64, 96))
    backend = opened(engine, frames.shape[1:], "f32")
    backend.input[...] = frames
    expected = backend.infer().copy()
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        backend.device_input.set(frames, stream=stream)
        stream.synchronize()
        stream.begin_capture()
        output = backend.enqueue(stream.ptr)
        graph = stream.end_capture()
    output[...] = 0
    cupy.cuda.runtime.deviceSynchronize()
    graph.launch(stream)
    stream.synchronize()
    np.testing.assert_array_equal(output.get(), expected)
    backend.close()


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
def test_no_device_memory_is_taken_per_frame(engine: Engine) -> None:
    cupy = pytest.importorskip("cupy")
    backend = opened(engine, (256, 256))
    backend.infer()
    lost = []
    for _ in range(5):  # other processes of the tests may take memory of the same GPU meanwhile
        free = cupy.cuda.runtime.memGetInfo()[0]
        for _ in range(200):
            backend.infer()
        lost.append(free - cupy.cuda.runtime.memGetInfo()[0])
    assert 0 in lost
    backend.close()


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
def test_a_failure_in_the_middle_goes_on_elsewhere(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = random_frames((64, 96))
    try:
        backend = FallbackSession(engine, frames.shape[1:], settings())
    except BackendError as e:
        pytest.skip(str(e))
    assert backend.name == "tensorrt"

    def lost(self: TensorRTSession) -> np.ndarray:
        raise RuntimeError("cudaErrorIllegalAddress")

    monkeypatch.setattr(TensorRTSession, "infer", lost)
    backend.input[...] = frames
    try:
        check_parity(backend.infer(), reference(engine, frames))
    except BackendError as e:
        pytest.skip(f"no other runtime is here: {e}")
    assert "since tensorrt failed" in backend.replacements[0]
    backend.close()
