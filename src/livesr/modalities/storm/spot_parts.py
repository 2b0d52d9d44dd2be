"""The Gaussians that the image of a point behind a cylindrical lens is the sum of, at every z.

Owns their fit to beads whose z is known. The widths by which z was found are `beads.py`'s.

One elliptical Gaussian has not the shape of a spot: its slopes are not those of the light, and z is
a quarter less certain than the light allows. Two or three whose widths and shares change with z,
each along its own axes, follow the cross that a lens makes in focus, and the rings.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline

from livesr.modalities.storm.spot import profile_and_slopes

Floats = NDArray[np.floating[Any]]

_KNOT_NM, _DEGREE = 100.0, 3
_ITERATIONS, _MAX_BOXES = 60, 600
_SMOOTH = 1e-2  # weight of bends of the curves, per box
_FEWER = 10.0  # times, after a step that helped
_WIDTHS_PX, _LARGEST_STEP = (0.3, 8.0), 0.3
# The first part is as wide as the spot, nearly; the others are (y, x) times as wide, with a share.
_STARTS = ((0.9, 0.9, 0.0), (1.2, 2.5, -1.0), (2.5, 1.2, -1.0))


class Parts(NamedTuple):
    """Curves over z.

    Attributes
    ----------
    widths_px : (part, 2, n), along y and x
    shares : (part, n), of the light; their sum is 1
    """

    widths_px: Floats
    shares: Floats


def fit_parts(
    boxes: Floats, places_px: Floats, z_nm: Floats, widths_px: Floats, at_nm: Floats, excess: float
) -> Parts:
    """Return the Gaussians that explain the beads best, at every one of `at_nm`.

    Parameters
    ----------
    boxes : one spot each, photo-electrons, float64 (n, side, side)
    places_px : where each lies from the middle of its box, (n, 2)
    z_nm, widths_px : of each, (n,) and (n, 2)
    excess : variance of the noise over that of the photons

    Notes
    -----
    Levenberg-Marquardt on cubic B-splines of the logarithms of widths and shares. Of every box
    photons and background are unknown as well, and are eliminated.
    """
    some = np.linspace(0, len(boxes) - 1, min(len(boxes), _MAX_BOXES)).astype(np.intp)
    some = some[np.argsort(z_nm[some])]
    fit = _Fit(boxes[some], places_px[some], z_nm[some], excess)
    curves = fit.solve(np.log(widths_px[some]))
    return _parts_of(fit.basis(np.clip(at_nm, *fit.range_nm)) @ curves)


def _parts_of(values: Floats) -> Parts:
    """Return widths and shares from their logarithms, (n, 3 * parts - 1)."""
    count = (values.shape[1] + 1) // 3
    widths = np.exp(values[:, : 2 * count]).T.reshape(count, 2, -1)
    light = np.exp(np.column_stack([np.zeros(len(values)), values[:, 2 * count :]])).T
    return Parts(widths, light / light.sum(axis=0))


class _Fit:
    """What is known of the boxes; `solve` finds the curves."""

    def __init__(self, boxes: Floats, places_px: Floats, z_nm: Floats, excess: float) -> None:
        self._data, self._places = boxes.reshape(len(boxes), -1), places_px
        self._side, self.range_nm = boxes.shape[1], (float(z_nm[0]), float(z_nm[-1]))
        inner = np.linspace(*self.range_nm, max(int(np.ptp(z_nm) / _KNOT_NM), 2) + 1)
        self._knots = np.r_[[inner[0]] * _DEGREE, inner, [inner[-1]] * _DEGREE]
        self._at = self.basis(z_nm)
        border = np.median(np.concatenate([boxes[:, 0], boxes[:, -1]], axis=1), axis=1)
        level = np.maximum(self._data, np.maximum(border, 1.0)[:, None])
        self._weight = 1 / (excess * level)
        bend = np.diff(np.eye(self._at.shape[1]), 2, axis=0)
        self._stiff = _SMOOTH * len(boxes) * bend.T @ bend

    def basis(self, z_nm: Floats) -> Floats:
        """Return the value of every B-spline at z, (n, splines)."""
        return np.asarray(BSpline.design_matrix(z_nm, self._knots, _DEGREE).toarray())

    def solve(self, log_widths: Floats) -> Floats:
        """Return the coefficients of every curve, (splines, 3 * parts - 1)."""
        start = [log_widths + np.log(part[:2]) for part in _STARTS]
        shares = np.tile([part[2] for part in _STARTS[1:]], (len(log_widths), 1))
        curves = np.linalg.lstsq(self._at, np.hstack([*start, shares]), rcond=None)[0]
        damping, (cost, matrix, slope) = 1e-2, self._normal(curves)
        for _ in range(_ITERATIONS):
            damped = matrix + damping * np.diag(matrix.diagonal() + 1e-9)
            step = np.linalg.solve(damped, slope).reshape(curves.shape)
            tried = curves + np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)
            now = self._normal(tried)
            if now[0] < cost:
                done = cost - now[0] < 1e-6 * cost
                curves, (cost, matrix, slope), damping = tried, now, damping / _FEWER
                if done:
                    break
            else:
                damping *= _FEWER
        return np.asarray(curves)

    def _normal(self, curves: Floats) -> tuple[float, Floats, Floats]:
        """Return what is to be least, the matrix of its normal equations and their right side."""
        values = self._at @ curves
        shape, slopes = self._shapes(values)
        known = np.stack([shape, np.ones_like(shape)], axis=1)  # times photons and background
        weighted = known * self._weight[:, None]
        inside = weighted @ known.transpose(0, 2, 1)
        light = np.linalg.solve(inside, (weighted @ self._data[..., None]))
        left = self._data - (light.transpose(0, 2, 1) @ known)[:, 0]
        slopes = slopes * light[:, :1]
        # What photons and background explain of a slope is no slope.
        explained = np.linalg.solve(inside, weighted @ slopes.transpose(0, 2, 1))
        slopes = slopes - explained.transpose(0, 2, 1) @ known
        scaled = slopes * self._weight[:, None]
        each, right = scaled @ slopes.transpose(0, 2, 1), (scaled @ left[..., None])[..., 0]
        matrix = np.einsum("ni,nj,npq->ipjq", self._at, self._at, each, optimize=True)
        matrix += np.einsum("ij,pq->ipjq", self._stiff, np.eye(curves.shape[1]))
        cost = float((left**2 * self._weight).sum() + (curves * (self._stiff @ curves)).sum())
        slope = self._at.T @ right - self._stiff @ curves
        return cost, matrix.reshape(curves.size, -1), slope.ravel()

    def _shapes(self, values: Floats) -> tuple[Floats, Floats]:
        """Return the light of each spot, (n, pixels), and its slopes, (n, p, pixels), by
        `values`.
        """
        widths, shares = _parts_of(np.clip(values, np.log(1e-3), np.log(1e3)))
        widths = np.clip(widths, *_WIDTHS_PX)
        shapes, by_width = [], []
        for (wide_y, wide_x), share in zip(widths, shares, strict=True):
            in_y, _, dy = (a.T for a in profile_and_slopes(self._side, self._places[:, 0], wide_y))
            in_x, _, dx = (a.T for a in profile_and_slopes(self._side, self._places[:, 1], wide_x))
            shapes.append(_outer(in_y, in_x))
            by_width += [
                _outer((share * wide_y)[:, None] * dy, in_x),
                _outer((share * wide_x)[:, None] * in_y, dx),
            ]
        whole = sum(s[:, None] * part for s, part in zip(shares, shapes, strict=True))
        by_share = [
            s[:, None] * (part - whole) for s, part in zip(shares[1:], shapes[1:], strict=True)
        ]
        return np.asarray(whole), np.stack([*by_width, *by_share], axis=1)


def _outer(rows: Floats, columns: Floats) -> Floats:
    return (rows[:, :, None] * columns[:, None, :]).reshape(len(rows), -1)
