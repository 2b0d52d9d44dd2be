"""Where a picture of high resolution contradicts the widefield picture of the same light.

Owns the comparison of two pictures: the fit of what separates them, the map and its two numbers.
Knows no channel, no run and no network.

A picture that is blurred by the right amount, scaled and offset must be the widefield picture of
the same exposures: what is left over is an artefact, or a structure that was lost (SQUIRREL, Culley
et al. 2018, Nature Methods 15, 263). The blur is a Gaussian, the resolution scaling function (RSF).

In the cosine transform the blur is a product and the least squared error follows from two sums
(Parseval), so that the width is found without blurring anything: for each width the best scale and
offset are known, and the error is least where the correlation is largest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn, idctn
from scipy.optimize import minimize_scalar

Image = NDArray[np.float32]

_FWHM = 2.35482
# Twice what NanoPyx begins to look at: haze and a camera that undersamples widen the RSF.
_WIDEST_FWHM_PX = 8.0
_TOLERANCE_PX = 1e-3


@dataclass(frozen=True, slots=True, repr=False)
class ErrorMap:
    """How far a picture is from the widefield picture that it should blur to.

    Attributes
    ----------
    plane : |scale * (picture * RSF) + offset - widefield|, float32 (y, x) on the picture's grid, in
        the widefield picture's unit
    rsp : resolution-scaled Pearson correlation, at most 1
    rse : resolution-scaled error, root mean square, in the widefield picture's unit
    sigma_px : standard deviation of the RSF, in pixels of the picture
    scale, offset : what the picture was multiplied by, and what was added
    """

    plane: Image
    rsp: float
    rse: float
    sigma_px: float
    scale: float
    offset: float


def error_map(
    widefield: NDArray[np.floating], picture: NDArray[np.floating], *, centred: bool = False
) -> ErrorMap | None:
    """Compare `picture` with `widefield`, both (y, x) of the same field, in any units.

    Parameters
    ----------
    widefield : mean of the exposures
    picture : as large or larger along both axes
    centred : whether pixel (0, 0) of both has its centre at the same place; else the outer corners
        of both lie on each other

    Returns
    -------
    ErrorMap
        None where one of them has no contrast: there is nothing to compare.

    Notes
    -----
    Edges are mirrored. Of a larger picture the widefield one is enlarged by its cosine series.
    """
    # Of an even image a transform leaves rounding, which is no contrast.
    if any(image.min() == image.max() for image in (widefield, picture)):
        return None
    reference = _enlarged(widefield, picture.shape, centred=centred)
    wide, fine = (dctn(image, norm="ortho").astype(np.float32) for image in (reference, picture))
    mean, wide_mean = float(fine[0, 0]), float(wide[0, 0])
    fine[0, 0] = wide[0, 0] = 0
    spread = float(np.vdot(wide, wide))
    together, power = fine * wide, fine * fine
    if not (spread > 0 and float(power.sum()) > 0):
        return None

    def sums(sigma: float) -> tuple[float, float]:
        y, x = (_gaussian(n, sigma) for n in fine.shape)
        return float(y @ together @ x), float((y * y) @ power @ (x * x))

    def correlation(sigma: float) -> float:
        product, blurred = sums(sigma)
        return product / math.sqrt(max(spread * blurred, 1e-30))

    sigma = _best(correlation, _WIDEST_FWHM_PX / _FWHM * picture.shape[0] / widefield.shape[0])
    product, blurred = sums(sigma)
    scale = product / max(blurred, 1e-30)
    y, x = (_gaussian(n, sigma) for n in fine.shape)
    fine *= np.float32(scale) * y[:, None]
    fine *= x
    fine -= wide
    pixels = fine.size
    return ErrorMap(
        np.abs(idctn(fine, norm="ortho", overwrite_x=True)),
        correlation(sigma),
        math.sqrt(max(spread - product * product / max(blurred, 1e-30), 0.0) / pixels),
        sigma,
        scale,
        (wide_mean - scale * mean) / math.sqrt(pixels),
    )


def _best(correlation: Callable[[float], float], widest: float) -> float:
    """Return the width with the largest correlation, within what a microscope can do."""
    found = minimize_scalar(
        lambda sigma: -correlation(float(sigma)),
        bounds=(0.0, widest),
        method="bounded",
        options={"xatol": _TOLERANCE_PX},
    )
    return float(found.x)


def _gaussian(n: int, sigma: float) -> Image:
    """Return what the blur multiplies the `n` coefficients of a cosine transform by."""
    turns = sigma * math.pi / n * np.arange(n)
    return np.exp(-0.5 * turns * turns).astype(np.float32)


def _enlarged(image: NDArray[np.floating], shape: tuple[int, ...], *, centred: bool) -> Image:
    """Return `image` on a grid of `shape`, by the cosine series that goes through its pixels."""
    same = image.astype(np.float32)
    if image.shape == shape:
        return same
    rows, columns = (
        _series(n, m, centred=centred) for n, m in zip(image.shape, shape, strict=True)
    )
    return np.asarray(rows @ same @ columns.T, np.float32)


def _series(n: int, m: int, *, centred: bool) -> Image:
    """Return the matrix (m, n) that takes `n` pixels to `m` finer ones along one axis."""
    places = np.arange(m) * (n / m) + (0.5 if centred else 0.5 * n / m)
    k = np.arange(n)
    weights = np.where(k, 2.0, 1.0) / n
    at_places = np.cos(np.pi / n * np.outer(places, k)) * weights
    at_pixels = np.cos(np.pi / n * np.outer(k, np.arange(n) + 0.5))
    return np.asarray(at_places @ at_pixels, np.float32)
