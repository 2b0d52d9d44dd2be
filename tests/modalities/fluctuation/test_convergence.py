"""eSRRF against a plain loop over its definition, on any arrays, and where things are."""

import array_api_strict
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from threadpoolctl import threadpool_info, threadpool_limits

from livesr.live.arrays import HOST, Array, Arrays, NumpyArrays
from livesr.modalities.fluctuation import convergence
from livesr.modalities.fluctuation.convergence import Convergence
from livesr.modalities.fluctuation.stencil import cubic

SHAPE, MAGNIFICATION, RADIUS = (24, 20), 4, 1.5


def frames(n: int = 1, shape: tuple[int, int] = SHAPE) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(n):
        light = np.zeros(shape)
        light[rng.integers(0, shape[0], 12), rng.integers(0, shape[1], 12)] = 4000
        found.append(rng.poisson(gaussian_filter(light, 1.0) + 20).astype(np.uint16))
    return found


def interpolated(image: np.ndarray, y: float, x: float) -> float:
    """Cubic convolution at (y, x), in samples."""
    rows, columns = int(np.floor(y)) + np.arange(-1, 3), int(np.floor(x)) + np.arange(-1, 3)
    part = image[np.ix_(rows, columns)]
    return float(cubic(y - rows) @ part @ cubic(x - columns))


def by_definition(frame: np.ndarray, place: tuple[int, int], sensitivity: int) -> float:
    """One pixel of the image, from the published sums, without tables or rounding."""
    a = frame.astype(float)
    down, up = a[1:, 1:] - a[:-1, :-1], a[:-1, 1:] - a[1:, :-1]
    gx, gy = down + up, down - up  # at the corner (i + 1, j + 1)
    sigma = RADIUS / 2.355
    at = [(v + 0.5) / MAGNIFICATION for v in place]
    total = weights = 0.0
    for i in range(2 * int(at[0]) - 6, 2 * int(at[0]) + 9):
        for j in range(2 * int(at[1]) - 6, 2 * int(at[1]) + 9):
            dy, dx = i / 2 - at[0], j / 2 - at[1]
            d = np.hypot(dy, dx)
            if d > 2 * sigma + 1:
                continue
            weight = (d * np.exp(-(d**2) / (2 * sigma**2))) ** 4
            weights += weight
            y, x = (interpolated(g, i / 2 - 1, j / 2 - 1) for g in (gy, gx))
            if x * dx + y * dy < 0:
                total += weight * (1 - abs(x * dy - y * dx) / (np.hypot(x, y) * d))
    intensity = interpolated(a, at[0] - 0.5, at[1] - 0.5)
    return float((total / weights) ** sensitivity * intensity)


@pytest.mark.parametrize("sensitivity", [1, 2, 3, 5])
def test_it_is_the_published_sum(sensitivity: int) -> None:
    (frame,) = frames()
    image = Convergence(SHAPE, MAGNIFICATION, RADIUS, sensitivity).group([frame])
    rng = np.random.default_rng(1)
    places = [(int(rng.integers(28, 68)), int(rng.integers(28, 52))) for _ in range(60)]
    expected = np.array([by_definition(frame, p, sensitivity) for p in places])
    found = np.array([image[p] for p in places])
    assert np.corrcoef(found, expected)[0, 1] > 0.999
    assert np.abs(found - expected).max() < 0.05 * expected.max()


@pytest.mark.parametrize("magnification", [2, 4, 6])
def test_a_spot_stays_where_it_is(magnification: int) -> None:
    y, x = np.mgrid[:24, :24]
    at = (11.3, 12.8)  # of the pixels' centres
    frame = (2000 * np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 2)).astype(np.float32)
    image = Convergence((24, 24), magnification, RADIUS, 4).group([frame])
    rows, columns = ((np.arange(24 * magnification) + 0.5) / magnification - 0.5,) * 2
    found = image.sum(axis=1) @ rows / image.sum(), image.sum(axis=0) @ columns / image.sum()
    assert np.allclose(found, at, atol=0.06)
    spread = image.sum(axis=1) @ (rows - found[0]) ** 2 / image.sum()
    assert spread < 0.35  # of the frame 1


