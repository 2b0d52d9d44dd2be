"""Overtones beyond the optics: nonlinear SIM on a grid of three pixels for each of the camera."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from livesr.modalities.sim.calibration.groups import Optics
from livesr.modalities.sim.calibration.sim import calibrate
from livesr.modalities.sim.config import SIMConfig
from livesr.modalities.sim.parameters import SIMParameters
from livesr.modalities.sim.quality import QualityLimits
from livesr.modalities.sim.reconstructor import SIMReconstructor
from livesr.optics.illumination import Pattern, angle_major
from livesr.optics.otf import otf
from livesr.optics.similarity import pcc

SHAPE, PIXEL_UM, NA, EMISSION_UM, DAMPING = (120, 120), 0.065, 1.49, 0.525, 0.7
FINE = 6  # of the specimen, for each camera pixel
K_UM, ANGLES = 5.1, np.radians((14.0, 50.0, 86.0, 122.0, 158.0))
ORDER = angle_major(5, 5)
PATTERNS = [
    Pattern((float(K_UM * np.sin(a)), float(K_UM * np.cos(a))), 0.5 + a, 0.8, ((1.0 - a, 0.4),))
    for a in ANGLES
]


def specimen() -> NDArray[np.float64]:
    """Points and thin lines, (6y, 6x); their light is on average 1."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: FINE * SHAPE[0], : FINE * SHAPE[1]]
    image = 300.0 * (rng.random(y.shape) > 0.9995)
    for _ in range(40):
        a, where = rng.uniform(0, np.pi), rng.uniform(-1, 1) * y.shape[0] / 2
        line = (y - y.shape[0] / 2) * np.cos(a) + (x - y.shape[1] / 2) * np.sin(a) - where
        image += np.exp(-(line**2) / 8)
    return np.asarray(image / image.mean())


@pytest.fixture(scope="module")
def raw() -> NDArray[np.uint16]:
    rng, step = np.random.default_rng(1), PIXEL_UM / FINE
    y, x = np.mgrid[: FINE * SHAPE[0], : FINE * SHAPE[1]] * step
    response = otf(y.shape, step, NA, EMISSION_UM, damping=DAMPING)
    cell, seen = specimen(), []
    for angle, phase in ORDER:
        light = np.ones(y.shape)
        for h, wave in enumerate(PATTERNS[angle].waves, start=1):
            turn = 2 * np.pi * (wave.k_um[0] * y + wave.k_um[1] * x) + wave.phase_rad
            light += wave.modulation * np.cos(turn + h * 2 * np.pi * phase / 5)
        seen.append(np.fft.ifft2(np.fft.fft2(cell * light) * response).real[::FINE, ::FINE])
    return np.asarray(rng.poisson(np.maximum(seen, 0) * 2000.0) + 100, np.uint16)[None]


def parameters(scale: int) -> SIMParameters:
    return SIMParameters(
        SHAPE, PIXEL_UM, NA, EMISSION_UM, order=ORDER, damping=DAMPING, scale=scale, wiener=0.05
    )


def seen_on(grid: tuple[int, int], transfer: NDArray[np.float32]) -> NDArray[np.float64]:
    """The specimen as a transfer function (y, x) shows it, on that grid."""
    spectrum = np.fft.fft2(specimen())
    rows, columns = (np.fft.fftfreq(n, 1 / n).astype(int) for n in grid)
    part = spectrum[np.ix_(rows, columns)] * transfer
    return np.asarray(np.fft.ifft2(part).real)


def test_detail_is_resolved_that_linear_sim_has_no_pixels_for(raw: NDArray[np.uint16]) -> None:
    sim = SIMReconstructor(parameters(3), PATTERNS, QualityLimits())
    image = sim.reconstruct(raw[0])
    assert image.shape == (360, 360) == sim.shape
    assert sim.scale == 3
    assert sim.quality is not None
    assert sim.quality.doubt == ""
    inside = (slice(60, -60), slice(60, -60))
    assert pcc(image[inside], seen_on(sim.shape, sim.transfer)[inside]) > 0.95
    reach = np.abs(np.fft.fftfreq(360, PIXEL_UM / 3))
    beyond = np.hypot(reach[:, None], reach) > 14.3  # where a grid of two pixels ends
    assert np.abs(sim.transfer[beyond]).max() > 0.02
    wide = sim.widefield(raw[0])
    assert wide.shape == (360, 360)
    assert pcc(image[inside], wide[inside]) < pcc(
        image[inside], seen_on(sim.shape, sim.transfer)[inside]
    )


def test_a_pattern_that_moved_is_seen(raw: NDArray[np.uint16]) -> None:
    sim = SIMReconstructor(parameters(3), PATTERNS, QualityLimits())
    sim.reconstruct(np.roll(raw[0], 3, axis=1))
    assert sim.quality is not None
    assert sim.quality.doubt


def test_overtones_are_measured_against_the_band_before_them(raw: NDArray[np.uint16]) -> None:
    found = calibrate(
        raw, Optics(PIXEL_UM, NA, EMISSION_UM), angles=5, harmonics=2, order=ORDER, nonlinear=True
    )
    for pattern, known in zip(found.patterns, PATTERNS, strict=True):
        sign = 1 if np.dot(pattern.k_um, known.k_um) > 0 else -1
        np.testing.assert_allclose(sign * np.array(pattern.k_um), known.k_um, atol=0.01)
        for wave, true in zip(pattern.waves, known.waves, strict=True):
            off = np.exp(1j * (sign * wave.phase_rad - true.phase_rad))
            assert abs(np.angle(off)) < 0.4
            assert wave.modulation == pytest.approx(true.modulation, rel=0.25)


def test_nonlinear_needs_overtones() -> None:
    assert SIMConfig(angles=5, phases=5, harmonics=2, waves="nonlinear").scale == 3
    with pytest.raises(ValueError, match="beyond the optics"):
        SIMConfig(angles=5, phases=5, waves="nonlinear")
