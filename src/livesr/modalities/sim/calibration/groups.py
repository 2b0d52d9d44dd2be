"""Raw groups as the estimation needs them.

Above the offset, equally bright, faded out at the edges, separated into bands.

Owns the conditioning of raw frames. Estimates nothing. Frames are (t, n, y, x), bands (t, y, x).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import CalibrationError
from livesr.optics.illumination import unmixing
from livesr.optics.otf import cutoff_um, otf

Float = NDArray[np.float32]
Complex = NDArray[np.complex64]

_TAPER = 0.08
MIN_PX = 32  # along each side


@dataclass(frozen=True, slots=True)
class Optics:
    """Camera pixel in the sample, objective and emission.

    `damping` as in `livesr.optics.otf.otf`.
    """

    pixel_size_um: float
    na: float
    emission_um: float
    damping: float = 1.0

    @property
    def cutoff_um(self) -> float:
        """Highest frequency that the objective passes, cycles/um."""
        return cutoff_um(self.na, self.emission_um)

    def otf(self, shape: tuple[int, int], offset_um: tuple[float, float] = (0.0, 0.0)) -> Float:
        """Transfer function on the grid of a raw frame (y, x), at k + offset."""
        return otf(
            shape,
            self.pixel_size_um,
            self.na,
            self.emission_um,
            offset_um=offset_um,
            damping=self.damping,
        )


def conditioned(raw: NDArray[Any], offset_adu: float) -> Float:
    """Return float32 frames (t, n, y, x) above the offset, each as bright as its group's mean,
    faded out at the edges.

    Raises
    ------
    CalibrationError
        If the frames are not (t, n, y, x), are tiny, or hold no light.
    """
    if raw.ndim != 4 or min(raw.shape[-2:]) < MIN_PX:
        raise CalibrationError(
            f"Raw frames of shape {raw.shape} came; expected (time, raw, y, x) of at least {MIN_PX}"
            f" x {MIN_PX} pixels."
        )
    frames = raw.astype(np.float32)
    frames -= offset_adu
    level = frames.mean((2, 3), keepdims=True)
    if not np.isfinite(level).all():
        t, n = (int(i) for i in np.argwhere(~np.isfinite(level[..., 0, 0]))[0])
        raise CalibrationError(f"Raw frame {n} of time point {t} holds values that are no numbers.")
    if level.min() <= 0:
        t, n = (int(i) for i in np.unravel_index(level.argmin(), level.shape[:2]))
        raise CalibrationError(
            f"Raw frame {n} of time point {t} is {-level.min():.1f} ADU below the camera's offset"
            f" of {offset_adu:g} on average: it holds no light, or camera.offset_adu in rig.yaml is"
            " too high."
        )
    frames *= level.mean(1, keepdims=True) / level
    frames *= _taper(raw.shape[-2:])
    return frames


def bands(
    frames: Float,
    order: Sequence[tuple[int, int]],
    angle: int,
    steps_rad: NDArray[np.float64],
    harmonics: int,
) -> tuple[Float, Complex]:
    """Separate one angle of conditioned frames: band 0 (t, y, x) and bands +1 .

    +harmonics (harmonic, t, y, x).
    """
    mine = [(raw, phase) for raw, (a, phase) in enumerate(order) if a == angle]
    weights = unmixing(steps_rad, harmonics)[:, [phase for _, phase in mine]].astype(np.complex64)
    separated = np.einsum(
        "bn,tnyx->btyx", weights, frames[:, [raw for raw, _ in mine]], optimize=True
    )
    return np.ascontiguousarray(separated[0].real), separated[1:]


def directions(
    frames: Float,
    order: Sequence[tuple[int, int]],
    steps_rad: NDArray[np.float64],
    harmonics: int,
    lattice: bool = False,
) -> Iterator[tuple[Float, Complex]]:
    """Yield band 0 and the higher bands of every direction of conditioned frames.

    One after the other for each angle; of a `lattice`, whose frames show all directions at once,
    each wave is a direction.
    """
    for angle in range(max(a for a, _ in order) + 1):
        zero, higher = bands(frames, order, angle, steps_rad, harmonics)
        if lattice:
            yield from ((zero, higher[h : h + 1]) for h in range(harmonics))
        else:
            yield zero, higher


def _taper(shape: tuple[int, ...]) -> Float:
    sides = []
    for n in shape:
        inside = np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5)
        sides.append(np.sin(np.minimum(1.0, inside / (_TAPER * n)) * (np.pi / 2)) ** 2)
    return np.asarray(np.outer(*sides), np.float32)
