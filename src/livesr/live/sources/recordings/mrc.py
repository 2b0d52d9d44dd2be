"""MRC stacks (.mrc, .mrcs, .st) and DeltaVision's kin of them (.dv).

Sections in one file, without names for their axes.

Owns the reading. The extended header is skipped: every microscope writes its own. BioSR's raw SIM
data comes as MRC.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from livesr.base.errors import ConfigError, DamagedFileError
from livesr.live.sources.recordings.pixels import (
    CameraPixels,
    FrameFiles,
    camera_pixels,
    check_frame,
    opened,
)
from livesr.live.sources.recordings.recording import SECTION, Place, Plane, Recording

_HEADER = 1024
_DV = -16224
_MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_DV_MODES = {0: "u1", 1: "i2", 2: "f4", 5: "i2", 6: "u2", 7: "i4"}
_INTERLEAVES = {
    0: ("c", "t", SECTION),
    1: ("t", SECTION, "c"),
    2: ("t", "c", SECTION),
}  # slowest first


@dataclass(frozen=True, slots=True)
class _Header:
    """What a file says of its sections. Of an MRC stack they have no axes: `axes` is ("frame",)."""

    shape: tuple[int, int]
    dtype: np.dtype[np.generic]
    axes: tuple[str, ...]
    lengths: tuple[int, ...]
    start: int
    waves_nm: tuple[int, ...] = ()
    pixel_um: tuple[float, float] | None = None
    z_step_um: float | None = None

    @property
    def sections(self) -> int:
        return int(np.prod(self.lengths, dtype=object))


def open_mrc(path: Path) -> Recording:
    """Describe an MRC or DeltaVision file.

    The pixel size of MRC is not believed, because writers disagree on the unit; DeltaVision's is in
    um. DeltaVision says how sections run through time, planes and wavelengths; whether its planes
    are raw frames of SIM follows from the rig.

    Raises
    ------
    ConfigError
        If it is none, or its pixels are not those of a camera.
    """
    header, size = _header(path), path.stat().st_size
    check_frame(path, header.shape, header.dtype, max(size - header.start, 0))
    pixels, files = camera_pixels(path, header.dtype), FrameFiles(header.shape, header.dtype)
    frame_bytes = header.shape[0] * header.shape[1] * header.dtype.itemsize
    there = min((size - header.start) // frame_bytes, header.sections)
    lengths, damage = header.lengths, None
    if there < header.sections:
        damage = (
            f"{path.name} ends within frame {there + 1} of {header.sections}: it was cut off, or is"
            " still being written."
        )
    if there < 1:
        raise ConfigError(f"{path.name} holds no whole frame: {damage or 'it is empty'}")
    if damage and header.axes[0] in ("t", "frame"):  # no more than was found is announced
        lengths = (-(-there // (header.sections // lengths[0])), *lengths[1:])

    def read(place: Place) -> Plane | None:
        section = int(np.ravel_multi_index(place, lengths))
        if section >= there:
            return None
        which = f"frame {section + 1} of {header.sections}"
        return Plane(
            pixels.taken(files.read(path, header.start + section * frame_bytes, which), which)
        )

    _check_first(read, (0,) * len(lengths), pixels, files)
    return Recording(
        path,
        "DeltaVision" if header.waves_nm else "MRC",
        header.axes,
        lengths,
        header.shape,
        pixels.name,
        read,
        channels=(
            tuple(map(str, header.waves_nm))
            if len(set(header.waves_nm)) == len(header.waves_nm)
            else ()
        ),
        pixel_um=header.pixel_um,
        z_step_um=header.z_step_um,
        started_ns=path.stat().st_mtime_ns,
        damage=damage,
        notes=pixels.notes,
        counted=bool(damage),
        close=files.close,
    )


def _check_first(read: object, place: Place, pixels: CameraPixels, files: FrameFiles) -> None:
    """Refuse values that no camera gives before anything begins."""
    if not pixels.exact:
        return
    try:
        read(place)  # type: ignore[operator]
    except DamagedFileError as e:
        raise ConfigError(str(e)) from e
    finally:
        files.close()


def _header(path: Path) -> _Header:
    try:
        with opened(path, None) as file:
            head = file.read(_HEADER)
    except OSError as e:
        raise ConfigError(f"Cannot read {path} as MRC: {e}.") from e
    if len(head) < _HEADER:
        raise ConfigError(
            f"Cannot read {path} as MRC: it has {len(head)} bytes, and a header has {_HEADER}."
        )
    for order in "<>":
        if struct.unpack_from(f"{order}h", head, 96)[0] == _DV:
            return _deltavision(path, head, order)
    return _mrc(path, head)


def _mrc(path: Path, head: bytes) -> _Header:
    order = {b"\x44": "<", b"\x11": ">"}.get(head[212:213]) or (
        "<" if struct.unpack_from("<I", head, 12)[0] < 1 << 16 else ">"
    )
    x, y, sections, mode = struct.unpack_from(f"{order}4i", head, 0)
    extended = struct.unpack_from(f"{order}i", head, 92)[0]
    _check(path, mode in _MODES, f"mode {mode}")
    _check(path, min(x, y, sections) >= 1 and extended >= 0, f"{sections} frames of {y} x {x}")
    runs = struct.unpack_from(f"{order}3i", head, 64)
    turned = sorted(runs) == [1, 2, 3] and runs != (1, 2, 3)  # some writers leave them at 0
    axes = ", ".join("xyz"[i - 1] for i in runs if 1 <= i <= 3)
    _check(path, not turned, f"that columns, rows and sections run along {axes}, not x, y, z")
    return _Header(
        (y, x), np.dtype(f"{order}{_MODES[mode]}"), ("frame",), (sections,), _HEADER + extended
    )


def _deltavision(path: Path, head: bytes, order: str) -> _Header:
    x, y, sections, mode = struct.unpack_from(f"{order}4i", head, 0)
    size_x, size_y, size_z = struct.unpack_from(f"{order}3f", head, 40)
    extended = struct.unpack_from(f"{order}i", head, 92)[0]
    times, interleave = struct.unpack_from(f"{order}2h", head, 180)
    waves, *nm = struct.unpack_from(f"{order}6h", head, 196)
    waves, times = max(waves, 1), max(times, 1)
    _check(path, mode in _DV_MODES, f"mode {mode}")
    _check(path, min(x, y, sections) >= 1 and extended >= 0, f"{sections} sections of {y} x {x}")
    _check(path, interleave in _INTERLEAVES, f"interleave {interleave}")
    if sections % (waves * times):
        raise ConfigError(
            f"{path.name} has {sections} sections, which are not {times} times of {waves}"
            " wavelengths."
        )
    length = {"c": waves, "t": times, SECTION: sections // (waves * times)}
    axes = _INTERLEAVES[interleave]
    known = all(np.isfinite(s) and s > 0 for s in (size_x, size_y))
    return _Header(
        (y, x),
        np.dtype(f"{order}{_DV_MODES[mode]}"),
        axes,
        tuple(length[axis] for axis in axes),
        _HEADER + extended,
        tuple(int(n) for n in nm[:waves]) or (0,),
        (size_y, size_x) if known else None,
        size_z if np.isfinite(size_z) and size_z > 0 else None,
    )


def _check(path: Path, fine: bool, said: str) -> None:
    if not fine:
        raise ConfigError(
            f"{path.name} says {said}; expected an MRC or DeltaVision stack of frames."
        )
