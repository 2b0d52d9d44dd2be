"""A camera that is set otherwise while a run is acquired delivers frames of the same size that show
another place, or in other pixels: they are kept, and are in no image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import useq
import zarr
from pymmcore_plus import CMMCorePlus

from livesr import LiveSR
from livesr.base.errors import FrameShapeError
from livesr.live.sources.camera_setting import setting_now
from rigs import core_of

PLAN = useq.MDASequence(
    channels=["488"], time_plan=useq.TIntervalLoops(interval=0, loops=8), axis_order="tc"
)


@pytest.fixture
def core() -> Iterator[CMMCorePlus]:
    with core_of("demo", exposure_ms=1, demo_px=32) as core:
        core.mda.engine.use_hardware_sequencing = False  # type: ignore[union-attr]
        core.setProperty("Camera", "PixelType", "16bit")
        yield core


def moved(core: CMMCorePlus) -> None:
    core.setROI(8, 4, 32, 32)


def binned(core: CMMCorePlus) -> None:
    core.setProperty("Camera", "Binning", "2")
    core.setROI(0, 0, 32, 32)


def shallower(core: CMMCorePlus) -> None:
    core.setProperty("Camera", "BitDepth", "12")


def another_objective(core: CMMCorePlus) -> None:
    core.setStateLabel("Objective", core.getStateLabels("Objective")[2])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (moved, r"from \(8, 4\) of Camera.* began with 32 x 32 pixels from \(0, 0\) of Camera"),
        (binned, r"binning 2, pixels of 130 nm.*binning 1, pixels of 65 nm"),
        (shallower, r"12 bit.*16 bit"),
        (another_objective, r"pixels of unknown size.*pixels of 65 nm"),
    ],
)
def test_frames_of_another_setting_are_kept_and_in_no_image(
    core: CMMCorePlus, tmp_path: Path, change: Callable[[CMMCorePlus], None], said: str
) -> None:
    core.setROI(0, 0, 32, 32)
    came = 0

    def react(*_: Any) -> None:
        nonlocal came
        came += 1
        if came == 3:
            change(core)

    core.mda.events.frameReady.connect(react)
    with (
        pytest.raises(FrameShapeError, match=rf"set otherwise.*time point 3.*{said}"),
        LiveSR(core, rig="demo", engine="none", store=tmp_path / "run.ome.zarr") as session,
    ):
        core.mda.run(PLAN)
    report = session.report
    raw = zarr.open_group(report["store"], mode="r")["raw/0"]
    strays = list(Path(report["store"], "livesr", "strays").iterdir())
    assert raw.shape[0] == 3
    assert len(strays) == report["raw_unplaced"] == came - 3 > 0


def test_a_setting_that_is_set_back_before_the_next_frame_is_none(
    core: CMMCorePlus, tmp_path: Path
) -> None:
    core.setROI(0, 0, 32, 32)

    def look_around(*_: Any) -> None:
        moved(core)
        core.snapImage()
        core.setROI(0, 0, 32, 32)

    with LiveSR(core, rig="demo", engine="none", store=tmp_path / "run.ome.zarr") as session:
        core.mda.events.frameReady.connect(look_around)
        core.mda.run(PLAN)
    assert (session.report["raw_frames"], session.report["raw_unplaced"]) == (8, 0)


@pytest.mark.parametrize("given", [False, True])
def test_a_region_that_events_set_is_known_or_refused(
    core: CMMCorePlus, tmp_path: Path, given: bool
) -> None:
    """Nothing announces it where the events of a run are not given."""
    core.setROI(0, 0, 32, 32)
    events = [useq.MDAEvent(index={"t": t}, channel="488", roi=(8, 4, 32, 32)) for t in range(3)]
    session = LiveSR(
        core,
        rig="demo",
        engine="none",
        store=tmp_path / "run.ome.zarr",
        plan=events if given else None,
    )
    refused = pytest.raises(
        FrameShapeError, match=r"from \(8, 4\).* opened for pixels from \(0, 0\)"
    )
    with nullcontext() if given else refused, session:
        core.mda.run(events)
    store = zarr.open_group(session.report["store"], mode="r")
    if given:
        (raw,) = (store[name] for name in store["OME"].attrs["ome"]["series"] if "raw" in name)
        assert raw.attrs["livesr"]["origin_px"] == [4, 8]
    else:
        assert session.report["raw_unplaced"] == session.report["raw_frames"] > 0


def test_a_core_without_a_camera_says_nothing() -> None:
    assert setting_now(CMMCorePlus()) is None
