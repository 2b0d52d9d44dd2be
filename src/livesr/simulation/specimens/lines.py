"""Lines that bend: worm-like chains that sway about their place of rest.

Owns how such lines are drawn and move. What they are made of, and how wide they are, is their
structure's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from livesr.simulation.specimens.noise import mean_reverting

Floats = NDArray[np.floating]
Image = NDArray[np.float32]


def worm_like_chains(
    rng: np.random.Generator,
    middle_um: Floats,
    heading: Floats,
    arc_um: Floats,
    persistence_um: float,
) -> Image:
    """Draw chains (n, m, 2) in um through the points `middle_um` (n, 2).

    Parameters
    ----------
    heading : (n,), radians from x to y, in the middle
    arc_um : (m,), evenly spaced way along each chain
    persistence_um : the heading's variance grows by arc length / persistence
    """
    count, nodes, step = len(middle_um), len(arc_um), float(arc_um[1] - arc_um[0])
    turns = np.sqrt(step / persistence_um) * rng.standard_normal((count, nodes))
    angle = np.cumsum(turns, axis=1)
    angle += (heading - angle[:, nodes // 2])[:, None]
    path = np.cumsum(step * np.stack([np.sin(angle), np.cos(angle)], axis=-1), axis=1)
    return np.asarray(middle_um[:, None] + path - path[:, nodes // 2 : nodes // 2 + 1], np.float32)


class SwayingLines:
    """Lines of equal numbers of nodes that sway sideways in slow modes and drift as a whole.

    Parameters
    ----------
    rest_um : (n, m, 2)
    sway_um, drift_um : standard deviations of the two
    time_s : correlation time of the slowest mode

    Attributes
    ----------
    normals : (n, m, 2), unit vectors across each line at rest
    """

    _MODES = 4

    def __init__(
        self,
        rng: np.random.Generator,
        rest_um: Image,
        sway_um: float,
        drift_um: float,
        time_s: float,
    ) -> None:
        self._rng, self._rest = rng, rest_um
        self._drift_um, self._time_s = drift_um, time_s
        tangent = np.gradient(rest_um, axis=1)
        tangent /= np.linalg.norm(tangent, axis=2, keepdims=True) + 1e-9
        self.normals = np.asarray(tangent[..., ::-1] * np.array([1, -1]), np.float32)
        order = np.arange(1, self._MODES + 1)
        self._modes = np.sin(np.pi * order[:, None] * np.linspace(0, 1, rest_um.shape[1])).astype(
            np.float32
        )
        self._spread = np.asarray(sway_um / order, np.float32)
        self._times = np.asarray(time_s / order, np.float32)
        self._amplitudes = np.zeros((len(rest_um), self._MODES), np.float32)
        self._drift = np.zeros((len(rest_um), 1, 2), np.float32)
        self.advance(np.inf)

    def advance(self, dt_s: float) -> None:
        """Let time pass; infinity draws from the steady state."""
        mean_reverting(self._amplitudes, dt_s, self._times, self._spread, self._rng)
        mean_reverting(self._drift, dt_s, 5 * self._time_s, self._drift_um, self._rng)

    @property
    def nodes_um(self) -> Image:
        """Present nodes, (n, m, 2)."""
        lateral = (self._amplitudes @ self._modes)[..., None]
        return np.asarray(self._rest + self._drift + self.normals * lateral, np.float32)
