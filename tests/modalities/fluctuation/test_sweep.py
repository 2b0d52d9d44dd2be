"""The sweep over radius and sensitivity: scores, the best pair, rig.yaml, the picture, refusals."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from livesr.base.config import load_rig
from livesr.base.errors import CalibrationError, ConfigError
from livesr.base.geometry import Geometry
from livesr.modalities.calibrator import CalibrationSettings
from livesr.modalities.fluctuation import calibration
from livesr.modalities.fluctuation.calibration import Sweep, SweepCalibrator
from livesr.modalities.fluctuation.config import FluctuationConfig
from livesr.modalities.fluctuation.modality import Fluctuation
from livesr.modalities.fluctuation.simulation import fluctuating_bank

RIG = load_rig("virtual_fluctuation")
SIZE = 48
CAMERA = Geometry((SIZE, SIZE), "uint16", 0.108)


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "RADII", (1.0, 1.5, 3.0))
        patch.setattr(calibration, "SENSITIVITIES", (1, 2))
        raw = fluctuating_bank(RIG, SIZE, 60).frames[None]
        calibrator = Fluctuation().calibrator(RIG)
        assert calibrator is not None
        return calibrator.calibrate("647", CAMERA, raw, CalibrationSettings())


def test_every_pair_is_scored(sweep: Sweep) -> None:
    assert [(t.radius, t.sensitivity) for t in sweep.trials] == [
        (r, s) for r in (1.0, 1.5, 3.0) for s in (1, 2)
    ]
    assert all(0 <= t.qnr <= 1 and t.rsp > 0.5 for t in sweep.trials)
    assert sweep.best.qnr == max(t.qnr for t in sweep.trials)
    assert sweep.trials[1].frc_nm < sweep.trials[0].frc_nm  # the same radius, more sensitive
    assert len(sweep.table().rows) == len(sweep.report()["trials"]) == 6


def test_it_is_written_beside_the_comments_and_drawn(sweep: Sweep, tmp_path: Path) -> None:
    folder = shutil.copytree(RIG.cfg_path.parent, tmp_path / "rig")
    sweep.save(folder / "rig.yaml")
    written = FluctuationConfig.of(load_rig(folder))
    assert (written.radius, written.sensitivity) == (sweep.best.radius, sweep.best.sensitivity)
    assert "# Of eSRRF" in (folder / "rig.yaml").read_text()
    sweep.draw(tmp_path / "sweep.png")
    assert np.asarray(Image.open(tmp_path / "sweep.png")).std() > 10


def test_a_picture_of_an_unknown_kind_is_refused(sweep: Sweep, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Cannot write .*sweep\.none: unknown file extension"):
        sweep.draw(tmp_path / "sweep.none")
    with pytest.raises(ConfigError, match=r"Cannot write .*sweep\.psd: PSD can only be read"):
        sweep.draw(tmp_path / "sweep.psd")


def test_what_says_nothing_is_refused() -> None:
    few = np.zeros((1, 4, SIZE, SIZE), np.uint16)
    with pytest.raises(CalibrationError, match="at least 20"):
        SweepCalibrator(RIG).calibrate("647", CAMERA, few, CalibrationSettings())


def test_sofi_has_neither() -> None:
    rig = RIG.with_section(FluctuationConfig(method="sofi", every=100))
    assert Fluctuation().calibrator(rig) is None
