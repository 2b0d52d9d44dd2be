"""A file that says who is at work in a folder, so that two programs do not change it at once.

Owns the file from `acquire` to `release`, its heartbeat, and the decision whether its owner is
still there. Works where advisory locks of the system do not: on network disks, on Windows, between
computers. Knows no store.

A file is made with O_EXCL, so only one program can make it; it outlives `kill -9`, and is then
recognised as stale: the process is gone from this computer, or has given no sign of life for
`STALE_S` on another. Whoever takes over a stale file holds a lock on that very takeover, made the
same way: of several, one gets it, and none ever removes the file of a new owner.
"""

from __future__ import annotations

import getpass
import json
import logging
import math
import os
import platform
import re
import threading
import time
import uuid
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from livesr.base.documents import read_json
from livesr.base.errors import DocumentError, StoreError
from livesr.base.files import replace_file

log = logging.getLogger(__name__)

LOCK = "lock.json"
BEAT_S = 5.0
# Network disks show a file as it was up to a minute ago.
STALE_S = 120.0
# A copy of a folder, made from a computer that died, has a young file with an old heartbeat; clocks
# differ by less than this.
_CLOCKS_DIFFER_S = 3600.0
_PATIENCE_S, _FILL_S, _PAUSE_S = 2.0, 0.5, 0.02
_TOKEN = re.compile(r"[0-9a-f]{1,32}")
_DOES = {"run": "recorded", "repair": "repaired", "backfill": "completed"}


class LockedError(StoreError):
    """Somebody else is at work in the folder."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock.

    Attributes
    ----------
    what : "run", "repair" or "backfill"
    machine : which computer, since when it is up, and which of its process tables; `pid` and
        `started` count there only
    started : when the process began, s since the epoch on its own clock: another process may get
        its number later
    since, beat : ISO 8601, UTC: when the lock was taken, and its last sign of life
    token : of this lock and no other
    """

    what: str
    pid: int
    started: float
    host: str
    machine: str
    user: str
    since: str
    beat: str
    token: str

    def __str__(self) -> str:
        """Say who, where and since when."""
        return f"{self.user} on {self.host} (process {self.pid}) since {_local(self.since)}"

    @property
    def does(self) -> str:
        """What is being done to the folder: "recorded"."""
        return _DOES.get(self.what, "changed")


class Lock:
    """The lock on `folder`, for `what` is done to it.

    ``with Lock(folder, "repair"):`` acquires and releases.

    Raises
    ------
    LockedError
        By `acquire`, if somebody else holds it; the message says who, and what to do.
    OSError
        By `acquire`, if the file cannot be written.
    """

    def __init__(self, folder: Path, what: str) -> None:
        self._path, self._what = Path(folder) / LOCK, what
        self._holder: Holder | None = None
        self._released = threading.Event()
        self._heart: threading.Thread | None = None

    def acquire(self) -> None:
        """Make the file, or take over a stale one; then give signs of life until `release`."""
        self._holder = mine = _myself(self._what)
        _take(self._path, mine)
        self._released.clear()
        self._heart = threading.Thread(
            target=self._beat, args=(mine,), name="livesr-lock", daemon=True
        )
        self._heart.start()

    def release(self) -> None:
        """Remove the file, if it is still this lock's and this process made it.

        May be called twice.
        """
        mine, self._holder = self._holder, None
        self._released.set()
        if mine is None or mine.pid != os.getpid():  # a forked child leaves the lock to its parent
            return
        if self._heart:
            self._heart.join()
        _give_back(self._path, mine)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _beat(self, mine: Holder) -> None:
        while not self._released.wait(BEAT_S):
            try:
                if _token(self._path) != mine.token:
                    log.warning(
                        "the lock %s was taken over: another program may be changing its folder",
                        self._path,
                    )
                    return
                # In place: on Windows a file that somebody reads cannot be replaced. It is as long
                # as before.
                with self._path.open("r+b") as file:
                    file.write(_encoded(mine, beat=_now()))
            except OSError as e:
                log.debug("no sign of life to %s: %s", self._path, e)


def held(folder: Path, what: str) -> Lock | None:
    """Take the lock on `folder` for a measurement, which nothing may stop.

    Where that fails, warn and return None.
    """
    lock = Lock(folder, what)
    try:
        lock.acquire()
    except (OSError, StoreError) as e:
        log.warning(
            "%s is not locked (%s): do not repair or complete it before the run has ended.",
            folder,
            e,
        )
        return None
    return lock


def holder(folder: Path) -> Holder | None:
    """Return who is at work in `folder`; None if nobody is, or the one who was is gone."""
    path = Path(folder) / LOCK
    found = _read(path)
    return None if found is None or _is_stale(found, _age_s(path)) else found


