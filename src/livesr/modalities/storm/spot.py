"""The image of a single emitter as the localiser's fit sees it: a Gaussian, round or astigmatic.

Owns its widths, and where a fit begins. Makes no fit.

::

    RoundSpot        one width, known          fits (y, x, photons, background)
    AstigmaticSpot   two widths that z sets    fits (y, x, photons, background, z)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.special import erf

from livesr.modalities.storm.config import AstigmatismConfig

Floats = NDArray[np.float32]
AnyFloats = NDArray[np.floating[Any]]
Width = AnyFloats | np.float32

SMALLEST_BACKGROUND = 0.05
_Z_STEPS = 13  # of the range, that a fit may begin at
_BOX_HOLDS = 0.75  # share of the table's wider widths that a box has room for


class Part(NamedTuple):
    """One of the Gaussians that a spot is the sum of.

    Attributes
    ----------
    share : of the spot's light
    y, x : widths, pixels, one value or (n, 1)
    y_slope, x_slope : their derivatives by z
    """

    share: float
    y: Width
    x: Width
    y_slope: Width = np.float32(0)
    x_slope: Width = np.float32(0)


class Spot(Protocol):
    """What a fit asks.

    Attributes
    ----------
    parameters : how many are fitted
    sigma_px : width that spots are looked for with
    widest_px : width that the box of a fit has room for
    """

    parameters: int
    sigma_px: float
    widest_px: float

    def parts(self, theta: Floats) -> Sequence[Part]:
        """Return the Gaussians that fitted spots, (n, `parameters`), are the sum of; the narrowest
        first.
        """

    def start(self, boxes: Floats) -> Floats:
        """Return where the fits of boxes (n, side, side), photo-electrons, begin."""

    def bound(self, theta: Floats) -> None:
        """Keep what is fitted beside position, light and background within its bounds."""


class RoundSpot:
    """A spot as wide as the optics make it in focus; see `Spot`."""

    parameters = 4

    def __init__(self, sigma_px: float) -> None:
        self.sigma_px = self.widest_px = sigma_px
        self._parts = (Part(1.0, np.float32(sigma_px), np.float32(sigma_px)),)

    def parts(self, theta: Floats) -> Sequence[Part]:
        """Return one Gaussian, the same for all."""
        return self._parts

    def start(self, boxes: Floats) -> Floats:
        """Return the middle, and what exceeds the border."""
        background, light = _light(boxes)
        zero = np.zeros_like(light)
        return np.stack([zero, zero, light, background], axis=1).astype(np.float32)

    def bound(self, theta: Floats) -> None:
        """There is nothing to bound."""


class AstigmaticSpot:
    """A spot whose widths along y and x say how high it is; see `Spot`.

    `z` is fitted in camera pixels, so that it is of the size of the others.
    """

    parameters = 5

    def __init__(self, config: AstigmatismConfig, pixel_size_nm: float) -> None:
        self._config = config
        z_px, both = np.array(config.z_nm), np.array([config.width_y_nm, config.width_x_nm])
        z_px, both = z_px / pixel_size_nm, both / pixel_size_nm
        self.z_range_px = float(z_px[0]), float(z_px[-1])
        self._starts_px = np.linspace(*self.z_range_px, _Z_STEPS, dtype=np.float32)
        self._widths = CubicSpline(z_px, both, axis=1, bc_type="natural")
        self._slopes = self._widths.derivative()
        self.sigma_px = float(np.sqrt(both.prod(axis=0)).min())
        self.widest_px = float(np.quantile(both.max(axis=0), _BOX_HOLDS))

    def parts(self, theta: Floats) -> Sequence[Part]:
        """Return a Gaussian as wide as each z makes it, and the halo."""
        low, high = self.z_range_px
        z = np.clip(theta[:, 4], low, high)
        (y, x), (y_slope, x_slope) = (
            np.asarray(curve(z), np.float32)[..., None] for curve in (self._widths, self._slopes)
        )
        halo = self._config.halo
        core = Part(1 - halo, y, x, y_slope, x_slope)
        if not halo:
            return (core,)
        wider = (values * np.float32(self._config.halo_factor) for values in core[1:])
        return core, Part(halo, *wider)

    def start(self, boxes: Floats) -> Floats:
        """Return the middle, what exceeds the border, and the z whose spot is most like each."""
        n, side = boxes.shape[:2]
        background, light = _light(boxes)
        theta = np.zeros((n, 5), np.float32)
        theta[:, 2], theta[:, 3] = light, background
        at = np.zeros((_Z_STEPS, 5), np.float32)
        at[:, 4] = self._starts_px
        shapes = light_of(self, at, side).reshape(_Z_STEPS, -1)
        shapes /= np.linalg.norm(shapes, axis=1, keepdims=True)
        above = (boxes - background[:, None, None]).reshape(n, -1)
        theta[:, 4] = self._starts_px[(above @ shapes.T).argmax(axis=1)]
        return theta

    def bound(self, theta: Floats) -> None:
        """Keep z within what was calibrated."""
        np.clip(theta[:, 4], *self.z_range_px, out=theta[:, 4])


def light_of(spot: Spot, theta: Floats, side: int) -> Floats:
    """Return the light of spots of one photo-electron in their boxes, (n, side, side)."""
    light = np.zeros((len(theta), side, side), np.float32)
    for part in spot.parts(theta):
        in_y, _ = profile(side, theta[:, 0], part.y)
        in_x, _ = profile(side, theta[:, 1], part.x)
        light += (part.share * in_y)[:, :, None] * in_x[:, None, :]
    return light


def profile(side: int, centre: AnyFloats, sigma_px: Width) -> tuple[AnyFloats, AnyFloats]:
    """Return the share of a Gaussian that each pixel of a row collects, and its derivative by the
    centre; (n, side).
    """
    shares, _, density = _at_edges(side, centre, sigma_px)
    return shares, -np.diff(density)


def profile_and_slopes(
    side: int, centre: AnyFloats, sigma_px: Width
) -> tuple[AnyFloats, AnyFloats, AnyFloats]:
    """Return the same, and the derivative by the width."""
    shares, edges, density = _at_edges(side, centre, sigma_px)
    return shares, -np.diff(density), -np.diff(density * edges / sigma_px)


def _at_edges(
    side: int, centre: AnyFloats, sigma_px: Width
) -> tuple[AnyFloats, AnyFloats, AnyFloats]:
    """Return what pixels collect (n, side), where their edges are and the density there."""
    sigma = np.asarray(sigma_px, centre.dtype)
    edges = np.arange(side + 1, dtype=centre.dtype) - centre.dtype.type(side / 2) - centre[:, None]
    scaled = edges * (1 / (math.sqrt(2) * sigma))
    density = np.exp(-(scaled**2)) * (1 / (math.sqrt(2 * math.pi) * sigma))
    return 0.5 * np.diff(erf(scaled)), edges, density


def _light(boxes: Floats) -> tuple[Floats, Floats]:
    """Return background and photo-electrons above it: the border, and what exceeds it."""
    border = np.concatenate(
        [boxes[:, 0], boxes[:, -1], boxes[:, 1:-1, 0], boxes[:, 1:-1, -1]], axis=1
    )
    background = np.maximum(np.median(border, axis=1), SMALLEST_BACKGROUND)
    light = np.maximum(boxes.sum((1, 2)) - background * boxes.shape[1] ** 2, 1)
    return background, light
