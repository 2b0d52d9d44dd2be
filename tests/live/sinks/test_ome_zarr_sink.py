from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaozarrs
import zarr

from contracts import (
    DISPLAY,
    INTERVAL_NS,
    OFFSET_ADU,
    RAW,
    START_NS,
    SinkContract,
    code,
    describe,
    describe_channel,
    feed,
    multicolor_frame,
    raw_stack,
    sr_frame,
)
from livesr.base.errors import FrameShapeError, RecordingError, StoreError
from livesr.base.files import next_free_path
from livesr.base.frames import RawStack, Stream
from livesr.formats import layout
from livesr.formats.frames_log import read_log
from livesr.formats.series_spec import SeriesSpec
from livesr.live.sinks.capacity import bytes_per_hour, free_bytes, lasting, memory_bytes
from livesr.live.sinks.frames_log import FramesLog
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.live.sinks.series import Series

STREAM = Stream(0, "488")


class TestContract(SinkContract):
    def sink(self, tmp_path: Path) -> OMEZarrSink:
        return OMEZarrSink(tmp_path / "run.ome.zarr")

    def broken(self, tmp_path: Path) -> OMEZarrSink:
        (tmp_path / "file").write_text("not a folder")
        return OMEZarrSink(tmp_path / "file" / "run.ome.zarr")


@pytest.fixture
def sink(tmp_path: Path):
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    yield sink
    sink.close({})


def images(store: Path) -> dict[str, np.ndarray]:
    """Validate the store and return its arrays by name."""
    yaozarrs.validate_zarr_store(store)
    names = json.loads((store / "OME" / "zarr.json").read_text())["attributes"]["ome"]["series"]
    return {name: zarr.open_array(store / name / "0", mode="r")[:] for name in names}


def attributes(store: Path, name: str) -> dict:
    return json.loads((store / name / "zarr.json").read_text())["attributes"]


def events(store: Path, state: str) -> list[dict]:
    return [e for e in read_log(store / layout.FRAMES_LOG).events if e["state"] == state]


class TestRouting:
    def test_one_position_and_channel(self, sink: OMEZarrSink) -> None:
        sink.open(describe())
        for t in range(20):
            feed(sink, t)
        sink.separated(multicolor_frame(19))
        sink.close({})
        stored = images(sink.path)
        assert {name: a.shape for name, a in stored.items()} == {
            "raw": (20, 9, 16, 16),
            "recon": (20, 32, 32),
            "sr": (20, 3, 32, 32),
        }
        for t in range(20):
            assert stored["recon"][t, 0, 0] == code(STREAM, t)
            assert list(stored["raw"][t, :, 0, 0]) == [code(STREAM, t, i) for i in range(RAW)]
            assert list(stored["sr"][t, :, 0, 0]) == [code(STREAM, t, c) for c in range(3)]

    def test_every_pixel_of_every_plane(self, sink: OMEZarrSink) -> None:
        sink.open(describe())
        blocks = np.random.default_rng(0).integers(0, 65536, (4, RAW, 16, 16), dtype=np.uint16)
        expected = blocks.copy()
        for t, block in enumerate(blocks):
            sink.raw(RawStack(tuple(block), STREAM, t, START_NS, START_NS))
            block[:] = 0  # the writer must have copied what it was given
        sink.close({})
        assert np.array_equal(images(sink.path)["raw"], expected)

    def test_positions_channels_and_planes(self, sink: OMEZarrSink) -> None:
        run = describe(channels=("488", "561"), positions=("A1", "field 2"), z_planes=3)
        sink.open(run)
        streams = [Stream(p, c, z) for p in range(2) for c in ("488", "561") for z in range(3)]
        for t in range(4):
            for stream in streams:
                feed(sink, t, stream)
        for stream in streams:
            sink.separated(multicolor_frame(3, stream))
        sink.close({})
        stored = images(sink.path)
        assert sorted(stored) == sorted(
            f"{kind}_{p}_{c}"
            for kind in ("raw", "recon", "sr")
            for p in ("A1", "field-2")
            for c in ("488", "561")
        )
        for t in range(4):
            for stream in streams:
                place = f"{('A1', 'field-2')[stream.position]}_{stream.channel}"
                assert stored[f"recon_{place}"][t, stream.z, 0, 0] == code(stream, t)
                for c in range(3):
                    assert stored[f"sr_{place}"][t, c, stream.z, 0, 0] == code(stream, t, c)
                for i in range(RAW):
                    assert stored[f"raw_{place}"][t, i, stream.z, 0, 0] == code(stream, t, i)

    def test_only_what_the_run_records(self, sink: OMEZarrSink) -> None:
        sink.open(describe(record_raw=False, record_recon=False))
        for t in range(3):
            feed(sink, t)
        sink.close({})
        assert list(images(sink.path)) == ["sr"]
        assert [e["stored"] for e in events(sink.path, "raw")] == [False] * 3

    def test_a_channel_that_is_not_separated_has_no_sr(self, sink: OMEZarrSink) -> None:
        plain = replace(describe_channel("561"), labels=(), colors=())
        sink.open(replace(describe(), channels=(plain,)))
        sink.raw(raw_stack(0, Stream(0, "561")))
        sink.close({})
        assert sorted(images(sink.path)) == ["raw", "recon"]

    def test_eight_bit_cameras(self, sink: OMEZarrSink) -> None:
        sink.open(replace(describe(), channels=(replace(describe_channel(), raw_dtype="uint8"),)))
        block = np.arange(RAW * 256, dtype=np.uint8).reshape(RAW, 16, 16)
        sink.raw(RawStack(tuple(block), STREAM, 0, START_NS, START_NS))
        sink.close({})
        assert np.array_equal(images(sink.path)["raw"][0], block)


