"""SOFI's cumulants against their definition, and what they make of blinking points."""

import math
from collections.abc import Iterator
from itertools import combinations, product

import array_api_strict
import numpy as np
import pytest

from livesr.live.arrays import Arrays
from livesr.modalities.fluctuation import cumulants
from livesr.modalities.fluctuation.cumulants import Cumulants
from livesr.modalities.fluctuation.reconstructor import SOFI
from livesr.optics.summit import summit

SIGMA_PX = 1.1


def points(frames: int, places: list[tuple[float, float]], size: int = 20) -> np.ndarray:
    """Frames (n, y, x) of points that are lit one time in ten, without noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    shapes = [np.exp(-((y - a) ** 2 + (x - b) ** 2) / (2 * SIGMA_PX**2)) for a, b in places]
    lit = rng.random((frames, len(places))) < 0.1
    return np.einsum("fp,pyx->fyx", lit, np.stack(shapes)).astype(np.float32) * 1000


def partitions(of: tuple[int, ...]) -> Iterator[list[tuple[int, ...]]]:
    """Every way to split a set into blocks."""
    if not of:
        yield []
        return
    first, rest = of[0], of[1:]
    for n in range(len(rest) + 1):
        for others in combinations(rest, n):
            left = tuple(v for v in rest if v not in others)
            yield from ([(first, *others), *blocks] for blocks in partitions(left))


def joint_cumulant(values: list[np.ndarray]) -> float:
    """By its definition: the sum over all partitions, of a population."""
    return sum(
        (-1) ** (len(blocks) - 1)
        * math.factorial(len(blocks) - 1)
        * math.prod(float(np.mean(np.prod([values[i] for i in b], axis=0))) for b in blocks)
        for blocks in partitions(tuple(range(len(values))))
    )


def by_definition(frames: np.ndarray, order: int, row: int, column: int) -> float:
    """A pixel of the image: of `order` pixels around its place, those nearest to each other."""
    middle = np.array([row, column]) - (order - 1) // 2  # in `order`-ths of a camera pixel
    near = product(*(range(v // order - 1, v // order + 3) for v in middle))
    sets = list(combinations(near, order))
    away = order * np.array(sets) - middle
    spread = np.where(away.sum(axis=1).any(axis=1), np.inf, (away**2).sum(axis=(1, 2)))
    nearest = [sets[i] for i in np.flatnonzero(spread == spread.min())]
    values = [joint_cumulant([frames[:, y, x] for y, x in pixels]) for pixels in nearest]
    return float(np.mean(values) / np.exp(-spread.min() / order**2 / (2 * SIGMA_PX**2)))


@pytest.mark.parametrize("order", [2, 3, 4])
def test_the_mean_of_all_samples_is_the_cumulant_of_the_population(order: int) -> None:
    """A few frames are all there is: the estimates of all groups that can be drawn of them."""
    kinds = 2 if order == 4 else 3
    population = np.random.default_rng(3).gamma(0.7, 50, (kinds, 8, 8)).astype(np.float32)
    image = Cumulants((8, 8), order, SIGMA_PX)
    groups = product(range(kinds), repeat=order + 1)
    drawn = [image.group([population[i] for i in which]) for which in groups]
    found = np.mean(drawn, axis=0, dtype=np.float64)
    exact = population.astype(np.float64)
    places = [(3 * order + y, 3 * order + x) for y in range(order) for x in range(order)]
    expected = [by_definition(exact, order, *place) for place in places]
    scale = np.abs(expected).max()
    np.testing.assert_allclose([found[p] for p in places], expected, atol=1e-4 * scale)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_a_picture_is_linear_in_brightness(order: int) -> None:
    """Of two points, one three times as bright, whose cumulants differ by 3 to the order."""
    y, x = np.mgrid[:16, :28]
    shapes = [np.exp(-((y - 8) ** 2 + (x - at) ** 2) / (2 * SIGMA_PX**2)) for at in (7, 20)]
    at = np.arange(100)  # lit one time in ten, and independent of each other
    lit = np.stack([1000.0 * (at % 10 == 0), 3000.0 * (at // 10 == 0)], axis=1)
    frames = np.einsum("fp,pyx->fyx", lit, np.stack(shapes)).astype(np.float32)
    cumulant = Cumulants((16, 28), order, SIGMA_PX)
    image = cumulant.group(list(frames))
    middle = 14 * order

    def ratio(of: np.ndarray) -> float:
        left, right = of[:, :middle], of[:, middle:]
        return float(right.max() / left.max())

    assert ratio(image) == pytest.approx(3.0**order, rel=0.01)
    for rounds in (0, 10):
        assert ratio(SOFI(cumulant, SIGMA_PX, rounds).picture(image)) == pytest.approx(3, rel=0.03)


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
