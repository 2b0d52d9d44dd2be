"""frames.jsonl: what became of every frame of a run.

Owns the file, its line format and its reader. Knows no array.

One line per event, written when it has happened: a picture has its line as soon as the operating system has the picture.
``array[t]`` holds a picture where the last line about it says ``"stored": true``, else zeros.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

from livesr.base.errors import StoreError
from livesr.base.frames import Stream
from livesr.live.sinks.shard import write_all

FRAMES_LOG_VERSION = 1
SeriesName: TypeAlias = Literal["raw", "recon", "sr", "uncertainty"]
State: TypeAlias = Literal["raw", "raw_incomplete", "recon", "separated", "estimated", "skipped", "stray"]


class FramesLog:
    """Appends events to a file, which may be there.

    Every line is handed to the operating system at once, so that it outlives a killed process.
    Lines that the disk refuses wait for the next one, or for `close`; half of a line is overwritten then.
    """

    __slots__ = ("_end", "_file", "_waiting", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO = path.open("r+b" if path.exists() else "w+b", buffering=0)
        self._end = self._file.seek(0, os.SEEK_END)
        self._waiting: list[bytes] = []

    def write(
        self, series: SeriesName, state: State, stream: Stream, t: int, *, stored: bool = False, **facts: Any
    ) -> None:
        """Append one event; facts that are None or empty are left out, numbers that are not finite become null."""
        line = {
            "series": series,
            "state": state,
            "t": t,
            "position": stream.position,
            "channel": stream.channel,
            "z": stream.z,
            "stored": stored,
            **{k: v for k, v in facts.items() if v is not None and v != ()},
        }
        self._waiting.append(to_json(line).encode() + b"\n")
        try:
            self._hand_over()
        except OSError:  # once more: what refuses again will not take the next line either
            self._hand_over()

    def close(self) -> None:
        """Close the file; may be called twice.

        Raises
        ------
        OSError
            If the disk refuses the last lines.
        """
        if self._file.closed:
            return
        try:
            self._hand_over()
        finally:
            self._file.close()

    def begin_again(self, path: Path) -> None:
        """Write to another file from here on; for when the first one is gone, or its disk is. What it had is taken along."""
        before = b""
        with suppress(OSError):  # a file that was removed can be read for as long as it is open
            self._file.seek(0)
            before = self._file.read(self._end) or b""
        self._waiting.insert(0, before)
        file = path.open("w+b", buffering=0)
        with suppress(OSError):
            self._file.close()
        self.path, self._file, self._end = path, file, 0
        self._hand_over()

    def _hand_over(self) -> None:
        data = b"".join(self._waiting)
        if not data:
            return
        self._file.seek(self._end)
        write_all(self._file, data)
        self._end += len(data)
        self._waiting.clear()


def read_frames_log(path: Path) -> list[dict[str, Any]]:
    """Read every event, in order; a last line that a killed process left unfinished is dropped.

    Raises
    ------
    StoreError
        If the file cannot be read, or a line other than the last is damaged.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise StoreError(f"Cannot read {path}: {e}.") from e
    events: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError as e:
            if number < len(lines):
                raise StoreError(f"{path}, line {number} is not JSON: {e.msg}.") from e
    return events


def to_json(value: object, indent: int | None = None) -> str:
    """JSON that every reader accepts: NaN and infinity become null, paths and arrays of numbers their plain form."""
    return json.dumps(_plain(value), indent=indent, ensure_ascii=False, allow_nan=False, default=str)


def _plain(value: object) -> object:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    # numpy scalars and arrays
    return _plain(value.tolist()) if hasattr(value, "tolist") else value
