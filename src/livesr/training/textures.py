"""Pictures of no structure in particular: what a network learns to leave to nobody.

Thresholded, ridged or exponentiated Gaussian random fields of any grain, direction and density,
seen through a passband. None is drawn to look like a structure, so that the structures which an
engine does not know stay unseen in training and can be used to test it.

References
----------
Hendrycks, Mazeika and Dietterich 2019, "Deep anomaly detection with outlier exposure", ICLR.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Image = NDArray[np.float32]

_GRAIN_PX, _STRETCH = (2.2, 12.0), 4.0  # of the field: fine to coarse, and the longest of it
_PASSBAND_PX = 1.0  # sigma of what a microscope leaves of an edge
_PATCHY, _PATCH_PX = 0.4, (20.0, 50.0)  # share that fill a part of the picture, and how coarse


def texture(rng: np.random.Generator, side: int) -> Image:
    """Draw one, float32 (side, side), not negative."""
    field, level, kind = _field(rng, side), rng.uniform(-0.3, 2.5), rng.integers(3)
    if kind == 0:  # grains, worms and holes
        image = np.clip((field - level) * rng.uniform(1, 6), 0, 1)
    elif kind == 1:  # lines of equal height
        image = np.exp(-(((field - level / 2) / rng.uniform(0.08, 0.35)) ** 2))
    else:  # heaps
        image = np.exp(field * rng.uniform(0.6, 2))
    if rng.random() < _PATCHY:
        smooth = gaussian_filter(
            rng.standard_normal((side, side), np.float32), rng.uniform(*_PATCH_PX)
        )
        image = image / (1 + np.exp(-4 * (smooth - smooth.mean()) / smooth.std()))
    return np.asarray(gaussian_filter(image.astype(np.float32), _PASSBAND_PX))


def _field(rng: np.random.Generator, side: int) -> NDArray[np.float64]:
    """Return a Gaussian random field, of a low-pass or a band, of mean 0 and deviation 1."""
    grain = np.exp(rng.uniform(*np.log(_GRAIN_PX)))
    stretch = np.exp(rng.uniform(0, np.log(_STRETCH)))
    angle = rng.uniform(0, np.pi)
    ky, kx = np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij")
    along = np.cos(angle) * kx + np.sin(angle) * ky
    across = np.cos(angle) * ky - np.sin(angle) * kx
    squared = along**2 * stretch + across**2 / stretch
    if rng.random() < 0.5:
        passed = np.exp(-2 * (np.pi * grain) ** 2 * squared)
    else:
        passed = np.exp(-(((np.sqrt(squared) - 1 / (6 * grain)) * 12 * grain) ** 2) / 2)
    white = np.fft.rfft2(rng.standard_normal((side, side)))
    field = np.fft.irfft2(white * passed, (side, side))
    return np.asarray((field - field.mean()) / field.std())
