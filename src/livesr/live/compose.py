"""Network output to `MulticolorFrame`.

Intensities, the summation residual, display windows and warnings.

Owns what follows a stream slowly (display windows, what is beyond the engine's limits). Runs no
network and knows no queue or sink.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from livesr.base.error_bars import ErrorBars
from livesr.base.frames import MixingRatio, MulticolorFrame, Normalisation, SRFrame, Stream, Window
from livesr.base.quality import Quality, Verdict
from livesr.base.rig_limits import ChannelLimits
from livesr.base.timing import now_ns
from livesr.live.arrays import HOST, Array, Arrays
from livesr.live.inference.engine import Manifest, TrainingDistribution
from livesr.live.mixing import BRIGHT_PERCENTILE, Mixing, mixings, ratios
from livesr.live.out_of_distribution import OutOfDistribution
from livesr.live.quality import ChannelEvidence, Evidence, judged
from livesr.live.unknown_light import UnknownLight, unknown_light, usual

MAX_RESIDUAL = 999.0
"""What a residual that is larger, or no number, is given as."""

_NOISE_SIGMAS = 3.0
_DARK_PERCENTILES, _DARK_SIGMAS = (
    (5.0, 25.0),
    0.9704,
)  # their distance in sigmas of a normal distribution
# rows worked on at a time on a CPU: buffers of one band stay near the core, and calls cost less
# than pixels
_BAND_ROWS = 128
_EVERY_FOURTH = (slice(None, None, 4), slice(None, None, 4))

_PERCENTILES = (1.0, 99.8, BRIGHT_PERCENTILE)  # two for display, and the brightness
_FOLLOW = 0.1  # share of a new frame in the display window: forgets half in about seven frames

WEAK_BELOW = 0.04
"""Share of the light below which a structure is weak, where the engine's manifest does not say."""

_FOLLOW_LIMITS = 0.2  # what is compared with a limit forgets half in about three frames
_BACK = 0.8  # a warning ends at this share of its limit, or beyond it by as much

_ULTIMATE = 65535.0


class Light(NamedTuple):
    """Sums over the pixels above noise of one frame, in ADU.

    Attributes
    ----------
    difference : sum |sum of channels - x|
    total : sum |x|
    channels : sum of each channel
    noise : threshold above which pixels count
    """

    difference: float
    total: float
    channels: NDArray[np.float64]
    noise: float = 0.0

    @property
    def residual(self) -> float:
        """The summation residual; 0 where nothing is above noise, `MAX_RESIDUAL` at most."""
        if not np.isfinite(self.difference):
            return MAX_RESIDUAL
        return float(min(self.difference / self.total, MAX_RESIDUAL)) if self.total > 0 else 0.0

    @property
    def shares(self) -> list[float | None]:
        """Share of the predicted light in each channel; None without two."""
        total = float(self.channels.sum())
        told = len(self.channels) > 1 and 0 < total < np.inf
        return [float(light) / total if told else None for light in self.channels]


def noise_threshold(x: NDArray[np.float32]) -> float:
    """Level above background that noise alone hardly reaches: three sigma of the background.

    Sigma comes from the distance of the 5th and 25th percentiles of every fourth pixel of every
    fourth row: the structures are on the bright side and hardly widen it. Where they cover much of
    the frame the threshold rises (twice as high at 70 %) and fewer, brighter pixels count.
    """
    return float(_threshold_of(x[_EVERY_FOURTH].copy(), HOST))


class Composition(NamedTuple):
    """What one output of a network says by itself, before anything that follows its stream.

    Attributes
    ----------
    channels : uint16 (c, y, x), ADU; new memory
    light : sums over the pixels above noise
    limits : (c, 2) percentiles of each channel, ADU
    brightness : (c,) of each channel, ADU, as of `livesr.live.mixing`
    plane : float32 (y, x), sum of channels - x in ADU; None if not asked for
    ood_score : as of `OutOfDistribution`
    uncertainty : uint16 (c, y, x), ADU; None if not asked for
    features : of the network, as `InferenceSession.features`; a copy
    numbers : of the frame, as `livesr.live.out_of_distribution.FEATURES`; None if not judged
    """

    channels: Array
    light: Light
    limits: NDArray[np.float64]
    brightness: NDArray[np.float64]
    plane: Array | None
    ood_score: float | None = None
    uncertainty: Array | None = None
    features: NDArray[np.float32] | None = None
    numbers: NDArray[np.float64] | None = None


