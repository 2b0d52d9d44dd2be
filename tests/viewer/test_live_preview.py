"""From the camera to the page: a run on the virtual rig, its stream, and what a page is sent."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from websockets.sync.client import connect

from contracts import describe, describe_channel, feed, raw_stack, sr_frame
from livesr import LiveSR
from livesr.base.errors import StoreError
from livesr.base.frames import StagePosition, Stream
from livesr.base.run_description import RunDescription
from livesr.cli.output import run_table
from livesr.formats.layout import REPORT
from livesr.live.inference.engine import manifest_files
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.live.sources.plan import sim_sequence
from livesr.viewer.browser.pictures import PictureMaker
from livesr.viewer.browser.server import PreviewServer
from livesr.viewer.frame_pairs import LiveFramePairs, Selection
from livesr.viewer.store_source import StoreSource
from livesr.viewer.subscriber import Subscriber
from recorded_runs import Live, mixing_engine, moving_groups, sim_rig
from rigs import virtual_sim


def test_a_store_without_a_report_says_what_computed_its_pictures(tmp_path: Path) -> None:
    live = Live(sim_rig("identity"), tmp_path / "run.ome.zarr")
    live.record(moving_groups(4))
    said = StoreSource(live.sink.path).status
    (live.sink.path / REPORT).unlink()  # of a run that goes on, or was killed
    left = StoreSource(live.sink.path).status
    (network,) = left.pop("networks")["488"]
    assert said["networks"] == {"488": [network]}
    assert network.startswith("identity 1 (")
    assert left == {"engine": {"488": "identity"}, "backend": {"488": "openvino"}}
    assert {name: said[name] for name in left} == left


def test_two_engines_of_one_name_are_told_apart(tmp_path: Path) -> None:
    engines = []
    for folder, divided in (("first", 1.0), ("second", 2.0)):
        engine = mixing_engine(tmp_path / folder / "mine", divided)
        engines.append(engine)
        live = Live(sim_rig(str(engine.folder)), tmp_path / f"{folder}.ome.zarr")
        report = live.record(moving_groups(4))
        assert report["engine"] == {"488": "mine"}
        source = StoreSource(live.sink.path)
        assert PictureMaker(source).status("488")["engine"] == str(engine)
        assert str(engine) in list(run_table(report).columns[1].cells)
    assert str(engines[0]) != str(engines[1])
    files = manifest_files(engines)
    assert set(files.values()) == {e.folder / "manifest.yaml" for e in engines}


def test_a_picture_whose_file_is_gone_is_not_shown_as_darkness(tmp_path: Path) -> None:
    live = Live(sim_rig("identity"), tmp_path / "run.ome.zarr")
    live.record(moving_groups(4))
    shutil.rmtree(live.sink.path / "recon" / "0" / "c")
    pair = StoreSource(live.sink.path).pair(Selection(), 0)
    assert pair is not None
    assert (pair.prediction is not None, pair.measurement) == (True, None)
    shutil.rmtree(live.sink.path / "sr" / "0" / "c")
    with pytest.raises(StoreError, match="holds no frame"):
        StoreSource(live.sink.path)


def test_a_run_is_seen_while_it_lasts(tmp_path: Path) -> None:
    with virtual_sim(exposure_ms=8.0, time_points=4) as core:
        plan = sim_sequence(25, channels=["488"], raw=9)
        session = LiveSR(
            core,
            rig="virtual_sim",
            engine="identity",
            plan=plan,
            store=tmp_path / "run.ome.zarr",
            publish="tcp://127.0.0.1:*",
        )
        with (
            session,
            Subscriber(session.endpoint) as subscriber,
            PreviewServer(LiveFramePairs(subscriber)) as server,
        ):
            acquisition = threading.Thread(
                target=core.mda.run, args=(plan,), name="livesr-test-acquisition"
            )
            acquisition.start()
            frames, statuses = watch(server)
            acquisition.join()
    predicted = [frame for frame in frames if frame["prediction"]]
    assert len(predicted) > 3
    assert {tuple(p["name"] for p in frame["pictures"]) for frame in predicted} == {
        ("measurement", "composite")
    }
    # The measurement beside a prediction is the one that it was made from.
    assert all(len({p["t"] for p in frame["pictures"]}) == 1 for frame in predicted)
    times = [frame["t"] for frame in predicted]
    assert times == sorted(times)
    assert predicted[0]["stream"]["channel"] == "488"
    assert statuses[-1]["state"] == "ended"
    assert any(status["disk_free_bytes"] for status in statuses)
    named = {status["engine"] for status in statuses if status["state"] == "live"} - {""}
    assert all(name.startswith("identity 1 (") for name in named)


def watch(server: PreviewServer) -> tuple[list[dict], list[dict]]:
    """Be a page until the stream has ended."""
    frames, statuses = [], []
    origin = f"http://127.0.0.1:{server.port}"
    with connect(
        f"{server.url.replace('http', 'ws')}stream", origin=origin, max_size=None, compression=None
    ) as page:
        while not statuses or statuses[-1]["state"] != "ended":
            message = page.recv(timeout=60)
            if isinstance(message, bytes):
                continue
            said = json.loads(message)
            if said["type"] == "frame":
                frames.append(said)
                page.send(json.dumps({"type": "ack", "id": said["id"]}))
            if said["type"] == "status":
                statuses.append(said)
    return frames, statuses


def test_widefield_of_a_store_is_the_mean_of_its_exposures(tmp_path: Path) -> None:
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    sink.open(describe())
    feed(sink, 0)
    sink.raw(raw_stack(1, missing=(4,)))
    sink.recon(sr_frame(1))
    sink.close({})
    source = StoreSource(sink.path)
    pair = source.pair(Selection(), 0, widefield=True)
    assert pair is not None
    assert pair.shown.header.raw_seq == (0, 8)
    found = pair.widefield
    assert found is not None
    assert found.pixels is not None
    assert (found.header.t, found.header.pixel_size_um) == (0, 0.065)
    assert (found.pixels.shape, int(found.pixels[3, 3])) == ((16, 16), 104)  # of 100 ... 108
    plain = source.pair(Selection(), 0)
    assert plain is not None
    assert plain.widefield is None


def test_the_level_without_light_is_taken_off_the_exposures(tmp_path: Path) -> None:
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    sink.open(_with_dark(90.0))
    feed(sink, 0)
    sink.close({})
    pair = StoreSource(sink.path).pair(Selection(), 0, widefield=True)
    assert pair is not None
    assert pair.widefield is not None
    assert pair.widefield.header.offset_adu == 90


def _with_dark(dark_adu: float) -> RunDescription:
    return replace(describe(), channels=(replace(describe_channel(), raw_dark_adu=dark_adu),))


def test_a_store_says_where_its_streams_are(tmp_path: Path) -> None:
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    sink.open(describe(positions=("A", "B"), z_planes=2))
    for position in (0, 1):
        for z in (0, 1):
            stream = Stream(position, "488", z)
            sink.raw(replace(raw_stack(0, stream), stage=StagePosition(10.0 * position, 5.0, 2.0)))
            sink.recon(sr_frame(0, stream))
    sink.close({})
    found = StoreSource(sink.path).streams()
    assert [(s.position_name, s.z_um, s.x_um, s.y_um) for s in found] == [
        ("A", 0.0, 0.0, 5.0),
        ("A", 0.25, 0.0, 5.0),
        ("B", 0.0, 10.0, 5.0),
        ("B", 0.25, 10.0, 5.0),
    ]
