"""What the virtual cameras share.

Exposure, region of interest, stamp, pacing, and how a core's camera is found.

Owns no picture: each camera plays its own bank.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Protocol, TypeVar
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import DTypeLike, NDArray
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.experimental.unicore import CameraDevice, pymm_property

_CAMERAS: WeakValueDictionary[str, VirtualCamera] = WeakValueDictionary()
_serial = count(1)


class VirtualCamera(CameraDevice):
    """A camera in Python that plays simulated frames.

    Properties: Stamp (1: pixel (0, 0) of each frame holds the number of the exposure modulo 65536),
    Exposure, TransposeMirrorX and TransposeMirrorY (1: the picture of the region is turned over
    after it was read out), and a software region of interest. `SensorSize` must be a pre-init
    property of the camera itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self._id = f"{type(self).__name__}-{next(_serial)}"
        _CAMERAS[self._id] = self
        self._exposure_ms = 10.0
        self._roi: tuple[int, int, int, int] | None = None
        self._exposures = 0
        self._stamp = False
        self._mirrored = {"X": False, "Y": False}

    # -- what each camera says of itself -----------------------------------------------------------

    def prepare(self, n: int | None) -> None:
        """Compute what the next `n` exposures show, all that there is if None.

        Nothing has to be prepared: this chooses the time when it costs least.
        """

    def start_playing(self, n: int | None) -> None:
        """Get ready for a sequence of `n` exposures, endless if None; 1 is a snap.

        What takes time belongs here: the camera counts as running, and its clock starts, after it.
        """

    def next_frame(self, i: int) -> tuple[NDArray[np.uint16], Mapping[str, str]]:
        """Return exposure `i` of the sequence, the whole chip, uint16 (y, x), and what it says of
        itself.
        """
        raise NotImplementedError

    # -- what UniMMCore asks of a camera -----------------------------------------------------------

    def get_camera_id(self) -> str:
        """Return the name by which `find_sim_camera` knows this camera."""
        return self._id

    def get_exposure(self) -> float:
        """Return the exposure in ms, which is also the time from frame to frame."""
        return self._exposure_ms

    def set_exposure(self, exposure: float) -> None:
        """Set the exposure in ms.

        Raises
        ------
        ValueError
            If it is not above 0.
        """
        if not float(exposure) > 0:
            raise ValueError(f"exposure is {exposure} ms; it must be above 0")
        self._exposure_ms = float(exposure)

    def shape(self) -> tuple[int, int]:
        """Return (y, x) of a frame."""
        _, _, width, height = self.get_roi()
        return height, width

    def dtype(self) -> DTypeLike:
        """Return the pixel type."""
        return np.uint16

    def get_roi(self) -> tuple[int, int, int, int]:
        """Return (x, y, width, height) on the chip."""
        size = int(self._number("SensorSize"))
        return self._roi or (0, 0, size, size)

    def set_roi(self, x: int, y: int, width: int, height: int) -> None:
        """Read out a part of the chip; what the chip sees stays where it is.

        Raises
        ------
        ValueError
            If it is not on the chip.
        """
        size = int(self._number("SensorSize"))
        if min(x, y) < 0 or min(width, height) < 1 or x + width > size or y + height > size:
            raise ValueError(
                f"region (x, y, width, height) = {(x, y, width, height)} is not on a chip of {size}"
                f" x {size}"
            )
        self._roi = (x, y, width, height)

    def clear_roi(self) -> None:
        """Read out the whole chip."""
        self._roi = None

    def start_sequence(
        self, n: int | None, get_buffer: Callable[[Sequence[int], DTypeLike], NDArray[Any]]
    ) -> Iterator[Mapping[str, str]]:
        """Expose `n` frames, or until stopped; one memory copy per frame, paced by the exposure."""
        # Here, not in the generator, which begins in a thread that a stop waits 2 s for.
        self.start_playing(n)
        return self._play(n, get_buffer)

    def _play(
        self, n: int | None, get_buffer: Callable[[Sequence[int], DTypeLike], NDArray[Any]]
    ) -> Iterator[Mapping[str, str]]:
        x, y, width, height = self.get_roi()
        due = time.perf_counter()
        for i in count() if n is None else range(n):
            frame, about = self.next_frame(i)
            due += self._exposure_ms / 1e3
            _wait_until(due)
            buffer = get_buffer((height, width), np.uint16)
            along_y, along_x = (-1 if self._mirrored[axis] else 1 for axis in "YX")
            buffer[:] = frame[y : y + height, x : x + width][::along_y, ::along_x]
            if self._stamp:
                buffer[0, 0] = self._exposures % 65536
            self._exposures += 1
            yield about

    @pymm_property(name="Stamp", limits=(0, 1), property_type=int)
    def stamp(self) -> int:
        """Whether pixel (0, 0) holds the number of the exposure."""
        return int(self._stamp)

    @stamp.setter
    def _set_stamp(self, value: float) -> None:
        self._stamp = bool(int(value))

    @pymm_property(name="TransposeMirrorX", limits=(0, 1), property_type=int)
    def mirror_x(self) -> int:
        """Whether x runs the other way."""
        return int(self._mirrored["X"])

    @mirror_x.setter
    def _set_mirror_x(self, value: float) -> None:
        self._mirrored["X"] = bool(int(value))

    @pymm_property(name="TransposeMirrorY", limits=(0, 1), property_type=int)
    def mirror_y(self) -> int:
        """Whether y runs the other way."""
        return int(self._mirrored["Y"])

    @mirror_y.setter
    def _set_mirror_y(self, value: float) -> None:
        self._mirrored["Y"] = bool(int(value))

    def _number(self, name: str) -> float:
        # A .cfg gives every value as text.
        return float(self.get_property_value(name))


class Bank(Protocol):
    """Raw groups of a simulated specimen."""

    @property
    def frames(self) -> NDArray[np.uint16]:
        """(t, raw, y, x), ADU; computes those that nobody asked for yet."""


class KnowsTruth(VirtualCamera):
    """A virtual camera that knows what every structure of its specimen looks like alone."""

    @property
    def bank(self) -> Bank:
        """The raw groups that it plays."""
        raise NotImplementedError

    @property
    def shown(self) -> Sequence[int]:
        """Bank time point of each group, in order of exposure."""
        raise NotImplementedError

    def truth(self, t: int, *, haze: bool = False) -> dict[str, NDArray[np.float32]]:
        """Return each structure alone at time point `t` of the bank, noise-free, in ADU; with its
        light from far out of focus or without.
        """
        raise NotImplementedError


C = TypeVar("C", bound=VirtualCamera)


def find_virtual_camera(core: CMMCorePlus, kind: type[C]) -> C | None:
    """Return the virtual camera that `core` uses if it is of this `kind`, to ask it for the truth.

    Else None.
    """
    label = core.getCameraDevice()
    if not label or not core.hasProperty(label, "CameraID"):
        return None
    camera = _CAMERAS.get(str(core.getProperty(label, "CameraID")))
    return camera if isinstance(camera, kind) else None


def prepare_virtual_camera(core: CMMCorePlus, exposures: int | None) -> None:
    """Let the core's camera, if it is a virtual one, compute now what a run is going to show.

    Parameters
    ----------
    core : with its devices loaded
    exposures : how many the run takes; all that the camera can show if None
    """
    if (camera := find_virtual_camera(core, VirtualCamera)) is not None:
        camera.prepare(exposures)


def _wait_until(due: float) -> None:
    """Sleep until `due`, some 0.1 ms too long; what comes next is due as if it were none."""
    while (left := due - time.perf_counter()) > 0:
        time.sleep(left)
