"""Keys that older versions wrote, and people still have, are read with a sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from livesr.base.config import load_rig
from livesr.base.errors import ConfigError, EngineError
from livesr.live.inference.engine import load_engine
from livesr.simulation.domain import Domain
from livesr.training.data import DataConfig
from livesr.training.pair_folder import write_pairs
from livesr.training.simulated import SimulatedPairs

REPOSITORY = Path(__file__).parents[2]


def said(caplog: pytest.LogCaptureFixture, old: str, new: str) -> bool:
    return f"{old!r} is now called {new!r}: the old name is still read" in caplog.text


def rig_with(folder: Path, old: str, new: str) -> Path:
    text = (REPOSITORY / "hardware_configs" / "virtual_sim" / "rig.yaml").read_text()
    assert old in text
    path = folder / "rig.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def test_the_modality_passthrough_is_read_as_widefield(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = load_rig(rig_with(tmp_path, "modality: sim", "modality: passthrough"))
    assert rig.modality == "widefield"
    assert said(caplog, "passthrough", "widefield")


def engine_with(folder: Path, *renamed: tuple[str, str]) -> Path:
    copy = folder / "engine"
    shutil.copytree(REPOSITORY / "engines" / "imcsr-mt-er-lyso-light", copy)
    manifest = copy / "manifest.yaml"
    text = manifest.read_text(encoding="utf-8")
    for new, old in renamed:
        assert new in text
        text = text.replace(new, old)
    manifest.write_text(text, encoding="utf-8")
    return copy


def test_a_manifest_with_old_names_is_the_same_engine(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = engine_with(
        tmp_path, ("normalisation: background-scale", "normalisation: background-headroom")
    )
    today = load_engine("imcsr-mt-er-lyso-light").manifest
    caplog.clear()
    assert load_engine(old).manifest == today
    assert "'background-headroom' is now called 'background-scale'" in caplog.text


def test_shipped_engines_have_todays_names_only(caplog: pytest.LogCaptureFixture) -> None:
    for manifest in (REPOSITORY / "engines").glob("*/manifest.yaml"):
        load_engine(manifest.parent)
    assert not caplog.text


def test_another_normalisation_is_refused(tmp_path: Path) -> None:
    other = engine_with(tmp_path, ("background-scale", "background-span"))
    with pytest.raises((EngineError, ConfigError), match="normalisation"):
        load_engine(other)


def test_a_recipe_with_old_names(caplog: pytest.LogCaptureFixture) -> None:
    numbers = {"train": 2, "validation": 1, "seed": 1, "validation_seed": 2}
    data = DataConfig.model_validate({**numbers, "domain": {"headroom_spread": 0.1}})
    assert data.domain.scale_spread == 0.1
    assert said(caplog, "headroom_spread", "scale_spread")


def test_both_names_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="'headroom_spread' is the old name of 'scale_spread'"):
        Domain.model_validate({"headroom_spread": 0.1, "scale_spread": 0.2})


def test_pairs_of_an_older_version_are_not_made_again(tmp_path: Path) -> None:
    maker, folder = SimulatedPairs(64), tmp_path / "pairs"
    write_pairs(folder, maker, 1, seed=3)
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    meta["domain"]["headroom_spread"] = meta["domain"].pop("scale_spread")
    del meta["domain"]["haze_in_truth"]
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    before = np.load(folder / "frames.npy")
    made = (folder / "frames.npy").stat().st_mtime_ns
    write_pairs(folder, maker, 1, seed=3)
    assert (folder / "frames.npy").stat().st_mtime_ns == made
    assert np.array_equal(np.load(folder / "frames.npy"), before)
