"""Pages of TIFF files as frames.

The bytes of the file where they are the rows, tifffile's decoder everywhere else.

Owns the proof that bytes are rows, and files that are kept open. Knows no set and no axes.
"""

from __future__ import annotations

import logging
import lzma
import re
import struct
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import ConfigError, DamagedFileError
from livesr.base.frames import Pixels
from livesr.live.sources.recordings.pixels import (
    CameraPixels,
    camera_pixels,
    check_frame,
    opened,
    rows,
)

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_MAX_OPEN = 32
_SIGNED = 1 << 15
_CAMERA_BITS = range(8, 17)
_MAX_UNPACKED = 2**28  # bytes of a strip or tile, or twice its frame if that is more
_MAX_INFLATED = 1032  # bytes that one byte of deflate can become
_UNBOUNDED = {8: zlib.decompressobj, 32946: zlib.decompressobj, 34925: lzma.LZMADecompressor}
"""Compressions that tifffile unpacks by itself, to whatever size comes out."""


class PageAt(NamedTuple):
    """Where a page is.

    The number of its directory in the chain of `file`, or the byte where its directory begins.

    `row_offset` is where the rows begin of a frame that has no directory of its own; its layout is
    that of page `number`.
    """

    file: Path
    number: int = 0
    directory: int = 0
    row_offset: int = 0


class TiffPages:
    """Reads pages as frames, a few files open at a time.

    Every page is described by its own directory, which costs 0.15 ms: a stack whose pages differ
    shows no other frame.

    Parameters
    ----------
    named : the file or folder that the user named; every other file must lie beneath its folder
    """

    def __init__(self, named: Path) -> None:
        self._named, self._folder = named, named if named.is_dir() else named.parent
        self._open: OrderedDict[Path, tuple[TiffFile, BinaryIO]] = OrderedDict()
        self._checked: set[Path] = set()
        self._shape: tuple[int, int] = (0, 0)
        self._pixels: CameraPixels | None = None

    def expect(self, first: PageAt) -> tuple[tuple[int, int], CameraPixels]:
        """Say what all frames are like, by one of them; return its shape and pixels.

        Raises
        ------
        ConfigError
            If no camera gives such frames, or their codec is not installed.
        """
        try:
            page = self.page(first)
        except Exception as e:  # whatever tifffile raises of a damaged file
            raise ConfigError(f"Cannot read {first.file} as TIFF: {reason(e)}.") from e
        _check_page(first.file, page, self.file(first.file).filehandle.size)
        self._shape = (int(page.imagelength), int(page.imagewidth))
        zero = imagej_zero(self.file(first.file))
        self._pixels = camera_pixels(first.file, page.dtype or "O", zero)
        try:
            values = self._values(first, page, "its first frame")
            self._pixels.taken(values, "its first frame")
        except DamagedFileError as e:
            if self._pixels.exact or isinstance(e.__cause__, NotImplementedError):
                raise ConfigError(
                    str(e)
                ) from e  # else reading says what is wrong, after what can be read
        return self._shape, self._pixels

    def read(self, at: PageAt, which: str) -> Pixels:
        """Return a frame in native byte order; the caller owns it.

        Raises
        ------
        DamagedFileError
            If it cannot be read, or is not like the first; `which` names it.
        """
        with complaints():
            return self._read(at, which)

    def _read(self, at: PageAt, which: str) -> Pixels:
        assert self._pixels is not None
        page = self._described(at, which)
        shape, stored = (
            (page.imagelength, page.imagewidth),
            np.dtype(page.dtype or "O").newbyteorder("="),
        )
        if (shape, stored, page.samplesperpixel) != (self._shape, self._pixels.stored, 1):
            came, first = (
                f"{shape[0]} x {shape[1]} {stored.name}",
                f"{self._shape[0]} x {self._shape[1]}",
            )
            raise DamagedFileError(
                f"{at.file.name} is {came} at {which}; the others are {first}"
                f" {self._pixels.stored.name}."
            )
        return self._pixels.taken(self._values(at, page, which), which)

    def page(self, at: PageAt) -> TiffPage:
        """Return what the directory of a page says.

        Raises
        ------
        Exception
            Whatever tifffile raises of a chain that leads nowhere.
        """
        import tifffile

        tiff = self.file(at.file)
        with complaints():
            if at.directory:
                tiff.filehandle.seek(at.directory)
                return tifffile.TiffPage(tiff, index=at.number)
            tiff.pages.useframes = False
            return tiff.pages[at.number].aspage()

    def file(self, path: Path) -> TiffFile:
        """Return a file, opened unless it is.

        Raises
        ------
        ConfigError
            If it leads out of the folder that the user named.
        OSError, ValueError
            If it cannot be read as TIFF.
        """
        if path not in self._open:
            while len(self._open) >= _MAX_OPEN:
                _close(*self._open.popitem(last=False)[1])
            file = opened(path, None if path == self._named else self._folder)
            try:
                self._open[path] = self._tiff(path, file), file
            except BaseException:
                file.close()
                raise
        self._open.move_to_end(path)
        return self._open[path][0]

    def _tiff(self, path: Path, file: BinaryIO) -> TiffFile:
        import tifffile

        with complaints():
            # Of these, tifffile would look for further files of its own, wherever they are: our
            # readers know them.
            tiff = tifffile.TiffFile(
                file, name=path.name, is_ome=False, is_mmstack=False, is_ndtiff=False
            )
        if path not in self._checked:
            _check_chain(tiff)
            self._checked.add(path)
        return tiff

    def close(self) -> None:
        """Close what is open."""
        while self._open:
            _close(*self._open.popitem()[1])

    def _described(self, at: PageAt, which: str) -> TiffPage:
        try:
            return self.page(at)
        except FileNotFoundError as e:
            raise DamagedFileError(f"{at.file.name}, which holds {which}, is gone.") from e
        except Exception as e:  # whatever a chain of pages that leads nowhere raises
            raise DamagedFileError(
                f"{at.file.name} has no {which}, though it announces it: {e}."
            ) from e

    def _values(self, at: PageAt, page: TiffPage, which: str) -> NDArray[Any]:
        """Return the values of a page as they are stored, (y, x)."""
        shape = (page.imagelength, page.imagewidth)
        try:
            if start := at.row_offset or rows_at(page):
                handle = page.parent.filehandle
                dtype = np.dtype(page.dtype or "O").newbyteorder(page.parent.byteorder)
                return rows(cast("Any", handle), start, shape, dtype)
            _check_segments(page)
            _check_unpacked(page)
            if (packed := _unpacked(page)) is not None:
                return packed
            return np.asarray(page.asarray(maxworkers=1)).reshape(shape)
        except EOFError:
            raise DamagedFileError(
                f"{at.file.name} ends within {which}: it was cut off, or is still being written."
            ) from None
        except Exception as e:  # whatever a codec raises
            if "imagecodecs" in str(e) or isinstance(e, ImportError):
                codec = getattr(page.compression, "name", page.compression)
                raise DamagedFileError(
                    f"{at.file.name} holds {page.bitspersample} bits a pixel, compressed as"
                    f" {codec}: reading it needs another package, pip install imagecodecs."
                ) from NotImplementedError(str(e))
            raise DamagedFileError(f"{at.file.name} cannot be read at {which}: {e}.") from e


