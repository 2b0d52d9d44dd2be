"""The files of a folder that came from anywhere, and nothing beside them.

A store, a recording, an engine, a package.

Owns the one rule by which a name becomes a path: what a file names, or a link leads to, lies
beneath the folder that it came in, or is refused. Knows no format. A link above the folder is the
user's own: only what lies inside counts. Who changes a folder while it is read is not guarded
against.

`folder` is trusted in every function, `name` is not: a constant name may be a link, and one from a
file may be anything.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import stat
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from livesr.base.errors import StoreError, UsageError
from livesr.base.files import remove, replace_file, sync, write_all

_DRIVE = re.compile(r"^[A-Za-z]:")
_DEVICE = re.compile(
    r"^(con|prn|aux|nul|com\d|lpt\d)(\..*)?$", re.IGNORECASE
)  # of Windows, in every folder
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
# A pipe or a device in the place of a file would be waited for without end.
_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_FLAGS = {
    "w": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "w+": os.O_RDWR | os.O_CREAT | os.O_TRUNC,
    "a": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
    "r+": os.O_RDWR,
    "x": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
}
_SHOWN = 80  # of a name in a sentence
_LONGEST, _LONGEST_WAY = 255, 4000  # bytes of a name and of a path

Error = type[UsageError]


def beneath(folder: Path, name: object, *, error: Error = StoreError) -> Path:
    """Return ``folder / name`` for reading, which may be absent.

    Links are followed as long as they stay beneath `folder`.

    Parameters
    ----------
    folder : trusted
    name : relative, parted by "/"
    error : what is raised

    Raises
    ------
    UsageError
        `error`, if `name` is no relative path, or leads out of `folder`.
    """
    parts = _parts(folder, name, error)
    path = folder.joinpath(*parts)
    root, real = os.path.realpath(folder), os.path.realpath(path)
    if not _is_below(real, root):
        raise error(
            f"{path} leads out of {folder}, to {real}: it was not opened. Put a copy of the file"
            " there if it belongs to it."
        )
    return path


def beneath_to_write(folder: Path, name: object, *, error: Error = StoreError) -> Path:
    """Return ``folder / name`` for writing.

    On the way from `folder` no link is followed, wherever it leads.

    Raises
    ------
    UsageError
        `error`, if `name` is no relative path, or passes through a link.
    """
    parts = _parts(folder, name, error)
    path = folder.joinpath(*parts)
    straight = os.path.join(os.path.realpath(folder), *parts)
    real = os.path.realpath(path)
    if os.path.normcase(real) != os.path.normcase(straight):
        raise error(
            f"{path} is a link, to {real}: nothing was written. Remove the link, or put what it"
            " leads to in its place."
        )
    return path


def open_to_read(folder: Path, name: object, *, error: Error = StoreError) -> io.BufferedReader:
    """Open a file beneath `folder` for reading bytes.

    Raises
    ------
    UsageError
        `error`, as of `beneath`, or if it is a pipe or a device.
    OSError
        If it cannot be opened.
    """
    path = beneath(folder, name, error=error)
    file: io.BufferedReader = _opened(os.path.realpath(path), os.O_RDONLY, path, "rb", error)
    return file


def open_to_write(
    folder: Path,
    name: object,
    mode: Literal["w", "w+", "a", "r+", "x"],
    *,
    error: Error = StoreError,
    **how: Any,
) -> Any:
    """Open a file beneath `folder` for writing; `how` as of `open`, with an `encoding` for text.

    Raises
    ------
    UsageError
        `error`, as of `beneath_to_write`, or if it is a pipe or a device.
    OSError
        If it cannot be opened.
    """
    path = beneath_to_write(folder, name, error=error)
    kind = mode if "encoding" in how else ("rb+" if mode == "r+" else f"{mode}b")
    return _opened(os.fspath(path), _FLAGS[mode], path, kind, error, **how)


def read_bytes(folder: Path, name: object, *, error: Error = StoreError) -> bytes:
    """Return what is in a file beneath `folder`; raises as `open_to_read`."""
    with open_to_read(folder, name, error=error) as file:
        return file.read()


def read_text(folder: Path, name: object, *, error: Error = StoreError) -> str:
    """Return the UTF-8 text in a file beneath `folder`.

    Raises as `open_to_read`, and UnicodeDecodeError.
    """
    return read_bytes(folder, name, error=error).decode("utf-8").replace("\r\n", "\n")


def write_bytes(folder: Path, name: object, content: bytes, *, error: Error = StoreError) -> None:
    """Put a file beneath `folder`, over what is there; raises as `open_to_write`."""
    with open_to_write(folder, name, "w", error=error) as file:
        file.write(content)


def write_text(folder: Path, name: object, content: str, *, error: Error = StoreError) -> None:
    """Put UTF-8 text beneath `folder`, lines ended as everywhere; raises as `open_to_write`."""
    write_bytes(folder, name, content.encode("utf-8"), error=error)


def replace_text(folder: Path, name: object, content: str, *, error: Error = StoreError) -> None:
    """Replace a file beneath `folder` with UTF-8 text, as `replace_bytes` does."""
    replace_bytes(folder, name, content.encode("utf-8"), error=error)


def replace_bytes(
    folder: Path, name: object, content: bytes, *, durable: bool = False, error: Error = StoreError
) -> None:
    """Replace a file beneath `folder` at once: a reader sees the old one or the new one.

    Raises as `open_to_write`.

    With `durable` the disk has confirmed the new one before it takes the place of the old one.
    After an OSError the old one is there.
    """
    path = beneath_to_write(folder, name, error=error)
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)  # what a killed process, or somebody else, has left there
    try:
        with open_to_write(path.parent, new.name, "x", error=error, buffering=0) as file:
            write_all(file, content)
            if durable:
                sync(file.fileno())
        replace_file(new, path)
    except OSError:
        remove(new)
        raise


def copy_out(
    folder: Path, name: object, to: Path, to_name: object, *, error: Error = StoreError
) -> None:
    """Copy a file beneath `folder` to one beneath `to`.

    Raises as `open_to_read` and `open_to_write`.
    """
    with (
        open_to_read(folder, name, error=error) as source,
        open_to_write(to, to_name, "w", error=error) as target,
    ):
        shutil.copyfileobj(source, target)


def is_file(folder: Path, name: object, *, error: Error = StoreError) -> bool:
    """Whether there is such a file; raises as `beneath`."""
    return beneath(folder, name, error=error).is_file()


def refuse_links(
    folder: Path, *, writing: bool = False, but: tuple[str, ...] = (), error: Error = StoreError
) -> None:
    """Look at everything beneath `folder` and refuse links that lead out of it.

    Parameters
    ----------
    writing : refuse every link: what is written through one that stays inside lands in another
        picture
    but : patterns of the way to folders that are not looked into, as ("*", "*", "c"): chunks are
        looked at as they are read

    Raises
    ------
    UsageError
        `error`, naming a link.
    """
    rule = beneath_to_write if writing else beneath
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        way = waiting.pop()
        with os.scandir(os.path.join(folder, *way)) as entries:
            for entry in entries:
                if entry.is_symlink() or _is_junction(entry.path):
                    rule(folder, "/".join((*way, entry.name)), error=error)
                elif entry.is_dir(follow_symlinks=False) and not _fits((*way, entry.name), but):
                    waiting.append((*way, entry.name))


def _parts(folder: Path, name: object, error: Error) -> list[str]:
    """Take a name apart.

    `..`, drives and what only one system takes for a separator are refused on every system.
    """
    shown = repr(
        name if not isinstance(name, str) or len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
    )
    if not isinstance(name, str) or not name:
        raise error(f"{folder} names a file {shown}: expected the path of a file in it.")
    parts = name.split("/")
    strange = (
        name.startswith("/")
        or "\\" in name
        or _DRIVE.match(name)
        or any(
            part in ("", ".", "..") or len(part.encode("utf-8", "replace")) > _LONGEST
            for part in parts
        )
        or len(name) > _LONGEST_WAY
        or any(c < " " for c in name)
        or not _has_bytes(name)
        or (os.name == "nt" and any(":" in part or _DEVICE.match(part) for part in parts))
    )
    if strange:
        raise error(
            f"{folder} names a file {shown}, which is not beneath it: it was not opened. Expected a"
            " path without '..', drives and backslashes."
        )
    return parts


def _has_bytes(name: str) -> bool:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:  # half of a character
        return False
    return True


def _is_below(real: str, root: str) -> bool:
    real, root = os.path.normcase(real), os.path.normcase(root)
    return real.startswith(root if root.endswith(os.sep) else root + os.sep)


def _fits(way: tuple[str, ...], patterns: tuple[str, ...]) -> bool:
    return len(way) == len(patterns) and all(map(fnmatchcase, way, patterns))


def _is_junction(path: str) -> bool:
    if os.name != "nt":
        return False
    straight = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    return os.path.normcase(os.path.realpath(path)) != os.path.normcase(straight)


def _opened(real: str, flags: int, path: Path, mode: str, error: Error, **how: Any) -> Any:
    number = os.open(real, flags | _NO_LINK | _AT_ONCE, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise error(f"{path} is no file: expected one that can be read to its end.")
        return os.fdopen(number, mode, **how)
    except BaseException:
        os.close(number)
        raise
