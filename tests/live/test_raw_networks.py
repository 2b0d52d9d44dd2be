"""Networks that see raw frames: what they see, what comes of it, and what it says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import yaozarrs
import zarr
from typer.testing import CliRunner

from held_memory import Still, peak_of
from livesr import LiveSR
from livesr.base.compute import ComputeConfig
from livesr.base.config import ReconstructConfig, RigConfig, load_rig
from livesr.base.errors import ConfigError, EngineError
from livesr.base.geometry import Geometry
from livesr.cli import app
from livesr.formats.store import RecordedStore
from livesr.live.inference.engine import load_engine
from livesr.live.paths import build_path
from livesr.live.restore import RawGroups, RestoredSession
from livesr.live.sources.plan import sim_sequence
from livesr.modalities.sim.simulation.rig import find_sim_camera
from livesr.store.backfill import backfill
from livesr.store.process import process
from livesr.store.raw_input import raw_input
from livesr.store.repair import repair
from raw_groups import ONE_PHASE, group_engine, restoring_engine
from recorded_runs import SIZE, Live, array, lines, mixing_engine, moving_groups, sim_rig
from rigs import core_of

CAMERA = Geometry((SIZE, SIZE), "uint16", 0.065)
ON_CPU = ComputeConfig(backend="openvino", precision="f32", device="cpu", threads=1)
DARK = 100


@pytest.fixture(autouse=True)
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Engines found by name: "of-three" and "of-nine" reconstruct, "mixing" separates."""
    monkeypatch.setenv("LIVESR_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "engines"
    group_engine(folder / "of-three")
    nine = [f"angle {a} phase {p}" for a in range(3) for p in range(3)]
    group_engine(folder / "of-nine", np.full(9, 1 / 9).tolist(), raw_frames=nine)
    mixing_engine(folder / "mixing")
    return folder


def rig(
    engine: str | None, frames: Any, separate: str | None = None, restore: str | None = None
) -> RigConfig:
    plain = sim_rig("none")
    said = ReconstructConfig(engine=engine, frames=frames, modality="sim")
    update: dict[str, Any] = {"separate": separate, "restore": restore}
    if engine or frames:
        update["reconstruct"] = said
    return plain.model_copy(
        update={"channels": {"488": plain.channels["488"].model_copy(update=update)}}
    )


def twice(image: np.ndarray) -> np.ndarray:
    return image.repeat(2, 0).repeat(2, 1)


class TestPath:
    @pytest.mark.parametrize(
        ("frames", "exposed"), [(3, (0, 3, 6)), (6, (0, 1, 3, 4, 6, 7)), ([2, 5], (2, 5))]
    )
    def test_which_raw_frames_are_exposed(self, frames: Any, exposed: tuple[int, ...]) -> None:
        found = rig(None, frames)
        assert found.exposed("488") == exposed
        path = build_path(found, "488", CAMERA, ON_CPU)
        assert path.n_raw == len(exposed)
        assert path.description.raw_labels == found.raw_labels("488")
        assert path.description.recon_method == "widefield mean"

    def test_phase_major_rigs_expose_the_same_patterns(self) -> None:
        plain = rig(None, 3)
        section = plain.section("488").model_copy(update={"order": "phase-major"})
        other = plain.with_section(section)
        assert (plain.exposed("488"), other.exposed("488")) == ((0, 3, 6), (0, 1, 2))
        assert plain.raw_labels("488") == other.raw_labels("488") == ONE_PHASE

    def test_the_network_sees_its_own_order(self, engines: Path) -> None:
        turned = group_engine(engines / "turned", raw_frames=ONE_PHASE[::-1])
        assert turned.raw_order(ONE_PHASE) == (2, 1, 0)
        path = build_path(rig("turned", 3), "488", CAMERA, ON_CPU)
        frames = [np.full((SIZE, SIZE), DARK + i, np.uint16) for i in (1, 2, 3)]
        seen = path.group(frames)
        path.close()
        assert seen is not None
        assert seen[:, 0, 0].tolist() == [3, 2, 1]

    def test_other_raw_frames_are_refused(self) -> None:
        with pytest.raises(EngineError, match=r"exposes 3, angle 0 phase 1.*reconstruct.frames"):
            build_path(rig("of-three", [1, 4, 7]), "488", CAMERA, ON_CPU)
        with pytest.raises(EngineError, match=r"does 'reconstruct'.*reconstruct: \{engine"):
            build_path(rig(None, None, separate="of-three"), "488", CAMERA, ON_CPU)

    def test_what_does_not_go_together_is_refused(self, engines: Path) -> None:
        restoring_engine(engines / "restore", [[1.0]])
        with pytest.raises(ConfigError, match="takes the noise out itself"):
            build_path(rig("of-three", 3, restore="restore"), "488", CAMERA, ON_CPU)

    def test_leaving_the_engine_out(self) -> None:
        whole, part = rig("of-nine", 9), rig("of-three", 3)
        assert whole.with_engine("none", "reconstruct").channel("488").reconstruct == "sim"
        assert part.with_engine("none", "reconstruct").raw_frames("488") == 3
        assert (
            load_rig("virtual_sim")
            .with_engine("x", "reconstruct")
            .channel("488")
            .engines["reconstruct"]
            == "x"
        )


@pytest.mark.parametrize("separate", [None, "mixing"])
def test_a_run_of_three_raw_frames(tmp_path: Path, separate: str | None) -> None:
    live = Live(rig("of-three", 3, separate), tmp_path / "run.ome.zarr")
    groups = moving_groups(5, 3)
    live.record(groups)
    store = live.sink.path
    yaozarrs.validate_zarr_store(str(store))
    light = groups.astype(np.float32) - DARK
    assert array(store, "raw").shape == (5, 3, SIZE, SIZE)
    recon = array(store, "recon").astype(np.float32) - 1000
    assert np.abs(recon - light.mean(1)).max() <= 1
    sr = array(store, "sr").astype(np.float32)
    assert sr.shape == (5, 3 if separate else 1, 2 * SIZE, 2 * SIZE)
    levels = [line["normalisation"] for line in lines(store, "sr").values()]
    made = [
        np.tensordot([0.5, 0.3, 0.2], group, 1) - level["background"]
        for group, level in zip(light, levels, strict=True)
    ]
    if separate is None:
        for t in range(5):
            assert np.abs(sr[t, 0] - twice(np.clip(made[t], 0, None))).max() <= 1
    about = zarr.open_group(store / "sr", mode="r").attrs["livesr"]
    assert about["prediction"] is True
    assert about["engines"][0]["task"] == "reconstruct"
    assert about["input"]["kind"] == "raw frames"
    assert about["input"]["labels"] == list(ONE_PHASE)
    measured = zarr.open_group(store / "recon", mode="r").attrs["livesr"]
    assert (measured["prediction"], measured["method"]) == (False, "widefield mean")


def test_processed_again_it_is_the_same(tmp_path: Path) -> None:
    live = Live(rig("of-three", 3), tmp_path / "run.ome.zarr")
    live.record(moving_groups(4, 3))
    raw = raw_input(live.sink.path)
    report = process(raw, tmp_path / "again.ome.zarr", compute=ON_CPU)
    again = Path(report["store"])
    for name in ("recon", "sr"):
        assert np.array_equal(array(again, name), array(live.sink.path, name))


def test_the_command_line_names_it(tmp_path: Path) -> None:
    """What the rig exposes stays: a flag loads no other patterns into the display."""
    groups = moving_groups(3, 9)
    plain = Live(sim_rig("none"), tmp_path / "plain.ome.zarr")
    plain.record(groups)
    told = {"replay": plain.sink.path, "rate": "max", "store": tmp_path / "run.ome.zarr"}
    flags = [part for name, value in told.items() for part in (f"--{name}", str(value))]
    said = CliRunner().invoke(
        app, ["run", "virtual_sim", "--reconstruct", "of-three", "--engine", "none", *flags]
    )
    assert said.exit_code == 0, said.output
    about = zarr.open_group(tmp_path / "run.ome.zarr" / "sr", mode="r").attrs["livesr"]
    assert [e["model"]["id"] for e in about["engines"]] == ["of-three"]
    assert about["engines"][0]["raw_frames"] == list(ONE_PHASE)
    recon = array(tmp_path / "run.ome.zarr", "recon").astype(np.float32) - 1000
    assert np.abs(recon - (groups.astype(np.float32) - DARK).mean(1)).max() <= 1


def test_a_rig_that_exposes_three(tmp_path: Path) -> None:
    rig = load_rig("virtual_sim_3")
    plan = sim_sequence(3, list(rig.channels), raw=rig.raw_frames("488"))
    store = tmp_path / "run.ome.zarr"
    with core_of("virtual_sim_3", 1, SensorSize=96, TimePoints=3) as core:
        with LiveSR(core, rig=rig, plan=plan, store=store, policy="complete") as session:
            core.mda.run(plan)
        camera = find_sim_camera(core)
        assert camera is not None
        assert session.report["raw_frames"] == 9
        assert np.array_equal(array(store, "raw"), camera.bank.frames)
        truth = [sum(camera.truth(t).values()) for t in range(3)]
    said = zarr.open_group(store / "sr", mode="r").attrs["livesr"]["input"]
    assert (said["kind"], said["labels"]) == ("raw frames", list(ONE_PHASE))
    inside = (slice(24, -24), slice(24, -24))
    for t in range(3):
        seen = [array(store, "sr")[t, 0], twice(array(store, "recon")[t])]
        predicted, mean = (
            np.corrcoef(p[inside].ravel(), truth[t][inside].ravel())[0, 1] for p in seen
        )
        assert predicted > mean + 0.02


def test_what_was_skipped_is_completed(tmp_path: Path) -> None:
    live = Live(
        rig("of-three", 3), tmp_path / "run.ome.zarr", policy="latest", slow={"infer": 0.05}
    )
    report = live.record(moving_groups(12, 3))
    assert (missing := 12 - report["sr_frames"]) > 0
    assert backfill(live.sink.path, compute=ON_CPU)["predicted"] == missing
    assert array(live.sink.path, "sr").any((1, 2, 3)).all()


def test_the_classical_reconstruction_of_a_whole_group(tmp_path: Path) -> None:
    groups = moving_groups(3, 9)
    live = Live(rig("of-nine", 9), tmp_path / "run.ome.zarr")
    live.record(groups)
    classical = Live(sim_rig("none"), tmp_path / "classical.ome.zarr")
    classical.record(groups)
    raw = raw_input(live.sink.path, raw={"reconstruct": "none"})
    again = Path(process(raw, tmp_path / "again.ome.zarr", compute=ON_CPU)["store"])
    assert "sr" not in {image.kind for image in RecordedStore(again).images.values()}
    assert np.array_equal(array(again, "recon"), array(classical.sink.path, "recon"))


def test_metadata_that_is_lost_is_made_again(tmp_path: Path) -> None:
    found = rig("of-three", 3)
    (tmp_path / "rig.yaml").write_text(
        yaml.safe_dump(found.model_dump(mode="json", exclude={"folder"})), encoding="utf-8"
    )
    found = load_rig(tmp_path)
    live = Live(found, tmp_path / "run.ome.zarr")
    live.record(moving_groups(3, 3))
    store = live.sink.path
    manifest = (tmp_path / "home" / "engines" / "of-three" / "manifest.yaml").read_text()
    (store / "livesr" / "manifest-488.yaml").write_text(manifest)
    before = {}
    for name in ("recon", "sr"):
        file = store / name / "zarr.json"
        before[name] = json.loads(file.read_text())["attributes"]["livesr"]
        file.unlink()
    (store / "livesr" / "images.json").unlink()
    repair(store)
    for name, said in before.items():
        again = json.loads((store / name / "zarr.json").read_text())["attributes"]["livesr"]
        assert (again["prediction"], again["kind"]) == (said["prediction"], said["kind"])
    assert again["input"] == before["sr"]["input"]


def test_too_few_raw_frames_are_not_calibrated_with(tmp_path: Path) -> None:
    part = rig("of-three", 3).model_dump(mode="json", exclude={"folder"})
    (tmp_path / "rig.yaml").write_text(yaml.safe_dump(part), encoding="utf-8")
    said = CliRunner().invoke(app, ["calibrate", str(tmp_path), "--dry-run"])
    assert "exposes angle 0 phase 0, angle 1 phase 0, angle 2 phase 0, and" in str(said.exception)


class TestRestore:
    @pytest.mark.parametrize("n", [1, 9])
    def test_the_measurement_is_of_the_frames_as_they_came(
        self, tmp_path: Path, engines: Path, n: int
    ) -> None:
        """A network that halves the light leaves half of it in the prediction alone."""
        restoring_engine(engines / "half", (0.5 * np.eye(n)).tolist())
        live = Live(rig(None, None, restore="half"), tmp_path / "run.ome.zarr")
        groups = moving_groups(3, 9)
        live.record(groups)
        plain = Live(sim_rig("none"), tmp_path / "plain.ome.zarr")
        plain.record(groups)
        store = live.sink.path
        assert np.array_equal(array(store, "raw"), groups)
        assert np.array_equal(array(store, "recon"), array(plain.sink.path, "recon"))
        about = zarr.open_group(store / "sr", mode="r").attrs["livesr"]
        assert (about["prediction"], about["engines"][0]["task"]) == (True, "restore")
        sr, recon = array(store, "sr")[:, 0].astype(float), array(store, "recon") - 1000.0
        assert sr.shape == recon.shape
        inside = (slice(None), slice(16, -16), slice(16, -16))
        assert sr[inside].std() / recon[inside].std() == pytest.approx(0.5, abs=0.05)

    def test_a_network_that_changes_nothing(self, tmp_path: Path, engines: Path) -> None:
        restoring_engine(engines / "same", [[1.0]])
        live = Live(rig(None, None, restore="same"), tmp_path / "run.ome.zarr")
        live.record(moving_groups(3, 9))
        sr, recon = (array(live.sink.path, name).astype(float) for name in ("sr", "recon"))
        told = lines(live.sink.path, "sr").values()
        levels = [line["normalisation"]["background"] for line in told]
        for t in range(3):
            expected = np.clip(recon[t] - 1000 - levels[t], 0, None)
            assert np.abs(sr[t, 0] - expected).max() <= 2

    def test_what_cannot_restore_is_refused(self, engines: Path) -> None:
        restoring_engine(engines / "wide", [[1.0]], scale=2)
        with pytest.raises(EngineError, match="keeps its pixels"):
            build_path(rig(None, None, restore="wide"), "488", CAMERA, ON_CPU)
        engine = restoring_engine(engines / "middle", [[1.0]], window=3)
        with pytest.raises(EngineError, match="one by one"):
            engine.check_fits("restore", raw_labels=ONE_PHASE)

    def test_the_error_names_a_key_that_there_is(self, engines: Path) -> None:
        restoring_engine(engines / "same", [[1.0]])
        with pytest.raises(EngineError, match="Name it under 'restore'"):
            load_engine("same").check_fits("separate")
        assert rig(None, None, restore="same").channel("488").engines == {"restore": "same"}


@pytest.mark.parametrize("seen", [1, 9], ids=["one by one", "a group"])
def test_what_a_restored_channel_holds_is_known_before(seen: int) -> None:
    camera, labels = Geometry((128, 128), "uint16", 0.065), tuple(map(str, range(9)))

    def again() -> Any:
        return build_path(rig(None, None), "488", camera, ON_CPU).reconstructor

    network = Still(seen, (128, 128))
    again()  # what is kept for every channel
    groups = RawGroups((128, 128), 0.065, labels, 0.0, again)
    picture = 1 + moving_groups(1).repeat(4, 2).repeat(4, 3)[0] / 500
    peak, said = peak_of(lambda: RestoredSession(network, groups), picture)  # type: ignore[arg-type]
    assert peak < 1.02 * said + 65536
    assert said < 1.25 * peak
