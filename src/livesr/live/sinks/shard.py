"""One shard of an array, a file that can be read at every moment while it grows.

Owns the file's format (Zarr v3, ``sharding_indexed``: chunks of ``[bytes, blosc, crc32c]``, the
index at the end) and what was put into it until the disk is known to hold it. Knows no image, no
time and no other shard.

Chunks are appended. Every commit ends the file with an index of all that it holds; the index before
stays inside, as bytes that nothing points to. So a reader, or a killed process, never finds chunks
that an index has lost: if the last commit was torn, the file is whole up to the one before
(`livesr.formats.shard_file.whole_length`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from livesr.base import contained
from livesr.base.errors import StoreError
from livesr.base.files import remove, sync, write_all
from livesr.base.frames import Pixels
from livesr.formats import shard_file
from livesr.formats.shard_file import ABSENT, Index, ShardError, checksum, encoded_index, present

_CRC_BYTES = 4


class Chunk(NamedTuple):
    """A compressed plane and its checksum, as they lie in the file."""

    data: bytes
    checksum: bytes

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return len(self.data) + len(self.checksum)


class Budget:
    """Bytes that may be kept in memory until they are known to be on disk, over all images of a
    store.
    """

    __slots__ = ("left",)

    def __init__(self, nbytes: int) -> None:
        self.left = nbytes

    def take(self, nbytes: int) -> bool:
        """Whether there is room for so many more."""
        if nbytes > self.left:
            return False
        self.left -= nbytes
        return True


class Shard:
    """A shard of `chunks` chunks that is being written to `path`.

    Nothing is written before `commit`. What was committed is kept in memory as far as `budget`
    allows, so that `move` can write it elsewhere when the file can no longer be trusted; the rest
    is then read back, if the disk lets it.

    Attributes
    ----------
    path : where it is
    pending_bytes : waits for `commit`
    size : bytes of the file after the last commit; 0 before the first
    """

    def __init__(self, path: Path, chunks: int, budget: Budget) -> None:
        self.path = path
        self.pending_bytes = self.size = 0
        self._budget = budget
        self._index: Index = np.full((chunks, 2), ABSENT, np.uint64)
        self._kept: dict[int, Chunk] = {}
        self._pending: dict[int, Chunk] = {}

    @property
    def committed(self) -> NDArray[np.bool_]:
        """Which chunks (chunks,) are in the file."""
        return present(self._index)

    def add(self, chunks: Mapping[int, Chunk]) -> None:
        """Take chunks, by their place in the shard."""
        self._pending.update(chunks)
        self.pending_bytes += sum(chunk.nbytes for chunk in chunks.values())

    def commit(self) -> None:
        """Append what is pending, and an index of everything.

        Raises
        ------
        OSError
            If the disk refuses, or the file is not as it was left; what was pending still is.
        """
        if not self._pending:
            return
        index, data = _appended(self._index, self._pending, self.size)
        if not self.size:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with _open(self.path, "r+" if self.size else "w") as file:
            if (size := file.seek(0, os.SEEK_END)) != self.size:
                raise OSError(
                    f"the file has {size} bytes and was left with {self.size}: another program"
                    " changed it"
                )
            write_all(file, data)
        self._committed(index, self.size + len(data))

    def move(self, path: Path) -> None:
        """Write all that was added into a new file that takes the place of `path`; go on there.

        Raises
        ------
        OSError, ShardError
            If that disk refuses as well, or what is no longer in memory cannot be read back;
            nothing has changed.
        """
        everything = {**dict(self._everything()), **self._pending}
        index, data = _appended(np.full_like(self._index, ABSENT), everything, 0)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _refused_as_by_a_disk():
            contained.replace_bytes(path.parent, path.name, data, durable=True)
        self.path = path
        self._committed(index, len(data))

    def give_up_pending(self) -> dict[int, Chunk]:
        """Cut the file back to its last whole commit.

        Return the chunks that it does not hold, for the caller to keep.

        Where even that fails, these are all that are in memory, and the file is begun anew.
        """
        given_up = dict(self._pending)
        self._pending, self.pending_bytes = {}, 0
        try:
            if self.size:
                with _open(self.path, "r+") as file:
                    file.truncate(self.size)
                self.check()
            else:
                remove(self.path)
        except (OSError, ShardError):
            given_up = {**self._kept, **given_up}
            self.release()
            self._index[:], self.size = ABSENT, 0
        return given_up

    def settle(self) -> None:
        """See to it that the disk has what was committed; from any thread.

        Raises
        ------
        OSError, ShardError
            If the disk could not write it, or the file is not what was written.
        """
        self.sync()
        self.check()

    def sync(self) -> None:
        """See to it that the disk has what the file holds so far; from any thread.

        Raises
        ------
        OSError
            If the disk could not write it.
        """
        with _open(self.path, "r+") as file:
            sync(file.fileno())

    def check(self) -> None:
        """Compare the file's end with what was written there.

        Raises
        ------
        OSError, ShardError
            If it is gone or another.
        """
        if not np.array_equal(read_index(self.path, len(self._index)), self._index):
            raise ShardError(f"{self.path} is not what was written")

    def release(self) -> None:
        """Keep nothing in memory any more."""
        self._budget.left += sum(chunk.nbytes for chunk in self._kept.values())
        self._kept = {}

    def _everything(self) -> Iterator[tuple[int, Chunk]]:
        for slot in np.flatnonzero(self.committed):
            yield int(slot), self._kept.get(int(slot)) or read_chunk(self.path, self._index[slot])

    def _committed(self, index: Index, size: int) -> None:
        for slot, chunk in self._pending.items():
            if self._budget.take(chunk.nbytes):
                self._kept[slot] = chunk
        self._pending, self.pending_bytes = {}, 0
        self._index, self.size = index, size


def encode(plane: Pixels) -> Chunk:
    """Compress a plane as the array's codecs say."""
    data = blosc.compress(np.ascontiguousarray(plane), b"lz4", 5, blosc.SHUFFLE, 0)
    return Chunk(data, checksum(data))


