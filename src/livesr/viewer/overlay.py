"""Where a prediction does not add up, where it is uncertain, and how high what is measured lies:
painted over the measurement.

Owns the colours and the scale. Knows no stream.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from livesr.formats.layout import DEPTH_COLORS
from livesr.viewer.composite import Picture, ramp

# Okabe and Ito: apart for every common colour blindness, and from the channels, which are not shown
# under them.
INVENTED, MISSING = (230, 159, 0), (86, 180, 233)
"""Light that the channels show and nobody measured.

Light that was measured and is in no channel.
"""

WRONG = (240, 228, 66)
"""What contradicts the widefield picture."""

UNCERTAIN = (213, 94, 0)
"""What the network is not sure of."""

FAINTEST, FULL = 0.05, 0.35
"""Where an overlay begins to show, and where it has its full colour.

Shares of the measurement's display range: what is invisible there is no news here.
"""

_DIM = 0.6  # what is left of the grey picture, so that the colours stand out


def paint_residual(grey: Picture, residual: NDArray[np.float32], span: float) -> Picture:
    """Paint `residual` over `grey`.

    Parameters
    ----------
    grey : measurement, uint8 (y, x)
    residual : sum of channels - x, float32 (y, x), ADU
    span : width of the measurement's display window, ADU: the overlay follows its contrast

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
    invented = residual > 0
    colors = [
        np.where(invented, np.float32(i), np.float32(m))
        for i, m in zip(INVENTED, MISSING, strict=True)
    ]
    return _painted(grey, colors, _opacity(np.abs(residual), span))


def paint_uncertainty(grey: Picture, deviation: NDArray[np.float32], span: float) -> Picture:
    """Paint `deviation` over `grey`: the stronger the colour, the less sure the prediction.

    Parameters
    ----------
    grey : measurement, uint8 (y, x)
    deviation : standard deviation of the prediction, float32 (y, x), ADU; where it has more pixels,
        as many times more along y and x
    span : width of the measurement's display window, ADU

    Returns
    -------
    Picture
        uint8 (y, x, 3) of the deviation's size, newly allocated.

    Raises
    ------
    ValueError
        If the deviation's size is no multiple of the measurement's.
    """
    factor = deviation.shape[0] // max(grey.shape[0], 1)
    if factor < 1 or (grey.shape[0] * factor, grey.shape[1] * factor) != deviation.shape:
        raise ValueError(f"the uncertainty is {deviation.shape}, the measurement {grey.shape}")
    enlarged = np.repeat(np.repeat(grey, factor, 0), factor, 1) if factor > 1 else grey
    return _painted(enlarged, [np.float32(value) for value in UNCERTAIN], _opacity(deviation, span))


def paint_error(grey: Picture, error: NDArray[np.float32], span: float) -> Picture:
    """Paint an error map over `grey`: the stronger the colour, the larger the contradiction.

    Parameters
    ----------
    grey : measurement, uint8 (y, x)
    error : float32 (y, x), ADU of the exposures
    span : of the widefield picture that it was compared with, ADU

    Returns
    -------
    Picture
        uint8 (y, x, 3), newly allocated.

    Raises
    ------
    ValueError
        If the sizes differ.
    """
    if grey.shape != error.shape:
        raise ValueError(f"the error map is {error.shape}, the measurement {grey.shape}")
    return _painted(grey, [np.float32(value) for value in WRONG], _opacity(error, span))


def paint_depth(
    grey: Picture, depth_nm: NDArray[np.float32], range_nm: tuple[float, float]
) -> Picture:
    """Give every pixel of `grey` the colour of its z, as bright as it is.

    Parameters
    ----------
    grey : running image, uint8 (y, x)
    depth_nm : mean z, float32 (y, x), NaN where nothing is
    range_nm : z of the first and of the last of `DEPTH_COLORS`

    Returns
    -------
    Picture
        uint8 (y, x, 3), newly allocated.

    Raises
    ------
    ValueError
        If the sizes differ.
    """
    if grey.shape != depth_nm.shape:
        raise ValueError(f"the depth is {depth_nm.shape}, the measurement {grey.shape}")
    low, high = range_nm
    level = np.nan_to_num((depth_nm - low) / max(high - low, 1e-3) * 255).clip(0, 255)
    color = ramp(DEPTH_COLORS)[level.astype(np.uint8)]
    return np.asarray(color * (grey[..., None] / np.float32(255)), np.uint8)


def _opacity(light: NDArray[np.float32], span: float) -> NDArray[np.float32]:
    span = max(span, 1e-3)
    opacity: NDArray[np.float32] = (light - np.float32(FAINTEST * span)) / np.float32(
        (FULL - FAINTEST) * span
    )
    return np.clip(opacity, 0, 1, out=opacity)


def _painted(
    grey: Picture, colors: Sequence[NDArray[np.float32] | np.float32], opacity: NDArray[np.float32]
) -> Picture:
    """Lay a colour, one of each pixel or one of all, over the dimmed picture."""
    base = grey * np.float32(_DIM)
    picture = np.empty((*grey.shape, 3), np.uint8)
    for k, color in enumerate(colors):
        np.copyto(picture[..., k], base + opacity * (color - base), casting="unsafe")
    return picture
