"""The picture that a person checks a calibration by: where the patterns were found, and what they do to the picture.

Owns the drawing. Measures nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from livesr.calibration.groups import Optics
from livesr.calibration.patterns import FoundPattern

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
    """Draw the correlation of every angle with its peak marked, and the middle of widefield and reconstruction below.

    Parameters
    ----------
    maps : one per angle, zero frequency in the middle (`livesr.calibration.patterns.correlation_maps`)
    found : one per angle
    optics : of the raw frames
    widefield, reconstruction : (2y, 2x), on one grid
    """
    columns = max(len(maps), 2)
    size = columns * (_TILE_PX + _GAP_PX) + _GAP_PX, 2 * (_TILE_PX + _TITLE_PX + _GAP_PX) + _GAP_PX
    canvas = Image.new("RGB", size, _GROUND)
    pen = ImageDraw.Draw(canvas)
    for i, (power, pattern) in enumerate(zip(maps, found, strict=True)):
        title = (
            f"angle {i}: {pattern.period_nm:.1f} nm, {pattern.direction_deg:.1f} deg, peak {pattern.peak:.0f} x noise"
        )
        _place(canvas, pen, _spectrum(power, pattern, optics), (i, 0), title)
    _place(canvas, pen, _tile(widefield), (0, 1), "widefield")
    _place(canvas, pen, _tile(reconstruction), (1, 1), "reconstruction")
    return canvas


def _place(canvas: Image.Image, pen: ImageDraw.ImageDraw, tile: Image.Image, cell: tuple[int, int], title: str) -> None:
    x = _GAP_PX + cell[0] * (_TILE_PX + _GAP_PX)
    y = _GAP_PX + cell[1] * (_TILE_PX + _TITLE_PX + _GAP_PX)
    pen.text((x, y + 2), title, fill=_INK)
    canvas.paste(tile, (x, y + _TITLE_PX))


def _spectrum(power: NDArray[Any], pattern: FoundPattern, optics: Optics) -> Image.Image:
    """Logarithm of a correlation out to a little beyond the cutoff, with the cutoff and the peak."""
    # A peak is a few samples wide: it must outlive the reduction to the size of a tile.
    seen = scipy.ndimage.maximum_filter(power, 1 + 2 * (max(power.shape) // (2 * _TILE_PX)))
    tile = Image.fromarray(_grey(np.log(seen + 1e-3 * np.median(seen)), 20, 99.97))
    per_um = [n * optics.pixel_size_um for n in power.shape]
    reach = _REACH * optics.cutoff_um
    middle = [n // 2 for n in power.shape]
    box = (
        middle[1] - reach * per_um[1],
        middle[0] - reach * per_um[0],
        middle[1] + reach * per_um[1],
        middle[0] + reach * per_um[0],
    )
    tile = tile.transform((_TILE_PX, _TILE_PX), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR).convert("RGB")
    pen, scale, centre = ImageDraw.Draw(tile), _TILE_PX / (2 * reach), _TILE_PX / 2
    _circle(pen, (centre, centre), optics.cutoff_um * scale, _CUTOFF)
    for wave in pattern.pattern.waves:
        _circle(pen, (centre + wave.k_um[1] * scale, centre + wave.k_um[0] * scale), 9, _FOUND)
    return tile


def _circle(pen: ImageDraw.ImageDraw, centre: tuple[float, float], radius: float, colour: str) -> None:
    x, y = centre
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour)


def _tile(picture: NDArray[Any]) -> Image.Image:
    """Middle of a picture, one to one; a small one is enlarged."""
    y, x = ((n - min(n, _TILE_PX)) // 2 for n in picture.shape)
    part = Image.fromarray(_grey(picture[y : y + _TILE_PX, x : x + _TILE_PX], 1, 99.7))
    factor = max(_TILE_PX // max(part.size), 1)
    canvas = Image.new("L", (_TILE_PX, _TILE_PX))
    canvas.paste(part.resize((part.width * factor, part.height * factor), Image.Resampling.NEAREST))
    return canvas


def _grey(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    black, white = np.percentile(values, (low, high))
    return np.asarray(np.clip((values - black) * (255 / max(white - black, 1e-30)), 0, 255), np.uint8)
