"""Which angle and phase every raw frame shows, when nobody knows.

Owns the detection of the raw order. Pure functions. Needs light enough to see the pattern in single
raw frames.

What a raw frame has beyond the mean of its group is its pattern alone. Its correlation with the
mean peaks at its angle's vector, and the argument of the peak is its phase (the single-frame
variant of Wicker et al. 2013, Optics Express 21, 2032).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import CalibrationError
from livesr.modalities.sim.calibration.correlation import at, correlate, find_peak, refine, whitened
from livesr.modalities.sim.calibration.groups import Complex, Optics, conditioned
from livesr.modalities.sim.calibration.patterns import (
    SEARCH,
    AmbiguousPatternError,
    NoPatternError,
    check_search,
    estimate,
)
from livesr.optics.illumination import angle_major

_MIN_PEAK = 4.0  # lower than for one angle: what follows is far stricter
_MIN_MARGIN = 1.5  # strength of a frame's own angle over that of any other
_PHASE_TOLERANCE = 0.3  # of the step between two neighbouring phases

Order = list[tuple[int, int]]


def detect_order(
    raw: NDArray[Any],
    optics: Optics,
    *,
    angles: int = 3,
    harmonics: int = 1,
    offset_adu: float = 100.0,
) -> Order:
    """Return (angle, phase) of every raw index.

    Angles and phases are counted from the first raw frame that shows them.

    Parameters
    ----------
    raw : uint8 or uint16 (t, n, y, x), patterns unchanged over t
    optics : of this channel
    angles : how many directions there are; n must be a multiple
    harmonics : waves per angle, as in `estimate`
    offset_adu : level of a dark frame

    Raises
    ------
    CalibrationError
        If there are not as many patterns, or frames do not fall into groups of equal size with
        evenly spaced phases.
    """
    n = raw.shape[1]
    if n % angles or n // angles < 2 * harmonics + 1:
        raise CalibrationError(
            f"{n} raw frames cannot be {angles} angles with {2 * harmonics + 1} or more phases"
            " each: check both numbers."
        )
    check_search(raw.shape[-2:], optics)
    try:
        return _order_of_frames(raw, optics, angles, harmonics, offset_adu)
    except CalibrationError as e:
        return _usual_order(raw, optics, angles, harmonics, offset_adu, e)


def same_light(a: Sequence[tuple[int, int]], b: Sequence[tuple[int, int]]) -> bool:
    """Whether two orders say the same of every raw frame, but for the names of angles and the zero
    and sign of phases.
    """
    return _nameless(a) == _nameless(b)


def _nameless(order: Sequence[tuple[int, int]]) -> Order:
    """Count angles and phases from the first raw frame that shows them, phases upwards as far as
    that can be said.
    """
    phases = max(p for _, p in order) + 1
    names = list(dict.fromkeys(angle for angle, _ in order))
    result: dict[int, tuple[int, int]] = {}
    for angle in names:
        mine = [raw for raw, (a, _) in enumerate(order) if a == angle]
        counted = [(order[raw][1] - order[mine[0]][1]) % phases for raw in mine]
        chosen = min(counted, [-p % phases for p in counted])
        result |= {raw: (names.index(angle), p) for raw, p in zip(mine, chosen, strict=True)}
    return [result[raw] for raw in range(len(order))]


def _order_of_frames(
    raw: NDArray[Any], optics: Optics, angles: int, harmonics: int, offset_adu: float
) -> Order:
    """Any order, from what every single frame shows."""
    n = raw.shape[1]
    mean, differences = bands(raw, optics, offset_adu)
    vectors = _vectors(mean, differences, optics, angles)
    # (angle, t, n): how strongly, and at which phase, each frame shows each vector
    shown = np.stack([_amplitudes(mean, differences, k, optics) for k in vectors])
    owner = _owners(shown, n // angles)
    phases = [0] * n
    for angle in range(angles):
        mine = np.flatnonzero(owner == angle)
        for raw_index, phase in zip(
            mine, _phase_indices(shown[angle][:, mine], harmonics, angle), strict=True
        ):
            phases[raw_index] = phase
    first_seen = list(dict.fromkeys(owner.tolist()))
    return [(first_seen.index(a), p) for a, p in zip(owner.tolist(), phases, strict=True)]


def _usual_order(
    raw: NDArray[Any],
    optics: Optics,
    angles: int,
    harmonics: int,
    offset_adu: float,
    why: CalibrationError,
) -> Order:
    """Angle-major or phase-major, where single frames are too dim.

    The one whose separated bands show every pattern best.

    Separated bands pool the phases, so that this needs several times less light.
    """
    orders = [
        angle_major(angles, raw.shape[1] // angles),
        _phase_major(angles, raw.shape[1] // angles),
    ]
    weakest = []
    for order in orders:
        try:
            found = estimate(raw, optics, order, harmonics=harmonics, offset_adu=offset_adu)
            weakest.append(min(f.peak for f in found))
        except CalibrationError as e:
            why = e if isinstance(e, AmbiguousPatternError) else why
            weakest.append(0.0)
    best = int(np.argmax(weakest))
    if weakest[best] < _MIN_MARGIN * weakest[1 - best] or weakest[best] == 0:
        raise why
    return orders[best]


def _phase_major(angles: int, phases: int) -> Order:
    return [(a, p) for p in range(phases) for a in range(angles)]


def order_name(order: Sequence[tuple[int, int]]) -> str | Order:
    """Return "angle-major" or "phase-major" where the order is one of these, else the order."""
    angles, phases = (max(column) + 1 for column in zip(*order, strict=True))
    if list(order) == angle_major(angles, phases):
        return "angle-major"
    if list(order) == _phase_major(angles, phases):
        return "phase-major"
    return list(order)


def bands(raw: NDArray[Any], optics: Optics, offset_adu: float) -> tuple[Complex, Complex]:
    """Return the whitened mean (t, y, x) of each group, and its frames' differences from it
    (n, t, y, x).
    """
    frames = conditioned(raw, offset_adu)
    mean = frames.mean(1)
    frames -= mean[:, None]
    grid = optics.pixel_size_um, optics.cutoff_um
    t, n, y, x = frames.shape
    differences = whitened(frames.reshape(t * n, y, x), *grid).reshape(t, n, y, x)
    return whitened(mean, *grid), differences.swapaxes(0, 1)


def _vectors(
    mean: Complex, differences: Complex, optics: Optics, angles: int
) -> list[tuple[float, float]]:
    """Vectors of the finest wave of each angle; their signs are arbitrary."""
    power = np.sum([correlate(mean, frames) for frames in differences], axis=0)
    annulus = SEARCH[0] * optics.cutoff_um, SEARCH[1] * optics.cutoff_um
    vectors: list[tuple[float, float]] = []
    for _ in range(angles):
        peak = find_peak(power, optics.pixel_size_um, annulus, exclude=vectors)
        if peak.height < _MIN_PEAK:
            seen = ", ".join(f"{np.degrees(np.arctan2(*k)):.0f}" for k in vectors)
            raise NoPatternError(
                f"{len(vectors)} of {angles} pattern directions are"
                f" found{f' ({seen} degrees)' if seen else ''}; the next candidate is only"
                f" {peak.height:.1f} times the noise. "
                + (
                    "Check the number of angles, and that each has a direction of its own; or give"
                    " more time points or light."
                    if seen
                    else (
                        "Give more time points or light, or check the number of angles and the"
                        " optics."
                    )
                )
            )
        every = np.concatenate(list(differences))
        again = np.concatenate([mean] * len(differences))
        vectors.append(refine(again, every, peak.k_um, optics.pixel_size_um))
    return vectors


def _amplitudes(
    mean: Complex, differences: Complex, k_um: tuple[float, float], optics: Optics
) -> NDArray[np.complex128]:
    """Correlation at one vector, complex (t, n)."""
    place = np.array([k_um[0]]), np.array([k_um[1]])
    values = [at(mean, frames, *place, optics.pixel_size_um)[:, 0, 0] for frames in differences]
    return np.stack(values, axis=1).astype(np.complex128)


def _owners(shown: NDArray[np.complex128], phases: int) -> NDArray[np.intp]:
    """Angle of every raw frame."""
    strength = np.sqrt(np.mean(np.abs(shown) ** 2, axis=1))  # (angle, n)
    owner = np.asarray(strength.argmax(axis=0), np.intp)
    if len(strength) > 1:
        ranked = np.sort(strength, axis=0)
        margin = float((ranked[-1] / np.maximum(ranked[-2], 1e-30)).min())
        if margin < _MIN_MARGIN:
            raise CalibrationError(
                f"A raw frame shows two directions almost alike ({margin:.1f} : 1): the order"
                " cannot be told. Give more time points or light, or name the order."
            )
    counts = np.bincount(owner, minlength=len(shown)).tolist()
    if set(counts) != {phases}:
        raise CalibrationError(
            f"The directions are shown by {', '.join(map(str, counts))} raw frames; expected"
            f" {phases} each. Check the number of angles, and that one group holds one"
            " super-resolution frame."
        )
    return owner


def _phase_indices(shown: NDArray[np.complex128], harmonics: int, angle: int) -> list[int]:
    """Phase index of the frames of one angle (t, phases), in raw order; the first is 0."""
    n = shown.shape[1]
    turns = np.angle(np.mean(shown * np.conj(shown[:, :1]), axis=0)) * n / (2 * np.pi)
    # The finest wave turns by `harmonics` steps per phase; the multiplicative inverse undoes that
    # modulo n.
    steps = np.rint(turns).astype(int)
    off = float(np.abs(turns - steps).max())
    indices = [int(s) * pow(harmonics, -1, n) % n for s in steps]
    if sorted(indices) != list(range(n)) or off > _PHASE_TOLERANCE:
        degrees = ", ".join(f"{360 * t / n:.0f}" for t in turns)
        raise CalibrationError(
            f"The finest wave of angle {angle} stands at {degrees} degrees: not {n} evenly spaced"
            " phases. Check the number of phases; if they are meant to be uneven, name order and"
            " phase_steps_rad in rig.yaml."
        )
    # k or -k: the one whose phases count upwards in raw order, as far as that can be said
    mirrored = [-i % n for i in indices]
    return min(indices, mirrored)
