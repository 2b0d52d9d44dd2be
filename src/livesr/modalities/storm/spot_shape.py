"""Whether emitters look as the localiser expects: round, and as wide.

Owns the measurement of single spots' widths along y and x, and the verdict on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from livesr.modalities.storm.spot import profile_and_slopes

Floats = NDArray[np.floating[Any]]

_MAX_SPOTS, _MIN_SPOTS = 1000, 60
_MAX_ERROR = 0.15  # of the logarithm of one width over the other, as the fit says
_ITERATIONS = 25
_ROOM = 2.0  # half of a box, in widths of a round spot; and the distance to the next, in boxes
_STRETCHED = 0.3  # logarithm of one width over the other
_SHARE = 0.12  # of spots stretched along y, and of spots stretched along x
_SPREAD = 0.3  # robust standard deviation of that logarithm
_WIDTH_FACTOR = 1.35


@dataclass(frozen=True, slots=True)
class SpotShape:
    """Widths of single spots.

    Attributes
    ----------
    spots : how many were measured
    sigma_px : median of the geometric mean of the widths along y and x
    along_y, along_x : share of spots that are clearly longer in this direction
    spread : robust standard deviation of the logarithm of one width over the other
    """

    spots: int
    sigma_px: float
    along_y: float
    along_x: float
    spread: float

    @property
    def astigmatic(self) -> bool:
        """Whether some spots are stretched one way, and some the other."""
        return min(self.along_y, self.along_x) > _SHARE and self.spread > _SPREAD

    @property
    def stretched(self) -> bool:
        """Whether many are stretched, even if hardly any the other way."""
        return max(self.along_y, self.along_x) > 2 * _SHARE and self.spread > _SPREAD


def measure_shape(
    photons: NDArray[np.float32],
    frame: NDArray[np.integer[Any]],
    places_px: NDArray[np.floating[Any]],
    sigma_px: float,
    excess: float,
) -> SpotShape | None:
    """Measure the brightest single spots of frames.

    Parameters
    ----------
    photons : frames (n, y, x), photo-electrons
    frame, places_px : of every spot that was found: index in `photons`, and (y, x) in pixels from
        the corner
    sigma_px : expected width
    excess : variance of the noise over that of the photons

    Returns
    -------
    None if too few stand alone.
    """
    radius = max(int(np.ceil(_ROOM * 2 * sigma_px)), 3)
    alone = _alone(photons.shape, frame, places_px, radius)
    if len(alone) < _MIN_SPOTS:
        return None
    corner = np.floor(places_px[alone]).astype(np.intp) - radius
    side = np.arange(2 * radius + 1)
    boxes = photons[
        frame[alone][:, None, None],
        (corner[:, 0, None] + side)[:, :, None],
        (corner[:, 1, None] + side)[:, None, :],
    ].astype(np.float64)
    widths = _fit(_bright(boxes), sigma_px, excess)
    if len(widths) < _MIN_SPOTS:
        return None
    ratio = np.log(widths[:, 0] / widths[:, 1])
    spread = 1.4826 * float(np.median(np.abs(ratio - np.median(ratio))))
    return SpotShape(
        len(widths),
        float(np.median(np.sqrt(widths.prod(axis=1)))),
        float(np.mean(ratio > _STRETCHED)),
        float(np.mean(ratio < -_STRETCHED)),
        spread,
    )


def misfits(shape: SpotShape, sigma_px: float, pixel_nm: float) -> Iterator[str]:
    """Yield in which way spots are not what the localiser expects."""
    factor = shape.sigma_px / sigma_px
    wide = factor > _WIDTH_FACTOR
    if shape.astigmatic or (wide and shape.stretched):
        yield (
            f"of its single spots {shape.along_y:.0%} are stretched along y and"
            f" {shape.along_x:.0%} along x, as by a cylindrical lens: they are localised as if they"
            " were round, so photons are too few and z is not measured. Take the lens out or focus,"
            " or measure it: livesr calibrate RIG --beads STACK.tif --z-step 25"
        )
    elif wide or factor < 1 / _WIDTH_FACTOR:
        width_nm = shape.sigma_px * pixel_nm
        yield (
            f"its single spots are {width_nm:.0f} nm wide (sigma), {sigma_px * pixel_nm:.0f} nm are"
            " expected: photons and uncertainties are wrong. Focus; or correct optics.na,"
            " emission_nm and pixel_size_nm in rig.yaml, or give storm.psf_sigma_nm:"
            f" {width_nm:.0f}"
        )


def _alone(
    shape: Sequence[int],
    frame: NDArray[np.integer[Any]],
    places_px: NDArray[np.floating[Any]],
    radius: int,
) -> NDArray[np.intp]:
    """Return which spots have their box for themselves, inside their frame."""
    if len(frame) < _MIN_SPOTS:
        return np.empty(0, np.intp)
    apart = _ROOM * radius
    in_time = np.column_stack([np.asarray(frame, float) * 2 * apart, places_px])
    nearest = np.asarray(cKDTree(in_time).query(in_time, k=2)[0])[:, 1]
    row = np.floor(places_px)
    inside = (row >= radius).all(axis=1) & (row < np.array(shape[1:]) - radius).all(axis=1)
    return np.flatnonzero(inside & (nearest > apart))


def _bright(boxes: Floats) -> Floats:
    """Return the boxes with the brightest spots."""
    pixels = boxes.shape[1] ** 2
    background = np.median(np.concatenate([boxes[:, 0], boxes[:, -1]], axis=1), axis=1)
    light = boxes.sum((1, 2)) - background * pixels
    return boxes[np.argsort(-light)[:_MAX_SPOTS]]


def _fit(boxes: Floats, sigma_px: float, excess: float) -> Floats:
    """Return the widths (n, 2) along y and x of elliptical Gaussians, of those that are known."""
    fitted = fit_widths(boxes, sigma_px, excess)
    return np.asarray(fitted.widths_px[fitted.error < _MAX_ERROR])


class Ellipses(NamedTuple):
    """Fitted spots.

    Attributes
    ----------
    places_px : (y, x) from the middle of the box, (n, 2)
    widths_px : along y and x, (n, 2)
    error : of the logarithm of one over the other, (n,); infinite where the fit found no spot
    misfit : chi squared of each, (n,)
    """

    places_px: Floats
    widths_px: Floats
    error: Floats
    misfit: Floats


def fit_widths(
    boxes: Floats, sigma_px: float, excess: float = 1.0, halo: tuple[float, float] = (0.0, 1.0)
) -> Ellipses:
    """Fit elliptical Gaussians.

    Parameters
    ----------
    boxes : of one spot each, float64 (n, side, side), photo-electrons
    sigma_px : width in focus; one that is 0.35 or 3.5 times as wide is not believed
    excess : variance of the noise over that of the photons
    halo : share of the light in a second Gaussian, and how many times as wide it is
    """
    n, side = len(boxes), boxes.shape[1]
    border = np.median(np.concatenate([boxes[:, 0], boxes[:, -1]], axis=1), axis=1)
    light = np.maximum((boxes - border[:, None, None]).sum((1, 2)), 1.0)
    width = np.full(n, 1.3 * sigma_px)
    theta = np.stack([np.zeros(n), np.zeros(n), light, border, width, width], axis=1)
    # Every pixel weighs as its light lets it: fixed weights keep the first steps steady.
    weight = 1 / np.maximum(boxes, np.maximum(border, 1.0)[:, None, None]).reshape(n, -1)
    for i in range(_ITERATIONS):
        expected, jacobian = _model(theta, side, halo)
        if i >= _ITERATIONS // 2:
            weight = 1 / np.maximum(expected, np.maximum(border, 1.0)[:, None])
        weighted = jacobian * weight[:, None]
        normal = weighted @ jacobian.transpose(0, 2, 1)
        normal += normal * np.eye(6) * 1e-2 + 1e-9 * np.eye(6)
        slope = (weighted @ (boxes.reshape(n, -1) - expected)[..., None])[..., 0]
        step = np.linalg.solve(normal, slope[..., None])[..., 0]
        step[:, :2] = np.clip(step[:, :2], -0.5, 0.5)
        step[:, 4:] = np.clip(step[:, 4:], -0.3 * sigma_px, 0.3 * sigma_px)
        theta += step
        theta[:, 2] = np.maximum(theta[:, 2], 1.0)
        theta[:, 4:] = np.clip(theta[:, 4:], 0.3 * sigma_px, 4 * sigma_px)
    widths = theta[:, 4:]
    good = (np.abs(theta[:, :2]) < side / 4).all(axis=1)
    good &= ((widths > 0.35 * sigma_px) & (widths < 3.5 * sigma_px)).all(axis=1)
    variance = np.linalg.inv(normal)[:, [4, 5], [4, 5]] * excess
    misfit = ((boxes.reshape(n, -1) - expected) ** 2 * weight).sum(axis=1)
    error = np.where(good, np.sqrt((variance / widths**2).sum(axis=1)), np.inf)
    return Ellipses(theta[:, :2], widths, error, misfit)


def _model(theta: Floats, side: int, halo: tuple[float, float]) -> tuple[Floats, Floats]:
    """Return the expected light (n, pixels), and its derivatives by
    (y, x, photons, background, width in y, width in x), (n, 6, pixels).
    """
    share, factor = halo
    shape, *slopes = _one(theta, side, 1.0)
    if share:
        wider, *their_slopes = _one(theta, side, factor)
        shape = (1 - share) * shape + share * wider
        slopes = [(1 - share) * a + share * b for a, b in zip(slopes, their_slopes, strict=True)]
    photons = theta[:, 2, None, None]
    by_y, by_x, by_width_y, by_width_x = (photons * slope for slope in slopes)
    parts = (by_y, by_x, shape, np.ones_like(shape), by_width_y, by_width_x)
    jacobian = np.stack(parts, axis=1).reshape(len(theta), 6, -1)
    return (photons * shape + theta[:, 3, None, None]).reshape(len(theta), -1), jacobian


def _one(theta: Floats, side: int, factor: float) -> tuple[Floats, ...]:
    """Return one Gaussian `factor` times as wide, and its derivatives by y, x and both widths."""
    (in_y, dy, wy), (in_x, dx, wx) = (
        (values.T for values in profile_and_slopes(side, theta[:, i], factor * theta[:, 4 + i]))
        for i in (0, 1)
    )
    pairs = ((in_y, in_x), (dy, in_x), (in_y, dx), (factor * wy, in_x), (in_y, factor * wx))
    return tuple(a[:, :, None] * b[:, None, :] for a, b in pairs)
