"""The image of a point above or below focus, behind a cylindrical lens.

Owns the vectorial pupil. It shares nothing with the Gaussian that the localiser fits, so that a fit
is judged on spots that are not its own model.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, spline_filter, uniform_filter

from livesr.optics.psf import add_boxes

Floats = NDArray[np.floating[Any]]

_OVERSAMPLING = 6
_PUPIL = 64  # samples across
_Z_STEP_UM = 0.05


class VectorialSpread:
    """Light of points at any z on a grid of camera pixels; z counts from focus, towards the lens.

    Free dipoles in the immersion's index, seen through a pupil with astigmatism: tabulated every
    50 nm along z and a sixth of a pixel, and interpolated with cubic splines.

    Parameters
    ----------
    pixel_size_um : camera pixel in the sample
    na, wavelength_um, index : of detection and of what the points lie in
    astigmatism : root mean square of the wavefront's astigmatism, in wavelengths
    z_um : lowest and highest z
    radius_px : half of the side of the square that a point lights up

    Notes
    -----
    Richards and Wolf 1959, Proc. R. Soc. A 253, 358; the sum over dipoles along x, y and z is what
    a dye that turns freely emits, as in Stallinga and Rieger 2010, Optics Express 18, 24461.
    """

    def __init__(
        self,
        pixel_size_um: float,
        na: float,
        wavelength_um: float,
        *,
        index: float = 1.518,
        astigmatism: float = 0.0,
        z_um: tuple[float, float] = (-0.8, 0.8),
        radius_px: int = 12,
    ) -> None:
        self.radius_px, self.z_um = radius_px, z_um
        side = 2 * (radius_px + 2) * _OVERSAMPLING
        at_um = (np.arange(side) - side // 2) * pixel_size_um / _OVERSAMPLING
        steps = max(round((z_um[1] - z_um[0]) / _Z_STEP_UM), 1) + 1
        fields = _fields(na, wavelength_um, index, astigmatism)
        k = 2 * math.pi * _frequencies(na, wavelength_um)
        to_image = np.exp(1j * np.outer(at_um, k))
        table = np.empty((steps, side, side))
        for plane, z in zip(table, np.linspace(*z_um, steps), strict=True):
            seen = fields * np.exp(1j * z * _axial(na, wavelength_um, index))
            plane[:] = (np.abs(to_image @ seen @ to_image.T) ** 2).sum(axis=0)
        table /= table.sum(axis=(1, 2), keepdims=True) / _OVERSAMPLING**2
        pixels = uniform_filter(table, (1, _OVERSAMPLING, _OVERSAMPLING), mode="nearest")
        self._table = np.asarray(spline_filter(pixels, order=3, mode="nearest"), np.float32)
        # An even box lies half a fine pixel before its middle.
        self._centre = side // 2 + 0.5 * (1 - _OVERSAMPLING % 2)
        self._per_um = (steps - 1) / (z_um[1] - z_um[0])

    def add(
        self, image: NDArray[np.float32], y: Floats, x: Floats, light: Floats, z_um: Floats
    ) -> None:
        """Add points to `image`, float32 (y, x), at pixels (y, x) whose centres are whole.

        `light` is what each would give to an endless camera.
        """
        offsets = np.arange(-self.radius_px, self.radius_px + 1)
        row, column = np.rint(y).astype(np.intp), np.rint(x).astype(np.intp)
        rows, columns = row[:, None] + offsets, column[:, None] + offsets
        at = np.broadcast_arrays(
            ((z_um - self.z_um[0]) * self._per_um)[:, None, None],
            ((rows - y[:, None]) * _OVERSAMPLING + self._centre)[:, :, None],
            ((columns - x[:, None]) * _OVERSAMPLING + self._centre)[:, None, :],
        )
        spots = map_coordinates(self._table, np.stack(at), order=3, mode="nearest", prefilter=False)
        spots = np.maximum(spots, 0) * light[:, None, None]
        add_boxes(image, rows, columns, spots)


def _frequencies(na: float, wavelength_um: float) -> Floats:
    """Return the pupil's frequencies along one axis, per um."""
    return (np.arange(_PUPIL) - (_PUPIL - 1) / 2) / (_PUPIL / 2) * na / wavelength_um


def _axial(na: float, wavelength_um: float, index: float) -> Floats:
    """Return the wave vector along z, per um, (pupil, pupil)."""
    k = 2 * math.pi * _frequencies(na, wavelength_um)
    total = 2 * math.pi * index / wavelength_um
    return np.asarray(np.sqrt(np.maximum(total**2 - k[:, None] ** 2 - k**2, 0)))


def _fields(
    na: float, wavelength_um: float, index: float, astigmatism: float
) -> NDArray[np.complex128]:
    """Return both polarisations of dipoles along x, y and z in the pupil, (6, pupil, pupil)."""
    k = _frequencies(na, wavelength_um) * wavelength_um
    radius, phi = np.hypot(k[:, None], k), np.arctan2(k[:, None], k)
    inside = radius <= na
    sine = np.where(inside, radius / index, 0)
    cosine, rho = np.sqrt(1 - sine**2), radius / na
    bend = math.sqrt(6) * rho**2 * np.cos(2 * phi)
    wave = inside / np.sqrt(cosine) * np.exp(2j * math.pi * astigmatism * bend)
    mixed = (cosine - 1) * np.sin(phi) * np.cos(phi)
    polarised = [
        cosine * np.cos(phi) ** 2 + np.sin(phi) ** 2,
        mixed,
        -sine * np.cos(phi),
        mixed,
        cosine * np.sin(phi) ** 2 + np.cos(phi) ** 2,
        -sine * np.sin(phi),
    ]
    return np.asarray(np.stack(polarised) * wave)
