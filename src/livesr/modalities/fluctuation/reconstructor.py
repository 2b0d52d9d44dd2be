"""Frames that fluctuate to a running super-resolution image.

Owns what a stream has shown so far, window, drift and units. The arithmetic of a group is in
`convergence.py` and `cumulants.py`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import FrameShapeError
from livesr.base.frames import Pixels, RawStack
from livesr.live.arrays import HOST
from livesr.live.reconstruct.reconstructor import RawFrames, RunningImage
from livesr.modalities.fluctuation.config import FluctuationConfig
from livesr.modalities.fluctuation.convergence import Convergence
from livesr.modalities.fluctuation.cumulants import Cumulants
from livesr.modalities.fluctuation.drift import MeanFrameDrift
from livesr.modalities.fluctuation.modality import UNITS_PER_ADU
from livesr.optics.richardson_lucy import GaussianBlur, richardson_lucy

Image = NDArray[np.float32]
Correct = Callable[[list[Pixels]], Image]

_ROOT_SIGMA_PX = 0.5  # that smooths the root where nothing was deconvolved


class Method(Protocol):
    """What makes an image of a group, and a picture of the mean of such images."""

    fewest: int
    """Frames that a group needs."""

    @property
    def scale(self) -> int:
        """Pixels of the image per camera pixel."""

    def group(self, frames: Sequence[Pixels | None]) -> Image:
        """Return what a group shows, a new array (y, x) that can be averaged with others."""

    def picture(self, image: Image) -> Image:
        """Return what is shown of a mean of such images, linear in brightness, ADU."""

    def memory_bytes(self, frames: int) -> int:
        """Return what it holds, and what a group of so many frames needs meanwhile."""


class ESRRF:
    """Radial gradient convergence; the second order in time is shown as its square root."""

    def __init__(self, convergence: Convergence, temporal: str) -> None:
        self._convergence, self._squares = convergence, temporal != "average"
        self.fewest = 1 if temporal == "average" else 2
        self.scale, self.group = convergence.scale, convergence.group

    def picture(self, image: Image) -> Image:
        """Return the mean, or the root of what is above 0, without the camera's pixels in it."""
        even = without_camera_pixels(image, self.scale)
        return np.asarray(np.sqrt(np.maximum(even, 0))) if self._squares else even

    def memory_bytes(self, frames: int) -> int:
        """Return those of `Convergence`: the number of frames does not matter."""
        return self._convergence.memory_bytes


def without_camera_pixels(image: Image, scale: int) -> Image:
    """Return an image (y, x) whose pixels are as bright at every place in a camera pixel.

    Of noise alone, convergence is larger where a gradient is near, which shows as a grid. The
    medians of all places are made equal.
    """
    even = image.copy()
    places = [even[y::scale, x::scale] for y in range(scale) for x in range(scale)]
    medians = [float(np.median(place)) for place in places]
    if min(medians) > 0:
        level = sum(medians) / len(medians)
        for place, median in zip(places, medians, strict=True):
            place *= np.float32(level / median)
    return even


class SOFI:
    """Cumulants, deconvolved and made linear: their root of the order, as wide as the order allows.

    Of Geissbuehler et al. 2012, Optical Nanoscopy 1, 4 (bSOFI), with one deconvolution for all.
    """

    def __init__(self, cumulants: Cumulants, sigma_px: float, rounds: int) -> None:
        self._cumulants, self._rounds, n = cumulants, rounds, cumulants.scale
        self.fewest, self.scale, self.group = n + 1, n, cumulants.group
        # A Gaussian of sigma / sqrt(n), then one of sigma / n, in pixels that are n times as fine.
        self._blur = GaussianBlur(cumulants.shape, sigma_px * math.sqrt(n), HOST)
        after = sigma_px if rounds else _ROOT_SIGMA_PX
        self._after = GaussianBlur(cumulants.shape, after, HOST, cumulants.beside_px)

    def picture(self, image: Image) -> Image:
        """Return the picture; what is not above 0 counts as dark."""
        found = richardson_lucy(image, self._blur, self._rounds, HOST)
        root = np.power(found, np.float32(1 / self.scale), out=found)
        return np.asarray(np.maximum(self._after.apply(root), 0), np.float32)

    def memory_bytes(self, frames: int) -> int:
        """Return those of the cumulants, and of the deconvolution."""
        blurs = self._blur.memory_bytes + self._after.memory_bytes
        return self._cumulants.memory_bytes(frames) + blurs + 16 * math.prod(self._cumulants.shape)


