"""Stores on object storage (S3 and others), for reading.

Owns the way from an address to a folder of this computer: what a store says of itself is copied
there, and pixels are fetched from the address when they are asked for
(`livesr.formats.zarr_files`). fsspec does the talking, and finds the credentials; it is imported
when an address is opened. Writes to no address.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from livesr.base import contained
from livesr.base.errors import ConfigError, StoreError

SCHEMES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "http", "https", "memory")
"""What an address may begin with."""

_ADDRESS = re.compile(rf"({'|'.join(SCHEMES)}):[/\\]+(.+)", re.DOTALL)
_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
_WHOLE = ("livesr", "OME")  # folders that are copied with all that is in them
_DEEPEST, _MOST_FILES, _MOST_BYTES = 3, 10_000, 4 << 30
_ASKED_ONE_BY_ONE = ("http:", "https:")  # lists folder by folder, and each shard has folders
_LISTED_S = 10.0
_LOCK = "lock.json"  # of whoever works on it elsewhere


class _Mirror(NamedTuple):
    """A folder that stands for an address."""

    fs: Any
    prefix: str
    address: str


class _Listing(NamedTuple):
    """Names of objects, and until when they are believed."""

    names: frozenset[str]
    until_s: float


_lock = threading.Lock()
_mirrors: dict[Path, _Mirror] = {}
_folders: dict[str, Path] = {}
_listings: dict[str, _Listing] = {}


def address_of(path: str | os.PathLike[str]) -> str | None:
    """Return the address that is meant, of which a `Path` has made one slash of two; None of a
    place on this computer.
    """
    match = _ADDRESS.fullmatch(os.fspath(path))
    return None if match is None else f"{match[1]}://{match[2]}".rstrip("/")


def refuse_to_write(path: str | os.PathLike[str]) -> None:
    """Refuse to record or compute into object storage.

    Raises
    ------
    ConfigError
        With what to do instead.
    """
    if address := address_of(path):
        raise ConfigError(
            f"{address} is object storage, which takes whole objects only: a shard that grows, a"
            " log that is appended to and a lock are not safe there. Write to a disk of this"
            " computer, and copy when it is complete: --on-finish 'aws s3 sync {store}"
            f" {address}', or rclone."
        )


def local(path: str | os.PathLike[str]) -> Path:
    """Return the folder by which a store is read: `path`, or what stands for an address.

    Raises
    ------
    StoreError
        If there is nothing at the address, or it cannot be reached.
    ConfigError
        If what speaks its protocol is not installed.
    """
    address = address_of(path)
    if address is None:
        return Path(path)
    with _lock:
        if address not in _folders:
            _folders[address] = _mirrored(address)
        return _folders[address]


def is_remote(path: Path) -> bool:
    """Whether a folder, or what lies above it, stands for an address."""
    return _mirror_of(path) is not None


def exists(folder: Path, key: str) -> bool:
    """Whether `key` is beneath `folder`, here or at the address that it stands for."""
    if (mirror := _mirror_of(folder)) is None:
        return contained.is_file(folder, key)
    name = _object(mirror, folder, key)
    if mirror.address.startswith(_ASKED_ONE_BY_ONE):
        return bool(mirror.fs.exists(name))
    return name in _listed(mirror, _place(mirror, folder))


def fetched(folder: Path, key: str, start: int | None, end: int | None) -> bytes | None:
    """Return an object, or a part of it, that belongs beneath `folder`; None if there is none.

    Parameters
    ----------
    start, end : as of a slice; negative ones count from the end

    Raises
    ------
    StoreError
        If it cannot be fetched.
    """
    mirror = _mirror_of(folder)
    if mirror is None:
        return None
    try:
        found: bytes = mirror.fs.cat_file(_object(mirror, folder, key), start=start, end=end)
    except FileNotFoundError:
        return None
    except Exception as e:  # each protocol has its own
        raise StoreError(f"{mirror.address}: {key} cannot be fetched: {_said(e)}") from e
    return found


def _listed(mirror: _Mirror, place: str) -> frozenset[str]:
    """Return the names of all objects beneath a place, as they were a moment ago.

    One answer holds a thousand: who asks for each shard by its name waits as often as there are.

    Raises
    ------
    StoreError
        If it cannot be listed.
    """
    with _lock:
        known = _listings.get(place)
        if known and time.monotonic() < known.until_s:
            return known.names
        try:
            mirror.fs.invalidate_cache(place)
            names = frozenset(map(str, mirror.fs.find(place)))
        except Exception as e:  # each protocol has its own
            raise StoreError(f"{mirror.address}: what it holds is not told: {_said(e)}") from e
        _listings[place] = _Listing(names, time.monotonic() + _LISTED_S)
        return names


def _object(mirror: _Mirror, folder: Path, key: str) -> str:
    return _place(mirror, contained.beneath(folder, key))


def _place(mirror: _Mirror, path: Path) -> str:
    root = _root_of(path)
    assert root is not None
    return f"{mirror.prefix}/{path.absolute().relative_to(root).as_posix()}".removesuffix("/.")


def _root_of(folder: Path) -> Path | None:
    if not _mirrors:
        return None
    place = folder.absolute()
    return next((root for root in (place, *place.parents) if root in _mirrors), None)


def _mirror_of(folder: Path) -> _Mirror | None:
    root = _root_of(folder)
    return None if root is None else _mirrors[root]


def _mirrored(address: str) -> Path:
    """Copy what a store says of itself, and remember where its pixels are."""
    scheme = address.partition(":")[0]
    if find_spec("fsspec") is None:
        raise ConfigError(f"{address} needs fsspec: pip install 'livesr[objects]'.")
    from fsspec.core import url_to_fs

    try:
        fs, prefix = url_to_fs(address)
        names = {_last(entry) for entry in fs.ls(prefix, detail=False)}
    except ImportError as e:
        raise ConfigError(
            f"{address} needs what speaks {scheme} ({e}): pip install 'livesr[objects]' has S3."
        ) from e
    except Exception as e:
        raise StoreError(
            f"{address} cannot be read: {_said(e)} Look at the address, the credentials and, of a"
            " server of your own, AWS_ENDPOINT_URL."
        ) from e
    if not names & {*_METADATA}:
        raise StoreError(
            f"{address} is no zarr: it holds {', '.join(sorted(names)[:5]) or 'nothing'}."
        )
    folder = Path(tempfile.mkdtemp(prefix="livesr-objects-")).resolve() / Path(prefix).name
    atexit.register(shutil.rmtree, folder.parent, ignore_errors=True)
    folder.mkdir()
    _Copy(fs, prefix, folder).all()
    _mirrors[folder] = _Mirror(fs, prefix, address)
    return folder


class _Copy:
    """Copies metadata and sidecars, and refuses what is more than a store has of them."""

    def __init__(self, fs: Any, prefix: str, folder: Path) -> None:
        self._fs, self._prefix, self._folder = fs, prefix.rstrip("/"), folder
        self._files = self._bytes = 0

    def all(self) -> None:
        """Copy them."""
        self._level(self._prefix, 0)

    def _level(self, place: str, depth: int) -> None:
        for entry in self._fs.ls(place, detail=True):
            name = _last(entry["name"])
            if not name or entry["name"].rstrip("/") == place.rstrip("/"):
                continue
            if entry["type"] == "directory":
                if depth == 0 and name in _WHOLE:
                    self._whole(entry["name"])
                elif depth < _DEEPEST and name != "c" and not name.isdigit():
                    self._level(entry["name"], depth + 1)
                elif depth < _DEEPEST and name.isdigit() and depth == 1:
                    self._metadata_of(entry["name"])
            elif name in _METADATA or (depth == 0 and name.endswith(".csv")):
                self._take(entry["name"], int(entry.get("size") or 0))

    def _metadata_of(self, place: str) -> None:
        """Copy what is said of an array, without a look at its chunks."""
        for name in _METADATA:
            if self._fs.exists(f"{place}/{name}"):
                self._take(f"{place}/{name}", 0)

    def _whole(self, place: str) -> None:
        for name, about in self._fs.find(place, detail=True).items():
            if _last(name) != _LOCK:
                self._take(name, int(about.get("size") or 0))

    def _take(self, name: str, size: int) -> None:
        self._files, self._bytes = self._files + 1, self._bytes + size
        if self._files > _MOST_FILES or self._bytes > _MOST_BYTES:
            raise StoreError(
                f"{self._prefix} has more beside its images than a store of livesr: copy it to this"
                " computer, and read it there."
            )
        key = name.rstrip("/").removeprefix(self._prefix).lstrip("/")
        target = contained.beneath_to_write(self._folder, key)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            content = self._fs.cat_file(name)
        except Exception as e:
            raise StoreError(f"{name} cannot be fetched: {_said(e)}") from e
        contained.write_bytes(self._folder, key, content)


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{text[:300]}." if not text.endswith(".") else text[:300]
