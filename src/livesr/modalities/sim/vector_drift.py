"""Pattern vectors that drift slowly.

Measured again in the frames of a run, beside it, and exchanged between frames.

Owns the measurement and the verdict. Touches no thread, knows no camera: `monitors.py` says when to
look, `pattern_drift.py` holds what was decided, and the reconstruction takes it over with its next
frame.

The correlation of whitened bands 0 and +1 is largest at the pattern's vector, as in a calibration.
Here the vector is known but for a fraction of a frequency step: the product of the bands, turned
back by the known vector, varies so slowly that sums over squares of pixels hold all of it, and
searching and pooling many groups costs next to nothing.

A vector is exchanged if three things hold: it moved so far that one could see it; by more than
three times its uncertainty, which the groups themselves tell (jackknife); and on either half of the
groups, the vector that the other half gives is better than the present one.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from livesr.base.frames import FrameQuality, Pixels
from livesr.modalities.sim.calibration.correlation import at, refine, whitened
from livesr.modalities.sim.calibration.groups import bands, conditioned
from livesr.modalities.sim.parameters import SIMParameters
from livesr.modalities.sim.pattern_drift import MIN_CONTRAST, PatternDrift
from livesr.optics.illumination import Pattern

log = logging.getLogger(__name__)

Complex = NDArray[np.complex64]
Vector = tuple[float, float]

GROUPS = 8
MIN_STEPS = 0.05
"""Of a frequency step of the frame: the phase at its edges is then off by 0.16 rad."""

MAX_STEPS = 3.0
"""From the calibrated vector.

Beyond, the OTF's weights, which stay where they were, are no longer right.
"""

MIN_PX = 64
"""Side of a frame that shows a vector well enough.

