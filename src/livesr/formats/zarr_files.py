"""Zarr written by anybody, on a disk or on object storage: the only place that hands files to zarr.

Owns what zarr may see: files beneath the folder that was opened, links included, or objects beneath
the address that it stands for (`livesr.formats.object_store`), and metadata that names known codecs
and plain numbers. Both are looked at before anything is decoded: zarr runs every codec that a
plugin has registered, and numcodecs has one that unpickles.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest

from livesr.base import contained
from livesr.base.documents import parse_json
from livesr.base.errors import DocumentError, StoreError
from livesr.formats import object_store

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

Array: TypeAlias = Any  # zarr.Array
Group: TypeAlias = Any

CODECS_V3 = frozenset(
    {
        "blosc",
        "bytes",
        "crc32c",
        "gzip",
        "sharding_indexed",
        "transpose",
        "zstd",
        *(
            f"numcodecs.{name}"
            for name in (
                "adler32",
                "astype",
                "bitround",
                "blosc",
                "bz2",
                "crc32",
                "crc32c",
                "delta",
                "fixedscaleoffset",
                "fletcher32",
                "gzip",
                "jenkins_lookup3",
                "lz4",
                "lzma",
                "packbits",
                "quantize",
                "shuffle",
                "zlib",
                "zstd",
            )
        ),
    }
)
"""What a chunk of zarr format 3 may have gone through."""

CODECS_V2 = frozenset(
    {name.removeprefix("numcodecs.") for name in CODECS_V3}
    - {"bytes", "sharding_indexed", "transpose"}
)
"""The same of format 2, by their id."""

_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
_TYPES = re.compile(r"^([<>|=]?[biuf]\d{1,2}|bool|u?int(8|16|32|64)|float(16|32|64))$")
_TYPE_KEYS = ("dtype", "astype", "encode_dtype", "decode_dtype")  # of codecs
_REFUSALS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    NotImplementedError,
)
_DEEPEST = 8  # shards inside shards


def open_array(folder: Path) -> Array:
    """Open the array in `folder` for reading.

    Raises
    ------
    StoreError
        If it is no array, names codecs or pixel types that are not read, or leads out of its
        folder.
    """
    import zarr

    try:
        return zarr.open_array(ContainedStore(folder), mode="r")
    except _REFUSALS as e:
        raise StoreError(f"Cannot read {folder} as a zarr array: {type(e).__name__}: {e}.") from e


def open_group(folder: Path) -> Group:
    """Open the group in `folder` for reading; raises as `open_array`."""
    import zarr

    try:
        return zarr.open_group(ContainedStore(folder), mode="r", use_consolidated=False)
    except _REFUSALS as e:
        raise StoreError(f"Cannot read {folder} as a zarr group: {type(e).__name__}: {e}.") from e


def check_metadata(text: bytes, name: str) -> None:
    """Refuse metadata of arrays that would need more than decompression to be read.

    Parameters
    ----------
    text : a zarr.json, .zarray or .zmetadata
    name : for the sentence

    Raises
    ------
    StoreError
        If it is no JSON, or a codec or pixel type is not among those that livesr reads.
    """
    try:
        about = parse_json(text, name)
    except DocumentError as e:  # zarr must not understand what was not looked at
        raise StoreError(str(e)) from e
    for node in _nodes(about):
        check_codecs(node, name)


class ContainedStore(Store):
    """A folder that zarr may read.

    Notes
    -----
    It inherits none of zarr's own reading, so that no way around it appears with a newer zarr.
    """

    supports_writes = False
    supports_deletes = False
    supports_partial_writes = False  # of zarr 3.1.0 and the like
    supports_listing = True

    def __init__(self, folder: Path, *, read_only: bool = True) -> None:
        super().__init__(read_only=True)
        self._folder = Path(folder)

    def with_read_only(self, read_only: bool = False) -> ContainedStore:
        """Return another of the same; it never writes."""
        return type(self)(self._folder)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and other._folder == self._folder

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return str(self._folder)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return what is in a file, None if there is none."""
        content = await asyncio.to_thread(self._read, key, byte_range)
        return None if content is None else prototype.buffer.from_bytes(content)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return what is in parts of files."""
        return [await self.get(key, prototype, part) for key, part in key_ranges]

    async def exists(self, key: str) -> bool:
        """Whether there is such a file."""
        return await asyncio.to_thread(object_store.exists, self._folder, key)

    async def list(self) -> AsyncIterator[str]:
        """Yield the key of every file."""
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield the keys that begin so."""
        for path in sorted(self._folder.rglob("*")):
            key = path.relative_to(self._folder).as_posix()
            if key.startswith(prefix) and path.is_file():
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names in a folder."""
        folder = (
            contained.beneath(self._folder, prefix.strip("/"))
            if prefix.strip("/")
            else self._folder
        )
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                yield path.name

    async def set(self, key: str, value: Buffer) -> None:
        """Refuse: this is for reading."""
        self._check_writable()

    async def set_partial_values(self, key_start_values: Iterable[tuple[str, int, bytes]]) -> None:
        """Refuse: this is for reading."""
        self._check_writable()

    async def delete(self, key: str) -> None:
        """Refuse: this is for reading."""
        self._check_writable()

    def _read(self, key: str, part: ByteRequest | None) -> bytes | None:
        try:
            with contained.open_to_read(self._folder, key) as file:
                if key.rpartition("/")[2] in _METADATA:
                    content = file.read()
                    check_metadata(content, f"{self._folder / key}")
                    return _cut(content, part)
                return _part(file, part)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            if key.rpartition("/")[2] in _METADATA:  # those are here, and were looked at
                return None
            return object_store.fetched(self._folder, key, *_slice(part))


def _slice(part: ByteRequest | None) -> tuple[int | None, int | None]:
    """Return start and end as of a slice."""
    if isinstance(part, RangeByteRequest):
        return part.start, part.end
    if isinstance(part, OffsetByteRequest):
        return part.offset, None
    return (-part.suffix, None) if isinstance(part, SuffixByteRequest) else (None, None)


def _part(file: Any, part: ByteRequest | None) -> bytes:
    if part is None:
        return bytes(file.read())
    size = file.seek(0, 2)
    start, end = _range(part, size)
    file.seek(start)
    return bytes(file.read(max(end - start, 0)))


def _cut(content: bytes, part: ByteRequest | None) -> bytes:
    return content if part is None else content[slice(*_range(part, len(content)))]


def _range(part: ByteRequest, size: int) -> tuple[int, int]:
    if isinstance(part, RangeByteRequest):
        return part.start, min(part.end, size)
    if isinstance(part, OffsetByteRequest):
        return part.offset, size
    assert isinstance(part, SuffixByteRequest)
    return max(size - part.suffix, 0), size


def _nodes(about: Any) -> Iterator[Mapping[str, Any]]:
    """Yield what may describe an array.

    The metadata itself and what it holds of others, consolidated.
    """
    if not isinstance(about, Mapping):
        return
    yield about
    consolidated = about.get("consolidated_metadata")
    for one in (
        about.get("metadata"),
        consolidated.get("metadata") if isinstance(consolidated, Mapping) else None,
    ):
        if isinstance(one, Mapping):
            yield from (node for node in one.values() if isinstance(node, Mapping))


def check_codecs(about: Mapping[str, Any], name: str) -> None:
    """Refuse the metadata of one array as `check_metadata` does.

    Raises
    ------
    StoreError
        If one is not among those that are allowed.
    """
    if "codecs" in about or "data_type" in about:
        _check_type(about.get("data_type"), name)
        _check_codecs(about.get("codecs"), name, 0)
        if about.get("storage_transformers"):
            raise StoreError(f"{name} names storage transformers, which livesr does not read.")
    if "compressor" in about or "filters" in about or "dtype" in about:
        _check_type(about.get("dtype"), name)
        for codec in [about.get("compressor"), *_list(about.get("filters"), name)]:
            if codec is not None:
                _check_codec(codec, "id", CODECS_V2, name)


def _check_codecs(codecs: Any, name: str, depth: int) -> None:
    if depth > _DEEPEST:
        raise StoreError(f"{name} has shards inside shards, more deeply than any image.")
    for one in _list(codecs, name):
        codec: Any = {"name": one} if isinstance(one, str) else one
        _check_codec(codec, "name", CODECS_V3, name)
        inner = codec.get("configuration")
        if isinstance(inner, Mapping):
            for key in ("codecs", "index_codecs"):
                _check_codecs(inner.get(key), name, depth + 1)


def _check_codec(codec: Any, key: str, known: frozenset[str], name: str) -> None:
    about = codec if isinstance(codec, Mapping) else {}
    kind = about.get(key)
    if not isinstance(kind, str) or kind not in known:
        raise StoreError(
            f"{name} names the codec {str(kind or codec)[:60]!r}, which livesr does not run on a"
            f" stranger's file. It reads {', '.join(sorted(k for k in known if '.' not in k))}."
            " Save the image with one of these."
        )
    inner = about.get("configuration")
    for settings in (about, inner if isinstance(inner, Mapping) else {}):
        for one in _TYPE_KEYS:
            if settings.get(one) is not None:
                _check_type(settings[one], name)


def _check_type(dtype: Any, name: str) -> None:
    if not isinstance(dtype, str) or not _TYPES.match(dtype):
        raise StoreError(
            f"{name} holds values of type {str(dtype)[:60]!r}; livesr reads numbers, such as"
            " 'uint16', and no objects."
        )


def _list(value: Any, name: str) -> list[Any]:
    if value is not None and not isinstance(value, list):
        raise StoreError(f"{name} has {type(value).__name__} where a list of codecs is expected.")
    return value or []
