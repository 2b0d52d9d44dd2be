"""A microscope that writes down where it stood.

Every exposure holds its stage, filter, focus and a count in its first pixels.

What the pixels say comes from the devices, never from the plan: a frame that lands elsewhere shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray
from pymmcore import CMMCore
from pymmcore_plus.experimental.unicore import (
    CameraDevice,
    ShutterDevice,
    StageDevice,
    StateDevice,
    UniMMCore,
    XYStageDevice,
)

from backend_contract import make_engine, model_of
from livesr.base.config import RigConfig, parse
from livesr.live.inference.engine import Engine

SIZE = 16
CHANNELS = ("488", "561", "640")
RAW_FRAMES = 3
_DARK, _ZERO, _STEP = 200, 1000, 10


class Stamp(NamedTuple):
    """Where an exposure was made.

    Stage x and focus in half um, filter, and how many were made there before.
    """

    x: int
    filter: int
    z: int
    count: int


def write(pixels: NDArray[Any], values: Sequence[int]) -> None:
    pixels[0, : len(values)] = [_ZERO + _STEP * value for value in values]


def read(image: NDArray[Any], offset: float = 0.0) -> tuple[int, ...]:
    """Return the numbers in the first pixels.

    `offset` is what is to be added to come back to the camera's ADU.
    """
    return tuple(round((float(v) + offset - _ZERO) / _STEP) for v in image[0, : len(Stamp._fields)])


class _Bench:
    """What stands where."""

    def __init__(self) -> None:
        self.x = self.z = 0.0
        self.filter = 0
        self.made: Counter[tuple[int, int, int]] = Counter()

    def expose(self) -> Stamp:
        where = round(2 * self.x), self.filter, round(2 * self.z)
        self.made[where] += 1
        return Stamp(*where, self.made[where] - 1)


class _Camera(CameraDevice):
    def __init__(self, bench: _Bench) -> None:
        super().__init__()
        self._bench = bench
        self._exposure_ms = 0.5

    def get_exposure(self) -> float:
        return self._exposure_ms

    def set_exposure(self, exposure: float) -> None:
        self._exposure_ms = exposure

    def shape(self) -> tuple[int, int]:
        return SIZE, SIZE

    def dtype(self) -> DTypeLike:
        return np.uint16

    def start_sequence(
        self, n: int | None, get_buffer: Callable[[Sequence[int], DTypeLike], NDArray[Any]]
    ) -> Iterator[Mapping[str, str]]:
        for _ in range(n or 1):
            buffer = get_buffer((SIZE, SIZE), np.uint16)
            buffer[:] = _DARK
            write(buffer, self._bench.expose())
            yield {}


class _XY(XYStageDevice):
    def __init__(self, bench: _Bench) -> None:
        super().__init__()
        self._bench = bench

    def set_position_um(self, x: float, y: float) -> None:
        self._bench.x = x

    def get_position_um(self) -> tuple[float, float]:
        return self._bench.x, 0.0

    def home(self) -> None: ...
    def stop(self) -> None: ...
    def set_origin_x(self) -> None: ...
    def set_origin_y(self) -> None: ...


class _Focus(StageDevice):
    def __init__(self, bench: _Bench) -> None:
        super().__init__()
        self._bench = bench

    def set_position_um(self, val: float) -> None:
        self._bench.z = val

    def get_position_um(self) -> float:
        return self._bench.z

    def home(self) -> None: ...
    def stop(self) -> None: ...
    def set_origin(self) -> None: ...


class _Filters(StateDevice):
    def __init__(self, bench: _Bench) -> None:
        self._bench = bench
        super().__init__({i: name for i, name in enumerate(CHANNELS)})

    def get_state(self) -> int:
        return self._bench.filter

    def set_state(self, position: int) -> None:
        self._bench.filter = int(position)


class _Shutter(ShutterDevice):
    def __init__(self) -> None:
        super().__init__()
        self._open = False
        self.opened = 0

    def get_open(self) -> bool:
        return self._open

    def set_open(self, open: bool) -> None:
        self.opened += open and not self._open
        self._open = open


class CoordinateCore(UniMMCore):
    """A core with that microscope; `start_over` moves it to 0 and lets it count from 0 again."""

    def start_over(self) -> None:
        self.setXYPosition(0, 0)
        self.setPosition(0)
        self.bench.made.clear()

    @classmethod
    @contextmanager
    def loaded(cls) -> Iterator[CoordinateCore]:
        core = cls()
        core.bench = bench = _Bench()
        for label, device in (
            ("Camera", _Camera(bench)),
            ("XY", _XY(bench)),
            ("Focus", _Focus(bench)),
            ("Filters", _Filters(bench)),
            ("Shutter", shutter := _Shutter()),
        ):
            core.loadPyDevice(label, device)
            core.initializeDevice(label)
        core.setCameraDevice("Camera")
        core.setXYStageDevice("XY")
        core.setFocusDevice("Focus")
        core.setShutterDevice("Shutter")
        core.shutter = shutter
        for name in CHANNELS:
            core.defineConfig("Channel", name, "Filters", "Label", name)
        try:
            yield core
        finally:
            core.unloadAllDevices()
            CMMCore.registerCallback(core, None)


def coordinate_rig(channels: Mapping[str, Mapping[str, Any]]) -> RigConfig:
    """A rig whose SIM channels have three raw frames."""
    pattern = {"k_um": [3.0, 0.0]}
    return parse(
        RigConfig,
        {
            "name": "coordinates",
            "modality": "widefield",
            "optics": {"na": 1.4, "pixel_size_nm": 65},
            "sim": {"angles": 1, "phases": RAW_FRAMES, "patterns": [pattern]},
            "channels": channels,
        },
        "test",
    )


def window_engine(folder: Path) -> Engine:
    """An engine whose three channels are the three frames that it saw, unchanged."""
    from onnx import helper, numpy_helper

    weight = numpy_helper.from_array(np.eye(3, dtype=np.float32)[:, :, None, None], "weight")
    node = helper.make_node("Conv", ["frames", "weight"], ["channels"], kernel_shape=[1, 1])
    names = [{"name": name, "color": "FFFFFF"} for name in ("before", "centre", "after")]
    return make_engine(folder, model_of([node], [weight]), channels=names, multiple_of=1, halo=0)


class CoordinateReconstructor:
    """Keeps the first raw frame's coordinates, if the raw frames came in the order in which they
    were exposed."""

    shape, scale, memory_bytes = (SIZE, SIZE), 1, 0

    def __init__(self, offset_adu: float = 100.0) -> None:
        self._offset_adu = np.float32(offset_adu)

    def reconstruct(self, frames: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        stamps = [Stamp(*read(frame)) for frame in frames]
        expected = [stamps[0]._replace(count=stamps[0].count + i) for i in range(RAW_FRAMES)]
        assert stamps == expected, stamps
        return frames[0].astype(np.float32) - self._offset_adu
