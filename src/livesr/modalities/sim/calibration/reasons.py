"""Why a calibration cannot be right.

The true reason, so that nobody turns up the light where the pixel size is wrong.

Owns the checks of what was found and the search for what else explains that nothing was. Pure
functions; every one looks for one cause and says so in one sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
import scipy.ndimage
from numpy.typing import NDArray

from livesr.base.errors import CalibrationError
from livesr.modalities.sim.calibration.correlation import Peak, correlate, find_peak
from livesr.modalities.sim.calibration.groups import Optics, conditioned
from livesr.modalities.sim.calibration.order import bands
from livesr.modalities.sim.calibration.patterns import (
    MIN_PEAK,
    SEARCH,
    AmbiguousPatternError,
    FoundPattern,
)
from livesr.optics.exposure import HOT, Exposures, examine, saturation, without_picture
from livesr.optics.otf import radial_frequency

MAX_SATURATED = 0.05
"""Share of a raw frame's pixels at the ceiling above which none is made.

Modulations are then off by 15 % and more.
"""

_SATURATED = 0.01
_MIN_APART_DEG = 15.0
_OUTSIDE = (
    0.12,
    2.0,
)  # of the cutoff: where a pattern is looked for that is not where it should be
_MIN_OUTSIDE = 1.5 * MIN_PEAK
CLEARER = 1.5  # height of a peak elsewhere, over that of the best one where it should be
_SECOND = 0.5  # height of another direction's peak, over the first one's
_MIN_DETAIL = 0.03  # of the light
_MOTION_RANGE = (0.03, 0.45)  # of the cutoff: structure, but no patterns
_MOTION_HEIGHT = 8.0  # of the correlation's peak, over its standard deviation
_MAX_MOTION_NM = 150.0
_CORRELATED = 0.4  # of two pictures, at frequencies that both show
_BEYOND = 1.12  # of the cutoff


class Usable(NamedTuple):
    """Time points (t, n, y, x) that can be calibrated from, and sentences about the others."""

    raw: NDArray[Any]
    doubts: list[str]


def usable(raw: NDArray[Any], offset_adu: float, ceiling: float | None = None) -> Usable:
    """Leave out time points with a raw frame that holds no picture.

    Parameters
    ----------
    raw : (t, n, y, x) as the camera gave them
    offset_adu, ceiling : level of a dark frame; largest value that the camera can give, if it is
        known

    Raises
    ------
    CalibrationError
        If no time point is left, or the frames are saturated.
    """
    said = [_unusable(examine(group, offset_adu, ceiling)) for group in raw]
    whole = [t for t, (fault, _) in enumerate(said) if not fault]
    first = next(
        (f"Time point {t}: {fault}. {advice}" for t, (fault, advice) in enumerate(said) if fault),
        "",
    )
    if not whole:
        raise CalibrationError(f"{first}, and acquire again.")
    doubts = (
        [f"{len(raw) - len(whole)} of {len(raw)} time points are left out. {first}."]
        if first
        else []
    )
    doubts += [f"Time point {t}: {said[t][1]}" for t in whole if said[t][1]][:1]
    return Usable(raw if len(whole) == len(raw) else raw[whole], doubts)


def _unusable(exposures: Exposures) -> tuple[str, str]:
    """Return what is wrong with a group and what to do.

    Without a fault, a doubt about it or nothing.
    """
    if missing := without_picture(exposures.faults()):
        return missing, "Check camera, shutter and triggers"
    clipped = saturation(exposures.faults(_SATURATED), exposures.ceiling)
    if exposures.at_ceiling.max() > MAX_SATURATED * exposures.pixels:
        return clipped, "The modulation cannot be measured: expose less"
    return "", f"{clipped}: modulations are a little too small. Expose less." if clipped else ""


def without_hot_pixels(raw: NDArray[Any]) -> NDArray[Any]:
    """Return raw (t, n, y, x) with single pixels that outshine their neighbours in every frame
    replaced by them.

    A point in the specimen is as wide as the optics make it; what is one pixel wide is the chip's.
    Few pixels far above all light would drown the pattern.
    """
    darkest = raw.reshape(-1, *raw.shape[-2:]).min(axis=0).astype(np.float64)
    padded = np.pad(darkest, 1, mode="edge")
    rows, columns = darkest.shape
    around = [padded[1 + dy : 1 + dy + rows, 1 + dx : 1 + dx + columns] for dy, dx in _NEIGHBOURS]
    level = np.median(darkest)
    brightest = np.max(around, axis=0) - level
    hot = darkest - level > np.maximum(4 * brightest, 20 * (np.percentile(darkest, 84) - level + 1))
    if not hot.any() or hot.mean() > 10 * HOT:
        return raw
    mended = raw.copy()
    for y, x in np.argwhere(hot):
        rest = [
            raw[..., y + dy, x + dx]
            for dy, dx in _NEIGHBOURS
            if 0 <= y + dy < rows and 0 <= x + dx < columns
        ]
        mended[..., y, x] = np.median(rest, axis=0).astype(raw.dtype)
    return mended


_NEIGHBOURS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


def check_distinct(
    found: Sequence[FoundPattern], raw: NDArray[Any], optics: Optics, offset_adu: float
) -> None:
    """Check that every angle has a direction of its own.

    Raises
    ------
    CalibrationError
        If two angles have one direction, or the frames show more directions than there are angles.
    """
    directions = [f.direction_deg for f in found]
    least = min(_MIN_APART_DEG, 90 / len(found))
    for b in range(len(found)):
        for a in range(b):
            if _apart_deg(directions[a], directions[b]) < least:
                raise CalibrationError(
                    f"Angles {a} and {b} show one direction ({directions[a]:.1f} and"
                    f" {directions[b]:.1f} degrees): each needs its own."
                    f" {_why_one_direction(raw, optics, offset_adu)}"
                )
    if len(found) == 1:
        _check_alone(found[0], raw, optics, offset_adu)


def _why_one_direction(raw: NDArray[Any], optics: Optics, offset_adu: float) -> str:
    return planes_after_angles(raw, optics, offset_adu) or (
        "Check that the pattern display shows every direction, that raw frames are in the order of"
        " rig.yaml (all angles and phases of a plane before the next plane, or --axes says so), and"
        " that the specimen has no lines of its own along a pattern."
    )


def planes_after_angles(raw: NDArray[Any], optics: Optics, offset_adu: float) -> str:
    """Say that every time point (t, n, y, x) shows one direction in all frames, and not all the
    same; else an empty string.
    """
    seen: dict[int, float] = {}
    for t in range(len(raw)):
        every = _differences(raw[t : t + 1], optics, offset_adu)
        peaks = _peaks(
            every, optics, (SEARCH[0] * optics.cutoff_um, SEARCH[1] * optics.cutoff_um), 2
        )
        if len(peaks) == 1 or (len(peaks) == 2 and peaks[1].height < _SECOND * peaks[0].height):
            seen[t] = _direction_deg(peaks[0])
    if not seen:
        return ""
    first, direction = next(iter(seen.items()))
    turned = [t for t, d in seen.items() if _apart_deg(d, direction) > _MIN_APART_DEG]
    if not turned:
        return ""
    return (
        f"Time point {first} shows {direction:.0f} degrees in all its frames, and time point"
        f" {turned[0]} {seen[turned[0]]:.0f}: the recording seems to hold all planes of an angle"
        " before the next angle. Read it with --axes angle,z,phase,y,x, or sort it so that all"
        " angles and phases of a plane follow each other."
    )


def _check_alone(found: FoundPattern, raw: NDArray[Any], optics: Optics, offset_adu: float) -> None:
    """Refuse frames that show other directions beside the only one that is described."""
    if said := other_directions(found.direction_deg, raw, optics, offset_adu):
        raise CalibrationError(f"The frames show {said}. {ONE_AT_A_TIME}.")


ONE_AT_A_TIME = (
    "In angles x phases each raw frame shows one direction: correct both if the frames are such."
    " Frames that show all directions at once need waves: lattice in the section sim, with angles"
    " 1, and phases 7 and harmonics 3 of hexagonal SIM, or 5 and 2 of a square lattice"
)
"""What to do with frames of several directions; without a full stop."""


def other_directions(first_deg: float, raw: NDArray[Any], optics: Optics, offset_adu: float) -> str:
    """Say that frames (t, n, y, x) show directions beside the only one that rig.yaml describes.

    An empty string if they do not; else without a full stop.
    """
    every = _differences(raw, optics, offset_adu)
    peaks = _peaks(every, optics, (SEARCH[0] * optics.cutoff_um, SEARCH[1] * optics.cutoff_um), 4)
    others = [p for p in peaks if _apart_deg(_direction_deg(p), first_deg) > _MIN_APART_DEG]
    strongest = max((p.height for p in peaks), default=0.0)
    real = [p for p in others if p.height > max(MIN_PEAK, _SECOND * strongest)]
    if not real:
        return ""
    listed = ", ".join(f"{d:.0f}" for d in (first_deg, *(_direction_deg(p) for p in real)))
    return (
        f"patterns in {1 + len(real)} or more directions ({listed} degrees), and rig.yaml describes"
        " 1 angle"
    )


def better_reason(
    error: CalibrationError, raw: NDArray[Any], optics: Optics, offset_adu: float
) -> CalibrationError:
    """Return what explains that patterns were not found, or not one alone.

    `error` itself if nothing else does.
    """
    if otherwise := planes_after_angles(raw, optics, offset_adu):
        return CalibrationError(f"The angles cannot be told apart. {otherwise}")
    beside = error.height if isinstance(error, AmbiguousPatternError) else 0.0
    if outside := pattern_outside(raw, optics, offset_adu, CLEARER * beside):
        return CalibrationError(outside)
    if flat := without_detail(
        raw, offset_adu
    ):  # so even that a trace of anything regular passes for a pattern
        return CalibrationError(f"{error} {flat}" if beside else flat)
    if moves := motion(raw, optics, offset_adu):
        return CalibrationError(f"No pattern can be told. {moves}")
    if not beside and (finer := detail_beyond(raw, optics, offset_adu)):
        return CalibrationError(f"No pattern is found where these optics would make one. {finer}")
    return error


def pattern_outside(raw: NDArray[Any], optics: Optics, offset_adu: float, over: float = 0.0) -> str:
    """Say that a pattern lies where none is looked for, if its peak is higher than `over`.

    Else an empty string.
    """
    low, high = (r * optics.cutoff_um for r in SEARCH)
    nyquist = 0.5 / optics.pixel_size_um
    wide = replace(optics, na=optics.na * max(1.0, min(nyquist / optics.cutoff_um, _OUTSIDE[1])))
    every = _differences(raw, wide, offset_adu)
    ranges = [(_OUTSIDE[0] * optics.cutoff_um, min(low, nyquist))]
    if 1.1 * high < min(nyquist, _OUTSIDE[1] * optics.cutoff_um):
        ranges.append((high, min(nyquist, _OUTSIDE[1] * optics.cutoff_um)))
    peaks = [p for r in ranges for p in _peaks(every, wide, r, 1)]
    best = max(peaks, key=lambda p: p.height, default=None)
    if best is None or best.height < max(_MIN_OUTSIDE, over):
        return ""
    k = float(np.hypot(*best.k_um))
    return (
        f"The frames show a pattern with a period of {1e3 / k:.0f} nm, at"
        f" {k / optics.cutoff_um:.2f} of the cutoff. It is looked for from {1e3 / high:.0f} to"
        f" {1e3 / low:.0f} nm, {SEARCH[0]:g} to {SEARCH[1]:g} of the cutoff that NA {optics.na:g}"
        f" has at {1e3 * optics.emission_um:.0f} nm. Check pixel size"
        f" ({1e3 * optics.pixel_size_um:.4g} nm), NA and wavelength in rig.yaml."
    )


def without_detail(raw: NDArray[Any], offset_adu: float) -> str:
    """Say that the specimen is too even to show a pattern by.

    An empty string if it is not, or noise hides it.
    """
    picture = without_hot_pixels(raw).mean((0, 1), dtype=np.float64) - offset_adu
    detail = scipy.ndimage.gaussian_filter(picture, 1.0) - scipy.ndimage.gaussian_filter(
        picture, 8.0
    )
    share = float(detail.std() / max(picture.mean(), 1e-9))
    if share > _MIN_DETAIL:
        return ""
    return (
        f"The specimen shows hardly any detail ({share:.1%} of its light): patterns are found by"
        " the detail that they shift. Use one with points or lines everywhere, in focus."
    )


def motion(raw: NDArray[Any], optics: Optics, offset_adu: float) -> str:
    """Say that the specimen moves within a group.

    An empty string if it does not, or it cannot be told.

    The first and the last third of the frames are laid over each other, without the frequencies of
    the patterns.
    """
    frames = conditioned(without_hot_pixels(raw), offset_adu)
    third = max(raw.shape[1] // 3, 1)
    first, last = (scipy.fft.fft2(part.mean(1)) for part in (frames[:, :third], frames[:, -third:]))
    radius = radial_frequency(raw.shape[-2:], optics.pixel_size_um) / optics.cutoff_um
    coarse = (radius > _MOTION_RANGE[0]) & (radius < _MOTION_RANGE[1])
    product = np.sum(np.conj(first) * last, axis=0) * coarse
    alike = scipy.fft.ifft2(product / np.maximum(np.abs(product), 1e-12)).real
    place = np.unravel_index(alike.argmax(), alike.shape)
    if alike[place] < _MOTION_HEIGHT * alike.std():
        return ""
    shift = [(p + n // 2) % n - n // 2 for p, n in zip(place, alike.shape, strict=True)]
    moved_nm = 1e3 * optics.pixel_size_um * float(np.hypot(*shift))
    if moved_nm < _MAX_MOTION_NM:
        return ""
    return (
        f"The specimen moves by about {moved_nm:.0f} nm from the first to the last third of a"
        " group: calibrate on one that stands still, or with shorter exposures."
    )


def detail_beyond(raw: NDArray[Any], optics: Optics, offset_adu: float) -> str:
    """Say that the frames show finer detail than the optics pass.

    An empty string if they do not, or it cannot be told.

    What two halves of the frames have in common is no noise. A chip's fixed pattern is common to
    them too, at all frequencies: it must be gone at the highest ones.
    """
    if optics.cutoff_um * optics.pixel_size_um > 0.36:
        return ""
    frames = conditioned(without_hot_pixels(raw), offset_adu)
    a, b = (np.asarray(scipy.fft.fft2(frames[:, half::2].mean((0, 1)))) for half in (0, 1))
    radius = radial_frequency(raw.shape[-2:], optics.pixel_size_um) / optics.cutoff_um

    def alike(low: float, high: float) -> float:
        ring = (radius > low) & (radius < high)
        power = np.sqrt(np.sum(np.abs(a[ring]) ** 2) * np.sum(np.abs(b[ring]) ** 2))
        return float(np.sum(np.conj(a[ring]) * b[ring]).real / max(power, 1e-30))

    far = 0.5 / (optics.pixel_size_um * optics.cutoff_um)
    if alike(_BEYOND, 1.3) < _CORRELATED or alike(0.94 * far, far) > 0.5 * _CORRELATED:
        return ""
    return (
        f"The frames show detail finer than the {1e3 / optics.cutoff_um:.0f} nm that NA"
        f" {optics.na:g} passes at {1e3 * optics.emission_um:.0f} nm: the pixel size of"
        f" {1e3 * optics.pixel_size_um:.4g} nm is too small, or NA too low, or the wavelength too"
        " long in rig.yaml."
    )


def _differences(raw: NDArray[Any], optics: Optics, offset_adu: float) -> NDArray[np.float32]:
    """Correlation of every frame's difference from its group's mean with that mean, whatever the
    order.
    """
    zero, differences = bands(without_hot_pixels(raw), optics, offset_adu)
    return np.asarray(np.sum([correlate(zero, d) for d in differences], axis=0), np.float32)


def _peaks(
    power: NDArray[np.float32], optics: Optics, annulus_um: tuple[float, float], most: int
) -> list[Peak]:
    """Return the highest peaks of a correlation, each in a direction of its own."""
    found: list[Peak] = []
    for _ in range(most):
        peak = find_peak(power, optics.pixel_size_um, annulus_um, exclude=[p.k_um for p in found])
        if peak.height < MIN_PEAK:
            break
        found.append(peak)
    return found


def _direction_deg(peak: Peak) -> float:
    return float(np.degrees(np.arctan2(*peak.k_um)))


def _apart_deg(a: float, b: float) -> float:
    """Angle between two directions; a pattern has no sense."""
    apart = abs(a - b) % 180
    return min(apart, 180 - apart)
