"""Image formation against its textbook form, and the truths against the reconstruction."""

from dataclasses import replace

import numpy as np
import pytest

from livesr.modalities.sim.parameters import SIMParameters
from livesr.modalities.sim.reconstructor import SIMReconstructor
from livesr.modalities.sim.simulation.microscope import Components, Light, SIMMicroscope
from livesr.optics.illumination import Pattern
from livesr.optics.otf import otf
from pattern_light import illumination

SHAPE, PIXEL_UM, NA, EMISSION_UM = (96, 80), 0.065, 1.49, 0.525
PATTERNS = [
    Pattern((5.0 * np.sin(a), 5.0 * np.cos(a)), phase, m)
    for a, phase, m in ((0.2, 0.3, 0.8), (1.25, 2.0, 0.6), (2.3, 4.0, 0.7))
]
STEADY = Light(electrons=1.0, background_e=0.0)


def microscope(shape=SHAPE, margin_px=0, patterns=PATTERNS):
    return SIMMicroscope(shape, PIXEL_UM, NA, EMISSION_UM, patterns, margin_px=margin_px)


def specimen(shape, seed=0):
    """Return bright points, none of them near the edge."""
    density = np.zeros(shape, np.float32)
    inner = density[40:-40, 40:-40]
    inner[...] = np.random.default_rng(seed).random(inner.shape) ** 40
    return density


@pytest.fixture(scope="module")
def scope():
    return microscope()


@pytest.fixture(scope="module")
def density(scope):
    return specimen(scope.object_shape)


def rng():
    return np.random.default_rng(1)


def test_raw_frames_equal_the_textbook_formation(scope, density):
    raw = scope.raw(scope.components(density), STEADY, rng())
    response = otf(scope.object_shape, scope.object_pixel_um, NA, EMISSION_UM)
    for frame, (angle, step) in zip(raw, scope.order, strict=True):
        light = illumination(
            scope.object_shape, scope.object_pixel_um, PATTERNS[angle], scope.phase_steps_rad[step]
        )
        image = np.fft.ifft2(np.fft.fft2(density * light) * response).real[::2, ::2]
        np.testing.assert_allclose(frame, image, atol=2e-3 * image.max())


def test_formation_is_linear_in_the_object(scope, density):
    other = specimen(scope.object_shape, seed=5)
    both = scope.raw(scope.components(2 * density + other), STEADY, rng())
    apart = 2 * scope.raw(scope.components(density), STEADY, rng()) + scope.raw(
        scope.components(other), STEADY, rng()
    )
    np.testing.assert_allclose(both, apart, atol=1e-5 * both.max())


def test_haze_is_not_modulated(scope, density):
    haze = np.full(scope.object_shape, 0.5, np.float32)
    without, with_haze = scope.components(density), scope.components(density, haze)
    np.testing.assert_allclose(with_haze.widefield - without.widefield, 0.5, atol=1e-6)
    np.testing.assert_array_equal(with_haze.waves, without.waves)


def test_margin_changes_only_what_lies_beyond_the_edge(density):
    outer = microscope()
    inner = microscope(
        (SHAPE[0] - 20, SHAPE[1] - 20), 10, [p.seen_from((10, 10), PIXEL_UM) for p in PATTERNS]
    )
    assert inner.object_shape == outer.object_shape
    raw = inner.raw(inner.components(density), STEADY, rng())
    expected = outer.raw(outer.components(density), STEADY, rng())[:, 10:-10, 10:-10]
    np.testing.assert_allclose(raw, expected, atol=1e-4 * expected.max())


@pytest.mark.parametrize("margin_px", [0, 8])
def test_reconstruction_truth_is_the_noise_free_reconstruction(margin_px):
    scope = microscope(margin_px=margin_px)
    density = specimen(scope.object_shape)
    components = scope.components(density)
    light = replace(STEADY, electrons=30000 / components.peak(100))
    raw = np.rint(scope.raw(components, light, rng())).astype(np.uint16)
    parameters = SIMParameters(SHAPE, PIXEL_UM, NA, EMISSION_UM, offset_adu=0, equalise=False)
    reconstructor = SIMReconstructor(parameters, PATTERNS)
    picture = reconstructor.reconstruct(raw)
    truth = scope.reconstruction_truth(density, reconstructor.transfer, light.electrons)
    inner = (slice(30, -30), slice(30, -30))
    np.testing.assert_allclose(picture[inner], truth[inner], atol=5e-3 * truth.max())


def test_truth_is_sharper_than_any_reconstruction_and_as_bright(scope, density):
    reconstructor = SIMReconstructor(SIMParameters(SHAPE, PIXEL_UM, NA, EMISSION_UM), PATTERNS)
    ideal, reached = (
        scope.truth(density, 3.0),
        scope.reconstruction_truth(density, reconstructor.transfer, 3.0),
    )
    assert ideal.max() > reached.max()
    assert ideal.mean() == pytest.approx(3 * density.mean(), rel=1e-4)
    assert reached.mean() == pytest.approx(3 * density.mean(), rel=1e-4)


def test_motion_within_a_group_mixes_the_neighbours():
    scope = microscope()
    level = [
        Components(np.full(SHAPE, v, np.float32), np.zeros((3, *SHAPE), np.complex64))
        for v in (1, 3, 7)
    ]
    raw = scope.raw(tuple(level), replace(STEADY, duty=0.9), rng())[:, 0, 0]
    when = 0.9 * ((np.arange(9) + 0.5) / 9 - 0.5)
    np.testing.assert_allclose(raw, np.where(when < 0, 3 + 2 * when, 3 + 4 * when), rtol=1e-5)


def test_light_fades_flickers_and_is_reproducible():
    scope = microscope()
    even = Components(np.ones(SHAPE, np.float32), np.zeros((3, *SHAPE), np.complex64))
    light = Light(electrons=100, background_e=7, bleaching=0.1)
    levels = [scope.raw(even, light, rng(), t).mean((1, 2)) - 7 for t in (0, 5)]
    assert np.all(np.diff(levels[0]) < 0)
    np.testing.assert_allclose(levels[1] / levels[0], 0.9**5, rtol=1e-4)
    flicker = scope.raw(even, replace(light, jitter=0.05), rng())
    np.testing.assert_array_equal(flicker, scope.raw(even, replace(light, jitter=0.05), rng()))
    assert not np.allclose(flicker, scope.raw(even, light, rng()), rtol=1e-3)


def test_phase_errors_turn_the_pattern(scope, density):
    components = scope.components(density)
    steady = scope.raw(components, STEADY, rng())
    shaken = scope.raw(components, replace(STEADY, phase_error_rad=0.2), rng())
    difference = np.abs(shaken - steady).max((1, 2)) / steady.max()
    assert 0.005 < difference.max() < 0.5


def test_what_cannot_be_imaged_is_refused(scope):
    with pytest.raises(ValueError, match="smaller pixels"):
        SIMMicroscope(SHAPE, 0.11, NA, EMISSION_UM, PATTERNS)
    with pytest.raises(ValueError, match="this microscope images"):
        scope.components(np.zeros((8, 8), np.float32))
    with pytest.raises(ValueError, match="transfer function"):
        scope.reconstruction_truth(
            np.zeros(scope.object_shape, np.float32), np.ones((4, 4), np.float32)
        )
