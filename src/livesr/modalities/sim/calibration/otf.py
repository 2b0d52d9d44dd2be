"""How much faster than the ideal one the microscope's OTF falls.

From the bands of a SIM stack, or from beads.

Owns the estimation of `damping` (see `livesr.optics.otf.otf`). Pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.fft
import scipy.special
from numpy.typing import NDArray

from livesr.base.errors import CalibrationError
from livesr.modalities.sim.calibration.correlation import radial_power
from livesr.modalities.sim.calibration.groups import Optics, conditioned, directions
from livesr.modalities.sim.calibration.patterns import Overlap, noise_power
from livesr.optics.illumination import Pattern
from livesr.optics.otf import otf_profile

MIN_DAMPING = 0.1
_BINS = 16
_REACH = 0.6  # of the cutoff
_MIN_IN_BIN = 50
_BEAD_RANGE = (0.15, 0.75)  # of the cutoff: below sit clusters and haze, above noise


@dataclass(frozen=True, slots=True)
class Damping:
    """Attributes: the value at the cutoff, between `MIN_DAMPING` and 1, and the standard error of
    its logarithm.
    """

    value: float
    log_error: float


def damping_from_bands(
    raw: NDArray[Any],
    optics: Optics,
    order: Sequence[tuple[int, int]],
    patterns: Sequence[Pattern],
    steps_rad: NDArray[np.float64],
    *,
    offset_adu: float = 100.0,
    lattice: bool = False,
) -> Damping:
    """Estimate the damping from how differently two bands of one angle show the same frequencies of
    the object.

    A frequency q is seen by band 0 through H(q) and by a band moved by k through H(q + k); the
    object cancels in their ratio. With H = ideal x damping^(|q| / cutoff), ratio / ideal ratio =
    m/2 damping^((|q + k| - |q|) / cutoff): the slope of its logarithm is the logarithm of the
    damping, whatever the modulation. No beads are needed.

    Parameters are those of `livesr.modalities.sim.calibration.patterns.estimate`; `patterns` as it
    finds them, at the frames' own origin.

    Raises
    ------
    CalibrationError
        If too few frequencies stand above the noise.
    """
    frames = conditioned(raw, offset_adu)
    ideal = replace(optics, damping=1.0)
    rows: list[tuple[float, float, int, int]] = []  # outwards, log ratio, weight, wave
    harmonics = len(patterns) if lattice else len(patterns[0].waves)
    every = directions(frames, order, steps_rad, harmonics, lattice)
    for pattern, (zero, higher) in zip(patterns, every, strict=True):
        for band, wave in zip(higher, pattern.waves, strict=True):
            overlap = Overlap.of(zero.shape[1:], wave.k_um, ideal)
            ratio, counts = _binned_ratio(zero, band, overlap, ideal)
            number = rows[-1][3] + 1 if rows else 0
            centres = (np.arange(_BINS) + 0.5) * (2 * _REACH / _BINS) - _REACH
            rows += [
                (c, np.log(r), n, number)
                for c, r, n in zip(centres, ratio, counts, strict=True)
                if r > 0
            ]
    return _fit(rows)


def _binned_ratio(
    zero: NDArray[np.float32], band: NDArray[np.complex64], overlap: Overlap, ideal: Optics
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Ratio of band to band 0 over the ideal ratio, by how much further out the band was recorded.

    0 where unknown.
    """
    spectra = scipy.fft.fft2(zero)
    noise = noise_power(spectra, ideal)
    above, below = np.zeros(len(overlap.here)), np.zeros(len(overlap.here))
    for spectrum, values in zip(spectra, band, strict=True):
        u, v = spectrum[overlap.place], overlap.moved_back(values)
        product = np.conj(u) * v
        above += (product * np.exp(-1j * np.angle(product.sum()))).real * overlap.here
        below += (np.abs(u) ** 2 - noise) * overlap.there
    bins = np.floor((overlap.outwards + _REACH) * (_BINS / (2 * _REACH))).astype(int)
    inside = (bins >= 0) & (bins < _BINS)
    counts = np.bincount(bins[inside], minlength=_BINS)
    top, bottom = (np.bincount(bins[inside], values[inside], _BINS) for values in (above, below))
    known = (counts >= _MIN_IN_BIN) & (top > 0) & (bottom > 0)
    return np.where(known, 2 * top / np.where(known, bottom, 1), 0), counts


def _fit(rows: Sequence[tuple[float, float, int, int]]) -> Damping:
    """Fit one slope to the logarithms, and an offset per wave."""
    waves = rows[-1][3] + 1 if rows else 1
    if len(rows) < 4 * waves:
        raise CalibrationError(
            f"Only {len(rows)} of {_BINS * waves} parts of the overlap stand above the noise: the"
            " OTF cannot be estimated. Give more time points or light, or set optics.damping in"
            " rig.yaml."
        )
    outwards, logs, counts, wave = (np.array(column) for column in zip(*rows, strict=True))
    weight = np.sqrt(counts)
    model = np.column_stack([outwards, wave[:, None] == np.arange(waves)]).astype(np.float64)
    solution, *_ = np.linalg.lstsq(model * weight[:, None], logs * weight, rcond=None)
    rest = (logs - model @ solution) * weight
    variance = float(rest @ rest) / max(len(rows) - waves - 1, 1)
    inverse = np.linalg.inv((model * weight[:, None]).T @ (model * weight[:, None]))
    return Damping(
        float(np.clip(np.exp(solution[0]), MIN_DAMPING, 1.0)),
        float(np.sqrt(variance * inverse[0, 0])),
    )


def damping_from_beads(
    picture: NDArray[np.floating], optics: Optics, bead_um: float = 0.0
) -> Damping:
    """Estimate the damping from a widefield picture of many beads (y, x), ADU above the offset.

    Beads at random places have a flat spectrum, but for their size, so that the picture's spectrum
    is the OTF. The sphere's own spectrum is divided out.

    Raises
    ------
    CalibrationError
        If the beads are so large that their own spectrum has a zero inside the range that is
        fitted.
    """
    if bead_um * optics.cutoff_um * _BEAD_RANGE[1] > 1.0:
        raise CalibrationError(
            f"Beads of {1e3 * bead_um:.0f} nm are too large to show the OTF: use beads below"
            f" {1e3 / optics.cutoff_um:.0f} nm."
        )
    frames = conditioned((picture - min(picture.min(), 0))[None, None].astype(np.float32), 0.0)
    power = radial_power(scipy.fft.fft2(frames[:, 0]), optics.pixel_size_um, optics.cutoff_um)
    radius = (np.arange(len(power)) + 0.5) / len(power)
    signal = power - power[int(0.92 * len(power)) :].min()
    use = (radius > _BEAD_RANGE[0]) & (radius < _BEAD_RANGE[1]) & (signal > 0)
    expected = otf_profile(radius) * _sphere(radius * optics.cutoff_um, bead_um)
    logs = 0.5 * np.log(signal[use]) - np.log(expected[use])
    rings = radius[use] * len(power)
    return _fit(
        [(float(r), float(v), int(n), 0) for r, v, n in zip(radius[use], logs, rings, strict=True)]
    )


def _sphere(k_um: NDArray[np.float64], diameter_um: float) -> NDArray[np.float64]:
    """Spectrum of a ball's projection, 1 at zero: 3 j1(x) / x with x = pi d k."""
    x = np.maximum(np.pi * diameter_um * k_um, 1e-6)
    return np.asarray(3 * scipy.special.spherical_jn(1, x) / x, np.float64)