def test_nanopyx_has_it_half_a_camera_pixel_further() -> None:
    (frame,) = frames(shape=(32, 32))
    own = Convergence((32, 32), 4, RADIUS, 1)
    theirs = Convergence((32, 32), 4, RADIUS, 1, placed="nanopyx")
    flat = np.full((32, 32), 1.0, np.float32)

    def convergence_alone(of: Convergence) -> np.ndarray:
        bright = of.group([frame.astype(np.float32) + 1e6])  # the intensity is the same everywhere
        return bright / 1e6

    assert own.group([flat]).max() == 0
    a, b = (convergence_alone(c)[20:-20, 20:-20] for c in (own, theirs))
    assert np.corrcoef(a[:-2, :-2].ravel(), b[2:, 2:].ravel())[0, 1] > 0.995


def test_where_all_is_equal_nothing_converges() -> None:
    frame = np.full(SHAPE, 137, np.uint16)
    assert not Convergence(SHAPE, offset_adu=100).group([frame]).any()


@pytest.mark.parametrize("temporal", ["average", "variance", "autocorrelation"])
def test_statistics_are_those_of_the_single_images(temporal: str) -> None:
    group = frames(9)
    single = np.stack([Convergence(SHAPE, 4, RADIUS, 2).group([f]) for f in group]).astype(float)
    expected = {
        "average": single.mean(axis=0),
        "variance": single.var(axis=0),
        "autocorrelation": (
            (single[:-1] - single.mean(axis=0)) * (single[1:] - single.mean(axis=0))
        ).mean(axis=0),
    }[temporal]
    found = Convergence(SHAPE, 4, RADIUS, 2, temporal).group(group)
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def test_a_missing_frame_takes_its_pairs_away() -> None:
    group = frames(8)
    with_gap = Convergence(SHAPE, 4, RADIUS, 2, "autocorrelation").group(
        [*group[:4], None, *group[5:]]
    )
    single = {i: Convergence(SHAPE, 4, RADIUS, 2).group([group[i]]).astype(float) for i in range(8)}
    mean = np.mean([single[i] for i in range(8) if i != 4], axis=0)
    pairs = [(0, 1), (1, 2), (2, 3), (5, 6), (6, 7)]
    expected = np.mean([(single[a] - mean) * (single[b] - mean) for a, b in pairs], axis=0)
    np.testing.assert_allclose(with_gap, expected, atol=2e-5 * np.abs(expected).max())


def test_bands_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    group = frames(3, (50, 20))
    whole = Convergence((50, 20), 4, 2.0, 2)
    monkeypatch.setattr(convergence, "_BAND", 7)
    monkeypatch.setattr(convergence, "_cores", lambda: 3)
    bands = Convergence((50, 20), 4, 2.0, 2)
    np.testing.assert_allclose(bands.group(group), whole.group(group), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("magnification", [2, 4])
def test_the_array_api_standard_is_enough(magnification: int) -> None:
    group, strict = frames(3), Arrays(array_api_strict)
    for temporal in ("average", "variance", "autocorrelation"):
        on_host = Convergence(SHAPE, magnification, RADIUS, 3, temporal, offset_adu=10, arrays=HOST)
        other = Convergence(SHAPE, magnification, RADIUS, 3, temporal, offset_adu=10, arrays=strict)
        found = np.asarray(other.group([strict.array(f) for f in group]))
        expected = on_host.group(group)
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_an_odd_magnification_is_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        Convergence(SHAPE, 5)


def test_products_of_its_threads_have_no_threads_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else they wait for each other, each time for a turn of the scheduler on a busy computer."""
    monkeypatch.setattr(convergence, "_cores", lambda: 2)
    seen: list[int] = []

    class Noting(NumpyArrays):
        def matmul(self, a: Array, b: Array, out: Array) -> Array:
            pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
            seen.extend(pool["num_threads"] for pool in pools)
            return super().matmul(a, b, out)

    with threadpool_limits(2, "blas"):
        Convergence((80, 20), arrays=Noting(np)).group(frames(2, (80, 20)))
        assert {pool["num_threads"] for pool in threadpool_info()} & {2}
    assert set(seen) == {1}
