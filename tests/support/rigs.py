"""Real cores for tests: the virtual SIM rig on UniMMCore and Micro-Manager's own demo camera."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pymmcore import CMMCore
from pymmcore_plus import CMMCorePlus

from livesr.base.config import load_rig
from livesr.cli.experiment import Experiment
from livesr.cli.session import Request, load_core

SIZE = 64


@contextmanager
def core_of(
    rig: str | Path,
    exposure_ms: float | None = None,
    demo_px: int | None = None,
    **properties: object,
) -> Iterator[CMMCorePlus]:
    """A loaded core; pre-init properties of the virtual camera by name.

    Micro-Manager's demo camera has `demo_px` pixels a side.
    """
    request = Request(
        rig=load_rig(rig),
        experiment=Experiment(frames=1),
        engine="none",
        exposure_ms=exposure_ms,
        properties={k: str(v) for k, v in properties.items()},
    )
    core = load_core(request)
    try:
        if demo_px:
            core.setProperty("Camera", "OnCameraCCDXSize", demo_px)
            core.setProperty("Camera", "OnCameraCCDYSize", demo_px)
        yield core
    finally:
        to_focus(core)
        core.unloadAllDevices()
        CMMCore.registerCallback(core, None)


def to_focus(core: CMMCorePlus) -> None:
    """Move the stage back to 0.

    Micro-Manager's demo camera is the darker the farther from there, and its library remembers
    where a stage was last for the whole process, beyond the core and its devices.
    """
    if core.getFocusDevice():
        core.setPosition(0)
        core.waitForDevice(core.getFocusDevice())


def virtual_sim(
    exposure_ms: float = 1.0, time_points: int = 3, size: int = SIZE, stamp: bool = True
):
    """A small virtual SIM rig.

    With `stamp`, pixel (0, 0) of every exposure is its running number.
    """

    @contextmanager
    def made() -> Iterator[CMMCorePlus]:
        with core_of("virtual_sim", exposure_ms, SensorSize=size, TimePoints=time_points) as core:
            core.setProperty("Camera", "Stamp", int(stamp))
            yield core

    return made()