def reason(error: Exception) -> str:
    """Return why a file is no TIFF, of whatever tifffile raised: of a damaged one also the key of a
    dictionary that it looked into.
    """
    told = str(error)
    in_words = isinstance(error, (OSError, ValueError, ConfigError))
    return told if in_words else f"damaged ({type(error).__name__}: {told})"


def imagej_zero(tiff: TiffFile) -> int:
    """Return the value of a file that stands for 0.

    ImageJ keeps signed numbers of 16 bit as unsigned ones that are larger by 32768, and says so by
    a calibration of grey values: so it saves what it opened of DeltaVision and MRC.
    """
    said = (tiff.imagej_metadata or {}) if tiff.is_imagej else {}
    told = said.get("cf"), said.get("c0"), said.get("c1")
    signed = told == (0, -_SIGNED, 1) and tiff.pages.first.dtype == np.uint16
    return _SIGNED if signed else 0


def _close(tiff: TiffFile, file: BinaryIO) -> None:
    tiff.close()
    file.close()


def rows_at(page: TiffPage) -> int | None:
    """Return the byte where the rows of a page begin if they lie one after the other as (y, x)
    values; None if not.

    They do if nothing is compressed, predicted or packed, the bits of a byte run as usual, and
    strips, or tiles as wide as the frame, follow one another without gap and hold the frame's
    bytes, no more and no less.
    """
    itemsize = 0 if page.dtype is None else page.dtype.itemsize
    plain = page.is_final and page.samplesperpixel == 1 and page.imagedepth == 1
    if not plain or 8 * itemsize != page.bitspersample or sum(page.databytecounts) != page.nbytes:
        return None
    ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
    return int(page.dataoffsets[0]) if ends[:-1] == list(page.dataoffsets[1:]) else None