def _take(path: Path, mine: Holder) -> None:
    if _create(path, mine):
        return
    if _filled(path) is None and not path.exists() and _create(path, mine):  # released meanwhile
        return
    # Which file is looked at, before it is: one that takes its place is another's, and not stale.
    stale = _token(path)
    found, age_s = _read(path), _age_s(path)
    if (found and found.token != stale) or not _is_stale(found, age_s):
        raise LockedError(_held_by(path, found))
    # One program at a time may take over this very file. Should it be killed while it does, so is
    # its own lock taken over.
    takeover = path.with_name(f"{path.stem}-{stale}{path.suffix}")
    _take(takeover, mine)
    try:
        if _token(path) != stale:
            raise LockedError(_held_by(path, _read(path)))
        new = path.with_name(f".{path.stem}-{mine.token}.new")
        new.write_bytes(_encoded(mine))
        replace_file(new, path)
    finally:
        _give_back(takeover, mine)


def _create(path: Path, mine: Holder) -> bool:
    try:
        with path.open("xb", buffering=0) as file:
            file.write(_encoded(mine))
    except FileExistsError:
        return False
    return True


def _give_back(path: Path, mine: Holder) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while _token(path) == mine.token:
        try:
            path.unlink()
        except OSError as e:  # on Windows while somebody reads it
            if time.monotonic() > deadline:
                log.warning(
                    "the lock %s stays (%s): delete it when this program has ended", path, e
                )
                return
            time.sleep(_PAUSE_S)


def _is_stale(found: Holder | None, age_s: float) -> bool:
    if found is None:  # a file that its owner had no time to fill
        return age_s > STALE_S
    if found.machine == _machine():
        begun = _started(found.pid)
        # A process that sleeps or is stopped may go on. One with another beginning has its number
        # only, unless the clock was set since, which moves the beginning of every process.
        return begun is None or (abs(begun - found.started) > 1.0 and age_s > STALE_S)
    return age_s > STALE_S or _since_s(found.beat) > _CLOCKS_DIFFER_S


def _age_s(path: Path) -> float:
    """Return how long ago the file was written, by the clock of its disk; 0 where it is gone."""
    probe = path.with_name(f".lock-{uuid.uuid4().hex}.probe")
    try:
        written = path.stat().st_mtime
        try:
            probe.touch()
            return probe.stat().st_mtime - written
        finally:
            probe.unlink(missing_ok=True)
    except FileNotFoundError:
        return 0.0
    except OSError:  # a disk that may only be read
        return time.time() - written


def _held_by(path: Path, found: Holder | None) -> str:
    store = path.parent.parent
    if found is None:
        return f"Another program has just begun to change {store}: try again in {STALE_S:.0f} s."
    if found.machine == _machine():
        return f"{store} is being {found.does} by {found}. Wait until that has ended."
    return (
        f"{store} is being {found.does} by {found}. Wait until that has ended. If that computer is"
        f" off, its lock ends {STALE_S:.0f} s after its last sign of life."
    )


def _read(path: Path) -> Holder | None:
    """Return who made the file.

    None if it is gone, not filled yet, or nothing that livesr wrote.
    """
    try:
        about = read_json(path)
        found = Holder(**{f.name: about[f.name] for f in fields(Holder)})
    except (DocumentError, KeyError, TypeError):
        return None
    texts = found.what, found.host, found.machine, found.user, found.since, found.beat, found.token
    right = all(isinstance(text, str) for text in texts)
    right = right and bool(_TOKEN.fullmatch(found.token))  # it becomes part of a file name
    right = (
        right
        and type(found.pid) is int
        and 0 < found.pid < 1 << 31
        and isinstance(found.started, float)
    )
    return found if right else None


def _filled(path: Path) -> Holder | None:
    """Read a file that may have been made this moment; None if it stays as it is, or is gone."""
    deadline = time.monotonic() + _FILL_S
    while (found := _read(path)) is None and path.exists() and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)
    return found


def _token(path: Path) -> str:
    """Return what tells this file from every other; "" if it is gone."""
    if found := _read(path):
        return found.token
    try:
        about = path.stat()
    except OSError:
        return ""
    return f"{about.st_mtime_ns:x}"


def _encoded(holder: Holder, beat: str | None = None) -> bytes:
    about = asdict(holder) | ({"beat": beat} if beat else {})
    return (json.dumps(about, indent=1) + "\n").encode()


def _myself(what: str) -> Holder:
    now, pid = _now(), os.getpid()
    return Holder(
        what,
        pid,
        _started(pid) or 0.0,
        platform.node(),
        _machine(),
        _user(),
        now,
        now,
        token=uuid.uuid4().hex[:12],
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no name for this number
        return "somebody"


def _started(pid: int) -> float | None:
    """Return when a process of this computer began, None if there is none."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time(), 2)
    except psutil.NoSuchProcess:
        return None
    except psutil.Error:  # somebody else's, of which nothing may be known
        return math.nan


@cache
def _machine() -> str:
    """Return this computer, this time that it is up, and this table of processes.

    Containers have their own.
    """
    node = uuid.getnode()
    random = node >> 40 & 1  # made up, by every process anew
    parts = [platform.node(), *([] if random else [f"{node:x}"])]
    for file in (Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")):
        try:
            parts.append(os.readlink(file) if file.is_symlink() else file.read_text().strip())
        except OSError:
            continue
    return " ".join(parts)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _since_s(moment: str) -> float:
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    except (ValueError, TypeError):
        return 0.0


def _local(moment: str) -> str:
    try:
        return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return moment
