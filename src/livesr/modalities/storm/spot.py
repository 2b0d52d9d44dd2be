"""The image of a single emitter as the localiser's fit sees it: a Gaussian, round or astigmatic.

Owns its widths, and where a fit begins. Makes no fit.

::

    RoundSpot        one width, known          fits (y, x, photons, background)
    AstigmaticSpot   two widths that z sets    fits (y, x, photons, background, z)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from livesr.live.arrays import HOST, Array, Arrays
from livesr.modalities.storm.config import AstigmatismConfig

Width = Array | float

SMALLEST_BACKGROUND = 0.05
_Z_STEPS = 13  # of the range, that a fit may begin at
_REACH = 2.7  # half of a box, in widths
# Behind a cylindrical lens: a small box for the first fit, with few neighbours in it; for a spot
# that stands alone one in which z is 6 % less certain than without end. Shares of the table's wider
# widths that they are made for.
_BOX_HOLDS, _LONE_BOX_HOLDS, _LONE_REACH = 0.25, 0.75, 4.0


class Part(NamedTuple):
    """One of the Gaussians that a spot is the sum of.

    Attributes
    ----------
    y, x : widths, pixels, one value or (n,)
    share : of the spot's light
    y_slope, x_slope, share_slope : their derivatives by z
    """

    y: Width
    x: Width
    share: Width = 1.0
    y_slope: Width = 0.0
    x_slope: Width = 0.0
    share_slope: Width = 0.0


class Spot(Protocol):
    """What a fit asks.

    Attributes
    ----------
    parameters : how many are fitted
    sigma_px : width that spots are looked for with
    radius_px, lone_radius_px : pixels from the middle of a fit's box to its edge; of one that
        stands alone
    z_range_px : that z is kept within, where it is fitted
    """

    parameters: int
    sigma_px: float
    radius_px: int
    lone_radius_px: int
    z_range_px: tuple[float, float]

    def parts(self, theta: Array, arrays: Arrays = HOST) -> Sequence[Part]:
        """Return the Gaussians that fitted spots, (`parameters`, n), are the sum of."""

    def widths(self, theta: Array, arrays: Arrays = HOST) -> tuple[Width, Width]:
        """Return the widths along y and x of the one Gaussian that is most like each spot."""

    def start(self, boxes: Array, arrays: Arrays = HOST) -> Array:
        """Return where the fits of boxes (side, side, n), photo-electrons, begin."""


class RoundSpot:
    """A spot as wide as the optics make it in focus; see `Spot`."""

    parameters = 4
    z_range_px = (0.0, 0.0)

    def __init__(self, sigma_px: float) -> None:
        self.sigma_px = float(sigma_px)
        self.radius_px = self.lone_radius_px = _radius(_REACH * self.sigma_px)
        self._parts = (Part(self.sigma_px, self.sigma_px),)

    def parts(self, theta: Array, arrays: Arrays = HOST) -> Sequence[Part]:
        """Return one Gaussian, the same for all."""
        return self._parts

    def widths(self, theta: Array, arrays: Arrays = HOST) -> tuple[Width, Width]:
        """Return its width."""
        return self.sigma_px, self.sigma_px

    def start(self, boxes: Array, arrays: Arrays = HOST) -> Array:
        """Return the middle, and what exceeds the border."""
        background, light = _light(boxes, arrays)
        zero = arrays.xp.zeros_like(light)
        return arrays.xp.stack([zero, zero, light, background])


class AstigmaticSpot:
    """A spot whose widths along y and x say how high it is; see `Spot`.

    `z` is fitted in camera pixels, so that it is of the size of the others.
    """

    parameters = 5

    def __init__(self, config: AstigmatismConfig, pixel_size_nm: float) -> None:
        z_px, both = np.array(config.z_nm), np.array([config.width_y_nm, config.width_x_nm])
        z_px, both = z_px / pixel_size_nm, both / pixel_size_nm
        self.z_range_px = float(z_px[0]), float(z_px[-1])
        self._starts_px = np.linspace(*self.z_range_px, _Z_STEPS, dtype=np.float32)
        self._widths = _Curves(z_px, both)
        unit = np.array([[pixel_size_nm], [pixel_size_nm], [1.0]])
        parts = [np.array([p.width_y_nm, p.width_x_nm, p.share]) / unit for p in config.parts]
        whole = np.vstack([both, np.ones(len(z_px))])
        self._parts = [_Curves(z_px, part) for part in parts or [whole]]
        self.sigma_px = float(np.sqrt(both.prod(axis=0)).min())
        held, lone = np.quantile(both.max(axis=0), (_BOX_HOLDS, _LONE_BOX_HOLDS))
        self.radius_px, self.lone_radius_px = _radius(_REACH * held), _radius(_LONE_REACH * lone)

    def parts(self, theta: Array, arrays: Arrays = HOST) -> Sequence[Part]:
        """Return Gaussians as wide, and as bright, as each z makes them."""
        made = []
        for curves in self._parts:
            values, slopes = curves(theta[4, :], arrays)
            made.append(Part(*values, *slopes))
        return made

    def widths(self, theta: Array, arrays: Arrays = HOST) -> tuple[Width, Width]:
        """Return the table's."""
        (y, x), _ = self._widths(theta[4, :], arrays)
        return y, x

    def start(self, boxes: Array, arrays: Arrays = HOST) -> Array:
        """Return the middle, what exceeds the border, and the z whose spot is most like each."""
        xp, (side, _, n) = arrays.xp, boxes.shape
        background, light = _light(boxes, arrays)
        at = np.zeros((5, _Z_STEPS), np.float32)
        at[4] = self._starts_px
        shapes = light_of(self, at, side).reshape(-1, _Z_STEPS)
        shapes /= np.linalg.norm(shapes, axis=0)
        above = xp.reshape(boxes - background, (side**2, n))
        like = xp.matmul(arrays.array(np.ascontiguousarray(shapes.T)), above)
        z = xp.take(arrays.array(self._starts_px), xp.argmax(like, axis=0))
        zero = xp.zeros_like(light)
        return xp.stack([zero, zero, light, background, z])