def _check_chain(tiff: TiffFile) -> None:
    """Refuse a chain of pages that runs in a circle: tifffile would follow it without end.

    Raises
    ------
    ValueError
        If it does.
    """
    form, file, seen = tiff.tiff, tiff.filehandle, set[int]()
    file.seek(8 if form.is_bigtiff else 4)
    with suppress(struct.error):  # the end of a file that was cut off, which tifffile notices
        while offset := struct.unpack(form.offsetformat, file.read(form.offsetsize))[0]:
            if offset in seen:
                raise ValueError("its pages run in a circle")
            seen.add(offset)
            file.seek(offset)
            count = struct.unpack(form.tagnoformat, file.read(form.tagnosize))[0]
            file.seek(offset + form.tagnosize + count * form.tagsize)


def _check_page(path: Path, page: TiffPage, file_bytes: int) -> None:
    if not all(
        isinstance(n, int)
        for n in (page.imagelength, page.imagewidth, page.bitspersample, page.imagedepth)
    ):
        raise ConfigError(f"{path.name} has a size that is no number: it is damaged.")
    if page.samplesperpixel != 1 or page.photometric not in (0, 1, 32803, 34892):
        raise ConfigError(f"{path.name} holds colour frames; expected one value a pixel.")
    if page.imagedepth != 1:
        raise ConfigError(
            f"{path.name} holds several frames in one page, which livesr does not read."
        )
    if page.dtype is None or page.bitspersample < min(_CAMERA_BITS):
        raise ConfigError(
            f"{path.name} holds {page.bitspersample} bits a pixel; expected the camera's 8 to 16."
        )
    check_frame(path, (page.imagelength, page.imagewidth), page.dtype, file_bytes)


def _check_segments(page: TiffPage) -> None:
    """Refuse a strip or tile that is not there: tifffile would put zeros in its place."""
    size = page.parent.filehandle.size
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if offset + count > size:
            raise EOFError
        if not offset or not count:
            raise ValueError("a part of it has no bytes")
    if not page.dataoffsets:
        raise ValueError("it has no bytes")


def _check_unpacked(page: TiffPage) -> None:
    """Refuse a strip or tile that unpacks to far more than a frame.

    Tifffile would unpack all of it before it looks.
    """
    most, handle = max(_MAX_UNPACKED, 2 * page.nbytes), page.parent.filehandle
    unpack: Any = _UNBOUNDED.get(int(page.compression))
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if unpack is None or (unpack is zlib.decompressobj and count * _MAX_INFLATED <= most):
            continue
        handle.seek(offset)
        if len(unpack().decompress(handle.read(count), most + 1)) > most:
            raise ValueError(f"a part of it unpacks to more than {most} bytes")


def _unpacked(page: TiffPage) -> NDArray[np.uint16] | None:
    """Return values of 9 to 15 bits that were packed, None if they are not.

    What tifffile needs another package for.
    """
    bits, (y, x) = page.bitspersample, (page.imagelength, page.imagewidth)
    if (
        page.compression != 1
        or page.predictor != 1
        or page.is_tiled
        or not 8 < bits < 16
        or page.sampleformat != 1
    ):
        return None
    handle, row_bytes = page.parent.filehandle, (x * bits + 7) // 8
    data = b""
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        handle.seek(offset)
        data += handle.read(count)
    if len(data) < y * row_bytes:
        raise EOFError
    lines = np.frombuffer(data, np.uint8)[: y * row_bytes].reshape(y, row_bytes)
    ones = np.unpackbits(
        lines, axis=1, count=x * bits, bitorder="big" if page.fillorder == 1 else "little"
    )
    weights = (1 << np.arange(bits)[::-1]).astype(np.uint16)
    return np.asarray(ones.reshape(y, x, bits) @ weights, np.uint16)


@contextmanager
def complaints() -> Iterator[list[str]]:
    """Collect what tifffile finds wrong with a file: it says so to its log alone."""
    import tifffile

    found: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR:
                found.append(re.sub(r"^<.*?> ", "", record.getMessage()))

    listener, logger = Listener(), tifffile.logger()
    logger.addHandler(listener)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield found
    finally:
        logger.removeHandler(listener)
        logger.propagate = propagate


def remarks_on(path: Path, page: TiffPage) -> tuple[str, ...]:
    """Return what a page says of its picture that is not applied to its values."""
    notes: list[str] = []
    with suppress(Exception):
        if (orientation := page.tags.valueof(274)) not in (None, 1):
            how = f"turned or mirrored (orientation {int(orientation)})"
            notes.append(f"{path.name} asks to be shown {how}: frames are read as they lie in it.")
        if page.photometric == 0:
            notes.append(
                f"{path.name} asks to be shown inverted (MinIsWhite): values are read as they are."
            )
    return tuple(notes)