def decode(chunk: Chunk, shape: tuple[int, int], dtype: str) -> Pixels:
    """Return the plane (y, x) that `encode` was given.

    Raises
    ------
    ShardError
        If the checksum is not that of the data.
    """
    if checksum(chunk.data) != chunk.checksum:
        raise ShardError("a chunk does not have its checksum")
    return np.frombuffer(blosc.decompress(chunk.data), dtype).reshape(shape)


def read_index(path: Path, chunks: int) -> Index:
    """Read the index of a shard as `livesr.formats.shard_file.read_index`.

    Raises
    ------
    OSError
        If the file cannot be read.
    ShardError
        If there is no index, its checksum is not right, or it points outside the file.
    """
    with _refused_as_by_a_disk():
        try:
            return shard_file.read_index(path, chunks)
        except ShardError as e:
            raise ShardError(f"{path} does not end with the index of a shard: {e}") from e


def read_chunk(path: Path, entry: Index) -> Chunk:
    """Read the chunk at an entry (2,) of the index.

    Raises
    ------
    OSError, ShardError
        If it cannot be read or is damaged.
    """
    offset, nbytes = (int(n) for n in entry)
    with _open(path, "r") as file:
        file.seek(offset)
        data = _read_all(file, nbytes)
    chunk = Chunk(data[:-_CRC_BYTES], data[-_CRC_BYTES:])
    if checksum(chunk.data) != chunk.checksum:
        raise ShardError(f"{path} is damaged at byte {offset}")
    return chunk


def _open(path: Path, mode: Literal["r", "r+", "w"]) -> Any:
    with _refused_as_by_a_disk():
        if mode == "r":
            return contained.open_to_read(path.parent, path.name)
        return contained.open_to_write(path.parent, path.name, mode, buffering=0)


@contextmanager
def _refused_as_by_a_disk() -> Iterator[None]:
    """Let a link in the place of a shard be an OSError.

    What was to be written there is written elsewhere.
    """
    try:
        yield
    except StoreError as e:
        raise OSError(str(e)) from e


def _appended(index: Index, chunks: Mapping[int, Chunk], offset: int) -> tuple[Index, bytes]:
    """Return the index with `chunks` in it, which begin at `offset`, and the bytes to append."""
    index, parts = index.copy(), list[bytes]()
    for slot, chunk in chunks.items():
        index[slot] = offset, chunk.nbytes
        offset += chunk.nbytes
        parts += chunk
    return index, b"".join((*parts, encoded_index(index)))


def _read_all(file: Any, nbytes: int) -> bytes:
    parts = []
    while nbytes and (part := file.read(nbytes)):
        parts.append(part)
        nbytes -= len(part)
    return b"".join(parts)