class TestTimeAxis:
    def test_gaps_are_filled_and_series_stay_aligned(self, sink: OMEZarrSink) -> None:
        sink.open(describe())
        for t in (0, 1, 5, 6):
            sink.raw(raw_stack(t))
            sink.recon(sr_frame(t))
        sink.separated(multicolor_frame(1))
        sink.skipped(STREAM, 5, "the network is slower than the camera")
        sink.close({})
        stored = images(sink.path)
        assert [len(a) for a in stored.values()] == [7, 7, 7]
        assert [bool(a.any()) for a in stored["raw"]] == [
            True,
            True,
            False,
            False,
            False,
            True,
            True,
        ]
        assert [bool(a.any()) for a in stored["recon"]] == [
            True,
            True,
            False,
            False,
            False,
            True,
            True,
        ]
        assert [bool(a.any()) for a in stored["sr"]] == [
            False,
            True,
            False,
            False,
            False,
            False,
            False,
        ]
        assert events(sink.path, "skipped")[0]["reason"] == "the network is slower than the camera"
        assert sink.counts["fills"] == 3 + 3 + 1

    def test_a_missing_plane_of_a_stack_is_filled(self, sink: OMEZarrSink) -> None:
        sink.open(describe(z_planes=3))
        for z in (0, 2):
            sink.recon(sr_frame(0, Stream(0, "488", z)))
        sink.recon(sr_frame(1, Stream(0, "488", 1)))
        sink.close({})
        recon = images(sink.path)["recon"]
        assert recon.shape == (2, 3, 32, 32)
        assert [[bool(z.any()) for z in t] for t in recon] == [
            [True, False, True],
            [False, True, False],
        ]

    def test_padding_writes_no_pixels(self, sink: OMEZarrSink) -> None:
        sink.open(describe(record_raw=False))
        sink.separated(multicolor_frame(0))
        sink.skipped(STREAM, 1_000_000, "far away")
        start = time.monotonic()
        sink.close({})
        assert time.monotonic() - start < 5
        sr = zarr.open_array(sink.path / "sr" / "0", mode="r")
        assert sr.shape[0] == 1_000_001
        assert sr[0, 0, 0, 0] == code(STREAM, 0)
        assert not sr[999_999:].any()

    def test_exposures_that_never_came(self, sink: OMEZarrSink) -> None:
        sink.open(describe())
        sink.raw(raw_stack(0, missing=(3, 8)))
        sink.close({})
        raw = images(sink.path)["raw"]
        assert [bool(plane.any()) for plane in raw[0]] == [i not in (3, 8) for i in range(RAW)]
        assert events(sink.path, "raw_incomplete")[0]["missing"] == [3, 8]

    def test_what_comes_twice_is_kept_aside(self, sink: OMEZarrSink) -> None:
        sink.open(describe())
        sink.raw(raw_stack(0))
        sink.raw(raw_stack(2))
        for _ in range(2):
            sink.raw(raw_stack(1, missing=(0,)))
        sink.close({})
        assert not images(sink.path)["raw"][1].any()
        strays = events(sink.path, "stray")
        assert [s["file"] for s in strays] == [
            "strays/raw_t000001_z000.tif",
            "strays/raw_t000001_z000_2.tif",
        ]
        with tifffile.TiffFile(sink.path / layout.SIDECARS / strays[0]["file"]) as tiff:
            kept = tiff.asarray()
            assert json.loads(tiff.pages[0].description)["missing"] == [0]
        assert list(kept[1:, 0, 0]) == [code(STREAM, 1, i) for i in range(1, RAW)]
        assert sink.counts["strays"] == 2

    def test_what_is_numbered_far_beyond_is_kept_aside_and_fills_nothing(
        self, sink: OMEZarrSink
    ) -> None:
        sink.open(describe())
        sink.raw(raw_stack(0))
        sink.raw(raw_stack(10**9))
        sink.raw(raw_stack(1))
        assert any("jump to time point 1000000000" in note for note in sink.notes)
        sink.close({})
        assert len(images(sink.path)["raw"]) == 2
        (unplaced,) = events(sink.path, "stray")
        kept = tifffile.imread(sink.path / layout.SIDECARS / unplaced["file"])
        assert list(kept[:, 0, 0]) == [code(STREAM, 10**9, i) for i in range(RAW)]

    def test_frames_that_belong_nowhere_are_kept_as_they_came(self, sink: OMEZarrSink) -> None:
        sink.open(describe())
        odd = np.arange(35, dtype=np.uint8).reshape(7, 5)
        sink.unplaced(RawStack((odd,), Stream(9, "?"), 4, START_NS, START_NS))
        sink.close({})
        assert np.array_equal(tifffile.imread(sink.path / layout.STRAYS / "aside_t000004.tif"), odd)

    def test_provisional_frames_are_not_stored(self, sink: OMEZarrSink) -> None:
        sink.open(describe())
        sink.separated(multicolor_frame(0, provisional=True))
        sink.close({})
        assert len(images(sink.path)["sr"]) == 0
        assert not events(sink.path, "separated")


