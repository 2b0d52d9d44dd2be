"""One image of a store.

An array that grows along t, with its axes, colours, display windows and provenance.

Owns the shards of the array, where they are, and every zarr.json in its folder. Knows no run, no
frame type and no other image.

What is appended is on disk when its shard is, and is known to be when the shard was synced and read
again: `finish` says how much is, and what is not. A shard that the disk refuses is written again:
beside, then on the spare disk; what no disk takes is handed back (`Casualty`).
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray

from livesr.base import contained
from livesr.base.documents import to_json
from livesr.base.errors import FrameShapeError
from livesr.base.files import remove
from livesr.base.frames import Pixels, StagePosition
from livesr.formats.series_spec import (
    KEPT_WITHIN,
    PENDING_BYTES,
    SeriesSpec,
    array_json,
    group_json,
    ome_image,
)
from livesr.formats.shard_file import ShardError, present
from livesr.live.sinks import shard as sharding
from livesr.live.sinks.shard import Budget, Chunk, Shard

log = logging.getLogger(__name__)

# What was appended waits in memory for so long, or up to `PENDING_BYTES`, before it is handed to
# the operating system.
FLUSH_S = 1.0
KEPT_BYTES = (
    512 << 20
)  # of what is on disk, until the disk has confirmed it, over all images of a store
_PARALLEL_BYTES = 1 << 20  # groups from this size on are compressed by several threads
_SETTLING = 64  # shards that may wait for the disk's confirmation before an append does

Windows = Sequence[tuple[float, float]]


class Workers:
    """What the images of a store share.

    Threads that compress and that wait for the disk, and memory for what is unconfirmed.

    Parameters
    ----------
    sync_s : write everything through to the disk so often; None leaves shards that are not full to
        the operating system
    """

    def __init__(self, sync_s: float | None = None) -> None:
        self.sync_s = sync_s
        self.flush_s = FLUSH_S if sync_s is None else min(FLUSH_S, sync_s)
        self.budget = Budget(KEPT_BYTES)
        self._compressing = ThreadPoolExecutor(min(4, psutil.cpu_count() or 1), "livesr-compress")
        self._settling = ThreadPoolExecutor(1, "livesr-settle")

    def encode(self, planes: Sequence[Pixels]) -> list[Chunk]:
        """Compress planes, large ones in parallel."""
        if len(planes) > 1 and sum(plane.nbytes for plane in planes) >= _PARALLEL_BYTES:
            with suppress(
                RuntimeError
            ):  # the interpreter is about to end, and lends no more threads
                return list(self._compressing.map(sharding.encode, planes))
        return [sharding.encode(plane) for plane in planes]

    def settle(self, shard: Shard) -> Future[None]:
        """Have the disk confirm a shard that is complete."""
        return self._submit(shard.settle)

    def sync(self, shard: Shard) -> Future[None]:
        """Have the disk take what a shard holds so far."""
        return self._submit(shard.sync)

    def _submit(self, work: Callable[[], None]) -> Future[None]:
        try:
            return self._settling.submit(work)
        except RuntimeError:  # the interpreter is about to end, and lends no more threads
            done: Future[None] = Future()
            try:
                work()
                done.set_result(None)
            except Exception as e:  # as a thread hands it on
                done.set_exception(e)
            return done

    def close(self) -> None:
        """End the threads."""
        self._compressing.shutdown()
        self._settling.shutdown()


class Casualty(NamedTuple):
    """Planes of one (t, z) that are not in the store.

    `chunks`, by channel or exposure, are in memory; or a file has them.

    Where both are empty they are lost.
    """

    t: int
    z: int
    planes: int
    reason: str
    chunks: Mapping[int, Chunk] = {}
    elsewhere: Path | None = None


class _Record(NamedTuple):
    """A shard that is complete: which disk has it, and which chunks, as bits."""

    place: int
    chunks: bytes


Key = tuple[int, int]  # of a shard: along t, along z


class Series:
    """Appends the planes of one (t, z) after the other; the array is stored as (t, [c,] [z,] y, x).

    Time points are counted in groups; a film has `SeriesSpec.exposures` planes along t for each,
    and whole groups in a shard.

    Parameters
    ----------
    folder : of the image
    workers : shared by the images of a store; its own, which `close` ends, without
    spare : where the image goes on if the disk of `folder` takes no more

    Attributes
    ----------
    next : linear index, t * z_planes + z, of what is appended next
    committed : what lies before it was handed to the operating system, or to `casualties`
    windows : (low, high) per channel for viewers; `write_metadata` writes them
    windows_written : whether the caller had them written while the image grew
    casualties : planes that could not be stored, for the caller to take
    stored, elsewhere : planes in the store and on the spare disk; known after `finish`
    notes : what went wrong and cost nothing, in sentences; `troubles` : what a run should end for;
        for the caller to take
    stage : where the stages were for plane 0 of the first time point; `write_metadata` writes it
        into the image's translation
    """

    def __init__(
        self,
        folder: Path,
        spec: SeriesSpec,
        workers: Workers | None = None,
        *,
        spare: Path | None = None,
    ) -> None:
        self.spec = spec
        self.next = self.committed = 0
        self.windows: Windows = ()
        self.windows_written = False
        self.stage = StagePosition()
        self.casualties: list[Casualty] = []
        self.stored = self.elsewhere = 0
        self.notes: list[str] = []
        self.troubles: list[str] = []
        self._folders = [folder, *([spare] if spare else [])]
        self._place = 0
        self._own_workers = workers is None
        self._workers = workers or Workers()
        self._open: dict[Key, Shard] = {}
        self._settling: deque[tuple[Key, Shard, Future[None]]] = deque()
        self._syncing: dict[Key, Future[None]] = {}
        self._records: dict[Key, _Record] = {}
        self._flushed_s = self._synced_s = time.monotonic()
        self._lengths = [0 for _ in self._folders]  # time points, as the metadata there say
        self._finished = False
        self.write_skeleton(folder)

    @property
    def on_spare(self) -> bool:
        """Whether the image goes on on the spare disk."""
        return self._place > 0

    def check(
        self, planes: Sequence[Pixels | NDArray[np.float32] | None], dtype: str | None = None
    ) -> None:
        """Refuse planes of another number, size or pixel type (`dtype`, if they are still to be
        converted).

        Raises
        ------
        FrameShapeError
            With what came and what was expected.
        """
        spec, dtype = self.spec, dtype or self.spec.dtype
        if len(planes) != spec.planes:
            raise FrameShapeError(
                f"{len(planes)} planes came for {spec.name}, expected {spec.planes}."
            )
        for plane in planes:
            if plane is not None and (plane.shape != spec.shape or plane.dtype != dtype):
                raise FrameShapeError(
                    f"A plane of {plane.shape} {plane.dtype} came for {spec.name}, expected"
                    f" {spec.shape} {dtype}: ROI, binning and pixel type must not change while a"
                    " store is open."
                )

    def append(self, planes: Sequence[Pixels | None]) -> None:
        """Append every channel, or exposure, of the next (t, z).

        None is a plane that never came. The planes are copied.
        """
        t, z = divmod(self.next, self.spec.z_planes)
        came = {self._slot(t, z, i): plane for i, plane in enumerate(planes) if plane is not None}
        if came:
            key = t // self.spec.time_points_per_shard, z // self.spec.z_planes_per_shard
            chunks = dict(zip(came, self._workers.encode(list(came.values())), strict=True))
            self._shard(key).add(chunks)
        self._advance(t, z)

    def fill(self) -> None:
        """Leave out the next (t, z); it reads as zeros."""
        self._advance(*divmod(self.next, self.spec.z_planes))

    def flush(self) -> None:
        """Hand what waits to the operating system, and see what the disk said of what was handed
        over before.
        """
        self._flushed_s = time.monotonic()
        for key, shard in list(self._open.items()):
            self._commit(key, shard)
        self.committed = self.next
        self._reap()
        self._sync()
        self._write_length(self._place, self.next // self.spec.z_planes)

    def look(self) -> None:
        """Flush what has waited long enough, and notice a folder that is gone.

        For when no frame comes.
        """
        if self._finished:
            return
        if self._due or self._settling:
            self.flush()
        if self._place == 0 and (missing := self._missing()):
            self._rescue_folder(missing)

    def leave(self, reason: str) -> bool:
        """Go on elsewhere, with the shards that are not full.

        Return whether there is such a place that takes them.
        """
        if self._place + 1 >= len(self._folders):
            return False
        self._place += 1
        moved = [self._moved(key, shard, reason) for key, shard in self._open.items()]
        return all(moved)

    def finish(self) -> None:
        """Write what is left, wait until the disk has it, read again what is there.

        `stored` and `casualties` are then true.
        """
        if self._finished:
            return
        self._finished = True
        for key in list(self._open):
            self._seal(key)
        self._reap(wait=True)
        self.committed = self.next
        for place in range(self._place + 1):
            self._write_length(place, -(-self.next // self.spec.z_planes))
        for key, record in self._records.items():
            self._account(key, record)

    def place(self, stage: StagePosition) -> None:
        """Take note of where the stages were; what is known already stays."""
        self.stage = StagePosition(
            *(new if old is None else old for old, new in zip(self.stage, stage, strict=True))
        )

    def close(self, time_points: int, interval_s: float | None = None) -> None:
        """Finish, then extend the array to `time_points` without writing pixels.

        Raises
        ------
        OSError
            If the disk refuses the metadata; the shards are on disk, and the metadata are those of
            an earlier moment.
        """
        self.finish()
        if self._own_workers:
            self._workers.close()
        # What is not in a shard is the fill value, zero: padding costs nothing, however long.
        failed: OSError | None = None
        for place, folder in enumerate(self._folders[: self._place + 1]):
            try:
                if place:  # nothing may have come since the image was to go on there
                    (folder / "0").mkdir(parents=True, exist_ok=True)
                write_json(folder / "0" / "zarr.json", self._array(time_points))
                self._write_group(folder, interval_s)
            except OSError as e:
                failed = failed or e
        if failed:
            raise failed

    def abandon(self) -> None:
        """Write nothing more; for a run that could not start."""
        self._finished = True
        self._open.clear()
        if self._own_workers:
            self._workers.close()

    def write_skeleton(self, folder: Path) -> None:
        """Write the image as it is without shards, so that what is in `folder` is an image at every
        moment.
        """
        (folder / "0").mkdir(parents=True, exist_ok=True)
        write_json(
            folder / "0" / "zarr.json", self._array(self._lengths[self._folders.index(folder)])
        )
        self._write_group(folder)

    def write_metadata(self, interval_s: float | None = None) -> None:
        """Write axes, scales, windows and provenance; possible at any time."""
        self._write_group(self._folders[0], interval_s)

    # -- shards ------------------------------------------------------------------------------------

    def _slot(self, t: int, z: int, i: int) -> int:
        """Return the place of a plane in its shard, in C order of the array's axes."""
        spec = self.spec
        t, z = t % spec.time_points_per_shard, z % spec.z_planes_per_shard
        return (t * spec.planes + i) * spec.z_planes_per_shard + z

    def _groups(self, key: Key, slots: Sequence[int]) -> Iterator[tuple[int, int, dict[int, int]]]:
        """Yield t, z and the slots by channel or exposure of planes in a shard."""
        spec, groups = self.spec, dict[tuple[int, int], dict[int, int]]()
        for slot in slots:
            rest, z = divmod(slot, spec.z_planes_per_shard)
            t, i = divmod(rest, spec.planes)
            where = key[0] * spec.time_points_per_shard + t, key[1] * spec.z_planes_per_shard + z
            groups.setdefault(where, {})[i] = slot
        for (t, z), planes in sorted(groups.items()):
            yield t, z, planes

    def _file(self, key: Key, place: int | None = None) -> Path:
        channel = ("0",) if self.spec.has_channel_axis else ()
        z = (str(key[1]),) if self.spec.z_planes > 1 else ()
        folder = self._folders[self._place if place is None else place]
        return folder.joinpath("0", "c", str(key[0]), *channel, *z, "0", "0")

    def _shard(self, key: Key) -> Shard:
        if key not in self._open:
            self._open[key] = Shard(
                self._file(key), self.spec.chunks_per_shard, self._workers.budget
            )
        return self._open[key]

    def _advance(self, t: int, z: int) -> None:
        """Count a (t, z) as taken; write what has become due."""
        spec = self.spec
        self.next += 1
        last_z = z + 1 == spec.z_planes or (z + 1) % spec.z_planes_per_shard == 0
        key = t // spec.time_points_per_shard, z // spec.z_planes_per_shard
        if last_z and (t + 1) % spec.time_points_per_shard == 0 and key in self._open:
            self.flush()
            self._seal(key)
        elif self._due:
            self.flush()

    @property
    def _due(self) -> bool:
        waiting = sum(shard.pending_bytes for shard in self._open.values())
        return bool(waiting) and (
            waiting >= PENDING_BYTES or time.monotonic() - self._flushed_s >= self._workers.flush_s
        )

    def _commit(self, key: Key, shard: Shard) -> None:
        if not shard.pending_bytes:
            return
        if self._place == 0 and (missing := self._missing()):
            self._rescue_folder(missing)
        try:
            self._ready(self._place_of(shard))
            shard.commit()
        except OSError as e:
            self._rescue(key, shard, e)

    def _ready(self, place: int) -> None:
        """See to it that what is written to a place is part of an image."""
        if not (self._folders[place] / "0" / "zarr.json").is_file():
            self.write_skeleton(self._folders[place])

    def _seal(self, key: Key) -> None:
        """Close a shard: nothing more comes for it."""
        if (shard := self._open.get(key)) is None:
            return
        self._commit(key, shard)
        del self._open[key]
        if shard.size:
            self._settling.append((key, shard, self._workers.settle(shard)))

    def _reap(self, *, wait: bool = False) -> None:
        """Take note of shards that the disk has confirmed, or refused."""
        while self._settling:
            key, shard, future = self._settling[0]
            if not (wait or future.done() or len(self._settling) > _SETTLING):
                break
            self._settling.popleft()
            if error := future.exception():
                self._rescue(key, shard, error)
            if shard.size:
                self._records[key] = _Record(
                    self._place_of(shard), np.packbits(shard.committed).tobytes()
                )
            shard.release()
        for key, future in list(self._syncing.items()):
            if future.done():
                del self._syncing[key]
                if (error := future.exception()) and key in self._open:
                    self._rescue(key, self._open[key], error)

    def _sync(self) -> None:
        """Have the disk take what lies in shards that are not full, if it is to and the time has
        come.
        """
        if self._workers.sync_s is None or time.monotonic() - self._synced_s < self._workers.sync_s:
            return
        self._synced_s = time.monotonic()
        for key, shard in self._open.items():
            if shard.size and key not in self._syncing:
                self._syncing[key] = self._workers.sync(shard)

    # -- when a disk refuses -----------------------------------------------------------------------

    def _rescue(self, key: Key, shard: Shard, error: BaseException) -> None:
        """Write a shard that the disk refused elsewhere; hand back what nothing takes."""
        if self._moved(key, shard, reason(error)):
            return
        before = set(np.flatnonzero(shard.committed).tolist())
        given_up = shard.give_up_pending()
        lost = sorted((before | set(given_up)) - set(np.flatnonzero(shard.committed).tolist()))
        for t, z, slots in self._groups(key, lost):
            chunks = {i: given_up[slot] for i, slot in slots.items() if slot in given_up}
            self.casualties.append(Casualty(t, z, len(slots), reason(error), chunks))
        if not lost:
            self.troubles.append(
                f"The disk does not confirm {shard.path} ({reason(error)}): it can be read now, and"
                " may be gone after a restart. Copy the store to another disk."
            )

    def _moved(self, key: Key, shard: Shard, why: str) -> bool:
        """Write a shard anew where there is a place for it; return whether there was."""
        before = shard.path
        for place in range(self._place, len(self._folders)):
            try:
                self._ready(place)
                shard.move(self._file(key, place))
                if shard.path != before:
                    remove(before)
            except (OSError, ShardError) as e:
                log.warning("%s cannot be written to %s: %s", shard.path, self._folders[place], e)
                continue
            again = (
                "written again"
                if place == self._place == 0
                else f"written to {self._folders[place]}"
            )
            self.notes.append(
                f"A part of {self.spec.name} was refused by the disk ({why}) and {again}."
            )
            self._place = place
            return True
        return False

    def _missing(self) -> Path | None:
        """Return the file that shows that the image was removed; None if it was not."""
        file = self._folders[0] / "0" / "zarr.json"
        try:
            file.stat()
        except FileNotFoundError:
            return file
        except OSError as e:  # whoever writes next finds out
            log.warning("%s cannot be looked at: %s", file, e)
        return None

    def _rescue_folder(self, missing: Path) -> None:
        """Make a folder again that was removed; what is in memory goes there."""
        self.troubles.append(
            f"{missing} is gone: someone or something removed or renamed the store, or its disk is"
            " no longer there. What was not on disk yet is written there again; the report says"
            " what is missing."
        )
        try:
            self.write_skeleton(self._folders[0])
        except OSError as e:
            self.leave(reason(e))
            return
        for key, shard in self._open.items():
            if shard.size:
                self._rescue(key, shard, FileNotFoundError(f"{missing} was removed"))

    def _place_of(self, shard: Shard) -> int:
        return next(
            i for i, folder in enumerate(self._folders) if shard.path.is_relative_to(folder)
        )

    def _account(self, key: Key, record: _Record) -> None:
        """Count what a complete shard holds, or what was in it."""
        bits = np.unpackbits(
            np.frombuffer(record.chunks, np.uint8), count=self.spec.chunks_per_shard
        ).astype(bool)
        file = self._file(key, record.place)
        try:
            there = present(sharding.read_index(file, len(bits))) & bits
            why = f"{file} was changed"
        except (OSError, ShardError) as e:
            there, why = np.zeros_like(bits), reason(e)
        for t, z, slots in self._groups(key, np.flatnonzero(there).tolist()):
            if record.place == 0 and t < self._lengths[0]:
                self.stored += len(slots)
                continue
            # On the spare disk, or in a shard that no reader looks for since the array's length
            # could not be written.
            self.elsewhere += len(slots)
            where = (
                "is on the spare disk"
                if record.place
                else "lies behind the length that the array's metadata say"
            )
            self.casualties.append(Casualty(t, z, len(slots), f"it {where}", elsewhere=file))
        for t, z, slots in self._groups(key, np.flatnonzero(bits & ~there).tolist()):
            self.casualties.append(Casualty(t, z, len(slots), why))

    # -- metadata ----------------------------------------------------------------------------------

    def _write_length(self, place: int, time_points: int) -> None:
        """Say how far the image has come, for those who look at it while it grows, and for when the
        process is killed.
        """
        file = self._folders[place] / "0" / "zarr.json"
        if time_points == self._lengths[place] or not file.parent.is_dir():
            return
        try:
            write_json(file, self._array(time_points), durable=False)
        except OSError as e:  # `close` writes it again
            log.warning("the length of %s could not be written: %s", self.spec.name, e)
        else:
            self._lengths[place] = time_points

    def _write_group(self, folder: Path, interval_s: float | None = None) -> None:
        about = dict(self.spec.provenance)
        group_s = _time_step_s(self.spec.interval_s, interval_s)
        ome = ome_image(self.spec, group_s, self._stage_um, self.windows)
        axes = [axis["name"] for axis in ome["multiscales"][0]["axes"]]
        if placed := [axis for axis in self._stage_um if axis in axes]:
            about["placed"] = placed
        attributes = {"ome": ome, "livesr": about}
        write_json(folder / "zarr.json", group_json(attributes))

    @property
    def _stage_um(self) -> dict[str, float]:
        """The stages' place by axis, where it is known."""
        said = zip("zyx", reversed(self.stage), strict=True)
        return {axis: float(um) for axis, um in said if um is not None}

    def _array(self, time_points: int) -> dict[str, Any]:
        array = array_json(self.spec)
        array["shape"][0] = time_points * self.spec.exposures
        return array