class Arithmetic:
    """The pixels of a composition, for one thread: everything that is as large as a frame.

    Parameters
    ----------
    channels, scale, shape : of the network's output, (y, x)
    residual_plane : whether the plane is wanted
    spread_scale : standard deviations of the prediction in one of its views
    training_distribution : where the frames of training lie
    arrays : what to compute with; output, image and channels are arrays of that namespace
    """

    def __init__(
        self,
        channels: int,
        scale: int,
        shape: tuple[int, int],
        *,
        residual_plane: bool,
        spread_scale: float = 1.0,
        training_distribution: TrainingDistribution | None = None,
        arrays: Arrays = HOST,
    ) -> None:
        self._n, self._scale, self._shape, self._arrays = channels, scale, shape, arrays
        self._with_plane, self._spread_scale = residual_plane, spread_scale
        height, width = self._input_shape = shape[0] // scale, shape[1] // scale
        self._out_of_distribution = OutOfDistribution(self._input_shape, training_distribution)
        self._rows = _BAND_ROWS if arrays.pieces else shape[0]
        xp, band = arrays.xp, (min(self._rows, height), width)
        self._x, self._sum, self._work, self._above = (
            xp.empty(band, dtype=xp.float32) for _ in range(4)
        )
        self._adu = xp.empty((self._rows, shape[1]), dtype=xp.float32)
        self._noise_sample = xp.empty(_sampled(self._input_shape), dtype=xp.float32)
        self._display_sample = xp.empty(_sampled(shape), dtype=xp.uint16)

    def compose(
        self,
        output: Array,
        image: Array,
        normalisation: Normalisation,
        spread: Array | None = None,
        features: Array | None = None,
    ) -> Composition:
        """Compute intensities, residual and display limits.

        Parameters
        ----------
        output : y^ of the network, float32 (c, y, x); only read
        image, normalisation : what the network saw of the middle frame, ADU
        spread : standard deviation of y^ over its views, in its unit and shape; only read
        features : of the network, float32 (n,); only read
        """
        xp = self._arrays.xp
        plane = xp.empty(self._input_shape, dtype=xp.float32) if self._with_plane else None
        with np.errstate(invalid="ignore", over="ignore"):
            light = self._light(output, image, normalisation, plane)
        if not np.isfinite(light.difference):
            output = self._arrays.finite(output)
        channels = self._intensities(output, normalisation.scale)
        tiles = [self._arrays.on_host(image[tile]) for tile in self._out_of_distribution.tiles]
        numbers = self._out_of_distribution.numbers(tiles, normalisation, light.noise)
        uncertainty = None
        if spread is not None:
            uncertainty = self._intensities(spread, normalisation.scale * self._spread_scale)
        levels = self._levels(channels)
        return Composition(
            channels,
            light,
            levels[:, :2],
            levels[:, 2],
            plane,
            self._out_of_distribution.ood_score(numbers),
            uncertainty,
            None if features is None else np.array(self._arrays.on_host(features), np.float32),
            numbers,
        )

    def _intensities(self, output: Array, scale: float) -> Array:
        """round(clip(y^ s, 0, 65535)), one band of rows after the other."""
        arrays = self._arrays
        channels = arrays.xp.empty((self._n, *self._shape), dtype=arrays.xp.uint16)
        for i in range(self._n):
            for top in range(0, self._shape[0], self._rows):
                rows = slice(top, min(top + self._rows, self._shape[0]))
                adu = self._adu[: rows.stop - top, :]
                arrays.multiply(output[i, rows, :], scale, out=adu)
                arrays.add(adu, 0.5, out=adu)
                arrays.copy(arrays.clip(adu, 0.0, _ULTIMATE, out=adu), channels[i, rows, :])
        return channels

    def _light(
        self, output: Array, image: Array, normalisation: Normalisation, plane: Array | None
    ) -> Light:
        arrays, (background, scale) = self._arrays, normalisation
        arrays.copy(image[_EVERY_FOURTH], self._noise_sample)
        threshold = _threshold_of(self._noise_sample, arrays)
        sums: list[Array] = []
        for top in range(0, self._input_shape[0], self._rows):
            rows = slice(top, min(top + self._rows, self._input_shape[0]))
            size = slice(rows.stop - rows.start)
            x = arrays.subtract(image[rows, :], background, out=self._x[size, :])
            summed = self._sum_of_channels(output, rows, self._sum[size, :], scale)
            work = arrays.maximum(x, summed, out=self._work[size, :])
            above = arrays.greater(work, threshold, out=self._above[size, :])
            arrays.subtract(summed, x, out=work)
            if plane is not None:
                plane[rows, :] = work
            sums.append(arrays.dot(arrays.absolute(work, out=work), above))
            sums.append(arrays.dot(arrays.absolute(x, out=x), above))
            sums += [
                arrays.dot(self._at_input_pixels(output, i, rows), above) for i in range(self._n)
            ]
        *found, noise = arrays.numbers([*sums, threshold])
        difference, total, *channels = np.reshape(found, (-1, 2 + self._n)).sum(axis=0)
        return Light(float(difference), float(total), np.array(channels) * scale, float(noise))

    def _sum_of_channels(self, output: Array, rows: slice, out: Array, scale: float) -> Array:
        """Sum of the channels in ADU on the input's pixels, each the mean of the output pixels that
        cover it.
        """
        out[...] = 0
        for i in range(self._n):
            for dy in range(self._scale):
                for dx in range(self._scale):
                    self._arrays.add(out, self._at_input_pixels(output, i, rows, dy, dx), out=out)
        return self._arrays.multiply(out, scale / self._scale**2, out=out)

    def _at_input_pixels(
        self, output: Array, channel: int, rows: slice, dy: int = 0, dx: int = 0
    ) -> Array:
        """View of the output pixel (dy, dx) within each input pixel of `rows`."""
        r = self._scale
        return output[channel, rows.start * r + dy : rows.stop * r : r, dx::r]

    def _levels(self, channels: Array) -> NDArray[np.float64]:
        """(c, 3) percentiles of a sample of each channel, ADU: for display, and its brightness."""
        arrays, limits = self._arrays, []
        for i in range(self._n):
            arrays.copy(channels[i, *_EVERY_FOURTH], self._display_sample)
            flat = arrays.sort(arrays.xp.reshape(self._display_sample, (-1,)))
            # Copies: the next channel is sorted in the same place.
            limits += [flat[round((flat.shape[0] - 1) * p / 100)] + 0 for p in _PERCENTILES]
        return arrays.numbers(limits).reshape(self._n, 3)


