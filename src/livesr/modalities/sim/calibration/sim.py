"""A SIM calibration: what raw frames say of order, patterns and OTF, together.

Owns the sequence order -> patterns -> OTF -> patterns, and what is doubtful about the result. Reads
and writes no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import CalibrationError
from livesr.modalities.sim.calibration.groups import Optics
from livesr.modalities.sim.calibration.order import detect_order, order_name, same_light
from livesr.modalities.sim.calibration.otf import MIN_DAMPING, Damping, damping_from_bands
from livesr.modalities.sim.calibration.patterns import (
    AmbiguousPatternError,
    FoundPattern,
    NoPatternError,
    estimate,
)
from livesr.modalities.sim.calibration.reasons import (
    CLEARER,
    better_reason,
    check_distinct,
    detail_beyond,
    motion,
    pattern_outside,
    usable,
    without_hot_pixels,
)
from livesr.optics.illumination import Pattern, equal_steps

_LENGTHS_APART = 0.05
_WEAK_MODULATION = 0.2
_DRIFT_RAD = 0.3
_MIN_CERTAIN_LOG_DAMPING = 0.15
_CERTAIN_PEAK = 10.0  # below, a pattern may be a false one beside a true one elsewhere
_MAX_MODULATION = 1.1
_MIN_CONTRAST = 3.0
_MAX_SAMPLED = 0.55  # of the sampling rate, that the cutoff may be


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was found.

    Attributes
    ----------
    order : (angle, phase) of every raw index
    found : one per angle, or of a lattice per direction
    optics : with the damping that the patterns were found with
    damping : estimated; None if it was given or could not be estimated
    doubts : sentences
    """

    order: list[tuple[int, int]]
    found: list[FoundPattern]
    optics: Optics
    damping: Damping | None
    doubts: list[str]
    lattice: bool = False

    @property
    def patterns(self) -> list[Pattern]:
        """One per angle, phases at the chip's origin."""
        found = [f.pattern for f in self.found]
        if not self.lattice:
            return found
        first, *others = found
        overtones = tuple((p.phase_rad, p.modulation) for p in others)
        return [replace(first, overtones=overtones, directions_um=tuple(p.k_um for p in others))]


