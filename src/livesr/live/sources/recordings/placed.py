"""Frames whose places are known before they are read.

Which page of which file is at which place of the axes.

Owns what follows from the places alone: lengths, what is not there, which sentences say so. Reads
no format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from livesr.base.errors import ConfigError
from livesr.live.sources.recordings.micromanager import FrameMetadata, frame_metadata
from livesr.live.sources.recordings.pixels import check_count
from livesr.live.sources.recordings.recording import Place, Plane, Recording
from livesr.live.sources.recordings.tiff_pages import PageAt, TiffPages, remarks_on

MICROMANAGER_TAG = 51123


@dataclass(slots=True)
class Placed:
    """Pages by place.

    Attributes
    ----------
    axes : before (y, x), outermost first
    at : the page of every place that has one
    announced : lengths that the description gives; () if it gives none
    twice : frames that were described at a place that had one
    """

    axes: tuple[str, ...]
    at: dict[Place, PageAt] = field(default_factory=dict)
    announced: tuple[int, ...] = ()
    twice: int = 0

    def put(self, place: Place, page: PageAt) -> None:
        """Put a page at a place; the first that was described stays there."""
        if self.at.setdefault(place, page) != page:
            self.twice += 1

    @property
    def lengths(self) -> Place:
        """As far as there are frames."""
        return tuple(1 + max(along) for along in zip(*self.at, strict=True))

    def without_empty_positions(self, names: Sequence[str]) -> tuple[Placed, tuple[str, ...]]:
        """Leave out positions that have no frame; return the names of the others, too."""
        if "p" not in self.axes:
            return self, tuple(names)
        p = self.axes.index("p")
        kept = {old: new for new, old in enumerate(sorted({place[p] for place in self.at}))}
        at = {
            (*place[:p], kept[place[p]], *place[p + 1 :]): page for place, page in self.at.items()
        }
        known = len(names) > max(kept, default=0)
        return Placed(self.axes, at, self.announced, self.twice), (
            tuple(names[old] for old in kept) if known else ()
        )


def recording_of(
    path: Path,
    form: str,
    placed: Placed,
    pages: TiffPages,
    *,
    micromanager: bool = False,
    notes: Sequence[str] = (),
    damage: str | None = None,
    **about: Any,
) -> Recording:
    """Describe pages with places as a recording.

    Parameters
    ----------
    micromanager : whether pages bear Micro-Manager's metadata
    about : fields of `Recording`

    Raises
    ------
    ConfigError
        If there is no frame, more than a recording has, or none that a camera gives.
    """
    if not placed.at:
        raise ConfigError(f"{path.name} has no frame" + (f": {' '.join(notes)}" if notes else "."))
    if len(set(placed.at.values())) < len(placed.at):
        raise ConfigError(
            f"{path.name} describes {len(placed.at)} frames, and has {len(set(placed.at.values()))}"
            " for them: some are said to be at several places, and which were taken is not known."
            " Save it again."
        )
    announced = placed.announced
    placed, positions = placed.without_empty_positions(about.pop("positions", ()))
    lengths = placed.lengths
    check_count(path, lengths)
    first = placed.at[min(placed.at)]
    shape, pixels = pages.expect(first)
    known = _metadata(pages, first) if micromanager else FrameMetadata()

    def read(place: Place) -> Plane | None:
        if (page := placed.at.get(place)) is None:
            return None
        frame = pages.read(page, _which(placed.axes, lengths, place))
        return Plane(frame, _metadata(pages, page).t_camera_ms if micromanager else None)

    if known.pixel_size_um:
        about["pixel_um"] = known.pixel_size_um, known.pixel_size_um
    return Recording(
        path=path,
        format=form,
        axes=placed.axes,
        lengths=lengths,
        shape=shape,
        dtype=pixels.name,
        read=read,
        positions=positions,
        notes=(
            *notes,
            *pixels.notes,
            *remarks_on(first.file, pages.page(first)),
            *_left_out(path, placed, announced, positions),
        ),
        counted=True,
        damage=damage,
        close=pages.close,
        origin_px=known.origin_px,
        timed=known.t_camera_ms is not None,
        **{name: value for name, value in about.items() if value},
    )


def spelt(axes: Sequence[str], place: Place) -> str:
    """Name a place for people."""
    return ", ".join(f"{axis}={i}" for axis, i in zip(axes, place, strict=True)) or "0"


def _which(axes: Sequence[str], lengths: Place, place: Place) -> str:
    """Name a frame for people."""
    return (
        f"frame {place[0] + 1} of {lengths[0]}" if len(axes) == 1 else f"frame {spelt(axes, place)}"
    )


def _left_out(
    path: Path, placed: Placed, announced: Place, positions: tuple[str, ...]
) -> list[str]:
    """Say what is announced and not there, and what was described twice."""
    notes: list[str] = []
    grid, there = prod(placed.lengths), len(placed.at)
    if placed.twice:
        notes.append(
            f"{path.name}: {placed.twice} frames are described at a place that has one, and are not"
            " read."
        )
    if announced and prod(announced) > grid:
        named = zip(placed.axes, announced, placed.lengths, strict=True)
        said = ", ".join(f"{n} of {most} along {axis}" for axis, most, n in named if n < most)
        notes.append(f"{path.name} announces more than there is: {said}.")
    if there < grid:
        notes.append(missing_note(path, grid - there, grid, f"{_shortest(placed, positions)}"))
    return notes


def missing_note(path: Path, missing: int, grid: int, where: str) -> str:
    """Say that places have no frame."""
    return (
        f"{path.name}: {missing} of {grid} frames are not there ({where}): nothing is made of them."
    )


def _shortest(placed: Placed, positions: tuple[str, ...]) -> str:
    """Return how many frames every position has where they differ, else the first place without a
    frame.
    """
    if "p" in placed.axes and placed.lengths[placed.axes.index("p")] > 1:
        counts: dict[int, int] = {}
        for place in placed.at:
            p = place[placed.axes.index("p")]
            counts[p] = counts.get(p, 0) + 1
        if len(set(counts.values())) > 1:
            few = min(counts, key=lambda p: (counts[p], p))
            name = positions[few] if positions else few
            return f"position {name} has {counts[few]} of {max(counts.values())}"
    return f"the first is {spelt(placed.axes, _first_gap(placed))}"


def _first_gap(placed: Placed) -> Place:
    from itertools import product

    return next(place for place in product(*map(range, placed.lengths)) if place not in placed.at)


def _metadata(pages: TiffPages, at: PageAt) -> FrameMetadata:
    """Read what Micro-Manager says of a frame; nothing if it cannot be read."""
    try:
        return frame_metadata(pages.page(at).tags[MICROMANAGER_TAG].value)
    except Exception:  # the pixels may still be there, and reading them says what is wrong
        return FrameMetadata()
