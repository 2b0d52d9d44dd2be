"""Where a band of structured illumination sits.

Correlation of one band with another over all shifts of the spectrum.

Owns whitening, the search for the peak and its refinement below one frequency step. Pure functions;
axes (t, y, x), frequencies in cycles/um. Knows nothing of angles, phases or rigs.

Band +1 of a pattern with vector k is the object's spectrum moved by k. The transform of conj(band
0) x band +1 in real space is therefore their correlation over all shifts and has its peak at k
(Gustafsson 2000; fairSIM, Mueller et al. 2016). A plain correlation is dominated by the few
strongest frequencies; here every frequency counts by how much of it is signal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from livesr.optics.otf import radial_frequency

Complex = NDArray[np.complex64]
Float = NDArray[np.float32]

_LEVELS = 12
_NEAR = 4  # frequency steps
_PAD = 2  # zero padding: the coarse search then samples the peak twice per frequency step
_ZOOMS = (0.25, 0.06, 0.015, 0.004)  # of a frequency step, finer and finer
_ZOOM_REACH = 4


@dataclass(frozen=True, slots=True)
class Peak:
    """Where a correlation is largest.

    Attributes
    ----------
    k_um : (ky, kx) in cycles/um
    height : root of (power above the median / standard deviation of the power) around it. The
        amplitude over noise for one time point, where pure noise reaches about 3.5 somewhere; grows
        with the fourth root of the number that is pooled.
    """

    k_um: tuple[float, float]
    height: float


def whitened(band: NDArray[np.generic], pixel_size_um: float, cutoff_um: float) -> Complex:
    """Return `band` (t, y, x) in real space with every frequency scaled to its share of signal.

    Around every radius the mean power P over directions and time points is signal S plus noise N; N
    is read off at the edge of the optics' support, where little light comes through. The filter
    sqrt(S) / P is 1 / sqrt(P) where the signal is strong and goes to 0 where there is none, so that
    noise neither hides the peak nor makes one.
    """
    spectrum = np.asarray(scipy.fft.fft2(band.astype(np.complex64, copy=False)), np.complex64)
    power = radial_power(spectrum, pixel_size_um, cutoff_um)
    noise = power[int(0.92 * len(power)) :].min()
    gain = np.sqrt(np.maximum(power - noise, 0)) / power
    spectrum *= on_grid(gain, spectrum.shape[-2:], pixel_size_um, cutoff_um)
    return np.asarray(scipy.fft.ifft2(spectrum, overwrite_x=True), np.complex64)


def radial_power(spectrum: Complex, pixel_size_um: float, cutoff_um: float) -> NDArray[np.float64]:
    """Mean power of (t, y, x) around every radius up to the cutoff, smoothed over three rings;
    never 0.
    """
    ring, rings = _rings(spectrum.shape[-2:], pixel_size_um, cutoff_um)
    power = np.mean(np.abs(spectrum) ** 2, axis=0, dtype=np.float64)
    total = np.bincount(ring.ravel(), power.ravel(), rings + 1)[:rings]
    mean = total / np.maximum(np.bincount(ring.ravel(), minlength=rings + 1)[:rings], 1)
    smooth = np.convolve(np.pad(mean, 1, mode="edge"), np.full(3, 1 / 3), "valid")
    return np.asarray(np.maximum(smooth, 1e-12 * max(smooth.max(), 1e-30)), np.float64)


def on_grid(
    profile: NDArray[np.float64], shape: tuple[int, int], pixel_size_um: float, cutoff_um: float
) -> NDArray[np.float32]:
    """Spread a radial profile over the Fourier grid (y, x); 0 beyond the cutoff."""
    ring, rings = _rings(shape, pixel_size_um, cutoff_um)
    return np.append(profile[:rings], 0.0).astype(np.float32)[ring]


@lru_cache(maxsize=2)
def _rings(
    shape: tuple[int, int], pixel_size_um: float, cutoff_um: float
) -> tuple[NDArray[np.intp], int]:
    """Return the ring number of every frequency, only to be read.

    The number of rings itself stands for all beyond the cutoff.
    """
    rings = max(int(cutoff_um * pixel_size_um * min(shape)), 8)
    ring = (radial_frequency(shape, pixel_size_um) * (rings / cutoff_um)).astype(np.intp)
    np.minimum(ring, rings, out=ring).flags.writeable = False
    return ring, rings


def correlate(zero: Complex, one: Complex) -> Float:
    """Power of the correlation of two whitened bands (t, y, x), pooled over t; (2y, 2x), FFT order.

    Powers are added, not amplitudes: the pattern's phase may differ from one time point to the
    next.
    """
    shape = _PAD * zero.shape[1], _PAD * zero.shape[2]
    power = np.zeros(shape, np.float32)
    for a, b in zip(zero, one, strict=True):
        spectrum = scipy.fft.fft2(np.conj(a) * b, shape)
        power += spectrum.real**2 + spectrum.imag**2
    return power


def find_peak(
    power: Float,
    pixel_size_um: float,
    annulus_um: tuple[float, float],
    *,
    exclude: Sequence[tuple[float, float]] = (),
    near: tuple[float, float] | None = None,
) -> Peak:
    """Return the largest value of `power` (as `correlate` gives it) at a radius inside
    `annulus_um`.

    `exclude` are vectors around which, and around whose opposites, nothing is looked for; with
    `near`, only its neighbourhood of four frequency steps is searched.
    """
    radius = radial_frequency(power.shape[-2:], pixel_size_um)
    inside = (radius >= annulus_um[0]) & (radius <= annulus_um[1])
    power = _levelled(power, radius, inside, annulus_um)
    low, high = (float(q) for q in np.percentile(power[inside], (16, 84)))
    spread = (
        high - low
    ) / 1.66  # the standard deviation, if the power is exponentially distributed: one time point
    for ky, kx in exclude:
        for sign in (1, -1):
            inside &= (
                radial_frequency(power.shape, pixel_size_um, (sign * ky, sign * kx))
                > 0.15 * annulus_um[1]
            )
    if near is not None:
        reach = _NEAR * _PAD / (min(power.shape) * pixel_size_um)
        inside = radial_frequency(power.shape, pixel_size_um, (-near[0], -near[1])) <= reach
    place = np.unravel_index(np.argmax(np.where(inside, power, -1)), power.shape)
    k = tuple(
        float(np.fft.fftfreq(n, pixel_size_um)[i]) for n, i in zip(power.shape, place, strict=True)
    )
    return Peak((k[0], k[1]), float(np.sqrt(max(power[place] - 1, 0) / max(spread, 1e-30))))


def _levelled(
    power: Float,
    radius: NDArray[np.float64],
    inside: NDArray[np.bool_],
    annulus_um: tuple[float, float],
) -> Float:
    """Divide by the median at every radius.

    How far two bands overlap, and with it the background, falls outwards.
    """
    edges = np.linspace(*annulus_um, _LEVELS + 1)
    ring = np.clip(np.digitize(radius, edges) - 1, 0, _LEVELS - 1)
    medians = [
        np.median(members) if (members := power[inside & (ring == i)]).size else 1.0
        for i in range(_LEVELS)
    ]
    return np.asarray(power / np.maximum(medians, 1e-30)[ring], np.float32)


def at(
    zero: Complex,
    one: Complex,
    ky_um: NDArray[np.float64],
    kx_um: NDArray[np.float64],
    pixel_size_um: float,
) -> Complex:
    """Return the correlation (t, ky, kx) of two whitened bands at any vectors.

    A transform of few frequencies.
    """
    y, x = (np.arange(n) * pixel_size_um for n in zero.shape[1:])
    rows = np.exp(-2j * np.pi * np.outer(ky_um, y)).astype(np.complex64)
    columns = np.exp(-2j * np.pi * np.outer(x, kx_um)).astype(np.complex64)
    return np.stack([rows @ (np.conj(a) * b) @ columns for a, b in zip(zero, one, strict=True)])


def refine(
    zero: Complex, one: Complex, k_um: tuple[float, float], pixel_size_um: float
) -> tuple[float, float]:
    """Return the vector near `k_um` at which the correlation, pooled over t, is largest.

    To 1/250 of a frequency step.
    """
    step = [1 / (n * pixel_size_um) for n in zero.shape[1:]]
    for zoom in _ZOOMS:
        ky, kx = (
            k + zoom * s * np.arange(-_ZOOM_REACH, _ZOOM_REACH + 1)
            for k, s in zip(k_um, step, strict=True)
        )
        power = np.sum(np.abs(at(zero, one, ky, kx, pixel_size_um)) ** 2, axis=0)
        i, j = np.unravel_index(np.argmax(power), power.shape)
        k_um = float(ky[i]), float(kx[j])
    return k_um
