"""`livesr calibrate` on a rig and on raw frames.

What the virtual camera shows ends up in rig.yaml.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image

from livesr.base.config import load_rig
from livesr.cli import _run
from livesr.modalities.sim.config import SIMChannelConfig, SIMConfig
from livesr.modalities.sim.simulation.rig import RawBank

RIGS = Path(__file__).parents[2] / "hardware_configs"
SIZE = 128


@pytest.fixture
def uncalibrated(tmp_path: Path) -> Path:
    """The virtual rig with a small chip; its rig.yaml knows neither patterns nor the order."""
    folder = tmp_path / "my_rig"
    shutil.copytree(RIGS / "virtual_sim", folder)
    cfg = (folder / "rig.cfg").read_text(encoding="utf-8")
    cfg = cfg.replace("SensorSize,256", f"SensorSize,{SIZE}").replace(
        "TimePoints,40", "TimePoints,4"
    )
    (folder / "rig.cfg").write_text(cfg, encoding="utf-8")
    lines = (folder / "rig.yaml").read_text(encoding="utf-8").splitlines()
    kept = [
        x for x in lines if not x.startswith(("    - {k_um", "  patterns:", "  phase_steps_rad"))
    ]
    text = "\n".join(kept).replace("order: angle-major", "order: phase-major") + "\n"
    (folder / "rig.yaml").write_text(text, encoding="utf-8")
    return folder


def assert_found(rig_file: Path) -> None:
    truth, found = (SIMConfig.of(load_rig(rig)) for rig in ("virtual_sim", rig_file))
    assert found.raw_order() == truth.raw_order()
    centre = 0.5 * SIZE * 0.065
    for pattern, expected in zip(found.patterns, truth.patterns, strict=True):
        assert pattern.k_um == pytest.approx(expected.k_um, abs=5e-3)
        assert pattern.modulation == pytest.approx(expected.modulation, abs=0.05)
        off = pattern.phase_rad - expected.phase_rad
        off += 2 * np.pi * centre * sum(np.subtract(pattern.k_um, expected.k_um))
        assert abs(np.angle(np.exp(1j * off))) < 0.1


def test_a_rig_is_calibrated_by_acquiring_on_it(
    uncalibrated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = _run(["calibrate", str(uncalibrated), "--groups", "2", "--exposure", "1", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert code == 0
    assert report["order"] == "angle-major"
    assert report["order_changed"]
    assert report["damping"] == pytest.approx(0.7, abs=0.1)  # what the virtual microscope has
    assert min(angle["peak"] for angle in report["angles"]) > 15
    assert_found(uncalibrated)
    text = (uncalibrated / "rig.yaml").read_text(encoding="utf-8")
    assert "# Numerical aperture of detection." in text
    with Image.open(uncalibrated / "calibration.png") as picture:
        assert min(picture.size) > 500
        assert len(picture.getcolors(1 << 24)) > 100


def test_raw_frames_on_a_disk_calibrate_too(
    uncalibrated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bank = RawBank(
        load_rig("virtual_sim"), SIZE, 2, seed=1, photons=300, bleaching=0.0, interval_s=0.5
    )
    tifffile.imwrite(tmp_path / "raw.tif", bank.frames)
    before = (uncalibrated / "rig.yaml").read_bytes()
    arguments = ["calibrate", str(tmp_path / "raw.tif"), "--rig", str(uncalibrated)]
    assert _run([*arguments, "--dry-run"]) == 0
    assert (uncalibrated / "rig.yaml").read_bytes() == before
    assert not (uncalibrated / "calibration.png").exists()
    assert _run(arguments) == 0
    assert_found(uncalibrated)
    shown = capsys.readouterr().out
    assert "196" in shown
    assert "rig.yaml said otherwise" in shown


def test_a_channel_of_several_gets_its_own_patterns(uncalibrated: Path, tmp_path: Path) -> None:
    rig_file = uncalibrated / "rig.yaml"
    text = rig_file.read_text(encoding="utf-8").replace("order: phase-major", "order: angle-major")
    rig_file.write_text(text + '  "561": {reconstruct: sim, emission_nm: 525}\n', encoding="utf-8")
    bank = RawBank(
        load_rig("virtual_sim"), SIZE, 2, seed=1, photons=300, bleaching=0.0, interval_s=0.5
    )
    tifffile.imwrite(tmp_path / "raw.tif", bank.frames)
    arguments = ["calibrate", str(tmp_path / "raw.tif"), "--rig", str(uncalibrated)]
    assert _run(arguments) == 2  # which channel?
    assert _run([*arguments, "--channel", "561"]) == 0
    rig = load_rig(rig_file)
    assert SIMConfig.of(rig).patterns == []
    assert len(SIMChannelConfig.of(rig, "561").patterns) == 3
    assert rig.channels["561"].damping == pytest.approx(0.7, abs=0.1)
    assert (
        yaml.safe_load(rig_file.read_text(encoding="utf-8"))["channels"]["488"].get("patterns")
        is None
    )


def test_one_channel_of_a_recording_of_two_is_calibrated_without_rig_cfg(
    uncalibrated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other channel shows nothing."""
    (uncalibrated / "rig.cfg").unlink()
    file = uncalibrated / "rig.yaml"
    rig = yaml.safe_load(file.read_text(encoding="utf-8"))
    rig["channels"] = {"488": {"reconstruct": "sim"}, "561": {"reconstruct": "sim"}}
    file.write_text(yaml.safe_dump(rig), encoding="utf-8")
    bank = RawBank(
        load_rig("virtual_sim"), SIZE, 2, seed=1, photons=300, bleaching=0.0, interval_s=0.5
    )
    both = np.stack([np.full_like(bank.frames, 100), bank.frames], axis=2)  # (t, raw, c, y, x)
    tifffile.imwrite(tmp_path / "raw.tif", both, photometric="minisblack")
    arguments = [
        "calibrate",
        str(tmp_path / "raw.tif"),
        "--rig",
        str(uncalibrated),
        "--axes",
        "t,raw,c,y,x",
        "--json",
    ]
    assert _run(arguments) == 2
    assert "say with --channel which to calibrate: 488, 561" in capsys.readouterr().out
    assert _run([*arguments, "--channel", "561"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["channel"], report["time_points"]) == ("561", 2)
    assert any("its channel number 2 is taken for it" in warning for warning in report["warnings"])
    patterns = SIMChannelConfig.of(load_rig(uncalibrated), "561").patterns
    assert [p.k_um for p in patterns] == [
        pytest.approx(p.k_um, abs=5e-3) for p in SIMConfig.of(load_rig("virtual_sim")).patterns
    ]


def test_frames_without_patterns_change_nothing(
    uncalibrated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = np.random.default_rng(0).poisson(50, (2, 9, 64, 64)).astype(np.uint16) + 100
    tifffile.imwrite(tmp_path / "raw.tif", frames.astype(np.uint16))
    before = (uncalibrated / "rig.yaml").read_bytes()
    assert _run(["calibrate", str(tmp_path / "raw.tif"), "--rig", str(uncalibrated)]) == 1
    assert "hardly any detail" in capsys.readouterr().err
    assert (uncalibrated / "rig.yaml").read_bytes() == before


def test_a_rig_without_patterns_is_refused_in_a_run(
    uncalibrated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(["run", str(uncalibrated), "--engine", "none", "--frames", "1"]) == 2
    assert "livesr calibrate" in capsys.readouterr().err
