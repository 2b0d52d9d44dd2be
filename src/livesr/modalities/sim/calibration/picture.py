"""The picture that a person checks a calibration by.

Where the patterns were found, and what they do to the picture.

Owns the drawing. Measures nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from livesr.evaluation.contact_sheet import TILE_PX, grey, sheet, tile
from livesr.modalities.sim.calibration.groups import Optics
from livesr.modalities.sim.calibration.patterns import FoundPattern

_REACH = 1.25  # of the cutoff
_FOUND, _CUTOFF = "#40ff70", "#808080"


def draw(
    maps: Sequence[NDArray[Any]],
    found: Sequence[FoundPattern],
    optics: Optics,
    widefield: NDArray[Any],
    reconstruction: NDArray[Any],
) -> Image.Image:
    """Draw the correlation of every angle with its peak marked, and the middle of widefield and
    reconstruction below.

    Parameters
    ----------
    maps : one per angle, zero frequency in the middle
        (`livesr.modalities.sim.calibration.patterns.correlation_maps`)
    found : one per angle
    optics : of the raw frames
    widefield, reconstruction : (2y, 2x), on one grid
    """
    titles = (
        f"angle {i}: {pattern.period_nm:.1f} nm, {pattern.direction_deg:.1f} deg, peak"
        f" {pattern.peak:.0f} x noise"
        for i, pattern in enumerate(found)
    )
    spectra = [
        (title, _spectrum(power, pattern, optics))
        for title, power, pattern in zip(titles, maps, found, strict=True)
    ]
    return sheet(
        [spectra, [("widefield", tile(widefield)), ("reconstruction", tile(reconstruction))]]
    )


def _spectrum(power: NDArray[Any], pattern: FoundPattern, optics: Optics) -> Image.Image:
    """Logarithm of a correlation out to a little beyond the cutoff, with the cutoff and the
    peak.
    """
    # A peak is a few samples wide: it must outlive the reduction to the size of a tile.
    seen = scipy.ndimage.maximum_filter(power, 1 + 2 * (max(power.shape) // (2 * TILE_PX)))
    shown = Image.fromarray(grey(np.log(seen + 1e-3 * np.median(seen)), 20, 99.97))
    per_um = [n * optics.pixel_size_um for n in power.shape]
    reach = _REACH * optics.cutoff_um
    middle = [n // 2 for n in power.shape]
    box = (
        middle[1] - reach * per_um[1],
        middle[0] - reach * per_um[0],
        middle[1] + reach * per_um[1],
        middle[0] + reach * per_um[0],
    )
    shown = shown.transform(
        (TILE_PX, TILE_PX), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR
    ).convert("RGB")
    pen, scale, centre = ImageDraw.Draw(shown), TILE_PX / (2 * reach), TILE_PX / 2
    _circle(pen, (centre, centre), optics.cutoff_um * scale, _CUTOFF)
    for wave in pattern.pattern.waves:
        _circle(pen, (centre + wave.k_um[1] * scale, centre + wave.k_um[0] * scale), 9, _FOUND)
    return shown


def _circle(
    pen: ImageDraw.ImageDraw, centre: tuple[float, float], radius: float, colour: str
) -> None:
    x, y = centre
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour)