class TestFramesLog:
    def test_a_line_says_what_is_known(self, sink: OMEZarrSink) -> None:
        sink = OMEZarrSink(sink.path, sync_s=0.0)  # every line at once
        sink.open(describe())
        feed(sink, 0)
        sink.separated(multicolor_frame(0, residual=float("nan"), warnings=("too dim",)))
        # Read while the store is open: a killed process would leave the same.
        raw, recon, separated = read_log(sink.path / layout.FRAMES_LOG).events
        where = {
            "t": 0,
            "position": 0,
            "channel": "488",
            "z": 0,
            "stored": True,
            "t_acq_ns": START_NS,
            "t_camera_ms": 0.0,
        }
        assert raw == {"series": "raw", "state": "raw", **where}
        assert recon == {
            "series": "recon",
            "state": "recon",
            **where,
            "normalisation": {"background": 12.5, "headroom": 800.0},
        }
        assert separated == {
            "series": "sr",
            "state": "separated",
            **where,
            "normalisation": {"background": 12.5, "headroom": 800.0},
            "residual": None,
            "latency_ms": 31.5,
            "edge": True,
            "true_neighbours": True,
            "warnings": ["too dim"],
            "judgement": {"word": "good", "channels": {}},
        }
        sink.close({})

    def test_a_log_that_is_there_is_continued(self, tmp_path: Path) -> None:
        for t in range(3):
            log = FramesLog(tmp_path / "frames.jsonl")
            log.write("raw", "raw", STREAM, t)
            log.close()
            log.close()
        assert [e["t"] for e in read_log(tmp_path / "frames.jsonl").events] == [0, 1, 2]

    def test_reconstructions_that_do_not_fit_are_counted(self, sink: OMEZarrSink) -> None:
        sink.open(describe())
        frame = sr_frame(0)
        frame.image[1, :3] = (-2000, 70_000, 64_535)
        sink.recon(frame)
        sink.close({})
        assert list(images(sink.path)["recon"][0, 1, :4]) == [0, 65535, 65535, 50 + OFFSET_ADU]
        assert events(sink.path, "recon")[0]["clipped"] == sink.counts["clipped_pixels"] == 2


