"""The maximum-likelihood fit of many spots side by side.

Owns its arithmetic, in the words of `livesr.live.arrays`, so that it runs on any namespace. The
model of a spot is in `spot.py`.

Spots lie along the last axis of every array: what is done to one pixel of all of them is one
operation on consecutive numbers, and a block of spots fits into a core's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from livesr.live.arrays import HOST, Array, Arrays
from livesr.modalities.storm.spot import (
    SMALLEST_BACKGROUND,
    Part,
    Spot,
    light_of,
    profile,
    profile_and_slopes,
)

_ITERATIONS, _ITERATIONS_AGAIN = 6, 2
_ITERATIONS_3D = 6
_LARGEST_STEP_PX, _LARGEST_STEP_Z_PX = 0.5, 1.5
_SPOTS = 512  # of a block

Y, X, PHOTONS, BACKGROUND, Z = range(5)
"""Rows of what is fitted: pixels from the middle of the box, photo-electrons, photo-electrons per
pixel, and z in camera pixels.
"""


class Fit(NamedTuple):
    """Fitted spots.

    Attributes
    ----------
    theta : float32 (4 or 5, n), rows as `Y` to `Z`
    variance : of each, from the Fisher matrix; None where it was not asked for
    """

    theta: Array
    variance: Array | None = None

    def spots(self, side: int, spot: Spot, arrays: Arrays = HOST) -> Array:
        """Return the light of each in its box, without background, (side, side, n)."""
        return self.theta[PHOTONS, :] * light_of(spot, self.theta, side, arrays)


class Noise(NamedTuple):
    """What a fit knows of a camera's noise; see `PhotonScale`."""

    excess: float
    read_variance: float


def fit_gaussians(
    boxes: Array,
    spot: Spot,
    noise: Noise,
    others: Array | None = None,
    start: Array | None = None,
    *,
    variance: bool = True,
    arrays: Arrays = HOST,
) -> Fit:
    """Fit one Gaussian, integrated over pixels, to each box: position, photons, background, and of
    an astigmatic one z.

    Parameters
    ----------
    boxes : photo-electrons, float32 (side, side, n)
    spot : what is fitted
    noise : of the camera
    others : what other spots are known to give in each box
    start : `theta` to start from; `spot` says without
    variance : whether that of what is fitted is wanted

    Notes
    -----
    Maximises the Poisson likelihood by Fisher scoring: Smith et al. 2010, Nature Methods 7, 373;
    with z as in their supplement 6. Read noise enters as a Poisson of the same variance: Huang et
    al. 2013, Nature Methods 10, 653. The excess noise of an EMCCD scales every variance alike, so
    it leaves the estimate alone and widens its error.
    """
    xp, n = arrays.xp, boxes.shape[2]
    fitted = []
    for first in range(0, max(n, 1), _SPOTS):
        here = slice(first, min(first + _SPOTS, n))
        block = _Block(
            boxes[:, :, here], None if others is None else others[:, :, here], spot, noise, arrays
        )
        theta = block.fit(None if start is None else start[:, here])
        fitted.append((theta, block.variance(theta) if variance else theta))
    theta, variances = (xp.concat(parts, axis=1) for parts in zip(*fitted, strict=True))
    return Fit(theta, variances if variance else None)


