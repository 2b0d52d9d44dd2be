"""One shard as a file: which chunks it says that it holds, and which of them can be read.

Owns the bytes of the Zarr sharding codec (index at the end) and of the chunks that livesr writes.
Knows no image and no log.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from livesr.base import contained
from livesr.base.errors import StoreError
from livesr.base.files import replace_file

ABSENT = np.iinfo(np.uint64).max
_ENTRY_BYTES, _CRC_BYTES, _BLOSC_HEADER, _BLOSC_VERSION = 16, 4, 16, 2
_MAX_CHUNKS, _MAX_CHUNK_BYTES = 1 << 20, 1 << 31  # far beyond what livesr writes
_DECODED_HERE = {"bytes", "blosc", "crc32c"}

Index = NDArray[np.uint64]
Places = NDArray[np.bool_]


class ShardError(ValueError):
    """A shard or a chunk is not what its array describes."""


@dataclass(frozen=True, slots=True)
class ShardForm:
    """What every shard of an array is like.

    Attributes
    ----------
    counts : inner chunks of a shard along every axis
    chunk_bytes : of one chunk, decoded
    codecs : of the chunks, in the order of encoding
    """

    counts: tuple[int, ...]
    chunk_bytes: int
    codecs: tuple[str, ...]

    @property
    def chunks(self) -> int:
        """Inner chunks of a shard."""
        return math.prod(self.counts)

    @property
    def index_bytes(self) -> int:
        """Length of the index with its checksum."""
        return _index_bytes(self.chunks)

    @property
    def has_checksums(self) -> bool:
        """Whether a flipped bit in a chunk is found."""
        return "crc32c" in self.codecs


def check_encoding(about: Mapping[str, Any], place: object = "zarr.json") -> None:
    """Refuse an array whose chunks are encoded, or named, in another way than livesr does it.

    They are whole, and not for it.

    Raises
    ------
    StoreError
        With what it names.
    """
    from livesr.formats.zarr_files import check_codecs

    check_codecs(about, str(place))
    try:
        keys = about["chunk_key_encoding"]
        if (keys["name"], (keys.get("configuration") or {}).get("separator", "/")) != (
            "default",
            "/",
        ):
            raise ValueError(f"its chunks are named by {keys}, expected 'default' with '/'")
        (sharding,) = about["codecs"]
        how = sharding["configuration"]
        if sharding["name"] != "sharding_indexed" or how.get("index_location", "end") != "end":
            raise ValueError(
                f"its codec is {sharding['name']!r}, expected 'sharding_indexed' with the index at"
                " the end"
            )
        inner, index = (
            [codec["name"] for codec in how[kind]] for kind in ("codecs", "index_codecs")
        )
        if not set(inner) <= _DECODED_HERE or index != ["bytes", "crc32c"]:
            raise ValueError(f"its codecs are {inner}, and {index} of the index")
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise StoreError(f"{place} does not describe an array that livesr wrote: {e}.") from e


def shard_form(about: Mapping[str, Any], place: object = "zarr.json") -> ShardForm:
    """Read the form of an array's shards from its zarr.json.

    Raises
    ------
    StoreError
        If it is not sharded as livesr does it.
    """
    check_encoding(about, place)
    try:
        shard = about["chunk_grid"]["configuration"]["chunk_shape"]
        (sharding,) = about["codecs"]
        inner = sharding["configuration"]["chunk_shape"]
        counts = tuple(int(s) // int(i) for s, i in zip(shard, inner, strict=True))
        if min(counts) < 1:
            raise ValueError(f"its shards {shard} are smaller than its chunks {inner}")
        size = math.prod(map(int, inner)) * np.dtype(str(about["data_type"])).itemsize
        if math.prod(counts) > _MAX_CHUNKS or not 0 < size <= _MAX_CHUNK_BYTES:
            raise ValueError(f"its shards have {math.prod(counts)} chunks of {size} bytes")
        return ShardForm(
            counts, size, tuple(str(c["name"]) for c in sharding["configuration"]["codecs"])
        )
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise StoreError(f"{place} does not describe an array that livesr wrote: {e}.") from e


def read_index(path: Path, chunks: int) -> Index:
    """Return (offset, bytes) of each of a shard's inner chunks, (chunks, 2), in C order of the
    array's axes; ABSENT twice for one that never came.

    Raises
    ------
    ShardError
        If there is no valid index at the end, or an entry leads outside the file.
    OSError
        If the file cannot be read.
    """
    with _opened(path) as file:
        size, index_bytes = file.seek(0, os.SEEK_END), _index_bytes(chunks)
        if size < index_bytes:
            raise ShardError(f"it has {size} bytes, its index alone takes {index_bytes}")
        file.seek(size - index_bytes)
        return _parsed(file.read(), size - index_bytes)


def present(index: Index) -> Places:
    """Return which chunks the index names."""
    return np.asarray(index[:, 0] != ABSENT)


def unreadable(path: Path, form: ShardForm, index: Index) -> Places:
    """Return which of the chunks that the index names cannot be decoded, or do not have their
    checksum.
    """
    bad = np.zeros(form.chunks, bool)
    with _opened(path) as file:
        for i in np.flatnonzero(present(index)):
            try:
                decode(_chunk(file, index, i), form)
            except ShardError:
                bad[i] = True
    return bad


def decode(content: bytes, form: ShardForm) -> bytes:
    """Return the pixels of a chunk.

    Raises
    ------
    ShardError
        If they do not come out as they went in, as far as that can be known.
    """
    for codec in reversed(form.codecs):
        if codec == "crc32c":
            content = _checked(content)
        elif codec == "blosc":
            content = _decompressed(content, form.chunk_bytes)
        elif codec not in _DECODED_HERE:
            raise ShardError(f"codec {codec!r} is not one that livesr writes")
    if len(content) != form.chunk_bytes:
        raise ShardError(f"a chunk has {len(content)} bytes, expected {form.chunk_bytes}")
    return content


def whole_length(path: Path, form: ShardForm) -> int:
    """Return up to which byte a file that ends in the middle is a whole shard, 0 if it never was
    one.

    A shard that grows ends with an index after every commit, and keeps the older ones inside:
    chunks and indexes are walked through from the start.
    """
    content, at, whole = contained.read_bytes(path.parent, path.name), 0, 0
    while at < len(content):
        if length := _chunk_length(content, at, form):
            at += length
        elif _is_index(content, at, form):
            at += form.index_bytes
            whole = at
        else:
            break
    return whole


def copy_without(path: Path, form: ShardForm, drop: Places, target: Path) -> None:
    """Write the chunks of a shard, as they are, to `target`, but those to `drop`.

    Replaces it at once.
    """
    index = read_index(path, form.chunks)
    new = target.with_name(f".{target.name}.new")
    kept = np.full_like(index, ABSENT)
    new.unlink(missing_ok=True)  # of one that was killed
    with _opened(path) as source, contained.open_to_write(new.parent, new.name, "x") as file:
        for i in np.flatnonzero(present(index) & ~drop):
            chunk = _chunk(source, index, i)
            kept[i] = file.tell(), len(chunk)
            file.write(chunk)
        file.write(encoded_index(kept))
        file.flush()
        os.fsync(file.fileno())
    replace_file(new, target)


def empty_shard(form: ShardForm) -> bytes:
    """Return a shard whose every chunk is the fill value."""
    return encoded_index(np.full((form.chunks, 2), ABSENT, np.uint64))


def first_chunk(path: Path) -> tuple[int, int] | None:
    """Return bytes of a chunk, decoded, and of one number in it, as the first Blosc chunk of a
    shard says; None without.
    """
    with _opened(path) as file:
        content = file.read(_BLOSC_HEADER)
    if len(content) < _BLOSC_HEADER or content[0] != _BLOSC_VERSION:
        return None
    return int.from_bytes(content[4:8], "little"), content[3]


def _opened(path: Path) -> BinaryIO:
    return contained.open_to_read(path.parent, path.name)


def _chunk(file: BinaryIO, index: Index, i: np.intp) -> bytes:
    offset, length = (int(n) for n in index[i])
    file.seek(offset)
    return file.read(length)


def encoded_index(index: Index) -> bytes:
    """Return an index (chunks, 2) as it ends a shard, with its checksum."""
    entries = index.astype("<u8").tobytes()
    return entries + checksum(entries)


def _index_bytes(chunks: int) -> int:
    return _ENTRY_BYTES * chunks + _CRC_BYTES


def _parsed(content: bytes, end: int) -> Index:
    entries, stored = content[:-_CRC_BYTES], content[-_CRC_BYTES:]
    if checksum(entries) != stored:
        raise ShardError("its index is missing or damaged")
    index = np.frombuffer(entries, "<u8").reshape(-1, 2).astype(np.uint64)
    there = index[present(index)]
    # Not their sum, which may overflow.
    if np.any((there[:, 0] > end) | (there[:, 1] > end)) or np.any(there.sum(axis=1) > end):
        raise ShardError("its index leads outside the file")
    return index


def _is_index(content: bytes, at: int, form: ShardForm) -> bool:
    if at + form.index_bytes > len(content):
        return False
    try:
        _parsed(content[at : at + form.index_bytes], at)
    except ShardError:
        return False
    return True


def _chunk_length(content: bytes, at: int, form: ShardForm) -> int:
    """Return the encoded length of the chunk at `at`, 0 if there is none, or half of one."""
    if "blosc" in form.codecs:
        header = _blosc_header(content, at)
        if not header or header[0] != form.chunk_bytes:
            return 0
        length = header[1]
    else:
        length = form.chunk_bytes
    length += _CRC_BYTES * form.codecs.count("crc32c")
    try:
        decode(content[at : at + length], form)
    except ShardError:
        return 0
    return length


def _blosc_header(content: bytes, at: int) -> tuple[int, int] | None:
    """Return the decoded and encoded length of a Blosc chunk, None where there is none."""
    header = content[at : at + _BLOSC_HEADER]
    if len(header) < _BLOSC_HEADER or header[0] != _BLOSC_VERSION:
        return None
    nbytes, cbytes = int.from_bytes(header[4:8], "little"), int.from_bytes(header[12:16], "little")
    return (
        (nbytes, cbytes)
        if nbytes and cbytes >= _BLOSC_HEADER and at + cbytes <= len(content)
        else None
    )


def _checked(content: bytes) -> bytes:
    body, stored = content[:-_CRC_BYTES], content[-_CRC_BYTES:]
    if len(content) < _CRC_BYTES or checksum(body) != stored:
        raise ShardError("a chunk does not have its checksum")
    return body


def _decompressed(content: bytes, length: int) -> bytes:
    from numcodecs import blosc

    # Before it is decoded: its header says how much memory that takes.
    if _blosc_header(content, 0) != (length, len(content)):
        raise ShardError("a chunk is no Blosc chunk of its array")
    try:
        return bytes(blosc.decompress(content))
    except (RuntimeError, ValueError) as e:
        raise ShardError(f"a chunk cannot be decompressed: {e}") from e


def checksum(content: bytes) -> bytes:
    """Return the CRC-32C of a chunk or an index, as it stands behind it."""
    import google_crc32c

    return int(google_crc32c.value(content)).to_bytes(_CRC_BYTES, "little")
