"""What a run will take of disk and memory, and what there is.

Owns the estimates: upper bounds, uncompressed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from livesr.base.errors import StoreError
from livesr.base.run_description import RunDescription
from livesr.formats.layout import series_specs
from livesr.live.sinks.series import KEPT_BYTES


def bytes_per_hour(run: RunDescription, frames_per_s: float) -> int:
    """Upper bound of what `frames_per_s` super-resolution frames, over all streams, take in an
    hour: uncompressed.
    """
    places = {channel.name: (position, channel) for position, channel in reversed(run.places)}
    channels = [
        sum(s.group_bytes for s in series_specs(run, *place).values()) for place in places.values()
    ]
    return int(sum(channels) / max(len(channels), 1) * frames_per_s * 3600)


def lasting(free: int, hourly: int) -> str:
    """Return how long `free` bytes last at `hourly` bytes an hour, in hours or minutes."""
    hours = free / hourly
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.0f} min"


def store_bytes(run: RunDescription, time_points: int) -> int:
    """Upper bound of what `time_points` of every stream take, uncompressed."""
    specs = (s for place in run.places for s in series_specs(run, *place).values())
    return sum(s.group_bytes * s.z_planes for s in specs) * time_points


def memory_bytes(run: RunDescription) -> int:
    """Upper bound of what is in memory until the disk has confirmed it."""
    specs = [s for place in run.places for s in series_specs(run, *place).values()]
    # A shard that is being filled, and one that the disk has not confirmed yet.
    return sum(s.pending_bytes for s in specs) + min(
        KEPT_BYTES, 2 * sum(s.shard_bytes for s in specs)
    )


def free_bytes(path: Path) -> int:
    """Space left on the disk that `path` is or will be on.

    Raises
    ------
    StoreError
        If that disk does not answer.
    """
    existing = next((p for p in (path, *path.absolute().parents) if p.exists()), path)
    try:
        return shutil.disk_usage(existing).free
    except OSError as e:
        raise StoreError(
            f"Cannot reach the disk of {path}: {e.strerror or e}. Is it still mounted?"
        ) from e