Smaller regions keep the calibrated one, which is good enough for them.
"""

_SURE = 3.0  # uncertainties
_MAX_PX = 512  # of each side that are looked at: bounds the cost
_SQUARE_PX = 8
_REST = 20.0  # times as long as a look took: at most a twentieth of a core


class VectorDrift:
    """Watches the pattern vectors of one channel.

    Parameters
    ----------
    parameters : as the frames are reconstructed
    patterns : one per angle, as they were calibrated
    drift : what is told of vectors that moved

    Attributes
    ----------
    lost : whether a vector has moved further than can be followed
    """

    def __init__(
        self, parameters: SIMParameters, patterns: Sequence[Pattern], drift: PatternDrift
    ) -> None:
        self._parameters, self._patterns, self._drift = parameters, list(patterns), drift
        self._extent_um = np.array(parameters.shape) * parameters.pixel_size_um
        self._region = tuple(
            slice((n - min(n, _MAX_PX)) // 2, (n + min(n, _MAX_PX)) // 2) for n in parameters.shape
        )
        self._products: deque[list[Complex]] = deque(maxlen=GROUPS)
        self._offered: NDArray[np.unsignedinteger] | None = None
        self._rest_until_s = 0.0
        self.lost = False

    def offer(self, frames: Sequence[Pixels | None], quality: FrameQuality) -> None:
        """Take a copy of a raw group without a doubt, if one is wanted.

        Called for each group, in one thread.
        """
        wanted = self._offered is None and time.monotonic() >= self._rest_until_s
        patterns = quality.patterns
        if wanted and not quality.doubt and patterns and patterns.contrast_to_noise >= MIN_CONTRAST:
            self._offered = np.stack([frame[self._region] for frame in frames if frame is not None])

    def look(self) -> int:
        """Look at the group that was taken, if any.

        Return how many vectors were exchanged. Called in one thread.
        """
        if self._offered is None:
            return 0
        began_s = time.monotonic()
        self._products.append(self.products(self._offered))
        exchanged = self._exchange() if len(self._products) == GROUPS else 0
        self._rest_until_s = time.monotonic() + _REST * (time.monotonic() - began_s)
        self._offered = None
        return exchanged

    def products(self, raw: NDArray[np.unsignedinteger]) -> list[Complex]:
        """Return the product of bands 0 and +n of every angle of a group (n, y, x), turned back, in
        squares (y, x).
        """
        given, angles = self._parameters, len(self._patterns)
        frames, order = conditioned(raw[None], given.offset_adu), given.raw_order(angles)
        steps = given.steps_rad(angles, len(order) // angles)
        harmonics, grid = len(self._patterns[0].waves), (given.pixel_size_um, given.cutoff_um)
        found = []
        for angle, pattern in enumerate(self._patterns):
            zero, higher = bands(frames, order, angle, steps[angle], harmonics)
            product = np.conj(whitened(zero, *grid)[0]) * whitened(higher[-1], *grid)[0]
            found.append(_squares(product, pattern.waves[-1].k_um, grid[0]))
        return found

    def _exchange(self) -> int:
        """Exchange the vectors that moved; return how many."""
        vectors, exchanged = self._drift.correction.vectors_um.copy(), 0
        harmonics = len(self._patterns[0].waves)
        for angle, pattern in enumerate(self._patterns):
            products = np.stack([group[angle] for group in self._products])
            present = vectors[angle] * harmonics  # of the finest wave
            found = moved(
                products,
                (present[0], present[1]),
                self._parameters.pixel_size_um * _SQUARE_PX,
                self._extent_um,
            )
            if found is None:
                continue
            if np.hypot(*(found * self._extent_um)) > MAX_STEPS:
                self.lost = True
                continue
            vectors[angle], exchanged = found / harmonics, exchanged + 1
            k = np.asarray(pattern.waves[-1].k_um)
            log.info(
                "angle %d: period %.2f -> %.2f nm",
                angle,
                *(1e3 / np.hypot(*(k + d)) for d in (present, found)),
            )
        if exchanged:
            self._drift.set_vectors(vectors)
            self._products.clear()
        return exchanged


def moved(
    products: Complex, present_um: Vector, square_um: float, extent_um: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Return the vector (ky, kx) of products (t, y, x) if it is worth exchanging the present one
    for it, else None.

    Vectors are in cycles/um from the calibrated one, `square_um` is the size of a square,
    `extent_um` of the frame (y, x).
    """

    def best(some: Complex) -> NDArray[np.float64]:
        return np.array(refine(np.ones_like(some), some, present_um, square_um))

    def power(some: Complex, k: Sequence[float] | NDArray[np.float64]) -> float:
        found = at(np.ones_like(some), some, np.array([k[0]]), np.array([k[1]]), square_um)
        return float(np.sum(np.abs(found) ** 2))

    n, found = len(products), best(products)
    without = np.stack([best(np.delete(products, i, axis=0)) for i in range(n)])
    sigma = np.sqrt((n - 1) * np.var(without, axis=0))
    steps = np.hypot(*((found - present_um) * extent_um))
    if steps < max(MIN_STEPS, _SURE * np.hypot(*(sigma * extent_um))):
        return None
    halves = products[::2], products[1::2]
    better = all(power(a, best(b)) > power(a, present_um) for a, b in (halves, halves[::-1]))
    return found if better else None


def _squares(product: Complex, k_um: Vector, pixel_size_um: float) -> Complex:
    """Turn a product (y, x) back by a vector and sum it over squares of pixels.

    What does not fill a square is left out.
    """
    y, x = (
        np.exp(-2j * np.pi * k * pixel_size_um * np.arange(n))
        for k, n in zip(k_um, product.shape, strict=True)
    )
    turned = (product * y[:, None].astype(np.complex64)) * x.astype(np.complex64)
    rows, columns = (n // _SQUARE_PX for n in product.shape)
    inside = turned[: rows * _SQUARE_PX, : columns * _SQUARE_PX]
    return np.asarray(
        inside.reshape(rows, _SQUARE_PX, columns, _SQUARE_PX).sum(axis=(1, 3)), np.complex64
    )
