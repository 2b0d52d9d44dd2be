"""How alike two pictures are, after the papers' preparation.

PCC, SSIM and NRMSE, for a running run and for an evaluation.

Owns the formulas; what is made of them is said in `livesr.evaluation.metrics`. Knows no engine and
no frame.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Image = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]

PERCENTILES = (0.1, 99.9)
"""The IMC-SR paper prints 0.1 and 0.99.

A percentile of 0.99 would be background, so it is read as 99.9.
"""

_SSIM_SIGMA_PX = 1.5
_SSIM_RADIUS_PX = 5  # 11 x 11 pixels


def percentile_normalised(image: Image) -> Doubles | None:
    """Return `image` with its `PERCENTILES` at 0 and 1, float64 and not clipped.

    None for an image without contrast.

    Where fewer pixels than the percentiles leave out carry all the contrast, its extremes take
    their place.
    """
    low, high = np.percentile(image, PERCENTILES)
    if not high > low:
        low, high = float(image.min()), float(image.max())
    if not high > low:
        return None
    scaled: Doubles = (np.asarray(image, np.float64) - low) / (high - low)
    return scaled


def linear_fit(prediction: Image, truth: Image) -> Doubles:
    """Return a * prediction + b, float64, with a and b such that the squared error to `truth` is
    least.
    """
    centred, t = _centred(prediction), np.asarray(truth, np.float64)
    power = float(np.vdot(centred, centred))
    slope = float(np.vdot(centred, t - t.mean())) / power if power > 0 else 0.0
    fitted: Doubles = slope * centred + t.mean()
    return fitted


def pcc(a: Image, b: Image) -> float:
    """Pearson's correlation coefficient of two images; 0 if one has no contrast."""
    x, y = _centred(a), _centred(b)
    power = math.sqrt(float(np.vdot(x, x)) * float(np.vdot(y, y)))
    return float(np.clip(np.vdot(x, y) / power, -1, 1)) if power > 0 else 0.0


def ssim(
    a: Image, b: Image, data_range: float = 1.0, constants: tuple[float, float] | None = None
) -> float:
    """Mean structural similarity (Wang et al. 2004, IEEE Transactions on Image Processing 13, 600,
    equation 13).

    Gaussian window of 11 x 11 pixels with sigma 1.5, C1 = (0.01 L)^2, C2 = (0.03 L)^2 with L =
    `data_range`; the mean leaves out the outer 5 pixels, whose windows reach beyond the image.
    Equals scikit-image's
    ``structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)``.
    `constants` are C1 and C2 themselves, instead.

    Raises
    ------
    ValueError
        If the images are smaller than the window.
    """
    if min(a.shape) <= 2 * _SSIM_RADIUS_PX:
        raise ValueError(
            f"images are {a.shape}; SSIM needs at least {2 * _SSIM_RADIUS_PX + 1} pixels on each"
            " side"
        )
    luminance, structure = similarity_maps(
        a, b, constants or ((0.01 * data_range) ** 2, (0.03 * data_range) ** 2)
    )
    return float((luminance * structure).mean())


def nrmse(prediction: Image, truth: Image) -> float:
    """Root mean squared error over the truth's range: 1, that of its percentiles once prepared."""
    error = np.asarray(prediction, np.float64) - np.asarray(truth, np.float64)
    return math.sqrt(float(np.vdot(error, error)) / error.size)


def similarity_maps(a: Image, b: Image, constants: tuple[float, float]) -> tuple[Doubles, Doubles]:
    """Return luminance, and contrast with structure, of each window that lies inside the image."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    c1, c2 = constants
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    variances = _window_mean(x * x) - mean_x * mean_x + _window_mean(y * y) - mean_y * mean_y
    covariance = _window_mean(x * y) - mean_x * mean_y
    inner = (slice(_SSIM_RADIUS_PX, -_SSIM_RADIUS_PX),) * 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
    structure = (2 * covariance + c2) / (variances + c2)
    return luminance[inner], structure[inner]


def _centred(image: Image) -> Doubles:
    """Return an image less its mean, exactly 0 of an even one: its mean may differ by rounding."""
    x = np.asarray(image, np.float64)
    x = x - x[(0,) * x.ndim]
    centred: Doubles = x - x.mean()
    return centred


def _window_mean(image: Doubles) -> Doubles:
    mean: Doubles = gaussian_filter(image, _SSIM_SIGMA_PX, radius=_SSIM_RADIUS_PX)
    return mean
