"""The image of a point on the camera.

The objective's point spread function, integrated over pixels.

Owns the shape. Lengths in um unless a name says otherwise, positions (y, x) in pixels with pixel
centres at whole numbers. Knows nothing about noise or fluorophores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, spline_filter

from livesr.optics.otf import otf

Floats = NDArray[np.floating[Any]]

_OVERSAMPLING = 8


def gaussian_sigma(na: float, wavelength: float) -> float:
    """Return the standard deviation of the Gaussian nearest to the Airy pattern, in the unit of the
    wavelength.

    Notes
    -----
    0.21 wavelength / NA: Zhang et al. 2007, Applied Optics 46, 1819, paraxial and widefield.
    """
    return 0.21 * wavelength / na


class PointSpread:
    """Light of in-focus points on a grid of camera pixels.

    The Airy pattern of `livesr.optics.otf.otf`, integrated over the pixel, tabulated once and
    interpolated with cubic splines: within 0.1 % of its peak.

    Parameters
    ----------
    pixel_size_um : camera pixel in the sample
    na, wavelength_um : detection
    damping : as in `otf`: below 1 the spot is wider than the ideal one
    radius_px : half of the side of the square that a point lights up; 5 pixels of 0.1 um hold 94 %
        of an ideal Airy pattern of NA 1.49 at 525 nm, and 92 % of NA 1.3 at 600 nm
    """

    def __init__(
        self,
        pixel_size_um: float,
        na: float,
        wavelength_um: float,
        *,
        damping: float = 1.0,
        radius_px: int = 6,
    ) -> None:
        self.radius_px = radius_px
        fine, side = pixel_size_um / _OVERSAMPLING, 4 * (radius_px + 2) * _OVERSAMPLING
        spectrum = otf((side, side), fine, na, wavelength_um, damping=damping).astype(np.float64)
        aperture = np.sinc(np.fft.fftfreq(side, fine) * pixel_size_um)
        spectrum *= aperture[:, None] * aperture
        table = np.fft.fftshift(np.fft.ifft2(spectrum).real) * _OVERSAMPLING**2
        self._table, self._centre = np.asarray(spline_filter(table, order=3), np.float32), side // 2

    def add(self, image: NDArray[np.float32], y: Floats, x: Floats, light: Floats) -> None:
        """Add points to `image`, float32 (y, x).

        `light` is what each would give to an endless camera.
        """
        offsets = np.arange(-self.radius_px, self.radius_px + 1)
        row, column = np.rint(y).astype(np.intp), np.rint(x).astype(np.intp)
        rows, columns = row[:, None] + offsets, column[:, None] + offsets
        along_y = (rows - y[:, None]) * _OVERSAMPLING + self._centre
        along_x = (columns - x[:, None]) * _OVERSAMPLING + self._centre
        at = np.broadcast_arrays(along_y[:, :, None], along_x[:, None, :])
        spots = (
            map_coordinates(self._table, np.stack(at), order=3, mode="nearest", prefilter=False)
            * light[:, None, None]
        )
        add_boxes(image, rows, columns, spots)


def flat_places(
    shape: tuple[int, ...], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return where in a flat image the pixels of boxes lie that are inside, and which these are.

    Parameters
    ----------
    shape : (y, x)
    rows, columns : (n, side), of each box
    """
    inside = ((rows >= 0) & (rows < shape[0]))[:, :, None] & (
        (columns >= 0) & (columns < shape[1])
    )[:, None]
    return (rows[:, :, None] * shape[1] + columns[:, None, :])[inside], inside


def add_boxes(
    image: NDArray[np.float32], rows: NDArray[np.intp], columns: NDArray[np.intp], boxes: Floats
) -> None:
    """Add boxes (n, side, side) to `image` at their rows and columns (n, side).

    What lies outside is left out.
    """
    flat, inside = flat_places(image.shape, rows, columns)
    image += np.bincount(flat, boxes[inside], image.size).reshape(image.shape).astype(np.float32)
