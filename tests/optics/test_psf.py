"""The image of a point has the light, the place and the width that optics demands."""

import numpy as np
import pytest
from scipy.special import j1

from livesr.optics.psf import PointSpread, gaussian_sigma

PIXEL_UM, NA, WAVELENGTH_UM = 0.1, 1.4, 0.67


def image_of(y, x, light, shape=(41, 43), **optics):
    spread = PointSpread(PIXEL_UM, NA, WAVELENGTH_UM, **{"radius_px": 18, **optics})
    image = np.zeros(shape, np.float32)
    spread.add(
        image,
        np.atleast_1d(y).astype(float),
        np.atleast_1d(x).astype(float),
        np.atleast_1d(light).astype(float),
    )
    return image


@pytest.mark.parametrize(("y", "x"), [(20.0, 21.0), (19.6, 21.3), (20.49, 20.51)])
def test_light_and_place(y, x):
    image = image_of(y, x, 1000.0)
    rows, columns = np.indices(image.shape)
    assert image.sum() == pytest.approx(1000, rel=0.03)  # an Airy pattern has far wings
    near = np.hypot(rows - y, columns - x) < 3
    assert np.average(rows[near], weights=image[near]) == pytest.approx(y, abs=0.1)
    assert np.average(columns[near], weights=image[near]) == pytest.approx(x, abs=0.1)


def test_the_nearest_gaussian_is_where_theory_says():
    image = image_of(20.0, 21.0, 1.0)
    r = np.arange(-3, 4) * PIXEL_UM
    row = image[20, 18:25]
    curvature = np.polyfit(r[1:-1] ** 2, np.log(row[1:-1]), 1)[0]
    fitted = np.sqrt(-0.5 / curvature)
    # A pixel of 0.1 um adds its own width, p / sqrt(12).
    assert fitted == pytest.approx(
        np.hypot(gaussian_sigma(NA, WAVELENGTH_UM), PIXEL_UM / np.sqrt(12)), rel=0.06
    )


def test_it_is_the_airy_pattern():
    """Peak and first dark ring, 1.22 wavelength / (2 NA), with pixels too small to matter."""
    spread = PointSpread(0.01, NA, WAVELENGTH_UM, radius_px=40)
    image = np.zeros((91, 91), np.float32)
    spread.add(image, np.array([45.0]), np.array([45.0]), np.array([1.0]))
    assert image[45, 45] == pytest.approx(np.pi * (NA / WAVELENGTH_UM) ** 2 * 0.01**2, rel=0.02)
    ring = 45 + np.argmin(image[45, 45:80])
    assert (ring - 45) * 0.01 == pytest.approx(0.61 * WAVELENGTH_UM / NA, abs=0.011)


@pytest.mark.parametrize(("na", "wavelength_um", "share"), [(1.49, 0.525, 0.94), (1.3, 0.6, 0.92)])
def test_a_square_holds_as_much_light_as_its_docstring_says(na, wavelength_um, share):
    # The Airy pattern J1(v)^2 / (pi r^2), v = 2 pi NA r / wavelength, in 11 x 11 pixels.
    at = (np.arange(2200) - 1099.5) * 1.1 / 2200
    r = np.hypot(at[:, None], at)
    pattern = j1(2 * np.pi * na * r / wavelength_um) ** 2 / (np.pi * r**2)
    inside = float(pattern.sum() * (1.1 / 2200) ** 2)
    assert inside == pytest.approx(share, abs=0.01)
    image = np.zeros((41, 41), np.float32)
    spread = PointSpread(0.1, na, wavelength_um, radius_px=5)
    spread.add(image, np.array([20.0]), np.array([20.0]), np.array([1.0]))
    assert image.sum() == pytest.approx(inside, abs=0.01)


def test_what_falls_outside_is_cut_off():
    image = image_of([-1.0, 41.0], [5.0, 42.4], [100.0, 100.0])
    assert 0 < image.sum() < 110
    assert not image_of([-30.0], [5.0], [100.0]).any()
