"""Offset and gain of the camera, from frames that show blinking emitters.

Owns the measurement, from noise alone, and how it is compared with what rig.yaml says. Knows no
run and no stream.

An objective passes no detail finer than its resolution. What is finer in a frame is noise, and the
noise of light grows with the light: variance against level is a line. Its slope is the gain, and
where it crosses zero is the offset, or lies below it where the camera has read noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, gaussian_filter, maximum_filter

from livesr.modalities.storm.localise import PhotonScale

Floats = NDArray[np.floating[Any]]

_KERNEL = np.array([1.0, -4.0, 6.0, -4.0, 1.0])  # passes 2 % of a spot as wide as 0.85 pixel
_EDGE = 4
_MIN_FRAMES, _MIN_PIXELS = 10, 50_000
_MIN_SIGMA_PX = 0.75  # below, spots are finer than what the kernel takes for noise
_BLUR_PX = 1.2
_QUANTILES = (0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 1)
_ROUNDS = 2
_PASSED_SHARE = 0.1  # of the noise of a spot's light, that the kernel may take of the spot itself
_CLEAR = 8.0  # times the smooth background's noise, below which no frame is chosen by its noise
_CERTAIN = 5.0  # standard deviations
_MAX_SLOPE_ERROR = 0.1
_GAIN_FACTOR = 1.6  # what an EM gain may have lost of what rig.yaml says
_MIN_OFFSET_ADU = 3.0
_OFFSET_SHARE = 0.35  # of the background's light
_UNKNOWN_READ_E = 3.0  # read noise of a camera of which rig.yaml does not say it

ADVICE = (
    "Give frames as the camera takes them, without a subtraction of background, and measure"
    " camera.offset_adu and gain_e_per_adu with 'livesr characterise'"
)


@dataclass(frozen=True, slots=True)
class Levels:
    """What frames say of the camera that took them.

    Attributes
    ----------
    background_adu : level of the darkest quarter of what was seen
    slope, slope_error : ADU by which the variance grows with every ADU of light
    zero_adu, zero_error : level at which there would be no noise: the offset, less the variance of
        the read noise over the slope
    """

    background_adu: float
    slope: float
    slope_error: float
    zero_adu: float
    zero_error: float


def measure_levels(frames: Sequence[NDArray[Any]], sigma_px: float) -> Levels | None:
    """Measure the levels of the camera that took `frames`.

    Parameters
    ----------
    frames : in order of time, (y, x) each, ADU, as the camera gave them
    sigma_px : width of an emitter's image

    Returns
    -------
    None where frames are too few or too small, or spots too narrow, to tell noise from light.

    Notes
    -----
    Variance beyond the objective's cut-off, of pixels sorted by the frames before and after, whose
    noise is another: Heintzmann et al. 2018, arXiv:1611.05654, for many frames.
    """
    lit = [frame for frame in frames if frame.min() != frame.max()]
    if len(lit) < _MIN_FRAMES or sigma_px < _MIN_SIGMA_PX:
        return None
    film = np.asarray(lit, np.float32)
    if film[:, _EDGE:-_EDGE, _EDGE:-_EDGE].size < _MIN_PIXELS or not np.isfinite(film).all():
        return None
    found = _line(*_binned(film))
    for _ in range(_ROUNDS):
        if found is None:
            break
        found = _line(*_binned(film, found.slope * _faint(sigma_px)))
    return found


def _faint(sigma_px: float) -> float:
    """Return how bright a spot may be in the smooth frame so that what the kernel passes of it is
    little beside its noise, over the slope.
    """
    around = np.arange(-8, 9)
    line = np.exp(-0.5 * (around / sigma_px) ** 2)
    line /= line.sum()
    passed = (correlate1d(line, _KERNEL) ** 2).sum() ** 2 / float(_KERNEL @ _KERNEL) ** 2
    peak = 1 / (2 * math.pi * (sigma_px**2 + _BLUR_PX**2))
    return float(_PASSED_SHARE / passed * peak)


def _binned(
    film: NDArray[np.float32], brightest: float = math.inf
) -> tuple[Floats, Floats, Floats]:
    """Return mean level, variance and its error of pixels that are about as bright.

    Without those beside spots that stand out of the smooth frames by more than `brightest` ADU.
    """
    energy = float(_KERNEL @ _KERNEL)
    fine = _along_both(film, _KERNEL) / energy
    fine -= fine.mean(axis=0)  # what stands still is the chip's pattern, or the specimen
    variance = fine**2 * np.float32(len(film) / (len(film) - 1))
    level = _along_both(film, _KERNEL**2) / energy**2
    smooth = gaussian_filter(film, (0, _BLUR_PX, _BLUR_PX))
    inner = (slice(1, -1), slice(_EDGE, -_EDGE), slice(_EDGE, -_EDGE))
    around = (smooth[:-2] + smooth[2:]) / 2
    expected: Floats = around[:, _EDGE:-_EDGE, _EDGE:-_EDGE].ravel()
    level, variance = level[inner].ravel(), variance[inner].ravel()
    if math.isfinite(brightest):
        kept = _beside_faint(smooth, brightest)[inner].ravel()
        if kept.sum() < _MIN_PIXELS / 2:
            return np.zeros(1), np.zeros(1), np.ones(1)
        expected, level, variance = expected[kept], level[kept], variance[kept]
    edges = np.quantile(expected, _QUANTILES)
    bins = np.clip(np.searchsorted(edges, expected, side="right") - 1, 0, len(edges) - 2)
    n = np.bincount(bins, minlength=len(edges) - 1)
    sums = [np.bincount(bins, a, len(n)) for a in (level, variance, variance.astype(float) ** 2)]
    levels, variances, squares = (total[n > 0] / n[n > 0] for total in sums)
    # Neighbours share pixels: about four of them are one sample.
    error = 2 * np.sqrt(np.maximum(squares - variances**2, 1e-12) / n[n > 0])
    return levels, variances, error


def _beside_faint(smooth: NDArray[np.float32], brightest: float) -> NDArray[np.bool_]:
    """Return which pixels have no bright spot near; noise alone is none."""
    level = np.median(smooth)
    noise = 1.4826 * np.median(np.abs(smooth - level))
    reach = (1, 2 * _EDGE + 1, 2 * _EDGE + 1)
    highest = maximum_filter(smooth, reach)
    return np.asarray(highest < level + max(brightest, _CLEAR * noise))


def _line(levels: Floats, variances: Floats, errors: Floats) -> Levels | None:
    """Fit variance = slope (level - zero)."""
    if np.ptp(levels) <= 0:
        return None
    above = (levels - levels[0]) / np.ptp(levels)
    fit, covariance = _polynomial(above, variances, errors, 2)
    # Very bright spots leave light in what is taken for noise, as the square of it: a bend.
    if fit[2] < _CERTAIN * math.sqrt(covariance[2, 2]):
        fit, covariance = _polynomial(above, variances, errors, 1)
    constant, slope = fit[:2]
    if slope <= 0:
        return None
    by = np.array([-1 / slope, constant / slope**2])
    unit = float(np.ptp(levels))
    return Levels(
        float(levels[0]),
        float(slope) / unit,
        float(math.sqrt(covariance[1, 1])) / unit,
        float(levels[0] - unit * constant / slope),
        unit * float(math.sqrt(by @ covariance[:2, :2] @ by)),
    )


def _polynomial(x: Floats, y: Floats, errors: Floats, degree: int) -> tuple[Floats, Floats]:
    """Return coefficients, the constant first, and their covariance."""
    design = x[:, None] ** np.arange(degree + 1) / errors[:, None]
    covariance = np.linalg.pinv(design.T @ design)
    return covariance @ design.T @ (y / errors), covariance


def _along_both(film: NDArray[np.float32], kernel: Floats) -> NDArray[np.float32]:
    return np.asarray(correlate1d(correlate1d(film, kernel, 1), kernel, 2), np.float32)


# -- compared with rig.yaml ------------------------------------------------------------------------


def misfits(levels: Levels, scale: PhotonScale) -> Iterator[str]:
    """Yield what of `scale`, the camera of rig.yaml, does not go with what frames say."""
    if levels.background_adu < scale.offset_adu - _MIN_OFFSET_ADU:
        yield (
            f"the background of its frames is {levels.background_adu:.0f} ADU, less than the"
            f" {scale.offset_adu:g} of a dark frame that rig.yaml gives (camera.offset_adu):"
            f" emitters are missed, and their photons are too few. {ADVICE}"
        )
        return
    if levels.slope_error > _MAX_SLOPE_ERROR * levels.slope:
        return
    factor = levels.slope * scale.photons_per_adu / scale.excess
    if not 1 / _GAIN_FACTOR < factor < _GAIN_FACTOR:
        yield (
            f"the noise of its frames grows {factor:.2g} times as fast with their light as rig.yaml"
            f" says (camera.gain_e_per_adu, em_gain): photons are wrong by about that factor, and"
            f" so are uncertainties. {ADVICE}"
        )
        return
    yield from _offset(levels, scale)


def _offset(levels: Levels, scale: PhotonScale) -> Iterator[str]:
    """Yield that the offset is not what the noise of the background says."""
    read_e2 = max(scale.read_variance, _UNKNOWN_READ_E**2 if scale.excess == 1 else 0.0)
    least, most = levels.zero_adu, levels.zero_adu + read_e2 / scale.photons_per_adu / scale.excess
    light = max(levels.background_adu - (least + most) / 2, 0.0)
    allowed = max(_MIN_OFFSET_ADU, _OFFSET_SHARE * light, _CERTAIN * levels.zero_error)
    if least - allowed <= scale.offset_adu <= most + allowed:
        return
    says = f"rig.yaml gives {scale.offset_adu:g} (camera.offset_adu)"
    if most + allowed < 0:
        yield (
            "the noise of its background is that of more light than there is: a background was"
            f" subtracted. Photons and uncertainties are wrong, and noise is taken for emitters."
            f" {ADVICE}"
        )
        return
    too = "low"
    if scale.offset_adu > most:
        read_adu = math.sqrt(levels.slope * (scale.offset_adu - least))
        too = f"high, or a read noise of about {read_adu:.0f} ADU is missing (camera.read_noise_e)"
    yield (
        "the noise of its background is that of a camera whose dark frames have about"
        f" {(least + most) / 2:.0f} ADU, {says}: that is too {too}. Background, photons and"
        f" uncertainties are wrong. {ADVICE}"
    )
