"""Limits and error bars hold for frames that are made as those were that they were measured on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from livesr.base import error_bars, rig_limits
from livesr.base.compute import ComputeConfig
from livesr.base.config import RigConfig, load_rig
from livesr.base.error_bars import ErrorBars
from livesr.base.geometry import Geometry
from livesr.base.rig_limits import ChannelLimits, RigLimits
from livesr.base.taken_with import SILENT, MadeWith
from livesr.check.rig import check_rig
from livesr.live.networks import engines_of
from livesr.live.paths import ChannelPath, build_path
from livesr.live.taken_with import made_with, taken_with
from recorded_runs import RIGS

FILES = (rig_limits.FILE, error_bars.FILE)
RAW_NM = 65.0


@pytest.fixture
def rig(tmp_path: Path) -> Path:
    """A rig with limits and error bars that were measured on it as it is."""
    folder = tmp_path / "rig"
    shutil.copytree(RIGS / "virtual_sim", folder)
    measured(folder, RAW_NM)
    return folder


def measured(folder: Path, raw_nm: float, told: dict[str, Any] | None = None) -> None:
    """Write both files."""
    config = load_rig(folder)
    engines = engines_of(config, "488")
    last = engines[-1].manifest
    limits = ChannelLimits(
        unknown_light=0.03,
        false_alarms=0.05,
        fields=19,
        frames=19,
        stores=["a"],
        taken_with=taken_with(config, "488", engines, raw_nm / 2, told),
    )
    RigLimits(channels={"488": limits}).save(folder / rig_limits.FILE)
    ErrorBars(
        engine=last.id,
        sha256=last.sha256,
        coverage=0.9,
        source="pairs",
        units=20,
        made_with=made_with(config, ["488"], engines, raw_nm / 2, told),
        structures={},
    ).save(folder / error_bars.FILE)


def changed(folder: Path, values: dict[str, Any]) -> None:
    """Set values of rig.yaml by their places."""
    file = folder / "rig.yaml"
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    for place, value in values.items():
        *parts, key = place.split(".")
        inner = document
        for part in parts:
            inner = inner[int(part) if isinstance(inner, list) else part]
        inner[key] = value
    file.write_text(yaml.safe_dump(document), encoding="utf-8")


def path_of(folder: Path, raw_nm: float = RAW_NM, **settings: Any) -> ChannelPath:
    """What a run does."""
    camera = Geometry((32, 32), "uint16", raw_nm / 1e3)
    path = build_path(load_rig(folder), "488", camera, ComputeConfig(threads=1, **settings))
    path.close()
    return path


def assert_used(path: ChannelPath, folder: Path, level: str = "note") -> None:
    assert path.own.limits is not None
    assert path.description.error_bars is not None
    assert not any(name in note for name in FILES for note in path.notes)
    assert levels(folder) == {"limits": level, "error-bars": level}


def levels(folder: Path) -> dict[str, str]:
    """What `livesr check` says of both files."""
    found = check_rig(folder / "rig.yaml")
    return {f.code: f.level for f in found if f.code in ("limits", "error-bars")}


def assert_not_used(path: ChannelPath, differs: str) -> None:
    assert path.own.limits is None
    assert path.description.error_bars is None
    for name in FILES:
        (note,) = [note for note in path.notes if name in note]
        assert f"{name} was measured with {differs}, in channel '488', and is not used" in note


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"sim.wiener": 0.05}, "sim.wiener 0.1, not 0.05"),
        ({"channels.488.wiener": 0.3}, "sim.wiener 0.1, not 0.3"),
        ({"sim.attenuation": 0.5}, "sim.attenuation 0.9, not 0.5"),
        ({"sim.apodisation": 0}, "sim.apodisation 1.0, not 0.0"),
        ({"sim.sectioning": True}, "sim.sectioning false, not true"),
        ({"optics.na": 1.4}, "optics.na 1.49, not 1.4"),
        ({"corrections": {"bad_pixels": [[1, 2]]}}, "corrections none, not bad_pixels"),
    ],
)
def test_of_another_reconstruction_they_are_not_used(
    rig: Path, change: dict[str, Any], differs: str
) -> None:
    changed(rig, change)
    assert_not_used(path_of(rig), differs)
    assert levels(rig) == {"limits": "warning", "error-bars": "warning"}
    said = [f.says for f in check_rig(rig / "rig.yaml") if f.code in ("limits", "error-bars")]
    assert all(f"was measured with {differs}" in sentence for sentence in said)


def test_of_another_method_they_are_not_used(rig: Path) -> None:
    changed(rig, {"channels.488.reconstruct": "widefield"})
    assert_not_used(path_of(rig, RAW_NM / 2), "reconstruct sim, not widefield")


@pytest.mark.parametrize(
    "change",
    [
        {"sim.patterns.0.k_um": [1.2340, 4.9481], "sim.patterns.0.phase_rad": 2.2},
        {"sim.patterns.1.modulation": 0.6, "sim.phase_steps_rad": [0.0, 2.1, 4.2]},
        {"sim.calibrated_with": [["Objective", "Label", "100x"]], "optics.damping": 0.7},
        {"sim.follow_drift": False, "sim.quality_limits": {"modulation": 0.3}},
        {"exposure_ms": 3, "description": "on another day", "camera.offset_adu": 101},
    ],
)
def test_what_changes_from_day_to_day_does_not_matter(rig: Path, change: dict[str, Any]) -> None:
    assert_used(path_of(rig), rig)
    changed(rig, change)
    assert_used(path_of(rig), rig)


def test_maps_that_are_measured_anew_do_not_matter(rig: Path) -> None:
    config = load_rig(rig)
    before, after, none = (
        config.model_copy(update={"corrections": type(config.corrections)(flat=flat)})
        for flat in ({"": "monday.tif"}, {"": "friday.tif"}, {})
    )
    assert not differs(before, after)
    assert differs(before, none) == "corrections flat, not none"


def test_a_map_of_another_channel_corrects_this_one_by_nothing(rig: Path) -> None:
    config = load_rig(rig)
    own, another, none = (
        config.model_copy(update={"corrections": type(config.corrections)(flat=flat)})
        for flat in ({"488": "flat.tif"}, {"561": "flat.tif"}, {})
    )
    assert differs(own, another) == "corrections flat, not none"
    assert not differs(another, none)


def test_files_of_earlier_versions_hold_as_they_did_and_check_says_what_they_lack(
    rig: Path,
) -> None:
    for name, key in zip(FILES, ("settings", "made_with"), strict=True):
        document = yaml.safe_load((rig / name).read_text(encoding="utf-8"))
        holder = document if key == "made_with" else document["channels"]["488"]["taken_with"]
        del holder[key]
        (rig / name).write_text(yaml.safe_dump(document), encoding="utf-8")
    changed(rig, {"sim.wiener": 0.05})
    assert_used(path_of(rig), rig)
    said = [f.says for f in check_rig(rig / "rig.yaml") if f.code in ("limits", "error-bars")]
    assert len(said) == 2
    assert all(sentence.endswith(SILENT) for sentence in said)


def test_on_other_pixels_than_the_engines_it_matters_whether_frames_are_brought_to_them(
    rig: Path,
) -> None:
    raw_nm = 90.0  # reconstructed to 45
    measured(rig, raw_nm, dict(path_of(rig, raw_nm).description.ai))
    assert_used(path_of(rig, raw_nm), rig)
    assert_not_used(path_of(rig, raw_nm, resample="off"), "resample auto, not off")


def test_views_do_not_matter_to_light_that_is_told_of_the_upright_one(rig: Path) -> None:
    """Error bars of single predictions hold for the mean of several, which errs less."""
    assert_used(path_of(rig, ensemble="flips"), rig)


def differs(before: RigConfig, after: RigConfig) -> str:
    """What differs between pictures of the first channel of two rigs."""
    old, new = (made_with(one, [next(iter(one.channels))], []) for one in (before, after))
    return old.differs(new)


LENS = {"z_nm": (-300, -100, 100, 300), "width_y_nm": (1, 2, 3, 4), "width_x_nm": (4, 3, 2, 1)}


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("virtual_storm", {"threshold": 7}, "storm.threshold 5.0, not 7.0"),
        ("virtual_storm", {"render": "histogram"}, "storm.render gaussian, not histogram"),
        ("virtual_storm", {"astigmatism": LENS}, "storm.astigmatism false, not true"),
        ("virtual_fluctuation", {"radius": 2.0}, "fluctuation.radius"),
    ],
)
def test_every_modality_says_what_decides_its_pictures(
    name: str, change: dict[str, Any], said: str
) -> None:
    rig = load_rig(RIGS / name)
    section = rig.section(next(iter(rig.channels)))
    other = type(section).model_validate({**section.model_dump(), **change})
    assert said in differs(rig, rig.with_section(other))


def test_a_lens_that_is_measured_anew_is_the_same_lens() -> None:
    rig = load_rig(RIGS / "virtual_storm")
    section = rig.section("647")
    tables = [{**LENS, "width_x_nm": (4, 3, 2, x)} for x in (1.0, 1.1)]
    first, second = (
        rig.with_section(
            type(section).model_validate({**section.model_dump(), "astigmatism": table})
        )
        for table in tables
    )
    assert not differs(first, second)


def test_a_localiser_is_an_engine_wherever_its_folder_lies(tmp_path: Path) -> None:
    rig = load_rig(RIGS / "virtual_storm")
    shutil.copytree(RIGS.parent / "engines" / "deep-storm", tmp_path / "moved")
    named, moved = (rig.with_localiser(one) for one in ("deep-storm", str(tmp_path / "moved")))
    assert not differs(named, moved)
    assert differs(rig, named).startswith("storm.localiser none, not deep-storm 0.")


def test_a_network_that_reconstructs_is_another_method_with_other_exposures() -> None:
    rig = load_rig(RIGS / "virtual_sim")
    learned = rig.with_engine("unet-sim-3", "reconstruct")
    assert differs(rig, learned) == "reconstruct sim, not an engine"
    channel = learned.channels["488"]
    assert channel.learned
    few = channel.learned.model_copy(update={"frames": [0, 3, 6]})
    fewer = learned.model_copy(
        update={"channels": {"488": channel.model_copy(update={"reconstruct": few})}}
    )
    assert "frames [0, 1, 2" in differs(learned, fewer)


def test_a_sum_of_channels_that_are_filtered_alike_is_like_one_of_them() -> None:
    """Error bars of a sum are those of the channel that shows all structures at once."""
    dyes, one = load_rig(RIGS / "virtual_dyes"), load_rig(RIGS / "virtual_sim")
    assert dyes.superpose
    summed = made_with(dyes, dyes.superpose.channels, engines_of(dyes, dyes.superpose.name))
    assert not summed.differs(made_with(one, ["488"], engines_of(one, "488")))
    smooth = type(dyes.channels["561"].section).model_validate({"wiener": 0.2})
    green = dyes.channels["561"].model_copy(update={"section": smooth})
    other = dyes.model_copy(update={"channels": {**dyes.channels, "561": green}})
    found = made_with(other, dyes.superpose.channels, engines_of(dyes, dyes.superpose.name))
    assert found.differs(summed) == "sim.wiener 0.1 + 0.2 + 0.1, not 0.1"


def test_what_another_version_alone_knows_is_not_compared() -> None:
    old, new = (MadeWith(engines=[], settings=of) for of in ({"a": "1"}, {"a": "1", "b": "2"}))
    assert not old.differs(new)
    assert not new.differs(old)
