"""What of an image can be read: every shard looked at, every chunk decoded.

Owns the comparison of what lies on disk with what frames.jsonl promises. Changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from livesr.formats.frames_log import STORED_STATES, Event, State
from livesr.formats.shard_file import (
    Places,
    ShardError,
    ShardForm,
    present,
    read_index,
    shard_form,
    unreadable,
)
from livesr.formats.store import ArrayShape, Image, array_shape, read_json

ShardState = Literal["whole", "damaged", "torn", "missing"]
"""Every chunk reads; some do not.

Its index does not; there is no file though frames.jsonl says that there is a picture.
"""

Where = tuple[int, int]
"""(t, z) of a picture, or of a shard counted along t and z."""
_THREADS = 4
_NUMBER = re.compile(r"0|[1-9][0-9]{0,7}")  # longer ones are of no run


@dataclass(frozen=True, slots=True)
class ShardInspection:
    """What one shard holds, both (t, plane, z) within the shard.

    Attributes
    ----------
    readable : chunks that can be decoded
    damaged : chunks that the index names and that cannot
    """

    state: ShardState
    readable: Places
    damaged: Places


class Unlogged(NamedTuple):
    """A picture that no line is about.

    Its planes that cannot be read, and those of them that are damaged.
    """

    t: int
    z: int
    missing: tuple[int, ...]
    damaged: tuple[int, ...]


class ImageInspection:
    """What one image holds.

    Attributes
    ----------
    lines : of frames.jsonl, about pictures that the image is said to hold
    shards : every shard that there is or should be, by its place along t and z
    """

    def __init__(self, image: Image, lines: Sequence[Event], *, decode: bool = True) -> None:
        self.image, self.lines = image, lines
        self.shape: ArrayShape = array_shape(image.array, image.exposures)
        self.form: ShardForm = shard_form(
            read_json(image.array / "zarr.json"), image.array / "zarr.json"
        )
        self._decode = decode
        wanted = {*self._on_disk(), *(self.shape.shard_of(e["t"], e["z"]) for e in lines)}
        ordered = sorted(wanted)
        with ThreadPoolExecutor(_THREADS) as pool:
            self.shards: dict[Where, ShardInspection] = dict(
                zip(ordered, pool.map(self._look, ordered), strict=True)
            )

    @property
    def lacks_planes(self) -> bool:
        """Whether a picture may lack some of its planes: of exposures, and of pictures of a group
        under way, not all may have come.
        """
        return self.image.kind in ("raw", "rolling")

    @property
    def incomplete(self) -> State:
        """What the line about such a picture says."""
        return "raw_incomplete" if self.image.kind == "raw" else STORED_STATES[self.image.kind]

    def look_again(self, shard: Where) -> None:
        """Inspect a shard that has changed."""
        self.shards[shard] = self._look(shard)
        self.__dict__.pop("readable_length", None)

    def holes(self) -> list[tuple[int, int]]:
        """Return the first and last time points of every gap between files."""
        there = sorted(
            {t_shard for (t_shard, _), shard in self.shards.items() if shard.state != "missing"}
        )
        depth = self.shape.shard["t"]
        return [((a + 1) * depth, b * depth - 1) for a, b in pairwise([-1, *there]) if b > a + 1]

    def file(self, shard: Where) -> Path:
        """Return where a shard lies."""
        return self.image.array / self.shape.shard_key(*shard)

    @cached_property
    def readable_length(self) -> int:
        """Time points up to the last of which something can be read."""
        last = 0
        for (t_shard, _), shard in self.shards.items():
            times = np.flatnonzero(shard.readable.any(axis=(1, 2)))
            last = max(
                last, t_shard * self.shape.shard["t"] + int(times[-1]) + 1 if len(times) else 0
            )
        return last

    def planes(self, t: int, z: int) -> Places:
        """Return which planes (channels or exposures) of a picture can be read."""
        (shard, inside), z_inside = self._place(t, z)
        found = self.shards.get(shard)
        return (
            found.readable[inside, :, z_inside]
            if found
            else np.zeros(self._by_place.shape[1], bool)
        )

    def lost_planes(self, line: Event) -> tuple[int, ...]:
        """Return which planes of a picture that the line promises cannot be read.

        A black plane may have no chunk in arrays without checksums (acquire-zarr), and in those
        that a backfill wrote.
        """
        t, z = line["t"], line["z"]
        (shard, inside), z_inside = self._place(t, z)
        found = self.shards[shard]
        unread = ~found.readable[inside, :, z_inside]
        if found.state in ("whole", "damaged") and not (
            self.form.has_checksums and self.lacks_planes
        ):
            unread = found.damaged[inside, :, z_inside]
        missing = set(line.get("missing", ()))
        return tuple(int(i) for i in np.flatnonzero(unread) if i not in missing)

    def unlogged(self) -> Iterator[Unlogged]:
        """Yield every picture on disk that no line is about.

        Also those of which only some planes can be read, where that may be.
        """
        told = {(e["t"], e["z"]) for e in self.lines}
        for (t_shard, z_shard), shard in sorted(self.shards.items()):
            there = (
                (shard.readable | shard.damaged).any(axis=1)
                if self.lacks_planes
                else shard.readable.all(axis=1)
            )
            for inside, z_inside in np.argwhere(there):
                t = t_shard * self.shape.shard["t"] + int(inside)
                z = z_shard * self.shape.shard.get("z", 1) + int(z_inside)
                if (t, z) not in told:
                    planes = (
                        ~shard.readable[inside, :, z_inside],
                        shard.damaged[inside, :, z_inside],
                    )
                    missing, damaged = (tuple(int(i) for i in np.flatnonzero(p)) for p in planes)
                    yield Unlogged(t, z, missing, damaged)

    def in_state(self, *states: ShardState) -> Iterator[tuple[Where, ShardInspection]]:
        """Yield the shards in one of these states."""
        return (
            (place, shard) for place, shard in sorted(self.shards.items()) if shard.state in states
        )

    def flat(self, places: Places) -> Places:
        """Turn (t, plane, z) of a shard into the order of its index."""
        moved = places.reshape(self._by_place.shape)
        flat = np.zeros(self.form.chunks, bool)
        flat[self._by_place.ravel()] = moved.ravel()
        return flat

    @cached_property
    def _by_place(self) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
        """Place in the index of each chunk, (t, plane, z)."""
        axes = dict(zip(self.shape.length, self.form.counts, strict=True))
        order = np.arange(self.form.chunks).reshape(axes["t"], axes.get("c", 1), axes.get("z", 1))
        exposures = self.image.exposures
        # A film has its planes along t.
        return order.reshape(axes["t"] // exposures, exposures, 1) if exposures > 1 else order

    def _place(self, t: int, z: int) -> tuple[tuple[Where, int], int]:
        depth = self.shape.shard.get("z", 1)
        return (self.shape.shard_of(t, z), t % self.shape.shard["t"]), z % depth

    def _on_disk(self) -> Iterator[Where]:
        axes = tuple(self.shape.length)
        for path in (self.image.array / "c").glob("/".join("*" * len(axes))):
            names = path.relative_to(self.image.array / "c").parts
            if path.is_file() and all(_NUMBER.fullmatch(name) for name in names):
                place = dict(zip(axes, map(int, names), strict=True))
                yield place["t"], place.get("z", 0)

    def _look(self, shard: Where) -> ShardInspection:
        nothing = np.zeros(self._by_place.shape, bool)
        file = self.file(shard)
        try:
            if not file.exists():
                return ShardInspection("missing", nothing, nothing)
            index = read_index(file, self.form.chunks)
            bad = (
                unreadable(file, self.form, index)
                if self._decode
                else np.zeros(self.form.chunks, bool)
            )
        except (ShardError, OSError):
            return ShardInspection("torn", nothing, nothing)
        there, damaged = present(index)[self._by_place], bad[self._by_place]
        return ShardInspection("damaged" if bad.any() else "whole", there & ~damaged, damaged)
