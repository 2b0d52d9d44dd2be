"""Whatever the commands ask of a modality, they ask that of another package as well."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from livesr.base.config import RigConfig, load_rig, parse
from livesr.bench import run
from livesr.bench.runner import suites
from livesr.cli import _run
from livesr.modalities.registry import MODALITIES
from livesr.simulation.domain import Domain
from livesr.simulation.sequence import drawable, sequences_of
from livesr.training.simulated import UpscalePairs
from rig_copies import RIGS

PACKAGE = Path(__file__).parent / "averaging_package"


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(PACKAGE)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join(filter(None, (str(PACKAGE), os.environ.get("PYTHONPATH"))))
    )
    MODALITIES.__dict__.pop("_announced", None)
    yield
    monkeypatch.undo()
    MODALITIES.__dict__.pop("_announced", None)


@pytest.fixture
def rig(tmp_path: Path) -> Path:
    target = tmp_path / "averaging_rig"
    shutil.copytree(RIGS / "demo", target)
    text = (target / "rig.yaml").read_text(encoding="utf-8")
    assert "modality: widefield" in text
    text = text.replace("modality: widefield", "modality: averaging\naveraging: {frames: 3}")
    text = text.replace("reconstruct: widefield", "reconstruct: averaging")
    (target / "rig.yaml").write_text(text, encoding="utf-8")
    return target


def test_check_asks_it(rig: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["check", str(rig), "--json"]) == 0
    found = {f["code"]: f for f in json.loads(capsys.readouterr().out)["findings"]}
    assert found["no-laser"]["level"] == "note"
    lines = (rig / "rig.yaml").read_text(encoding="utf-8").splitlines()
    assert "frames: 3" in lines[found["no-level"]["line"] - 1]


def test_its_channels_have_keys_of_their_own(rig: Path) -> None:
    from averaging import AveragingChannel

    file = rig / "rig.yaml"
    text = file.read_text(encoding="utf-8")
    assert "reconstruct: averaging" in text
    file.write_text(
        text.replace("reconstruct: averaging", "reconstruct: averaging, weight: 0.5", 1)
        if "{reconstruct: averaging" in text
        else text.replace("reconstruct: averaging", "reconstruct: averaging\n    weight: 0.5", 1),
        encoding="utf-8",
    )
    read = load_rig(rig)
    weights = [AveragingChannel.of(read, name).weight for name in read.channels]
    assert sorted(weights)[0] == 0.5
    assert parse(RigConfig, read.model_dump(), "again") == read


def test_check_with_devices_asks_it(rig: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = rig / "look.png"
    command = ["check", str(rig), "--hardware", "--channel", "561", "--picture", str(picture)]
    assert _run([*command, "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)["hardware"]["measured"]
    assert next(m["value"] for m in measured if m["name"] == "level").endswith("ADU in 2 groups")
    assert picture.is_file()


def test_it_is_calibrated(rig: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["calibrate", str(rig), "--channel", "561", "--groups", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["channel"], report["time_points"]) == ("561", 2)
    level_adu = load_rig(rig).section("561").level_adu
    assert level_adu == pytest.approx(report["level_adu"], abs=0.1)
    assert level_adu > 100
    assert (rig / "calibration.png").is_file()


def test_what_cannot_be_calibrated_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["calibrate", "demo", "--channel", "561"]) == 2
    said = capsys.readouterr().err
    assert "Channel '561' is reconstructed as widefield: there is nothing to calibrate." in said
    assert _run(["calibrate", "virtual_storm"]) == 2
    assert "is calibrated with a stack of beads: livesr calibrate" in capsys.readouterr().err


def test_images_for_training_are_drawn_by_it() -> None:
    assert "averaging" in drawable()
    assert "widefield" not in drawable()
    (coarse, fine) = UpscalePairs(64, 2, "averaging", Domain()).make((1, 2))
    assert (coarse.shape, fine.shape) == ((1, 32, 32), (1, 64, 64))
    assert np.ptp(fine) == 0


def test_what_draws_no_time_lapse_leaves_it_to_another() -> None:
    assert sequences_of(["averaging"]).modality == sequences_of().modality == "sim"


def test_its_benchmark_is_run() -> None:
    assert suites()["averaging"].cores == 1
    (result,) = run(["averaging"], quick=True, quiet=True).results
    assert (result.name, result.value, result.environment.cores) == ("averaging.mean", 1.0, 1)
