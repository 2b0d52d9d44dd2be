"""What raw frames say of their own exposure.

Whether each holds a picture, and whether it was clipped.

Owns the measurement of a group of raw frames and the verdict on it. Looks at frames as the camera
gave them, before any correction: a correction hides that a pixel was 0, or at the ceiling. Knows no
pattern, no channel and no run.

What is looked for is what noise cannot make: all pixels alike, the same picture twice, the upper or
lower rows of another frame, a part of a frame at the least value while the other frames have none
there, or many pixels at one largest value. The ceiling is that of the camera where it is known;
where it is not (12 bit in a file of 16), it is the largest value if pixels pile up there: that of
all frames, or of a frame that is cut off alone, below what the others reach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Kind = Literal[
    "no number",
    "blank",
    "partly blank",
    "repeated",
    "torn",
    "dark",
    "below the offset",
    "another picture",
    "saturated",
]

MAX_SATURATED = 0.01
"""Share of a raw frame's pixels at the ceiling from which on the frame is faulty."""

HOT = 1e-4  # share of pixels that may be at an end of the scale for being hot or dead
_EVERY = 4  # rows: enough to tell how much light there is, and how much is missing
_MIN_BLANK = 0.01  # share of a frame that must be missing
_BLANK_OVER_OTHERS = 4.0  # pixels at the least value, over those of the frame that has fewest
_DARK = 0.2  # of the light of the group's brighter frames
_MIN_DARK_ADU = 2.0  # below, the offset's own wandering decides
_BELOW_ADU, _BELOW_SHARE = 5.0, 0.05  # of the offset: no camera wanders so far
_PILED_UP = 4.0  # pixels at the largest value, over those at each value just below it
_CREST = 1.3  # pixels in the upper half of the values just below, over those in the lower half
_PILE_OVER_CREST = 1.5  # pixels at the largest value, over all just below it, of a wave's crest
_MIN_PILE = 8
_MIN_TORN = 4  # rows of those looked at, which noise makes unlike, that two frames have in common
_BACK = 8  # frames before, whose rows a frame may have
_BLOCK, _BLOCK_ROWS = 16, 8  # pixels a side, wider than any pattern's period; of every eighth row
_ALIKE, _UNLIKE = (
    0.8,
    0.3,
)  # correlation with the group's other frames: of most frames, and of one that is of something else


class Fault(NamedTuple):
    """What is wrong with one raw frame: its index, the kind, and a number that goes with it.

    `number` is the value of all pixels (blank), the share of pixels (partly blank, saturated), the
    index of the frame that it repeats, the share of rows that are those of another (torn), its
    light over the group's (dark), ADU below the level of a dark frame, or its correlation with the
    others (another picture).
    """

    raw: int
    kind: Kind
    number: float