def _radius(reach_px: float) -> int:
    return max(math.ceil(reach_px), 2)


class _Curves:
    """Cubic splines of z, constant beyond the table.

    Parameters
    ----------
    z_px, values : the table, (n,) and (curves, n)
    """

    def __init__(self, z_px: NDArray[np.float64], values: NDArray[np.float64]) -> None:
        self._range = float(z_px[0]), float(z_px[-1])
        self._knots = z_px.astype(np.float32)
        pieces = CubicSpline(z_px, values, axis=1, bc_type="natural").c
        # (curve, power, between two knots)
        self._pieces = np.ascontiguousarray(pieces.transpose(2, 0, 1).astype(np.float32))

    def __call__(self, z_px: Array, arrays: Arrays) -> tuple[list[Array], list[Array]]:
        """Return the value of each, (n,), and its derivative."""
        xp, knots = arrays.xp, arrays.array(self._knots)
        z = xp.clip(z_px, *self._range)
        last = len(self._knots) - 2
        piece = xp.clip(xp.searchsorted(knots, z, side="right") - 1, 0, last)
        dz, values, slopes = z - xp.take(knots, piece), [], []
        for powers in self._pieces:
            a, b, c, d = (xp.take(arrays.array(power), piece) for power in powers)
            values.append(((a * dz + b) * dz + c) * dz + d)
            slopes.append((3.0 * a * dz + 2.0 * b) * dz + c)
        return values, slopes


def light_of(spot: Spot, theta: Array, side: int, arrays: Arrays = HOST) -> Array:
    """Return the light of spots of one photo-electron in their boxes, (side, side, n)."""
    made = []
    for part in spot.parts(theta, arrays):
        in_y, _ = profile(side, theta[0, :], part.y, arrays)
        in_x, _ = profile(side, theta[1, :], part.x, arrays)
        made.append((part.share * in_y)[:, None, :] * in_x[None, :, :])
    return sum(made[1:], made[0])


def profile(side: int, centre: Array, sigma_px: Width, arrays: Arrays) -> tuple[Array, Array]:
    """Return the share of a Gaussian that each pixel of a row collects, and its derivative by the
    centre; (side, n).
    """
    shares, _, density = _at_edges(side, centre, sigma_px, arrays)
    return shares, density[:-1, :] - density[1:, :]


def profile_and_slopes(
    side: int, centre: Array, sigma_px: Width, arrays: Arrays = HOST
) -> tuple[Array, Array, Array]:
    """Return the same, and the derivative by the width."""
    shares, edges, density = _at_edges(side, centre, sigma_px, arrays)
    by_width = density * edges / sigma_px
    return shares, density[:-1, :] - density[1:, :], by_width[:-1, :] - by_width[1:, :]


def _at_edges(
    side: int, centre: Array, sigma_px: Width, arrays: Arrays
) -> tuple[Array, Array, Array]:
    """Return what pixels collect (side, n), where their edges are and the density there."""
    xp = arrays.xp
    pixels = xp.arange(side + 1, dtype=centre.dtype) - side / 2
    edges = pixels[:, None] - centre[None, :]
    scaled = edges * (1 / (math.sqrt(2) * sigma_px))
    density = xp.exp(-(scaled * scaled)) * (1 / (math.sqrt(2 * math.pi) * sigma_px))
    passed = arrays.erf(scaled)
    return 0.5 * (passed[1:, :] - passed[:-1, :]), edges, density


def _light(boxes: Array, arrays: Arrays) -> tuple[Array, Array]:
    """Return background and photo-electrons above it: the border, and what exceeds it."""
    xp = arrays.xp
    rim = [boxes[0, :, :], boxes[-1, :, :], boxes[1:-1, 0, :], boxes[1:-1, -1, :]]
    border = xp.sort(xp.concat(rim, axis=0), axis=0)
    middle = border.shape[0] // 2
    median = 0.5 * (border[middle - 1, :] + border[middle, :])  # their number is even
    background = xp.clip(median, SMALLEST_BACKGROUND, None)
    whole = xp.sum(boxes, axis=(0, 1))
    return background, xp.clip(whole - background * boxes.shape[0] ** 2, 1.0, None)
