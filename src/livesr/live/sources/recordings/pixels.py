"""What a frame in a file may be, and how its bytes become the camera's values.

Owns the limits of size and number, the pixel types, and frames that lie uncompressed in a file.
Knows no format.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from livesr.base import contained
from livesr.base.errors import ConfigError, DamagedFileError
from livesr.base.frames import Pixels

MAX_PIXELS = 2**28
"""Of a frame: 16384 x 16384, more than any camera on a microscope has."""

MAX_FRAMES = 10_000_000
"""Of a recording: a day at 100 frames/s."""

_MAX_SHRUNK = 1000  # no codec makes a frame of a camera smaller: it has noise
_WHOLE = 65535


def check_frame(path: Path, shape: tuple[int, ...], dtype: DTypeLike, stored_bytes: int) -> None:
    """Refuse a frame that no camera gives, or that its file cannot hold, before anything of its
    size is allocated.

    Parameters
    ----------
    shape, dtype : of the frame, as the file says
    stored_bytes : of the file, compressed or not

    Raises
    ------
    ConfigError
        With what the file says.
    """
    said = " x ".join(map(str, shape))
    if min(shape, default=0) < 1 or math.prod(shape) > MAX_PIXELS:
        raise ConfigError(
            f"{path.name} says that a frame has {said} pixels; expected 1 to {MAX_PIXELS} pixels."
        )
    if math.prod(shape) * np.dtype(dtype).itemsize > _MAX_SHRUNK * stored_bytes:
        raise ConfigError(
            f"{path.name} says that a frame has {said} pixels, and holds {stored_bytes} bytes: it"
            " is damaged, or was cut off."
        )


def check_count(path: Path, lengths: tuple[int, ...]) -> None:
    """Refuse more frames than a recording has.

    Raises
    ------
    ConfigError
        With what the file says.
    """
    if min(lengths, default=1) < 1 or math.prod(lengths) > MAX_FRAMES:
        said = " x ".join(map(str, lengths))
        raise ConfigError(
            f"{path.name} says that it has {said} frames; expected 1 to {MAX_FRAMES} frames."
        )


@dataclass(frozen=True, slots=True)
class CameraPixels:
    """How values of a file become those of a camera.

    Attributes
    ----------
    name : uint8 or uint16, what frames are
    stored : type of the values in the file
    exact : whether every frame has to be looked at, because the file's type holds more than a
        camera gives
    zero : the value in the file that is a camera's 0
    """

    path: Path
    name: str
    stored: np.dtype[Any]
    exact: bool
    zero: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of it."""
        if not self.exact:
            return ()
        if self.zero:
            return (
                f"{self.path.name} holds signed numbers as ImageJ keeps them: {self.zero} is taken"
                " off every value.",
            )
        return (
            (
                f"{self.path.name} holds {self.stored.name}: its values are whole numbers, and are"
                " read as uint16."
            ),
        )

    def taken(self, values: NDArray[Any], which: str) -> Pixels:
        """Return a frame in native byte order; the caller owns it.

        Raises
        ------
        DamagedFileError
            If a value is none that a camera gives; `which` names the frame.
        """
        if not self.exact:
            return np.array(values, dtype=self.name)
        if self.zero:
            values = values.astype(np.int64) - self.zero
        low, high = values.min(), values.max()
        # As Python's numbers: float16 takes 65535 for infinity.
        fits = low.item() >= 0 and high.item() <= _WHOLE
        if not (fits and (self.stored.kind in "iu" or np.array_equal(values, np.rint(values)))):
            raise DamagedFileError(
                f"{self.path.name} holds {self.stored.name} from {low:g} to {high:g} at {which};"
                f" expected the camera's uint8 or uint16, or whole numbers of 0 to {_WHOLE}: give"
                " the frames as the camera made them, not processed."
            )
        return np.array(values, dtype=self.name)


def camera_pixels(path: Path, dtype: DTypeLike, zero: int = 0) -> CameraPixels:
    """Return how values of `dtype` become a camera's.

    Those of other number types if they are whole and fit uint16.

    Parameters
    ----------
    zero : the value in the file that is a camera's 0

    Raises
    ------
    ConfigError
        If they never can be.
    """
    stored = np.dtype(dtype).newbyteorder("=")
    if zero:
        return CameraPixels(path, "uint16", stored, exact=True, zero=zero)
    if stored.name in ("uint8", "uint16"):
        return CameraPixels(path, stored.name, stored, exact=False)
    if stored.kind not in "iuf":
        raise ConfigError(
            f"{path.name} holds {stored.name}; expected the camera's uint8 or uint16."
        )
    return CameraPixels(path, "uint16", stored, exact=True)


def opened(path: Path, folder: Path | None) -> BinaryIO:
    """Open a file of a recording for reading.

    Parameters
    ----------
    folder : that it must lie beneath, because a file names it, or it was found there; None where
        the user named it

    Raises
    ------
    ConfigError
        If it does not lie beneath `folder`, or is no file.
    OSError
        If it cannot be opened.
    """
    if folder is None:
        return path.open("rb")
    return contained.open_to_read(folder, path.relative_to(folder).as_posix(), error=ConfigError)


class FrameFiles:
    """Reads frames that lie uncompressed in files; the file of the last frame stays open.

    Parameters
    ----------
    shape, dtype : of a frame, in the file's byte order
    folder : as of `opened`
    """

    def __init__(
        self, shape: tuple[int, int], dtype: DTypeLike, folder: Path | None = None
    ) -> None:
        self._shape, self._dtype, self._folder = shape, np.dtype(dtype), folder
        self._open: tuple[Path, BinaryIO] | None = None

    def read(self, path: Path, offset: int, which: str) -> NDArray[Any]:
        """Return the frame at a byte of a file, as it lies there; nobody may change it.

        Raises
        ------
        DamagedFileError
            If the file cannot be read, or ends before; `which` names the frame.
        """
        try:
            return rows(self._file(path), offset, self._shape, self._dtype)
        except EOFError:
            raise DamagedFileError(
                f"{path.name} ends within {which}: it was cut off, or is still being written."
            ) from None
        except (OSError, ValueError, OverflowError) as e:
            raise DamagedFileError(f"{path.name} cannot be read at {which}: {e}.") from e

    def close(self) -> None:
        """Close what is open."""
        if self._open:
            self._open[1].close()
            self._open = None

    def _file(self, path: Path) -> BinaryIO:
        if self._open is None or self._open[0] != path:
            self.close()
            self._open = path, opened(path, self._folder)
        return self._open[1]


def rows(file: BinaryIO, offset: int, shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the frame whose rows begin at a byte of an open file.

    Raises
    ------
    EOFError
        If the file ends before; nothing of the frame's size is allocated then.
    """
    size = math.prod(shape) * dtype.itemsize
    if offset + size > file.seek(0, 2):
        raise EOFError
    file.seek(offset)
    return np.frombuffer(file.read(size), dtype).reshape(shape)
