"""A simulated camera of which everything is known: what is measured is what it is."""

from __future__ import annotations

import numpy as np
import pytest

from livesr.base.errors import ConfigError
from livesr.evaluation.characterise import Characterisation, characterise, moments
from livesr.optics.noise import EMCCDNoise, SCMOSNoise, read_variance_map

SHAPE = (96, 128)
GAIN_ADU_PER_E, READ_NOISE_E, OFFSET_ADU = 2.1, 1.6, 100.0


class Camera:
    """An sCMOS chip with an uneven offset, its own read noise in every pixel, and bad pixels."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.fixed = np.rint(self.rng.normal(0, 2, SHAPE))
        self.read_variance_e2 = read_variance_map(SHAPE, READ_NOISE_E, self.rng, spread=0.15)
        self.bad = np.zeros(SHAPE, bool)
        hot, noisy, dead = self.rng.choice(self.bad.size, 60, replace=False).reshape(3, 20)
        self.bad.flat[[*hot, *noisy, *dead]] = True
        self.fixed.flat[hot] += 300
        self.read_variance_e2.flat[noisy] = 40.0**2
        self.response = np.ones(SHAPE)
        self.response.flat[dead] = 0
        self.noise = SCMOSNoise(OFFSET_ADU, GAIN_ADU_PER_E, read_variance_e2=self.read_variance_e2)
        y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] / SHAPE[1]
        self.flat = np.exp(-((y - 0.3) ** 2 + (x - 0.5) ** 2))
        self.flat /= self.flat.mean()

    def stack(self, electrons: float, n: int, *, fade: float = 0.0, pattern: int = 1) -> np.ndarray:
        phase = np.arange(SHAPE[1]) / 5
        frames = []
        for i in range(n):
            stripes = (
                1 + 0.7 * np.cos(phase + 2 * np.pi * (i % pattern) / pattern)
                if pattern > 1
                else 1.0
            )
            light = electrons * (1 - fade * i / n) * self.flat * self.response * stripes
            frames.append(self.noise.expose(light.astype(np.float32), self.rng) + self.fixed)
        return np.clip(frames, 0, 65535).astype(np.uint16)


def check(found: Characterisation, camera: Camera, gain_error: float = 0.02) -> None:
    good = ~camera.bad
    assert found.transfer is not None
    assert found.flat is not None
    assert (
        np.abs(found.offset - OFFSET_ADU - camera.fixed)[good].max() < 2.5
    )  # read noise of the mean, worst pixel
    assert np.abs(found.offset - OFFSET_ADU - camera.fixed)[good].mean() < 0.25
    assert 1 / found.transfer.gain_e_per_adu == pytest.approx(GAIN_ADU_PER_E, rel=gain_error)
    truth = np.sqrt(camera.read_variance_e2)
    measured = found.read_noise_adu * found.transfer.gain_e_per_adu
    assert np.median(measured[good] / truth[good]) == pytest.approx(1, abs=0.02)
    assert np.std(measured[good] / truth[good]) < 1.3 / np.sqrt(2 * 200)
    np.testing.assert_allclose(found.flat[good], camera.flat[good], rtol=0.01)
    assert found.flat[good].mean() == pytest.approx(1)
    assert (found.bad & camera.bad).sum() == camera.bad.sum()
    assert (found.bad & good).sum() <= 3


def test_everything_is_found_again() -> None:
    camera = Camera()
    found = characterise(
        camera.stack(0, 200),
        camera.stack(400, 100),
        [camera.stack(e, 40) for e in (50, 1500)],
        smooth_px=5,
    )
    check(found, camera)
    assert found.warnings == ()
    assert found.counts["hot"] >= 20
    assert found.transfer is not None
    assert found.transfer.deviation < 0.03


def test_a_layer_that_bleaches_and_structured_light_are_no_noise() -> None:
    camera = Camera(1)
    found = characterise(
        camera.stack(0, 200), camera.stack(800, 99, fade=0.5, pattern=9), n_raw=9, smooth_px=5
    )
    check(found, camera, gain_error=0.03)


def test_the_gain_of_every_pixel() -> None:
    camera = Camera(2)
    found = characterise(camera.stack(0, 200), camera.stack(500, 300), gain_map=True)
    assert found.gain_e_per_adu is not None
    relative = found.gain_e_per_adu[~camera.bad] * GAIN_ADU_PER_E
    assert np.median(relative) == pytest.approx(1, abs=0.02)
    assert np.std(relative) == pytest.approx(np.sqrt(2 / 300), rel=0.2)


def test_an_emccd_s_gain_is_that_behind_its_register() -> None:
    rng, noise = np.random.default_rng(5), EMCCDNoise(cic_e=0.0)
    dark, flat = (
        [noise.expose(np.full(SHAPE, e, np.float32), rng) for _ in range(120)] for e in (0, 40)
    )
    found = characterise(np.array(dark), np.array(flat), em_gain=noise.em_gain)
    assert found.transfer is not None
    assert found.transfer.gain_e_per_adu == pytest.approx(noise.gain_e_per_adu, rel=0.03)
    read_noise_e = np.median(found.read_noise_adu) * found.transfer.gain_e_per_adu
    assert read_noise_e == pytest.approx(noise.read_noise_e, rel=0.03)


def test_darkness_alone_gives_offset_and_hot_pixels() -> None:
    camera = Camera(3)
    found = characterise(camera.stack(0, 60))
    assert found.transfer is None
    assert found.flat is None
    assert found.counts["hot"] >= 20  # a noisy pixel may look hot
    assert "60 dark frames" in found.warnings[0]


def test_moments_are_those_of_numpy() -> None:
    stack = np.random.default_rng(0).integers(0, 4000, (31, 8, 9), np.uint16)
    found = moments(stack)
    np.testing.assert_allclose(found.mean, stack.mean(axis=0))
    np.testing.assert_allclose(found.variance, stack.var(axis=0, ddof=1))


def test_what_cannot_be_measured_is_one_sentence() -> None:
    camera = Camera(4)
    dark, bright = camera.stack(0, 20), camera.stack(500, 20)
    cases = {
        "no brighter than the dark stack": lambda: characterise(bright, dark),
        "dark stack has 1 frames": lambda: characterise(dark[:1]),
        "needs at least 18": lambda: characterise(dark, bright[:12], n_raw=9),
        "is 90x128, and the dark stack 96x128": lambda: characterise(dark, bright[:, :90]),
        "between darkness and saturation": lambda: characterise(dark, bright, ceiling=200),
        "no photon noise": lambda: characterise(dark, np.repeat(bright[:1], 20, axis=0)),
    }
    for words, attempt in cases.items():
        with pytest.raises(ConfigError, match=words):
            attempt()
