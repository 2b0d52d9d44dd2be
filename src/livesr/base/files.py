"""Files that are replaced at once: whoever reads sees the old one or the new one, never half of it.

Owns the wait for readers on Windows and for the disk, the next free name, whether a folder takes
files, and what may be given as a path. Knows no format.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from livesr.base.errors import ConfigError

_CANNOT_SYNC = frozenset(
    {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}
)  # what a file system says that has no fsync
_PATIENCE_S = 2.0
_PAUSE_S = 0.02


def path_of(given: object, what: str, expected: str = "a path, as text or a pathlib.Path") -> Path:
    """Return `given` as a path.

    Parameters
    ----------
    what : of what it is the path, as a sentence begins
    expected : what may be given, as it ends

    Raises
    ------
    ConfigError
        If it is none.
    """
    if isinstance(given, str | os.PathLike) and isinstance(text := os.fspath(given), str):
        return given if isinstance(given, Path) else Path(text)
    raise not_expected(given, what, expected)


def not_expected(given: object, what: str, expected: str) -> ConfigError:
    """Return the error of an argument of another kind, shown as far as a line holds it."""
    shown = repr(given)
    short = shown if len(shown) <= 40 else f"{shown[:40]}..."
    came = "None" if given is None else f"{short} ({type(given).__name__})"
    return ConfigError(f"{what} is {came}; expected {expected}.")


def replace_file(new: Path, place: Path) -> None:
    """Move `new` to `place`, over what is there.

    Windows refuses while another process has `place` open: a viewer that reads a running store, a
    virus scanner that has just seen it change. Such readers are waited for, two seconds at most.

    Raises
    ------
    OSError
        If it stays impossible.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            new.replace(place)
        except PermissionError:
            if time.monotonic() > deadline or not place.is_file():
                raise
            time.sleep(_PAUSE_S)
        else:
            return


def write_all(file: Any, data: bytes) -> None:
    """Write all of `data` to an unbuffered file, which alone may take less."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def sync(descriptor: int) -> None:
    """Wait until the disk has what was written to a file.

    Raises
    ------
    OSError
        If it could not be written. A file system that cannot tell is believed.
    """
    try:
        os.fsync(descriptor)
    except OSError as e:
        if e.errno not in _CANNOT_SYNC:
            raise


def remove(file: Path) -> None:
    """Remove a file that was not finished, if it is there and the disk lets it."""
    with suppress(OSError):
        file.unlink(missing_ok=True)


def check_folder(folder: Path) -> None:
    """Find out whether `folder` takes files, or could be made where it is not; leaves nothing.

    What follows may take minutes, and must not fail at its end.

    Raises
    ------
    OSError
        If it does not: as writing there would.
    """
    folder = Path(folder).absolute()
    there = next((p for p in (folder, *folder.parents) if os.path.lexists(p)), folder)
    try:
        descriptor, name = tempfile.mkstemp(prefix=".livesr-", dir=there)
        try:
            os.write(descriptor, b"livesr")
        finally:
            os.close(descriptor)
            remove(Path(name))
    except OSError as e:
        raise OSError(e.errno, e.strerror, str(there)) from e


def check_place(file: Path) -> None:
    """Find out whether `file` can be written, as `check_folder` does.

    Raises
    ------
    OSError
        If its folder takes no files, or a folder is in its place.
    """
    if Path(file).is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
    check_folder(Path(file).parent)


_ENOUGH_FILES = 8192


def open_files_limit() -> int:
    """Return how many files and connections this process may have open.

    Asks for more first, where the system lets it.

    Many systems begin with 1024 or 256, whoever needs more may take it; a store, a publisher with
    viewers and a microscope's drivers together do. Windows has no such limit for what livesr opens.
    """
    try:
        import resource
    except ImportError:
        return _ENOUGH_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    wanted = _ENOUGH_FILES if hard == infinite else min(hard, _ENOUGH_FILES)
    if soft == infinite or soft >= wanted:
        return _ENOUGH_FILES if soft == infinite else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # some systems have a lower limit of their own
        return soft
    return wanted


def next_free_path(path: Path) -> Path:
    """Return `path`, or where it exists the next number that is free.

    run.ome.zarr, run_2.ome.zarr, run_3.ome.zarr.
    """
    match = re.fullmatch(r"(.+?)((?:\.ome)?\.\w+)?", path.name)
    stem, suffix = (match[1], match[2] or "") if match else (path.name, "")
    number = 1
    while path.exists():
        number += 1
        path = path.with_name(f"{stem}_{number}{suffix}")
    return path


class NewPlace:
    """A file or folder that is made beside its place, and takes it when it is whole.

    A context manager. What is there already stays: then the next free number is the place. Where
    the block is left by an error, or by Ctrl-C, nothing is left of it.

    Attributes
    ----------
    part : where to write; nothing is there yet
    path : where it is, once the block has been left
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path).absolute()
        self.part = self.path.with_name(f".{os.getpid()}-{os.urandom(4).hex()}.{self.path.name}")

    def __enter__(self) -> Path:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.part

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.path = next_free_path(self.path)
                replace_file(self.part, self.path)
        finally:
            if self.part.is_dir():
                shutil.rmtree(self.part, ignore_errors=True)
            elif self.part.exists():
                remove(self.part)
