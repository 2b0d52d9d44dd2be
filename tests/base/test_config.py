"""rig.yaml: what is wrong becomes one sentence that says what came, what was expected and what to
try."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from livesr.base.config import RigConfig, load_rig, parse
from livesr.base.errors import ConfigError
from livesr.modalities.sim.config import SIMConfig

PATTERN = {"k_um": [0.0, 5.0], "phase_rad": 0.0, "modulation": 0.8}


def rig(**changes: Any) -> dict[str, Any]:
    return {
        "name": "test",
        "modality": "sim",
        "optics": {"na": 1.4},
        "sim": {"patterns": [PATTERN] * 3},
        "channels": {"488": {"separate": "identity"}},
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"optics": {"naa": 1.4}}, "unknown key 'optics.naa'. Did you mean 'na'?"),
        ({"chanels": {}}, "unknown key 'chanels'. Did you mean 'channels'?"),
        (
            {"channels": {"488": {"seperate": "x"}}},
            "unknown key 'channels.488.seperate'. Did you mean 'separate'?",
        ),
        ({"optics": {"na": 3}}, "na is 3; above 2, give optics.immersion_index"),
        (
            {"optics": {"na": 1.7, "immersion_index": 1.518}},
            "na is 1.7 and immersion_index 1.518: no numerical aperture",
        ),
        ({"sim": {"patterns": [PATTERN]}}, "1 patterns came for 3 angles"),
        (
            {"sim": {"patterns": [PATTERN] * 3, "order": [[0, 0]]}},
            "order must name each of the 9 (angle, phase) pairs once",
        ),
        ({"sim": None}, "a SIM rig needs a 'sim' section"),
        ({"optics": None}, "optics"),
        (
            {"camera": {"bit_depth": 12, "offset_adu": 5000}},
            "offset_adu 5000 is the level of a pixel without light, and must be below 4095",
        ),
    ],
)
def test_a_mistake_is_named(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(RigConfig, rig(**changes), "rig.yaml")
    assert sentence in str(caught.value)
    assert str(caught.value).startswith("rig.yaml: ")


def test_a_channel_name_that_yaml_reads_as_a_number_is_still_a_name() -> None:
    config = parse(RigConfig, rig(channels=yaml.safe_load("488: {reconstruct: sim}")), "rig.yaml")
    assert config.raw_frames("488") == 9


def test_the_order_of_raw_frames() -> None:
    config = parse(
        RigConfig, rig(sim={"patterns": [PATTERN] * 3, "order": "phase-major"}), "rig.yaml"
    )
    assert SIMConfig.of(config).raw_order()[:4] == [(0, 0), (1, 0), (2, 0), (0, 1)]


def test_an_engine_replaces_the_only_one_and_none_removes_it() -> None:
    config = parse(RigConfig, rig(), "rig.yaml")
    assert config.with_engine("other").channels["488"].separate == "other"
    assert config.with_engine("none").channels["488"].separate is None
    two = parse(
        RigConfig, rig(channels={"488": {"separate": "a"}, "561": {"separate": "b"}}), "rig.yaml"
    )
    with pytest.raises(ConfigError, match="488, 561"):
        two.with_engine("other")


def test_an_engine_may_name_its_channel() -> None:
    two = load_rig("demo")
    named = two.with_engine("561=other")
    assert (named.channels["561"].separate, named.channels["488"].separate) == (
        "other",
        two.channels["488"].separate,
    )
    assert two.with_engine("488=none").channels["488"].separate is None
    assert two.with_engine("561=big", "upscale").channels["561"].upscale == "big"
    with pytest.raises(
        ConfigError, match=r"channel '562', which rig .* does not describe\. Did you mean '561'"
    ):
        two.with_engine("562=other")
    with pytest.raises(ConfigError, match=r"The plan names no channel, and rig .* 488, 561"):
        two.raw_frames("")
    summed = two.superposing(["488", "561"])
    assert summed.with_engine("488+561=other").superposed.separate == "other"
    with pytest.raises(ConfigError, match=r"engines are for the sum: give 488\+561=other"):
        summed.with_engine("561=other")


def test_an_engine_without_a_channel_is_for_the_only_one_that_is_acquired(tmp_path: Path) -> None:
    two = load_rig("demo")
    assert two.for_channel("other", ["561"]) == "561=other"
    assert two.for_channel("488=other", ["561"]) == "488=other"
    for acquired, engine in ((["488", "561"], "other"), (["561"], "none"), (["561"], None)):
        assert two.for_channel(engine, acquired) == engine


def test_a_rig_is_found_by_name_folder_and_file(tmp_path: Path) -> None:
    by_name = load_rig("virtual_sim")
    assert load_rig(by_name.folder) == load_rig(by_name.folder / "rig.yaml") == by_name
    with pytest.raises(ConfigError, match="Did you mean 'virtual_sim'"):
        load_rig("virtual_sin")
    for nothing in ("", "  "):  # not the folder that the program was started in
        with pytest.raises(ConfigError, match="No rig is named"):
            load_rig(nothing)
    (tmp_path / "rig.yaml").write_text(yaml.safe_dump(rig()))
    assert (
        load_rig(tmp_path).cfg_path == tmp_path.resolve() / "rig.cfg"
    )  # which need not be there: recordings do without
    (tmp_path / "rig.yaml").write_text("a: [1\n")
    with pytest.raises(ConfigError, match=r"line \d is not valid YAML"):
        load_rig(tmp_path)


def test_the_template_parses() -> None:
    template = Path(__file__).parents[2] / "hardware_configs" / "_template" / "rig.yaml"
    assert (
        parse(RigConfig, yaml.safe_load(template.read_text(encoding="utf-8")), "template").modality
        == "sim"
    )


def test_a_storm_rig_knows_its_camera() -> None:
    storm = rig(modality="storm", sim=None, channels={})
    with pytest.raises(ConfigError, match=r"needs 'camera\.gain_e_per_adu'"):
        parse(RigConfig, storm, "rig.yaml")
    config = parse(RigConfig, {**storm, "camera": {"gain_e_per_adu": 0.5}}, "rig.yaml")
    assert (config.raw_frames(""), config.max_raw_frames) == (100, 100)


def test_a_folder_without_a_description_and_an_empty_one_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no rig\.yaml: copy"):
        load_rig(tmp_path)
    with pytest.raises(ConfigError, match="neither a file nor a folder"):
        load_rig(tmp_path / "nowhere")
    (tmp_path / "rig.yaml").write_text("# nothing yet\n")
    with pytest.raises(ConfigError, match="is empty"):
        load_rig(tmp_path)


@pytest.mark.parametrize(
    "optics",
    [
        {"na": 1.65},
        {"na": 1.7},
        {"na": 1.7, "immersion_index": 1.78},
        {"na": 2.2, "immersion_index": 2.4},
    ],
)
def test_objectives_that_exist_are_accepted(optics: dict[str, float]) -> None:
    assert parse(RigConfig, rig(optics=optics), "rig.yaml").optics.na == optics["na"]
