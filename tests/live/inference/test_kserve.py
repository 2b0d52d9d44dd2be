"""A server that speaks KServe: what is asked of it, what it may answer, and what if it does not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tritonclient.grpc", reason="the kserve backend needs tritonclient")

from backend_contract import session_on
from certificates import certificate_of
from kserve_server import KServeServer
from livesr.base.compute import ComputeConfig
from livesr.base.config import endpoint_of, load_rig, parse
from livesr.base.errors import BackendError, ConfigError, EngineError
from livesr.base.geometry import Geometry
from livesr.formats.store import RecordedStore
from livesr.live.inference import kserve, remote
from livesr.live.inference.engine import Engine, load_engine, write_manifest
from livesr.live.inference.identity import identity_engine
from livesr.live.inference.remote import RemoteSession
from livesr.live.inference.runner import in_order, open_session
from livesr.live.inference.runtime import runtime_named
from livesr.live.paths import build_path
from livesr.store.process import process
from livesr.store.raw_input import raw_input
from recorded_runs import Live, array, assert_equal, moving_groups, sim_rig
from waiting import until

SHAPE = (24, 33)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return identity_engine(tmp_path / "identity")


@pytest.fixture
def server(engine: Engine) -> Iterator[KServeServer]:
    server = KServeServer(engine)
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that failed is asked again at once."""
    monkeypatch.setattr(remote, "_LOOK_S", 0.05)
    monkeypatch.setattr(remote, "_MAX_LOOK_S", 0.1)
    for name in (kserve.ENDPOINT, kserve.TOKEN, kserve.CA):
        monkeypatch.delenv(name, raising=False)


def on(server: KServeServer, **settings: Any) -> ComputeConfig:
    return ComputeConfig(backend="kserve", endpoint=server.endpoint, **settings)


