"""One shard of an array, a file that can be read at every moment while it grows.

Owns the file's format (Zarr v3, ``sharding_indexed``: chunks of ``[bytes, blosc, crc32c]``, the
index at the end) and what was put into it until the disk is known to hold it. Knows no image, no
time and no other shard.

Chunks are appended. Every commit ends the file with an index of all that it holds; the index before
stays inside, as bytes that nothing points to. So a reader, or a killed process, never finds chunks
that an index has lost: if the last commit was torn, the file is whole up to the one before
(`whole_length`).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import google_crc32c
import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from livesr.base import contained
from livesr.base.errors import StoreError
from livesr.base.files import remove, sync, write_all
from livesr.base.frames import Pixels

_NOWHERE = (1 << 64) - 1  # offset and length of a chunk that is not there
_CRC_BYTES = 4
_BLOSC_HEADER_BYTES, _BLOSC_LENGTH_AT = 16, 12


class ShardError(ValueError):
    """A file is not, or not to its end, a shard."""


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
        self._index: NDArray[np.uint64] = np.full((chunks, 2), _NOWHERE, np.uint64)
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
        index, data = _appended(np.full_like(self._index, _NOWHERE), everything, 0)
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
            self._index[:], self.size = _NOWHERE, 0
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

    def _committed(self, index: NDArray[np.uint64], size: int) -> None:
        for slot, chunk in self._pending.items():
            if self._budget.take(chunk.nbytes):
                self._kept[slot] = chunk
        self._pending, self.pending_bytes = {}, 0
        self._index, self.size = index, size


def encode(plane: Pixels) -> Chunk:
    """Compress a plane as the array's codecs say."""
    data = blosc.compress(np.ascontiguousarray(plane), b"lz4", 5, blosc.SHUFFLE, 0)
    return Chunk(data, _checksum(data))


def decode(chunk: Chunk, shape: tuple[int, int], dtype: str) -> Pixels:
    """Return the plane (y, x) that `encode` was given.

    Raises
    ------
    ShardError
        If the checksum is not that of the data.
    """
    if _checksum(chunk.data) != chunk.checksum:
        raise ShardError("a chunk does not have its checksum")
    return np.frombuffer(blosc.decompress(chunk.data), dtype).reshape(shape)


def present(index: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which chunks (chunks,) an index (chunks, 2) has."""
    return np.asarray(index[:, 0] != _NOWHERE)


def read_index(path: Path, chunks: int) -> NDArray[np.uint64]:
    """Return the index (chunks, 2) at the end of a shard.

    Offset and length in bytes, in C order of the array's axes.

    Raises
    ------
    OSError
        If the file cannot be read.
    ShardError
        If there is no index, its checksum is not right, or it points outside the file.
    """
    with _open(path, "r") as file:
        begins = file.seek(0, os.SEEK_END) - _index_bytes(chunks)
        if begins < 0:
            raise ShardError(f"{path} is too short for the index of a shard")
        file.seek(begins)
        index = _index_of(_read_all(file, _index_bytes(chunks)), begins)
    if index is None:
        raise ShardError(f"{path} does not end with the index of a shard")
    return index


def read_chunk(path: Path, entry: NDArray[np.uint64]) -> Chunk:
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
    if _checksum(chunk.data) != chunk.checksum:
        raise ShardError(f"{path} is damaged at byte {offset}")
    return chunk


def whole_length(path: Path, chunks: int) -> int:
    """Return how many bytes of a shard that `Shard` wrote are whole: up to the last index that is.

    0 if none is.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    with _open(path, "r") as file:
        data: bytes = file.read()
    at = whole = 0
    while at < len(data):
        if _index_of(data[at : at + _index_bytes(chunks)], at) is not None:
            at = whole = at + _index_bytes(chunks)
        elif (nbytes := _chunk_bytes(data, at)) is not None:
            at += nbytes
        else:
            break
    return whole


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


def _appended(
    index: NDArray[np.uint64], chunks: Mapping[int, Chunk], offset: int
) -> tuple[NDArray[np.uint64], bytes]:
    """Return the index with `chunks` in it, which begin at `offset`, and the bytes to append."""
    index, parts = index.copy(), list[bytes]()
    for slot, chunk in chunks.items():
        index[slot] = offset, chunk.nbytes
        offset += chunk.nbytes
        parts += chunk
    encoded = index.astype("<u8").tobytes()
    return index, b"".join((*parts, encoded, _checksum(encoded)))


def _index_of(data: bytes, begins: int) -> NDArray[np.uint64] | None:
    """Return the index in `data`, which stands at byte `begins` of the file; None if it is none."""
    encoded, checksum = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
    if not encoded or len(encoded) % 16 or _checksum(encoded) != checksum:
        return None
    index = np.frombuffer(encoded, "<u8").reshape(-1, 2).astype(np.uint64)
    offset, nbytes = index[present(index)].T
    inside = (
        (offset <= begins)
        & (nbytes <= begins)
        & (offset + nbytes <= begins)
        & (nbytes > _CRC_BYTES)
    )
    return index if inside.all() else None


def _chunk_bytes(data: bytes, at: int) -> int | None:
    """Return the length of the chunk at byte `at`, with its checksum.

    None if there is none, or it is damaged.
    """
    if at + _BLOSC_HEADER_BYTES > len(data):
        return None
    (nbytes,) = struct.unpack_from("<I", data, at + _BLOSC_LENGTH_AT)
    end = at + nbytes
    if nbytes < _BLOSC_HEADER_BYTES or _checksum(data[at:end]) != data[end : end + _CRC_BYTES]:
        return None
    return int(nbytes) + _CRC_BYTES


def _index_bytes(chunks: int) -> int:
    return 16 * chunks + _CRC_BYTES


def _checksum(data: bytes) -> bytes:
    return struct.pack("<I", google_crc32c.value(data))


def _read_all(file: Any, nbytes: int) -> bytes:
    parts = []
    while nbytes and (part := file.read(nbytes)):
        parts.append(part)
        nbytes -= len(part)
    return b"".join(parts)