class TestMetadata:
    @pytest.fixture
    def store(self, sink: OMEZarrSink) -> Path:
        (rig := sink.path.parent / "rig.cfg").write_text("Label,Camera")
        sink.open(describe(z_planes=2, sidecars={"rig.yaml": "name: demo\n", "rig.cfg": rig}))
        for t in range(4):
            for z in range(2):
                feed(sink, t, Stream(0, "488", z))
        sink.close({"sr_frames": 6, "latency_ms": {"p50": float("nan")}})
        return sink.path

    def test_nobody_can_take_the_prediction_for_data(self, store: Path) -> None:
        about = attributes(store, "sr")
        assert about["ome"]["multiscales"][0]["name"] == "SR prediction (AI) - not raw data"
        assert [c["label"] for c in about["ome"]["omero"]["channels"]] == [
            "SR Microtubules",
            "SR ER",
            "SR Lysosomes",
        ]
        assert about["livesr"]["prediction"] is True
        assert "Not a measurement" in about["livesr"]["warning"]
        assert about["livesr"]["model"]["sha256"] == "ab" * 32
        assert about["livesr"]["runtime"]["precision"] == "bf16"
        assert attributes(store, "recon")["livesr"]["prediction"] is False
        assert attributes(store, "recon")["livesr"]["intensity"] == {
            "unit": "ADU",
            "scale": 1.0,
            "offset": OFFSET_ADU,
        }

    def test_axes_and_sizes(self, store: Path) -> None:
        image = attributes(store, "raw")["ome"]["multiscales"][0]
        assert [(a["name"], a.get("unit")) for a in image["axes"]] == [
            ("t", "second"),
            ("c", None),
            ("z", "micrometer"),
            ("y", "micrometer"),
            ("x", "micrometer"),
        ]
        scale = image["datasets"][0]["coordinateTransformations"][0]["scale"]
        assert scale == pytest.approx([INTERVAL_NS / 1e9, 1.0, 0.25, 0.065, 0.065])
        scale = attributes(store, "sr")["ome"]["multiscales"][0]["datasets"][0][
            "coordinateTransformations"
        ][0]["scale"]
        assert scale == pytest.approx([INTERVAL_NS / 1e9, 1.0, 0.25, 0.0325, 0.0325])

    def test_display_windows_come_from_the_data(self, store: Path) -> None:
        channels = attributes(store, "sr")["ome"]["omero"]["channels"]
        assert [(c["window"]["start"], c["window"]["end"]) for c in channels] == list(DISPLAY)
        assert [c["color"] for c in channels] == ["00FF00", "FF00FF", "FFFF00"]
        recon = attributes(store, "recon")["ome"]["omero"]["channels"][0]["window"]
        assert 0 < recon["start"] < recon["end"] < 2 * OFFSET_ADU
        raw = attributes(store, "raw")["ome"]["omero"]["channels"]
        assert [c["active"] for c in raw] == [True] + [False] * 8

    def test_sidecars(self, store: Path) -> None:
        assert (store / "livesr" / "rig.yaml").read_text() == "name: demo\n"
        assert (store / "livesr" / "rig.cfg").read_text() == "Label,Camera"
        assert json.loads((store / layout.REPORT).read_text()) == {
            "sr_frames": 6,
            "latency_ms": {"p50": None},
        }

    def test_zarr_tools_list_the_store_without_a_warning(self, store: Path) -> None:
        assert sorted(name for name, _ in zarr.open_group(store, mode="r").members()) == [
            "OME",
            "livesr",
            "raw",
            "recon",
            "sr",
        ]

    @pytest.mark.parametrize(
        ("asked_s", "time_points", "written_s"),
        [(30.0, 1, 30.0), (0.041, 5, 0.041), (0.01, 5, 0.04), (30.0, 5, 30.0)],  # every 0.04 s
    )
    def test_the_interval_is_the_plans_if_it_was_kept(
        self, sink: OMEZarrSink, asked_s: float, time_points: int, written_s: float
    ) -> None:
        sink.open(describe(interval_s=asked_s))
        for t in range(time_points):
            feed(sink, t)
        sink.close({})
        images(sink.path)
        scale = attributes(sink.path, "raw")["ome"]["multiscales"][0]["datasets"][0][
            "coordinateTransformations"
        ][0]["scale"]
        assert scale[0] == pytest.approx(written_s)

    def test_the_store_can_be_viewed_while_it_grows(self, sink: OMEZarrSink) -> None:
        sink.open(describe())
        assert {name: len(a) for name, a in images(sink.path).items()} == {
            "raw": 0,
            "recon": 0,
            "sr": 0,
        }
        for t in range(12):
            feed(sink, t)
        window = attributes(sink.path, "recon")["ome"]["omero"]["channels"][0]["window"]
        assert window["end"] < 2 * OFFSET_ADU

    def test_everyone_on_the_computer_can_read_it(self, store: Path) -> None:
        modes = {
            (store / name / "zarr.json").stat().st_mode & 0o777
            for name in ("raw", "recon", "sr", "OME", "livesr")
        }
        probe = store / "probe"
        probe.write_text("")
        assert modes == {probe.stat().st_mode & 0o777}