class Composer:
    """Turns network outputs of one engine and frame size into predictions that can be stored and
    shown.

    Parameters
    ----------
    manifest : names, scale and validated residual range
    shape : (y, x) of the output
    residual_plane : whether every frame carries the plane as well as the number
    spread_scale : standard deviations of the prediction in one of its views
    warnings : sentences that belong to every frame of the run
    error_bars : those of the engine on this rig, None where nothing was calibrated
    rig_limits : what is usual on this rig, instead of what is on any; None where nobody measured it

    Notes
    -----
    y^ x s is the output in ADU of the reconstruction, without its background b: background belongs
    to no channel. The residual is taken on the same scale. For an engine that enlarges, the sum is
    averaged down to the input's pixels. One composer may serve several streams: display windows and
    what is beyond a limit are followed for each. Provisional frames are measured but do not move
    what follows.
    """

    def __init__(
        self,
        manifest: Manifest,
        shape: tuple[int, int],
        *,
        residual_plane: bool = False,
        spread_scale: float = 1.0,
        warnings: Sequence[str] = (),
        error_bars: ErrorBars | None = None,
        rig_limits: ChannelLimits | None = None,
    ) -> None:
        self._said, self._rig_limits = _Said(warnings), rig_limits
        self._manifest, self._shape, self._with_plane = manifest, shape, residual_plane
        self._spread_scale, self.error_bars = spread_scale, error_bars
        self.audited: Mapping[str, float] = {}
        self._streams: dict[Stream, _Following] = {}

    def arithmetic(self, arrays: Arrays) -> Arithmetic:
        """Return what computes the pixels, on `arrays`; each thread needs its own."""
        manifest = self._manifest
        return Arithmetic(
            len(manifest.channels),
            manifest.scale,
            self._shape,
            residual_plane=self._with_plane,
            spread_scale=self._spread_scale,
            training_distribution=manifest.limits.training_distribution,
            arrays=arrays,
        )

    def warn(self, sentence: str, word: Quality = Quality.CHECK) -> None:
        """Add a sentence to every frame from now on, once; any thread may call it.

        `word` is what follows from it: `Quality.GOOD` is said, and speaks against no frame.
        """
        self._said.add(sentence, word)

    def frame(
        self, made: Composition, window: Window, measured: SRFrame | None = None
    ) -> MulticolorFrame:
        """Make the frame that is stored and shown.

        Frames of a stream in their order.

        Parameters
        ----------
        made : what `arithmetic` made of the network's output for `window`; its pixels are on the
            host
        window : what the network saw
        measured : the measurement that the window's centre was made of, if it is not the centre
            itself
        """
        centre = window.centre
        unknown = unknown_light(made.features)
        following = self._streams.setdefault(centre.stream, _Following(self._manifest))
        if window.provisional and not following.display:
            following = _Following(self._manifest)  # shown with limits of its own, and forgotten
        if not following.display or not window.provisional:
            following.update(made, self._beside_usual(unknown, made))
        judgement = judged(self._evidence(made.light, following, centre))
        return MulticolorFrame(
            channels=made.channels,
            source=measured or centre,
            residual=made.light.residual,
            display=following.display,
            latency_ms=(now_ns() - centre.t_acq_ns) / 1e6,
            edge=window.edge,
            true_neighbours=window.true_neighbours,
            provisional=window.provisional,
            residual_plane=made.plane,
            uncertainty=made.uncertainty,
            ood_score=made.ood_score,
            unknown_light=None if unknown is None else unknown.told,
            unknown_share=None if unknown is None else unknown.share,
            warnings=judgement.reasons,
            labels=self._manifest.channel_names,
            error_bars=self.error_bars,
            judgement=judgement,
            mixing=following.mixing_ratios(),
        )

    def _beside_usual(self, unknown: UnknownLight | None, made: Composition) -> float | None:
        """Return unknown light over what is usual: on this rig, or for any such frame."""
        if unknown is None:
            return None
        if rig := self._rig_limits:
            return unknown.told / rig.unknown_light
        limit = usual(self._manifest.limits, made.numbers)
        return None if limit is None else unknown.share / limit

    def _evidence(self, light: Light, following: _Following, centre: SRFrame) -> Evidence:
        """Gather what the rules ask for."""
        validated, quality = self._manifest.metrics.residual, centre.quality
        return Evidence(
            channels=[
                ChannelEvidence(name, weak.on, absent.on, self.audited.get(name, 1.0))
                for name, weak, absent in zip(
                    self._manifest.channel_names, following.weak, following.absent, strict=True
                )
            ],
            finite=bool(np.isfinite(light.difference)),
            residual=light.residual,
            # A small residual is no fault: well lit frames go below what a validation over many
            # lights has seen.
            residual_limit=validated.max if validated else None,
            unlike=following.novel.on,
            unknown=following.unknown.on,
            unknown_than=self._rig_limits.sentence if self._rig_limits else "",
            saturated=centre.saturated > 0,
            unresolved=quality.cause if quality and not quality.resolved else "",
            said=self._said.verdicts,
        )


