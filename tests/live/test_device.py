"""A run whose frames go through slots, as on a GPU.

On this computer's memory, with real threads, and with other arrays.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import array_api_strict
import numpy as np
import pytest
from numpy.typing import NDArray
from useq import MDAEvent

from livesr.base.compute import ComputeConfig
from livesr.base.config import RigConfig, load_rig
from livesr.base.errors import BackendError
from livesr.base.frames import MulticolorFrame, SRFrame, Stream
from livesr.base.geometry import Geometry
from livesr.base.run_description import RunDescription
from livesr.live.arrays import Arrays, NumpyArrays
from livesr.live.device import (
    HOST_DEVICE,
    CudaDevice,
    HostDevice,
    HostSlot,
    StreamLock,
    open_device,
)
from livesr.live.inference.cuda import why_no_gpu
from livesr.live.inference.identity import identity_engine
from livesr.live.inference.openvino import OpenVINOSession
from livesr.live.inference.runtime import why_unavailable
from livesr.live.keeping_up import KeepingUp
from livesr.live.paths import ChannelPath, build_path
from livesr.live.pipeline import Pipeline
from livesr.live.sinks.sink import Sink
from livesr.modalities.sim.reconstructor import SIMReconstructor
from livesr.modalities.sim.simulation.rig import RawBank

SIDE, N_T, DEADLINE_S = 96, 12, 60


class Resident(OpenVINOSession):
    """A session of OpenVINO as one on a GPU would be.

    What it reads and writes is "on the device", and few may use it at once.
    """

    enqueued = 0
    fails_after: int | None = None
    has_begun: threading.Event | None = None
    may_go: threading.Event | None = None

    @property
    def resident(self) -> Any:
        return None if self._padded is None else self

    @property
    def device_input(self) -> Any:
        return self.input

    def enqueue(self, stream: int) -> Any:
        type(self).enqueued += 1
        if self.fails_after is not None and self.enqueued > self.fails_after:
            raise OSError("an illegal memory access was encountered")
        if self.has_begun is not None:
            self.has_begun.set()
        assert self.may_go is None or self.may_go.wait(DEADLINE_S)
        return self.infer()


@pytest.fixture
def resident(monkeypatch: pytest.MonkeyPatch) -> type[Resident]:
    """What engines run in, with counters of its own."""
    session = type("Resident", (Resident,), {})
    monkeypatch.setattr("livesr.live.inference.openvino.OpenVINOSession", session)
    return session


class Kept(Sink):
    """Everything that comes out of a run."""

    name = "kept"
    lossless = essential = True

    def __init__(self) -> None:
        self.recons: list[SRFrame] = []
        self.frames: list[MulticolorFrame] = []
        self.skips: list[int] = []
        self.came = threading.Condition()

    def recon(self, frame: SRFrame) -> None:
        with self.came:
            self.recons.append(frame)
            self.came.notify_all()

    def wait_for_recons(self, count: int) -> None:
        with self.came:
            assert self.came.wait_for(lambda: len(self.recons) >= count, DEADLINE_S)

    def separated(self, frame: MulticolorFrame) -> None:
        self.frames.append(frame)

    def skipped(self, stream: Stream, t: int, reason: str) -> None:
        self.skips.append(t)


@pytest.fixture(scope="module")
def groups() -> NDArray[np.uint16]:
    bank = RawBank(
        load_rig("virtual_sim"), SIDE, N_T, seed=0, photons=300.0, bleaching=0.002, interval_s=0.5
    )
    return bank.frames


@pytest.fixture
def rig(tmp_path: Path) -> RigConfig:
    identity_engine(tmp_path / "identity")
    return load_rig("virtual_sim").with_engine(str(tmp_path / "identity"))


def path_of(rig: RigConfig, device: Any = "cpu") -> ChannelPath:
    return build_path(
        rig,
        "488",
        Geometry((SIDE, SIDE), "uint16", 0.065),
        ComputeConfig(
            precision="f32", threads=1, device=device if isinstance(device, str) else "cpu"
        ),
        None if isinstance(device, str) else device,
    )


def run(
    path: ChannelPath,
    groups: NDArray[np.uint16],
    after: Callable[[Kept, int], None] = lambda kept, t: None,
    policy: str = "complete",
    **settings: Any,
) -> tuple[Kept, dict[str, Any]]:
    kept = Kept()
    described = RunDescription(
        stream_id="test", started_ns=time.time_ns(), channels=(path.description,)
    )
    pipeline = Pipeline({"488": path}, described, [kept], KeepingUp(policy), **settings)
    pipeline.open()
    for t, group in enumerate(groups):
        for raw, frame in enumerate(group):
            pipeline.hook.frame_ready(
                frame.copy(), MDAEvent(index={"t": t, "sim": raw}, channel="488"), {}
            )
        after(kept, t)
    pipeline.end()
    report = pipeline.join()
    path.close()
    return kept, report


def check_same(found: Kept, expected: Kept, atol_adu: float = 0.0) -> None:
    assert [f.t for f in found.recons] == [f.t for f in expected.recons]
    assert [f.t for f in found.frames] == [f.t for f in expected.frames]
    for a, b in zip(found.recons, expected.recons, strict=True):
        np.testing.assert_allclose(a.image, b.image, atol=atol_adu)
        np.testing.assert_allclose(a.normalisation, b.normalisation, rtol=1e-4 if atol_adu else 0)
        assert a.saturated == b.saturated
    for c, d in zip(found.frames, expected.frames, strict=True):
        assert np.abs(c.channels.astype(int) - d.channels).max() <= atol_adu
        np.testing.assert_allclose(c.display, d.display, atol=2 * atol_adu)
        assert (c.edge, c.true_neighbours, c.warnings) == (d.edge, d.true_neighbours, d.warnings)
        assert isinstance(c.channels, np.ndarray)


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_frames_in_flight_give_what_the_cpu_gives(
    rig: RigConfig, groups: NDArray[np.uint16], resident: type[Resident], slots: int
) -> None:
    expected, before = run(path_of(rig), groups)
    assert resident.enqueued == 0
    found, report = run(path_of(rig, HostDevice(slots)), groups)
    assert resident.enqueued == N_T  # every frame stayed on the "device"
    assert (report["sr_frames"], report["recon_frames"], report["warnings"]) == (
        N_T,
        N_T,
        before["warnings"],
    )
    check_same(found, expected)


def test_other_arrays_give_what_numpy_gives(
    rig: RigConfig,
    groups: NDArray[np.uint16],
    resident: type[Resident],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected, before = run(path_of(rig), groups[:4])
    xp = array_api_strict

    def enqueue(self: Resident, stream: int) -> Any:
        type(self).enqueued += 1
        return xp.asarray(self.infer())

    monkeypatch.setattr(resident, "enqueue", enqueue)
    monkeypatch.setattr(
        resident, "device_input", property(lambda self: xp.asarray(self.input, copy=False))
    )
    found, report = run(path_of(rig, HostDevice(2, Arrays(xp))), groups[:4])
    assert (resident.enqueued, report["warnings"]) == (4, before["warnings"])
    check_same(found, expected, atol_adu=1.0)


def test_a_network_that_fails_on_the_device_is_replaced_and_no_frame_is_lost(
    rig: RigConfig, groups: NDArray[np.uint16], resident: type[Resident]
) -> None:
    pytest.importorskip("torch")
    expected, _ = run(path_of(rig), groups)
    resident.fails_after = 5
    found, report = run(path_of(rig, HostDevice(2)), groups)
    assert (report["sr_frames"], report["sr_failed"]) == (N_T, 0)
    assert any("illegal memory access" in w for w in report["warnings"])
    for a, b in zip(found.frames, expected.frames, strict=True):
        assert np.abs(a.channels.astype(int) - b.channels).max() <= 1


def test_a_device_that_cannot_compute_is_known_before_the_run(
    rig: RigConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    class WithoutCompiler(NumpyArrays):
        def rfft(self, a: Any) -> Any:
            raise ImportError("libnvrtc.so.13: cannot open shared object file")

    device = HostDevice(2, WithoutCompiler())
    with pytest.raises(
        BackendError, match=r"cannot be reconstructed on CPU: ImportError: libnvrtc"
    ):
        path_of(rig, device)
    monkeypatch.setattr("livesr.live.paths.open_device", lambda choice: device)
    path = path_of(rig, "auto")
    assert path.device is HOST_DEVICE
    assert any("libnvrtc" in note and "on the CPU" in note for note in path.notes)
    path.close()


def test_a_device_that_fails_is_left_and_no_frame_is_lost(
    rig: RigConfig, groups: NDArray[np.uint16]
) -> None:
    expected, _ = run(path_of(rig), groups)
    path = path_of(rig, HostDevice(2))
    broken = path.on_device[1].reconstructor

    def fail(frames: Any) -> Any:
        raise RuntimeError("CUDA_ERROR_ECC_UNCORRECTABLE")

    broken.reconstruct = fail  # type: ignore[method-assign]
    found, report = run(path, groups)
    assert (report["recon_frames"], report["recon_failed"], report["sr_frames"]) == (N_T, 0, N_T)
    assert report["device"] == {"488": "cpu"}
    assert any(
        "on the CPU since CPU failed (RuntimeError: CUDA_ERROR_ECC" in w for w in report["warnings"]
    )
    check_same(replace_warnings(found, expected), expected)


def replace_warnings(found: Kept, expected: Kept) -> Kept:
    found.frames = [
        replace(f, warnings=e.warnings) for f, e in zip(found.frames, expected.frames, strict=True)
    ]
    return found


def test_a_slow_network_skips_centres_and_never_their_neighbours(
    rig: RigConfig, groups: NDArray[np.uint16], resident: type[Resident]
) -> None:
    resident.has_begun, resident.may_go = threading.Event(), threading.Event()

    def reconstructed(kept: Kept, t: int) -> None:
        kept.wait_for_recons(
            t + 1
        )  # the camera is slower than reconstruction, and faster than the network
        if t == 1:  # which complete the first window
            assert resident.has_begun is not None
            assert resident.has_begun.wait(DEADLINE_S)
        if t == N_T - 1:
            resident.may_go.set()

    found, report = run(path_of(rig, HostDevice(2)), groups, policy="latest", after=reconstructed)
    shown = [f.t for f in found.frames]
    assert shown == sorted(set(shown))
    # One or two were in flight; of those that waited the newest was left, and the last one, which
    # nothing displaces.
    assert shown[0] == 0
    assert shown[-2:] == [N_T - 2, N_T - 1]
    assert len(shown) <= 4
    assert sorted(shown + found.skips) == list(range(N_T))
    assert (report["groups_dropped"], report["sr_skipped"]) == (0, N_T - len(shown))
    assert all(f.true_neighbours or f.edge for f in found.frames)


def test_slots_are_threads_that_end_with_the_run(
    rig: RigConfig, groups: NDArray[np.uint16]
) -> None:
    seen: set[str] = set()

    path = path_of(rig, HostDevice(2))
    for measuring in path.on_device:
        reconstruct = measuring.reconstructor.reconstruct

        def noted(frames: Any, reconstruct: Any = reconstruct) -> Any:
            seen.add(threading.current_thread().name)
            return reconstruct(frames)

        measuring.reconstructor.reconstruct = noted  # type: ignore[method-assign]
    run(path, groups)
    assert seen == {"livesr-measure-0", "livesr-measure-1"}
    assert not [t for t in threading.enumerate() if t.name.startswith("livesr-measure")]


def test_slots_follow_one_drift(rig: RigConfig, groups: NDArray[np.uint16]) -> None:
    path = path_of(rig, HostDevice(2))
    drifts = {
        id(m.reconstructor.drift)
        for m in path.on_device
        if isinstance(m.reconstructor, SIMReconstructor)
    }
    assert isinstance(path.reconstructor, SIMReconstructor)
    assert drifts == {id(path.reconstructor.drift)}
    path.close()


def test_the_host_uses_a_network_when_the_slots_are_done_with_it() -> None:
    class Enqueued:
        waited = 0

        def synchronize(self) -> None:
            self.waited += 1
            raise RuntimeError(
                "cudaErrorIllegalAddress"
            )  # does not keep the next runtime from taking over

    class Marked(HostSlot):
        event = Enqueued()

        def mark(self) -> Any:
            return self.event

    turn = StreamLock()
    with turn.of(Marked()):
        pass
    with turn.on_host():
        assert Marked.event.waited == 1
    with turn.on_host():
        assert Marked.event.waited == 1  # nothing was enqueued since


def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused_with_the_reason() -> None:
    assert open_device("cpu") is HOST_DEVICE
    if why_no_gpu() is None:
        pytest.skip("this computer has a GPU")
    assert open_device("auto") is HOST_DEVICE
    with pytest.raises(BackendError, match=r"cannot be computed on a GPU. .* use device 'cpu'"):
        open_device("cuda")


@pytest.fixture
def cuda() -> CudaDevice:
    if reason := why_no_gpu():
        pytest.skip(reason)
    pytest.importorskip("cupy", reason="CuPy is not installed")
    return CudaDevice()


def pcc(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["tensorrt", "torch"])
def test_on_a_gpu_frames_stay_there_and_are_what_the_cpu_makes(
    groups: NDArray[np.uint16], cuda: CudaDevice, backend: str
) -> None:
    if reason := why_unavailable(backend):
        pytest.skip(reason)
    rig, camera = load_rig("virtual_sim"), Geometry((SIDE, SIDE), "uint16", 0.065)
    expected, _ = run(
        build_path(
            rig,
            "488",
            camera,
            ComputeConfig(backend="openvino", precision="f32", device="cpu", threads=1),
        ),
        groups,
    )
    path = build_path(rig, "488", camera, ComputeConfig(backend=backend), cuda)
    assert path.resident is not None
    found, report = run(path, groups)
    assert report["device"] == {"488": "cuda"}
    assert not any("failed" in w for w in report["warnings"])
    assert [f.t for f in found.frames] == [f.t for f in expected.frames] == list(range(N_T))
    for a, b in zip(found.recons, expected.recons, strict=True):
        np.testing.assert_allclose(a.image, b.image, atol=1.0)
    for c, d in zip(found.frames, expected.frames, strict=True):
        assert all(pcc(x, y) >= 0.999 for x, y in zip(c.channels, d.channels, strict=True))


@pytest.mark.gpu
def test_on_a_gpu_memory_does_not_grow_with_the_frames(
    groups: NDArray[np.uint16], cuda: CudaDevice
) -> None:
    import cupy

    pool, held = cupy.get_default_memory_pool(), []
    path = path_of(load_rig("virtual_sim").with_engine("none"), cuda)

    def note(kept: Kept, t: int) -> None:
        kept.wait_for_recons(t)  # one more is in flight: both slots have work
        held.append(pool.total_bytes())

    run(path, np.concatenate([groups] * 4), after=note)
    assert held[-1] == held[2 * N_T] > 0


@pytest.mark.gpu
def test_a_lane_gives_back_what_it_was_given(cuda: CudaDevice) -> None:
    frames = [np.full((8, 6), i, np.uint16) for i in range(9)]
    for slot in [*cuda.slots, *cuda.slots]:
        with slot:
            there = slot.upload(frames)
            down = slot.download(cuda.arrays.xp.stack(there))
        np.testing.assert_array_equal(down, np.stack(frames))