class TestPaths:
    def test_an_existing_store_is_never_touched(self, tmp_path: Path) -> None:
        for number, name in enumerate(("run.ome.zarr", "run_2.ome.zarr", "run_3.ome.zarr")):
            sink = OMEZarrSink(tmp_path / "run.ome.zarr")
            sink.open(describe())
            for t in range(number + 1):
                sink.raw(raw_stack(t))
            sink.close({})
            assert sink.path.name == name
        lengths = [
            len(images(tmp_path / n)["raw"])
            for n in ("run.ome.zarr", "run_2.ome.zarr", "run_3.ome.zarr")
        ]
        assert lengths == [1, 2, 3]

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("run", "run_2"),
            ("a.b.zarr", "a.b_2.zarr"),
            ("x.ome.zarr", "x_2.ome.zarr"),
            (".hidden", ".hidden_2"),
        ],
    )
    def test_next_free_path(self, tmp_path: Path, name: str, expected: str) -> None:
        assert next_free_path(tmp_path / name).name == name
        (tmp_path / name).mkdir()
        assert next_free_path(tmp_path / name).name == expected

    def test_missing_folders_are_made(self, tmp_path: Path) -> None:
        sink = OMEZarrSink(tmp_path / "new" / "deep" / "run.ome.zarr")
        sink.open(describe())
        sink.close({})
        images(sink.path)

    def test_a_failed_start_leaves_nothing(self, tmp_path: Path) -> None:
        sink = OMEZarrSink(tmp_path / "new" / "run.ome.zarr")
        with pytest.raises(StoreError, match="does-not-exist"):
            sink.open(describe(sidecars={"plan.yaml": tmp_path / "does-not-exist"}))
        assert list(tmp_path.iterdir()) == []

    def test_position_names_that_look_alike_stay_apart(self, sink: OMEZarrSink) -> None:
        sink.open(describe(positions=("a b", "A/B", "", "..")))
        sink.close({})
        assert [n for n in images(sink.path) if n.startswith("sr")] == [
            "sr_a-b-0_488",
            "sr_A-B-1_488",
            "sr_2_488",
            "sr_3_488",
        ]


