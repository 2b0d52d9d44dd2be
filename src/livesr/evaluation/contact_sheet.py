"""Titled pictures side by side, as a person looks at them.

Owns the layout, the grey values and their file. Measures nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from livesr.base.errors import ConfigError

TILE_PX = 384
"""Side of a tile."""

_GAP_PX = 6
_TITLE_PX = 18
_INK, _GROUND = "#e8e8e8", "#101010"


def sheet(rows: Sequence[Sequence[tuple[str, Image.Image]]]) -> Image.Image:
    """Lay out rows of titled tiles (`tile`)."""
    columns = max(map(len, rows))
    step_x, step_y = TILE_PX + _GAP_PX, TILE_PX + _TITLE_PX + _GAP_PX
    canvas = Image.new("RGB", (columns * step_x + _GAP_PX, len(rows) * step_y + _GAP_PX), _GROUND)
    pen = ImageDraw.Draw(canvas)
    for y, row in enumerate(rows):
        for x, (title, picture) in enumerate(row):
            corner = _GAP_PX + x * step_x, _GAP_PX + y * step_y
            pen.text((corner[0], corner[1] + 2), title, fill=_INK)
            canvas.paste(picture, (corner[0], corner[1] + _TITLE_PX))
    return canvas


def tile(picture: NDArray[Any]) -> Image.Image:
    """Middle of a picture, one to one; a small one is enlarged."""
    y, x = ((n - min(n, TILE_PX)) // 2 for n in picture.shape)
    part = Image.fromarray(grey(picture[y : y + TILE_PX, x : x + TILE_PX], 1, 99.7))
    factor = max(TILE_PX // max(part.size), 1)
    canvas = Image.new("L", (TILE_PX, TILE_PX))
    canvas.paste(part.resize((part.width * factor, part.height * factor), Image.Resampling.NEAREST))
    return canvas


def save(picture: Image.Image, path: Path) -> None:
    """Write a picture, as what the file's name ends with says.

    Raises
    ------
    ConfigError
        If it cannot be written.
    """
    try:
        picture.save(path)
    except KeyError as e:
        raise ConfigError(f"Cannot write {path}: {e.args[0]} can only be read; try .png.") from e
    except (OSError, ValueError) as e:  # ValueError: no format is called so
        raise ConfigError(f"Cannot write {path}: {getattr(e, 'strerror', None) or e}.") from e


def grey(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Return 8 bits, black and white at two percentiles of the values."""
    black, white = np.percentile(values, (low, high))
    return np.asarray(
        np.clip((values - black) * (255 / max(white - black, 1e-30)), 0, 255), np.uint8
    )
