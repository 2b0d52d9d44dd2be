"""Where a prediction does not add up: its residual painted over the measurement.

Owns the two colours and the scale. Knows no stream.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from livesr.viewer.composite import Picture

# Okabe and Ito: apart for every common colour blindness, and from the channels, which are not shown under them.
INVENTED, MISSING = (230, 159, 0), (86, 180, 233)
"""Light that the channels show and nobody measured; light that was measured and is in no channel."""

_FAINTEST, _FULL = 0.05, 0.35  # shares of the measurement's display range: what is invisible there is no news here
_DIM = 0.6  # what is left of the grey picture, so that the colours stand out


def paint_residual(grey: Picture, residual: NDArray[np.float32], span: float) -> Picture:
    """Paint `residual` over `grey`.

    Parameters
    ----------
    grey
        Measurement, uint8 (y, x).
    residual
        Sum of channels - x, float32 (y, x), ADU.
    span
        Width of the measurement's display window, ADU: the overlay follows its contrast.

    Returns
    -------
    Picture
        uint8 (y, x, 3), newly allocated.

    Raises
    ------
    ValueError
        If the sizes differ.
    """
    if grey.shape != residual.shape:
        raise ValueError(f"the residual is {residual.shape}, the measurement {grey.shape}")
    span = max(span, 1e-3)
    opacity = (np.abs(residual) - np.float32(_FAINTEST * span)) / np.float32((_FULL - _FAINTEST) * span)
    np.clip(opacity, 0, 1, out=opacity)
    base = grey * np.float32(_DIM)
    invented = residual > 0
    picture = np.empty((*grey.shape, 3), np.uint8)
    for k in range(3):
        color = np.where(invented, np.float32(INVENTED[k]), np.float32(MISSING[k]))
        np.copyto(picture[..., k], base + opacity * (color - base), casting="unsafe")
    return picture
