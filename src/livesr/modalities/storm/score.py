"""How near localisations come to known emitters: Jaccard index, lateral RMSE.

Owns the pairing of found and true positions, frame by frame. Draws nothing, reads no file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

Positions = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class LocalisationScore:
    """Found against true emitters.

    Attributes
    ----------
    found, true, paired : how many
    jaccard : paired / (found + true - paired)
    recall, precision : paired / true, paired / found
    rmse_nm : root mean square of the paired distances, lateral, in nm
    bias_nm : mean difference found - true, (y, x), in nm
    """

    found: int
    true: int
    paired: int
    rmse_nm: float
    bias_nm: tuple[float, float]

    @property
    def jaccard(self) -> float:
        """Intersection over union."""
        return self.paired / max(self.found + self.true - self.paired, 1)

    @property
    def recall(self) -> float:
        """Share of the true emitters that were found."""
        return self.paired / max(self.true, 1)

    @property
    def precision(self) -> float:
        """Share of the localisations that are emitters."""
        return self.paired / max(self.found, 1)


def score_localisations(
    found_frame: NDArray[np.integer[Any]],
    found_nm: Positions,
    true_frame: NDArray[np.integer[Any]],
    true_nm: Positions,
    radius_nm: float = 250.0,
) -> LocalisationScore:
    """Pair localisations with emitters of the same frame.

    Parameters
    ----------
    found_frame, true_frame : frame of each, (n,) and (m,)
    found_nm, true_nm : positions (y, x) in nm from the same origin, (n, 2) and (m, 2)
    radius_nm : farther apart, a localisation is false and its emitter missed

    Notes
    -----
    As many pairs as there can be, and of those the nearest, each used once; 250 nm as in Sage et
    al. 2019, Nature Methods 16, 387. `rmse_nm` is over both axes together: sqrt(mean(dy^2 + dx^2)).
    """
    differences: list[NDArray[np.float64]] = []
    for frame in np.intersect1d(found_frame, true_frame):
        here, there = found_nm[found_frame == frame], true_nm[true_frame == frame]
        distance = cdist(here, there)
        # Out of reach costs more than all pairs within it, so that no near pair is given up for a
        # far one.
        cost = np.where(distance <= radius_nm, distance, radius_nm * (len(here) + 1))
        i, j = linear_sum_assignment(cost)
        near = distance[i, j] <= radius_nm
        differences.append(here[i[near]] - there[j[near]])
    pairs = np.concatenate(differences) if differences else np.empty((0, 2))
    rmse = float(np.sqrt((pairs**2).sum(axis=1).mean())) if len(pairs) else float("nan")
    bias = (float(pairs[:, 0].mean()), float(pairs[:, 1].mean())) if len(pairs) else (0.0, 0.0)
    return LocalisationScore(len(found_frame), len(true_frame), len(pairs), rmse, bias)
