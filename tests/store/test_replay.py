"""A recording in the place of a camera: same pipeline, same store, whatever the rate."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from livesr.base.errors import ConfigError, DamagedFileError
from livesr.base.frames import CameraFrame, MulticolorFrame, Stream
from livesr.base.geometry import Geometry
from livesr.formats.store import RecordedStore
from livesr.live.inference.engine import Engine
from livesr.live.sources.mda import MDAHook
from livesr.live.sources.replay import Rate, play
from livesr.store.process import process
from livesr.store.raw_input import ReadAs, raw_input, recording_input, store_input
from livesr.store.repair import repair
from livesr.store.replay import Replay
from recorded_runs import SIZE, Live, array, assert_equal, lines, moving_groups, sim_rig
from recordings import write_dv, write_mmstack, write_mrc, write_ndtiff, write_ome_zarr
from waiting import until

RUNTIME: dict[str, Any] = {"backend": "openvino", "precision": "f32", "threads": 1}
ALL = {"rate": "max", "policy": "complete", **RUNTIME}


def replayed(recording: Path, store: Path, **options: Any) -> Replay:
    with Replay(recording, store=store, **{**ALL, **options}) as replay:
        replay.run()
    return replay


def test_a_store_replayed_equals_the_run_and_its_processing(tmp_path: Path, engine: Engine) -> None:
    live = Live(sim_rig("mixing"), tmp_path / "live.ome.zarr", origin=(3.0, 7.0))
    live.record(moving_groups(12))
    report = replayed(live.sink.path, tmp_path / "again.ome.zarr").report
    assert (report["raw_frames"], report["recon_frames"], report["sr_frames"]) == (108, 12, 12)
    assert report["replay"] == {"recording": str(live.sink.path), "rate": "max"}
    again = Path(report["store"])
    assert_equal(live.sink.path, again)
    offline = process(store_input(RecordedStore(live.sink.path)), tmp_path / "offline.ome.zarr")
    assert_equal(Path(offline["store"]), again)
    for key, line in lines(live.sink.path, "sr").items():
        assert line["normalisation"] == lines(again, "sr")[key]["normalisation"]
    stream = Stream(0, "488")
    assert (
        lines(again, "sr")[stream, 0]["t_acq_ns"]
        > lines(live.sink.path, "sr")[stream, 11]["t_acq_ns"]
    )


def test_a_group_whose_time_nobody_knows_is_not_waited_for(tmp_path: Path) -> None:
    live = Live(sim_rig("none"), tmp_path / "live.ome.zarr")
    live.record(moving_groups(3))
    log = live.sink.path / "livesr" / "frames.jsonl"
    kept = [line for line in log.read_text().splitlines(True) if '"t": 1' not in line]
    log.write_text("".join(kept), encoding="utf-8")
    repair(live.sink.path)
    with Replay(live.sink.path, rate="recorded", **RUNTIME) as replay:
        thread = threading.Thread(target=replay.run)
        thread.start()
        thread.join(60)  # the frames are milliseconds apart
        waits = thread.is_alive()
        replay.stop()
        thread.join()
    assert (waits, replay.report["raw_frames"]) == (False, 27)


@pytest.mark.parametrize(
    "form", ["frames", "groups", "imagej", "mmstack", "ndtiff", "mrc", "0.4", "0.5"]
)
def test_every_format_gives_what_the_run_gave(tmp_path: Path, engine: Engine, form: str) -> None:
    groups = moving_groups(4)
    live = Live(sim_rig("mixing"), tmp_path / "live.ome.zarr")
    live.record(groups)
    replay = replayed(
        write(form, tmp_path / "raw.tif", groups),
        tmp_path / "again.ome.zarr",
        rig=sim_rig("mixing"),
    )
    assert_equal(live.sink.path, Path(replay.report["store"]))


def write(form: str, path: Path, groups: np.ndarray) -> Path:
    frames = groups.reshape(-1, SIZE, SIZE)
    n_t, n_raw = groups.shape[:2]
    if form == "mmstack":
        summary = {"Frames": len(frames), "Channels": 1, "Slices": 1, "Positions": 1}
        write_mmstack(
            path, frames, [(0, 0, t, 0) for t in range(len(frames))], summary, [{}] * len(frames)
        )
    elif form == "ndtiff":
        path = path.with_suffix("")
        write_ndtiff(
            path, frames, [{"time": t, "sim": r} for t in range(n_t) for r in range(n_raw)]
        )
    elif form == "mrc":
        path = path.with_suffix(".mrc")
        write_mrc(path, frames)
    elif form in ("0.4", "0.5"):
        path = path.with_suffix(".zarr")
        write_ome_zarr(path, frames, "tyx", version=form)
    else:
        axes = {"imagej": True, "metadata": {"axes": "TYX"}} if form == "imagej" else {}
        tifffile.imwrite(
            path, groups if form == "groups" else frames, photometric="minisblack", **axes
        )
    return path


def test_channels_positions_and_planes_keep_their_places(tmp_path: Path) -> None:
    live = Live(sim_rig("none"), tmp_path / "live.ome.zarr", positions=("A1", "B2"), z_planes=2)
    live.record(moving_groups(3))
    again = replayed(live.sink.path, tmp_path / "again.ome.zarr").report
    assert again["recon_frames"] == 12
    assert_equal(live.sink.path, Path(again["store"]))


def test_channels_of_a_file_are_those_of_the_rig_by_their_names(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(100, 900, (3, 2, SIZE, SIZE)).astype(np.uint16)
    write_ome_zarr(tmp_path / "raw.zarr", frames, "tcyx")
    replay = replayed(tmp_path / "raw.zarr", tmp_path / "o.ome.zarr", rig="demo", engine="none")
    for c, name in enumerate(("488", "561")):
        np.testing.assert_array_equal(
            array(Path(replay.report["store"]), f"raw_0_{name}")[:, 0], frames[:, c]
        )


def stack(path: Path, groups: int = 3) -> np.ndarray:
    frames = moving_groups(groups).reshape(-1, SIZE, SIZE)
    tifffile.imwrite(path, frames, photometric="minisblack")
    return frames


def test_a_file_that_was_cut_off_is_processed_as_far_as_it_goes(tmp_path: Path) -> None:
    frames = stack(tmp_path / "raw.tif")
    whole = (tmp_path / "raw.tif").read_bytes()
    (tmp_path / "raw.tif").write_bytes(whole[: -8 * frames[0].nbytes])
    with pytest.raises(DamagedFileError, match=r"raw\.tif ends within frame") as failure:
        replayed(tmp_path / "raw.tif", tmp_path / "a.ome.zarr", rig=sim_rig("none"))
    assert failure.value.exit_code == 1
    with pytest.raises(DamagedFileError, match=r"raw\.tif ends within frame"):
        process(recording_input(tmp_path / "raw.tif", sim_rig("none")), tmp_path / "b.ome.zarr")
    for name in ("a", "b"):
        recorded = zarr.open_group(tmp_path / f"{name}.ome.zarr", mode="r")
        assert recorded["recon/0"].shape[0] >= 2
        np.testing.assert_array_equal(recorded["raw/0"][:2].reshape(-1, SIZE, SIZE), frames[:18])
        assert "ends within" in (tmp_path / f"{name}.ome.zarr/livesr/report.json").read_text()


def test_a_torn_store_is_replayed_up_to_there(tmp_path: Path) -> None:
    live = Live(sim_rig("none"), tmp_path / "live.ome.zarr")
    live.record(moving_groups(40))
    shards = sorted((live.sink.path / "raw/0/c").iterdir(), key=lambda p: int(p.name))
    assert len(shards) > 1
    for file in shards[-1].rglob("*"):
        if file.is_file():
            file.write_bytes(b"torn")
    with pytest.raises(DamagedFileError, match="raw cannot be read at t="):
        replayed(live.sink.path, tmp_path / "again.ome.zarr")
    assert len(lines(tmp_path / "again.ome.zarr", "recon")) > 0


def test_it_ends_after_so_many_frames_and_when_told(tmp_path: Path) -> None:
    stack(tmp_path / "raw.tif", 6)
    replay = replayed(tmp_path / "raw.tif", tmp_path / "a.ome.zarr", rig=sim_rig("none"), frames=2)
    assert (replay.frames, replay.report["raw_frames"], replay.report["recon_frames"]) == (2, 18, 2)
    with Replay(tmp_path / "raw.tif", rig=sim_rig("none"), rate=5.0, **RUNTIME) as replay:
        threading.Timer(0.3, replay.stop).start()
        started = time.monotonic()
        replay.run()
        assert time.monotonic() - started < 5  # of 10 s
    assert 0 < replay.report["raw_frames"] < 54
    assert replay.error is None


def test_frames_are_emitted_to_scripts(tmp_path: Path, engine: Engine) -> None:
    stack(tmp_path / "raw.tif")
    came: list[MulticolorFrame] = []
    with Replay(tmp_path / "raw.tif", rig=sim_rig("mixing"), **ALL) as replay:
        replay.frame_ready.connect(came.append)
        replay.run()
    assert [frame.t for frame in came] == [0, 1, 2]
    assert replay.report["latency_ms"]["p99"] < 60_000  # of now, not of the recording
    with pytest.raises(ConfigError, match="once"):
        replay.run()


@pytest.mark.parametrize("rate", [-1, 0])
def test_a_rate_that_never_ends_is_refused(tmp_path: Path, rate: float) -> None:
    stack(tmp_path / "raw.tif")
    with pytest.raises(ConfigError, match="rate"):
        Replay(tmp_path / "raw.tif", rig=sim_rig("none"), rate=rate)


# -- what the file does not say --------------------------------------------------------------------


def test_what_the_user_says_is_believed(tmp_path: Path) -> None:
    write_ome_zarr(tmp_path / "raw.zarr", moving_groups(2), "tcyx")
    with pytest.raises(ConfigError, match="not clear which axis counts the 9 raw frames"):
        recording_input(tmp_path / "raw.zarr", sim_rig("none"))
    how = ReadAs(
        axes="t,raw,y,x", channel="488", pixel_size_nm=70, origin_px=(3, 4), interval_s=2.0
    )
    found = recording_input(tmp_path / "raw.zarr", sim_rig("none"), how)
    assert (found.groups, found.run["interval_s"], list(found.cameras)) == (2, 2.0, ["488"])
    assert found.cameras["488"] == Geometry((SIZE, SIZE), "uint16", 0.07, (3, 4))
    assert [(f.t, f.raw) for f in found.frames()] == [(t, r) for t in range(2) for r in range(9)]


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    stack(tmp_path / "raw.tif")
    with pytest.raises(ConfigError, match="give its rig"):
        raw_input(tmp_path / "raw.tif")
    with pytest.raises(
        ConfigError, match=r"channels 488, 561.*does not name one of them: say with --channel"
    ):
        raw_input(
            tmp_path / "raw.tif", sim_rig("none").model_copy(update={"channels": two_channels()})
        )
    unsized = sim_rig("none")
    unsized = unsized.model_copy(
        update={"optics": unsized.optics.model_copy(update={"pixel_size_nm": None})}
    )
    with pytest.raises(ConfigError, match="says how large a pixel is: give --pixel-size"):
        raw_input(tmp_path / "raw.tif", unsized)
    with closing(raw_input(tmp_path / "raw.tif", sim_rig("none"))) as found:
        (note,) = found.notes
    assert "holds no times" in note


def test_exposures_that_make_no_whole_group_are_said(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "raw.tif", np.ones((15, SIZE, SIZE), np.uint16), photometric="minisblack"
    )
    with closing(raw_input(tmp_path / "raw.tif", sim_rig("none"))) as found:
        assert any("the last group has 6 of the 9 raw frames" in note for note in found.notes)


def test_one_of_several_channels_is_read_by_its_name_its_emission_or_its_order(
    tmp_path: Path,
) -> None:
    rig = sim_rig("none").model_copy(update={"channels": two_channels()})
    frames = np.random.default_rng(0).integers(100, 900, (18, 2, SIZE, SIZE)).astype(np.uint16)
    named = {"axes": "TCYX", "Channel": {"Name": ["561", "488"]}}
    tifffile.imwrite(tmp_path / "named.ome.tif", frames, photometric="minisblack", metadata=named)
    tifffile.imwrite(tmp_path / "by_order.tif", frames, imagej=True, metadata={"axes": "TCYX"})
    tifffile.imwrite(
        tmp_path / "plain.tif", frames.reshape(2, 9, 2, SIZE, SIZE), photometric="minisblack"
    )
    write_dv(
        tmp_path / "nm.dv",
        list(frames.reshape(-1, SIZE, SIZE)),
        waves=2,
        times=2,
        interleave=1,
        nm=(605, 525, 0, 0, 0),
    )
    for name, order, how in (
        ("named.ome.tif", ("561", "488"), {}),
        ("named.ome.tif", ("561", "488"), {"axes": "t,raw,c,y,x"}),
        ("by_order.tif", ("488", "561"), {"axes": "t,raw,c,y,x"}),
        ("plain.tif", ("488", "561"), {"axes": "t,raw,c,y,x"}),
        ("nm.dv", ("561", "488"), {}),
    ):
        for channel in ("488", "561"):
            with closing(
                recording_input(tmp_path / name, rig, ReadAs(channel=channel, **how))
            ) as found:
                came = [(f.t, f.raw, f.pixels) for f in found.frames()]
                said = " ".join(found.notes)
            assert [(t, raw) for t, raw, _ in came] == [
                (t, raw) for t in range(2) for raw in range(9)
            ]
            np.testing.assert_array_equal(
                [pixels for _, _, pixels in came], frames[:, order.index(channel)]
            )
            assert ("names no channel" in said) == (name != "named.ome.tif")
        if "axes" in how or name == "nm.dv":
            with closing(recording_input(tmp_path / name, rig, ReadAs(**how))) as found:
                assert (tuple(found.cameras), found.groups) == (order, 4)
                assert ("names no channel as rig.yaml does" in " ".join(found.notes)) == (
                    name != "named.ome.tif"
                )


def test_a_channel_that_cannot_be_told_is_refused(tmp_path: Path) -> None:
    rig = sim_rig("none").model_copy(update={"channels": two_channels()})
    frames = np.ones((18, 2, SIZE, SIZE), np.uint16)
    named = {"axes": "TCYX", "Channel": {"Name": ["488", "DAPI"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", frames, photometric="minisblack", metadata=named)
    with pytest.raises(
        ConfigError,
        match=r"has the channels '488', 'DAPI', and rig .* which of them is '561' is not known",
    ):
        recording_input(tmp_path / "a.ome.tif", rig, ReadAs(channel="561"))
    with pytest.raises(ConfigError, match=r"its channels are '488', 'DAPI': say with --channel"):
        recording_input(tmp_path / "a.ome.tif", rig, ReadAs(axes="t,raw,c,y,x"))


def test_pixels_that_are_not_square_are_refused(tmp_path: Path) -> None:
    about = {
        "axes": "TYX",
        "PhysicalSizeX": 65e-9,
        "PhysicalSizeXUnit": "m",
        "PhysicalSizeY": 130,
        "PhysicalSizeYUnit": "nm",
    }
    tifffile.imwrite(
        tmp_path / "a.ome.tif", moving_groups(1)[0], photometric="minisblack", metadata=about
    )
    imagej = {"axes": "TYX", "unit": "um"}
    tifffile.imwrite(
        tmp_path / "b.tif",
        moving_groups(1)[0],
        imagej=True,
        resolution=(1 / 0.065, 1 / 0.13),
        metadata=imagej,
    )
    for name in ("a.ome.tif", "b.tif"):
        with pytest.raises(
            ConfigError, match=r"130.0 nm high and 65.0 nm wide; livesr needs square pixels"
        ):
            recording_input(tmp_path / name, sim_rig("none"))
        with closing(
            recording_input(tmp_path / name, sim_rig("none"), ReadAs(pixel_size_nm=65))
        ) as found:
            assert found.cameras["488"].pixel_size_um == 0.065


def test_what_is_missing_is_in_the_report_offline_and_replayed(tmp_path: Path) -> None:
    """Of positions that ended at different times every frame is where it was, and the rest is
    counted."""
    groups = moving_groups(3)
    with tifffile.TiffWriter(tmp_path / "raw.ome.tif", ome=True) as writer:
        for name, n in (("A", 27), ("B", 18)):
            part = groups.reshape(-1, SIZE, SIZE)[:n]
            writer.write(part, photometric="minisblack", metadata={"axes": "TYX", "Name": name})
    frames = groups.reshape(-1, SIZE, SIZE).copy()
    frames[3] = 0
    write_ome_zarr(tmp_path / "raw.zarr", frames, "tyx")
    for name, words in (
        ("raw.ome.tif", "raw.ome.tif: 9 of 54 frames are not there (position B has 18 of 27)"),
        (
            "raw.zarr",
            (
                "raw.zarr: 1 of 27 frames are not there (the first is t=3; they were left out, or"
                " are black)"
            ),
        ),
    ):
        how = ReadAs(axes="p,t,raw,y,x" if name == "raw.ome.tif" else None)
        replay = replayed(
            tmp_path / name, tmp_path / f"r_{name}.ome.zarr", rig=sim_rig("none"), how=how
        ).report
        offline = process(
            recording_input(tmp_path / name, sim_rig("none"), how), tmp_path / f"o_{name}.ome.zarr"
        )
        for report in (replay, offline):
            assert sum(words in warning for warning in report["warnings"]) == 1
            if name == "raw.ome.tif":
                store = Path(report["store"])
                np.testing.assert_array_equal(array(store, "raw_A_488"), groups)
                np.testing.assert_array_equal(array(store, "raw_B_488"), groups[:2])
                assert (report["raw_frames"], report["recon_frames"]) == (45, 5)


def time_steps_s(store: Path) -> dict[str, float]:
    return {name.name: name.scale["t"] for name in RecordedStore(store).images.values()}


@pytest.mark.parametrize("rate", ["max", 30.0])  # faster and slower than the recording
@pytest.mark.parametrize("said", [True, False])
def test_the_time_axis_of_a_replayed_store_is_the_recordings(
    tmp_path: Path, engine: Engine, rate: Rate, said: bool
) -> None:
    live = Live(sim_rig("mixing"), tmp_path / "live.ome.zarr")
    live.record(moving_groups(4), pace_s=lambda t: 0.1)
    wanted = time_steps_s(live.sink.path)
    assert min(wanted.values()) >= 0.1
    if not said:  # its images, killed before they could, leave it to frames.jsonl
        for name in wanted:
            file = live.sink.path / name / "zarr.json"
            about = json.loads(file.read_text())
            dataset = about["attributes"]["ome"]["multiscales"][0]["datasets"][0]
            dataset["coordinateTransformations"][0]["scale"][0] = 1.0
            file.write_text(json.dumps(about))
    replay = replayed(live.sink.path, tmp_path / "again.ome.zarr", rate=rate)
    assert time_steps_s(Path(replay.report["store"])) == pytest.approx(wanted)


def test_an_interval_that_a_recording_is_said_to_have_is_that_of_the_store(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "r.tif", moving_groups(4).reshape(-1, SIZE, SIZE))
    how = ReadAs(interval_s=0.1)
    for rate in ("max", 45.0):
        replay = replayed(
            tmp_path / "r.tif", tmp_path / "o.ome.zarr", rig=sim_rig("none"), how=how, rate=rate
        )
        store = Path(replay.report["store"])
        assert list(time_steps_s(store).values()) == pytest.approx([0.1] * 2)
        assert not any("the plan asks for" in warning for warning in replay.report["warnings"])


def two_channels() -> dict[str, Any]:
    only = next(iter(sim_rig("none").channels.values()))
    return {"488": only, "561": only.model_copy(update={"emission_nm": 605})}


def test_a_pixel_size_that_differs_is_a_warning(tmp_path: Path) -> None:
    about = {"axes": "TYX", "unit": "um", "finterval": 0.01}
    tifffile.imwrite(
        tmp_path / "r.tif", moving_groups(1)[0], imagej=True, resolution=(10, 10), metadata=about
    )
    replay = replayed(tmp_path / "r.tif", tmp_path / "o.ome.zarr", rig=sim_rig("none"))
    assert any("100.0 nm a pixel, rig.yaml 65.0 nm" in w for w in replay.report["warnings"])


# -- pace ------------------------------------------------------------------------------------------


class Clock:
    """`time.monotonic` and a stopped-event whose waiting passes the time."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        return False

    def is_set(self) -> bool:
        return False


