"""z behind a cylindrical lens: beads are measured, emitters are found as well as their light lets
them, and z reaches the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.spatial import cKDTree
from typer.testing import CliRunner

from livesr.base.config import RigConfig, load_rig
from livesr.base.errors import CalibrationError, ConfigError
from livesr.base.frames import LOCALISATION_3D, RawStack, Stream
from livesr.base.geometry import Geometry
from livesr.cli import app
from livesr.modalities.calibrator import CalibrationSettings
from livesr.modalities.storm.beads import BeadCalibrator, BeadStack
from livesr.modalities.storm.config import AstigmatismConfig, STORMConfig
from livesr.modalities.storm.depth import DepthTracker
from livesr.modalities.storm.localise import Localiser, PhotonScale
from livesr.modalities.storm.modality import sigma_nm
from livesr.modalities.storm.monitors import misfits
from livesr.modalities.storm.reconstructor import STORMReconstructor
from livesr.modalities.storm.simulation.beads import bead_stack, cramer_rao_nm, emitters
from livesr.optics.noise import SCMOSNoise
from livesr.optics.vectorial import VectorialSpread

PIXEL_NM, STEP_NM, BACKGROUND = 107.0, 50.0, 10.0
NOISE = SCMOSNoise(gain_adu_per_e=2.0, read_noise_e=1.5)
SCALE = PhotonScale.of(100, 0.5, None, 1.5)
PART = {"share": (1, 1, 1, 1), "width_y_nm": (1, 1, 1, 1), "width_x_nm": (1, 1, 1, 1)}
CAMERA = {"gain_e_per_adu": 0.5, "em_gain": None, "read_noise_e": 1.5}


@pytest.fixture(scope="module")
def spread() -> VectorialSpread:
    return VectorialSpread(PIXEL_NM / 1e3, 1.4, 0.67, astigmatism=0.06)


@pytest.fixture(scope="module")
def rig() -> RigConfig:
    """virtual_storm_3d with an sCMOS, and not yet calibrated."""
    whole = load_rig("virtual_storm_3d")
    camera = whole.camera.model_copy(update=CAMERA)
    section = STORMConfig.of(whole).model_copy(update={"astigmatism": None})
    return whole.model_copy(update={"camera": camera}).with_section(section)


def calibrated(rig: RigConfig, stack: np.ndarray, step_nm: float | None = STEP_NM) -> BeadStack:
    geometry = Geometry(stack.shape[1:], "uint16", PIXEL_NM / 1e3)
    settings = CalibrationSettings(z_step_nm=step_nm)
    return BeadCalibrator(rig).calibrate("647", geometry, stack[:, None], settings)


@pytest.fixture(scope="module")
def found(rig: RigConfig, spread: VectorialSpread) -> BeadStack:
    return calibrated(rig, bead_stack(spread, NOISE, planes=31, step_nm=STEP_NM))


def test_the_point_lies_where_it_is_and_gives_its_light(spread: VectorialSpread) -> None:
    y, x = np.mgrid[:41, :41]
    for z_um in (-0.3, 0.0, 0.25):
        image = np.zeros((41, 41), np.float32)
        spread.add(image, np.array([20.3]), np.array([19.6]), np.ones(1), np.array([z_um]))
        assert image.sum() == pytest.approx(1, abs=0.02)
        middle = (image * y).sum() / image.sum(), (image * x).sum() / image.sum()
        assert middle == pytest.approx((20.3, 19.6), abs=0.03)  # cut at 12 pixels


def test_the_lens_stretches_one_way_below_focus_and_the_other_above(
    spread: VectorialSpread,
) -> None:
    y, x = np.mgrid[-20:21, -20:21]
    ratio = []
    for z_um in (-0.3, 0.0, 0.3):
        image = np.zeros((41, 41), np.float32)
        spread.add(image, np.array([20.0]), np.array([20.0]), np.ones(1), np.array([z_um]))
        near = np.where(np.hypot(y, x) < 7, image, 0)
        ratio.append((near * y**2).sum() / (near * x**2).sum())
    assert ratio[0] < 0.7
    assert ratio[1] == pytest.approx(1, abs=0.01)
    assert ratio[2] > 1.4


def test_beads_give_widths_that_tell_z(found: BeadStack) -> None:
    table = found.fitted
    assert found.beads >= 14
    assert found.error_nm < 12
    assert table.z_nm[0] <= -300
    assert table.z_nm[-1] >= 300
    narrowest = [np.argmin(widths) for widths in (table.width_y_nm, table.width_x_nm)]
    assert table.z_nm[narrowest[0]] < 0 < table.z_nm[narrowest[1]]
    assert np.sum([part.share for part in table.parts], axis=0) == pytest.approx(1, abs=1e-3)


def test_where_focus_rises_through_the_stack_z_has_the_same_sign(
    rig: RigConfig, spread: VectorialSpread, found: BeadStack
) -> None:
    # The same beads, taken from below: the focus of the first plane is the lowest, so that beads
    # lie highest above it.
    from_below = bead_stack(spread, NOISE, planes=31, step_nm=STEP_NM)[::-1]
    table, other = found.fitted, calibrated(rig, from_below, -STEP_NM).fitted
    assert other.z_nm == pytest.approx(table.z_nm)
    assert other.width_y_nm == pytest.approx(table.width_y_nm, rel=0.02)
    assert other.width_x_nm == pytest.approx(table.width_x_nm, rel=0.02)


@pytest.mark.parametrize("photons", [1000.0, pytest.param(3000.0, marks=pytest.mark.slow)])
def test_emitters_are_found_as_well_as_their_light_lets_them(
    photons: float, spread: VectorialSpread, rig: RigConfig, found: BeadStack
) -> None:
    stack, truth = emitters(spread, NOISE, photons, 20)
    truth[:, 1:3] = (truth[:, 1:3] + 0.5) * PIXEL_NM
    localiser = Localiser(
        stack.shape[1:], PIXEL_NM, sigma_nm(rig, "647"), SCALE, astigmatism=found.fitted
    )
    seen = localiser.localise(stack, range(len(stack)))
    assert seen.dtype == LOCALISATION_3D
    far = 1e5  # of one frame from the next
    tree = cKDTree(np.column_stack([truth[:, 0] * far, truth[:, 1:3]]))
    distance, i = tree.query(np.column_stack([seen["frame"] * far, seen["y_nm"], seen["x_nm"]]))
    paired, true = seen[distance < 200], truth[i[distance < 200]]
    assert len(paired) > 0.97 * len(truth)
    assert len(seen) < 1.03 * len(truth)
    lateral = np.sqrt(
        ((paired["y_nm"] - true[:, 1]) ** 2 + (paired["x_nm"] - true[:, 2]) ** 2).mean() / 2
    )
    off = paired["z_nm"] - true[:, 3]
    bounds = np.array(
        [
            cramer_rao_nm(spread, PIXEL_NM, photons, BACKGROUND, SCALE.read_variance, z)
            for z in np.linspace(-240, 240, 7)  # the middles of seven equal parts
        ]
    )
    best = np.sqrt((bounds**2).mean(axis=0))
    assert lateral < 1.15 * best[0]
    assert np.sqrt((off**2).mean()) < 1.25 * best[1]
    assert abs(np.median(off)) < 6
    claimed = np.sqrt((off**2 / paired["z_uncertainty_nm"] ** 2).mean())
    assert 0.85 < claimed < 1.5


@pytest.mark.parametrize(
    ("astigmatism", "planes", "step_nm", "says"),
    [
        (0.0, 31, STEP_NM, "hardly tell z|none is stretched"),
        (0.06, 7, STEP_NM, "7 planes came, at least 9"),
        (0.06, 31, None, "--z-step"),
        (0.06, 9, 5.0, "hardly tell z|none is stretched"),
    ],
)
def test_a_stack_that_shows_no_lens_is_refused(
    astigmatism: float, planes: int, step_nm: float | None, says: str, rig: RigConfig
) -> None:
    spread = VectorialSpread(PIXEL_NM / 1e3, 1.4, 0.67, astigmatism=astigmatism)
    with pytest.raises(CalibrationError, match=says):
        calibrated(rig, bead_stack(spread, NOISE, planes=planes, step_nm=STEP_NM), step_nm)


def test_a_stack_without_beads_is_refused(rig: RigConfig) -> None:
    rng = np.random.default_rng(0)
    dark = np.stack([NOISE.expose(np.full((64, 64), 20, np.float32), rng) for _ in range(20)])
    with pytest.raises(CalibrationError, match="No bead stands out"):
        calibrated(rig, dark)


def test_the_command_writes_the_table_and_its_picture(
    tmp_path: Path, spread: VectorialSpread
) -> None:
    folder = tmp_path / "rig"
    folder.mkdir()
    (folder / "rig.yaml").write_text(
        "name: mine\nmodality: storm\ncamera: {gain_e_per_adu: 0.5, read_noise_e: 1.5}\n"
        "optics: {na: 1.4, emission_nm: 670, pixel_size_nm: 107}\n"
        "storm:\n  threshold: 5 # kept\nchannels:\n  '647': {reconstruct: storm}\n"
    )
    tifffile.imwrite(
        tmp_path / "beads.tif",
        bead_stack(spread, NOISE, planes=31, step_nm=STEP_NM),
        metadata={"axes": "ZYX"},
    )
    command = ["calibrate", str(folder), "--beads", str(tmp_path / "beads.tif")]
    done = CliRunner().invoke(app, [*command, "--z-step", "50", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["beads"] >= 14
    written = STORMConfig.of(load_rig(folder)).astigmatism
    assert written is not None
    assert report["astigmatism"] == written.model_dump(mode="json")
    assert "# kept" in (folder / "rig.yaml").read_text()
    assert np.asarray(Image.open(folder / "calibration.png")).std() > 10
    with pytest.raises(ConfigError, match="give --z-step"):
        CliRunner().invoke(app, command, catch_exceptions=False)
    upside_down = CliRunner().invoke(app, [*command, "--z-step", "-50", "--dry-run", "--json"])
    narrowest = np.argmin(json.loads(upside_down.stdout)["astigmatism"]["width_y_nm"])
    assert json.loads(upside_down.stdout)["astigmatism"]["z_nm"][narrowest] > 0
    refused = CliRunner().invoke(app, [*command, "--z-step", "0"])
    assert refused.exit_code == 2
    assert "0.1 nm" in refused.output


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"z_nm": (0, 1, 2, 3), "width_y_nm": (1, 1, 1)}, r"\[4, 3, 4\] numbers"),
        ({"z_nm": (0, 2, 2, 3)}, "do not increase"),
        ({"parts": [PART, PART]}, "do not add up to 1"),
        ({"parts": [{**PART, "share": (1, 1, 1)}]}, r"\[4, 4, 4, 3, 4, 4\] numbers"),
        ({"halo": 0.4, "halo_factor": 2.2}, "measure the lens again"),
    ],
)
def test_a_table_that_is_none_is_refused(table: dict[str, Any], says: str) -> None:
    whole = {"z_nm": (0, 1, 2, 3), "width_y_nm": (1, 1, 1, 1), "width_x_nm": (1, 1, 1, 1)}
    with pytest.raises(ValueError, match=says):
        AstigmatismConfig.model_validate({**whole, **table})


def test_what_is_calibrated_is_no_misfit(
    spread: VectorialSpread, rig: RigConfig, found: BeadStack
) -> None:
    stack, _ = emitters(spread, NOISE, 3000.0, 20)
    shape, sigma = stack.shape[1:], sigma_nm(rig, "647")
    (said,) = misfits(stack, Localiser(shape, PIXEL_NM, sigma, SCALE))
    assert "cylindrical lens" in said
    known = Localiser(shape, PIXEL_NM, sigma, SCALE, astigmatism=found.fitted)
    assert list(misfits(stack, known)) == []


def test_focus_that_drifts_is_followed(
    spread: VectorialSpread, rig: RigConfig, found: BeadStack
) -> None:
    """80 emitters that blink, at fixed heights; the stage sinks by 120 nm in 12 groups."""
    rng = np.random.default_rng(4)
    places, z_um = rng.uniform(10, 118, (80, 2)), rng.uniform(-0.12, 0.12, 80)
    localiser = Localiser(
        (128, 128), PIXEL_NM, sigma_nm(rig, "647"), SCALE, astigmatism=found.fitted
    )
    running = STORMReconstructor(localiser, PIXEL_NM, 20, 25, drift_correction=True).running()
    for t, sunk_um in enumerate(np.linspace(0, 0.12, 12)):
        frames = []
        for _ in range(25):
            image = np.full((128, 128), BACKGROUND, np.float32)
            lit = rng.random(80) < 0.15
            here = places[lit]
            light = np.full(len(here), 3000.0)
            spread.add(image, here[:, 0], here[:, 1], light, z_um[lit] - sunk_um)
            frames.append(NOISE.expose(image, rng))
        running.add(RawStack(tuple(frames), Stream(), t, 0, 0))
        assert running.drift_nm is not None
        assert running.drift_nm[2] == pytest.approx(-sunk_um * 1e3, abs=15)
    assert np.hypot(*running.drift_nm[:2]) < 10


def test_a_group_that_shows_little_keeps_the_drift() -> None:
    rng = np.random.default_rng(0)
    y, x = rng.uniform(0, 5000, (2, 400)).astype(np.float32)
    z = rng.uniform(-200, 200, 400).astype(np.float32)
    tracker = DepthTracker((5000, 5000))
    for _ in range(4):
        assert tracker.update(y, x, z) == 0
    assert tracker.update(y, x, z + 30) == pytest.approx(30, abs=1e-3)
    assert tracker.update(y[:20], x[:20], z[:20]) == pytest.approx(30, abs=1e-3)


def test_a_stack_that_is_not_there_is_a_sentence() -> None:
    command = ["calibrate", "virtual_storm", "--beads", "nowhere.tif", "--z-step", "25"]
    with pytest.raises(ConfigError, match="neither a diameter"):
        CliRunner().invoke(app, command, catch_exceptions=False)