class _Block:
    """The fit of some spots."""

    def __init__(
        self, boxes: Array, others: Array | None, spot: Spot, noise: Noise, arrays: Arrays
    ) -> None:
        xp = arrays.xp
        self._boxes, self._spot, self._noise, self._arrays = boxes, spot, noise, arrays
        self._side, _, self._n = boxes.shape
        known = noise.read_variance / noise.excess
        self._data = self._flat(xp.clip(boxes + known, 1e-3, None))
        self._known: Array | float = known
        if others is not None:
            self._known = self._flat(xp.clip(others, 0.0, None)) + known

    def fit(self, start: Array | None) -> Array:
        """Return what is fitted, (parameters, n)."""
        xp, spot = self._arrays.xp, self._spot
        theta = spot.start(self._boxes, self._arrays) if start is None else start
        iterations = _ITERATIONS_3D if spot.parameters > Z else _ITERATIONS
        for _ in range(iterations if start is None else _ITERATIONS_AGAIN):
            fisher, slope = self._score(theta)
            step = _solved(_cholesky(fisher, xp), slope)
            theta = self._stepped(theta, step)
        return theta

    def variance(self, theta: Array) -> Array:
        """Return the variance of what is fitted, (parameters, n): the Fisher matrix's."""
        xp = self._arrays.xp
        fisher, slope = self._score(theta)
        lower, rows = _cholesky(fisher, xp), []
        for i in range(len(slope)):
            unit = [xp.full_like(slope[0], float(i == j)) for j in range(len(slope))]
            rows.append(xp.clip(_solved(lower, unit)[i], 0.0, None) * self._noise.excess)
        return xp.stack(rows)

    def _stepped(self, theta: Array, step: Sequence[Array]) -> Array:
        """Go one step, short enough in position, and stay where a spot can be."""
        clip, half = self._arrays.xp.clip, self._side / 2
        most = {Y: _LARGEST_STEP_PX, X: _LARGEST_STEP_PX, Z: _LARGEST_STEP_Z_PX}
        bounds = {
            Y: (-half, half),
            X: (-half, half),
            PHOTONS: (1.0, None),
            BACKGROUND: (SMALLEST_BACKGROUND, None),
            Z: self._spot.z_range_px,
        }
        rows = []
        for i, by in enumerate(step):
            short = clip(by, -most[i], most[i]) if i in most else by
            rows.append(clip(theta[i, :] + short, *bounds[i]))
        return self._arrays.xp.stack(rows)

    def _score(self, theta: Array) -> tuple[list[list[Array]], list[Array]]:
        """Return the Fisher matrix, its lower triangle in rows, and the slope of the
        log-likelihood.
        """
        sums, photons = self._arrays.column_sums, theta[PHOTONS, :]
        shape, *moved = map(self._flat, _slopes(theta, self._spot, self._side, self._arrays))
        expected = photons * shape + theta[BACKGROUND, :]
        expected += self._known
        weight = 1.0 / expected
        residual = self._data * weight
        residual -= 1.0
        one = self._arrays.xp.ones_like(shape[:1, :])
        # Slopes without their factor, which follows: photo-electrons for those of position.
        slopes = [moved[0], moved[1], shape, one, *moved[2:]]
        factors = [photons, photons, 1.0, 1.0, *([photons] * (len(moved) - 2))]
        weighted = [weight * s if s is not one else weight for s in slopes]
        fisher = [
            [
                _total(sums, weighted[i], slopes[j], one) * (factors[i] * factors[j])
                for j in range(i)
            ]
            + [_total(sums, weighted[i], slopes[i], one) * (factors[i] * factors[i]) + 1e-6]
            for i in range(len(slopes))  # a spot that fades must not make the matrix singular
        ]
        score = [_total(sums, residual, s, one) * f for s, f in zip(slopes, factors, strict=True)]
        return fisher, score

    def _flat(self, boxes: Array) -> Array:
        return self._arrays.xp.reshape(boxes, (self._side**2, self._n))


def _total(sums, a: Array, b: Array, one: Array) -> Array:  # type: ignore[no-untyped-def]
    return sums(a, None if b is one else b)


def _cholesky(matrix: list[list[Array]], xp: object) -> list[list[Array]]:
    """Return the lower triangular factor of each matrix."""
    lower: list[list[Array]] = []
    for i, row in enumerate(matrix):
        made: list[Array] = []
        for j, element in enumerate(row):
            inner = element
            for k in range(j):
                inner = inner - made[k] * (made if i == j else lower[j])[k]
            made.append(xp.sqrt(xp.clip(inner, 1e-12, None)) if i == j else inner / lower[j][j])  # type: ignore[attr-defined]
        lower.append(made)
    return lower


def _solved(lower: list[list[Array]], right: Sequence[Array]) -> list[Array]:
    """Return what gives `right` when multiplied by the matrix of a factor."""
    p, found = len(lower), list(right)
    for i in range(p):
        for k in range(i):
            found[i] = found[i] - lower[i][k] * found[k]
        found[i] = found[i] / lower[i][i]
    for i in reversed(range(p)):
        for k in range(i + 1, p):
            found[i] = found[i] - lower[k][i] * found[k]
        found[i] = found[i] / lower[i][i]
    return found


def _slopes(theta: Array, spot: Spot, side: int, arrays: Arrays) -> list[Array]:
    """Return spots of one photo-electron, (side, side, n), and their derivatives by y, x and, if it
    is fitted, z.
    """
    one = _with_depth if spot.parameters > Z else _in_focus
    made = [one(theta, part, side, arrays) for part in spot.parts(theta, arrays)]
    return [sum(terms[1:], terms[0]) for terms in zip(*made, strict=True)]


def _in_focus(theta: Array, part: Part, side: int, arrays: Arrays) -> list[Array]:
    in_y, dy = profile(side, theta[Y, :], part.y, arrays)
    in_x, dx = profile(side, theta[X, :], part.x, arrays)
    return [_outer(a, b) for a, b in ((in_y, in_x), (dy, in_x), (in_y, dx))]


def _with_depth(theta: Array, part: Part, side: int, arrays: Arrays) -> list[Array]:
    in_y, dy, wy = profile_and_slopes(side, theta[Y, :], part.y, arrays)
    in_x, dx, wx = profile_and_slopes(side, theta[X, :], part.x, arrays)
    by_z_of_y = part.share * part.y_slope * wy + part.share_slope * in_y
    in_y, dy = part.share * in_y, part.share * dy
    by_z = _outer(by_z_of_y, in_x) + _outer(in_y, wx * part.x_slope)
    return [*(_outer(a, b) for a, b in ((in_y, in_x), (dy, in_x), (in_y, dx))), by_z]


def _outer(rows: Array, columns: Array) -> Array:
    return rows[:, None, :] * columns[None, :, :]