def arrivals(
    monkeypatch: pytest.MonkeyPatch,
    stamps_ms: list[float | None],
    rate: Rate,
    spacing_s: float = 0,
    host_ms: Sequence[float] = (),
) -> list:
    clock = Clock()
    monkeypatch.setattr("livesr.live.sources.replay.time", clock)
    monkeypatch.setattr("livesr.live.sources.replay.now_ns", lambda: round((clock.now - 100) * 1e9))
    hook = MDAHook(lambda: 1000, lambda: None)
    pixels = np.zeros((2, 2), np.uint16)
    host_ms = host_ms or [7 * i if ms is None else ms for i, ms in enumerate(stamps_ms)]
    frames = [
        CameraFrame(pixels, Stream(), 0, i % 3, int(1e6 * host), ms)
        for i, (ms, host) in enumerate(zip(stamps_ms, host_ms, strict=True))
    ]
    play(hook, frames, clock, rate, spacing_s)
    return [round(hook.get().t_host_ns / 1e6, 3) for _ in frames]


def test_frames_come_at_the_recorded_times(monkeypatch: pytest.MonkeyPatch) -> None:
    assert arrivals(monkeypatch, [50, 60, 90, 95], "recorded") == [0, 10, 40, 45]
    assert arrivals(monkeypatch, [None, None, None], "recorded") == [
        0,
        7,
        14,
    ]  # of their arrival then
    assert arrivals(monkeypatch, [50, 50, 50, 80, 80, 80], "recorded", 0.004) == [
        0,
        4,
        8,
        30,
        34,
        38,
    ]
    assert arrivals(monkeypatch, [50, 60, 5, 10], "recorded") == [
        0,
        10,
        10,
        15,
    ]  # the camera's clock began anew


