"""What a page is told about pixels: intensities at a place, and histograms.

Owns the counting. All intensities are those of the frame, not of the 8-bit picture that is shown of
it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.formats.wire import Message
from livesr.viewer.browser.messages import View
from livesr.viewer.browser.pictures import (
    Intensity,
    channel_views,
    channels_of,
    finite,
    measurement_view,
    widefield_view,
)
from livesr.viewer.frame_pairs import FramePair

_BINS = 96
_SAMPLE_PIXELS = 1 << 16


def probe(pair: FramePair, at: tuple[float, ...]) -> dict[str, Any]:
    """Intensities at a place given in shares of the picture's width and height, and where that is
    in um.
    """
    values: dict[str, Any] = {}
    size = pair.shown.header.shape[-2:]
    pixel = _pixel(at, size)
    if pair.prediction is not None:
        row, column = _pixel(at, pair.prediction.header.shape[-2:])
        found = intensity_at(pair.prediction, (slice(None), row, column))
        values["channels"] = {
            c.label: finite(float(v)) for c, v in zip(channels_of(pair), found, strict=True)
        }
    for name, message in (("measurement", pair.measurement), ("widefield", pair.widefield)):
        if message is not None:
            there = _pixel(at, message.header.shape[-2:])
            values[name] = finite(float(intensity_at(message, there)))
            values[f"{name}_unit"] = message.header.unit
    size_um = finite(pair.shown.header.pixel_size_um)
    place = [round(p * size_um, 3) for p in reversed(pixel)] if size_um else None
    return {"x": pixel[1], "y": pixel[0], "um": place, **values}


def intensity_at(message: Message, index: tuple[Any, ...]) -> NDArray[np.float64]:
    """Intensity of some pixels in the unit of the message, float64, newly allocated."""
    assert message.pixels is not None
    own = Intensity.of(message)
    return (np.asarray(message.pixels[index], np.float64) - own.offset) * own.scale


def histograms(pair: FramePair, view: View) -> list[dict[str, Any]]:
    """Count each channel and the measurement, on a scale that holds the window as it is shown.

    The scale is of intensities, not of the numbers of the pixels, as `probe` and the windows are.
    """
    found: list[dict[str, Any]] = []
    if pair.prediction is not None and pair.prediction.pixels is not None:
        named = zip(
            channels_of(pair), channel_views(pair, view), pair.prediction.pixels, strict=True
        )
        found += [
            {
                "label": channel.label,
                **_histogram(plane, shown.window, Intensity.of(pair.prediction)),
            }
            for channel, shown, plane in named
        ]
    for name, message, shown in (
        ("measurement", pair.measurement, measurement_view(pair, view)),
        ("widefield", pair.widefield, widefield_view(pair, view)),
    ):
        if shown and message is not None and message.pixels is not None:
            counted = _histogram(message.pixels, shown.window, Intensity.of(message))
            found.append({"label": None, "of": name, **counted})
    return found


def _histogram(plane: NDArray[Any], window: tuple[float, float], own: Intensity) -> dict[str, Any]:
    step = max(1, math.isqrt(plane.size // _SAMPLE_PIXELS))
    sample = np.nan_to_num(plane[::step, ::step], posinf=0, neginf=0)
    low, high = (float(v) for v in np.percentile(sample, (0.0, 99.98)))
    low, high = min(low, window[0]), max(high, window[0] + 1.15 * (window[1] - window[0]), low + 1)
    counts, _ = np.histogram(sample, _BINS, (low, high))
    return {"low": own.value(low), "high": own.value(high), "counts": counts.tolist()}


def _pixel(at: tuple[float, ...], size: tuple[int, ...]) -> tuple[int, int]:
    """(row, column) of a place in shares of (width, height)."""
    return min(int(at[1] * size[0]), size[0] - 1), min(int(at[0] * size[1]), size[1] - 1)