class FluctuationReconstructor:
    """Makes a super-resolution image of groups of frames.

    Parameters
    ----------
    shape : of a camera frame (y, x)
    settings : the section of rig.yaml
    sigma_px : standard deviation of a single emitter's image, camera pixels
    pixel_size_nm : camera pixel in the sample
    offset_adu : level of a dark frame
    """

    def __init__(
        self,
        shape: tuple[int, int],
        settings: FluctuationConfig,
        sigma_px: float,
        pixel_size_nm: float,
        offset_adu: float = 0.0,
    ) -> None:
        self.settings, self.camera_shape = settings, shape
        self.pixel_size_nm = pixel_size_nm
        self.scale = settings.scale
        self.method = _method(shape, settings, sigma_px, offset_adu)

    @property
    def shape(self) -> tuple[int, int]:
        """Image (y, x)."""
        return self.camera_shape[0] * self.scale, self.camera_shape[1] * self.scale

    @property
    def history(self) -> float:
        """Groups before its own that a running image shows; all of them where drift is corrected,
        which is counted from the first.
        """
        return math.inf if self.settings.drift_correction else self.shown

    @property
    def shown(self) -> float:
        """Groups before its own whose light a running image shows."""
        return (self.settings.groups or math.inf) - 1

    @property
    def memory_bytes(self) -> int:
        """The sums, a window's groups, and what a group needs while it is folded in."""
        image = math.prod(self.shape)
        drift = MeanFrameDrift(self.camera_shape).memory_bytes
        window = 4 * image * (self.settings.groups or 1)
        corrected = 4 * self.settings.every * math.prod(self.camera_shape)
        method = self.method.memory_bytes(self.settings.every)
        return 12 * image + window + corrected + method + drift * self.settings.drift_correction

    def reconstruct(self, frames: RawFrames) -> Image:
        """Show what these frames alone show, in tenths of an ADU.

        Raises
        ------
        FrameShapeError
            If there are too few frames, or a frame has another shape.
        """
        image = self.method.picture(self.fold(list(frames)))
        return np.asarray(image * np.float32(UNITS_PER_ADU), np.float32)

    def fold(self, frames: Sequence[Pixels | None]) -> Image:
        """Return what a group shows, as `Method.group`; None where a frame is missing.

        Raises
        ------
        FrameShapeError
            If there are too few frames, or a frame has another shape.
        """
        came = [frame for frame in frames if frame is not None]
        if wrong := [f.shape for f in came if f.shape != self.camera_shape]:
            raise FrameShapeError(
                f"a frame of {wrong[0]} came, this stream expects {self.camera_shape}"
            )
        if len(came) < self.method.fewest:
            raise FrameShapeError(
                f"{len(came)} frames came, fluctuations are measured in at least"
                f" {self.method.fewest}"
            )
        return self.method.group(frames)

    def running(self, correct: Correct | None = None) -> RunningFluctuations:
        """Return what one stream of one run accumulates; `correct` is applied to its frames."""
        return RunningFluctuations(self, correct)


def _method(
    shape: tuple[int, int], settings: FluctuationConfig, sigma_px: float, offset_adu: float
) -> Method:
    if settings.method == "sofi":
        cumulants = Cumulants(shape, settings.order, sigma_px)
        return SOFI(cumulants, sigma_px, settings.deconvolution)
    convergence = Convergence(
        shape,
        settings.magnification,
        settings.radius,
        settings.sensitivity,
        settings.temporal,
        offset_adu=offset_adu,
    )
    return ESRRF(convergence, settings.temporal)


class _Group(NamedTuple):
    """What one group adds to the sum: its image times its frames."""

    t: int
    frames: int
    image: Image


class RunningFluctuations(RunningImage):
    """What one stream has shown so far.

    A group costs the same however long the window is: it is added to a sum, and the group that
    leaves the window is subtracted, in double precision, in which nothing is lost by it.

    Attributes
    ----------
    localisations : None: there are none
    drift_nm : (y, x) that the last group was moved back by; None without correction
    """

    def __init__(
        self, reconstructor: FluctuationReconstructor, correct: Correct | None = None
    ) -> None:
        self._reconstructor, self._correct = reconstructor, correct
        self._total = np.zeros(reconstructor.shape, np.float64)
        self._frames = 0
        self._window: deque[_Group] = deque()
        self._drift = (
            MeanFrameDrift(reconstructor.camera_shape)
            if reconstructor.settings.drift_correction
            else None
        )
        self.drift_nm: tuple[float, ...] | None = None

    def add(self, stack: RawStack) -> Image:
        """Fold a group in, whose exposures may be incomplete.

        Return the image with it, which the caller owns. A group with too few exposures adds
        nothing.
        """
        frames = self._corrected(stack)
        if sum(frame is not None for frame in frames) >= self._reconstructor.method.fewest:
            self._take(stack.t, frames)
        groups = self._reconstructor.settings.groups
        while groups and self._window and self._window[0].t <= stack.t - groups:
            left = self._window.popleft()
            self._total -= left.image
            self._frames -= left.frames
        mean = (self._total / max(self._frames, 1)).astype(np.float32)
        picture = self._reconstructor.method.picture(mean)
        return np.asarray(picture * np.float32(UNITS_PER_ADU), np.float32)

    def _take(self, t: int, frames: Sequence[Pixels | None]) -> None:
        image = self._reconstructor.fold(frames)
        n = sum(frame is not None for frame in frames)
        if self._drift is not None:
            image = self._where_it_was(image, frames)
        image *= np.float32(n)
        self._total += image
        self._frames += n
        if self._reconstructor.settings.groups:
            self._window.append(_Group(t, n, image))

    def _corrected(self, stack: RawStack) -> Sequence[Pixels | None]:
        if self._correct is None:
            return stack.frames
        came = stack.came
        corrected = iter(self._correct(came) if came else ())
        return [None if frame is None else next(corrected) for frame in stack.frames]

    def _where_it_was(self, image: Image, frames: Sequence[Pixels | None]) -> Image:
        """Return an image moved back by the drift since the first group, by whole pixels."""
        assert self._drift is not None
        mean = np.zeros(self._reconstructor.camera_shape, np.float32)
        for frame in frames:
            if frame is not None:
                mean += frame
        drift_px = self._drift.update(mean)
        self.drift_nm = tuple(d * self._reconstructor.pixel_size_nm for d in drift_px)
        y, x = (round(d * self._reconstructor.scale) for d in drift_px)
        return moved_back(image, y, x) if y or x else image


def moved_back(image: Image, y: int, x: int) -> Image:
    """Return an image moved by (-y, -x) pixels, dark where nothing is known."""
    moved = np.zeros_like(image)
    height, width = image.shape
    source = image[max(y, 0) : height + min(y, 0), max(x, 0) : width + min(x, 0)]
    top, left = max(-y, 0), max(-x, 0)
    moved[top : top + source.shape[0], left : left + source.shape[1]] = source
    return moved
