"""How far focus has drifted, from localisations with z.

Owns the mean height of everything that was seen before. Moves nothing itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BIN_NM = 60.0
_FEWEST = 50  # localisations of a group whose place was seen before
_STEADY = 3  # localisations that a place needs to be compared with


class DepthTracker:
    """Drift along z of groups of localisations against all earlier ones, in order of time.

    A localisation is compared with the mean z of what was seen in the same 60 nm of the field, once
    lateral drift is taken off; the drift is the median of the differences. What lies at several
    heights above each other only widens them. Until 50 localisations of a group lie where something
    was seen, groups count as one; later, one of fewer keeps the last drift and is left out.

    Parameters
    ----------
    field_nm : size (y, x) of what the camera sees

    Notes
    -----
    Causal, as `DriftTracker` is: the reference is everything before, so that errors do not add up
    from group to group.
    """

    def __init__(self, field_nm: tuple[float, float]) -> None:
        self._shape = tuple(int(n / _BIN_NM) + 1 for n in field_nm)
        size = self._shape[0] * self._shape[1]
        self._count, self._sum = np.zeros(size, np.float32), np.zeros(size, np.float64)
        self._drift_nm, self._first = 0.0, True

    @property
    def memory_bytes(self) -> int:
        """The reference."""
        return 12 * len(self._count)

    def update(
        self, y_nm: NDArray[np.float32], x_nm: NDArray[np.float32], z_nm: NDArray[np.float32]
    ) -> float:
        """Take the next group, whose y and x were moved back.

        Return its drift in nm: measured z minus z in the first group.
        """
        row, column = (
            np.clip((at / _BIN_NM).astype(np.intp), 0, n - 1)
            for at, n in zip((y_nm, x_nm), self._shape, strict=True)
        )
        at = row * self._shape[1] + column
        steady = self._count[at] >= _STEADY
        if steady.sum() >= _FEWEST:
            before = self._sum[at[steady]] / self._count[at[steady]]
            self._drift_nm = float(np.median(z_nm[steady] - before))
        if steady.sum() >= _FEWEST or self._first:
            self._first = steady.sum() < _FEWEST
            self._count += np.bincount(at, minlength=len(self._count)).astype(np.float32)
            self._sum += np.bincount(at, z_nm - self._drift_nm, len(self._count))
        return self._drift_nm
