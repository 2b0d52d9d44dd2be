"""SOFI's cumulants against their definition, and what they make of blinking points."""

import array_api_strict
import numpy as np
import pytest

from livesr.live.arrays import Arrays
from livesr.modalities.fluctuation import cumulants
from livesr.modalities.fluctuation.cumulants import Cumulants
from livesr.optics.summit import summit

SIGMA_PX = 1.1


def points(frames: int, places: list[tuple[float, float]], size: int = 20) -> np.ndarray:
    """Frames (n, y, x) of points that are lit one time in ten, without noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    shapes = [np.exp(-((y - a) ** 2 + (x - b) ** 2) / (2 * SIGMA_PX**2)) for a, b in places]
    lit = rng.random((frames, len(places))) < 0.1
    return np.einsum("fp,pyx->fyx", lit, np.stack(shapes)).astype(np.float32) * 1000


@pytest.mark.parametrize(("order", "moment"), [(2, 0.09), (3, 0.072), (4, 0.0414)])
def test_a_point_is_as_narrow_as_the_order_says_and_in_its_place(order: int, moment: float) -> None:
    at = (9.0, 10.0)
    image = Cumulants((20, 20), order, SIGMA_PX)
    found = image.group(list(points(2000, [at])))
    row, column = np.unravel_index(int(found.argmax()), found.shape)
    top = np.array((row, column)) + summit(found, (int(row), int(column))) + image.beside_px
    assert np.allclose((top + 0.5) / order - 0.5, at, atol=0.06)
    # cumulants of a switch that is on with p = 0.1, times brightness to the power of the order
    assert found.max() == pytest.approx(moment * 1000.0**order, rel=0.25)
    half = found[row, :] > found.max() / 2
    assert half.sum() / order == pytest.approx(2.355 * SIGMA_PX / np.sqrt(order), abs=1.01 / order)


def test_noise_of_single_pixels_leaves_nothing() -> None:
    noise = np.random.default_rng(1).poisson(100, (2000, 16, 16)).astype(np.uint16)
    for order in (2, 3, 4):
        found = Cumulants((16, 16), order, SIGMA_PX).group(list(noise))
        assert abs(found.mean()) < 0.05 * 100 ** (order / 2) * np.exp(1.5 * order)


@pytest.mark.parametrize("order", [2, 3])
def test_few_frames_are_not_biased(order: int) -> None:
    frames = points(2400, [(9.0, 10.0), (6.0, 6.5)])
    image = Cumulants((20, 20), order, SIGMA_PX)
    whole = image.group(list(frames))
    groups = [image.group(list(frames[i : i + 12])) for i in range(0, 2400, 12)]
    middle = np.unravel_index(int(whole.argmax()), whole.shape)
    assert np.mean([g[middle] for g in groups]) == pytest.approx(whole[middle], rel=0.15)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_bands_and_other_arrays_change_nothing(order: int, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [f.astype(np.uint16) for f in points(30, [(9.0, 10.0)])]
    strict = Arrays(array_api_strict)
    other = Cumulants((20, 20), order, SIGMA_PX, arrays=strict)
    found = np.asarray(other.group([strict.array(f) for f in frames]))
    monkeypatch.setattr(cumulants, "_BAND", 7)
    expected = Cumulants((20, 20), order, SIGMA_PX).group([*frames, None])
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_too_few_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="needs more"):
        Cumulants((8, 8), 4, 1.0).group([np.zeros((8, 8), np.uint16)] * 4)