class DisplayWindow:
    """(low, high) that follows a stream of pictures slowly.

    Looks at a few thousand pixels of a picture every `every_s` seconds, so that it costs nothing.
    """

    _PIXELS_PER_AXIS = 64
    _FOLLOW = 0.1

    __slots__ = ("_due_s", "_every_s", "_low_high")

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._due_s = 0.0
        self._low_high: NDArray[np.float64] | None = None

    def update(self, plane: Pixels | None) -> tuple[float, float]:
        """Take a picture (y, x) into account and return the window; (0, 1) before there was any."""
        now = time.monotonic()
        if plane is not None and now >= self._due_s:
            self._due_s = now + self._every_s
            step_y, step_x = (max(1, n // self._PIXELS_PER_AXIS) for n in plane.shape)
            seen = np.percentile(plane[::step_y, ::step_x], (0.5, 99.8))
            self._low_high = (
                seen
                if self._low_high is None
                else self._low_high + self._FOLLOW * (seen - self._low_high)
            )
        return (
            (0.0, 1.0)
            if self._low_high is None
            else (float(self._low_high[0]), float(self._low_high[1]))
        )


def write_json(path: Path, value: object, *, durable: bool = True) -> None:
    """Replace `path` at once.

    A reader sees the old file or the new one, never half of it, also after a power cut if
    `durable`.

    A disk that refuses once is asked a second time, without its confirmation.

    Raises
    ------
    OSError
        If it refuses again; `path` is as it was.
    """
    data = to_json(value, indent=2).encode()
    try:
        contained.replace_bytes(path.parent, path.name, data, durable=durable)
    except OSError as e:
        log.warning("%s could not be written (%s) and is written again", path, e)
        contained.replace_bytes(path.parent, path.name, data)


def reason(error: BaseException) -> str:
    """Return what an error says, as part of a sentence."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f" ({error.filename})" if error.filename else "")
    return str(error).strip().rstrip(".") or type(error).__name__


def _time_step_s(asked: float | None, measured: float | None) -> float | None:
    """Return the interval that a plan asked for, unless exposures took longer.

    A shorter one is that of a recording that is replayed faster than it was made.
    """
    if asked and measured and measured > (1 + KEPT_WITHIN) * asked:
        return measured
    return asked or measured
