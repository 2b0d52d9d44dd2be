"""Network output to `MulticolorFrame`: intensities, the summation residual, display windows and warnings.

Owns what follows a stream slowly (display windows, how long a structure has been weak). Runs no network and knows no
queue or sink.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from livesr.base.frames import MulticolorFrame, Stream, Window
from livesr.base.timing import now_ns
from livesr.live.inference.engine import Manifest

MOST_RESIDUAL = 999.0
"""What a residual that is larger, or no number, is given as."""

_NOISE_SIGMAS = 3.0
_SIGMA_OF_QUARTILE = 1.4826  # of a normal distribution: sigma / (median - lower quartile)
_BAND_ROWS = 32  # rows worked on at a time: the buffers of one band stay in the core's cache

_DISPLAY_STEP = 4
_DISPLAY_PERCENTILES = (1.0, 99.8)
_FOLLOW = 0.1  # share of a new frame in the display window: forgets half in about seven frames

_WEAK_BELOW, _WEAK_UNTIL = 0.04, 0.07  # share of the light; training mixes structures at 1:5 or better
_WEAK_FRAMES = 5

_ULTIMATE = np.float32(65535)


class Light(NamedTuple):
    """Sums over the pixels above noise of one frame, in ADU.

    Attributes
    ----------
    difference : sum |sum of channels - x|
    total : sum |x|
    channels : sum of each channel
    """

    difference: float
    total: float
    channels: NDArray[np.float64]

    @property
    def residual(self) -> float:
        """The summation residual; 0 where nothing is above noise, `MOST_RESIDUAL` at most."""
        if not np.isfinite(self.difference):
            return MOST_RESIDUAL
        return float(min(self.difference / self.total, MOST_RESIDUAL)) if self.total > 0 else 0.0


def noise_threshold(x: NDArray[np.float32]) -> float:
    """Level above background that noise alone hardly reaches: three sigma of the background.

    Sigma comes from the spread below the median, 1.48 (median - lower quartile), of every fourth pixel of every fourth
    row: the structures are on the bright side and do not widen it while they cover less than half of the frame. Where
    they cover more the threshold rises and fewer, brighter pixels count.
    """
    sample = np.sort(x[::4, ::4], axis=None)
    return _NOISE_SIGMAS * _SIGMA_OF_QUARTILE * float(sample[sample.size // 2] - sample[sample.size // 4])


def summation_residual(channels: NDArray[np.float32], x: NDArray[np.float32]) -> float:
    """Return sum |sum_c channels - x| / sum |x| over pixels where x or the channels' sum is above noise.

    The plain form of what `Composer` computes for every frame, for validation: the range that it has there goes into the
    engine's manifest. IMC-SR's summation constraint (Wang et al. 2021) as a check that needs no truth.

    Parameters
    ----------
    channels
        Prediction, float32 (c, y, x).
    x
        The network's middle input frame, float32 (y, x), background subtracted; the same unit.

    Notes
    -----
    The sum counts as well as x, so that structures painted into an empty frame show.
    """
    total = channels.sum(0)
    above = np.maximum(x, total) > noise_threshold(x)
    difference, light = np.abs(total - x)[above].sum(dtype=np.float64), np.abs(x)[above].sum(dtype=np.float64)
    return Light(float(difference), float(light), np.empty(0)).residual


class Composer:
    """Turns network outputs of one engine and frame size into predictions that can be stored and shown.

    Parameters
    ----------
    manifest : names, scale and validated residual range
    shape : (y, x) of the output
    residual_plane : whether every frame carries the plane as well as the number
    warnings : sentences that belong to every frame of the run

    Notes
    -----
    y^ x s is the output in ADU of the reconstruction, without its background b: background belongs to no channel. The
    residual is taken on the same scale. For an engine that enlarges, the sum is averaged down to the input's pixels.
    One composer may serve several streams: display windows and weak structures are followed for each. Provisional frames
    are measured but do not move what follows.
    """

    def __init__(
        self,
        manifest: Manifest,
        shape: tuple[int, int],
        *,
        residual_plane: bool = False,
        warnings: Sequence[str] = (),
    ) -> None:
        self._names = manifest.channel_names
        self._range = manifest.metrics.residual
        self._scale = manifest.scale
        self._shape = shape
        self._input_shape = shape[0] // manifest.scale, shape[1] // manifest.scale
        self._with_plane = residual_plane
        self._constant_warnings = tuple(warnings)
        self._streams: dict[Stream, _Following] = {}
        width = self._input_shape[1]
        self._x, self._sum, self._work = (np.empty((_BAND_ROWS, width), np.float32) for _ in range(3))
        self._above, self._sum_above = (np.empty((_BAND_ROWS, width), bool) for _ in range(2))
        self._wide = np.empty((_BAND_ROWS * self._scale, shape[1]), np.float32)
        self._noise_sample = np.empty(_strided_shape(self._input_shape, 4), np.float32)
        self._display_sample = np.empty(_strided_shape(shape, _DISPLAY_STEP), np.uint16)

    def compose(self, output: NDArray[np.float32], window: Window) -> MulticolorFrame:
        """Make the frame that is stored and shown.

        Parameters
        ----------
        output
            y^ of the network for `window`, float32 (c, y, x); only read.

        Returns
        -------
        MulticolorFrame
            Its pixels are newly allocated: the receiver may keep them.
        """
        centre = window.centre
        plane = np.empty(self._input_shape, np.float32) if self._with_plane else None
        light = self._light(output, centre.image, *centre.normalisation, plane)
        channels = self._intensities(output, centre.normalisation.headroom)
        following = self._streams.setdefault(centre.stream, _Following(len(self._names)))
        if not window.provisional or following.display is None:
            following.update(self._display_limits(channels), light.channels)
        return MulticolorFrame(
            channels=channels,
            source=centre,
            residual=light.residual,
            display=following.display or (),
            latency_ms=(now_ns() - centre.t_acq_ns) / 1e6,
            edge=window.edge,
            true_neighbours=window.true_neighbours,
            provisional=window.provisional,
            residual_plane=plane,
            warnings=self._warnings(light, following, centre.saturated),
        )

    def _intensities(self, output: NDArray[np.float32], headroom: float) -> NDArray[np.uint16]:
        """round(clip(y^ s, 0, 65535)), band by band; what is no number becomes 0."""
        channels = np.empty((len(self._names), *self._shape), np.uint16)
        factor, step = np.float32(headroom), len(self._wide)
        for predicted, stored in zip(output, channels, strict=True):
            for top in range(0, self._shape[0], step):
                band = predicted[top : top + step]
                adu = self._wide[: len(band)]
                np.multiply(band, factor, out=adu)
                adu += np.float32(0.5)
                np.fmax(adu, np.float32(0), out=adu)
                np.fmin(adu, _ULTIMATE, out=adu)
                np.copyto(stored[top : top + step], adu, casting="unsafe")
        return channels

    def _light(
        self,
        output: NDArray[np.float32],
        image: NDArray[np.float32],
        background: float,
        headroom: float,
        plane: NDArray[np.float32] | None,
    ) -> Light:
        threshold = self._noise_threshold(image)
        difference = total = 0.0
        channels = np.zeros(len(self._names))
        for top in range(0, self._input_shape[0], _BAND_ROWS):
            rows = slice(top, top + _BAND_ROWS)
            x = np.subtract(image[rows], np.float32(background), out=self._x[: len(image[rows])])
            summed = self._sum_of_channels(output, top, len(x), headroom)
            above = self._above_noise(x, summed, threshold)
            work = np.subtract(summed, x, out=self._work[: len(x)])
            if plane is not None:
                plane[rows] = work
            difference += _masked_sum(np.abs(work, out=work), above)
            total += _masked_sum(np.abs(x, out=x), above)
            self._add_channels(channels, output, top, above)
        return Light(difference, total, channels * headroom)
