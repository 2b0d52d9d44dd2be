"""frames.jsonl: what became of every frame of a run.

Owns the file, its line format and its reader. Knows no array.

One line per event, written when the event happens: a line that waited for the frame to be settled would be lost with a
killed process. ``array[t]`` holds a picture where a line of that series says ``"stored": true``, else zeros.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TextIO, TypeAlias

from livesr.base import contained
from livesr.base.errors import StoreError
from livesr.base.frames import Stream

FRAMES_LOG_VERSION = 1
SeriesName: TypeAlias = Literal["raw", "recon", "sr", "uncertainty"]
State: TypeAlias = Literal["raw", "raw_incomplete", "recon", "separated", "estimated", "skipped", "stray"]


class FramesLog:
    """Appends events. Every line is handed to the operating system at once, so that it outlives a killed process."""

    __slots__ = ("_file",)

    def __init__(self, path: Path) -> None:
        self._file: TextIO = contained.open_to_write(
            path.parent, path.name, "a", buffering=1, encoding="utf-8", newline="\n"
        )

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
        self._file.write(to_json(line) + "\n")

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._file.close()


def read_frames_log(path: Path) -> list[dict[str, Any]]:
    """Read every event, in order; a last line that a killed process left unfinished is dropped.

    Raises
    ------
    StoreError
        If the file cannot be read, or a line other than the last is damaged.
    """
    try:
        lines = contained.read_text(path.parent, path.name).splitlines()
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
