"""What every session passes, and the small engines to pass it with."""

from __future__ import annotations

import hashlib
import sys
import tracemalloc
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from livesr.base.compute import ComputeConfig
from livesr.base.errors import BackendError, EngineError, UsageError
from livesr.live.inference.engine import Engine, Manifest, load_engine, write_manifest
from livesr.live.inference.identity import identity_engine
from livesr.live.inference.runner import open_session
from livesr.live.inference.runtime import PRECISIONS, runtime_named
from livesr.live.inference.session import InferenceSession


def make_engine(folder: Path, model: bytes, **fields: Any) -> Engine:
    """An untrained engine around `model`; `fields` replace the manifest's defaults."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model)
    defaults: dict[str, Any] = {
        "id": "small",
        "version": "1",
        "description": "random weights",
        "task": "separate",
        "trained": False,
        "channels": [{"name": name, "color": "00FF00"} for name in ("MT", "ER", "Lysosomes")],
        "multiple_of": 2,
        "halo": 8,
        "architecture": "small",
        "weights": {"onnx": {"sha256": hashlib.sha256(model).hexdigest()}},
        "license": "BSD-3-Clause",
    }
    write_manifest(folder, Manifest.model_validate(defaults | fields))
    return load_engine(folder)


def small_network(*, channels: int = 3, window: int = 3, scale: int = 1, seed: int = 0) -> bytes:
    """The operators of a light IMC-SR with random weights: it works at half the resolution."""
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    rng = np.random.default_rng(seed)
    width, shuffle = 8, 2 * scale

    def weights(name: str, *shape: int) -> Any:
        fan_in = float(np.prod(shape[1:])) or 1.0
        return numpy_helper.from_array(
            (rng.standard_normal(shape) * (2 / fan_in) ** 0.5).astype(np.float32), name
        )

    def constant(name: str, value: float) -> Any:
        return numpy_helper.from_array(np.array(value, np.float32), name)

    nodes = [
        helper.make_node(
            "Conv",
            ["frames", "w1", "b1"],
            ["c1"],
            kernel_shape=[6, 6],
            strides=[2, 2],
            pads=[2] * 4,
        ),
        helper.make_node("Div", ["c1", "sqrt2"], ["d1"]),
        helper.make_node("Erf", ["d1"], ["e1"]),
        helper.make_node("Add", ["e1", "one"], ["a1"]),
        helper.make_node("Mul", ["c1", "a1"], ["m1"]),
        helper.make_node("Mul", ["m1", "half"], ["g1"]),
        helper.make_node("GlobalAveragePool", ["g1"], ["pool"]),
        helper.make_node("Conv", ["pool", "w2"], ["c2"]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("Conv", ["r2", "w3"], ["c3"]),
        helper.make_node("Sigmoid", ["c3"], ["gate"]),
        helper.make_node("Mul", ["g1", "gate"], ["features"]),
        helper.make_node("Conv", ["features", "w4"], ["c4"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("DepthToSpace", ["c4"], ["shuffled"], blocksize=shuffle, mode="CRD"),
        helper.make_node("Sigmoid", ["shuffled"], ["channels"]),
    ]
    initialisers = [
        weights("w1", width, window, 6, 6),
        weights("b1", width),
        weights("w2", 2, width, 1, 1),
        weights("w3", width, 2, 1, 1),
        weights("w4", channels * shuffle**2, width, 3, 3),
        constant("sqrt2", 2**0.5),
        constant("one", 1.0),
        constant("half", 0.5),
    ]
    return model_of(nodes, initialisers, window, channels)


def model_of(
    nodes: list[Any], initialisers: list[Any], window: int = 3, channels: int = 3
) -> bytes:
    """An ONNX file with the input and output that an engine has."""
    onnx = pytest.importorskip("onnx")
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("frames", float32, [1, window, "y", "x"])],
        [helper.make_tensor_value_info("channels", float32, [1, channels, "sy", "sx"])],
        initialisers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def random_frames(shape: tuple[int, int], window: int = 3, seed: int = 1) -> np.ndarray:
    """Normalised frames as they come: mostly around 0 to 1, some negative."""
    return np.random.default_rng(seed).normal(0.3, 0.3, (window, *shape)).astype(np.float32)


def session_on(
    engine: Engine,
    shape: tuple[int, int],
    backend: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    tile: Any = "off",
) -> InferenceSession:
    """Open an engine as `open_session` does, on frames that are not taken apart unless told."""
    return open_session(engine, shape, settings(backend, precision, threads, tile))


def settings(
    backend: str = "auto", precision: str = "auto", threads: int = 0, tile: Any = "off"
) -> ComputeConfig:
    """How to compute; `tile` may be smaller than a user may ask for."""
    compute = ComputeConfig(backend=backend, precision=precision, threads=threads)
    return compute.model_copy(update={"tile": tile})


class SessionContract:
    """Subclass with the registered `name` of a runtime and the modules that it needs.

    What wraps the sessions of a runtime overrides `opened`.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    in_tiles: ClassVar = False
    max_allocated: ClassVar = 64 * 1024  # the input alone has 765 KiB

    @pytest.fixture(autouse=True)
    def _runtime(self) -> None:
        for module in self.needs:
            pytest.importorskip(module)

    @pytest.fixture
    def engine(self, tmp_path: Path) -> Engine:
        return make_engine(tmp_path / "small", small_network())

    def opened(
        self, engine: Engine, shape: tuple[int, int], precision: str = "f32"
    ) -> InferenceSession:
        return runtime_named(self.name).open(engine, shape, settings(self.name, precision, 1))

    def test_says_what_it_is(self, engine: Engine) -> None:
        backend = self.opened(engine, (16, 16))
        assert (backend.name, backend.precision) == (self.name, "f32")
        assert backend.device
        assert (backend.tile, backend.replacements) == (16 if self.in_tiles else None, ())

    def test_frames_stay_on_the_device_where_its_runtime_says_so(self, engine: Engine) -> None:
        backend = self.opened(engine, (16, 16))
        assert (backend.resident is not None) == runtime_named(self.name).resident
        backend.close()
        assert backend.resident is None

    def test_shapes(self, engine: Engine) -> None:
        backend = self.opened(engine, (48, 32))
        assert backend.input.shape == (3, 48, 32)
        assert backend.input.dtype == np.float32
        output = backend.infer()
        assert output.shape == (3, 48, 32)
        assert output.dtype == np.float32

    def test_one_frame_enlarged(self, tmp_path: Path) -> None:
        model = small_network(channels=1, window=1, scale=2)
        fields = {
            "task": "upscale",
            "window": 1,
            "scale": 2,
            "channels": [{"name": "SR", "color": "FFFFFF"}],
        }
        backend = self.opened(make_engine(tmp_path / "up", model, **fields), (15, 18))
        assert backend.input.shape == (1, 15, 18)
        assert backend.infer().shape == (1, 30, 36)

    def test_takes_the_middle_frame(self, tmp_path: Path) -> None:
        backend = self.opened(identity_engine(tmp_path / "identity"), (17, 23))
        frames = random_frames((17, 23))
        backend.input[...] = frames
        np.testing.assert_allclose(backend.infer(), np.repeat(frames[1:2] / 3, 3, 0), atol=1e-6)

    @pytest.mark.parametrize("shape", [(31, 32), (32, 31), (33, 35)])
    def test_other_sizes_are_reflected(self, engine: Engine, shape: tuple[int, int]) -> None:
        frames = random_frames(shape)
        backend = self.opened(engine, shape)
        backend.input[...] = frames
        padded = np.pad(frames, [(0, 0), *((0, n % 2) for n in shape)], mode="reflect")
        whole = self.opened(engine, padded.shape[1:])
        whole.input[...] = padded
        np.testing.assert_array_equal(backend.infer(), whole.infer()[:, : shape[0], : shape[1]])

    def test_same_input_same_output(self, engine: Engine) -> None:
        backend = self.opened(engine, (64, 48))
        backend.input[...] = random_frames((64, 48))
        first = backend.infer().copy()
        np.testing.assert_array_equal(backend.infer(), first)

    def test_input_and_output_stay_where_they_are(self, engine: Engine) -> None:
        backend = self.opened(engine, (64, 48))
        before = backend.input
        first = backend.infer()
        kept = first.copy()
        before[...] = random_frames(
            (64, 48)
        )  # written through an old reference: it must be the live block
        second = backend.infer()
        assert backend.input.ctypes.data == before.ctypes.data
        assert second.ctypes.data == first.ctypes.data
        assert not np.array_equal(second, kept)

    def test_allocates_no_arrays_per_frame(self, engine: Engine) -> None:
        backend = self.opened(engine, (255, 256))
        backend.infer()
        tracemalloc.start()
        try:
            start, _ = tracemalloc.get_traced_memory()
            backend.infer()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak - start < self.max_allocated

    def test_closes_twice_and_for_good(self, engine: Engine) -> None:
        backend = self.opened(engine, (16, 16))
        backend.close()
        backend.close()
        with pytest.raises(BackendError, match="closed"):
            backend.infer()
        with pytest.raises(BackendError, match="closed"):
            _ = backend.input

    def test_a_context_closes_it(self, engine: Engine) -> None:
        with self.opened(engine, (16, 16)) as backend:
            assert backend.infer().shape == (3, 16, 16)
        with pytest.raises(BackendError, match="closed"):
            backend.infer()

    def test_given_up_for_good_it_says_why(self, engine: Engine) -> None:
        backend = self.opened(engine, (16, 16))
        if (resident := backend.resident) is None:
            pytest.skip("its frames come from the host")
        with pytest.raises(BackendError, match="OSError: device lost"):
            backend.give_up(resident, OSError("device lost"))
        backend.close()

    def test_refuses_frames_that_cannot_be_padded(self, engine: Engine) -> None:
        with pytest.raises(EngineError, match="too small"):
            self.opened(engine, (3, 64))

    def test_refuses_a_network_unlike_its_manifest(self, tmp_path: Path) -> None:
        engine = make_engine(tmp_path / "liar", small_network(channels=2))
        with pytest.raises(EngineError, match="manifest says"):
            self.opened(engine, (32, 32))

    def test_refuses_weights_changed_since_they_were_checked(self, engine: Engine) -> None:
        engine.onnx_path.write_bytes(small_network(seed=9))
        with pytest.raises(EngineError, match="SHA-256"):
            self.opened(engine, (32, 32))

    def test_refuses_what_is_no_network(self, tmp_path: Path) -> None:
        engine = make_engine(tmp_path / "garbage", b"no network at all")
        with pytest.raises(UsageError):
            self.opened(engine, (32, 32))

    def test_refuses_weights_in_other_files(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        onnx = pytest.importorskip("onnx")
        weight = onnx.TensorProto(
            name="w", dims=[3, 3, 1, 1], data_type=onnx.TensorProto.FLOAT, data_location=1
        )
        weight.external_data.add(key="location", value="weights.bin")
        node = onnx.helper.make_node("Conv", ["frames", "w"], ["channels"])
        engine = make_engine(tmp_path / "external", model_of([node], [weight]))
        (engine.folder / "weights.bin").write_bytes(bytes(36))
        monkeypatch.chdir(engine.folder)  # where OpenVINO would find them
        with pytest.raises(EngineError, match="other files"):
            self.opened(engine, (32, 32))

    def test_missing_runtime_is_a_sentence(
        self, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(
            sys.modules, self.needs[0], None
        )  # what an import finds when it is not installed
        assert "pip install" in (runtime_named(self.name).unavailable() or "")
        with pytest.raises(BackendError, match="pip install"):
            self.opened(engine, (32, 32))


class RuntimeContract:
    """Subclass with the registered `name` of a runtime and the modules that it needs."""

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]

    @pytest.fixture(autouse=True)
    def _runtime(self) -> None:
        for module in self.needs:
            pytest.importorskip(module)

    def test_says_what_it_can_do_here(self) -> None:
        runtime = runtime_named(self.name)
        assert runtime.unavailable() is None
        assert (runtime.name, runtime.remote) == (self.name, False)
        facts = runtime.facts()
        assert set(facts["precisions"]) <= set(PRECISIONS)
        assert "f32" in facts["precisions"]
        assert all(facts["devices"])
        assert facts["max_in_flight"] == (2 if facts["resident"] else 1)
        assert facts["free_bytes"] > 0

    def test_what_it_says_it_does(self, tmp_path: Path) -> None:
        runtime = runtime_named(self.name)
        engine = make_engine(tmp_path / "small", small_network())
        for precision in set(runtime.precisions) - {"int8", "f8"}:  # those need another file
            with runtime.open(engine, (16, 16), settings(self.name, precision, 1)) as session:
                assert session.precision == precision
                assert session.device in runtime.devices
        missing = next(p for p in ("f8", "bf16") if p not in runtime.precisions)
        with pytest.raises(BackendError, match=f"not in '{missing}'"):
            runtime.open(engine, (16, 16), settings(self.name, missing))

    def test_auto_is_what_it_prefers(self, tmp_path: Path) -> None:
        runtime = runtime_named(self.name)
        engine = make_engine(tmp_path / "small", small_network())
        with runtime.open(engine, (16, 16), settings(self.name, threads=1)) as session:
            assert session.precision == runtime.preferred(engine)