class TestRefusals:
    def test_another_frame_size(self, sink: OMEZarrSink) -> None:
        sink.open(describe())
        with pytest.raises(FrameShapeError, match=r"\(8, 8\).*expected \(16, 16\)"):
            sink.raw(raw_stack(0, size=8))
        with pytest.raises(FrameShapeError, match="expected"):
            sink.recon(sr_frame(0, size=8))
        with pytest.raises(FrameShapeError, match="expected"):
            sink.separated(multicolor_frame(0, size=8))

    def test_another_number_of_exposures(self, sink: OMEZarrSink) -> None:
        sink.open(describe())
        stack = raw_stack(0)
        with pytest.raises(FrameShapeError, match="3 planes"):
            sink.raw(RawStack(stack.frames[:3], STREAM, 0, START_NS, START_NS))

    @pytest.mark.parametrize("stream", [Stream(1, "488"), Stream(0, "561"), Stream(0, "488", 1)])
    def test_a_stream_that_was_not_announced(self, sink: OMEZarrSink, stream: Stream) -> None:
        sink.open(describe())
        with pytest.raises(
            RecordingError, match="was opened for 1 positions, channels 488 and 1 z planes"
        ):
            sink.raw(raw_stack(0, stream))

    def test_frames_before_open(self, tmp_path: Path) -> None:
        with pytest.raises(RecordingError, match="not open"):
            OMEZarrSink(tmp_path / "run.ome.zarr").raw(raw_stack(0))

    def test_a_disk_that_is_as_good_as_full(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="free"):
            OMEZarrSink(tmp_path / "run.ome.zarr", reserve_bytes=1 << 60).open(describe())
        assert list(tmp_path.iterdir()) == []

    def test_a_disk_that_fills_up_ends_the_recording_with_a_whole_store(
        self, tmp_path: Path
    ) -> None:
        sink = OMEZarrSink(tmp_path / "run.ome.zarr", reserve_bytes=0)
        sink.open(describe())
        for t in range(3):
            feed(sink, t)
        sink._reserve_bytes, sink._disk_check_due_s = 1 << 60, 0.0
        with pytest.raises(RecordingError, match=r"GB are left.*recording ends here"):
            sink.status({})
        sink.close({"error": "disk"})
        assert len(images(sink.path)["raw"]) == 3

    @pytest.mark.skipif(
        sys.platform == "win32", reason="limits the size of files, which Windows cannot"
    )
    def test_a_disk_that_refuses(self, tmp_path: Path) -> None:
        done = _python(
            tmp_path,
            """
            import resource, signal
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
            sink.open(describe(size=128))
            for t in range(20):
                try:
                    sink.raw(noisy(raw_stack(t, size=128)))
                except RecordingError as e:
                    print("SAID", e)
            try:
                sink.close({})
            except RecordingError as e:
                print("SAID", e)
            print(json.dumps({"kept": sink.raw_kept, **sink.accounts}))
            """,
        )
        *said, accounts = done.stdout.splitlines()
        assert all("no longer takes frames: File too large" in line for line in said), (
            done.stdout + done.stderr
        )
        # What no shard takes is kept as TIFF: nothing is lost, and every file is what the account
        # says.
        accounts = json.loads(accounts)
        assert (accounts["kept"], accounts["lost"]) == (20 * RAW, {})
        store = tmp_path / "run.ome.zarr"
        held = images(store)["raw"]
        tiffs = {
            int(p.name[5:11]): tifffile.imread(p)
            for p in (store / layout.STRAYS).glob("raw_t*.tif")
        }
        assert len(tiffs) == accounts["raw_elsewhere"] // RAW > 0
        for t in range(20):
            expected = np.random.default_rng(t).integers(0, 65536, (128, 128))
            for plane in tiffs.get(t, held[t]):
                assert np.array_equal(plane, expected)


class TestRemoved:
    """What somebody removes or renames while it is recorded is noticed, and the report says what is
    gone."""

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows removes nothing that is open")
    @pytest.mark.parametrize("removed", ["raw", ".", "raw/0/c/0"])
    def test_what_is_removed_is_said_and_counted(self, sink: OMEZarrSink, removed: str) -> None:
        sink.open(describe())
        for t in range(16):
            feed(sink, t)
        for (
            _,
            _,
            series,
        ) in (
            sink._all_series()
        ):  # the disk has confirmed the first shard, and memory was given back
            for _, _, confirmed in series._settling:
                confirmed.result()
        sink.status({})
        (sink.path / removed).rename(sink.path.parent / "elsewhere")
        said = []
        for t in range(16, 24):
            for call in (lambda t=t: feed(sink, t), lambda: sink.status({})):
                try:
                    call()
                except RecordingError as e:
                    said.append(str(e))
        if removed != "raw/0/c/0":  # a part of the past is noticed at the end
            assert "is gone: someone or something removed or renamed the store" in said[0]
        with pytest.raises(RecordingError, match=r"No such file|is gone"):
            sink.close({})
        assert (sink.accounts["raw_stored"], sink.accounts["lost"]["raw"]) == (8 * RAW, ["t 0-15"])
        assert sink.raw_kept == 8 * RAW
        raw = images(sink.path)["raw"]
        assert [bool(block.any()) for block in raw] == [t >= 16 for t in range(24)]
        # The log outlives its file, and its last word is true.
        stored = {e["t"]: e["stored"] for e in events(sink.path, "raw")}
        assert stored == {t: t >= 16 for t in range(24)}