class _Following:
    """What follows one stream from frame to frame."""

    __slots__ = ("_limits", "_mixing", "absent", "display", "novel", "unknown", "weak")

    def __init__(self, manifest: Manifest) -> None:
        limits, names = manifest.limits, manifest.channel_names
        self._limits: NDArray[np.float64] | None = None
        self.display: tuple[tuple[float, float], ...] = ()
        self.novel = _Alarm(1.0)
        self.unknown = _Alarm(1.0)
        self._mixing: list[Mixing] = mixings(limits.mixing, names)
        if self._mixing:
            weak = [limits.mixing[name].weak for name in names]
            absent = [limits.mixing[name].absent for name in names]
        else:  # an engine whose limits were measured before: shares of the light
            weak = [limits.weak.get(name, WEAK_BELOW) for name in names]
            absent = [0.0] * len(names)
        self.weak = tuple(_Alarm(limit, below=True) for limit in weak)
        self.absent = tuple(_Alarm(limit, below=True) for limit in absent)

    def update(self, made: Composition, unknown: float | None) -> None:
        """Take in display limits, light, scores and unknown light, over its limit, of the next
        frame.
        """
        if self._limits is None:
            self._limits = made.limits
        else:
            self._limits += _FOLLOW * (made.limits - self._limits)
        self.display = tuple((float(low), float(max(high, low + 1))) for low, high in self._limits)
        self.novel.update(made.ood_score)
        self.unknown.update(unknown)
        found: Sequence[float | None] = made.light.shares
        if self._mixing:
            seen: list[float] = ratios(made.brightness).tolist()
            for mixing, ratio in zip(self._mixing, seen, strict=True):
                mixing.update(ratio)
            found = seen
        for weak, absent, value in zip(self.weak, self.absent, found, strict=True):
            weak.update(value)
            absent.update(value)

    def mixing_ratios(self) -> tuple[MixingRatio, ...]:
        """Return how bright each structure is beside the others, as far as it is known."""
        return tuple(one.ratio() for one in self._mixing if one.known)


