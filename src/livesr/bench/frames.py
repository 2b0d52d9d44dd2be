"""Frames as a run makes them, for suites of sinks.

Raw group, measurement and prediction of one time point.

Owns their pixels: smooth structures with shot noise, so that compression works as hard as on real
frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from livesr.base.frames import MulticolorFrame, Normalisation, RawStack, SRFrame, Stream
from livesr.base.run_description import ChannelDescription, RunDescription
from livesr.base.timing import now_ns

_N_RAW = 9
_NAMES, _COLORS = ("microtubules", "er", "lysosomes"), ("00FF00", "FF00FF", "FFFF00")
_DIFFERENT = 4
_STREAM = Stream(0, "488", 0)


@dataclass(frozen=True, slots=True)
class TimePoint:
    """Everything that one time point of a run gives its sinks."""

    raw: RawStack
    recon: SRFrame
    separated: MulticolorFrame

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels as a store keeps them: 16 bit each."""
        raw = self.raw.nbytes
        return raw + self.recon.image.size * 2 + self.separated.channels.nbytes

    def blocks(self) -> Iterator[NDArray[np.uint16]]:
        """Yield all pixels as a store keeps them."""
        yield from (np.asarray(f, np.uint16) for f in self.raw.came)
        yield self.recon.image.astype(np.uint16)
        yield self.separated.channels


def description(side: int) -> RunDescription:
    """Return the run whose raw frames are `side` x `side`."""
    channel = ChannelDescription(
        name=_STREAM.channel,
        raw_labels=tuple(f"raw {i}" for i in range(_N_RAW)),
        raw_shape=(side, side),
        raw_dtype="uint16",
        raw_pixel_size_um=0.065,
        recon_shape=(2 * side, 2 * side),
        recon_pixel_size_um=0.0325,
        recon_method="bench",
        labels=_NAMES,
        colors=_COLORS,
        sr_shape=(2 * side, 2 * side),
        sr_pixel_size_um=0.0325,
        ai={
            "prediction": True,
            "model": {"id": "bench", "version": "1", "sha256": "0" * 64, "trained": False},
        },
    )
    return RunDescription("bench", now_ns(), (channel,))


class Frames:
    """Time points without end; a few sets of pixels, taken in turn."""

    def __init__(self, side: int) -> None:
        rng = np.random.default_rng(0)
        self._raw = [tuple(_pixels(rng, side) for _ in range(_N_RAW)) for _ in range(_DIFFERENT)]
        self._recon = [_pixels(rng, 2 * side).astype(np.float32) for _ in range(_DIFFERENT)]
        self._channels = [
            np.stack([_pixels(rng, 2 * side) for _ in _NAMES]) for _ in range(_DIFFERENT)
        ]

    def at(self, t: int) -> TimePoint:
        """Return time point `t`, acquired now."""
        now, which = now_ns(), t % _DIFFERENT
        recon = SRFrame(self._recon[which], _STREAM, t, now, now, Normalisation(0.0, 1000.0))
        display = tuple((0.0, 1000.0) for _ in _NAMES)
        separated = MulticolorFrame(self._channels[which], recon, 0.1, display, 0.0)
        return TimePoint(RawStack(self._raw[which], _STREAM, t, now, now), recon, separated)


def _pixels(rng: np.random.Generator, side: int) -> NDArray[np.uint16]:
    smooth = gaussian_filter(rng.standard_normal((side, side)), 4)
    light = 100 + 400 * np.clip(smooth / smooth.max(), 0, 1)
    return np.asarray(rng.poisson(light), np.uint16)
