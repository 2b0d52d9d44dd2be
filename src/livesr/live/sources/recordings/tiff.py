"""A TIFF file: what it says that it is, OME-TIFF, Micro-Manager's or ImageJ's, or a plain stack of
pages.

Owns the choice, and the reading of files whose frames are not described by page. tifffile finds
their series and axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from livesr.base.errors import ConfigError
from livesr.live.sources.recordings.mmstack import is_mmstack, open_mmstack
from livesr.live.sources.recordings.ome_tiff import description_in, open_companion, open_ome_tiff
from livesr.live.sources.recordings.pixels import check_count
from livesr.live.sources.recordings.placed import Placed, recording_of
from livesr.live.sources.recordings.recording import Recording
from livesr.live.sources.recordings.tiff_pages import (
    PageAt,
    TiffPages,
    complaints,
    imagej_zero,
    reason,
    rows_at,
)
from livesr.live.sources.recordings.units import s_per, um_per

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage, TiffPageSeries

_NAMES = {"T": "t", "C": "c", "Z": "z", "R": "p"}
_IMAGEJ_ORDERS = {
    "czt": "TZC",
    "ctz": "ZTC",
    "zct": "TCZ",
    "ztc": "CTZ",
    "tcz": "ZCT",
    "tzc": "CZT",
    "default": "TZC",
}


def open_tiff(path: Path) -> Recording:
    """Describe a TIFF file, and the set that it says it belongs to.

    Raises
    ------
    ConfigError
        If it is none, its pixels are not those of a camera, or it is not known where its frames
        belong.
    """
    if path.name.lower().endswith((".ome", ".ome.xml")):
        return open_companion(path)
    if is_mmstack(path):
        return open_mmstack(path)
    pages = TiffPages(path)
    try:
        with complaints() as found:
            try:
                xml = description_in(path, pages)
                tiff = pages.file(path)
            except Exception as e:  # whatever tifffile raises of bytes that are no TIFF
                raise ConfigError(f"Cannot read {path} as TIFF: {reason(e)}.") from e
            if xml is not None:
                return open_ome_tiff(path, xml, pages)
            placed, notes = _placed(path, tiff, found)
        damage = None
        if found:
            damage = (
                f"{path.name} is damaged ({found[0]}): what can be found in it are {len(placed.at)}"
                " frames."
            )
        about = _imagej(path, tiff) if tiff.is_imagej else {}
        form = "ImageJ TIFF" if tiff.is_imagej else "TIFF"
        notes = (*notes, *about.pop("notes", ()))
        if tiff.is_imagej and not damage and (left := len(tiff.pages) - len(placed.at)) > 0:
            notes = (
                *notes,
                (
                    f"{path.name} holds {left} pages more than ImageJ's description counts; they"
                    " are not read."
                ),
            )
        about |= {"started_ns": path.stat().st_mtime_ns}
        return recording_of(path, form, placed, pages, notes=notes, damage=damage, **about)
    except BaseException:
        pages.close()
        raise


def _placed(path: Path, tiff: TiffFile, found: list[str]) -> tuple[Placed, tuple[str, ...]]:
    """Put the frames of a file at their places, and say which pages are left out.

    `found` gets what is wrong.
    """
    try:
        series = tiff.series
        if found and tiff.is_imagej and (cut := _cut_off_imagej(path, tiff)):
            return cut, ()
        kinds = {one.kind for one in series}
        if series and "generic" not in kinds and not ("uniform" in kinds and found):
            full = [one for one in series if not (one.keyframe.is_reduced or one.keyframe.is_mask)]
            left = sum(len(one.pages) for one in series) - sum(len(one.pages) for one in full)
            return _of_series(path, full), _reduced(path, left)
    except ConfigError:
        raise
    except Exception as e:  # whatever tifffile raises of a damaged file
        found.append(str(e))
    return _in_a_row(path, tiff, found)


def _in_a_row(path: Path, tiff: TiffFile, found: list[str]) -> tuple[Placed, tuple[str, ...]]:
    """Put pages in a row, up to the first that cannot be read."""
    numbers: list[int] = []
    kinds: dict[tuple[tuple[int, ...], str], int] = {}
    reduced, number = 0, 0
    tiff.pages.useframes = False
    with suppress(Exception):  # the end of a chain that leads nowhere
        while True:
            page = tiff.pages[number].aspage()
            number += 1
            if page.is_reduced or page.is_mask:
                reduced += 1
                continue
            kind = tuple(page.shape), str(page.dtype)
            kinds[kind] = kinds.get(kind, 0) + 1
            numbers.append(number - 1)
    if len(kinds) > 1 and not found:
        said = ", ".join(
            f"{n} of {' x '.join(map(str, shape))} {dtype}" for (shape, dtype), n in kinds.items()
        )
        raise ConfigError(
            f"{path.name} holds pages of several sizes ({said}); expected one: save those that the"
            " camera made as a file."
        )
    if not numbers:
        raise ConfigError(f"Cannot read {path} as TIFF: it holds no frame.")
    axes = ("frame",) if len(numbers) > 1 else ()
    return Placed(
        axes, {((i,) if axes else ()): PageAt(path, n) for i, n in enumerate(numbers)}
    ), _reduced(path, reduced)


def _of_series(path: Path, series: list[TiffPageSeries]) -> Placed:
    """Put the frames of series at their places.

    Several that are alike follow one another as their pages do.
    """
    if not series:
        raise ConfigError(f"Cannot read {path} as TIFF: it holds no frame.")
    first, several = series[0], len(series) > 1
    if any((s.shape, s.dtype, s.axes) != (first.shape, first.dtype, first.axes) for s in series):
        said = ", ".join(" x ".join(map(str, s.shape)) for s in series[:4])
        raise ConfigError(
            f"{path.name} holds {len(series)} images that differ ({said}), and nothing says how"
            " they belong together: save each as a file."
        )
    if "S" in first.axes or first.keyframe.samplesperpixel > 1:
        raise ConfigError(f"{path.name} holds colour frames; expected one value a pixel.")
    lengths = tuple(map(int, first.shape[:-2]))
    check_count(path, (len(series), *lengths))
    names = tuple(_NAMES.get(letter, f"{letter}{i}") for i, letter in enumerate(first.axes[:-2]))
    placed = Placed(("series", *names) if several else names)
    for number, one in enumerate(series):
        for place, page in zip(
            product(*map(range, lengths)), _frames(path, one, lengths), strict=True
        ):
            if page is not None:
                placed.put((number, *place) if several else place, page)
    return placed


def _frames(path: Path, series: TiffPageSeries, lengths: tuple[int, ...]) -> list[PageAt | None]:
    """Return where the frames of a series are, in the order of their places."""
    count = len(list(product(*map(range, lengths))))
    if len(series.pages) == count:
        return [None if page is None else PageAt(path, *_directory(page)) for page in series.pages]
    first = series.keyframe
    if (
        len(series.pages) == 1
        and series.dataoffset is not None
        and tuple(series.shape[-2:]) == (first.imagelength, first.imagewidth)
        and (start := rows_at(first)) is not None
    ):
        return [PageAt(path, first.index, 0, start + i * first.nbytes) for i in range(count)]
    if series.kind == "imagej":
        raise ConfigError(
            f"{path.name} has {len(series.pages)} pages, and ImageJ's description counts"
            f" {count} frames, whose rows do not follow one another in the file: it was saved"
            " anew by other software. Save it with a page for every frame."
        )
    raise ConfigError(f"{path.name} holds several frames in one page, which livesr does not read.")


def _directory(page: Any) -> tuple[int, int]:
    """Return number and directory of a page; one beneath another has no number of its own."""
    return int(page.index), int(page.offset)


def _cut_off_imagej(path: Path, tiff: TiffFile) -> Placed | None:
    """Put the frames at their places that are left of an ImageJ stack with one directory.

    None if it is none.
    """
    about, page = tiff.imagej_metadata or {}, tiff.pages.first
    start, letters = (
        rows_at(page),
        _IMAGEJ_ORDERS.get(str(about.get("order", "czt")).lower(), "TZC"),
    )
    names = {"T": "frames", "Z": "slices", "C": "channels"}
    try:
        lengths = tuple(max(int(about.get(names[letter], 1)), 1) for letter in letters)
    except (TypeError, ValueError):
        return None
    if (
        start is None
        or not page.nbytes
        or (left := (tiff.filehandle.size - start) // page.nbytes) < 1
    ):
        return None
    check_count(path, lengths)
    placed = Placed(tuple(_NAMES[letter] for letter in letters))
    for i, place in zip(range(left), product(*map(range, lengths)), strict=False):
        placed.put(place, PageAt(path, 0, 0, start + i * page.nbytes))
    return placed


def _imagej(path: Path, tiff: TiffFile) -> dict[str, Any]:
    """Return the fields of a `Recording` that ImageJ tells beside the pixels."""
    about, page = tiff.imagej_metadata or {}, tiff.pages.first
    unit = str(about.get("unit", "pixel"))
    um = None if unit.startswith("inch") else um_per(unit)  # what a printer is told
    x, y = (_per_pixel(page, name) for name in ("XResolution", "YResolution"))
    notes: tuple[str, ...] = ()
    if um is None and x and x != 1 and unit not in ("pixel", "pixels"):
        notes = (
            f"{path.name} gives a pixel size in {unit!r}, which is no known unit: it is not used.",
        )
    z_unit, t_unit = str(about.get("zunit", unit)), str(about.get("tunit", "s"))
    if s_per(t_unit) is None and _times(about, "finterval", 1.0):
        notes += (f"{path.name} gives times in {t_unit!r}, which is no known unit: not used.",)
    if "cf" in about and not imagej_zero(tiff):
        notes += (
            f"{path.name} has a calibration of its grey values: values are read as they are.",
        )
    return {
        "pixel_um": (um * (y or x), um * x) if um and x else None,
        "z_step_um": _times(about, "spacing", um if z_unit == unit else um_per(z_unit)),
        "interval_s": _times(about, "finterval", s_per(t_unit)),
        "notes": notes,
    }


def _per_pixel(page: TiffPage, name: str) -> float | None:
    """Return the units that a pixel is wide or high."""
    per_unit = page.tags.valueof(name)
    try:
        return float(per_unit[1]) / float(per_unit[0])
    except (TypeError, IndexError, ZeroDivisionError, ValueError):
        return None


def _times(about: Mapping[str, Any], key: str, factor: float | None) -> float | None:
    try:
        value = float(about[key]) * factor if factor else 0.0
    except (KeyError, TypeError, ValueError):
        return None
    return value if 0 < value < float("inf") else None


def _reduced(path: Path, count: int) -> tuple[str, ...]:
    return (
        (f"{path.name}: {count} pages are marked as reduced images or masks, and are not read.",)
        if count
        else ()
    )
