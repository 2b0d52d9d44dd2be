"""Statistics of an image tell lines from spots, fine from coarse, aligned from not."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from livesr.evaluation.texture import STATISTICS, texture

SIDE, PIXEL_NM = 160, 32.0


def lines(period: int, blur: float = 1.5) -> NDArray[np.float64]:
    image = np.zeros((SIDE, SIDE))
    image[:, ::period] = 1
    return gaussian_filter(image, blur)


def spots(blur: float = 2.0) -> NDArray[np.float64]:
    image = (np.random.default_rng(0).random((SIDE, SIDE)) > 0.997).astype(float)
    return gaussian_filter(image, blur)


def test_they_do_not_depend_on_the_unit() -> None:
    image = spots()
    once, again = texture(image, PIXEL_NM), texture(900 + 37 * image, PIXEL_NM)
    assert tuple(once) == STATISTICS
    assert list(again.values()) == pytest.approx(list(once.values()), rel=1e-3)


def test_lines_are_told_from_spots() -> None:
    line, spot = texture(lines(20), PIXEL_NM), texture(spots(), PIXEL_NM)
    for name in ("orientation order", "alignment", "line-likeness"):
        assert line[name] > spot[name] + 0.1


def test_a_coarser_mesh_has_longer_dark_runs() -> None:
    fine, coarse = texture(lines(12), PIXEL_NM), texture(lines(32), PIXEL_NM)
    assert coarse["mesh, nm"] > 1.8 * fine["mesh, nm"]
    assert coarse["dark runs, nm"] > fine["dark runs, nm"]
    assert coarse["cover"] < fine["cover"]


def test_a_softer_image_has_less_fine_power() -> None:
    sharp, soft = texture(spots(1.2), PIXEL_NM), texture(spots(3.0), PIXEL_NM)
    assert soft["fine power"] < sharp["fine power"] - 0.5
    assert soft["power slope, fine"] < sharp["power slope, fine"]
    assert soft["correlation length, nm"] > sharp["correlation length, nm"]


@pytest.mark.parametrize("shape", [(320, 320), (128, 512), (512, 128)])
def test_the_correlation_length_of_smooth_noise_is_known(shape: tuple[int, int]) -> None:
    # The autocorrelation of noise behind a Gaussian is a Gaussian sqrt(2) times as wide.
    image = gaussian_filter(np.random.default_rng(2).standard_normal(shape), 3.0)
    expected = 2 * 3.0 * np.sqrt(np.log(2)) * PIXEL_NM
    found = texture(image, PIXEL_NM)["correlation length, nm"]
    assert found == pytest.approx(expected, rel=0.1)


def test_haze_raises_the_median() -> None:
    image = spots()
    haze = gaussian_filter(np.random.default_rng(1).random((SIDE, SIDE)), 30)
    assert (
        texture(image + image.max() * (haze - haze.min()) / np.ptp(haze), PIXEL_NM)["median"] > 0.1
    )
    assert texture(image, PIXEL_NM)["median"] < 0.05


def test_an_even_image_is_refused() -> None:
    with pytest.raises(ValueError, match="no contrast"):
        texture(np.ones((64, 64)), PIXEL_NM)