def calibrate(
    raw: NDArray[Any],
    optics: Optics,
    *,
    angles: int = 3,
    harmonics: int = 1,
    order: Sequence[tuple[int, int]] | None = None,
    steps_rad: Sequence[float] | None = None,
    offset_adu: float = 100.0,
    origin_px: tuple[float, float] = (0.0, 0.0),
    fit_damping: bool = True,
    damping: Damping | None = None,
    lattice: bool = False,
    nonlinear: bool = False,
) -> Calibration:
    """Calibrate from raw frames.

    Parameters
    ----------
    raw : uint8 or uint16 (t, n, y, x)
    optics : of this channel
    angles, harmonics : directions, and waves per direction (1, or 2 for three-beam 3D-SIM)
    order : (angle, phase) of every raw index; detected if None
    steps_rad : phase steps of the given order; equal parts of a turn if None
    offset_adu, origin_px : level of a dark frame; first pixel (y, x) of the frames on the chip
    fit_damping : estimate the OTF's damping too; `optics.damping` stays if that is not possible
    damping : what `optics.damping` was estimated as, if it was, for the record
    lattice : whether every raw frame shows all `harmonics` directions; the order must be given
    nonlinear : whether only the fundamental is looked for, overtones beyond the optics follow it

    Raises
    ------
    CalibrationError
        If the frames do not show the patterns, one for each angle.
    """
    raw, doubts = usable(raw, offset_adu)
    raw = without_hot_pixels(raw)
    try:
        order = (
            detect_order(raw, optics, angles=angles, harmonics=harmonics, offset_adu=offset_adu)
            if order is None
            else list(order)
        )
        steps = (
            equal_steps(len(order) // angles)
            if steps_rad is None
            else np.asarray(steps_rad, np.float64)
        )
        common: dict[str, Any] = {
            "steps_rad": steps.tolist(),
            "harmonics": harmonics,
            "offset_adu": offset_adu,
            "lattice": lattice,
            "nonlinear": nonlinear,
        }
        found = estimate(raw, optics, order, **common)
    except (NoPatternError, AmbiguousPatternError) as e:
        known = None if lattice else order
        raise _in_another_order(raw, optics, known, angles, harmonics, offset_adu) or better_reason(
            e, raw, optics, offset_adu
        ) from e
    check_distinct(found, raw, optics, offset_adu)
    weakest = min(f.peak for f in found)
    if weakest < _CERTAIN_PEAK and (
        elsewhere := pattern_outside(raw, optics, offset_adu, CLEARER * weakest)
    ):
        raise CalibrationError(elsewhere)
    if fit_damping:
        here = [f.pattern for f in found]
        try:
            damping = damping_from_bands(
                raw, optics, order, here, steps, offset_adu=offset_adu, lattice=lattice
            )
            optics = replace(optics, damping=round(damping.value, 3))
        except CalibrationError as e:
            doubts.append(str(e))
    found = estimate(
        raw, optics, order, origin_px=origin_px, near=[f.pattern for f in found], **common
    )
    doubts += doubts_about(found, damping, optics)
    doubts += [said for look in (motion, detail_beyond) if (said := look(raw, optics, offset_adu))]
    return Calibration(order, found, optics, damping, doubts, lattice)


def _in_another_order(
    raw: NDArray[Any],
    optics: Optics,
    given: Sequence[tuple[int, int]] | None,
    angles: int,
    harmonics: int,
    offset_adu: float,
) -> CalibrationError | None:
    """Return an error that says so if the frames show another order than was given, else None."""
    if given is None:
        return None
    try:
        seen = detect_order(raw, optics, angles=angles, harmonics=harmonics, offset_adu=offset_adu)
    except CalibrationError:
        return None
    if same_light(seen, given):
        return None
    return CalibrationError(
        f"The raw frames are not in the order {order_name(given)}, but in the order"
        f" {order_name(seen)}: name that one in rig.yaml, or let it be detected."
    )


def doubts_about(
    found: Sequence[FoundPattern], damping: Damping | None, optics: Optics
) -> list[str]:
    """Say, each in a sentence, what a person should look at before trusting the calibration."""
    sentences = []
    undersampled = optics.pixel_size_um * optics.cutoff_um > _MAX_SAMPLED
    if undersampled:
        sentences.append(
            f"Pixels of {1e3 * optics.pixel_size_um:.4g} nm are larger than the"
            f" {500 / optics.cutoff_um:.0f} nm that NA {optics.na:g} needs at"
            f" {1e3 * optics.emission_um:.0f} nm: check these numbers, or patterns and OTF are"
            " wrong."
        )
    if too_strong := [str(a) for a, f in enumerate(found) if f.strongest > _MAX_MODULATION]:
        most = max(f.strongest for f in found)
        sentences.append(
            f"The modulation of angle {', '.join(too_strong)} is measured as {most:.2f}, and light"
            " cannot have more than 1: the specimen's detail hardly stands above noise, or the"
            " frames are not proportional to light. Check for saturation and for processing in the"
            " camera."
        )
    if unsure := [str(a) for a, f in enumerate(found) if f.contrast_to_noise < _MIN_CONTRAST]:
        least = min(f.contrast_to_noise for f in found)
        sentences.append(
            f"Phase and modulation of angle {', '.join(unsure)} are uncertain: the pattern's"
            f" contrast is only {least:.1f} times its noise. Give more time points or light, or a"
            " specimen with more detail."
        )
    periods = [f.period_nm for f in found]
    if max(periods) > (1 + _LENGTHS_APART) * min(periods):
        listed = ", ".join(f"{p:.0f}" for p in periods)
        sentences.append(
            f"The periods differ ({listed} nm): one of the patterns may be a false one."
        )
    weak = [
        str(a)
        for a, f in enumerate(found)
        if min(w.modulation for w in f.pattern.waves) < _WEAK_MODULATION
    ]
    if weak:
        sentences.append(
            f"Modulation of angle {', '.join(weak)} is below {_WEAK_MODULATION}: check polarisation"
            " and focus."
        )
    drifting = [str(a) for a, f in enumerate(found) if f.phase_spread_rad > _DRIFT_RAD]
    if drifting:
        sentences.append(
            f"The phase of angle {', '.join(drifting)} changes by more than {_DRIFT_RAD} rad"
            " between time points: the sample or the pattern moves."
        )
    if damping and damping.value <= MIN_DAMPING:
        sentences.append(
            f"The OTF's damping is at its limit of {MIN_DAMPING:g}: the frames hold less fine"
            " detail than these optics pass. Check focus, and pixel size, NA and wavelength in"
            " rig.yaml."
        )
    elif damping and not undersampled and damping.log_error > _MIN_CERTAIN_LOG_DAMPING:
        sentences.append(
            f"The OTF's damping of {damping.value:.2f} is uncertain by a factor of"
            f" {np.exp(damping.log_error):.2f}: calibrate with more light."
        )
    return sentences
