"""Network output to `MulticolorFrame`: intensities, the summation residual, display windows and warnings.

Owns what follows a stream slowly (display windows, how long a structure has been weak). Runs no network and knows no
queue or sink.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from livesr.base.frames import MulticolorFrame, SRFrame, Stream, Window
from livesr.base.timing import now_ns
from livesr.live.inference.engine import Manifest

MOST_RESIDUAL = 999.0
"""What a residual that is larger, or no number, is given as."""

_NOISE_SIGMAS = 3.0
_DARK_PERCENTILES, _DARK_SIGMAS = (5.0, 25.0), 0.9704  # their distance in sigmas of a normal distribution
_BAND_ROWS = 32  # rows worked on at a time: the buffers of one band stay in the core's cache
_EVERY_FOURTH = (slice(None, None, 4), slice(None, None, 4))

_DISPLAY_PERCENTILES = (1.0, 99.8)
_FOLLOW = 0.1  # share of a new frame in the display window: forgets half in about seven frames

_WEAK_BELOW, _WEAK_UNTIL = 0.04, 0.07  # share of the light; training mixes structures at 1:5 or better
_WEAK_FRAMES = 5

_ZERO, _HALF, _ULTIMATE = np.float32(0), np.float32(0.5), np.float32(65535)


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

    Sigma comes from the distance of the 5th and 25th percentiles of every fourth pixel of every fourth row: the
    structures are on the bright side and hardly widen it. Where they cover much of the frame the threshold rises (twice
    as high at 70 %) and fewer, brighter pixels count.
    """
    return _threshold_of(x[_EVERY_FOURTH].copy())


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
    One composer may serve several streams: display windows and weak structures are followed for each. Provisional
    frames are measured but do not move what follows.
    """

    def __init__(
        self,
        manifest: Manifest,
        shape: tuple[int, int],
        *,
        residual_plane: bool = False,
        warnings: Sequence[str] = (),
    ) -> None:
        self._sentences = _Sentences(manifest, tuple(warnings))
        self._n = len(manifest.channels)
        self._scale = manifest.scale
        self._shape = shape
        self._input_shape = shape[0] // manifest.scale, shape[1] // manifest.scale
        self._with_plane = residual_plane
        self._streams: dict[Stream, _Following] = {}
        band = (_BAND_ROWS, self._input_shape[1])
        self._x, self._sum, self._work, self._above = (np.empty(band, np.float32) for _ in range(4))
        self._adu = np.empty((_BAND_ROWS, shape[1]), np.float32)
        self._noise_sample = np.empty_like(np.empty(self._input_shape, np.float32)[_EVERY_FOURTH])
        self._display_sample = np.empty_like(np.empty(shape, np.uint16)[_EVERY_FOURTH])

    def warn(self, sentence: str) -> None:
        """Add a sentence to every frame from now on, once; any thread may call it."""
        self._sentences.add(sentence)

    def compose(self, output: NDArray[np.float32], window: Window, measured: SRFrame | None = None) -> MulticolorFrame:
        """Make the frame that is stored and shown.

        Parameters
        ----------
        output
            y^ of the network for `window`, float32 (c, y, x); only read.
        window
            What the network saw.
        measured
            The measurement that the window's centre was made of, if it is not the centre itself.

        Returns
        -------
        MulticolorFrame
            Its pixels are newly allocated: the receiver may keep them.
        """
        centre = window.centre
        plane = np.empty(self._input_shape, np.float32) if self._with_plane else None
        with np.errstate(invalid="ignore", over="ignore"):
            light = self._light(output, centre, plane)
        if not np.isfinite(light.difference):
            output = np.nan_to_num(output, nan=0.0, posinf=0.0, neginf=0.0)
        channels = self._intensities(output, centre.normalisation.headroom)
        following = self._streams.setdefault(centre.stream, _Following(self._n))
        if window.provisional and not following.display:
            following = _Following(self._n)  # shown with limits of its own, and forgotten
        if not following.display or not window.provisional:
            following.update(self._display_limits(channels), light.channels)
        return MulticolorFrame(
            channels=channels,
            source=measured or centre,
            residual=light.residual,
            display=following.display,
            latency_ms=(now_ns() - centre.t_acq_ns) / 1e6,
            edge=window.edge,
            true_neighbours=window.true_neighbours,
            provisional=window.provisional,
            residual_plane=plane,
            warnings=self._sentences.of(light, following.weak, centre),
        )

    def _intensities(self, output: NDArray[np.float32], headroom: float) -> NDArray[np.uint16]:
        """round(clip(y^ s, 0, 65535)), one band of rows after the other."""
        channels = np.empty((self._n, *self._shape), np.uint16)
        for predicted, stored in zip(output, channels, strict=True):
            for top in range(0, self._shape[0], _BAND_ROWS):
                band = predicted[top : top + _BAND_ROWS]
                adu = np.multiply(band, np.float32(headroom), out=self._adu[: len(band)])
                adu += _HALF
                np.clip(adu, _ZERO, _ULTIMATE, out=adu)
                np.copyto(stored[top : top + _BAND_ROWS], adu, casting="unsafe")
        return channels

    def _light(self, output: NDArray[np.float32], centre: SRFrame, plane: NDArray[np.float32] | None) -> Light:
        background, headroom = centre.normalisation
        np.copyto(self._noise_sample, centre.image[_EVERY_FOURTH])
        threshold = np.float32(_threshold_of(self._noise_sample))
        difference = total = 0.0
        channels = np.zeros(self._n)
        for top in range(0, self._input_shape[0], _BAND_ROWS):
            rows = slice(top, min(top + _BAND_ROWS, self._input_shape[0]))
            size = slice(rows.stop - rows.start)
            x = np.subtract(centre.image[rows], np.float32(background), out=self._x[size])
            summed = self._sum_of_channels(output, rows, self._sum[size], headroom)
            work = np.maximum(x, summed, out=self._work[size])
            above = np.greater(work, threshold, out=self._above[size])
            np.subtract(summed, x, out=work)
            if plane is not None:
                plane[rows] = work
            difference += _product_sum(np.abs(work, out=work), above)
            total += _product_sum(np.abs(x, out=x), above)
            for i in range(self._n):
                channels[i] += _product_sum(self._at_input_pixels(output[i], rows), above)
        return Light(difference, total, channels * headroom)

    def _sum_of_channels(
        self, output: NDArray[np.float32], rows: slice, out: NDArray[np.float32], headroom: float
    ) -> NDArray[np.float32]:
        """Sum of the channels in ADU on the input's pixels, each the mean of the output pixels that cover it."""
        out.fill(0)
        for channel in output:
            for dy in range(self._scale):
                for dx in range(self._scale):
                    out += self._at_input_pixels(channel, rows, dy, dx)
        out *= np.float32(headroom / self._scale**2)
        return out

    def _at_input_pixels(
        self, channel: NDArray[np.float32], rows: slice, dy: int = 0, dx: int = 0
    ) -> NDArray[np.float32]:
        """View of the output pixel (dy, dx) within each input pixel of `rows`."""
        r = self._scale
        return channel[rows.start * r + dy : rows.stop * r : r, dx::r]

    def _display_limits(self, channels: NDArray[np.uint16]) -> NDArray[np.float64]:
        """(c, 2) percentiles of a sample of each channel, ADU."""
        limits = np.empty((self._n, 2))
        flat = self._display_sample.reshape(-1)
        places = [round((flat.size - 1) * p / 100) for p in _DISPLAY_PERCENTILES]
        for channel, limit in zip(channels, limits, strict=True):
            np.copyto(self._display_sample, channel[_EVERY_FOURTH])
            flat.sort()
            limit[:] = flat[places]
        return limits


