"""Offset, gain, flat field, background and bad pixels, taken out of raw frames before they are
reconstructed.

Owns the maps of rig.yaml's `corrections` and their cut to the camera's region. Measures none of
them (`livesr.evaluation.characterise` does), and never touches the frames that are recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from livesr.base.array_limits import check_array
from livesr.base.config import RigConfig
from livesr.base.errors import ConfigError, FrameShapeError, StoreError
from livesr.base.frames import Pixels
from livesr.live.arrays import HOST, Array, Arrays

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]

_FARTHEST_PX = 5  # from a bad pixel to the good ones that stand in for it


class Correction:
    """x -> scale x + shift for every pixel, then the median of good neighbours for bad ones.

    Parameters
    ----------
    shape : raw frame (y, x)
    scale, shift : float32 (y, x) or one number; shift in ADU
    bad : pixels to replace, (y, x), or None
    n_raw : most frames of a group
    arrays : what to compute with; frames are arrays of that namespace

    Raises
    ------
    ConfigError
        If a bad pixel has no good one near it.
    """

    __slots__ = ("_arrays", "_held_bytes", "_patches", "_planes", "_scale", "_shift", "shape")

    def __init__(
        self,
        shape: tuple[int, int],
        scale: Float | np.float32,
        shift: Float | np.float32,
        bad: Mask | None = None,
        n_raw: int = 1,
        arrays: Arrays = HOST,
    ) -> None:
        self.shape = shape
        self._arrays = arrays
        patches = list(_patches(bad, n_raw)) if bad is not None and bad.any() else []
        planes = np.empty((n_raw, *shape), np.float32)
        self._held_bytes = planes.nbytes + scale.nbytes + shift.nbytes
        self._held_bytes += sum(
            p.bad.nbytes + p.neighbours.nbytes + p.values.nbytes for p in patches
        )
        # One number or one per pixel, as arrays: a product of an array and a NumPy number is not
        # defined everywhere.
        self._scale, self._shift = (arrays.array(np.asarray(a)) for a in (scale, shift))
        self._patches = [_Patch(*map(arrays.array, patch)) for patch in patches]
        self._planes = arrays.array(planes)

    @property
    def memory_bytes(self) -> int:
        """Bytes that the instance holds."""
        return self._held_bytes

    def apply(self, frames: Sequence[Pixels] | Array) -> Array:
        """Return the corrected frames, float32 (n, y, x) in ADU above the offset.

        The next call overwrites them.

        Raises
        ------
        FrameShapeError
            If a frame is of another size, or there are more than a group has.
        """
        n, arrays = len(frames), self._arrays
        shapes = [frames[i].shape for i in range(n)]
        if n > self._planes.shape[0] or any(shape != self.shape for shape in shapes):
            came = ", ".join(sorted({f"{y}x{x}" for y, x in shapes}))
            raise FrameShapeError(
                f"{n} frames of {came} came; the correction is for {self._planes.shape[0]} of "
                f"{self.shape[0]}x{self.shape[1]}"
            )
        for i in range(n):
            plane = self._planes[i, :, :]
            arrays.copy(frames[i], plane)  # types that differ go through a buffer, piece by piece
            arrays.multiply(plane, self._scale, out=plane)
            arrays.add(plane, self._shift, out=plane)
        planes = self._planes[:n, :, :]
        for patch in self._patches:
            patch.mend(planes, arrays)
        return planes


class _Patch(NamedTuple):
    """Bad pixels with equally many good neighbours.

    Flat indices (n,) and (n, k), and room for the neighbours' values.
    """

    bad: Array
    neighbours: Array
    values: Array

    def mend(self, planes: Array, arrays: Arrays) -> None:
        """Replace the bad pixels of all planes (frame, y, x)."""
        n, k = planes.shape[0], self.values.shape[-1]
        pixels = arrays.xp.reshape(planes, (n, -1))
        values = arrays.sort(arrays.take(pixels, self.neighbours, out=self.values[:n, :, :]))
        low, high = values[..., (k - 1) // 2], values[..., k // 2]
        arrays.put(pixels, self.bad, (low + high) * 0.5)


def build_correction(
    rig: RigConfig,
    channel: str,
    shape: tuple[int, int],
    origin_px: tuple[float, float] = (0.0, 0.0),
    n_raw: int = 1,
    arrays: Arrays = HOST,
) -> tuple[Correction | None, float]:
    """Build the correction of a channel for the camera's region.

    Parameters
    ----------
    shape, origin_px : size and first pixel (y, x) of the region on the chip
    n_raw : frames of a group
    arrays : what to compute with

    Returns
    -------
    Correction or None, float
        None where one number says it all, and the level in ADU that is still to be subtracted.

    Raises
    ------
    ConfigError
        If a map is missing, damaged, or does not cover the region.
    """
    about = rig.corrections
    maps = _Maps(rig, shape, origin_px)
    background = about.background.get(channel, about.background.get("", 0.0))
    offset = about.offset if about.offset is not None else rig.camera.offset_adu
    level = maps.level("offset", offset) + maps.level("dark", about.dark or 0.0)
    flat = about.flat.get(channel, about.flat.get(""))
    if not about.per_pixel:
        return None, float(level + maps.level("background", background))
    bad = maps.bad()
    scale = maps.sensitivity("gain", about.gain, bad)
    response = maps.sensitivity("flat", flat, bad)
    shift = -(level * scale + maps.level("background", background)) / response
    return (
        Correction(shape, np.float32(scale / response), np.float32(shift), bad, n_raw, arrays),
        0.0,
    )


def check_maps(rig: RigConfig) -> tuple[int, int] | None:
    """Read every map of a rig; return the chip that they are for, (y, x), None without maps.

    Raises
    ------
    ConfigError
        If one is missing or damaged, or they are not of one size.
    """
    first: tuple[str, tuple[int, int]] | None = None
    for place, name in rig.corrections.maps().items():
        shape = read_map(rig, place, name).shape
        first = first or (name, shape)
        if shape != first[1]:
            raise ConfigError(
                f"corrections.{place}: {name} is {_size(shape)}, and {first[0]} is"
                f" {_size(first[1])}. Every map must be of the whole chip: measure them again"
                " without a region or binning."
            )
    if first is None:
        return None
    for channel in rig.channels or [""]:
        build_correction(rig, channel, first[1])
    return first[1]


def read_map(rig: RigConfig, place: str, name: str) -> NDArray[Any]:
    """Read a map, (y, x).

    Raises
    ------
    ConfigError
        If it is missing, is no TIFF, is no single picture, or has pixels that are no numbers.
    """
    import tifffile

    path = rig.folder / name
    try:
        # A map is one picture: tifffile need not look for further files that this one names.
        with tifffile.TiffFile(path, is_ome=False, is_mmstack=False, is_ndtiff=False) as file:
            said = file.series[0]
            check_array(
                path.name, said.shape, said.shape, itemsize=np.dtype(said.dtype or "u1").itemsize
            )
            image = np.squeeze(file.asarray())
    except (OSError, ValueError, IndexError, StoreError) as e:  # TiffFileError is a ValueError
        reason = e.strerror if isinstance(e, OSError) and e.strerror else e
        raise ConfigError(f"corrections.{place}: cannot read {path} as TIFF: {reason}.") from e
    if image.ndim != 2 or image.dtype.kind not in "uif":
        raise ConfigError(
            f"corrections.{place}: {path} holds {' x '.join(map(str, image.shape))} {image.dtype};"
            " expected one picture (y, x) of numbers, such as 'livesr characterise' writes."
        )
    if not np.isfinite(image).all():
        raise ConfigError(
            f"corrections.{place}: {path} has pixels that are no numbers; mark them in bad_pixels"
            " instead."
        )
    return image


class _Maps:
    """The maps of a rig, cut to a region."""

    def __init__(
        self, rig: RigConfig, shape: tuple[int, int], origin_px: tuple[float, float]
    ) -> None:
        self._rig, self._shape = rig, shape
        self._y, self._x = round(origin_px[0]), round(origin_px[1])

    def level(self, place: str, value: float | str) -> NDArray[np.float64] | float:
        """Return a level in ADU, as a map or a number."""
        return self._cut(place, value).astype(np.float64) if isinstance(value, str) else value

    def sensitivity(
        self, place: str, name: str | None, bad: Mask | None
    ) -> NDArray[np.float64] | float:
        """Return a factor per pixel, 1 where it does not matter.

        Raises
        ------
        ConfigError
            If a pixel that is not marked as bad is dark.
        """
        if name is None:
            return 1.0
        factor = self._cut(place, name).astype(np.float64)
        if place == "gain":
            factor /= np.median(read_map(self._rig, place, name))
        if bad is not None:
            factor[bad] = 1.0
        if factor.min() < 0.01:
            y, x = np.unravel_index(factor.argmin(), factor.shape)
            raise ConfigError(
                f"corrections.{place}: {name} is {factor.min():.3g} at [{y + self._y},"
                f" {x + self._x}]: expected about 1 and at least 0.01. Mark dark pixels in"
                " bad_pixels, or measure the map again with more light."
            )
        return factor

    def bad(self) -> Mask | None:
        """Return which pixels of the region are bad."""
        given = self._rig.corrections.bad_pixels
        if not given:
            return None
        if isinstance(given, str):
            return np.asarray(self._cut("bad_pixels", given) != 0)
        mask = np.zeros(self._shape, bool)
        for y, x in given:
            if 0 <= y - self._y < self._shape[0] and 0 <= x - self._x < self._shape[1]:
                mask[y - self._y, x - self._x] = True
        return mask

    def _cut(self, place: str, name: str) -> NDArray[Any]:
        image = read_map(self._rig, place, name)
        region = image[self._y : self._y + self._shape[0], self._x : self._x + self._shape[1]]
        if region.shape != self._shape:
            raise ConfigError(
                f"corrections.{place}: {name} is {_size(image.shape)}, and the camera's region is"
                f" {_size(self._shape)} at [{self._y}, {self._x}]: a map must cover the whole chip"
                " without binning. Measure it again."
            )
        return region


def _patches(bad: Mask, n_raw: int) -> Iterator[_Patch]:
    """Group bad pixels by the number of good ones around them, looking farther where there is
    none.
    """
    left = np.argwhere(bad)
    for radius in range(1, _FARTHEST_PX + 1):
        if not len(left):
            return
        around = np.mgrid[-radius : radius + 1, -radius : radius + 1].reshape(2, -1).T
        y, x = (left[:, None, axis] + around[None, :, axis] for axis in (0, 1))
        good = (y >= 0) & (y < bad.shape[0]) & (x >= 0) & (x < bad.shape[1])
        flat = np.where(good, y * bad.shape[1] + x, 0)
        good &= ~bad.reshape(-1)[flat]
        counts = good.sum(axis=1)
        for k in np.unique(counts[counts > 0]):
            of = counts == k
            neighbours = flat[of][good[of]].reshape(-1, k)
            yield _Patch(
                left[of] @ (bad.shape[1], 1),
                neighbours,
                np.empty((n_raw, *neighbours.shape), np.float32),
            )
        left = left[counts == 0]
    if len(left):
        raise ConfigError(
            f"corrections.bad_pixels: no good pixel within {_FARTHEST_PX} pixels of"
            f" {left[0].tolist()} in the camera's region. Choose a region without that spot, or"
            " measure the map again."
        )


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