def test_a_clock_that_begins_anew_with_every_sequence_is_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A time lapse of triggered groups was played without its pauses, and its time axis was as
    wrong.
    """
    began_anew = [50.8, 50.4, 53.1]
    assert arrivals(monkeypatch, began_anew, "recorded", host_ms=[0, 3000, 6000]) == [
        0,
        3000,
        6000,
    ]


def test_frames_come_at_a_rate_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert arrivals(monkeypatch, [50, 60, 90], 100.0) == [0, 10, 20]
    assert arrivals(monkeypatch, [50, 60, 90], "max") == [0, 0, 0]


def test_reading_runs_only_a_little_ahead() -> None:
    read = []

    def frames():
        for i in range(200):
            read.append(i)
            yield CameraFrame(np.zeros((2, 2), np.uint16), Stream(), 0, 0, i)

    room, stopped = threading.Event(), threading.Event()
    hook = MDAHook(lambda: 1000 if room.is_set() else 5, lambda: None)
    player = threading.Thread(
        target=play, args=(hook, frames(), stopped, "max"), name="livesr-test"
    )
    player.start()
    until(lambda: len(read) >= 20)
    time.sleep(0.05)
    assert len(read) <= 5 + 16 + 2  # what waits in the queue, the look-ahead, one in each hand
    room.set()
    player.join()
    assert hook.received == 200
