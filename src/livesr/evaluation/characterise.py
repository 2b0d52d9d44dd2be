"""A camera measured from stacks of frames.

Offset, read noise, gain, bad pixels, and the illumination's flat field.

Owns the statistics. Reads frames one by one, so that a stack need not fit into memory; writes
nothing, applies nothing (`livesr.live.correct` does). Terms and method follow EMVA 1288 release
4.0: the dark stack gives offset and read noise, the photon-transfer curve (temporal variance
against mean) the gain; per pixel as Huang et al. 2013, Nature Methods 10, 653.

What differs from EMVA: the light may drift or bleach, so each frame is compared with the mean at
its own brightness; raw frames of structured light only with those of the same raw index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from livesr.base.errors import ConfigError

Map = NDArray[np.float64]
Mask = NDArray[np.bool_]

_BINS = 32  # points of the photon-transfer curve from one stack
_QUANTISATION_ADU2 = 1 / 12  # EMVA 1288: variance of rounding to whole ADU
_MIN_FLAT = 0.05
_RESPONSE = (0.5, 1.5)  # of a pixel, beside its surroundings


class Frames(Protocol):
    """Frames (n, y, x), read as they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, y, x)."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Moments:
    """Temporal mean and variance of every pixel, float64 (y, x), ADU and ADU^2; `n` frames."""

    n: int
    mean: Map
    variance: Map


@dataclass(frozen=True, slots=True)
class PhotonTransfer:
    """The photon-transfer curve and its slope.

    Attributes
    ----------
    slope : of variance against signal, ADU
    multiplication : by which an EMCCD's register makes the slope steeper: its gain times its excess
        noise; 1 without
    signal, variance : points of the curve, ADU above dark and ADU^2 above the dark variance
    deviation : root mean square of the points' relative distance from the line
    """

    slope: float
    signal: NDArray[np.float64]
    variance: NDArray[np.float64]
    deviation: float
    multiplication: float = 1.0

    @property
    def gain_e_per_adu(self) -> float:
        """Electrons per ADU, behind the register of an EMCCD."""
        return self.multiplication / self.slope


@dataclass(frozen=True, slots=True)
class Characterisation:
    """What was measured.

    Attributes
    ----------
    offset : level without light, ADU
    read_noise_adu : standard deviation without light, the rounding taken out
    bad : hot, noisy and dead pixels, (y, x)
    transfer : None without light
    gain_e_per_adu : of every pixel, None where it was not asked for
    flat : mean 1 over good pixels, None without a flat stack
    counts : how many pixels are bad, by reason
    warnings : sentences about what makes the result doubtful
    """

    offset: Map
    read_noise_adu: Map
    bad: Mask
    counts: dict[str, int]
    transfer: PhotonTransfer | None = None
    gain_e_per_adu: Map | None = None
    flat: Map | None = None
    warnings: tuple[str, ...] = ()


def moments(
    frames: Frames, *, offset: Map | None = None, n_raw: int = 1, name: str = "stack"
) -> Moments:
    """Measure mean and variance over time.

    Parameters
    ----------
    offset : of the camera; with it, the light of a frame above it may differ from that of the
        others of its raw index
    n_raw : frames of a group, which differ on purpose
    name : of the stack, for errors

    Raises
    ------
    ConfigError
        If there are fewer than two frames of a raw index.
    """
    n = len(frames)
    if n < 2 * n_raw:
        raise ConfigError(
            f"The {name} has {n} frames; a variance needs at least {2 * n_raw}, and 100 or more are"
            " good."
        )
    shape = frames.shape[-2:]
    level = np.zeros(shape) if offset is None else offset
    mean, squares = np.zeros(shape), np.zeros(shape)
    for raw in range(n_raw):
        chosen = range(raw, n, n_raw)
        light = _brightness(frames, chosen, offset)
        total, weighted, square = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        for i, brightness in zip(chosen, light, strict=True):
            frame = np.asarray(frames[i], np.float64) - level
            total += frame
            weighted += brightness * frame
            square += frame * frame
        # Residuals of brightness x mean: unlike those of frames divided by it, their variance stays
        # that of photons.
        middle = total / len(chosen)
        mean += total
        squares += square - 2 * middle * weighted + middle * middle * float(light @ light)
    return Moments(n, level + mean / n, np.maximum(squares, 0) / (n - n_raw))


