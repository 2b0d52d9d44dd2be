import numpy as np
import pytest

from livesr.optics.otf import apodisation, cutoff_um, otf

SHAPE, PIXEL_UM, NA, WAVELENGTH_UM = (48, 66), 0.065, 1.49, 0.525


def test_cutoff_is_the_abbe_limit():
    assert cutoff_um(1.4, 0.5) == pytest.approx(5.6)


def test_is_one_at_zero_falls_and_ends_at_the_cutoff():
    line = otf((1, 400), PIXEL_UM, NA, WAVELENGTH_UM)[0, :200]
    k = np.fft.fftfreq(400, PIXEL_UM)[:200]
    assert line[0] == 1
    assert np.all(np.diff(line[k < cutoff_um(NA, WAVELENGTH_UM)]) < 0)
    assert np.all(line[k > cutoff_um(NA, WAVELENGTH_UM)] == 0)


def test_is_the_autocorrelation_of_a_disc():
    n = 512
    y, x = np.mgrid[:n, :n] - n // 2
    disc = (np.hypot(y, x) < 100).astype(float)
    overlap = np.fft.ifft2(np.abs(np.fft.fft2(disc)) ** 2).real[0, :200] / disc.sum()
    # A disc of radius 100 samples has its cutoff at 200 samples: choose NA so that k / cutoff =
    # sample / 200.
    expected = otf((1, 1000), 0.1, 1.0, 1.0)[0, :200]
    np.testing.assert_allclose(overlap, expected, atol=5e-3)


def test_offset_moves_the_centre():
    step = 1 / (SHAPE[0] * PIXEL_UM), 1 / (SHAPE[1] * PIXEL_UM)
    moved = otf(SHAPE, PIXEL_UM, NA, WAVELENGTH_UM, offset_um=(3 * step[0], -2 * step[1]))
    assert np.unravel_index(moved.argmax(), SHAPE) == (SHAPE[0] - 3, 2)
    assert moved.max() == pytest.approx(1, abs=1e-6)


def test_damping_is_reached_at_the_cutoff():
    ideal = otf((1, 400), PIXEL_UM, NA, WAVELENGTH_UM)[0]
    damped = otf((1, 400), PIXEL_UM, NA, WAVELENGTH_UM, damping=0.3)[0]
    k = np.abs(np.fft.fftfreq(400, PIXEL_UM)) / cutoff_um(NA, WAVELENGTH_UM)
    inside = ideal > 1e-3
    np.testing.assert_allclose(damped[inside] / ideal[inside], 0.3 ** k[inside], rtol=1e-3)


@pytest.mark.parametrize("damping", [0.0, 1.5])
def test_impossible_damping_is_refused(damping):
    with pytest.raises(ValueError, match="damping"):
        otf(SHAPE, PIXEL_UM, NA, WAVELENGTH_UM, damping=damping)


def test_dtype_shape_and_symmetry():
    h = otf(SHAPE, PIXEL_UM, NA, WAVELENGTH_UM)
    assert h.dtype == np.float32
    assert h.shape == SHAPE
    np.testing.assert_array_equal(h[1:, 1:], h[1:, 1:][::-1, ::-1])


def test_apodisation_closes_at_its_cutoff():
    window = apodisation((1, 400), PIXEL_UM, 5.0, 1.0)[0]
    k = np.abs(np.fft.fftfreq(400, PIXEL_UM))
    np.testing.assert_allclose(window[k < 5], np.cos(np.pi / 2 * k[k < 5] / 5), atol=1e-6)
    assert np.all(window[k >= 5] == 0)
    hard = apodisation((1, 400), PIXEL_UM, 5.0, 0.0)[0]
    np.testing.assert_array_equal(hard, (k < 5).astype(np.float32))
