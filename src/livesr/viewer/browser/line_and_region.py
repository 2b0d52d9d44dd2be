"""What a line or a region of the pictures holds: a profile, or means.

Owns the sampling. Intensities are those of the frame, in its unit, of every picture that a page can
show; each says whether it was measured or predicted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from livesr.formats.wire import Message
from livesr.viewer.browser.messages import Measure, View
from livesr.viewer.browser.numbers import intensity_at
from livesr.viewer.browser.pictures import channel_views, channels_of, finite
from livesr.viewer.frame_pairs import FramePair

_MOST_SAMPLES = 512


def measured(pair: FramePair, view: View, wanted: Measure) -> dict[str, Any]:
    """Return what a page is told of a line or a region.

    Returns
    -------
    ``shape``, ``um`` (length of the line, or width and height of the region; None where the size of
    a pixel is not known) and ``series``. Each has ``label``, ``of`` ("measurement", "prediction" or
    "widefield"), ``t``, ``unit`` and ``color``; of a line ``values``, evenly spaced from its one
    end to the other, of a region ``mean``, ``sd`` and ``pixels``.
    """
    assert wanted.at is not None
    read = _profile if wanted.shape == "line" else _region
    series = [{**about, **read(message, c, wanted.at)} for about, message, c in _planes(pair, view)]
    return {"shape": wanted.shape, "um": _size_um(pair.shown, wanted), "series": series}


def _planes(
    pair: FramePair, view: View
) -> Iterator[tuple[dict[str, Any], Message, tuple[int, ...]]]:
    """Yield what is known of every plane, its message, and its index in front of (y, x)."""
    for kind, message in (("widefield", pair.widefield), ("measurement", pair.measurement)):
        if message is not None:
            yield _about(kind, message, kind, "FFFFFF"), message, ()
    if pair.prediction is not None:
        named = zip(channels_of(pair), channel_views(pair, view), strict=True)
        for c, (channel, shown) in enumerate(named):
            about = _about(channel.label, pair.prediction, "prediction", shown.color)
            yield about, pair.prediction, (c,)


def _about(label: str, message: Message, kind: str, color: str) -> dict[str, Any]:
    header = message.header
    return {"label": label, "of": kind, "t": header.t, "unit": header.unit, "color": color}


def _profile(message: Message, c: tuple[int, ...], at: tuple[float, ...]) -> dict[str, Any]:
    """Return intensities along a line, a pixel apart, between pixels interpolated linearly."""
    height, width = message.header.shape[-2:]
    # The middle of the first pixel is half a pixel from the picture's edge.
    from_, to = ((at[n + 1] * height - 0.5, at[n] * width - 0.5) for n in (0, 2))
    n = min(math.ceil(math.dist(from_, to)) + 1, _MOST_SAMPLES)
    along = np.linspace(0, 1, max(n, 2))
    places = np.array([a + along * (b - a) for a, b in zip(from_, to, strict=True)])
    (top, left), (bottom, right) = _box(places, height, width)
    plane = intensity_at(message, (*c, slice(top, bottom), slice(left, right)))
    found = ndimage.map_coordinates(plane, places - [[top], [left]], order=1, mode="nearest")
    return {"values": [finite(float(f"{v:.6g}")) for v in found]}


def _box(
    places: NDArray[np.float64], height: int, width: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the first and the last pixel + 1 (row, column) that a line needs."""
    low = np.clip(np.floor(places.min(1)).astype(int), 0, (height - 1, width - 1))
    high = np.clip(np.ceil(places.max(1)).astype(int), 0, (height - 1, width - 1))
    return (int(low[0]), int(low[1])), (int(high[0]) + 1, int(high[1]) + 1)


def _region(message: Message, c: tuple[int, ...], at: tuple[float, ...]) -> dict[str, Any]:
    """Return mean and standard deviation of the pixels whose middle is in a region.

    One at least.
    """
    height, width = message.header.shape[-2:]
    rows, columns = _span(at[1], at[3], height), _span(at[0], at[2], width)
    pixels = intensity_at(message, (*c, rows, columns))
    mean, sd = float(np.nanmean(pixels)), float(np.nanstd(pixels))
    return {"mean": finite(mean), "sd": finite(sd), "pixels": pixels.size}


def _span(one: float, other: float, n: int) -> slice:
    low, high = sorted((one * n, other * n))
    first = min(math.ceil(low - 0.5), n - 1)
    return slice(first, max(math.ceil(high - 0.5), first + 1))


def _size_um(message: Message, wanted: Measure) -> list[float] | None:
    """Return (length) of a line, (width, height) of a region in um; None where nobody knows."""
    assert wanted.at is not None
    size_um = finite(message.header.pixel_size_um)
    height, width = message.header.shape[-2:]
    if not size_um:
        return None
    across = abs(wanted.at[2] - wanted.at[0]) * width * size_um
    down = abs(wanted.at[3] - wanted.at[1]) * height * size_um
    return [math.hypot(across, down)] if wanted.shape == "line" else [across, down]