def frames(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((3, *SHAPE), np.float32)


def inferred(session: Any, given: np.ndarray) -> np.ndarray:
    session.input[...] = given
    return np.array(session.infer())


# -- in order --------------------------------------------------------------------------------------


def test_a_server_predicts_what_this_computer_does(engine: Engine, server: KServeServer) -> None:
    with RemoteSession(engine, SHAPE, on(server)) as session, session_on(engine, SHAPE) as here:
        assert (session.name, session.precision, session.device) == (
            "kserve",
            "f32",
            server.endpoint,
        )
        for seed in range(3):
            found, expected = inferred(session, frames(seed)), inferred(here, frames(seed))
            np.testing.assert_allclose(found, expected, atol=1e-6)
        assert session.replacements == ()
        account = session.account
    assert account["frames"] == 3
    assert (account["frames_here"], account["outages"]) == (0, 0)
    assert account["latency_ms"]["p50"] <= account["latency_ms"]["p99"]
    assert 0 <= account["network_share"] <= 1


def test_views_and_pixels_of_training_are_asked_of_a_server(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = engine.manifest
    trained = {"pixel_size_nm": {"min": 24.0, "max": 28.0}}  # the rig's frames have 32.5 nm
    write_manifest(
        engine.folder, type(manifest).model_validate(manifest.model_dump(mode="json") | trained)
    )
    server = KServeServer(load_engine(engine.folder))
    try:
        rig = sim_rig(str(engine.folder)).model_copy(update={"endpoint": server.endpoint})
        stores = {}
        for backend in ("kserve", "openvino"):
            live = Live(rig, tmp_path / backend, backend=backend, ensemble="flips")
            report = live.record(moving_groups(4))
            assert report["sr_frames"] == 4
            stores[backend] = live.sink.path
            said = RecordedStore(live.sink.path).provenance("488")
            assert said["ensemble"] == "flips"
            assert said["runtime"]["pixel_size_nm"] == pytest.approx(25.92, abs=0.01)
            assert said["runtime"]["backend"] == backend
    finally:
        server.stop()
    assert server.answered >= 4 * 4, "every view of every frame"
    found, here = (array(store, "sr") for store in stores.values())
    assert found.any()
    np.testing.assert_allclose(found, here, rtol=2e-3, atol=1e-3)


def test_pixels_go_in_half_where_the_model_takes_it(engine: Engine, server: KServeServer) -> None:
    server.datatype = "FP16"
    given = frames()
    given[1, 0, 0] = 1e6  # more than FP16 holds
    with open_session(engine, SHAPE, on(server)) as session:
        found = inferred(session, given)
        assert session.precision == "f16"
    expected = np.repeat(np.minimum(given[1:2], 65504) / 3, 3, 0)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-3)


def test_a_server_without_configurations_has_the_network_that_its_name_says(
    engine: Engine, server: KServeServer, tmp_path: Path
) -> None:
    server.plain = True  # as OpenVINO Model Server
    with RemoteSession(engine, SHAPE, on(server)) as session:
        found = inferred(session, frames())
        assert session.name == "kserve"
        assert not session.account["shared_memory"]
    np.testing.assert_allclose(found, np.repeat(frames()[1:2] / 3, 3, 0), atol=1e-6)
    with pytest.raises(BackendError, match="does not have this model"):
        open_session(identity_engine(tmp_path / "two", channels=2), SHAPE, on(server))


def test_it_is_taken_only_where_it_is_named() -> None:
    assert "kserve" not in in_order()
    assert runtime_named("kserve").facts()["remote"]


def test_several_frames_are_under_way(
    server: KServeServer, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(kserve.ENDPOINT, server.endpoint)
    server.slow_s = 0.1
    rig = sim_rig(str(engine.folder))
    live = Live(rig, tmp_path / "live.ome.zarr", backend="kserve")
    server.most_at_once = 0
    report = live.record(moving_groups(12))
    assert report["sr_frames"] == 12
    assert 1 < server.most_at_once <= kserve.IN_FLIGHT
    (account,) = report["remote"]["488"]
    assert account["frames"] == 12
    assert account["server_ms"] == pytest.approx(100, abs=1)
    here = Live(rig, tmp_path / "here.ome.zarr")
    here.record(moving_groups(12))
    assert_equal(live.sink.path, here.sink.path)


def test_a_run_loses_nothing_while_the_server_comes_and_goes(
    server: KServeServer, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(kserve.ENDPOINT, server.endpoint)
    rig = sim_rig(str(engine.folder))
    live = Live(rig, tmp_path / "live.ome.zarr", backend="kserve")
    session = live.paths["488"].networks.session
    assert session is not None

    def pace_s(t: int) -> float:
        if t == 3:
            server.stop()
        if t == 6:
            until(lambda: session.name != "kserve")
            server.start()
            until(lambda: session.name == "kserve")
        return 0.05

    report = live.record(moving_groups(12), pace_s=pace_s)
    assert report["raw_frames"] == 12 * 9
    assert (report["sr_frames"], report["sr_failed"], report["error"]) == (12, 0, None)
    assert [w for w in report["warnings"] if "failed" in w]
    assert [w for w in report["warnings"] if "again" in w]
    (account,) = report["remote"]["488"]
    assert account["frames"] + account["frames_here"] == 12
    assert account["frames_here"] > 0
    here = Live(rig, tmp_path / "here.ome.zarr")
    here.record(moving_groups(12))
    assert_equal(live.sink.path, here.sink.path)


# -- not in order ----------------------------------------------------------------------------------

NONSENSE = [
    "error",
    "numbers that are none",
    "another shape",
    "more than was asked for",
    "another name",
    "another type",
    "fewer bytes",
]


@pytest.mark.parametrize("does", NONSENSE)
def test_nonsense_is_noticed_and_this_computer_takes_over(
    engine: Engine, server: KServeServer, does: str
) -> None:
    with RemoteSession(engine, SHAPE, on(server)) as session:
        inferred(session, frames())
        server.does = does
        found = inferred(session, frames(1))
        np.testing.assert_allclose(found, np.repeat(frames(1)[1:2] / 3, 3, 0), atol=1e-2)
        assert session.name in in_order()
        (said,) = session.replacements
        assert f"since kserve at {server.endpoint} failed" in said
        assert said.isprintable()
        server.does = "right"
        until(lambda: session.name == "kserve")
        inferred(session, frames(2))
        assert session.replacements[1].endswith(f"runs on kserve at {server.endpoint} again.")
        account = session.account
    assert (account["frames"], account["frames_here"], account["outages"]) == (2, 1, 1)


def test_a_slow_server_is_not_waited_for(
    engine: Engine, server: KServeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_MIN_DEADLINE_S", 0.3)
    monkeypatch.setattr(remote, "_MAX_DEADLINE_S", 0.3)
    with RemoteSession(engine, SHAPE, on(server)) as session:
        server.slow_s = 3.0
        inferred(session, frames())
        assert "did not answer in time" in session.replacements[0]
        server.slow_s = 0.0
        until(lambda: session.name == "kserve")


def test_a_server_that_vanishes_is_taken_back(engine: Engine, server: KServeServer) -> None:
    with RemoteSession(engine, SHAPE, on(server)) as session:
        server.stop()
        for seed in range(3):
            found = inferred(session, frames(seed))
            np.testing.assert_allclose(found, np.repeat(frames(seed)[1:2] / 3, 3, 0), atol=1e-2)
        server.start()
        until(lambda: session.name == "kserve")
        inferred(session, frames())
        assert len(session.replacements) == 2


@pytest.mark.parametrize("lie", [{"sha256": "0" * 64}, {"version": "2"}, {}])
def test_another_network_is_not_taken_back(
    engine: Engine, server: KServeServer, lie: dict[str, str]
) -> None:
    with RemoteSession(engine, SHAPE, on(server)) as session:
        server.stop()
        inferred(session, frames())
        if lie:
            server.said |= lie
        else:
            server.does = "other pixels"  # and says that it is the engine
        server.start()
        until(lambda: len(session.replacements) > 1)
        assert "is not taken back" in session.replacements[1]
        found = inferred(session, frames(1))
        np.testing.assert_allclose(found, np.repeat(frames(1)[1:2] / 3, 3, 0), atol=1e-2)
        assert session.name != "kserve"


@pytest.mark.parametrize("lie", [{"sha256": "0" * 64}, {"version": "2"}])
def test_another_network_without_an_outage_is_left(
    engine: Engine, server: KServeServer, lie: dict[str, str]
) -> None:
    with RemoteSession(engine, SHAPE, on(server)) as session:
        inferred(session, frames())
        server.said |= lie  # it loaded another model between two frames, none of which failed
        server.does = "other pixels"
        until(lambda: session.name != "kserve")
        assert "another network is not taken" in session.replacements[0]
        assert "the last seconds may be of that one" in session.replacements[0]
        found = inferred(session, frames(1))
        np.testing.assert_allclose(found, np.repeat(frames(1)[1:2] / 3, 3, 0), atol=1e-2)


def test_a_server_that_began_anew_between_two_frames_is_compared_again(
    engine: Engine, server: KServeServer
) -> None:
    with RemoteSession(engine, SHAPE, on(server)) as session:
        inferred(session, frames())
        until(lambda: session.account["server_ms"] is not None)
        server.answered = 0
        until(lambda: len(session.replacements) == 2)
        assert "anew" in session.replacements[0]
        assert session.replacements[1].endswith("again.")
        server.answered, server.does = 0, "other pixels"  # and says that it is the engine
        until(lambda: len(session.replacements) > 2)
        assert "is not taken back" in session.replacements[2]


def test_frames_go_on_from_several_threads_while_it_comes_and_goes(
    engine: Engine, server: KServeServer
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def many(lane: int) -> None:
        for i in range(40):
            given = frames(100 * lane + i)
            found = inferred(session.lanes[lane], given)
            np.testing.assert_allclose(found, np.repeat(given[1:2] / 3, 3, 0), atol=1e-2)
            if lane == 0 and i in (10, 20):
                server.stop()
                server.start()

    with RemoteSession(engine, SHAPE, on(server)) as session, ThreadPoolExecutor(4) as threads:
        list(threads.map(many, range(4)))
        account = session.account
    assert account["frames"] + account["frames_here"] == 160


# -- refused at the start --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"said": {"sha256": "0" * 64, "version": "1"}}, "has sha256 0000"),
        ({"said": {"version": "1"}}, "does not say its sha256"),
        ({"said": {}}, "another network is not taken"),
        ({"ends": 2}, "expected one input and one output"),
        ({"datatype": "FP64"}, "both FP32 or FP16"),
        ({"does": "other pixels"}, "makes something else of a test frame"),
        ({"does": "another shape"}, r"expected \(1, 3, 24, 33\)"),
    ],
)
def test_a_wrong_model_is_refused(
    engine: Engine, server: KServeServer, wrong: dict[str, Any], sentence: str
) -> None:
    vars(server).update(wrong)
    with pytest.raises((EngineError, BackendError), match=sentence):
        RemoteSession(engine, SHAPE, on(server))


def test_a_model_for_frames_of_another_size_is_refused(
    engine: Engine, server: KServeServer
) -> None:
    server.size = SHAPE
    with RemoteSession(engine, SHAPE, on(server)) as session:
        inferred(session, frames())
        assert session.name == "kserve"
    server.size = (64, 64)
    with pytest.raises(BackendError, match=r"takes \[1, 3, 64, 64\].*serve --plan 24x33"):
        open_session(engine, SHAPE, on(server))


def test_what_cannot_be_had_is_refused_in_a_sentence(
    engine: Engine, server: KServeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BackendError, match="computes in f32, not in 'bf16'"):
        open_session(engine, SHAPE, on(server, precision="bf16"))
    other = identity_engine(tmp_path / "two", channels=2)
    with pytest.raises(EngineError, match="another network is not taken"):
        open_session(other, SHAPE, on(server))
    with pytest.raises(BackendError, match="none is named"):
        open_session(engine, SHAPE, ComputeConfig(backend="kserve"))
    with pytest.raises(BackendError, match="asks none"):
        open_session(engine, SHAPE, ComputeConfig(backend="openvino", endpoint=server.endpoint))
    monkeypatch.setenv(kserve.ENDPOINT, "http://gpu:8000")
    with pytest.raises(BackendError, match=f"{kserve.ENDPOINT}: no server's address"):
        open_session(engine, SHAPE, ComputeConfig(backend="kserve"))
    monkeypatch.setenv(kserve.ENDPOINT, server.endpoint)
    open_session(engine, SHAPE, ComputeConfig(backend="kserve")).close()
    server.stop()
    with pytest.raises(BackendError, match="cannot be reached"):
        open_session(engine, SHAPE, ComputeConfig(backend="kserve"))
    monkeypatch.setattr(kserve, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"pip install 'livesr\[remote\]'"):
        open_session(engine, SHAPE, ComputeConfig(backend="kserve"))


def test_the_rig_names_the_server(engine: Engine, server: KServeServer) -> None:
    rig = sim_rig(str(engine.folder)).model_copy(update={"endpoint": server.endpoint})
    camera = Geometry((16, 16), "uint16", 0.065)
    path = build_path(rig, "488", camera, ComputeConfig(backend="kserve"))
    assert path.description.ai["runtime"]["device"] == server.endpoint
    path.close()
    path = build_path(rig, "488", camera, ComputeConfig())
    assert path.description.ai["runtime"]["backend"] != "kserve"
    path.close()


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("grpc://gpu", "grpc://gpu:8001"),
        ("grpcs://gpu.lab:9000/", "grpcs://gpu.lab:9000"),
        ("grpc://[::1]:8001", "grpc://[::1]:8001"),
        ("", None),
        (None, None),
    ],
)
def test_addresses(text: str | None, endpoint: str | None) -> None:
    assert endpoint_of(text) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "gpu:8001",
        "http://gpu",
        "grpc://",
        "grpc://gpu:http",
        "grpc://gpu:99999",
        "grpc://gpu/model",
        "grpc://a b:1",
        "grpc://gpu?x=1",
        "grpc://gpu\n",
        "grpc://gpü",
        8001,
        "grpc://" + 999 * "a",
    ],
)
def test_what_is_no_address_is_refused(text: Any) -> None:
    with pytest.raises(ConfigError, match="expected grpc://HOST:8001"):
        parse(ComputeConfig, {"endpoint": text}, "rig.yaml")


