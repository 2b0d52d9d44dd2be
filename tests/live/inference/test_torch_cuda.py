"""The network that runs where its frames are: on a CPU the steps, on a GPU the graph as well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend_contract import make_engine, random_frames, session_on, small_network
from livesr.live.inference.cuda import why_no_gpu
from livesr.live.inference.engine import Engine, load_engine
from livesr.live.inference.runner import in_order
from livesr.live.inference.runtime import BACKENDS, is_remote
from livesr.live.inference.torch import TorchRuntime
from quantised import quantised

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

LIGHT = Path(__file__).parents[3] / "engines" / "imcsr-mt-er-lyso-light"
SHAPES = [(32, 48), (31, 48), (32, 47), (33, 35)]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def gpu() -> None:
    if reason := why_no_gpu():
        pytest.skip(reason)
    if not torch.cuda.is_available():
        pytest.skip("this torch was built without CUDA")


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return make_engine(tmp_path / "small", small_network())


def network(engine: Engine, shape: tuple[int, int], device: str, dtype: Any = torch.float32) -> Any:
    from livesr.live.inference.onnx_graph import OnnxGraph
    from livesr.live.inference.torch_cuda import ResidentNetwork

    return ResidentNetwork(OnnxGraph(engine.read(), device, dtype), engine, shape, device)


def inferred(engine: Engine, frames: np.ndarray, precision: str = "f32") -> np.ndarray:
    backend = session_on(engine, frames.shape[1:], "torch", precision)
    backend.input[...] = frames
    found = backend.infer().copy()
    backend.close()
    return found


@pytest.mark.parametrize("stored_codes", [False, True])
def test_codes_of_8_bits_are_where_the_network_is(stored_codes: bool) -> None:
    from livesr.live.inference.onnx_graph import OnnxGraph

    model = quantised(small_network(), random_frames((32, 48)), stored_codes=stored_codes)
    # Torch's device without memory refuses, as a GPU does, to compute with what lies on the host.
    graph = OnnxGraph(model, "meta", torch.float32)
    assert graph.execute(torch.empty((1, 3, 32, 48), device="meta")).shape == (1, 3, 32, 48)


@pytest.mark.parametrize("shape", SHAPES)
def test_frames_in_place_give_what_frames_of_the_host_give(
    engine: Engine, shape: tuple[int, int]
) -> None:
    frames, resident = random_frames(shape), network(engine, shape, "cpu")
    address = resident.device_input.data_ptr()
    for seen in (frames * 0.5, frames):
        resident.device_input.copy_(torch.from_numpy(seen))
        resident.step()
    np.testing.assert_allclose(resident.result.numpy(), inferred(engine, frames), atol=1e-6)
    assert resident.device_input.data_ptr() == address


def test_the_way_through_the_host_is_the_same(engine: Engine) -> None:
    frames, resident = random_frames((32, 48)), network(engine, (32, 48), "cpu")
    out = torch.empty((1, 3, 32, 48))
    resident.infer(torch.from_numpy(frames[None]), out)
    np.testing.assert_allclose(out[0].numpy(), inferred(engine, frames), atol=1e-6)


def test_on_a_cpu_nothing_is_resident(engine: Engine) -> None:
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is preferred here")
    with session_on(engine, (32, 48), "torch") as backend:
        assert backend.resident is None


def test_torch_comes_before_openvino_only_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    here = [name for name in BACKENDS.names if not is_remote(name)]
    if why_no_gpu() is not None:
        assert in_order() == here
    monkeypatch.setattr("livesr.live.inference.runner.why_no_gpu", lambda: None)
    monkeypatch.setattr(TorchRuntime, "resident", property(lambda self: True))
    order = in_order()
    assert sorted(order) == sorted(here)
    assert order.index("tensorrt") < order.index("torch") < order.index("openvino")


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("precision", ["f32", "f16"])
@pytest.mark.parametrize("shape", [(130, 194), (131, 193)])
def test_the_graph_gives_what_a_cpu_gives(shape: tuple[int, int], precision: str) -> None:
    engine, frames = load_engine(LIGHT), random_frames(shape)
    expected = network(engine, shape, "cpu")
    expected.device_input.copy_(torch.from_numpy(frames))
    expected.step()
    found = inferred(engine, frames, precision)
    for channel, reference in zip(found, expected.result.numpy(), strict=True):
        assert np.corrcoef(channel.ravel(), reference.ravel())[0, 1] >= 0.999


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
def test_frames_of_cupy_are_separated_on_a_stream_of_cupy(engine: Engine) -> None:
    cupy = pytest.importorskip("cupy")
    frames, backend = random_frames((33, 35)), session_on(engine, (33, 35), "torch", "f32")
    resident = backend.resident
    assert resident is not None
    with cupy.cuda.Stream(non_blocking=True) as stream:
        cupy.asarray(resident.device_input)[...] = cupy.asarray(frames)
        found = cupy.asnumpy(cupy.asarray(resident.enqueue(stream.ptr)))
    backend.input[...] = frames
    np.testing.assert_allclose(found, backend.infer(), atol=1e-5)
    backend.close()


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
def test_a_graph_allocates_nothing_per_frame(engine: Engine) -> None:
    resident = network(engine, (256, 256), "cuda", torch.float16)
    assert resident._graph is not None
    torch.cuda.synchronize()
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    for _ in range(20):
        resident.step()
    torch.cuda.synchronize()
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == before