class _Following:
    """What follows one stream from frame to frame."""

    __slots__ = ("_limits", "_run", "display", "weak")

    def __init__(self, channels: int) -> None:
        self._limits: NDArray[np.float64] | None = None
        self._run = np.zeros(channels, np.int64)
        self.weak = np.zeros(channels, bool)
        self.display: tuple[tuple[float, float], ...] = ()

    def update(self, limits: NDArray[np.float64], light: NDArray[np.float64]) -> None:
        """Take in the display limits (c, 2) and the light (c,) of the next frame."""
        if self._limits is None:
            self._limits = limits
        else:
            self._limits += _FOLLOW * (limits - self._limits)
        self.display = tuple((float(low), float(max(high, low + 1))) for low, high in self._limits)
        self._update_weak(light)

    def _update_weak(self, light: NDArray[np.float64]) -> None:
        """Call a structure weak, or no longer weak, after some frames in a row that say so."""
        total = float(light.sum())
        if len(light) == 1 or not 0 < total < np.inf:
            return
        share = light / total
        changes = np.where(self.weak, share > _WEAK_UNTIL, share < _WEAK_BELOW)
        self._run = np.where(changes, self._run + 1, 0)
        flip = self._run >= _WEAK_FRAMES
        self.weak ^= flip
        self._run[flip] = 0


class _Sentences:
    """The warnings, worded once: the same fact is the same sentence in every frame, so that it can be counted."""

    def __init__(self, manifest: Manifest, constant: tuple[str, ...]) -> None:
        self._constant = constant
        self._range = manifest.metrics.residual
        self._outside = (
            f"The residual is outside the {self._range} seen in validation: the channels do not account for the light."
        )
        self._weak = tuple(
            f"{name} is far weaker than the other structures: what is shown of it may be theirs."
            for name in manifest.channel_names
        )
        self._no_number = "The network returned values that are no numbers; they are stored as 0. Try --precision f32."
        self._saturated = "The camera saturates: the brightest structures are dimmer than they are. Expose less."
        self._unresolved = "The raw frames do not show their patterns: this is predicted from widefield, not from SIM."

    def add(self, sentence: str) -> None:
        """Say `sentence` with every frame."""
        if sentence not in self._constant:
            self._constant = (*self._constant, sentence)

    def of(self, light: Light, weak: NDArray[np.bool_], centre: SRFrame) -> tuple[str, ...]:
        """Return what must be shown with a frame."""
        sentences = list(self._constant)
        if not np.isfinite(light.difference):
            sentences.append(self._no_number)
        elif self._range is not None and light.total > 0 and light.residual not in self._range:
            sentences.append(self._outside)
        sentences += [sentence for sentence, is_weak in zip(self._weak, weak, strict=True) if is_weak]
        if centre.saturated:
            sentences.append(self._saturated)
        if centre.judgement and not centre.judgement.resolved:
            sentences.append(self._unresolved)
        return tuple(sentences)


def _threshold_of(sample: NDArray[np.float32]) -> float:
    """Noise threshold from a sample of pixels, which is sorted in place."""
    flat = sample.reshape(-1)
    flat.sort()
    low, high = (float(flat[int(flat.size * p / 100)]) for p in _DARK_PERCENTILES)
    return _NOISE_SIGMAS * (high - low) / _DARK_SIGMAS


def _product_sum(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.einsum("ij,ij->", a, b))
