"""The real images that scripts compare with: no part of the repository, none learned from.

Owns how they are read.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image as Pillow

Picture = NDArray[np.float32]


def images(data: Path, patterns: Iterable[str]) -> dict[str, Picture]:
    """Return the images (y, x) by their names, in the order of `patterns` below `data`.

    What follows a # in a pattern is the colour of a picture, 0 for red; without one, all colours
    make one grey.
    """
    found = {}
    for pattern in patterns:
        names, _, colour = pattern.partition("#")
        for path in sorted(data.glob(names)):
            found[path.stem] = _image(path, colour)
    return found


def _image(path: Path, colour: str) -> Picture:
    if path.suffix == ".tif":
        pixels = tifffile.imread(path)
    elif colour:
        pixels = np.asarray(Pillow.open(path))[..., int(colour)]
    else:
        pixels = np.asarray(Pillow.open(path).convert("L"))
    return np.asarray(np.squeeze(pixels), np.float32)