@dataclass(frozen=True, slots=True)
class Exposures:
    """What was measured in the frames of one group.

    Attributes
    ----------
    pixels : of one frame
    offset_adu : level of a dark frame
    levels : (n,) mean of every frame, ADU, of every fourth row
    least, most : (n,) smallest and largest value of every frame
    at_least : (n,) share of pixels at the smallest value of the group, of every fourth row
    at_ceiling : (n,) pixels at the ceiling or above
    ceiling : the camera's, or where pixels pile up; None if there is no sign of one
    repeats : (n,) index of an earlier frame with the same pixels, -1 without
    torn : (n,) share of rows, at the upper or lower edge, that are those of an earlier frame pixel
        by pixel
    likeness : (n,) correlation of each frame's coarse picture with the mean of the others', 1 where
        there are few
    """

    pixels: int
    offset_adu: float
    levels: NDArray[np.float64]
    least: NDArray[np.float64]
    most: NDArray[np.float64]
    at_least: NDArray[np.float64]
    at_ceiling: NDArray[np.float64]
    ceiling: float | None
    repeats: tuple[int, ...]
    torn: NDArray[np.float64]
    likeness: NDArray[np.float64]

    @property
    def saturated(self) -> int:
        """Pixels at the ceiling, in all frames."""
        return int(self.at_ceiling.sum())

    @property
    def clipped(self) -> bool:
        """Whether more pixels are at the ceiling than a chip has hot ones."""
        return bool((self.at_ceiling > max(HOT * self.pixels, _MIN_PILE)).any())

    def faults(self, max_saturated: float = MAX_SATURATED) -> list[Fault]:
        """Return what is wrong with single frames, those without a picture first.

        A frame has one fault.
        """
        light = self.levels - self.offset_adu
        usual, fewest = float(np.quantile(light, 0.75)), float(self.at_least.min())
        too_dark = usual < -max(_BELOW_ADU, _BELOW_SHARE * self.offset_adu)
        are_alike = float(np.median(self.likeness)) > _ALIKE
        found: list[Fault] = []
        for raw in range(len(self.levels)):
            share, lit = float(self.at_least[raw]), float(light[raw])
            saturated = float(self.at_ceiling[raw]) / self.pixels
            if not np.isfinite(self.least[raw] + self.most[raw]):
                found.append(Fault(raw, "no number", np.nan))
            elif self.least[raw] == self.most[raw]:
                found.append(Fault(raw, "blank", float(self.most[raw])))
            elif self.repeats[raw] >= 0:
                found.append(Fault(raw, "repeated", self.repeats[raw]))
            elif self.torn[raw] > 0:
                found.append(Fault(raw, "torn", float(self.torn[raw])))
            elif share > _MIN_BLANK + _BLANK_OVER_OTHERS * fewest:
                found.append(Fault(raw, "partly blank", share))
            elif too_dark:
                found.append(Fault(raw, "below the offset", -lit))
            elif lit < _DARK * usual and usual - lit > _MIN_DARK_ADU:
                found.append(Fault(raw, "dark", max(lit, 0.0) / max(usual, 1.0)))
            elif are_alike and self.likeness[raw] < _UNLIKE:
                found.append(Fault(raw, "another picture", float(self.likeness[raw])))
            elif saturated > max_saturated:
                found.append(Fault(raw, "saturated", saturated))
        return sorted(found, key=lambda fault: fault.kind == "saturated")


def examine(
    frames: Sequence[Any] | Any,
    offset_adu: float,
    ceiling: float | None = None,
    xp: Any = np,
    numbers: Callable[[Any], NDArray[np.float64]] = np.asarray,
) -> Exposures:
    """Measure the raw frames of one group.

    Parameters
    ----------
    frames : (y, x) each, as the camera gave them: whole numbers, or float
    offset_adu : level of a dark frame
    ceiling : largest value that the camera can give, if it is known
    xp, numbers : namespace of the frames, and what brings a list of its 0-d arrays to the host
    """
    n = len(frames)
    plain = [frames[i] for i in range(n)]
    some = [f[::_EVERY, :] for f in plain]
    ends = [end(f) for end in (xp.min, xp.max) for f in plain]
    rows = np.asarray(numbers(xp.stack([_row_sums(f, xp) for f in some])), np.float64)
    least, most = np.asarray(numbers(ends), np.float64).reshape(2, n)
    sums = rows.sum(axis=1)
    bottom, top = float(np.nanmin([*least, np.inf])), float(np.nanmax([*most, -np.inf]))
    known = ceiling is not None and top >= ceiling
    level = float(ceiling) if known and ceiling is not None else top
    reach = [i for i in range(n) if most[i] >= level]
    counts = [xp.count_nonzero(f <= _as(f, bottom)) for f in some]
    counts += [xp.count_nonzero(plain[i] >= _as(plain[i], level)) for i in reach]
    counted = np.asarray(numbers(counts), np.float64)
    at_top = np.zeros(n)
    at_top[reach] = counted[n:]
    if not known:
        at_top[least == most] = 0  # a blank frame is no pile
    piled_up = known or _piles_up(plain, bottom, top, at_top, xp, numbers)
    if not piled_up:
        at_top, level = np.zeros(n), np.nan
    alone = _cut_off_alone(plain, least, most, [i for i in range(n) if i not in reach], xp, numbers)
    for i, count in alone.items():
        at_top[i] = count
    if alone and not piled_up:
        level = float(most[max(alone, key=lambda i: alone[i])])
    seen = int(np.prod(some[0].shape))
    repeats = tuple(_repeats(plain, sums, i, xp, numbers) for i in range(n))
    return Exposures(
        pixels=int(np.prod(plain[0].shape)),
        offset_adu=offset_adu,
        levels=sums / seen,
        least=least,
        most=most,
        at_least=counted[:n] / seen,
        at_ceiling=at_top,
        ceiling=level if np.isfinite(level) else None,
        repeats=repeats,
        torn=_torn(some, rows, repeats, xp, numbers),
        likeness=_likeness(plain, xp, numbers),
    )


