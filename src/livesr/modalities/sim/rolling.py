"""A picture of the newest exposures of all patterns, while their group is still under way.

Owns what the bands in a workspace are made of, and the exchange of those of which newer frames
came. Judges nothing; `reconstructor.py` does.

Linear SIM adds up: every wave's band is made of the frames of its angle alone, and band 0 is a sum
over all frames. With the frames of one angle exchanged, only that angle is separated and
transformed again; the bands of the others stay where they are, in Fourier space.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from livesr.base.frames import Pixels
from livesr.live.arrays import Array, Arrays
from livesr.live.reconstruct.reconstructor import NewerFrames
from livesr.modalities.sim.plan import SIMPlan
from livesr.modalities.sim.workspace import Workspace
from livesr.optics.raw_quality import Doubt


@dataclass(slots=True)
class Kept:
    """What the bands in a workspace are made of.

    Attributes
    ----------
    frames : by raw index, as the camera gave them; compared by identity
    weights : float64 (bands, n), separation weights with the drift of the patterns, before frames
        are scaled to one mean
    levels : (n,) mean of each frame above the offset, ADU
    factors : (n,) what each frame was scaled by
    doubt : what is wrong with the frames
    """

    frames: list[Pixels | None]
    weights: NDArray[np.float64]
    levels: NDArray[np.float64]
    factors: NDArray[np.float64]
    doubt: Doubt = field(default_factory=Doubt)

    def precedes(self, newer: NewerFrames) -> bool:
        """Whether every frame is one of the group under way, or of the group before it."""
        both = zip(self.frames, newer.frames, newer.before, strict=True)
        return all(kept is now or kept is before for kept, now, before in both)

    def changed(self, newer: NewerFrames) -> list[int]:
        """Return the raw indices of which newer frames came."""
        both = enumerate(zip(self.frames, newer.frames, strict=True))
        return [raw for raw, (kept, now) in both if kept is not now]

    @property
    def reference(self) -> float:
        """Level that frames were scaled to, 0 where they were not scaled."""
        scaled = self.levels * self.factors
        return float(scaled[0]) if np.ptp(scaled) < 1e-6 * abs(scaled[0]) else 0.0


class Exchange:
    """Exchanges the bands of angles in a workspace; of one thread.

    Parameters
    ----------
    plan, work, arrays : of the reconstruction
    """

    def __init__(self, plan: SIMPlan, work: Workspace, arrays: Arrays) -> None:
        self._plan, self._work, self._arrays = plan, work, arrays
        self._harmonics = len(plan.waves) // plan.angles
        self._pixels = plan.parameters.shape[0] * plan.parameters.shape[1]

    def angles(self, changed: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """Yield every angle of which a frame changed, and the raw indices of all its frames.

        Of the last frame that changed, last.
        """
        order = self._plan.order
        for angle in dict.fromkeys(order[raw][0] for raw in changed):
            yield angle, [raw for raw, (a, _) in enumerate(order) if a == angle]

    def exchange(
        self, kept: Kept, newer: NewerFrames, raws: list[int], seen: Sequence[Array]
    ) -> tuple[Array, Array]:
        """Put the newer frames of one angle in the place of those that are kept.

        Parameters
        ----------
        raws : raw indices of the angle's frames
        seen : their newer frames, then those that are kept, where they are computed with

        Returns
        -------
        NDArray[np.float32], NDArray[np.float32]
            Mean of both, and what changed, (y, x) summed over squares of pixels.
        """
        n, angle = len(raws), self._plan.order[raws[0]][0]
        h = self._harmonics
        rows = [0, *range(1 + 2 * angle * h, 1 + 2 * (angle + 1) * h)]
        old = self._weights(kept, raws, rows[:1])
        reference = kept.reference
        frames = newer.correct(seen[n:])
        gone = self._arrays.on_host(self._work.exchange(frames, -old, None)).copy()
        frames = newer.correct(seen[:n])
        level = self._arrays.totals(frames) / self._pixels - self._plan.parameters.offset_adu
        kept.levels[raws] = level
        kept.factors[raws] = reference / level if reference > 0 and level.min() > 0 else 1.0
        waves = slice(angle * h, (angle + 1) * h)
        came = self._work.exchange(frames, self._weights(kept, raws, rows), waves)
        for raw in raws:
            kept.frames[raw] = newer.frames[raw]
        self._work.transform(waves)
        gone = self._arrays.array(gone)
        return (came - gone) * 0.5, came + gone

    def _weights(self, kept: Kept, raws: list[int], rows: list[int]) -> Array:
        """Return the weights of an angle's frames, (rows, n + 1); the last column is for 1."""
        weights = kept.weights[np.ix_(rows, raws)] * kept.factors[raws]
        offsets = -self._plan.parameters.offset_adu * weights.sum(axis=1)
        return self._arrays.array(np.column_stack([weights, offsets]).astype(np.float32))

    def brightness(self, kept: Kept) -> float:
        """Return what the picture is to be multiplied by, so that its mean is that of its frames
        rather than that of the group whose bands were kept.
        """
        reference = kept.reference
        return float(kept.levels.mean() / reference) if reference > 0 else 1.0
