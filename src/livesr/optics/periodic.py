"""Spectra of pictures whose opposite edges do not fit together.

Owns the periodic component of a picture. Axes (..., y, x), arrays in FFT order. Knows nothing about
cameras or reconstruction.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray


def periodic_spectrum(
    pictures: NDArray[np.float32] | NDArray[np.complex64],
) -> NDArray[np.complex64]:
    """Return the Fourier transform along y and x of the periodic component of pictures.

    What is left out is smooth, and has the jumps from each edge to the one opposite: in a plain
    transform they make a cross of bright light that passes for detail. No pixel is darkened, as
    under a window.

    Parameters
    ----------
    pictures : (..., y, x), at least 2 x 2

    Notes
    -----
    Moisan 2011, Journal of Mathematical Imaging and Vision 39, 161: the smooth component is the one
    of mean 0 whose periodic Laplacian is the jumps.
    """
    height, width = pictures.shape[-2:]
    below, right = (np.exp(2j * np.pi * np.arange(n) / n) for n in (height, width))
    along_x = scipy.fft.fft(pictures[..., -1, :] - pictures[..., 0, :])
    along_y = scipy.fft.fft(pictures[..., :, -1] - pictures[..., :, 0])
    laplacian = 2 * (below.real[:, None] + right.real) - 4
    laplacian[0, 0] = 1.0  # where the jumps are 0
    spectrum = np.asarray(scipy.fft.fft2(pictures), np.complex64)
    spectrum -= along_x[..., None, :] * ((1 - below)[:, None] / laplacian).astype(np.complex64)
    spectrum -= along_y[..., :, None] * ((1 - right) / laplacian).astype(np.complex64)
    return spectrum
