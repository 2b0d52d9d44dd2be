"""An engine that was trained for one microscope, and what rig.yaml says of that one today."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from livesr.base.config import RigConfig, load_rig, load_yaml, parse
from livesr.check.rig import check_rig
from livesr.live.inference.engine import Manifest, load_engine, write_manifest
from livesr.live.own_engine import changed_since_training, notes_of
from livesr.training.for_rig import recipe_for
from recorded_runs import Live, mixing_engine, moving_groups, sim_rig

LIGHT = "imcsr-mt-er-lyso-light"


def trained_for(rig: RigConfig, channel: str) -> Manifest:
    """Return the manifest of an engine as `livesr train --rig` and `livesr export` make it."""
    domain = recipe_for(rig, channel, LIGHT).data.domain.model_dump(mode="json")
    training = {"rig": {"name": rig.name}, "domain": domain}
    return load_engine(LIGHT).manifest.model_copy(update={"id": "mine", "training": training})


def test_the_rig_that_it_was_trained_for_has_not_changed() -> None:
    for name, channel in (("virtual_sim", "488"), ("tirf_sim", "640")):
        rig = load_rig(name)
        assert changed_since_training(trained_for(rig, channel), rig, channel) == []


def test_an_engine_for_many_microscopes_is_left_alone() -> None:
    manifest = load_engine(LIGHT).manifest
    assert changed_since_training(manifest, load_rig("virtual_sim"), "488") == []


@pytest.mark.parametrize(
    ("section", "settings", "said"),
    [
        ("sim", {"wiener": 0.3}, "wiener 0.3 (trained for 0.1)"),
        ("sim", {"attenuation": 0.2}, "attenuation 0.2 (trained for 0.7)"),
        ("sim", {"attenuation_fwhm_um": 3.0}, "attenuation_fwhm_um 3.0 (trained for 1.2)"),
        ("sim", {"sectioning": True}, "sectioning True (trained for False)"),
        ("optics", {"na": 1.3}, "optics.na 1.3 (trained for 1.48 to 1.5)"),
        ("camera", {"gain_e_per_adu": 1.0}, "1 / gain_e_per_adu 1 (trained for 2.065 to 2.283)"),
    ],
)
def test_what_changed_is_named(section: str, settings: dict[str, float], said: str) -> None:
    rig = load_rig("tirf_sim")
    manifest = trained_for(rig, "640")
    said_of_it = load_yaml(rig.folder / "rig.yaml")
    said_of_it[section].update(settings)
    changed = parse(RigConfig, {**said_of_it, "folder": rig.folder}, "rig.yaml")
    (sentence,) = changed_since_training(manifest, changed, "640")
    assert sentence.startswith("Engine 'mine' was trained for one microscope TIRF-SIM, and")
    assert said in sentence


def test_another_channel_is_another_microscope() -> None:
    rig = load_rig("tirf_sim")
    (sentence,) = changed_since_training(trained_for(rig, "640"), rig, "488")
    assert "emission (um)" in sentence


def test_a_channel_of_another_modality() -> None:
    sim, storm = load_rig("tirf_sim"), load_rig("virtual_storm")
    channel = next(iter(storm.channels))
    (sentence,) = changed_since_training(trained_for(sim, "640"), storm, channel)
    assert "was trained for one microscope, and this is none: " in sentence


def test_livesr_check_tells(tmp_path: Path) -> None:
    rig = tmp_path / "rig"
    shutil.copytree(load_rig("virtual_sim").folder, rig)
    manifest = trained_for(load_rig(str(rig)), "488")
    shutil.copytree(load_engine(LIGHT).folder, tmp_path / "mine")
    write_manifest(tmp_path / "mine", manifest)
    text = (rig / "rig.yaml").read_text(encoding="utf-8")
    text = text.replace(f"separate: {LIGHT}", f"separate: {tmp_path / 'mine'}")
    assert f"{tmp_path / 'mine'}" in text

    def said() -> list[str]:
        return [f.says for f in check_rig(rig / "rig.yaml") if f.code == "engine-fit"]

    (rig / "rig.yaml").write_text(text, encoding="utf-8")
    assert said() == []
    (rig / "rig.yaml").write_text(text.replace("wiener: 0.1", "wiener: 0.3"), encoding="utf-8")
    (sentence,) = said()
    assert sentence.endswith("rig.yaml says otherwise of it now: wiener 0.3 (trained for 0.1).")


@pytest.fixture
def own(tmp_path: Path) -> RigConfig:
    """A rig whose channel is separated by an engine that was trained for it."""
    rig = sim_rig("none")
    engine = mixing_engine(tmp_path / "own")
    training = trained_for(rig, "488").training
    write_manifest(engine.folder, engine.manifest.model_copy(update={"training": training}))
    return rig.with_engine(str(engine.folder))


def blurring(rig: RigConfig) -> RigConfig:
    return rig.with_section(rig.section("488").model_copy(update={"wiener": 0.3}))


def test_a_run_says_once_what_changed(
    own: RigConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = "rig.yaml says otherwise of it now: wiener 0.3 (trained for 0.1)."
    for name, rig, times in (("same", own, 0), ("changed", blurring(own), 1)):
        caplog.clear()
        report = Live(rig, tmp_path / f"{name}.ome.zarr").record(moving_groups(2))
        assert report["sr_frames"] == 2
        assert sum(told in warning for warning in report["warnings"]) == times
        assert caplog.text.count(told) == times


def test_a_sum_is_that_of_one_of_its_channels() -> None:
    tirf = load_rig("tirf_sim")
    manifest = trained_for(tirf, "640")
    assert notes_of(manifest, tirf, ["488", "640"]) == []
    (sentence,) = notes_of(manifest, tirf, ["488"])
    assert "emission (um)" in sentence


def test_no_run_is_refused_for_a_manifest_that_does_not_say_it(
    own: RigConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    manifest = load_engine(folder).manifest
    training = {**manifest.training, "domain": {"of a later version": 1}}
    write_manifest(folder, manifest.model_copy(update={"training": training}))
    report = Live(own, tmp_path / "run.ome.zarr").record(moving_groups(2))
    assert any("is not known" in warning for warning in report["warnings"])
