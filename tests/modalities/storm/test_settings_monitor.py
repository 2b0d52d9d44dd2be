"""What rig.yaml says of camera and optics is compared with the first frames of a run."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from livesr import LiveSR
from livesr.base.config import CameraConfig, RigConfig, load_rig
from livesr.base.frames import RawStack, Stream
from livesr.live.sources.plan import sim_sequence
from livesr.modalities.storm.camera_levels import measure_levels
from livesr.modalities.storm.config import STORMConfig
from livesr.modalities.storm.localise import Localiser, PhotonScale
from livesr.modalities.storm.monitors import FRAMES, SettingsMonitor, misfits
from livesr.optics.psf import gaussian_sigma
from livesr.simulation.blinking_rig import BlinkingBank
from rigs import core_of

SIZE, N = 96, 100
SIGMA_NM, PIXEL_NM = gaussian_sigma(1.49, 670.0), 107.0
SCMOS: dict[str, Any] = {"em_gain": None, "gain_e_per_adu": 0.5, "read_noise_e": 1.6}
EMCCD: dict[str, Any] = {}


def rig(camera: dict[str, Any]) -> RigConfig:
    whole = load_rig("virtual_storm")
    return whole.model_copy(update={"camera": whole.camera.model_copy(update=camera)})


@cache
def _frames(camera: tuple[tuple[str, Any], ...], how: tuple[tuple[str, Any], ...]) -> Any:
    return BlinkingBank(rig(dict(camera)), SIZE, N, **dict(how)).frames


def frames(camera: dict[str, Any] = EMCCD, **how: Any) -> NDArray[np.uint16]:
    """Return what a camera sees, N frames."""
    return _frames(tuple(camera.items()), tuple({"lit": 30.0, **how}.items()))


def localiser(
    camera: dict[str, Any] = EMCCD, sigma_nm: float = SIGMA_NM, size: int = SIZE
) -> Localiser:
    c: CameraConfig = rig(camera).camera
    scale = PhotonScale.of(c.offset_adu, c.gain_e_per_adu, c.em_gain, c.read_noise_e)
    return Localiser((size, size), PIXEL_NM, sigma_nm, scale)


@pytest.mark.parametrize(
    ("camera", "how"),
    [
        (EMCCD, {}),
        (EMCCD, {"lit": 5.0}),
        (EMCCD, {"lit": 200.0}),
        (EMCCD, {"photons": 300.0}),
        (EMCCD, {"photons": 20_000.0, "background": 20.0}),
        (EMCCD, {"structure": "lysosomes"}),
        (SCMOS, {}),
        (SCMOS, {"photons": 5000.0, "background": 100.0}),
        (SCMOS, {"photons": 400.0, "background": 3.0}),
    ],
)
def test_nothing_is_said_of_good_frames(camera: dict[str, Any], how: dict[str, Any]) -> None:
    assert list(misfits(frames(camera, **how), localiser(camera))) == []


@pytest.mark.parametrize("camera", [EMCCD, SCMOS])
def test_offset_and_gain_are_measured(camera: dict[str, Any]) -> None:
    levels = measure_levels(frames(camera, lit=60.0), SIGMA_NM / PIXEL_NM)
    assert levels is not None
    scale = localiser(camera).scale
    assert levels.slope == pytest.approx(scale.excess / scale.photons_per_adu, rel=0.2)
    read_adu = scale.read_variance / scale.photons_per_adu / scale.excess
    assert levels.zero_adu + read_adu == pytest.approx(100, abs=15)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"offset_adu": 400.0}, "less than the 400 of a dark frame"),
        ({"offset_adu": 200.0}, "that is too high"),
        ({"offset_adu": 0.0}, "that is too low"),
        ({"gain_e_per_adu": 45.0}, "times as fast with their light"),
        ({"em_gain": None}, "times as fast with their light"),
    ],
)
def test_wrong_levels_are_said_with_what_to_do(wrong: dict[str, Any], says: str) -> None:
    (said,) = misfits(frames(), localiser(wrong))
    assert says in said
    assert "livesr characterise" in said


@pytest.mark.parametrize(("pedestal", "offset_adu"), [(0, 0.0), (0, 100.0), (100, 100.0)])
def test_a_subtracted_background_is_seen(pedestal: int, offset_adu: float) -> None:
    raw = frames().astype(int)
    subtracted = np.clip(raw - np.median(raw, axis=0).astype(int) + pedestal, 0, 65535)
    (said,) = misfits(subtracted.astype(np.uint16), localiser({"offset_adu": offset_adu}))
    assert "without a subtraction of background" in said


def astigmatic(sigmas_px: tuple[float, float], n: int = 60, size: int = SIZE) -> Any:
    """Frames of single spots whose widths along y and x go from one to the other, and back."""
    rng = np.random.default_rng(0)
    film = np.full((n, size, size), 10.0)
    grid = np.arange(12, size - 12, 24)
    y, x = np.mgrid[:size, :size]
    for frame in film:
        for cy in grid:
            for cx in grid:
                depth = rng.uniform()
                sy, sx = (np.interp(d, (0, 1), sigmas_px) for d in (depth, 1 - depth))
                py, px = cy + rng.uniform(-0.5, 0.5), cx + rng.uniform(-0.5, 0.5)
                spot = np.exp(-0.5 * (((y - py) / sy) ** 2 + ((x - px) / sx) ** 2))
                frame += 1500 * spot / spot.sum()
    return (100 + 2 * rng.poisson(film)).astype(np.uint16)


def test_astigmatic_frames_are_seen() -> None:
    (said,) = misfits(astigmatic((0.9, 2.0)), localiser(SCMOS))
    assert "as by a cylindrical lens" in said
    assert list(misfits(astigmatic((0.88, 0.88)), localiser(SCMOS))) == []


def test_spots_of_another_width_are_seen() -> None:
    (said,) = misfits(frames(), localiser(sigma_nm=150.0))
    assert "storm.psf_sigma_nm" in said


def test_astigmatic_frames_of_others(microscope_data: Path) -> None:
    import tifffile

    film = tifffile.imread(microscope_data / "more" / "smlm" / "3DAS_LD_frames.tif")[:300]
    scale = PhotonScale.of(500.0, 1.0)
    (said,) = misfits(film, Localiser((32, 32), 100.0, gaussian_sigma(1.43, 665.0), scale))
    assert "as by a cylindrical lens" in said


@pytest.mark.parametrize(
    ("name", "photons_per_adu"),
    [("simulated_mt_blinking_361x64x64.tif", 1 / 4.1), ("simulated_mt_20x64x64.tif", 1.0)],
)
def test_nothing_is_said_of_dense_frames_of_others(
    microscope_data: Path, name: str, photons_per_adu: float
) -> None:
    import tifffile

    film = tifffile.imread(microscope_data / "storm" / name)[:200]
    scale = PhotonScale(100.0, photons_per_adu)
    assert list(misfits(film, Localiser((64, 64), 100.0, 110.0, scale))) == []


def test_the_first_frames_are_enough_and_what_follows_costs_nothing() -> None:
    monitor = SettingsMonitor(localiser({"offset_adu": 400.0}), "647")
    film = frames()
    for t in range(30):
        some = tuple(film[(10 * t + i) % N] for i in range(10))
        monitor.before(RawStack(some, Stream(channel="647"), t, 0, 0))
    assert len(monitor._frames) == FRAMES
    (said,) = monitor.look().warnings
    assert said.startswith("Channel 647: the background")
    assert monitor.look().warnings == ()


def test_blank_frames_are_left_to_those_who_look_for_them() -> None:
    assert list(misfits(np.zeros((30, SIZE, SIZE), np.uint16), localiser())) == []
    half = frames().copy()
    half[::3] = 0
    assert list(misfits(half, localiser())) == []


def test_a_run_says_that_its_offset_is_wrong(tmp_path: Path) -> None:
    wrong = rig({"offset_adu": 400.0})
    wrong = wrong.with_section(STORMConfig.of(wrong).model_copy(update={"frames": 20}))
    plan = sim_sequence(3, channels=["647"], raw=20)
    with core_of("virtual_storm", 2.0, SensorSize=SIZE, Frames=60) as core:
        with LiveSR(core, rig=wrong, store=tmp_path / "r.ome.zarr", plan=plan) as session:
            core.mda.run(plan)
        assert any("camera.offset_adu" in warning for warning in session.report["warnings"])