def photon_transfer(
    dark: Moments, light: Sequence[Moments], good: Mask, ceiling: int, em_gain: float | None = None
) -> PhotonTransfer:
    """Fit variance against mean, both above dark.

    Parameters
    ----------
    good : pixels to use
    ceiling : largest value of the camera; levels near it are left out, where clipping hides
        variance
    em_gain : of an EMCCD's register, None for other cameras; its excess noise is 2 - 1/gain

    Raises
    ------
    ConfigError
        If no stack is brighter than dark and below saturation.
    """
    points: list[tuple[float, float, float]] = []
    for stack in light:
        usable = good & (stack.mean + 4 * np.sqrt(stack.variance) < ceiling)
        signal, variance = (
            (stack.mean - dark.mean)[usable],
            (stack.variance - dark.variance)[usable],
        )
        for part in (
            np.array_split(np.argsort(signal), min(_BINS, max(len(signal) // 50, 1)))
            if len(signal)
            else []
        ):
            spread = max(float(stack.variance[usable][part].mean()), _QUANTISATION_ADU2)
            points.append(
                (
                    float(signal[part].mean()),
                    float(variance[part].mean()),
                    len(part) * stack.n / spread**2,
                )
            )
    noise = float(np.sqrt(np.median(dark.variance[good])))
    kept = np.array([p for p in points if p[0] > noise]).reshape(-1, 3)
    if not len(kept):
        raise ConfigError(
            "No light stack lies between darkness and saturation: give one whose mean is well"
            f" above the dark stack's and below {ceiling} ADU."
        )
    signal, variance, weight = kept.T
    slope = float((weight * signal * variance).sum() / (weight * signal * signal).sum())
    if slope <= 0:
        raise ConfigError(
            "The light stacks vary no more than the dark one, so they show no photon noise: are"
            " they raw frames of a camera, neither averaged nor denoised?"
        )
    deviation = float(
        np.sqrt(np.average((variance / (slope * signal) - 1) ** 2, weights=weight * signal**2))
    )
    return PhotonTransfer(slope, signal, variance, deviation, 2 * em_gain - 1 if em_gain else 1.0)


def characterise(
    dark: Frames,
    flat: Frames | None = None,
    light: Sequence[Frames] = (),
    *,
    n_raw: int = 1,
    ceiling: int = 65535,
    smooth_px: float = 10.0,
    threshold: float = 6.0,
    gain_map: bool = False,
    em_gain: float | None = None,
) -> Characterisation:
    """Measure a camera, and the illumination if there is a flat stack.

    Parameters
    ----------
    dark : frames without light at the exposure of the experiment
    flat : frames of an even fluorescent layer
    light : more frames of still scenes at other levels, for the gain
    n_raw : frames of a group of structured light, 1 without
    smooth_px : standard deviation of the Gaussian that the flat field is smoothed with; 0 keeps
        single pixels
    threshold : robust standard deviations from the median beyond which a pixel is bad
    gain_map : measure the gain of every pixel; its relative error is sqrt(2 / frames)
    em_gain : as in `photon_transfer`

    Raises
    ------
    ConfigError
        If a stack is too short, of another size, or shows no photon noise.
    """
    stacks = {"flat stack": flat, **{f"light stack {i + 1}": s for i, s in enumerate(light)}}
    for name, stack in stacks.items():
        if stack is not None and stack.shape[-2:] != dark.shape[-2:]:
            raise ConfigError(
                f"The {name} is {_size(stack)}, and the dark stack {_size(dark)}: take both of the"
                " whole chip."
            )
    below = moments(dark, name="dark stack")
    lit = {
        name: moments(stack, offset=below.mean, n_raw=n_raw, name=name)
        for name, stack in stacks.items()
        if stack is not None
    }
    bad = _bad_in_darkness(below, threshold)
    warnings = (
        []
        if below.n >= 100
        else [f"{below.n} dark frames: 100 or more give a sound read noise of single pixels."]
    )
    for name, measured in lit.items():
        bad |= _bad_in_light(measured, below, name)
    any_bad = np.any(list(bad.values()), axis=0)
    read_noise = np.sqrt(np.maximum(below.variance - _QUANTISATION_ADU2, 0))
    transfer = (
        photon_transfer(below, list(lit.values()), ~any_bad, ceiling, em_gain) if lit else None
    )
    gain = (
        _gain_map(below, list(lit.values()), ~any_bad) * transfer.multiplication
        if gain_map and transfer
        else None
    )
    if transfer and transfer.deviation > 0.1:
        warnings.append(
            f"The photon-transfer curve leaves its line by {transfer.deviation:.0%}: the scene"
            " moved, the light flickered within frames, or the camera filters its pixels."
        )
    field = (
        _flat(lit["flat stack"], below, any_bad, gain, smooth_px) if "flat stack" in lit else None
    )
    if field is not None and field.min() <= _MIN_FLAT:
        warnings.append(
            f"Parts of the field get less than {_MIN_FLAT:.0%} of the light: they are left as dim"
            " as that."
        )
    counts = {reason: int(mask.sum()) for reason, mask in bad.items()}
    return Characterisation(
        below.mean, read_noise, any_bad, counts, transfer, gain, field, tuple(warnings)
    )


def _brightness(frames: Frames, chosen: range, offset: Map | None) -> NDArray[np.float64]:
    """Light of each frame over their mean; 1 where there is no offset or no light."""
    if offset is None:
        return np.ones(len(chosen))
    dark = float(offset.mean())
    levels = np.array([float(np.mean(frames[i], dtype=np.float64)) - dark for i in chosen])
    return levels / levels.mean() if levels.min() > 0 else np.ones(len(chosen))


def _bad_in_darkness(dark: Moments, threshold: float) -> dict[str, Mask]:
    """Pixels whose level or noise is far from what the others have."""
    log_variance = np.log(np.maximum(dark.variance, _QUANTISATION_ADU2))
    return {
        "hot": np.abs(_deviation(dark.mean)) > threshold,
        "noisy": _deviation(log_variance) > threshold,
    }


def _bad_in_light(light: Moments, dark: Moments, name: str) -> dict[str, Mask]:
    """Pixels that see far more or less than those around them."""
    signal = light.mean - dark.mean
    if np.median(signal) <= 0:
        raise ConfigError(
            f"The {name} is no brighter than the dark stack: was the light on, and the dark stack"
            " dark?"
        )
    around = scipy.ndimage.median_filter(signal, 7)
    low, high = _RESPONSE
    return {f"odd in the {name}": (signal < low * around) | (signal > high * around)}


def _deviation(values: Map) -> Map:
    """Distance from the median in robust standard deviations."""
    middle = np.median(values)
    spread = 1.4826 * float(np.median(np.abs(values - middle)))
    return (values - middle) / max(spread, 1e-3)


def _flat(light: Moments, dark: Moments, bad: Mask, gain: Map | None, smooth_px: float) -> Map:
    """Mean of the flat stack, smoothed over good pixels, mean 1."""
    signal = light.mean - dark.mean
    if gain is not None:
        signal = signal * gain / np.median(gain)
    trend = _trend(signal, ~bad)
    weight = (~bad).astype(np.float64)
    width = max(smooth_px, 1.0)  # at least the neighbours of a bad pixel say what it would see
    ratio = scipy.ndimage.gaussian_filter(signal / trend * weight, width)
    smooth = trend * ratio / np.maximum(scipy.ndimage.gaussian_filter(weight, width), 1e-6)
    field = smooth if smooth_px > 0 else np.where(bad, smooth, signal)
    return np.asarray(np.maximum(field / field[~bad].mean(), _MIN_FLAT), np.float64)


def _trend(signal: Map, good: Mask) -> Map:
    """Polynomial of fourth degree.

    What is left of a field after it has no slope, which smoothing would bend at the edges.
    """
    y, x = (np.linspace(-1, 1, n) for n in signal.shape)
    powers = [(i, j) for i in range(5) for j in range(5 - i)]
    sparse = (
        slice(None, None, max(signal.shape[0] // 256, 1)),
        slice(None, None, max(signal.shape[1] // 256, 1)),
    )
    terms = np.stack([np.outer(y**i, x**j)[sparse][good[sparse]] for i, j in powers], axis=1)
    factors = np.linalg.lstsq(terms, signal[sparse][good[sparse]], rcond=None)[0]
    trend = sum(f * np.outer(y**i, x**j) for f, (i, j) in zip(factors, powers, strict=True))
    return np.asarray(np.maximum(trend, _MIN_FLAT * signal[good].mean()), np.float64)


def _gain_map(dark: Moments, light: Sequence[Moments], good: Mask) -> Map:
    """Photo-electrons per ADU of every pixel: least squares through the origin.

    The median where that is nonsense.
    """
    above = signal2 = np.zeros(dark.mean.shape)
    for stack in light:
        signal, variance = stack.mean - dark.mean, stack.variance - dark.variance
        weight = stack.n / np.maximum(stack.variance, _QUANTISATION_ADU2) ** 2
        above, signal2 = above + weight * signal * variance, signal2 + weight * signal**2
    usable = good & (above > 0)
    gain = np.divide(signal2, above, out=np.zeros_like(above), where=usable)
    return np.where(usable, gain, np.median(gain[usable]))


def _size(frames: Frames) -> str:
    return "x".join(map(str, frames.shape[-2:]))