class TestSpareDisk:
    def test_a_run_goes_on_there_when_the_disk_is_full(self, tmp_path: Path) -> None:
        sink = OMEZarrSink(tmp_path / "run.ome.zarr", reserve_bytes=0, spare=tmp_path / "spare")
        sink.open(describe())
        for t in range(20):
            feed(sink, t)
        sink._reserve_bytes, sink._disk_check_due_s = 1 << 60, 0.0
        sink.status({})
        sink._reserve_bytes = 0
        for t in range(20, 40):
            feed(sink, t)
        assert any("the run goes on in" in note for note in sink.notes)
        sink.finish()
        assert sink.accounts == {"raw_stored": 16 * RAW, "raw_elsewhere": 24 * RAW, "lost": {}}
        sink.close({"raw_lost": 0})
        first, second = images(sink.path)["raw"], images(tmp_path / "spare" / "run.ome.zarr")["raw"]
        for t in range(40):
            there, other = (first, second) if t < 16 else (second, first)
            assert list(there[t, :, 0, 0]) == [code(STREAM, t, i) for i in range(RAW)]
            assert not other[t].any()
        elsewhere = [e for e in events(sink.path, "raw") if not e["stored"]]
        assert [e["t"] for e in elsewhere] == list(range(16, 40))
        assert all(Path(e["elsewhere"]).is_file() for e in elsewhere)

    def test_copied_over_the_first_it_completes_it(self, tmp_path: Path) -> None:
        sink = OMEZarrSink(tmp_path / "run.ome.zarr", reserve_bytes=0, spare=tmp_path / "spare")
        sink.open(describe())
        for t in range(16):
            feed(sink, t)
        sink._reserve_bytes, sink._disk_check_due_s = 1 << 60, 0.0
        sink.status({})
        for t in range(16, 36):
            feed(sink, t)
        sink.close({})
        shutil.copytree(tmp_path / "spare" / "run.ome.zarr", sink.path, dirs_exist_ok=True)
        raw = images(sink.path)["raw"]
        assert all(raw[t, i, 0, 0] == code(STREAM, t, i) for t in range(36) for i in range(RAW))

    def test_an_image_that_got_nothing_is_in_neither(self, tmp_path: Path) -> None:
        sink = OMEZarrSink(tmp_path / "run.ome.zarr", reserve_bytes=0, spare=tmp_path / "spare")
        sink.open(describe(positions=("a", "b")))
        sink._reserve_bytes, sink._disk_check_due_s = 1 << 60, 0.0
        sink.status({})
        feed(sink, 0)
        sink.close({})
        for store in (sink.path, tmp_path / "spare" / "run.ome.zarr"):
            listed = json.loads((store / "OME" / "zarr.json").read_text())["attributes"]["ome"][
                "series"
            ]
            assert sorted(listed) == ["raw_a_488", "recon_a_488", "sr_a_488"]
            assert not list(store.glob("*_b_*"))

    def test_one_that_cannot_be_written_to_is_refused_before_anything_starts(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "spare").write_text("a file")
        with pytest.raises(StoreError, match="spare disk"):
            OMEZarrSink(tmp_path / "run.ome.zarr", spare=tmp_path / "spare").open(describe())
        assert [p.name for p in tmp_path.iterdir()] == ["spare"]


class TestLoad:
    def test_the_frame_loop_keeps_no_plane(self, sink: OMEZarrSink) -> None:
        sink.open(describe(size=128))
        frames = [
            (raw_stack(t, size=128), sr_frame(t, size=128), multicolor_frame(t, size=128))
            for t in range(20)
        ]
        for step, (stack, measured, predicted) in enumerate(frames):
            if step == 10:
                tracemalloc.start()
            sink.raw(stack)
            sink.recon(measured)
            sink.separated(predicted)
        kept, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        plane_bytes = 256 * 256 * 2
        assert kept < plane_bytes  # compressed, until the disk has it
        assert peak < 3 * plane_bytes  # the compressor's own

    def test_the_environment_of_the_process_is_left_alone(self, sink: OMEZarrSink) -> None:
        before = dict(os.environ)
        sink.open(describe())
        assert dict(os.environ) == before