# -- who may, and who listens ----------------------------------------------------------------------


def test_a_password_in_an_address_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as refused:
        parse(ComputeConfig, {"endpoint": "grpc://me:secret@gpu:8001"}, "rig.yaml")
    assert kserve.TOKEN in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_token_goes_to_this_computer_or_encrypted(
    engine: Engine, server: KServeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(kserve.TOKEN, "s3cret")
    open_session(engine, SHAPE, on(server)).close()
    assert server.headers["authorization"] == "Bearer s3cret"
    assert server.headers[f"triton-grpc-protocol-{kserve.TOKEN_HEADER}"] == "s3cret"
    away = ComputeConfig(backend="kserve", endpoint="grpc://192.0.2.1:8001")
    with pytest.raises(BackendError, match="is not encrypted") as refused:
        open_session(engine, SHAPE, away)
    assert "s3cret" not in str(refused.value)


def test_over_tls_only_the_server_of_that_certificate_is_believed(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = certificate_of(tmp_path / "a")
    other, _ = certificate_of(tmp_path / "b")
    server = KServeServer(engine, (key.read_bytes(), certificate.read_bytes()))
    try:
        monkeypatch.setenv(kserve.CA, str(certificate))
        with open_session(engine, SHAPE, on(server)) as session:
            inferred(session, frames())
        monkeypatch.setenv(kserve.CA, str(other))
        with pytest.raises(BackendError, match="cannot be reached"):
            open_session(engine, SHAPE, on(server))
        monkeypatch.setenv(kserve.CA, str(tmp_path / "none.pem"))
        with pytest.raises(BackendError, match="is not there"):
            open_session(engine, SHAPE, on(server))
    finally:
        server.stop()


def test_no_store_decides_where_frames_go(
    server: KServeServer, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "rig"
    shutil.copytree(sim_rig("identity").folder, folder)
    with (folder / "rig.yaml").open("a", encoding="utf-8") as file:
        file.write(f"\nendpoint: {server.endpoint}\n")
    rig = load_rig(folder).with_engine(str(engine.folder))
    monkeypatch.setenv(kserve.ENDPOINT, server.endpoint)
    live = Live(rig, tmp_path / "live.ome.zarr", backend="kserve")
    live.record(moving_groups(4))
    assert RecordedStore(live.sink.path).provenance("488")["runtime"]["backend"] == "kserve"
    monkeypatch.delenv(kserve.ENDPOINT)
    answered = server.answered
    raw = raw_input(live.sink.path, engine=str(engine.folder))
    assert raw.rig.endpoint is None
    report = process(raw, tmp_path / "again.ome.zarr")
    assert "was separated live with kserve f32, now with" in " ".join(report["warnings"])
    assert report["sr_frames"] == 4
    with pytest.raises(BackendError, match="none is named"):
        process(raw, tmp_path / "named.ome.zarr", compute=ComputeConfig(backend="kserve"))
    assert server.answered == answered
