"""livesr beside what a GUI does on the same core.

Previews that look at the newest frame, autofocus, stages that move.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import useq
import zarr
from pymmcore_plus import CMMCorePlus

from livesr import LiveSR
from livesr.base.config import load_rig
from livesr.base.errors import RunError
from livesr.live.sources.delivery import DRAINED
from livesr.live.sources.plan import RawFramesPlan, sim_sequence
from rig_copies import RIGS
from rigs import core_of, virtual_sim

SIZE = 64


@pytest.fixture(scope="module")
def demo_core() -> Iterator[CMMCorePlus]:
    with core_of("demo", exposure_ms=10, demo_px=SIZE) as core:
        core.setConfig("Channel", "488")
        yield core
        core.stopSequenceAcquisition()


class Preview:
    """The live view of pymmcore-widgets and napari-micromanager (`asks` False), and of
    pymmcore-gui until 2025 (`asks`), without a window.

    All three start a timer when a sequence starts and show `getLastImage()`, which takes nothing
    out of the buffer; in an MDA they are shown what `frameReady` brings.
    """

    def __init__(self, core: CMMCorePlus, asks: bool) -> None:
        self._core, self._asks = core, asks
        self.shown: list[int] = []
        self.during_mda = 0
        self._runs, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._timer, name="preview")

    def _timer(self) -> None:
        while not self._over.wait(self._core.getExposure() / 1e3):
            if not self._runs.is_set() or (self._asks and not self._core.getRemainingImageCount()):
                continue
            with suppress(
                RuntimeError, IndexError, SystemError
            ):  # what pymmcore says of an empty buffer
                self.shown.append(hash(self._core.getLastImage().tobytes()))

    def _started(self) -> None:
        self._runs.set()

    def _stopped(self) -> None:
        self._runs.clear()

    def _frame_ready(self, image: np.ndarray, event: Any, metadata: Any) -> None:
        self.during_mda += 1

    @contextmanager
    def open(self) -> Iterator[None]:
        events = self._core.events
        listeners = [
            (events.continuousSequenceAcquisitionStarted, self._started),
            (events.sequenceAcquisitionStopped, self._stopped),
            (self._core.mda.events.frameReady, self._frame_ready),
            *([(events.sequenceAcquisitionStarted, self._started)] if self._asks else []),
        ]
        for signal, listener in listeners:
            signal.connect(listener)
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()
            for signal, listener in listeners:
                signal.disconnect(listener)


@pytest.mark.parametrize("asks", [False, True])
def test_peek_and_a_preview_both_get_frames(
    demo_core: CMMCorePlus, asks: bool, tmp_path: Path
) -> None:
    preview = Preview(demo_core, asks)
    settings = {
        "rig": "demo",
        "engine": "none",
        "live": "peek",
        "store": tmp_path / "peek.ome.zarr",
    }
    with LiveSR(demo_core, **settings) as session, preview.open():
        demo_core.startContinuousSequenceAcquisition()
        deadline = time.monotonic() + 60
        while min(session.status().get("raw_frames", 0), len(preview.shown)) < 30:
            assert time.monotonic() < deadline, (
                f"{session.status()} beside {len(preview.shown)} shown"
            )
            time.sleep(0.01)
        demo_core.stopSequenceAcquisition()
        report = session.wait()
    assert report["raw_frames"] >= 30
    assert len(set(preview.shown)) > 5  # the demo camera's wave comes back
    assert report["raw_lost"] == 0
    stored = zarr.open_group(report["store"], mode="r")[
        "raw_488/0" if "raw_488" in str(report["channels"]) else "raw/0"
    ]
    assert stored.shape[0] >= report["raw_frames"]


def test_a_preview_can_draw_what_livesr_took(demo_core: CMMCorePlus) -> None:
    seen = []
    with LiveSR(demo_core, rig="demo", engine="none", live="own") as session:
        assert session.camera_pixels is None
        demo_core.startContinuousSequenceAcquisition()
        deadline = time.monotonic() + 60
        while len(seen) < 3 and time.monotonic() < deadline:
            pixels = session.camera_pixels
            if pixels is not None and not any(pixels is one for one in seen):
                seen.append(pixels)
            time.sleep(0.005)
        assert session.status()["raw_missing"] == 0
        demo_core.stopSequenceAcquisition()
        report = session.wait()
        assert session.camera_pixels is None
    assert [pixels.shape for pixels in seen] == [(SIZE, SIZE)] * 3
    assert report["raw_missing"] == 0


@pytest.mark.parametrize("asks", [False, True])
def test_an_mda_loses_nothing_to_a_preview(demo_core: CMMCorePlus, asks: bool) -> None:
    preview = Preview(demo_core, asks)
    plan = useq.MDASequence(time_plan=useq.TIntervalLoops(interval=0, loops=40), channels=["488"])
    with LiveSR(demo_core, rig="demo", engine="none", live="peek") as session, preview.open():
        demo_core.mda.run(plan)
        report = session.wait()
    assert (report["raw_frames"], report["raw_missing"], preview.during_mda) == (40, 0, 40)


def test_an_mda_beside_a_preview_that_takes_frames_says_so(tmp_path: Path) -> None:
    """pymmcore-gui's preview of 2026 empties the buffer in its timer, also during a triggered MDA:
    what it took is missing, what follows is in its place all the same, and the run says why."""
    stolen: list[int] = []
    plan = sim_sequence(8, ["488"])
    with virtual_sim(exposure_ms=2.0) as core:

        def steal(image: np.ndarray, event: Any, metadata: Any) -> None:
            seen.append(event)
            if len(seen) % 20 == 10:
                deadline = time.monotonic() + 20
                while not core.getRemainingImageCount():
                    assert time.monotonic() < deadline
                stolen.append(int(core.popNextImage()[0, 0]))

        seen: list[Any] = []
        core.mda.events.frameReady.connect(steal)
        session = LiveSR(core, rig="virtual_sim", engine="none", store=tmp_path / "d.ome.zarr")
        with pytest.raises(RunError, match="another program takes frames"), session:
            core.mda.run(plan)
        core.mda.events.frameReady.disconnect(steal)
    report = session.report
    assert len(stolen) == report["raw_missing"] == 72 - report["raw_frames"] > 1
    assert DRAINED in report["warnings"]
    stamps = zarr.open_array(f"{report['store']}/raw/0", mode="r")[..., 0, 0].astype(int).ravel()
    expected = stamps[0] + np.arange(72)
    np.testing.assert_array_equal(stamps, np.where(np.isin(expected, stolen), 0, expected))


@pytest.fixture
def focusing(tmp_path: Path) -> Iterator[tuple[CMMCorePlus, Path]]:
    """The virtual SIM rig with Micro-Manager's demo autofocus."""
    target = tmp_path / "focusing"
    shutil.copytree(RIGS / "virtual_sim", target)
    cfg = (target / "rig.cfg").read_text(encoding="utf-8")
    for before, after in (
        ("Device,Z,", "Device,Autofocus,DemoCamera,DAutoFocus\nDevice,Z,"),
        ("Parent,Z,DHub", "Parent,Z,DHub\nParent,Autofocus,DHub"),
        ("Property,Core,Focus,Z", "Property,Core,Focus,Z\n#py Property,Core,AutoFocus,Autofocus"),
    ):
        assert before in cfg
        cfg = cfg.replace(before, after, 1)
    (target / "rig.cfg").write_text(cfg, encoding="utf-8")
    with core_of(target, 1, SensorSize=SIZE, TimePoints=2) as core:
        core.setProperty("Camera", "Stamp", 1)
        yield core, target


