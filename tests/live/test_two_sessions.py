"""Two sessions on one core: the one that is left takes nothing away from the other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import useq
from pymmcore_plus import CMMCorePlus

from livesr import LiveSR
from rigs import core_of

N = 20


@pytest.fixture
def core() -> Iterator[CMMCorePlus]:
    with core_of("demo", exposure_ms=1, demo_px=32) as core:
        core.mda.engine.use_hardware_sequencing = False  # type: ignore[union-attr]
        yield core


class Paced:
    """Exposures of which the first half comes at once, and the others when they are let."""

    def __init__(self) -> None:
        self.half, self.rest = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[useq.MDAEvent]:
        for t in range(N):
            if t == N // 2:
                self.half.set()
                assert self.rest.wait(60)
            yield useq.MDAEvent(index={"t": t}, channel="488")


def session(core: CMMCorePlus, store: Path, **how: object) -> LiveSR:
    return LiveSR(core, rig="demo", engine="none", store=store, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("planned", [False, True])
def test_an_acquisition_from_before_a_block_is_left_alone(
    core: CMMCorePlus, tmp_path: Path, caplog: pytest.LogCaptureFixture, planned: bool
) -> None:
    events = Paced()
    own = useq.MDASequence(channels=["488"], time_plan=useq.TIntervalLoops(interval=0, loops=3))
    with session(core, tmp_path / "first.ome.zarr") as first:
        thread = core.run_mda(events)
        assert events.half.wait(60)
        with session(core, tmp_path / "second.ome.zarr", plan=own if planned else None) as second:
            assert "is under way on this core" in caplog.text
            if planned:
                events.rest.set()
                thread.join()
                core.mda.run(own)
        events.rest.set()
        thread.join()
        report = first.wait()
    assert report["error"] is None
    if planned:
        assert second.report["raw_frames"] == 3  # and none of the other's
    else:
        assert report["raw_frames"] == N


def test_a_session_that_is_left_does_not_end_what_another_records(
    core: CMMCorePlus, tmp_path: Path
) -> None:
    events = Paced()
    with session(core, tmp_path / "stays.ome.zarr") as stays:
        with session(core, tmp_path / "leaves.ome.zarr") as leaves:
            thread = core.run_mda(events)
            assert events.half.wait(60)
        events.rest.set()
        thread.join()
    assert (stays.report["raw_frames"], stays.report["error"]) == (N, None)
    assert leaves.report["raw_frames"] == N // 2
    assert any("another LiveSR on the same core goes on" in w for w in leaves.report["warnings"])


def test_an_acquisition_that_nobody_records_goes_on_behind_a_block(
    core: CMMCorePlus, tmp_path: Path
) -> None:
    events, came = Paced(), []
    core.mda.events.frameReady.connect(lambda *_: came.append(1))
    thread = core.run_mda(events)
    assert events.half.wait(60)
    with session(core, tmp_path / "run.ome.zarr"):
        pass
    events.rest.set()
    thread.join()
    assert len(came) == N
    assert not any(tmp_path.iterdir())
