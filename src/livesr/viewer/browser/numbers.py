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
    channel_views,
    channels_of,
    finite,
    measurement_view,
    offset_of,
)
from livesr.viewer.frame_pairs import FramePair

_BINS = 96
_SAMPLE_PIXELS = 1 << 16


def probe(pair: FramePair, at: tuple[float, ...]) -> dict[str, Any]:
    """Intensities in ADU at a place given in shares of the picture's width and height, and where
    that is in um.
    """
    values: dict[str, Any] = {}
    size = pair.shown.header.shape[-2:]
    pixel = _pixel(at, size)
    if pair.prediction is not None:
        row, column = _pixel(at, pair.prediction.header.shape[-2:])
        found = _intensity_at(pair.prediction, (slice(None), row, column))
        values["channels"] = {
            c.label: finite(float(v)) for c, v in zip(channels_of(pair), found, strict=True)
        }
    if pair.measurement is not None:
        values["measurement"] = finite(
            float(_intensity_at(pair.measurement, _pixel(at, pair.measurement.header.shape[-2:])))
        )
    size_um = finite(pair.shown.header.pixel_size_um)
    place = [round(p * size_um, 3) for p in reversed(pixel)] if size_um else None
    return {"x": pixel[1], "y": pixel[0], "um": place, **values}


def _intensity_at(message: Message, index: tuple[Any, ...]) -> NDArray[np.float64]:
    """Intensity in ADU of some pixels, float64."""
    assert message.pixels is not None
    return np.asarray(message.pixels[index], np.float64) - message.header.offset_adu


def histograms(pair: FramePair, view: View) -> list[dict[str, Any]]:
    """Count each channel and the measurement, on a scale that holds the window as it is shown.

    The scale is of intensities in ADU, the offset taken off, as `probe` and the windows are.
    """
    found: list[dict[str, Any]] = []
    if pair.prediction is not None and pair.prediction.pixels is not None:
        named = zip(
            channels_of(pair), channel_views(pair, view), pair.prediction.pixels, strict=True
        )
        found += [
            {
                "label": channel.label,
                **_histogram(plane, shown.window, offset_of(pair.prediction)),
            }
            for channel, shown, plane in named
        ]
    measured = measurement_view(pair, view)
    if measured and pair.measurement is not None and pair.measurement.pixels is not None:
        counted = _histogram(pair.measurement.pixels, measured.window, offset_of(pair.measurement))
        found.append({"label": None, **counted})
    return found


def _histogram(
    plane: NDArray[Any], window: tuple[float, float], offset_adu: float
) -> dict[str, Any]:
    step = max(1, math.isqrt(plane.size // _SAMPLE_PIXELS))
    sample = np.nan_to_num(plane[::step, ::step], posinf=0, neginf=0)
    low, high = (float(v) for v in np.percentile(sample, (0.0, 99.98)))
    low, high = min(low, window[0]), max(high, window[0] + 1.15 * (window[1] - window[0]), low + 1)
    counts, _ = np.histogram(sample, _BINS, (low, high))
    return {"low": low - offset_adu, "high": high - offset_adu, "counts": counts.tolist()}


def _pixel(at: tuple[float, ...], size: tuple[int, ...]) -> tuple[int, int]:
    """(row, column) of a place in shares of (width, height)."""
    return min(int(at[1] * size[0]), size[0] - 1), min(int(at[0] * size[1]), size[1] - 1)
