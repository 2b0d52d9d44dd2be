"""A real tritonserver computes the network, where one is installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from backend_contract import session_on
from certificates import certificate_of
from livesr.base.compute import ComputeConfig
from livesr.base.errors import BackendError, EngineError
from livesr.live.inference import kserve, remote
from livesr.live.inference.engine import load_engine
from livesr.live.inference.identity import identity_engine
from livesr.live.inference.remote import RemoteSession
from livesr.live.inference.runner import open_session
from recorded_runs import Live, assert_equal, mixing_engine, moving_groups, sim_rig
from triton_process import TritonServer, needs_triton
from waiting import until

needs_triton()
pytestmark = pytest.mark.skipif(os.name == "nt", reason="tritonserver runs on Linux")

LIGHT = "imcsr-mt-er-lyso-light"
SHAPE = (64, 96)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    server = TritonServer(tmp_path_factory.mktemp("triton") / "served", [LIGHT, "identity"])
    server.start()
    yield server
    server.kill()


def on(server: TritonServer) -> ComputeConfig:
    return ComputeConfig(backend="kserve", endpoint=server.endpoint)


def frames(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((3, *SHAPE), np.float32)


def test_it_predicts_what_this_computer_does_for_two_clients(server: TritonServer) -> None:
    engine = load_engine(LIGHT)

    def differences(first: int) -> list[float]:
        found = []
        with (
            RemoteSession(engine, SHAPE, on(server)) as away,
            session_on(engine, SHAPE, "openvino", "f32") as here,
        ):
            for seed in range(first, first + 8):
                away.input[...] = here.input[...] = frames(seed)
                found.append(float(np.abs(away.infer() - here.infer()).max()))
            assert (away.account["frames"], away.replacements) == (8, ())
            assert away.account["server_ms"] > 0
            assert away.account["shared_memory"]
        return found

    with ThreadPoolExecutor(2) as clients:
        worst = [max(d) for d in clients.map(differences, (0, 100))]
    assert max(worst) < 1e-5


@pytest.mark.parametrize("shared", [True, False])
def test_memory_is_shared_on_one_computer_and_nothing_of_it_stays(
    server: TritonServer, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    monkeypatch.setattr(kserve, "can_be_shared", lambda: shared)
    before, engine = set(os.listdir("/dev/shm")), load_engine("identity")
    with open_session(engine, SHAPE, on(server)) as session:
        session.input[...] = frames(0)
        found = session.infer().copy()
        assert session.shares_memory == shared
        assert not {n for n in set(os.listdir("/dev/shm")) - before if n.startswith("psm_")}
        told = kserve_regions(server)
        assert len(told) == shared
    assert not kserve_regions(server)
    np.testing.assert_allclose(found, np.repeat(frames(0)[1:2] / 3, 3, 0), atol=1e-6)


def kserve_regions(server: TritonServer) -> list[str]:
    from tritonclient.grpc import InferenceServerClient

    with InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        regions = client.get_system_shared_memory_status().regions
    return [name for name in regions if name.startswith("livesr-")]


def test_killed_and_started_again_in_a_run_it_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_LOOK_S", 0.1)
    monkeypatch.setattr(remote, "_MAX_LOOK_S", 0.2)
    engine = mixing_engine(tmp_path / "mixing")
    server = TritonServer(tmp_path / "served", [str(engine.folder)])
    server.start()
    try:
        monkeypatch.setenv(kserve.ENDPOINT, server.endpoint)
        rig = sim_rig(str(engine.folder))
        live = Live(rig, tmp_path / "live.ome.zarr", backend="kserve")
        session = live.paths["488"].networks.session
        assert session is not None

        def pace_s(t: int) -> float:
            if t == 4:
                server.kill()
            if t == 8:
                until(lambda: session.name != "kserve")
                server.start()
                until(lambda: session.name == "kserve")
            return 0.05

        report = live.record(moving_groups(16), pace_s=pace_s)
    finally:
        server.kill()
    assert (report["raw_frames"], report["raw_lost"], report["recon_frames"]) == (16 * 9, 0, 16)
    assert (report["sr_frames"], report["sr_failed"], report["error"]) == (16, 0, None)
    (account,) = report["remote"]["488"]
    assert account["frames"] + account["frames_here"] == 16
    assert account["frames"] > 4
    assert account["outages"] == 1
    assert any("failed" in w and "cannot be reached" in w for w in report["warnings"])
    assert any(w.endswith("again.") for w in report["warnings"])
    here = Live(rig, tmp_path / "here.ome.zarr")
    here.record(moving_groups(16))
    assert_equal(live.sink.path, here.sink.path)


def test_another_network_of_the_same_name_is_refused(server: TritonServer, tmp_path: Path) -> None:
    other = identity_engine(tmp_path / "identity", channels=2)
    with pytest.raises(EngineError, match="another network is not taken"):
        open_session(other, SHAPE, on(server))
    unknown = mixing_engine(tmp_path / "mixing")
    with pytest.raises(BackendError, match=r"does not have this model|refuses"):
        open_session(unknown, SHAPE, on(server))


def test_a_damaged_network_is_not_served(tmp_path: Path) -> None:
    engine = identity_engine(tmp_path / "identity")
    server = TritonServer(tmp_path / "served", [str(engine.folder)])
    server.start()
    server.kill()
    other = identity_engine(tmp_path / "other", channels=2)
    shutil.copy(other.onnx_path, tmp_path / "served" / "models" / "identity" / "1" / "model.onnx")
    from livesr.export.serving import Door
    from livesr.export.triton_server import find_triton, start

    scratch = tmp_path / "scratch"
    process = start(find_triton(), Door(port=server.port).here(tmp_path / "served/models"), scratch)
    assert process.wait(60) != 0  # strict: it does not start with a model that is not in order


def test_over_tls_with_a_token_in_half_precision_until_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = certificate_of(tmp_path / "tls")
    token = "a-token-of-the-lab-1"
    server = TritonServer(
        tmp_path / "served",
        ["identity"],
        *("--cert", str(certificate), "--key", str(key), "--wire", "f16"),
        environment={kserve.TOKEN: token},
    )
    server.start()
    try:
        engine, compute = (
            load_engine("identity"),
            ComputeConfig(backend="kserve", endpoint=f"grpcs://localhost:{server.port}"),
        )
        monkeypatch.setenv(kserve.CA, str(certificate))
        monkeypatch.delenv(kserve.TOKEN, raising=False)
        with pytest.raises(BackendError, match=r"token|refuses"):
            open_session(engine, SHAPE, compute)
        monkeypatch.setenv(kserve.TOKEN, token)
        with open_session(engine, SHAPE, compute) as session:
            session.input[...] = frames(0)
            np.testing.assert_allclose(
                session.infer(), np.repeat(frames(0)[1:2] / 3, 3, 0), atol=1e-3
            )
            assert session.served() is not None
        plain = compute.model_copy(update={"endpoint": f"grpc://localhost:{server.port}"})
        with pytest.raises(BackendError, match="cannot be reached"):
            open_session(engine, SHAPE, plain)
    finally:
        try:
            assert server.interrupt() == 130
        finally:
            server.kill()
