"""Sinusoidal illumination of linear SIM.

Owns the geometry of a pattern: its vector in cycles/um and its phase at the camera chip's origin, so that one
calibration holds for every region of interest. Axes (y, x). Knows nothing about OTFs, cameras or reconstruction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Pattern:
    """One direction of structured illumination, 1 + m cos(2 pi k.r + phase + step).

    Attributes
    ----------
    k_um
        Pattern vector (ky, kx) in cycles/um. Its sign and that of the phase belong together.
    phase_rad
        Phase of step 0 at the chip's origin, the centre of pixel (0, 0) of the full chip.
    modulation
        Contrast m of the fundamental in the object, 0 to 1.
    """

    k_um: tuple[float, float]
    phase_rad: float
    modulation: float

    def seen_from(self, origin_px: tuple[float, float], pixel_size_um: float) -> Pattern:
        """Return the pattern with its phase referred to pixel (0, 0) of a region of interest.

        Parameters
        ----------
        origin_px
            The region's first pixel (y, x) on the chip, in pixels of `pixel_size_um`. With n x n binning the
            centre of a binned pixel lies (n - 1) / 2 chip pixels further: give ((y0 + (n - 1) / 2) / n, ...).
        pixel_size_um
            Size of the pixels in which `origin_px` counts.
        """
        turns = pixel_size_um * (self.k_um[0] * origin_px[0] + self.k_um[1] * origin_px[1])
        return replace(self, phase_rad=float(self.phase_rad + 2.0 * np.pi * turns))


def illumination(
    shape: tuple[int, int],
    pixel_size_um: float,
    pattern: Pattern,
    phase_step_rad: float = 0.0,
    origin_px: tuple[float, float] = (0.0, 0.0),
) -> NDArray[np.float32]:
    """Relative intensity of one exposure, mean 1.

    Parameters
    ----------
    shape, pixel_size_um
        Grid (y, x) and its sample distance; pixel (0, 0) of the grid lies on the centre of the camera pixel there.
    pattern
        Direction, phase at the chip's origin and modulation.
    phase_step_rad
        What this exposure adds to the pattern's phase.
    origin_px
        First pixel (y, x) of the grid on the chip, in pixels of `pixel_size_um`.

    Returns
    -------
    NDArray[np.float32]
        Shape (y, x): 1 + m cos(2 pi k.r + phase + step).
    """
    phase = pattern.seen_from(origin_px, pixel_size_um).phase_rad + phase_step_rad
    # A plane wave is an outer product: two short exponentials instead of a cosine per pixel.
    along_y = np.exp(2j * np.pi * pattern.k_um[0] * pixel_size_um * np.arange(shape[0]) + 1j * phase)
    along_x = np.exp(2j * np.pi * pattern.k_um[1] * pixel_size_um * np.arange(shape[1]))
    wave = along_y.real[:, None] * along_x.real - along_y.imag[:, None] * along_x.imag
    return np.asarray(1.0 + pattern.modulation * wave, np.float32)
