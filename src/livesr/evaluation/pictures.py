"""One picture that shows what the numbers mean.

Input, each channel, their composite, the truth's and the error, row by row.

Owns layout and scaling for the eye; no measure is taken from it. Prediction and truth of a
structure share one window, so that light painted where none belongs shows. The error is |prediction
- truth| in each structure's colour, twice as bright.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import ImageDraw

Image = NDArray[np.floating[Any]]
Picture = NDArray[np.uint8]

_GAP_PX = 4
_LABEL_PX = 16
_WHITE_PERCENTILE = 99.8


@dataclass(frozen=True, slots=True)
class PictureRow:
    """One frame: `input` (y, x), `prediction` and `truth` (c, y, x), all in ADU.

    `colors` as RRGGBB.
    """

    title: str
    input: Image
    prediction: Image
    truth: Image
    names: tuple[str, ...]
    colors: tuple[str, ...]


def montage(rows: Sequence[PictureRow], tile_px: int = 320) -> PILImage.Image:
    """Draw `rows` below each other.

    Every tile shows at most the middle `tile_px` pixels of a frame, one to one.

    Raises
    ------
    ValueError
        If there is no row.
    """
    if not rows:
        raise ValueError("a picture needs at least one row")
    tiles = [_tiles(row, tile_px) for row in rows]
    side, columns = tiles[0][0][1].shape[0], len(tiles[0])
    step = side + _GAP_PX
    canvas = PILImage.new(
        "RGB", (columns * step - _GAP_PX, len(rows) * (step + _LABEL_PX) - _GAP_PX), "white"
    )
    draw = ImageDraw.Draw(canvas)
    for y, row in enumerate(tiles):
        top = y * (step + _LABEL_PX)
        for x, (label, picture) in enumerate(row):
            draw.text((x * step + 2, top + 2), label, fill="black")
            canvas.paste(PILImage.fromarray(picture), (x * step, top + _LABEL_PX))
    return canvas


def _tiles(row: PictureRow, tile_px: int) -> list[tuple[str, Picture]]:
    middle = _middle(row.input.shape, tile_px)
    white = [
        _white(truth) or _white(channel)
        for truth, channel in zip(row.truth, row.prediction, strict=True)
    ]
    prediction = [_scaled(c[middle], w) for c, w in zip(row.prediction, white, strict=True)]
    truth = [_scaled(c[middle], w) for c, w in zip(row.truth, white, strict=True)]
    error = [
        _scaled(2 * np.abs(p - t)[middle], w)
        for p, t, w in zip(row.prediction, row.truth, white, strict=True)
    ]
    grey = _scaled(row.input[middle], _white(row.input))
    return [
        (f"input, {row.title}", _coloured([grey], ["FFFFFF"])),
        *(
            (name, _coloured([c], [rgb]))
            for name, c, rgb in zip(row.names, prediction, row.colors, strict=True)
        ),
        ("composite", _coloured(prediction, row.colors)),
        ("truth", _coloured(truth, row.colors)),
        ("error x 2", _coloured(error, row.colors)),
    ]


def _middle(shape: tuple[int, ...], tile_px: int) -> tuple[slice, slice]:
    side = min(*shape, tile_px)
    y, x = ((n - side) // 2 for n in shape)
    return slice(y, y + side), slice(x, x + side)


def _white(image: Image) -> float:
    return max(float(np.percentile(image, _WHITE_PERCENTILE)), 0.0)


def _scaled(image: Image, white: float) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = np.clip(image / (white or 1.0), 0, 1).astype(np.float32)
    return scaled


def _coloured(channels: Sequence[NDArray[np.float32]], colors: Sequence[str]) -> Picture:
    total = np.zeros((*channels[0].shape, 3), np.float32)
    for channel, color in zip(channels, colors, strict=True):
        total += channel[..., None] * np.array(
            [int(color[i : i + 2], 16) for i in (0, 2, 4)], np.float32
        )
    return np.minimum(total, 255).astype(np.uint8)