def test_autofocus_and_moves_between_groups_leave_them_whole(
    focusing: tuple[CMMCorePlus, Path], tmp_path: Path
) -> None:
    core, folder = focusing
    rig = load_rig(folder)
    assert core.getAutoFocusDevice() == "Autofocus"
    plan = RawFramesPlan(
        useq.MDASequence(
            time_plan=useq.TIntervalLoops(interval=0, loops=2),
            stage_positions=[(0, 0, 1), (50, 20, 2), (10, 80, 3)],
            channels=["488"],
            axis_order="tpc",
            autofocus_plan=useq.AxesBasedAF(
                autofocus_device_name="Z", autofocus_motor_offset=5, axes=("p", "t")
            ),
        ),
        rig.raw_frames,
        "488",
    )
    events = [event.action.type for event in plan]
    assert events.count("hardware_autofocus") == 6
    assert all(
        later != "hardware_autofocus" or i % 10 == 0
        for i, (_, later) in enumerate(pairwise(["", *events]))
    )
    focused: list[Any] = []
    moved: list[tuple[float, float]] = []
    core.events.XYStagePositionChanged.connect(lambda device, x, y: moved.append((x, y)))
    core.mda.events.eventStarted.connect(
        lambda event: focused.append(event) if event.action.type == "hardware_autofocus" else None
    )
    core.snapImage()
    first = int(core.getImage()[0, 0]) + 1
    with LiveSR(core, rig=rig, engine="none", plan=plan, store=tmp_path / "af.ome.zarr") as session:
        core.mda.run(plan)
    report = session.report
    assert len(focused) == 6
    assert len(set(moved)) >= 2
    assert (report["groups"], report["groups_incomplete"], report["raw_missing"]) == (6, 0, 0)
    root = zarr.open_group(report["store"], mode="r")
    stamps = np.stack(
        [root[f"raw_{p}_488/0"][..., 0, 0] for p in range(3)], axis=1
    )  # (t, position, raw)
    np.testing.assert_array_equal(stamps.ravel(), first + np.arange(54))
