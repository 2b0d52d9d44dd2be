"""What Micro-Manager says of a frame and of an acquisition, in MMStack files and NDTiff alike.

Owns the names of its keys, of Micro-Manager 1.4 and 2.0. Opens no image.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple, cast

from livesr.live.sources.recordings.pixels import opened
from livesr.live.sources.recordings.tiff_pages import complaints

_INDICES = {
    "time": "t", "TimeIndex": "t", "FrameIndex": "t", "position": "p", "PositionIndex": "p",
    "channel": "c", "ChannelIndex": "c", "z": "z", "ZIndex": "z", "SliceIndex": "z",
}  # fmt: skip


class FrameMetadata(NamedTuple):
    """Of one frame; None where it says nothing. `origin_px` is (y, x)."""

    t_camera_ms: float | None = None
    pixel_size_um: float | None = None
    origin_px: tuple[float, float] | None = None
    channel: str = ""


class Summary(NamedTuple):
    """Of the acquisition; None, 0 or empty where it says nothing."""

    channels: tuple[str, ...] = ()
    positions: tuple[str, ...] = ()
    pixel_size_um: float | None = None
    z_step_um: float | None = None
    interval_s: float | None = None
    started_ns: int = 0


def frame_metadata(metadata: Mapping[str, Any]) -> FrameMetadata:
    """Read the metadata of a frame."""
    region = str(metadata.get("ROI", "")).split("-")
    origin = (
        (float(region[1]), float(region[0]))
        if len(region) == 4 and all(r.isdigit() for r in region)
        else None
    )
    return FrameMetadata(
        _positive(metadata, "ElapsedTime-ms", zero=True),
        _positive(metadata, "PixelSizeUm"),
        origin,
        str(metadata.get("Channel") or ""),
    )


def place_of(metadata: Mapping[str, Any]) -> tuple[int, int, int, int] | None:
    """Return the (time, position, slice, channel) that a frame says it is at, None if it does
    not.
    """
    try:
        t, p, z, c = (
            int(metadata[f"{name}Index"]) for name in ("Frame", "Position", "Slice", "Channel")
        )
    except (KeyError, TypeError, ValueError):
        return None
    return t, p, z, c


def place_in(metadata: Mapping[str, Any]) -> dict[str, int]:
    """Return the indices that metadata give, under the names of `AXES`."""
    found: dict[str, int] = {}
    for key, axis in _INDICES.items():
        try:
            found[axis] = int(metadata[key])
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
    return found


def summary(metadata: Mapping[str, Any]) -> Summary:
    """Read the metadata of an acquisition."""
    positions = _list(metadata, "StagePositions") or _list(metadata, "InitialPositionList")
    interval_ms = _positive(metadata, "Interval_ms")
    return Summary(
        tuple(map(str, _list(metadata, "ChNames"))),
        tuple(str(p.get("Label") or i) for i, p in enumerate(positions) if isinstance(p, Mapping)),
        _positive(metadata, "PixelSize_um"),
        _positive(metadata, "z-step_um"),
        interval_ms / 1e3 if interval_ms else None,
        _started_ns(str(metadata.get("StartTime") or "")),
    )


def head_of(path: Path, folder: Path | None, *keys: str) -> dict[str, Any]:
    """Read "Summary" or "IndexMap" of a file that Micro-Manager wrote.

    What there is none of is left out.

    Parameters
    ----------
    folder : as of `opened`
    """
    import tifffile

    try:
        with opened(path, folder) as file, complaints():
            found = tifffile.read_micromanager_metadata(cast("IO[bytes]", _Within(file)), set(keys))
    except (OSError, ValueError, struct.error, RecursionError):
        return {}
    if not isinstance(found.get("Summary", {}), Mapping):
        del found["Summary"]
    return found


def summary_of(path: Path, folder: Path | None) -> Summary:
    """Read the summary at the head of a file that Micro-Manager wrote; empty if there is none."""
    return summary(head_of(path, folder, "Summary").get("Summary") or {})


class _Within:
    """A file that is never asked for more than it has.

    What is asked for is allocated before it is read.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._size = file, file.seek(0, 2)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(max(min(size, self._size - self._file.tell()), 0))


def _list(metadata: Mapping[str, Any], key: str) -> list[Any]:
    value = metadata.get(key)
    return value if isinstance(value, list) else []


def _positive(metadata: Mapping[str, Any], key: str, *, zero: bool = False) -> float | None:
    try:
        value = float(metadata[key])
    except (KeyError, TypeError, ValueError):
        return None
    return value if 0 < value < float("inf") or (zero and value == 0) else None


def _started_ns(text: str) -> int:
    for form in ("%Y-%m-%d %H:%M:%S.%f %z", "%Y-%m-%d %H:%M:%S %z"):
        try:
            return int(datetime.strptime(text, form).timestamp() * 1e9)
        except ValueError:
            continue
    return 0
