"""Recorded runs of a small virtual microscope.

Raw frames that move, an engine that looks at its neighbours in time.
"""

from __future__ import annotations

import atexit
import dataclasses
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from useq import MDAEvent

from livesr.base.compute import Augmentation, ComputeConfig
from livesr.base.config import RigConfig, load_rig
from livesr.base.geometry import Geometry
from livesr.base.run_description import RunDescription
from livesr.formats.store import RecordedStore
from livesr.live.inference.engine import (
    MODEL_NAME,
    Engine,
    OnnxWeights,
    Weights,
    load_engine,
    sha256_of,
    write_manifest,
)
from livesr.live.inference.identity import identity_engine
from livesr.live.keeping_up import KeepingUp
from livesr.live.paths import ChannelPath, build_path
from livesr.live.pipeline import Pipeline
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.live.sinks.sink import Sink

SIZE = 32
RIGS = Path(__file__).parents[2] / "hardware_configs"
REPOSITORY_ENGINES = Path(__file__).parents[2] / "engines"


def mixing_engine(folder: Path, divided: float = 1.0) -> Engine:
    from onnx import TensorProto, helper

    plain = identity_engine(folder)
    mixture = np.float32([[0.2, 0.3, 0.1], [0.0, 0.2, 0.3], [0.4, 0.1, 0.05]]) / divided
    graph = helper.make_graph(
        [helper.make_node("Conv", ["frames", "weight"], ["channels"], kernel_shape=[1, 1])],
        "mixing",
        [helper.make_tensor_value_info("frames", TensorProto.FLOAT, [1, 3, "y", "x"])],
        [helper.make_tensor_value_info("channels", TensorProto.FLOAT, [1, 3, "y", "x"])],
        [helper.make_tensor("weight", TensorProto.FLOAT, [3, 3, 1, 1], mixture.ravel().tolist())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / MODEL_NAME).write_bytes(model.SerializeToString())
    weights = Weights(onnx=OnnxWeights(sha256=sha256_of(folder / MODEL_NAME)))
    write_manifest(
        folder, plain.manifest.model_copy(update={"id": folder.name, "weights": weights})
    )
    return load_engine(folder)


def moving_groups(n_t: int, n_raw: int = 9, seed: int = 0) -> NDArray[np.uint16]:
    """(t, raw, y, x): smooth, ever different, with noise.

    Brighter from time point to time point.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    phase = np.arange(n_t * n_raw).reshape(n_t, n_raw, 1, 1) * 0.7
    light = 400 + 40 * np.arange(n_t).reshape(-1, 1, 1, 1) + 300 * np.sin(9 * x + 5 * y + phase)
    return rng.poisson(np.maximum(light, 1)).astype(np.uint16) + 100


def sim_rig(engine: str) -> RigConfig:
    """A rig whose frames are reconstructed whatever they show: `moving_groups` shows no pattern."""
    return load_rig(_trusting_rig()).with_engine(engine)


@cache
def _trusting_rig() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="livesr-rig-"))
    atexit.register(shutil.rmtree, folder)
    shutil.copytree(RIGS / "virtual_sim", folder, dirs_exist_ok=True)
    file = folder / "rig.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text(
        text.replace("\nsim:\n", "\nsim:\n  quality_limits: {when_doubtful: reconstruct}\n"),
        encoding="utf-8",
    )
    return folder


def keeping_rig(folder: Path, engine: str = "none", update: str = "angle") -> RigConfig:
    """A rig whose stores keep pictures of groups under way."""
    plain, rig = sim_rig("identity"), folder / "rig"
    shutil.copytree(plain.folder, rig)
    text = (rig / "rig.yaml").read_text(encoding="utf-8")
    text = text.replace("\nsim:\n", f"\nsim:\n  update: {update}\n") + "\nstore:\n  rolling: true\n"
    (rig / "rig.yaml").write_text(text, encoding="utf-8")
    return load_rig(rig).with_engine(engine)


class Live:
    """A run as a camera would make it, with every step as slow as a test wants it.

    Parameters
    ----------
    slow : seconds by which "reconstruct" and "infer" are delayed, each time
    sinks : beside the store; they may miss frames
    network : what the network is replaced by
    on_stop : stops the camera
    """

    def __init__(
        self,
        rig: RigConfig,
        store: Path,
        *,
        policy: str = "complete",
        provisional: bool = False,
        sinks: Sequence[Sink] = (),
        origin: tuple[float, float] = (0.0, 0.0),
        positions: tuple[str, ...] = ("0",),
        z_planes: int = 1,
        slow: Mapping[str, float] = {},
        backend: str = "openvino",
        shape: tuple[int, int] = (SIZE, SIZE),
        dtype: str = "uint16",
        resample: Literal["auto", "off"] | None = None,
        uncertainty: Augmentation | None = None,
        ensemble: Augmentation | None = None,
        error_map: Literal["numbers", "planes"] | None = None,
        error_bars: bool = False,
        network: Callable[[Any], Any] = lambda session: session,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        camera = Geometry(shape, dtype, 0.065, origin)
        names = list(rig.channels)
        compute = ComputeConfig(
            backend=backend,
            precision="f32",
            device="cpu",
            threads=1,
            resample=resample,
            uncertainty=uncertainty,
            ensemble=ensemble,
            error_map=error_map,
            error_bars=error_bars,
        )
        paths = {name: build_path(rig, name, camera, compute) for name in names}
        self.paths = {name: _slowed(path, slow) for name, path in paths.items()}
        for name, path in self.paths.items():
            if path.networks.session:
                self.paths[name] = with_session(path, network(path.networks.session))
        self.run = RunDescription(
            stream_id="test",
            started_ns=time.time_ns(),
            channels=tuple(path.description for path in self.paths.values()),
            positions=positions,
            z_planes=z_planes,
            sidecars=rig.files(),
        )
        self.sink = OMEZarrSink(store)
        all_sinks = [*sinks, self.sink]
        self.pipeline = Pipeline(
            self.paths, self.run, all_sinks, KeepingUp(policy, provisional), on_stop=on_stop
        )

    def record(
        self,
        groups: NDArray[np.uint16],
        *,
        missing: Iterable[tuple[int, int]] = (),
        pace_s: Callable[[int], float] = lambda t: 0.0,
    ) -> dict[str, Any]:
        """Feed (t, raw, y, x) to every position, channel and plane.

        Coordinates make each stream different.
        """
        absent = set(missing)
        self.pipeline.open()
        try:
            for t, group in enumerate(groups):
                for p in range(len(self.run.positions)):
                    for c, channel in enumerate(self.paths):
                        for z in range(self.run.z_planes):
                            n_raw = self.paths[channel].n_raw
                            for raw, frame in enumerate(group[:n_raw]):
                                if (t, raw) not in absent:
                                    index = {"t": t, "p": p, "z": z, "sim": raw}
                                    event = MDAEvent(index=index, channel=channel or None)
                                    pixels = frame + frame.dtype.type(10 * p + 20 * c + 5 * z)
                                    self.pipeline.hook.frame_ready(pixels, event, {})
                time.sleep(pace_s(t))
        finally:
            self.pipeline.end()
            report = self.pipeline.join()
            for path in self.paths.values():
                path.close()
        return report


def with_session(path: ChannelPath, session: Any) -> ChannelPath:
    """Put another session in the place of the one that makes what is stored."""
    *before, last = path.networks.steps
    steps = (*before, last._replace(session=session))
    return dataclasses.replace(path, networks=dataclasses.replace(path.networks, steps=steps))


def _slowed(path: ChannelPath, slow: Mapping[str, float]) -> ChannelPath:
    changes: dict[str, Any] = {}
    if "infer" in slow and path.networks.session:
        path = with_session(path, _SlowSession(path.networks.session, slow["infer"]))
    if "reconstruct" in slow:
        changes["reconstructor"] = _SlowReconstructor(path.reconstructor, slow["reconstruct"])
    return dataclasses.replace(path, **changes)


class _Slow:
    def __init__(self, inner: Any, seconds: float) -> None:
        self._inner, self._seconds = inner, seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _SlowSession(_Slow):
    def infer(self) -> NDArray[np.float32]:
        time.sleep(self._seconds)
        return self._inner.infer()


class _SlowReconstructor(_Slow):
    def reconstruct(self, frames: Any) -> NDArray[np.float32]:
        time.sleep(self._seconds)
        return self._inner.reconstruct(frames)


def array(store: Path, name: str) -> np.ndarray:
    return zarr.open_array(store / name / "0", mode="r")[:]


def lines(store: Path, kind: str) -> dict:
    return RecordedStore(store).pictures(kind)


def assert_equal(one: Path, other: Path, kinds: tuple[str, ...] = ("raw", "recon", "sr")) -> None:
    names = sorted(
        image.name for image in RecordedStore(one).images.values() if image.kind in kinds
    )
    assert names == sorted(
        image.name for image in RecordedStore(other).images.values() if image.kind in kinds
    )
    for name in names:
        a, b = array(one, name), array(other, name)
        assert a.shape == b.shape
        if name.startswith("sr"):
            assert np.abs(a.astype(int) - b.astype(int)).max() <= 1, name
        else:
            np.testing.assert_array_equal(a, b, name)
