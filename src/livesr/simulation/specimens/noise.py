"""Randomness that living things show.

Smooth along a line, smooth over an area, mean-reverting in time.

Every function takes the generator it draws from. Arrays are float32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Image = NDArray[np.float32]


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a positive number of which each factor of two is equally likely."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def mean_reverting(
    state: Image,
    dt_s: float,
    time_s: float | Floats,
    spread: float | Floats,
    rng: np.random.Generator,
) -> None:
    """Advance an Ornstein-Uhlenbeck process in place, exactly for any `dt_s`.

    Parameters
    ----------
    state : float32
        Deviation from the mean.
    dt_s : float
        Time step; 0 leaves `state` as it is, infinity draws from the steady state.
    time_s : float or array
        Correlation time.
    spread : float or array
        Standard deviation in the steady state, in the units of `state`.
    rng : numpy.random.Generator
        Source of the noise.
    """
    memory = np.exp(-dt_s / np.asarray(time_s, np.float32))
    kick = rng.standard_normal(state.shape, np.float32)
    state *= memory
    state += np.asarray(spread, np.float32) * np.sqrt(1 - memory**2) * kick


class LineNoise:
    """Smooth noise of one variable: mean 0, variance about 1, correlation length 1.

    The same place, the same value.
    """

    _SIZE = 8192

    def __init__(self, rng: np.random.Generator) -> None:
        # Linear interpolation lowers the variance to 2/3 on average.
        self._table = rng.standard_normal(self._SIZE, np.float32) * np.float32(1.22)

    def __call__(self, position: Floats) -> Image:
        """Return the noise at `position`, an array of any shape, in correlation lengths."""
        place = np.mod(position, self._SIZE - 1)
        left = place.astype(np.intp)
        fraction = (place - left).astype(np.float32)
        noise: Image = self._table[left] * (1 - fraction) + self._table[left + 1] * fraction
        return noise

    def along(self, arc: Floats, count: int, rng: np.random.Generator) -> Image:
        """Return `count` independent stretches of noise.

        `arc`, (m,) or (count, m), is the way along each stretch in correlation lengths; the result
        is (count, m).
        """
        return self(rng.uniform(0, self._SIZE, (count, 1)) + arc)


class AreaNoise:
    """Smooth noise over the field: between 0 and 1, one bump per `grain_um`."""

    def __init__(
        self, low_um: Floats, high_um: Floats, grain_um: float, rng: np.random.Generator
    ) -> None:
        self._low, self._grain = np.asarray(low_um, np.float32), np.float32(grain_um)
        size = np.ceil((np.asarray(high_um) - self._low) / grain_um).astype(int) + 2
        self._table = rng.random((size[0], size[1]), np.float32)

    def __call__(self, points_um: Floats) -> Image:
        """Return the noise at points (..., 2) as (y, x); beyond the field the edge's value."""
        top = np.asarray(self._table.shape) - 1.001
        place = np.clip((points_um - self._low) / self._grain, 0, top)
        corner = place.astype(np.intp)
        y, x = corner[..., 0], corner[..., 1]
        # A smoothstep between the nodes leaves no visible creases.
        part = (place - corner).astype(np.float32)
        part = part * part * (3 - 2 * part)
        down, right = part[..., 0], part[..., 1]
        upper = self._table[y, x] * (1 - right) + self._table[y, x + 1] * right
        lower = self._table[y + 1, x] * (1 - right) + self._table[y + 1, x + 1] * right
        noise: Image = upper * (1 - down) + lower * down
        return noise
