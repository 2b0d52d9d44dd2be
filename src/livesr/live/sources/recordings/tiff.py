"""TIFF stacks: Micro-Manager's MMStack, ImageJ hyperstacks, OME-TIFF, plain stacks, and folders of them.

Owns the reading. tifffile finds the series and its axes; frames that lie uncompressed in the file are read without it.
"""

from __future__ import annotations

import logging
import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from livesr.base import contained
from livesr.base.errors import ConfigError, DamagedFileError
from livesr.live.sources.recordings.companions import refuse_strangers
from livesr.live.sources.recordings.micromanager import FrameMetadata, frame_metadata, place_of, summary
from livesr.live.sources.recordings.recording import FrameFiles, Plane, Recording, check_pixels

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffFrame, TiffPage, TiffPageSeries

_NAMES = {"T": "t", "C": "c", "Z": "z", "R": "p"}
_UM = {"nm": 1e-3, "µm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "\\u00b5m": 1.0, "mm": 1e3}
_S = {"ms": 1e-3, "s": 1.0, "sec": 1.0, "min": 60.0}
_MICROMANAGER_TAG = 51123


def open_tiff(path: Path) -> Recording:
    """Describe a TIFF.

    Raises
    ------
    ConfigError
        If it is none, or its pixels are not those of a camera.
    """
    import tifffile

    with _complaints() as complaints:
        try:
            tiff = tifffile.TiffFile(path)
        except (OSError, ValueError) as e:  # tifffile's own errors are ValueErrors
            raise ConfigError(f"Cannot read {path} as TIFF: {e}.") from e
        try:
            refuse_strangers(tiff)
            stack = _Stack(tiff, _series(tiff, complaints))
            recording = replace(stack.recording(), **stack.metadata())
        except BaseException:
            tiff.close()
            raise
    if not complaints:
        return recording
    damage = f"{path.name} is damaged ({complaints[0]}): what can be found in it is {recording.size}."
    return replace(recording, damage=damage)


def open_tiff_folder(folder: Path) -> Recording:
    """Describe a folder of TIFF stacks: an MMStack of several files, or files whose names sort into the order of frames.

    Raises
    ------
    ConfigError
        If it holds no TIFF, or TIFFs that differ in size or type.
    """
    files = sorted((f for f in folder.iterdir() if f.suffix.lower() in (".tif", ".tiff")), key=_natural)
    for file in files:
        contained.beneath(folder, file.name, error=ConfigError)
    if not files:
        raise ConfigError(f"{folder} holds no recording: expected TIFF files, NDTiff.index or an OME-Zarr image.")
    first = open_tiff(files[0])
    if len(files) == 1 or first.format == "Micro-Manager TIFF":
        return replace(first, path=folder)
    first.close()
    return _in_a_row(folder, files)


class _Stack:
    """One TIFF; its frames by place."""

    def __init__(self, tiff: TiffFile, series: list[TiffPageSeries]) -> None:
        self._path, self._tiff, self._series = Path(tiff.filehandle.path), tiff, series
        first = series[0]
        if "S" in first.axes or first.keyframe.samplesperpixel > 1:
            raise ConfigError(f"{self._path.name} holds colour frames; expected one value a pixel.")
        shape = tuple(map(int, first.shape))
        self._lengths, self._shape = shape[:-2], (shape[-2], shape[-1])
        self._dtype = np.dtype(tiff.byteorder + np.dtype(first.dtype).str[1:])
        self._files = FrameFiles(self._shape, self._dtype)

    def recording(self) -> Recording:
        """Describe it, without what formats say beside the pixels."""
        first, several = self._series[0], len(self._series) > 1
        pixels = check_pixels(self._path, self._dtype)
        count = int(np.prod(self._lengths))
        if first.dataoffset is None and len(first.pages) != count:
            raise ConfigError(f"{self._path.name} holds several frames in one page, which livesr does not read.")
        axes = tuple(_NAMES.get(letter, f"{letter}{i}") for i, letter in enumerate(first.axes[:-2]))
        return Recording(
            self._path,
            {"mmstack": "Micro-Manager TIFF", "imagej": "ImageJ TIFF", "ome": "OME-TIFF"}.get(first.kind, "TIFF"),
            ("p", *axes) if several else axes,
            (len(self._series), *self._lengths) if several else self._lengths,
            self._shape,
            pixels,
            self._read if several else lambda place: self._read((0, *place)),
            started_ns=self._path.stat().st_mtime_ns,
            close=self._close,
        )

    def metadata(self) -> dict[str, Any]:
        """Return the fields of a `Recording` that the format tells beside the pixels."""
        kind = self._series[0].kind
        if kind == "mmstack":
            return self._micromanager()
        return {"imagej": self._imagej, "ome": self._ome}.get(kind, dict)()

    def _micromanager(self) -> dict[str, Any]:
        first, run = (
            self._metadata(self._page(0, 0)),
            summary((self._tiff.micromanager_metadata or {}).get("Summary", {})),
        )
        return {
            "channels": run.channels,
            "positions": run.positions,
            "pixel_size_um": first.pixel_size_um or run.pixel_size_um,
            "z_step_um": run.z_step_um,
            "origin_px": first.origin_px,
            "interval_s": run.interval_s,
            "timed": first.t_camera_ms is not None,
            **({"started_ns": run.started_ns} if run.started_ns else {}),
        }

    def _imagej(self) -> dict[str, Any]:
        about, tags = self._tiff.imagej_metadata or {}, self._series[0].keyframe.tags
        um, per_unit = _UM.get(str(about.get("unit", ""))), tags.valueof("XResolution")
        known = um and per_unit and per_unit[0]
        return {
            "pixel_size_um": um * per_unit[1] / per_unit[0] if known else None,
            "z_step_um": um * float(about["spacing"]) if um and "spacing" in about else None,
            "interval_s": float(about["finterval"]) * _S.get(str(about.get("tunit", "s")), 1.0)
            if "finterval" in about
            else None,
        }

    def _ome(self) -> dict[str, Any]:
        import tifffile

        images = _listed(tifffile.xml2dict(self._tiff.ome_metadata or "").get("OME", {}).get("Image"))
        pixels = images[0]["Pixels"] if images else {}
        channels = tuple(str(c.get("Name", "")) for c in _listed(pixels.get("Channel")))
        return {
            "channels": channels if all(channels) else (),
            "positions": tuple(str(im.get("Name", i)) for i, im in enumerate(images)) if len(self._series) > 1 else (),
            "pixel_size_um": _in_unit(pixels, "PhysicalSizeX", _UM, "µm"),
            "z_step_um": _in_unit(pixels, "PhysicalSizeZ", _UM, "µm"),
            "interval_s": _in_unit(pixels, "TimeIncrement", _S, "s"),
        }

    def _read(self, place: tuple[int, ...]) -> Plane | None:
        series, inside = self._series[place[0]], place[1:]
        i = int(np.ravel_multi_index(inside, self._lengths)) if inside else 0
        which = f"frame {i + 1} of {int(np.prod(self._lengths))}"
        if series.dataoffset is not None:
            size = self._dtype.itemsize * self._shape[0] * self._shape[1]
            return Plane(self._files.read(self._path, series.dataoffset + i * size, which))
        page = self._page(place[0], i)
        if page is None or not page.dataoffsets:
            return None
        pixels = self._pixels(page, series, which)
        return Plane(pixels, self._metadata(page).t_camera_ms if series.kind == "mmstack" else None)

    def _pixels(self, page: TiffPage | TiffFrame, series: TiffPageSeries, which: str) -> NDArray[Any]:
        if series.keyframe.compression == 1 and len(page.dataoffsets) == 1:
            if page.dataoffsets[0] == 0:  # what tifffile makes of a frame beyond the end of the file
                raise DamagedFileError(
                    f"{self._path.name} ends before {which}: it was cut off, or is still being written."
                )
            return self._files.read(Path(page.parent.filehandle.path), page.dataoffsets[0], which)
        try:
            return np.asarray(page.asarray()).astype(self._dtype.newbyteorder("="), copy=False)
        except Exception as e:  # whatever a codec raises
            raise DamagedFileError(f"{self._path.name} cannot be read at {which}: {e}.") from e

    def _page(self, series: int, i: int) -> Any:
        try:
            return self._series[series].pages[i]
        except Exception as e:  # a chain of pages that leads nowhere
            raise DamagedFileError(f"{self._path.name} has no frame {i + 1}, though it announces it: {e}.") from e

    def _metadata(self, page: Any) -> FrameMetadata:
        """Read what Micro-Manager says of a frame; nothing if it cannot be read."""
        with suppress(Exception):
            full = page if hasattr(page, "tags") else page.aspage()
            return frame_metadata(full.tags[_MICROMANAGER_TAG].value)
        return FrameMetadata()

    def _close(self) -> None:
        self._files.close()
        self._tiff.close()


def _in_a_row(folder: Path, files: list[Path]) -> Recording:
    """Describe stacks that follow one another; one is open at a time."""
    first, starts = None, [0]
    for file in files:
        stack = open_tiff(file)
        stack.close()
        first = first or stack
        if (stack.shape, stack.dtype) != (first.shape, first.dtype):
            raise ConfigError(
                f"{file.name} is {stack.size} {stack.dtype}, {first.path.name} is {first.size} {first.dtype}."
            )
        starts.append(starts[-1] + math.prod(stack.lengths))
    assert first is not None
    opened = _LastOpened()

    def read(place: tuple[int, ...]) -> Plane | None:
        number = bisect_right(starts, place[0]) - 1
        stack = opened.stack(files[number])
        inside = np.unravel_index(place[0] - starts[number], stack.lengths) if stack.lengths else ()
        return stack.read(tuple(map(int, inside)))

    return replace(
        first, path=folder, axes=("frame",), lengths=(starts[-1],), read=read, close=opened.close, timed=False
    )


class _LastOpened:
    """Keeps the stack of the last frame open."""

    def __init__(self) -> None:
        self._stack: Recording | None = None

    def stack(self, file: Path) -> Recording:
        """Return the stack in `file`."""
        if self._stack is None or self._stack.path != file:
            self.close()
            self._stack = open_tiff(file)
        return self._stack

    def close(self) -> None:
        """Close what is open."""
        if self._stack:
            self._stack.close()
            self._stack = None


def _series(tiff: TiffFile, complaints: list[str]) -> list[TiffPageSeries]:
    """Return the series to read: of OME-TIFF one per position, else the first; of a damaged file what can be found."""
    try:
        found = tiff.series
        first = found[0]
        if tiff.pages.first.is_micromanager and first.kind != "mmstack":
            raise ValueError("Micro-Manager did not finish it")  # the index map comes last
    except (OSError, ValueError, IndexError) as e:
        complaints.insert(0, str(e))
        return [_salvaged(tiff)]
    alike = [
        s for s in found if (s.kind, s.shape, s.dtype, s.axes) == (first.kind, first.shape, first.dtype, first.axes)
    ]
    return alike if first.kind == "ome" else [first]


def _salvaged(tiff: TiffFile) -> TiffPageSeries:
    """Return the pages up to the first that cannot be read; Micro-Manager's at the places that they name."""
    import tifffile

    pages: list[TiffPage] = []
    with suppress(OSError, ValueError, IndexError):
        while True:
            page = tiff.pages[len(pages)].aspage()
            if pages and (page.shape, page.dtype) != (pages[0].shape, pages[0].dtype):
                break
            pages.append(page)
    if not pages or pages[0].dtype is None:
        raise ConfigError(f"Cannot read {tiff.filehandle.path} as TIFF: it holds no frame.")
    at: dict[tuple[int, ...], TiffPage] = {}
    for page in pages:
        if place := place_of(page.tags.valueof(_MICROMANAGER_TAG) or {}):
            at[place] = page
    if len(at) < len(pages) - 1:  # the last one may have been cut off behind its pixels
        return tifffile.TiffPageSeries(pages, (len(pages), *pages[0].shape), pages[0].dtype, "IYX", kind="salvaged")
    shape = tuple(1 + max(along) for along in zip(*at, strict=True))
    placed = [at.get(place) for place in product(*map(range, shape))]
    return tifffile.TiffPageSeries(placed, (*shape, *pages[0].shape), pages[0].dtype, "TRZCYX", kind="mmstack")


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """Collect what tifffile finds wrong with a file: it says so to its log alone."""
    import tifffile

    found: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(re.sub(r"^<.*?> ", "", record.getMessage()))

    listener, logger = Listener(logging.ERROR), tifffile.logger()
    logger.addHandler(listener)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield found
    finally:
        logger.removeHandler(listener)
        logger.propagate = propagate


def _natural(file: Path) -> list[Any]:
    """Key that sorts stack_2 before stack_10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", file.name)]


def _listed(value: Any) -> list[Mapping[str, Any]]:
    """Return what XML holds once or several times as a list."""
    return value if isinstance(value, list) else [value] if value else []


def _in_unit(pixels: Mapping[str, Any], name: str, units: Mapping[str, float], default: str) -> float | None:
    factor = units.get(str(pixels.get(f"{name}Unit", default)))
    return float(pixels[name]) * factor if name in pixels and factor else None
