"""What the pipeline expects of every reconstruction.

Owns the protocol and the type of a raw stack. A reconstructor turns the raw frames of one time
point into one picture, which is a measurement: nothing is learned or invented here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import LiveSRError
from livesr.base.frames import FrameQuality, Pixels, RawStack
from livesr.optics.exposure import Exposures

RawFrames: TypeAlias = Sequence[Pixels] | Pixels | NDArray[np.float32]
"""The raw frames of one time point in raw-index order.

A sequence of (y, x) or one (n, y, x) array, ADU; float32 if they were corrected.
"""


Fade = tuple[NDArray[np.float32], NDArray[np.float32]]
"""How bright the rows (y,) and the columns (x,) of a picture are: 1 inside."""


class DoubtfulFrameError(LiveSRError):
    """A frame does not show its patterns, and the rig says to refuse such frames.

    Attributes
    ----------
    cause : why, without the numbers of this frame
    """

    def __init__(self, doubt: str, cause: str = "") -> None:
        super().__init__(doubt)
        self.cause = cause or doubt


@runtime_checkable
class ReportsQuality(Protocol):
    """A reconstruction that says how well its last frame can be trusted."""

    quality: FrameQuality | None

    def look_at(self, exposures: Exposures) -> None:
        """Judge the next frame by what its raw frames were before they were corrected.

        Without, by what is given.
        """

    def correct_drift(self, drift_rad: Sequence[float], vectors_um: Sequence[float] = ()) -> None:
        """Reconstruct what follows with the drift of phases and vectors that was recorded for
        it.
        """


@runtime_checkable
class Fades(Protocol):
    """A reconstruction that is darker at its edges than the specimen."""

    @property
    def fade(self) -> Fade:
        """How bright the output is at its edges."""


class Reconstructor(Protocol):
    """Raw frames in, one float32 picture out. One instance serves one stream and one thread."""

    @property
    def scale(self) -> float:
        """Output pixels per camera pixel along each axis."""

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (y, x) of the output."""

    @property
    def memory_bytes(self) -> int:
        """Estimate of the memory that the instance holds, transient buffers included."""

    def reconstruct(self, frames: RawFrames) -> NDArray[np.float32]:
        """Reconstruct one time point: a new picture, float32 of `shape`, in ADU above the camera's
        offset.

        Parameters
        ----------
        frames : raw frames in raw-index order; only read, never kept

        Raises
        ------
        DoubtfulFrameError
            If this frame is not to be shown; the next may be.
        """


class NewerFrames(NamedTuple):
    """A group under way: the newest exposure of every raw index.

    Attributes
    ----------
    frames : by raw index, as the camera gave them, (y, x) each; whoever keeps them knows again by
        identity what it has seen
    before : those of the complete group before
    upload : brings frames to where they are computed with; the next call may overwrite them once
        something computed from them is on the host
    correct : returns frames that were uploaded as the camera's corrections leave them; overwritten
        by the next call
    examine : measures the exposure of frames that were uploaded
    """

    frames: Sequence[Pixels]
    before: Sequence[Pixels]
    upload: Callable[[Sequence[Any]], Sequence[Any]]
    correct: Callable[[Sequence[Any]], Any]
    examine: Callable[[Sequence[Any]], Exposures]


@runtime_checkable
class Updates(Protocol):
    """A reconstruction that makes pictures of a group under way, at the cost of what is new."""

    def remember(self, frames: Sequence[Pixels | None]) -> None:
        """Take note of what the next group to be reconstructed is, as the camera gave it."""

    def update(self, newer: NewerFrames) -> NDArray[np.float32]:
        """Return a picture of the newest exposures, float32 (y, x), in ADU above the offset.

        Raises
        ------
        DoubtfulFrameError
            If it is not to be shown.
        """


class VolumeReconstructor(Protocol):
    """A reconstruction of whole stacks of one size, offline."""

    @property
    def scale(self) -> float:
        """Pixels of the result per camera pixel, along y and x."""

    @property
    def memory_bytes(self) -> int:
        """Most that is held meanwhile, the raw stack and the result included."""

    @property
    def doubt(self) -> str:
        """What is wrong with the last stack, "" if nothing is."""

    @property
    def found(self) -> Sequence[Mapping[str, Any]]:
        """What was measured in the last stack, for a report."""

    def reconstruct(self, stack: NDArray[Any]) -> NDArray[np.float32]:
        """Return the specimen (z, y, x) of raw frames (z, n, y, x), n by raw index."""


class RunningImage(Protocol):
    """What one stream of a run has accumulated so far; serves one thread.

    Derive from it: what a running image does not know is None.

    Attributes
    ----------
    localisations : emitters that the last group added, as measured; records of `LOCALISATION`; None
        where no emitters are looked for
    drift_nm : (y, x), or (y, x, z), that the last group was moved back by; None without correction
    jump_nm : (y, x) by which the specimen jumped before the last group, None if it did not
    emitters_per_um2 : localised in a frame of the last group, per square micrometre; None where no
        emitters are looked for
    depth_nm : mean z of what is drawn in each pixel of the last picture, float32 (y, x), NaN where
        nothing is; a new array for each; None where z is not measured
    given_drift_nm : drift of every exposure, (exposures, axes), where it is known beforehand and
        not to be followed; set before the first group
    """

    localisations: NDArray[np.void] | None = None
    drift_nm: tuple[float, ...] | None = None
    jump_nm: tuple[float, float] | None = None
    emitters_per_um2: float | None = None
    depth_nm: NDArray[np.float32] | None = None
    given_drift_nm: NDArray[np.float64] | None = None

    def add(self, stack: RawStack) -> NDArray[np.float32]:
        """Take a group, whose exposures may be incomplete.

        Return the picture with it, float32 (y, x), which the caller owns. Groups come in order of
        time.
        """


@runtime_checkable
class Accumulates(Protocol):
    """A reconstruction whose pictures are made of earlier groups as well, so that a group with
    exposures missing is still of use.
    """

    @property
    def history(self) -> float:
        """Groups before its own that a picture is made of; infinite for all since the run began."""

    @property
    def shown(self) -> float:
        """Groups before its own whose light a picture shows: those of `history`, or fewer where
        earlier ones only say where it belongs.
        """

    def running(
        self, correct: Callable[[list[Pixels]], NDArray[np.float32]] | None = None
    ) -> RunningImage:
        """Return what one stream of one run accumulates; `correct` is applied to its frames."""


@runtime_checkable
class TellsDepth(Protocol):
    """A reconstruction that may know how high what it draws lies."""

    @property
    def depth_range_nm(self) -> tuple[float, float] | None:
        """Lowest and highest z in nm; None where z is not measured."""


@runtime_checkable
class TellsDrift(Protocol):
    """A reconstruction that knows, once a run is over, how far the specimen had drifted."""

    def drift_of(self, localisations: NDArray[np.void], exposures: int) -> NDArray[np.float64]:
        """Return the drift of every exposure in nm, (exposures, axes), by all of a stream's
        `localisations`, as measured, at once.
        """
