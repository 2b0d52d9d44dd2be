"""Optical transfer functions on a discrete Fourier grid.

Owns the model of detection (circular aperture, incoherent light) and the apodisation that closes a
reconstruction. Frequencies are in cycles/um, lengths in um, axes (y, x), arrays in FFT order (zero
frequency first). Knows nothing about illumination, noise or cameras.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def cutoff_um(na: float, wavelength_um: float) -> float:
    """Highest frequency that the objective passes, 2 NA / wavelength, in cycles/um.

    Parameters
    ----------
    na : numerical aperture of detection
    wavelength_um : emission wavelength in vacuum
    """
    return 2.0 * na / wavelength_um


def radial_frequency(
    shape: tuple[int, int], pixel_size_um: float, offset_um: tuple[float, float] = (0.0, 0.0)
) -> NDArray[np.float64]:
    """Return the length of k + offset in cycles/um at every point of the Fourier grid, float64 (y,
    x) in FFT order.
    """
    ky = np.fft.fftfreq(shape[0], pixel_size_um) + offset_um[0]
    kx = np.fft.fftfreq(shape[1], pixel_size_um) + offset_um[1]
    return np.asarray(np.hypot(ky[:, None], kx[None, :]), np.float64)


def otf(
    shape: tuple[int, int],
    pixel_size_um: float,
    na: float,
    wavelength_um: float,
    *,
    offset_um: tuple[float, float] = (0.0, 0.0),
    damping: float = 1.0,
) -> NDArray[np.float32]:
    """Incoherent transfer function of a circular aperture, evaluated at k + offset.

    Parameters
    ----------
    shape : grid (y, x)
    pixel_size_um : sample distance of the grid
    na, wavelength_um : numerical aperture and emission wavelength; they set the cutoff
    offset_um : frequency (ky, kx) in cycles/um added to every grid frequency: the OTF as a SIM band
        sees it after it was moved by minus this vector
    damping : factor reached at the cutoff, in (0, 1]: real OTFs fall faster than the ideal one
        (aberrations, refractive index mismatch, the camera pixel's own sinc). 1 is the ideal OTF

    Returns
    -------
    NDArray[np.float32]
        Shape (y, x), FFT order, 1 at zero frequency, 0 beyond the cutoff.

    Notes
    -----
    With v = k / cutoff: 2/pi (acos v - v sqrt(1 - v^2)) damping^v. Ideal part: Goodman,
    Introduction to Fourier Optics, eq. 6-32; damping as in fairSIM (Mueller et al. 2016, Nature
    Communications 7, 10980).

    Raises
    ------
    ValueError
        If `damping` is not in (0, 1].
    """
    if not 0.0 < damping <= 1.0:
        raise ValueError(
            f"OTF damping is {damping}; it must lie in (0, 1], where 1 is the ideal OTF"
        )
    v = np.minimum(
        radial_frequency(shape, pixel_size_um, offset_um) / cutoff_um(na, wavelength_um), 1.0
    )
    return np.asarray(otf_profile(v) * damping**v, np.float32)


def otf_profile(v: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ideal transfer function at v = k / cutoff, 0 <= v <= 1."""
    return np.asarray((np.arccos(v) - v * np.sqrt(1.0 - v * v)) * (2.0 / np.pi), np.float64)


def apodisation(
    shape: tuple[int, int], pixel_size_um: float, cutoff_um: float, exponent: float = 1.0
) -> NDArray[np.float32]:
    """Cosine window that brings a spectrum smoothly to zero, so that the image does not ring.

    Parameters
    ----------
    shape, pixel_size_um : grid (y, x) and its sample distance
    cutoff_um : frequency in cycles/um at and beyond which the window is 0; for SIM the detection
        cutoff plus the length of k
    exponent : power of the cosine: 0 is a hard edge, 1 the usual choice, more is smoother and less
        sharp

    Returns
    -------
    NDArray[np.float32]
        Shape (y, x), FFT order: cos(pi/2 k/cutoff)^exponent.
    """
    v = radial_frequency(shape, pixel_size_um) / cutoff_um
    window = np.cos(np.minimum(v, 1.0) * (np.pi / 2)) ** exponent
    return np.asarray(np.where(v < 1.0, window, 0.0), np.float32)
