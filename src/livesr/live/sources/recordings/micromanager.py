"""What Micro-Manager says of a frame and of an acquisition, in MMStack files and NDTiff alike.

Owns the names of its keys, of Micro-Manager 1.4 and 2.0. Opens no image.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from livesr.base import contained
from livesr.base.errors import ConfigError


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
    origin = (float(region[1]), float(region[0])) if len(region) == 4 and all(r.isdigit() for r in region) else None
    return FrameMetadata(
        _positive(metadata, "ElapsedTime-ms", zero=True),
        _positive(metadata, "PixelSizeUm"),
        origin,
        str(metadata.get("Channel") or ""),
    )


def place_of(metadata: Mapping[str, Any]) -> tuple[int, int, int, int] | None:
    """Return the (time, position, slice, channel) that a frame says it is at, None if it does not."""
    try:
        t, p, z, c = (int(metadata[f"{name}Index"]) for name in ("Frame", "Position", "Slice", "Channel"))
    except (KeyError, TypeError, ValueError):
        return None
    return t, p, z, c


def summary(metadata: Mapping[str, Any]) -> Summary:
    """Read the metadata of an acquisition."""
    positions = metadata.get("StagePositions") or metadata.get("InitialPositionList") or []
    interval_ms = _positive(metadata, "Interval_ms")
    return Summary(
        tuple(map(str, metadata.get("ChNames") or ())),
        tuple(str(p.get("Label") or i) for i, p in enumerate(positions) if isinstance(p, Mapping)),
        _positive(metadata, "PixelSize_um"),
        _positive(metadata, "z-step_um"),
        interval_ms / 1e3 if interval_ms else None,
        _started_ns(str(metadata.get("StartTime") or "")),
    )


def summary_of(path: Path) -> Summary:
    """Read the summary at the head of a file that Micro-Manager wrote; empty if there is none."""
    import tifffile

    try:
        with contained.open_to_read(path.parent, path.name, error=ConfigError) as file:
            return summary(tifffile.read_micromanager_metadata(file, {"Summary"}).get("Summary") or {})
    except (OSError, ValueError):
        return Summary()


def _positive(metadata: Mapping[str, Any], key: str, *, zero: bool = False) -> float | None:
    try:
        value = float(metadata[key])
    except (KeyError, TypeError, ValueError):
        return None
    return value if value > 0 or (zero and value == 0) else None


def _started_ns(text: str) -> int:
    for form in ("%Y-%m-%d %H:%M:%S.%f %z", "%Y-%m-%d %H:%M:%S %z"):
        try:
            return int(datetime.strptime(text, form).timestamp() * 1e9)
        except ValueError:
            continue
    return 0
