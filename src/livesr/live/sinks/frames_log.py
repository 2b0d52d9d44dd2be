"""frames.jsonl while its run goes on.

Owns the file. What its lines are is said in `livesr.formats.frames_log`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal

from livesr.base import contained
from livesr.base.documents import to_json
from livesr.base.files import write_all
from livesr.base.frames import Stream
from livesr.formats.frames_log import SeriesName, State


class FramesLog:
    """Appends events to a file, which may be there.

    Every line is handed to the operating system at once, so that it outlives a killed process.
    Lines that the disk refuses wait for the next one, or for `close`; half of a line is overwritten
    then.
    """

    __slots__ = ("_end", "_file", "_waiting", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO = _open(path, "r+" if path.exists() else "w+")
        self._end = self._file.seek(0, os.SEEK_END)
        self._waiting: list[bytes] = []

    def write(
        self,
        series: SeriesName,
        state: State,
        stream: Stream,
        t: int,
        *,
        stored: bool = False,
        **facts: Any,
    ) -> None:
        """Append one event.

        Facts that are None or empty are left out, numbers that are not finite become null.
        """
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
        """Write to another file from here on.

        For when the first one is gone, or its disk is. What it had is taken along.
        """
        before = b""
        with suppress(OSError):  # a file that was removed can be read for as long as it is open
            self._file.seek(0)
            before = self._file.read(self._end) or b""
        self._waiting.insert(0, before)
        file = _open(path, "w+")
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


def _open(path: Path, mode: Literal["r+", "w+"]) -> BinaryIO:
    """Open for reading and writing, unbuffered: what is written is with the operating system."""
    file: BinaryIO = contained.open_to_write(path.parent, path.name, mode, buffering=0)
    return file
