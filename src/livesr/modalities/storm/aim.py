"""How far the specimen has drifted, from all localisations of a run that is over.

Owns the estimate for every frame. Causal drift, as a live run takes it out, is `drift.py`'s.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_smoothing_spline

from livesr.modalities.storm.depth import DepthTracker
from livesr.modalities.storm.drift import DriftTracker

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

# Localisations within one such square are likely one emitter's. Coarsely first, for what the causal
# estimate is off; the less far it is looked, the less the slope of what lies around counts.
_APART_NM, _APART_Z_NM = (20.0, 10.0, 10.0), (40.0, 20.0, 20.0)
_COLUMN_NM = 20.0
_REACH = 3  # squares to every side that are searched
_EACH = (300, 2000)  # localisations that show the drift of their frames, at least and at most
_STRETCHES = 8  # of a run with few of them
_FEWEST_FRAMES = 10
_STEP_NM = 60.0  # from one stretch to the next, over which nothing is smoothed
_ABOVE = 4.0  # standard deviations of as many pairs by chance
_FEWEST_TO_SMOOTH = 5  # that SciPy asks for


def drift_of(localisations: NDArray[np.void], field_nm: tuple[float, float], frames: int) -> Floats:
    """Return the drift of every frame in nm, (frames, 2) as y and x, with z (frames, 3).

    Measured position minus position in the first frame.

    Parameters
    ----------
    localisations : as measured; records of `LOCALISATION` or `LOCALISATION_3D`, in any order
    field_nm : size (y, x) of what the camera sees
    frames : of the run

    Notes
    -----
    Adaptive intersection maximisation (Ma et al. 2024, Science Advances 10, eadm7765): of every
    stretch of frames, the shift at which most localisations lie where others do. First each stretch
    is laid on those before it, as in a live run, so that jumps are found, to the frame; then,
    several times, on all others. Between jumps, drift is smoothed as far as cross-validation says.
    """
    found = localisations[np.argsort(localisations["frame"], kind="stable")]
    frame = found["frame"].astype(np.intp)
    places = np.stack([found["y_nm"], found["x_nm"]], axis=1).astype(np.float64)
    stretches = _Stretches.of(frame, frames)
    if len(stretches.edges) <= 2:  # there is nothing to compare it with
        return np.zeros((frames, 3 if "z_nm" in (found.dtype.names or ()) else 2))
    stretches, drift = _causal(places, stretches, frame, field_nm)
    drift += _left(places - stretches.own(drift), stretches, np.zeros_like(frame), _APART_NM)
    if "z_nm" in (found.dtype.names or ()):
        flat = places - stretches.own(drift)
        deep = _deep(flat, found["z_nm"], stretches, field_nm)
        z = found["z_nm"][:, None] - stretches.own(deep)
        deep += _left(z, stretches, _columns(flat), _APART_Z_NM)
        drift = np.column_stack([drift, deep])
    smooth = stretches.smooth(drift)
    return np.asarray(smooth - smooth[:1])


@dataclass(frozen=True, slots=True)
class _Stretches:
    """Frames between `edges`, whose localisations begin at `starts`; both have one more element
    than there are stretches. Those of `jumps` are not of a piece with the ones before.
    """

    edges: Ints
    starts: Ints
    jumps: tuple[int, ...] = ()

    @classmethod
    def of(cls, frame: Ints, frames: int, jumps: tuple[int, ...] = ()) -> _Stretches:
        """Divide `frames`, also at the frames of `jumps`."""
        each = int(np.clip(len(frame) // _STRETCHES, *_EACH))
        count = max(1, min(len(frame) // each, frames // _FEWEST_FRAMES))
        evenly = np.linspace(0, frames, count + 1).round().astype(np.intp)
        near = frames / count / 2
        apart = [e for e in evenly if all(abs(e - j) > near for j in jumps) or e in {0, frames}]
        edges = np.unique([*apart, *jumps]).astype(np.intp)
        at = tuple(int(np.searchsorted(edges, j)) for j in jumps)
        return cls(edges, np.searchsorted(frame, edges), at)

    def each(self) -> Iterator[slice]:
        """Yield where the localisations of each lie."""
        yield from (slice(int(a), int(b)) for a, b in pairwise(self.starts))

    def own(self, values: Floats) -> Floats:
        """Return for every localisation what is said of its stretch."""
        return np.repeat(values, np.diff(self.starts), axis=0)

    def smooth(self, values: Floats) -> Floats:
        """Return a smooth curve between jumps, for every frame."""
        middles = (self.edges[:-1] + self.edges[1:] - 1) / 2
        pieces = []
        for first, last in pairwise([0, *self.jumps, len(middles)]):
            at = np.arange(self.edges[first], self.edges[last])
            curves = (_curve(middles[first:last], v, at) for v in values[first:last].T)
            pieces.append(np.stack(list(curves), axis=1))
        return np.concatenate(pieces)


def _curve(middles: Floats, values: Floats, at: Ints) -> Floats:
    held = np.clip(at, middles[0], middles[-1])
    if len(middles) < _FEWEST_TO_SMOOTH:
        return np.asarray(np.interp(held, middles, values))
    return np.asarray(make_smoothing_spline(middles, values)(held))


def _causal(
    places: Floats, stretches: _Stretches, frame: Ints, field_nm: tuple[float, float]
) -> tuple[_Stretches, Floats]:
    """Return stretches that end at jumps, and the drift of each against those before it."""
    tracker, drift, jumped = DriftTracker(field_nm), [], []
    for number, here in enumerate(stretches.each()):
        y, x = places[here].T.astype(np.float32)
        drift.append(tracker.update(y, x))
        step_nm = np.abs(np.diff(drift[-2:], axis=0)).max(initial=0)
        if number and (tracker.jump_nm or step_nm > _STEP_NM):
            jumped.append(number)
    every = np.repeat(np.array(drift), np.diff(stretches.edges), axis=0)
    jumps = []
    for number in jumped:
        # the stretch in which it jumped was laid as most of it lies
        first, last = (int(stretches.edges[i]) for i in (number - 1, number + 1))
        jumps.append(_jump(places, frame, every, first, last))
        every[first : jumps[-1]], every[jumps[-1] : last] = every[first], every[last - 1]
    frames = int(stretches.edges[-1])
    stretches = _Stretches.of(frame, frames, tuple(j for j in jumps if 0 < j < frames))
    return stretches, every[stretches.edges[:-1]]


def _jump(places: Floats, frame: Ints, drift: Floats, first: int, last: int) -> int:
    """Return the frame between two from which the drift of the second holds, not of the first."""
    inside = (frame >= first) & (frame < last)
    counts = _Counts.of(places[~inside] - drift[frame[~inside]], _APART_NM[0])
    before, after = (counts.at(places[inside] - drift[f]) for f in (first, last - 1))
    gained = np.bincount(frame[inside] - first, before - after, last - first)
    return first + int(np.argmax(np.concatenate([[0], np.cumsum(gained)])))


class _Counts(NamedTuple):
    """How many localisations lie in each square from a corner on."""

    squares: NDArray[np.int32]
    corner_nm: Floats
    apart_nm: float

    @classmethod
    def of(cls, places: Floats, apart_nm: float) -> _Counts:
        low, high = places.min(axis=0), places.max(axis=0)
        shape = np.ceil((high - low) / apart_nm + 1).astype(np.intp)
        counts = cls(np.zeros(shape, np.int32), low, apart_nm)
        cells = tuple(((places - low) / apart_nm).astype(np.intp).T)
        np.add.at(counts.squares, cells, 1)
        return counts

    def at(self, places: Floats) -> NDArray[np.int32]:
        """Return how many lie in the square of each."""
        cells = np.floor((places - self.corner_nm) / self.apart_nm).astype(np.intp)
        inside = ((cells >= 0) & (cells < self.squares.shape)).all(axis=1)
        held = np.clip(cells, 0, np.array(self.squares.shape) - 1)
        return np.where(inside, self.squares[tuple(held.T)], 0)


def _deep(
    places: Floats, z_nm: NDArray[Any], stretches: _Stretches, field_nm: tuple[float, float]
) -> Floats:
    """Return the drift of z of each stretch, (stretches, 1); `places` have none any more."""
    tracker, drift = DepthTracker(field_nm), []
    for here in stretches.each():
        y, x = places[here].T.astype(np.float32)
        drift.append(tracker.update(y, x, z_nm[here]))
    return np.array(drift)[:, None]


def _columns(places: Floats) -> Ints:
    """Return in which column each lies, of those in which something does."""
    y, x = np.floor(places.T / _COLUMN_NM).astype(np.intp)
    _, column = np.unique((y - y.min()) * (np.ptp(x) + 1) + x - x.min(), return_inverse=True)
    return np.asarray(column, np.intp)


def _left(
    places: Floats, stretches: _Stretches, columns: Ints, rounds_nm: tuple[float, ...]
) -> Floats:
    """Return the drift that is left of each stretch, (stretches, axes), against all others.

    Localisations are compared with those of the same column.
    """
    left = np.zeros((len(stretches.edges) - 1, places.shape[1]))
    here = places.copy()
    for apart_nm in rounds_nm:
        step = _intersected(here, stretches, columns, apart_nm)
        left += step
        here -= stretches.own(step)
    return left


def _intersected(places: Floats, stretches: _Stretches, columns: Ints, apart_nm: float) -> Floats:
    """Return by how much each stretch is to be moved so that most of it lies on others."""
    cells = np.floor(places / apart_nm).astype(np.intp)
    cells -= cells.min(axis=0) - _REACH
    sizes = cells.max(axis=0) + _REACH + 1
    strides = np.append(np.cumprod(sizes[:0:-1])[::-1], 1).astype(np.intp)
    flat = columns * int(np.prod(sizes)) + cells @ strides
    counts = np.bincount(flat, minlength=(int(columns.max(initial=0)) + 1) * int(np.prod(sizes)))
    axes = [np.arange(-_REACH, _REACH + 1)] * places.shape[1]
    shifts = sum(a * s for a, s in zip(np.meshgrid(*axes, indexing="ij"), strides, strict=True))
    moved = []
    for each in stretches.each():
        own = flat[each]
        np.subtract.at(counts, own, 1)
        pairs = counts[own[:, None] - np.ravel(shifts)].sum(axis=0)
        np.add.at(counts, own, 1)
        moved.append(_top(pairs.reshape(np.shape(shifts)).astype(np.float64)) * apart_nm)
    return np.array(moved)


def _top(surface: Floats) -> Floats:
    """Return how far from its middle a surface has its top, in steps, along every axis.

    By the phase of its slowest wave, as Ma et al. have it: what is the same everywhere counts for
    nothing. A top that pairs by chance may make is none.
    """
    if surface.max() - surface.mean() < _ABOVE * math.sqrt(surface.mean() + 1):
        return np.zeros(surface.ndim)
    turns = []
    for axis, n in enumerate(surface.shape):
        along = surface.sum(axis=tuple(a for a in range(surface.ndim) if a != axis))
        wave = np.exp(2j * math.pi * (np.arange(n) - n // 2) / n)
        turns.append(n * np.angle((along * wave).sum()) / (2 * math.pi))
    return np.array(turns)