def _likeness(
    frames: Sequence[Any], xp: Any, numbers: Callable[[Any], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Return how each frame correlates with the mean of the others (n,), in blocks in which a
    pattern averages out.
    """
    n, rows, columns = len(frames), *(side // _BLOCK for side in frames[0].shape)
    if n < 4 or min(rows, columns) < 4:
        return np.ones(n)
    shape = (rows, _BLOCK // _BLOCK_ROWS, columns, _BLOCK)
    seen = [xp.reshape(f[: rows * _BLOCK : _BLOCK_ROWS, : columns * _BLOCK], shape) for f in frames]
    coarse = [xp.sum(f, axis=(1, 3), dtype=xp.float64) for f in seen]
    coarse = [c - xp.sum(c) / (rows * columns) for c in coarse]
    total = sum(coarse[1:], coarse[0])
    parts = [xp.sum(a * b) for c in coarse for a, b in ((c, c), (c, total), (total, total))]
    own, both, all_ = np.asarray(numbers(parts), np.float64).reshape(n, 3).T
    others = np.maximum(all_ - 2 * both + own, 0)  # sum of (total - c)^2
    return np.asarray((both - own) / np.maximum(np.sqrt(own * others), 1e-9), np.float64)


def _row_sums(frame: Any, xp: Any) -> Any:
    """Return the sum of every row (y,).

    Whole numbers in 32 bit, which is several times as fast.
    """
    if "float" in str(frame.dtype):
        return xp.sum(frame, axis=1, dtype=xp.float64)
    return xp.sum(frame, axis=1, dtype=xp.uint32 if "uint" in str(frame.dtype) else xp.int64)


def _as(frame: Any, value: float) -> Any:
    """Return a number that may be compared with the elements of `frame`."""
    if "float" in str(frame.dtype):
        return float(value)
    return int(value) if np.isfinite(value) else 0


def _piles_up(
    frames: Sequence[Any],
    bottom: float,
    top: float,
    at_top: NDArray[np.float64],
    xp: Any,
    numbers: Callable[[Any], NDArray[np.float64]],
) -> bool:
    """Whether far more pixels are at the largest value than at those just below.

    The tail of any light grows thinner.

    The crest of a picture without noise, as a demo camera draws it, has ever more pixels up to its
    largest value: no ceiling.
    """
    worst = int(at_top.argmax())
    if at_top[worst] < _MIN_PILE or top <= bottom:
        return False
    frame = frames[worst]
    span = min(max(top // 32, 4.0), top - bottom)
    from_there = numbers(
        [xp.count_nonzero(frame >= _as(frame, top - part * span)) for part in (1.0, 0.5)]
    )
    near, nearer = (float(count) - at_top[worst] for count in from_there)
    is_crest = nearer > _CREST * max(near - nearer, 1.0) and at_top[worst] < _PILE_OVER_CREST * near
    return bool(at_top[worst] > _PILED_UP * max(near, 1.0) / span) and not is_crest


def _cut_off_alone(
    frames: Sequence[Any],
    least: NDArray[np.float64],
    most: NDArray[np.float64],
    those: Sequence[int],
    xp: Any,
    numbers: Callable[[Any], NDArray[np.float64]],
) -> dict[int, float]:
    """Return how many pixels are at the largest value of frames that have a ceiling of their own.

    Of `those` only: what reaches the others' ceiling is counted there.
    """
    those = [i for i in those if np.isfinite(most[i]) and least[i] < most[i]]
    if not those:
        return {}
    some = {i: frames[i][::_EVERY, :] for i in those}
    seen = numbers([xp.count_nonzero(f >= _as(f, most[i])) for i, f in some.items()])
    found = {}
    for i, count in zip(those, np.asarray(seen, np.float64), strict=True):
        if count > MAX_SATURATED * int(np.prod(some[i].shape)):
            frame = frames[i]
            at_top = np.asarray(
                numbers([xp.count_nonzero(frame >= _as(frame, most[i]))]), np.float64
            )
            if _piles_up([frame], float(least[i]), float(most[i]), at_top, xp, numbers):
                found[i] = float(at_top[0])
    return found


def _torn(
    some: Sequence[Any],
    rows: NDArray[np.float64],
    repeats: Sequence[int],
    xp: Any,
    numbers: Callable[[Any], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Return the share of rows that each frame has from one before it (n,), at its upper or lower
    edge.

    A camera's buffer that is read while it is filled holds rows of two exposures.

    Parameters
    ----------
    some : every fourth row of every frame
    rows : (n, rows) their sums; only where these are equal are pixels looked at
    repeats : as in `Exposures`; a frame that is another's copy is not torn
    """
    found = np.zeros(len(some))
    for i in range(len(some)):
        for j in range(max(i - _BACK, 0), i):
            alike = rows[i] == rows[j]
            if repeats[i] >= 0 or alike.all() or not (alike[0] or alike[-1]):
                continue
            upper, lower = (int(np.argmin(part)) for part in (alike, alike[::-1]))
            for band in (slice(0, upper), slice(len(alike) - lower, None)):
                if _same_rows(some[i][band, :], some[j][band, :], xp, numbers):
                    found[i] = max(found[i], float(alike[band].size))
    return np.asarray(found / rows.shape[1], np.float64)


def _same_rows(a: Any, b: Any, xp: Any, numbers: Callable[[Any], NDArray[np.float64]]) -> bool:
    """Whether rows of two frames are the same pixel by pixel, and enough of them hold light.

    Rows of one value (beyond the field, above a ceiling) are alike in all frames.
    """
    if a.shape[0] < _MIN_TORN:
        return False
    uneven = xp.count_nonzero(xp.max(a, axis=1) != xp.min(a, axis=1))
    unlike, lit = numbers([xp.count_nonzero(a != b), uneven])
    return bool(unlike == 0 and lit >= _MIN_TORN)


def _repeats(
    frames: Sequence[Any],
    sums: NDArray[np.float64],
    i: int,
    xp: Any,
    numbers: Callable[[Any], NDArray[np.float64]],
) -> int:
    """Return the index of an earlier frame with the same pixels, -1 without one.

    Only equal sums are looked at closely.
    """
    for j in np.flatnonzero(sums[:i] == sums[i]):
        if numbers([xp.count_nonzero(frames[i] != frames[int(j)])])[0] == 0:
            return int(j)
    return -1


_WITHOUT_PICTURE = (
    ("no number", "hold{s} values that are no numbers"),
    ("blank", "{is} blank (every pixel is {number:g})"),
    ("partly blank", "lack{s} a part ({number:.0%} of the pixels are at one least value)"),
    ("repeated", "repeat{s} raw frame {number:g} pixel by pixel"),
    ("torn", "{is} torn ({number:.0%} of its rows are those of another raw frame)"),
    ("dark", "{is} dark ({number:.0%} of the group's light)"),
    (
        "below the offset",
        "{is} darker than a frame without light (by {number:.0f} ADU, and camera.offset_adu says"
        " what that has)",
    ),
    ("another picture", "show{s} another picture than the others (correlation {number:.2f})"),
)


def without_picture(faults: Sequence[Fault]) -> str:
    """Say which raw frames hold no picture of their own, and how that shows.

    An empty string if none.
    """
    return "; ".join(_sentences([f for f in faults if f.kind != "saturated"]))


def _sentences(faults: Sequence[Fault]) -> Iterator[str]:
    for kind, said in _WITHOUT_PICTURE:
        mine = [f for f in faults if f.kind == kind]
        if mine:
            several = len(mine) > 1
            words = said.format(
                s="" if several else "s",
                number=mine[0].number,
                **{"is": "are" if several else "is"},
            )
            yield f"{raw_frames(f.raw for f in mine)} {words}"


def saturation(faults: Sequence[Fault], ceiling: float | None) -> str:
    """Say which raw frames are saturated, the worst first; an empty string if none."""
    clipped = sorted((f for f in faults if f.kind == "saturated"), key=lambda f: -f.number)
    if not clipped:
        return ""
    worst, others = clipped[0], sorted(f.raw for f in clipped[1:])
    said = (
        f"raw frame {worst.raw} is saturated ({worst.number:.1%} of its pixels are at"
        f" {ceiling or 0:g})"
    )
    return said + (
        f", {raw_frames(others)} too ({clipped[-1].number:.1%} or more)" if others else ""
    )


def raw_frames(numbers: Any) -> str:
    """Name raw frames: "raw frame 3", "raw frames 0 to 4, 7"."""
    listed = sorted(numbers)
    runs: list[list[int]] = []
    for number in listed:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    said = ", ".join(f"{r[0]} to {r[-1]}" if len(r) > 2 else ", ".join(map(str, r)) for r in runs)
    return f"raw frame{'s' if len(listed) > 1 else ''} {said}"


# -- the other end of the scale --------------------------------------------------------------------

MIN_CLIPPED = 0.1
"""Share of pixels at the least value from which on a background may be cut off there."""

_UNLIKE_POISSON = 4.0


def floor_clipped(frames: Sequence[NDArray[Any]]) -> float:
    """Return the share of pixels that a subtraction, or too low an offset, has cut off at the least
    value; 0 if none.

    A camera's noise lies on both sides of the background. Where the background was subtracted and
    what fell below 0 cut off, many pixels have the least value m and no other value is nearly as
    frequent. Light alone, counted without read noise and without offset, may also leave many pixels
    at 0; then counts are of Poisson's distribution, p0 p2 / p1^2 = 1/2, while half a Gaussian of
    standard deviation s has about 0.6 s there.
    """
    values = np.stack([np.asarray(f) for f in frames])
    if not np.isfinite(values).all():
        return 0.0
    least = values.min()
    at_least = float(np.mean(values == least))
    if at_least < MIN_CLIPPED or values.max() == least:
        return 0.0
    sums = values.sum(axis=0, dtype=np.float64)
    values = values[
        :, sums <= np.median(sums)
    ]  # away from what shines: its wings hold many small values
    steps = _smallest_step(values, least)
    counts = [float(np.mean(np.abs(values - (least + k * steps)) < 0.5 * steps)) for k in (1, 2)]
    unlike = float(np.mean(values == least)) * counts[1] / max(counts[0], 1.0 / values.size) ** 2
    return at_least if unlike > 0.5 * _UNLIKE_POISSON else 0.0


def _smallest_step(values: NDArray[Any], least: Any) -> float:
    """Distance between neighbouring values near the least one: 1 ADU, or what a photon is worth."""
    if values.dtype.kind in "ui":
        return 1.0
    near = np.unique(values[values < np.percentile(values, 90)].astype(np.float64))
    return float(max(np.median(np.diff(near)), 1e-6)) if near.size > 2 else 1.0
