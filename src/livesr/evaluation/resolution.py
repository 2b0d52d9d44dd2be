"""How fine an image is, without a truth: Fourier ring correlation and decorrelation analysis.

Owns the two estimates. Both say down to which distance there is more signal than noise, not whether
the signal is right: a network that draws sharp lines everywhere scores well. Read them beside PCC
and SSIM.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Image = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]

FRC_THRESHOLD = 1 / 7

_EDGE = 1 / 8  # of each side that fades to the mean
_RINGS_AVERAGED = 3
_RADII = 50
_FILTERS = 10
_MIN_DECORRELATION = 0.05  # a lower peak is noise
_MIN_DROP = 5e-4  # after a peak, or it is none


def fourier_ring_correlation(a: Image, b: Image) -> tuple[Doubles, Doubles]:
    """Correlate two images of the same scene with independent noise, ring by ring (Saxton and
    Baumeister 1982).

    Parameters
    ----------
    a, b : (y, x) of one shape; edges fade to the mean inside

    Returns
    -------
    frequency, correlation
        In cycles/pixel, up to Nyquist, and the correlation of each ring.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(
            f"the images are {a.shape} and {b.shape}; both must be (y, x) of one shape"
        )
    first, second = (np.fft.fft2(_faded(image)) for image in (a, b))
    radius = _radius(a.shape)
    side = min(a.shape)
    ring = np.rint(radius * side).astype(int).ravel()
    rings = side // 2 + 1
    cross, power_a, power_b = (
        np.bincount(ring, weights=values.ravel(), minlength=rings)[:rings]
        for values in ((first * second.conj()).real, np.abs(first) ** 2, np.abs(second) ** 2)
    )
    norm = np.sqrt(power_a * power_b)
    return np.arange(rings) / side, np.divide(cross, norm, out=np.zeros(rings), where=norm > 0)


def frc_resolution(a: Image, b: Image, pixel_size: float) -> float:
    """Return the distance at which the rings' correlation falls below 1/7, in the unit of
    `pixel_size`.

    Two pixels if it never does; NaN if it begins below. Three rings are averaged first.
    """
    frequency, correlation = fourier_ring_correlation(a, b)
    kernel = np.ones(_RINGS_AVERAGED) / _RINGS_AVERAGED
    smooth = np.convolve(
        np.pad(correlation[1:], _RINGS_AVERAGED // 2, mode="edge"), kernel, "valid"
    )
    below = np.flatnonzero(smooth < FRC_THRESHOLD)
    if not below.size:
        return 2 * pixel_size
    return pixel_size / float(frequency[1:][below[0]]) if below[0] > 0 else math.nan


def decorrelation_resolution(image: Image, pixel_size: float) -> float:
    """Return the resolution of one image by decorrelation analysis (Descloux et al. 2019, Nature
    Methods 16, 918).

    The image is correlated with its phases alone inside growing discs of frequencies; the radius of
    best correlation, the largest over ten high-pass filters, is the cutoff. In the unit of
    `pixel_size`; NaN if nothing stands out.
    """
    faded = _faded(image)
    radius = 2 * _radius(image.shape)  # of Nyquist
    first, strength = _peak(faded, radius)
    strongest = 2 / first if first > 0 else max(image.shape) / 2
    sigmas = np.geomspace(max(strongest, 0.3), 0.15, _FILTERS)
    cutoffs = [first] if strength > _MIN_DECORRELATION else []
    for sigma in (min(image.shape) / 4, *sigmas):
        found, strength = _peak(faded - gaussian_filter(faded, sigma), radius)
        if strength > _MIN_DECORRELATION:
            cutoffs.append(found)
    best = max(cutoffs, default=0.0)
    return 2 * pixel_size / best if best > 0 else math.nan


def _peak(image: Doubles, radius: Doubles) -> tuple[float, float]:
    """Radius, relative to Nyquist, and height of the last real peak of the decorrelation curve."""
    inside = radius <= 1
    r, spectrum = radius[inside], np.fft.fft2(image)[inside]
    amplitude = np.abs(spectrum)
    edges = np.linspace(0, 1, _RADII + 1)
    shell = np.clip(np.digitize(r, edges) - 1, 0, _RADII - 1)
    # Correlating with the phases alone leaves the amplitudes; the phases' own power is their
    # number.
    number = np.cumsum(np.bincount(shell, weights=(amplitude > 0).astype(float), minlength=_RADII))
    summed = np.cumsum(np.bincount(shell, weights=amplitude, minlength=_RADII))
    power = float((amplitude**2).sum())
    curve = summed / np.sqrt(np.maximum(power * number, 1e-300))
    while len(curve) > 1:
        top = int(np.argmax(curve))
        if top < len(curve) - 1 and (top == 0 or curve[top] - curve[top:].min() >= _MIN_DROP):
            return (float(edges[top + 1]), float(curve[top])) if top else (0.0, 0.0)
        curve = curve[:-1]
    return 0.0, 0.0


def _faded(image: Image) -> Doubles:
    """Subtract the mean and let the edges fade out, so that the jump at the edge is no
    structure.
    """
    x = np.asarray(image, np.float64)
    x = x - x[0, 0]  # an even image is exactly 0, as its mean may differ from it by rounding
    windows = [_cosine_edges(n) for n in x.shape]
    faded: Doubles = (x - x.mean()) * windows[0][:, None] * windows[1]
    return faded


def _cosine_edges(n: int) -> Doubles:
    ramp = max(int(n * _EDGE), 1)
    window = np.ones(n)
    window[:ramp] = 0.5 - 0.5 * np.cos(np.pi * (np.arange(ramp) + 0.5) / ramp)
    window[-ramp:] = window[:ramp][::-1]
    return window


def _radius(shape: tuple[int, ...]) -> Doubles:
    """Frequency of every coefficient in cycles/pixel."""
    y, x = (np.fft.fftfreq(n) for n in shape)
    radius: Doubles = np.hypot(y[:, None], x)
    return radius