class _Alarm:
    """Whether a number is beyond its limit.

    The first frame decides, later ones move it slowly, so that nothing flickers.
    """

    __slots__ = ("_below", "_limit", "on", "value")

    def __init__(self, limit: float, *, below: bool = False) -> None:
        self._limit, self._below = limit, below
        self.value = math.nan
        self.on = False

    def update(self, value: float | None) -> None:
        """Take in the number of the next frame; None tells nothing."""
        if value is None or math.isnan(value):
            return
        self.value = (
            value if math.isnan(self.value) else self.value + _FOLLOW_LIMITS * (value - self.value)
        )
        if self._below:
            self.on = self.value < self._limit / (_BACK if self.on else 1)
        else:
            self.on = self.value > self._limit * (_BACK if self.on else 1)


def highest(values: Iterable[float]) -> float:
    """Return the highest that frames with these numbers, in their order, would be compared by with
    a limit; NaN without any.
    """
    alarm, found = _Alarm(math.inf), math.nan
    for value in values:
        alarm.update(value)
        found = alarm.value if math.isnan(found) else max(found, alarm.value)
    return found


class _Said:
    """What belongs to every frame from when it was said: a sentence, and what follows from it."""

    def __init__(self, sentences: Sequence[str]) -> None:
        self.verdicts = tuple(Verdict(Quality.CHECK, (sentence,)) for sentence in sentences)

    def add(self, sentence: str, word: Quality) -> None:
        if all(sentence not in verdict.reasons for verdict in self.verdicts):
            self.verdicts = (*self.verdicts, Verdict(word, (sentence,)))


def _threshold_of(sample: Array, arrays: Arrays) -> Array:
    """Noise threshold from a sample of pixels, 0-d; the sample may get sorted in place."""
    flat = arrays.sort(arrays.xp.reshape(sample, (-1,)))
    low, high = (flat[int(flat.shape[0] * p / 100)] for p in _DARK_PERCENTILES)
    return (high - low) * (_NOISE_SIGMAS / _DARK_SIGMAS)


def _sampled(shape: tuple[int, int]) -> tuple[int, int]:
    """Shape of every fourth pixel of every fourth row."""
    return -(-shape[0] // 4), -(-shape[1] // 4)
