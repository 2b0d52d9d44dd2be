"""Sinks that a script or a package gives to a run: what they get, and what they cannot do to it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from pymmcore_plus import CMMCorePlus
from useq import MDASequence

import waiting
from livesr import LiveSR, Replay, Sink
from livesr.base.errors import ConfigError, RunError
from livesr.base.frames import MulticolorFrame, RawStack, SRFrame
from livesr.base.run_description import RunDescription
from livesr.formats.store import RecordedStore
from livesr.formats.zarr_files import open_array
from livesr.live.sinks import thread
from livesr.store.raw_input import ReadAs
from rig_copies import RIGS
from rigs import core_of

FRAMES = 12


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recording") / "raw.tif"
    rng = np.random.default_rng(0)
    tifffile.imwrite(file, rng.integers(100, 900, (FRAMES, 64, 64), np.uint16))
    return file


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rig") / "demo"
    shutil.copytree(RIGS / "demo", folder)
    file = folder / "rig.yaml"
    text = file.read_text(encoding="utf-8").replace("imcsr-mt-er-lyso-light", "identity")
    file.write_text(text, encoding="utf-8")
    return folder


def play(recording: Path, rig: Path, store: Path | None, *sinks: Sink | str) -> Replay:
    replay = Replay(
        recording,
        rig=rig,
        how=ReadAs(channel="488"),
        rate="max",
        policy="complete",
        store=store,
        sinks=sinks,
    )
    with replay:
        replay.run()
    return replay


class Kept(Sink):
    """Keeps what comes."""

    name = "kept"
    lossless = True

    def __init__(self) -> None:
        self.runs: list[RunDescription] = []
        self.raw_t: list[int] = []
        self.images: list[SRFrame] = []
        self.frames: list[MulticolorFrame] = []
        self.reports: list[Mapping[str, Any]] = []

    def open(self, run: RunDescription) -> None:
        self.runs.append(run)

    def raw(self, stack: RawStack) -> None:
        self.raw_t.append(stack.t)

    def recon(self, frame: SRFrame) -> None:
        self.images.append(frame)

    def separated(self, frame: MulticolorFrame) -> None:
        self.frames.append(frame)

    def close(self, report: Mapping[str, Any]) -> None:
        self.reports.append(report)


class Raises(Sink):
    name = "raises"
    lossless = True  # one that may miss frames can miss them all on a busy computer

    def recon(self, frame: SRFrame) -> None:
        raise ZeroDivisionError("mine")


class Hangs(Sink):
    name = "hangs"

    def __init__(self, until: threading.Event) -> None:
        self._until = until

    def separated(self, frame: MulticolorFrame) -> None:
        self._until.wait()


@pytest.fixture
def until() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()
    waiting.until(lambda: all(t.name != "livesr-hangs" for t in threading.enumerate()))


def test_a_lossless_sink_gets_what_the_store_holds(
    recording: Path, rig: Path, tmp_path: Path
) -> None:
    kept = Kept()
    replay = play(recording, rig, tmp_path / "run.ome.zarr", kept)
    times = list(range(FRAMES))
    assert kept.raw_t == [frame.t for frame in kept.images] == times
    assert [frame.t for frame in kept.frames] == times
    (run,) = kept.runs
    store = RecordedStore(tmp_path / "run.ome.zarr")
    sr = np.asarray(open_array(store.images["sr", 0, "488"].array)[:])
    assert np.array_equal(sr, np.stack([frame.channels for frame in kept.frames]))
    assert run.channel("488").labels == tuple(replay.report["channels"]["488"]["labels"])
    assert kept.reports[0]["sr_frames"] == replay.report["sr_frames"] == FRAMES


def test_sinks_that_raise_and_hang_leave_the_recording_whole(
    recording: Path,
    rig: Path,
    tmp_path: Path,
    until: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(thread, "_PATIENCE_S", 0.5)
    kept = Kept()
    replay = play(recording, rig, tmp_path / "run.ome.zarr", Raises(), Hangs(until), kept)
    report = replay.report
    assert report["error"] is None
    assert report["raw_lost"] == 0
    assert report["sr_frames"] == len(kept.frames) == FRAMES
    assert len(RecordedStore(tmp_path / "run.ome.zarr").pictures("raw")) == FRAMES
    said = " ".join(report["warnings"])
    assert "Sink 'raises' failed in recon: ZeroDivisionError: mine. The run goes on" in said
    assert "Sink 'hangs' does not come back from " in said


def test_the_error_of_an_essential_sink_ends_the_run(recording: Path, rig: Path) -> None:
    class Needed(Raises):
        name = "needed"
        lossless = essential = True

    with pytest.raises(RunError, match="Sink 'needed' failed in recon: ZeroDivisionError"):
        play(recording, rig, None, Needed())


def test_a_sink_that_refuses_the_start_starts_nothing(
    recording: Path, rig: Path, tmp_path: Path
) -> None:
    class Refuses(Sink):
        name = "refuses"

        def open(self, run: RunDescription) -> None:
            raise ConfigError("There is no such table.")

    with pytest.raises(ConfigError, match="no such table"):
        play(recording, rig, tmp_path / "run.ome.zarr", Refuses())
    assert not list(tmp_path.iterdir())


def test_what_is_no_sink_is_refused_at_once(recording: Path, rig: Path) -> None:
    with pytest.raises(ConfigError, match="is no sink"):
        play(recording, rig, None, object())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Unknown sink 'intensities'"):
        play(recording, rig, None, "intensities")
    with pytest.raises(ConfigError, match="Two sinks are called 'kept'"):
        play(recording, rig, None, Kept(), Kept())


@pytest.fixture(scope="module")
def core(rig: Path) -> Iterator[CMMCorePlus]:
    with core_of(rig, exposure_ms=5, demo_px=64) as core:
        yield core


def test_one_object_serves_one_run_after_the_other(core: CMMCorePlus, rig: Path) -> None:
    kept = Kept()
    plan = MDASequence(time_plan={"interval": 0, "loops": 4}, channels=[{"config": "488"}])
    with LiveSR(core, rig=rig, policy="complete", sinks=[kept]) as live:
        for _ in range(2):
            core.mda.run(plan)
            live.wait()
    assert [frame.t for frame in kept.frames] == [0, 1, 2, 3] * 2
    assert len({run.stream_id for run in kept.runs}) == len(kept.reports) == 2


def test_the_output_of_the_runner_works_beside_it(
    core: CMMCorePlus, rig: Path, tmp_path: Path
) -> None:
    plan = MDASequence(time_plan={"interval": 0.05, "loops": 5}, channels=[{"config": "488"}])
    store, beside = tmp_path / "run.ome.zarr", tmp_path / "beside.ome.zarr"
    with LiveSR(core, rig=rig, policy="complete", store=store, plan=plan) as live:
        core.mda.run(plan, output=beside)
    assert live.report["raw_lost"] == 0
    ours = np.asarray(open_array(RecordedStore(store).images["raw", 0, "488"].array)[:])
    arrays = [path.parent for path in beside.rglob("zarr.json") if '"array"' in path.read_text()]
    theirs = np.asarray(open_array(arrays[0])[:])
    assert len(ours) == 5
    assert np.array_equal(ours.squeeze(), theirs.squeeze())
