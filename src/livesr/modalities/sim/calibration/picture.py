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

from livesr.modalities.sim.calibration.groups import Optics
from livesr.modalities.sim.calibration.patterns import FoundPattern

_TILE_PX = 384
_GAP_PX = 6
_TITLE_PX = 18
_REACH = 1.25  # of the cutoff
_FOUND, _CUTOFF, _INK, _GROUND = "#40ff70", "#808080", "#e8e8e8", "#101010"


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


def sheet(rows: Sequence[Sequence[tuple[str, Image.Image]]]) -> Image.Image:
    """Lay out rows of titled tiles (`tile`)."""
    columns = max(map(len, rows))
    step_x, step_y = _TILE_PX + _GAP_PX, _TILE_PX + _TITLE_PX + _GAP_PX
    canvas = Image.new("RGB", (columns * step_x + _GAP_PX, len(rows) * step_y + _GAP_PX), _GROUND)
    pen = ImageDraw.Draw(canvas)
    for y, row in enumerate(rows):
        for x, (title, picture) in enumerate(row):
            corner = _GAP_PX + x * step_x, _GAP_PX + y * step_y
            pen.text((corner[0], corner[1] + 2), title, fill=_INK)
            canvas.paste(picture, (corner[0], corner[1] + _TITLE_PX))
    return canvas


def _spectrum(power: NDArray[Any], pattern: FoundPattern, optics: Optics) -> Image.Image:
    """Logarithm of a correlation out to a little beyond the cutoff, with the cutoff and the
    peak.
    """
    # A peak is a few samples wide: it must outlive the reduction to the size of a tile.
    seen = scipy.ndimage.maximum_filter(power, 1 + 2 * (max(power.shape) // (2 * _TILE_PX)))
    shown = Image.fromarray(_grey(np.log(seen + 1e-3 * np.median(seen)), 20, 99.97))
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
        (_TILE_PX, _TILE_PX), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR
    ).convert("RGB")
    pen, scale, centre = ImageDraw.Draw(shown), _TILE_PX / (2 * reach), _TILE_PX / 2
    _circle(pen, (centre, centre), optics.cutoff_um * scale, _CUTOFF)
    for wave in pattern.pattern.waves:
        _circle(pen, (centre + wave.k_um[1] * scale, centre + wave.k_um[0] * scale), 9, _FOUND)
    return shown


def _circle(
    pen: ImageDraw.ImageDraw, centre: tuple[float, float], radius: float, colour: str
) -> None:
    x, y = centre
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour)


def tile(picture: NDArray[Any]) -> Image.Image:
    """Middle of a picture, one to one; a small one is enlarged."""
    y, x = ((n - min(n, _TILE_PX)) // 2 for n in picture.shape)
    part = Image.fromarray(_grey(picture[y : y + _TILE_PX, x : x + _TILE_PX], 1, 99.7))
    factor = max(_TILE_PX // max(part.size), 1)
    canvas = Image.new("L", (_TILE_PX, _TILE_PX))
    canvas.paste(part.resize((part.width * factor, part.height * factor), Image.Resampling.NEAREST))
    return canvas


def _grey(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    black, white = np.percentile(values, (low, high))
    return np.asarray(
        np.clip((values - black) * (255 / max(white - black, 1e-30)), 0, 255), np.uint8
    )
