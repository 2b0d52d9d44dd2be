"""What an image of one structure looks like, in numbers.

To tell whether simulated cells look like real ones.

Owns the statistics. Each takes an image (y, x) whose bright parts are about 1 and its pixel size;
none knows what it shows.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, maximum_filter, sobel
from scipy.stats import skew

Image = NDArray[np.floating[Any]]

STATISTICS = (
    "power slope, coarse",
    "power slope, fine",
    "fine power",
    "correlation length, nm",
    "orientation order",
    "alignment",
    "mesh, nm",
    "bright runs, nm",
    "dark runs, nm",
    "cover",
    "skewness",
    "median",
    "line-likeness",
    "maxima per um2",
)
_PERCENTILES = (1.0, 99.8)
_COARSE, _FINE = (0.01, 0.06), (0.06, 0.2)  # cycles a pixel
_FINEST = 0.1  # cycles a pixel: above is fine power


def texture(image: Image, pixel_size_nm: float) -> dict[str, float]:
    """Return every one of `STATISTICS` of an image (y, x), in any unit.

    Sides should be 128 pixels or more.

    Raises
    ------
    ValueError
        If the image has no contrast.
    """
    low, high = np.percentile(image, _PERCENTILES)
    if not high > low:
        raise ValueError(f"the image, {image.shape}, has no contrast")
    scaled = np.clip((image - low) / (high - low), 0, 1.5).astype(np.float32)
    bright = scaled > _otsu(scaled)
    values = (
        *_power(scaled),
        _correlation_length(scaled) * pixel_size_nm,
        *_order(scaled),
        *_runs(bright, pixel_size_nm),
    )
    rest = (
        float(bright.mean()),
        float(skew(scaled, axis=None)),
        float(np.median(scaled)),
        _line_likeness(scaled),
    )
    return dict(
        zip(
            STATISTICS, (*values, *rest, _maxima(scaled) / (pixel_size_nm / 1000) ** 2), strict=True
        )
    )


def _otsu(image: Image) -> float:
    """Return the level that parts the pixels into two groups with the least variance within (Otsu
    1979).
    """
    counts, edges = np.histogram(image, 256)
    levels, below = (edges[:-1] + edges[1:]) / 2, np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * levels)
    between = (
        below
        * above
        * (sums / np.maximum(below, 1) - (sums[-1] - sums) / np.maximum(above, 1)) ** 2
    )
    return float(levels[int(np.argmax(between))])


def _power(image: Image) -> tuple[float, float, float]:
    """Return the slopes of the radial power spectrum (log-log) and the logarithm of the share of
    its fine part.
    """
    window = np.outer(*(np.hanning(n) for n in image.shape))
    power = np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2
    radius = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in image.shape), indexing="ij"))
    slopes = []
    for low, high in (_COARSE, _FINE):
        edges = np.geomspace(low, high, 7)
        rings = [power[(radius >= a) & (radius < b)].mean() for a, b in pairwise(edges)]
        middles = np.log(np.sqrt(edges[:-1] * edges[1:]))
        slopes.append(float(np.polyfit(middles, np.log(np.maximum(rings, 1e-12)), 1)[0]))
    fine = power[(radius > _FINEST) & (radius < 0.5)].sum() / power.sum()
    return slopes[0], slopes[1], float(np.log10(max(fine, 1e-12)))


def _correlation_length(image: Image) -> float:
    """Return the distance in pixels at which the autocorrelation has fallen to a half."""
    power = np.abs(np.fft.fft2(image - image.mean())) ** 2
    correlation = np.fft.ifft2(power).real
    half = min(image.shape) // 2
    line = (correlation[0, :half] + correlation[:half, 0]) / 2
    line = line / line[0]
    below = int(np.argmax(line < 0.5)) or len(line) - 1
    return float(below - 1 + (line[below - 1] - 0.5) / max(line[below - 1] - line[below], 1e-6))


def _order(image: Image) -> tuple[float, float]:
    """Return how strongly the gradient has one direction within 8 pixels, and in the whole image.

    Both 0 to 1.
    """
    smooth = gaussian_filter(image, 1.5)
    dy, dx = sobel(smooth, 0), sobel(smooth, 1)
    twice = (dx + 1j * dy) ** 2
    here = np.hypot(*(gaussian_filter(part, 4) for part in (twice.real, twice.imag)))
    energy = np.abs(twice)
    return float(here.sum() / max(energy.sum(), 1e-9)), float(
        abs(twice.sum()) / max(energy.sum(), 1e-9)
    )


def _runs(bright: NDArray[np.bool_], pixel_size_nm: float) -> tuple[float, float, float]:
    """Return mean distance from dark pixels to the next bright one, and mean lengths of bright and
    dark runs, in nm.
    """
    mesh = float(distance_transform_edt(~bright)[~bright].mean()) if (~bright).any() else 0.0
    lengths = []
    for mask in (bright, ~bright):
        starts = sum(int(np.count_nonzero(mask & ~np.roll(mask, 1, axis))) for axis in (0, 1))
        lengths.append(2 * int(mask.sum()) / max(starts, 1))
    return mesh * pixel_size_nm, lengths[0] * pixel_size_nm, lengths[1] * pixel_size_nm


def _line_likeness(image: Image) -> float:
    """Return the mean anisotropy of bright ridges: 1 for lines, 0 for round spots."""
    yy, xx, yx = (gaussian_filter(image, 2, order=order) for order in ((2, 0), (0, 2), (1, 1)))
    middle, apart = (yy + xx) / 2, np.hypot((yy - xx) / 2, yx)
    large, ridge = middle + apart, np.maximum(apart - middle, 0)
    return float(
        np.sum(ridge * (1 - np.clip(-large / np.maximum(ridge, 1e-9), 0, 1)))
        / max(float(ridge.sum()), 1e-9)
    )


def _maxima(image: Image) -> float:
    """Return how many local maxima a pixel there are, above a fifth of the bright parts."""
    smooth = gaussian_filter(image, 1.5)
    return float(np.mean((smooth == maximum_filter(smooth, 7)) & (smooth > 0.2)))
