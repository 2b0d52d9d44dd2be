"""Sinusoidal illumination of linear SIM.

Owns the geometry of a pattern: its vector in cycles/um and its phase at the camera chip's origin,
so that one calibration holds for every region of interest. Axes (y, x). Knows nothing about OTFs,
cameras or reconstruction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Pattern:
    """One direction of structured illumination, 1 + m cos(2 pi k.r + phase + step), and its
    overtones if it has any.

    Attributes
    ----------
    k_um : pattern vector (ky, kx) in cycles/um. Its sign and that of the phase belong together
    phase_rad : phase of step 0 at the chip's origin, the centre of pixel (0, 0) of the full chip
    modulation : contrast m of the fundamental in the object, 0 to 1
    overtones : (phase, modulation) of the waves with 2 k, 3 k ...: three interfering beams, as in
        3D-SIM, give one. A phase step turns the wave with h k by h steps
    directions_um : vectors of the overtones where they are no multiples of k: waves of other
        directions in the same light, as beams of a hexagonal or square lattice make them
    """

    k_um: tuple[float, float]
    phase_rad: float
    modulation: float
    overtones: tuple[tuple[float, float], ...] = ()
    directions_um: tuple[tuple[float, float], ...] = ()

    @property
    def waves(self) -> tuple[Pattern, ...]:
        """The single waves that it consists of: fundamental, then overtones."""
        parts = ((self.phase_rad, self.modulation), *self.overtones)
        return tuple(Pattern(k, phase, m) for k, (phase, m) in zip(self._k_um, parts, strict=True))

    @property
    def _k_um(self) -> tuple[tuple[float, float], ...]:
        """Vector of every wave."""
        if self.directions_um:
            return (self.k_um, *self.directions_um)
        ky, kx = self.k_um
        return tuple((h * ky, h * kx) for h in range(1, len(self.overtones) + 2))

    def seen_from(self, origin_px: tuple[float, float], pixel_size_um: float) -> Pattern:
        """Return the pattern with its phase referred to pixel (0, 0) of a region of interest.

        Parameters
        ----------
        origin_px : the region's first pixel (y, x) on the chip, in pixels of `pixel_size_um`. With
            n x n binning the centre of a binned pixel lies (n - 1) / 2 chip pixels further: give
            ((y0 + (n - 1) / 2) / n, ...)
        pixel_size_um : size of the pixels in which `origin_px` counts
        """
        first, *others = (
            2.0 * np.pi * pixel_size_um * (k[0] * origin_px[0] + k[1] * origin_px[1])
            for k in self._k_um
        )
        overtones = tuple(
            (float(phase + turn), m)
            for (phase, m), turn in zip(self.overtones, others, strict=True)
        )
        return replace(self, phase_rad=float(self.phase_rad + first), overtones=overtones)

    def stepped(self, step_rad: float) -> Pattern:
        """Return the pattern after a phase step; the wave with h k turns by h steps."""
        overtones = (
            (float(phase + h * step_rad), m) for h, (phase, m) in enumerate(self.overtones, start=2)
        )
        return replace(self, phase_rad=float(self.phase_rad + step_rad), overtones=tuple(overtones))

    def mirrored(self, axes: tuple[bool, bool]) -> Pattern:
        """Return the pattern in coordinates of which those of `axes` (y, x) run the other way, from
        the same origin.
        """
        sy, sx = (-1 if mirrored else 1 for mirrored in axes)
        others = tuple((sy * ky, sx * kx) for ky, kx in self.directions_um)
        return replace(self, k_um=(sy * self.k_um[0], sx * self.k_um[1]), directions_um=others)

    def reversed(self) -> Pattern:
        """Return the same light described by -k: a phase step then has the opposite sign."""
        overtones = tuple((-phase, m) for phase, m in self.overtones)
        return replace(
            self,
            k_um=(-self.k_um[0], -self.k_um[1]),
            phase_rad=-self.phase_rad,
            overtones=overtones,
            directions_um=tuple((-ky, -kx) for ky, kx in self.directions_um),
        )


def angle_major(angles: int, phases: int) -> list[tuple[int, int]]:
    """Return (angle, phase) of every raw index when all phases of an angle come first."""
    return list(product(range(angles), range(phases)))


def equal_steps(phases: int) -> NDArray[np.float64]:
    """Phase steps in radians that divide a turn into equal parts."""
    return np.asarray(np.arange(phases) * (2 * np.pi / phases), np.float64)


def unmixing(steps_rad: NDArray[np.float64], harmonics: int = 1) -> NDArray[np.complex128]:
    """Least-squares weights (1 + harmonics, phases) that give band 0 and bands +1, +2 .

    Of one angle from its frames.

    A frame is B0 + the sum over h of e^(i h step) B+h + e^(-i h step) B-h. More phases than bands
    average noise, and equally spaced ones also reject the next harmonic.

    Raises
    ------
    ValueError
        If the steps do not tell the bands apart.
    """
    turns = [h * sign for h in range(1, harmonics + 1) for sign in (1, -1)]
    mixing = np.exp(1j * np.outer(steps_rad, [0, *turns]))
    bands = mixing.shape[1]
    if len(steps_rad) < bands or np.linalg.cond(mixing) > 1e3:
        raise ValueError(
            f"phase steps {np.round(steps_rad, 3).tolist()} rad do not separate {bands} bands; give"
            f" >= {bands} distinct phases"
        )
    return np.asarray(np.linalg.pinv(mixing)[[0, *range(1, bands, 2)]], np.complex128)
