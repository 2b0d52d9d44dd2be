"""Every setting of every way to run reaches what computes, or is refused in a sentence."""

from __future__ import annotations

import contextlib
import inspect
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pymmcore_plus import CMMCorePlus

from livesr import LiveSR, Replay, backfill, load_rig, process, raw_input, sim_sequence
from livesr.base.compute import ComputeConfig
from livesr.base.errors import BackendError, ConfigError, UsageError
from livesr.base.run_config import LiveConfig, RunConfig
from livesr.cli import _run
from livesr.cli.options import _COMPUTE
from livesr.formats.store import RecordedStore
from livesr.live import session as sessions
from livesr.live.honoured import check_honoured
from livesr.live.inference.cuda import why_no_gpu
from livesr.live.inference.engine import load_engine
from livesr.live.paths import Geometry, build_path
from recorded_runs import Live, moving_groups, sim_rig
from rigs import virtual_sim

HONOURED = {
    "backend": "torch",
    "precision": "f32",
    "threads": 3,
    "tile": 96,
    "uncertainty": "flips",
    "ensemble": "flips",
    "error_map": "numbers",
}
NOT_IN_PLACE = {"uncertainty", "ensemble", "error_map"}
N_T = 4


def groups() -> NDArray[np.uint16]:
    """(t, raw, 64, 64): frames that are larger than a tile once they are reconstructed."""
    return np.tile(moving_groups(N_T), (1, 1, 2, 2))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of which half of the predictions were given up."""
    live = Live(
        sim_rig("identity"),
        tmp_path_factory.mktemp("recorded") / "live.ome.zarr",
        policy="latest",
        shape=(64, 64),
        slow={"infer": 0.2},
    )
    report = live.record(groups())
    assert report["sr_skipped"]
    return live.sink.path


@pytest.fixture(scope="module")
def core() -> Iterator[CMMCorePlus]:
    with virtual_sim(time_points=N_T) as core:
        yield core


@pytest.fixture(autouse=True)
def torch_has_the_threads_that_it_had() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# -- ways to run: each takes settings and returns the report ---------------------------------------


class Ways:
    """Every way to compute frames, by name; settings of `ComputeConfig` go in as they are given."""

    def __init__(self, core: CMMCorePlus, recorded: Path, folder: Path) -> None:
        self._core, self._recorded, self._folder = core, recorded, folder
        self.store = folder / "made.ome.zarr"
        self.frames: list[Any] = []

    def live_sr(self, **settings: Any) -> dict[str, Any]:
        plan = sim_sequence(N_T, ["488"])
        session = LiveSR(
            self._core,
            rig="virtual_sim",
            engine="identity",
            plan=plan,
            store=self.store,
            policy="complete",
            **settings,
        )
        session.frame_ready.connect(self.frames.append)
        with session:
            self._core.mda.run(plan)
        return dict(session.report)

    def replay(self, **settings: Any) -> dict[str, Any]:
        session = Replay(
            self._recorded, rate="max", store=self.store, policy="complete", **settings
        )
        session.frame_ready.connect(self.frames.append)
        with session:
            session.run()
        return dict(session.report)

    def process(self, **settings: Any) -> dict[str, Any]:
        return dict(process(raw_input(self._recorded), self.store, compute=self._said(settings)))

    def backfill(self, **settings: Any) -> dict[str, Any]:
        shutil.copytree(self._recorded, self.store)
        return dict(backfill(self.store, compute=self._said(settings)))

    def cli_run(self, **settings: Any) -> dict[str, Any]:
        rig = self._folder / "rig"
        shutil.copytree(sim_rig("identity").folder, rig)
        cfg = (rig / "rig.cfg").read_text(encoding="utf-8")
        (rig / "rig.cfg").write_text(
            cfg.replace("SensorSize,256", "SensorSize,64").replace("TimePoints,40", "TimePoints,3"),
            encoding="utf-8",
        )
        return self._command(
            "run", rig, "--frames", N_T, "--engine", "identity", "--exposure", 1, **settings
        )

    def cli_replay(self, **settings: Any) -> dict[str, Any]:
        rig = sim_rig("identity").folder
        there = ("--replay", self._recorded, "--rate", "max", "--engine", "identity")
        return self._command("run", rig, *there, **settings)

    def cli_demo(self, **settings: Any) -> dict[str, Any]:
        small = ("--size", 64, "--frames", N_T, "--engine", "identity", "--exposure", 1)
        return self._command("demo", *small, **settings)

    def cli_process(self, **settings: Any) -> dict[str, Any]:
        return self._command("process", self._recorded, **settings)

    def cli_backfill(self, **settings: Any) -> dict[str, Any]:
        shutil.copytree(self._recorded, self.store)
        return self._command("backfill", self.store, stored=False, **settings)

    @staticmethod
    def _said(settings: dict[str, Any]) -> ComputeConfig:
        return ComputeConfig(**settings)

    def _command(self, *words: Any, stored: bool = True, **settings: Any) -> dict[str, Any]:
        flags = [
            f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
            for name, value in settings.items()
        ]
        flags += ["--store", str(self.store)] if stored else []
        flags += ["--policy", "complete"] if words[0] in ("run", "demo") else []
        out = self._folder / "out.json"
        with out.open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
            code = _run([*map(str, words), *flags, "--json"])
        report: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        if code:
            raise UsageError(report["error"])
        return report


WAYS = [name for name, _ in inspect.getmembers(Ways, inspect.isfunction) if name[0] != "_"]
IN_PLACE = ("backfill", "cli_backfill")


@pytest.fixture
def ways(core: CMMCorePlus, recorded: Path, tmp_path: Path) -> Ways:
    return Ways(core, recorded, tmp_path)


# -- what is computed ------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_what_is_asked_for_is_what_computes(ways: Ways, way: str) -> None:
    asked = {k: v for k, v in HONOURED.items() if k not in NOT_IN_PLACE or way not in IN_PLACE}
    report = getattr(ways, way)(**asked)
    assert torch.get_num_threads() == 3
    said = " ".join(report["warnings"])
    assert "in tiles of 96 pixels" in said
    if way in IN_PLACE:  # its store says how the run computed
        assert "now with torch f32" in said
        assert report["predicted"] > 0
        return
    made = RecordedStore(ways.store)
    runtime = made.provenance("488")["runtime"]
    assert {k: runtime[k] for k in ("backend", "precision", "tile")} == {
        "backend": "torch",
        "precision": "f32",
        "tile": 96,
    }
    assert runtime["device"] == "CPU, 3 threads" or why_no_gpu() is None
    assert made.uncertainty("488") == "flips"
    assert made.provenance("488")["ensemble"] == "flips"
    assert report["error_map"]["488"]["prediction"]["frames"] >= 1


@pytest.mark.parametrize("way", WAYS)
def test_the_server_that_is_named_computes(ways: Ways, way: str) -> None:
    pytest.importorskip("tritonclient.grpc", reason="the kserve backend needs tritonclient")
    from kserve_server import KServeServer

    server = KServeServer(load_engine("identity"))
    try:
        report = getattr(ways, way)(backend="kserve", endpoint=server.endpoint)
        if way in IN_PLACE:
            assert "now with kserve f32" in " ".join(report["warnings"])
            assert report["predicted"] > 0
        else:
            runtime = RecordedStore(ways.store).provenance("488")["runtime"]
            assert (runtime["backend"], runtime["device"]) == ("kserve", server.endpoint)
        assert server.answered > report.get("sr_frames", 1)  # and test frames before
    finally:
        server.stop()


@pytest.mark.parametrize("way", WAYS)
def test_a_device_that_is_not_there_is_not_replaced(ways: Ways, way: str) -> None:
    if why_no_gpu() is None:
        report = getattr(ways, way)(device="cuda")
        assert way in IN_PLACE or report["device"] == {"488": "cuda"}
    else:
        with pytest.raises(UsageError, match="GPU"):
            getattr(ways, way)(device="cuda")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"backend": "torhc"}, "Did you mean 'torch'"),
        ({"precision": "f33"}, "no precision 'f33'"),
        ({"precision": "f8", "backend": "openvino"}, "f8"),
        ({"threads": -1}, "threads"),
        ({"tile": 7}, "tile"),
        ({"uncertainty": "flops"}, "uncertainty"),
        ({"ensemble": "turns"}, "ensemble"),
        ({"resample": "on"}, "resample"),
        ({"device": "cdua"}, "device"),
        ({"endpoint": "http://gpu:8001"}, "expected grpc://HOST:8001"),
        ({"endpoint": "grpc://gpu:8001"}, "use --backend kserve"),
        ({"backend": "kserve"}, r"none is named|pip install 'livesr\[remote\]'"),
    ],
)
def test_what_cannot_be_is_refused(
    ways: Ways, way: str, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises((UsageError, ValueError), match=sentence):
        getattr(ways, way)(**settings)


@pytest.mark.parametrize("way", ["live_sr", "replay"])
def test_a_script_gets_the_residual_plane(ways: Ways, way: str) -> None:
    getattr(ways, way)(residual_plane=True)
    assert all(frame.residual_plane.shape == (128, 128) for frame in ways.frames)
    assert ways.frames


@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("live_sr", "replay")])
def test_the_residual_plane_is_refused_where_nobody_gets_it(ways: Ways, way: str) -> None:
    with pytest.raises(UsageError, match=r"residual[-_]plane"):
        getattr(ways, way)(residual_plane=True)


@pytest.mark.parametrize("way", IN_PLACE)
def test_a_store_is_completed_as_it_was_begun(ways: Ways, way: str) -> None:
    with pytest.raises(UsageError, match=r"livesr process .* --uncertainty flips"):
        getattr(ways, way)(uncertainty="flips")


@pytest.mark.parametrize("way", IN_PLACE)
def test_a_backfill_compares_nothing_with_widefield(ways: Ways, way: str) -> None:
    with pytest.raises(UsageError, match=r"livesr process .* --error-map numbers"):
        getattr(ways, way)(error_map="numbers")


@pytest.mark.parametrize("way", [way for way in WAYS if way not in IN_PLACE])
@pytest.mark.parametrize("resample", ["auto", "off"])
def test_frames_are_brought_to_other_pixels_or_not(
    ways: Ways, way: str, resample: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livesr.live.networks.own_pixel_nm", lambda engine, pixel_size_nm: 26.0)
    getattr(ways, way)(resample=resample)
    runtime = RecordedStore(ways.store).provenance("488")["runtime"]
    assert runtime.get("pixel_size_nm") == (26.0 if resample == "auto" else None)


@pytest.mark.parametrize("way", WAYS)
def test_error_bars_are_refused_where_none_were_calibrated(ways: Ways, way: str) -> None:
    with pytest.raises(UsageError, match="calibrate-errors"):
        getattr(ways, way)(error_bars=True)


def test_a_gpu_is_refused_where_nothing_computes_on_one() -> None:
    rig, asked = load_rig("demo").with_engine("none"), ComputeConfig(device="cuda")
    path = build_path(rig, "488", Geometry((32, 32), "uint16", 0.065), asked)
    with pytest.raises(BackendError, match="no code for a GPU"):
        check_honoured({"488": path}, asked)
    assert check_honoured({"488": path}, ComputeConfig(device="auto")) == ()
    on_gpu = replace(path, device=SimpleNamespace(name="cuda"))
    (note,) = check_honoured({"488": path, "561": on_gpu}, asked)
    assert note.startswith("Channel '488' is reconstructed on the CPU")


def test_every_field_is_walked() -> None:
    walked = {*HONOURED, "device", "residual_plane", "endpoint", "error_bars", "resample"}
    assert walked == set(ComputeConfig.model_fields)
    assert set(_COMPUTE) == walked - {"residual_plane"}
    defaults = {name: field.default for name, field in ComputeConfig.model_fields.items()}
    assert all(defaults[name] == default for name, (_, default) in _COMPUTE.items())


# -- settings of a run -----------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "model"), [(LiveSR, LiveConfig), (Replay, RunConfig)])
def test_settings_are_named_parameters(kind: type, model: type[RunConfig]) -> None:
    parameters = inspect.signature(kind).parameters
    assert not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for name, field in model.model_fields.items():
        assert parameters[name].default == field.default, name
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY


def opened(ways: Ways, way: str, **settings: Any) -> list[str]:
    """What a run is opened with, and what it then promises."""
    plan = sim_sequence(2, ["488"])
    if way == "live_sr":
        session: Any = LiveSR(ways._core, rig="virtual_sim", engine="none", plan=plan, **settings)
    else:
        session = Replay(ways._recorded, engine="none", rate="max", **settings)
    with session:
        promised = [*session.promises(1.0), str(session.endpoint)]
        if way == "live_sr":
            ways._core.mda.run(plan)
        else:
            session.run()
    return promised


@pytest.mark.parametrize("way", ["live_sr", "replay"])
def test_a_run_is_opened_as_it_is_said(
    ways: Ways, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    real = sessions.KeepingUp

    def keeping_up(*args: Any, **kwargs: Any) -> Any:
        given.append(real(*args, **kwargs))
        return given[-1]

    monkeypatch.setattr(sessions, "KeepingUp", keeping_up)
    made, spare = tmp_path / "r.ome.zarr", tmp_path / "spare"
    promised = opened(
        ways,
        way,
        store=made,
        spare=spare,
        flush_s=1.0,
        publish="tcp://0.0.0.0:*",
        insecure=True,
        policy="complete",
        provisional="off",
        record_raw=False,
        record_recon=True,
        raw_queue_bytes=7_000_000_000,
    )
    assert given == [real("complete", provisional=False, raw_queue_bytes=7_000_000_000)]
    assert "at most 7.0 GB for waiting frames" in promised[0]
    assert any(line.startswith("Spare disk") for line in promised)
    assert promised[-1].startswith("tcp://0.0.0.0:")
    assert {kind for kind, *_ in RecordedStore(made).images} == {"recon"}
    opened(ways, way, store=tmp_path / "x.ome.zarr", record_recon=False)
    assert {kind for kind, *_ in RecordedStore(tmp_path / "x.ome.zarr").images} == {"raw"}
    empty = {"store": tmp_path / "y.ome.zarr", "record_raw": False, "record_recon": False}
    with pytest.raises(ConfigError, match="is to be stored, and neither raw frames nor"):
        opened(ways, way, **empty)
    assert not empty["store"].exists()


@pytest.mark.parametrize("way", ["live_sr", "replay"])
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"spare": "elsewhere"}, "for a store"),
        ({"flush_s": 1.0}, "for a store"),
        ({"keys": "keys"}, "nothing says where"),
        ({"insecure": True}, "nothing says where"),
        ({"publish": "tcp://0.0.0.0:*"}, "insecure"),
        ({"publish": "tcp://127.0.0.1:*", "keys": "nowhere"}, "nowhere"),
        ({"policy": "all"}, "policy"),
        ({"provisional": "on"}, "provisional"),
        ({"raw_queue_bytes": 0}, "raw_queue_bytes"),
        ({"uncertainty": "flips"}, "nothing is predicted"),
        ({"ensemble": "flips"}, "nothing is predicted"),
        ({"residual_plane": True}, "nothing is predicted"),
    ],
)
def test_what_a_run_cannot_do_is_refused(
    ways: Ways, way: str, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        opened(ways, way, **settings)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((None, {}), "was given None as its core"),
        ((3, {"rig": "virtual_sim"}), "was given a int as its core"),
        ((..., {}), "was given no rig"),
        ((..., {"rig": "virtual_sim", "live": "on"}), "live"),
    ],
)
def test_a_wrong_session_is_refused_at_once(
    core: CMMCorePlus, arguments: tuple[Any, dict[str, Any]], sentence: str
) -> None:
    given, settings = arguments
    with pytest.raises(UsageError, match=sentence):
        LiveSR(core if given is ... else given, **settings)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "virtual_sim", "--axes", "tyx"], "none is replayed"),
        (["run", "virtual_sim", "--rate", "max"], "none is replayed"),
        (["run", "virtual_sim", "--origin", "1", "2"], "none is replayed"),
        (["run", "virtual_sim", "--replay", "x.tif", "--seed", "1"], "a recording has its own"),
        (["run", "virtual_sim", "--replay", "x.tif", "--exposure", "1"], "a recording has its own"),
        (["run", "virtual_sim", "--frames", "2", "--duration", "2"], "how long the run is"),
        (["run", "demo", "--seed", "1"], "sets no property Seed"),
        (["run", "demo", "--spare-disk", "x"], "for a store"),
    ],
)
def test_flags_that_nothing_would_follow_are_refused(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run([*arguments, "--json"]) == 2
    assert sentence in json.loads(capsys.readouterr().out)["error"]


def test_a_store_is_told_nothing_about_itself(recorded: Path) -> None:
    from livesr import ReadAs

    with pytest.raises(UsageError, match="leave out axes, interval_s"):
        raw_input(recorded, how=ReadAs(axes="tyx", interval_s=1.0))