class TestKilled:
    @pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
    def test_everything_that_was_flushed_survives(self, tmp_path: Path) -> None:
        done = _python(
            tmp_path,
            """
            sink.open(describe())
            for t in range(40):
                feed(sink, t)
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                arrays = [json.loads(p.read_text()) for p in sink.path.glob("*/0/zarr.json")]
                if min(a["shape"][0] for a in arrays) >= 39:
                    break
                time.sleep(0.01)
                sink.status({})  # as once a second in a run
            os.kill(os.getpid(), signal.SIGKILL)
            """,
        )
        assert done.returncode == -9, done.stderr
        store = tmp_path / "run.ome.zarr"
        stored = images(store)
        assert {name: len(a) for name, a in stored.items()} == {"raw": 40, "recon": 40, "sr": 39}
        assert all(stored["sr"][t, 2, 0, 0] == code(STREAM, t, 2) for t in range(39))
        assert [e["t"] for e in events(store, "raw")] == list(range(40))
        assert attributes(store, "sr")["livesr"]["prediction"] is True

    @pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
    def test_a_store_killed_at_once_is_empty_and_valid(self, tmp_path: Path) -> None:
        done = _python(
            tmp_path, "sink.open(describe())\nfeed(sink, 0)\nos.kill(os.getpid(), signal.SIGKILL)"
        )
        assert done.returncode == -9, done.stderr
        assert [len(a) for a in images(tmp_path / "run.ome.zarr").values()] == [0, 0, 0]


class TestEstimates:
    def test_less_than_an_hour_is_told_in_minutes(self) -> None:
        assert lasting(6_300_000_000, 660_000_000_000) == "1 min"
        assert lasting(100, 400) == "15 min"
        assert lasting(1000, 400) == "2.5 h"

    def test_bytes_per_hour(self) -> None:
        per_frame = 9 * 16 * 16 * 2 + 32 * 32 * 2 + 3 * 32 * 32 * 2
        assert bytes_per_hour(describe(), 2.0) == per_frame * 2 * 3600
        assert bytes_per_hour(describe(channels=("488", "561")), 2.0) == per_frame * 2 * 3600
        assert (
            bytes_per_hour(describe(record_raw=False, record_recon=False), 1.0)
            == 3 * 32 * 32 * 2 * 3600
        )

    def test_memory_grows_with_what_is_recorded(self) -> None:
        assert 0 < memory_bytes(describe(record_raw=False)) < memory_bytes(describe())
        assert memory_bytes(describe(positions=("a", "b"))) == 2 * memory_bytes(describe())

    def test_free_bytes_of_a_folder_to_come(self, tmp_path: Path) -> None:
        assert free_bytes(tmp_path / "not" / "yet") > 0

    @pytest.mark.parametrize(
        ("interval_s", "size", "expected"),
        [(None, 512, 16), (0.04, 512, 16), (2.0, 512, 5), (60.0, 512, 1), (None, 4096, 2)],
    )
    def test_no_shard_takes_long_or_much(
        self, interval_s: float | None, size: int, expected: int
    ) -> None:
        spec = SeriesSpec(
            "sr",
            "",
            (size, size),
            "uint16",
            1,
            ("a", "b", "c"),
            ("FFFFFF",) * 3,
            0.1,
            interval_s=interval_s,
        )
        assert spec.time_points_per_shard == expected

    def test_an_unwieldy_stack_gets_a_file_per_plane(self, tmp_path: Path) -> None:
        spec = SeriesSpec(
            "sr", "sr", (2048, 2048), "uint16", 12, ("a", "b", "c"), ("FFFFFF",) * 3, 0.1
        )
        assert (spec.z_planes_per_shard, spec.time_points_per_shard) == (1, 10)
        small = SeriesSpec("sr", "sr", (8, 8), "uint16", 3, ("a", "b"), ("FFFFFF",) * 2, 0.1)
        series = Series(tmp_path / "sr", small)
        series.append((np.ones((8, 8), np.uint16), np.ones((8, 8), np.uint16)))
        series.close(1)
        assert zarr.open_array(tmp_path / "sr" / "0", mode="r").shape == (1, 2, 3, 8, 8)


def _python(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Run `body` in a process of its own, with a sink at ``folder/run.ome.zarr``."""
    script = textwrap.dedent(f"""
        import json, os, signal, sys, time
        from pathlib import Path
        import numpy as np
        sys.path.insert(0, {str(Path(__file__).parents[2] / "support")!r})
        from contracts import *
        from livesr.base.errors import RecordingError
        from livesr.live.sinks.ome_zarr import OMEZarrSink
        sink = OMEZarrSink(Path({str(folder)!r}) / "run.ome.zarr")

        def noisy(stack):
            for plane in stack.frames:
                plane[:] = np.random.default_rng(stack.t).integers(0, 65536, plane.shape)
            return stack
        """) + textwrap.dedent(body)
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
