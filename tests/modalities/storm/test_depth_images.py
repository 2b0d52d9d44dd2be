"""Depth of a running image: measured, stored, streamed, and shown in colour."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from contracts import describe, sr_frame
from livesr.base.config import load_rig
from livesr.base.frames import RawStack, Stream
from livesr.formats.layout import DEPTH_COLORS, DEPTH_OFFSET_NM
from livesr.formats.store import RecordedStore
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.live.sinks.zeromq import ZeroMQSink
from livesr.modalities.storm.config import STORMConfig
from livesr.modalities.storm.localise import Localiser, PhotonScale
from livesr.modalities.storm.modality import sigma_nm
from livesr.modalities.storm.reconstructor import STORMReconstructor
from livesr.napari.store_layers import store_layers
from livesr.optics.noise import SCMOSNoise
from livesr.optics.vectorial import VectorialSpread
from livesr.store.exports.export import export
from livesr.store.repair import repair
from livesr.viewer.browser.messages import View
from livesr.viewer.browser.pictures import PictureMaker
from livesr.viewer.composite import rgb_of
from livesr.viewer.frame_pairs import LiveFramePairs, Selection
from livesr.viewer.store_source import StoreSource
from livesr.viewer.subscriber import Subscriber

PIXEL_NM, RANGE_NM = 107.0, (-350.0, 350.0)
STREAM = Stream(0, "488")


@pytest.fixture(scope="module")
def reconstructor() -> STORMReconstructor:
    rig = load_rig("virtual_storm_3d")
    localiser = Localiser(
        (64, 64),
        PIXEL_NM,
        sigma_nm(rig, "647"),
        PhotonScale.of(100, 0.5, None, 1.5),
        astigmatism=STORMConfig.of(rig).astigmatism,
    )
    return STORMReconstructor(localiser, PIXEL_NM, 20, 4, sliding_groups=1)


def two_heights(t: int, z_nm: tuple[float, float]) -> RawStack:
    """Four frames of one emitter in the upper left and one in the lower right."""
    rng = np.random.default_rng(t)
    spread = VectorialSpread(PIXEL_NM / 1e3, 1.4, 0.67, astigmatism=0.06)
    noise = SCMOSNoise(gain_adu_per_e=2.0, read_noise_e=1.5)
    frames = []
    for _ in range(4):
        light = np.full((64, 64), 10, np.float32)
        at = np.array([16.0, 48.0])
        spread.add(light, at, at, np.full(2, 4000.0), np.array(z_nm) / 1e3)
        frames.append(noise.expose(light, rng))
    return RawStack(tuple(frames), STREAM, t, 0, 0)


def test_it_is_the_mean_z_of_what_is_drawn(reconstructor: STORMReconstructor) -> None:
    assert reconstructor.depth_range_nm == RANGE_NM
    running = reconstructor.running()
    for t, heights in enumerate([(-200.0, 150.0), (100.0, -50.0)]):
        image = running.add(two_heights(t, heights))
        depth = running.depth_nm
        assert depth is not None
        np.testing.assert_array_equal(np.isfinite(depth), image >= 0.5)
        middle = len(depth) // 2
        first, second = depth[:middle, :middle], depth[middle:, middle:]
        for part, z in zip((first, second), heights, strict=True):
            assert np.nanmean(part) == pytest.approx(z, abs=30)
        assert np.isnan(depth[:middle, middle:]).all()
    assert depth is running.depth_nm  # a new one for each group


def test_without_a_cylindrical_lens_there_is_none() -> None:
    localiser = Localiser((64, 64), PIXEL_NM, 100, PhotonScale.of(100, 0.5, None, 1.5))
    running = STORMReconstructor(localiser, PIXEL_NM, 20, 4).running()
    running.add(two_heights(0, (0.0, 0.0)))
    assert running.depth_nm is None


DEPTH = np.full((32, 32), np.nan, np.float32)
DEPTH[0, 0], DEPTH[0, 1], DEPTH[0, 2], DEPTH[0, 3] = RANGE_NM[0], 0.4, RANGE_NM[1], 1e6


@pytest.fixture
def store(tmp_path: Path) -> Path:
    run = describe()
    (channel,) = run.channels
    channel = replace(channel, labels=(), colors=(), depth_range_nm=RANGE_NM)
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    sink.open(replace(run, channels=(channel,), record_raw=False))
    for t in range(3):
        sink.recon(replace(sr_frame(t), depth_nm=DEPTH))
    sink.close({})
    assert sink.counts["depth"] == 3
    return sink.path


def test_the_store_has_whole_nm_and_0_where_nothing_is(store: Path) -> None:
    stored = zarr.open_array(store / "depth" / "0", mode="r")
    assert (stored.shape, stored.dtype) == ((3, 32, 32), np.uint16)
    above = [round(z) + DEPTH_OFFSET_NM for z in (*RANGE_NM, 0.4)]
    assert stored[0, 0, :4].tolist() == [above[0], above[2], above[1], 65535]
    assert not stored[:, 1:].any()
    own = RecordedStore(store).images["depth", 0, "488"].attributes["livesr"]
    assert own["intensity"] == {"unit": "nm", "scale": 1.0, "offset": DEPTH_OFFSET_NM}
    assert own["range_nm"] == list(RANGE_NM)


def test_metadata_that_are_gone_come_back(store: Path) -> None:
    before = zarr.open_array(store / "depth" / "0", mode="r")[:]
    for name in ("depth/zarr.json", "depth/0/zarr.json"):
        (store / name).unlink()
    repair(store)
    np.testing.assert_array_equal(zarr.open_array(store / "depth" / "0", mode="r")[:], before)


def test_the_page_gives_the_measurement_its_colours(store: Path) -> None:
    maker, view = PictureMaker(StoreSource(store)), View(mode="measurement")
    coloured, grey = (maker.make(view.model_copy(update={"depth": d})) for d in (True, False))
    assert coloured
    assert grey
    assert coloured.content["depth"] == {"range_nm": list(RANGE_NM), "colors": DEPTH_COLORS}
    pair = StoreSource(store).pair(Selection())
    assert pair
    drawn = {name: picture.copy() for name, _, picture in maker.pictures(pair, view)}
    light = {
        name: picture.copy()
        for name, _, picture in maker.pictures(pair, view.model_copy(update={"depth": False}))
    }
    for column, color in ((1, DEPTH_COLORS[2]), (2, DEPTH_COLORS[4])):
        expected = np.array(rgb_of(color)) * (light["measurement"][0, column] / 255)
        np.testing.assert_allclose(drawn["measurement"][0, column], expected, atol=3)
    assert coloured.pictures != grey.pictures
    exact = maker.make(view.model_copy(update={"raw": True}))
    assert exact
    assert exact.content["depth"] is None  # the page draws 16 bit itself


def test_napari_lays_it_over_the_running_image(store: Path) -> None:
    layers = {about["name"]: (data, about) for data, about, _ in store_layers(store)}
    data, about = layers["depth, nm · measurement"]
    first = np.asarray(data[0])
    assert first[0, :3].tolist() == [RANGE_NM[0], 0.0, RANGE_NM[1]]
    assert np.isnan(first[1:]).all()
    assert (about["blending"], about["contrast_limits"]) == ("multiplicative", RANGE_NM)
    assert list(layers).index("depth, nm · measurement") == 1  # above it


def test_imagej_gets_its_colours(store: Path) -> None:
    done = export(store, "imagej")
    (file,) = (name for name in done.files if "depth" in name)
    with tifffile.TiffFile(done.path / file) as tiff:
        about = tiff.imagej_metadata
        assert about is not None
        assert tiff.asarray()[0, 0, 1] == DEPTH_OFFSET_NM
    assert tuple(about["Ranges"]) == tuple(z + DEPTH_OFFSET_NM for z in RANGE_NM)
    table = np.array(about["LUTs"]).reshape(3, 256)  # tifffile gives one alone as its three rows
    assert table[:, 0].tolist() == [0, 0, 0]
    assert table[:, 255].tolist() == list(rgb_of(DEPTH_COLORS[-1]))
    assert "nm = 1 x (value - 10000)" in about["Info"]


@pytest.fixture
def publisher() -> Iterator[ZeroMQSink]:
    sink = ZeroMQSink("tcp://127.0.0.1:*")
    run = describe()
    (channel,) = run.channels
    channel = replace(channel, labels=(), colors=(), depth_range_nm=RANGE_NM)
    sink.open(replace(run, channels=(channel,)))
    yield sink
    sink.close({})


def test_the_stream_has_it_right_before_the_measurement(publisher: ZeroMQSink) -> None:
    with Subscriber(str(publisher.endpoint)) as subscriber:
        pairs, deadline, pair, t = LiveFramePairs(subscriber), time.monotonic() + 30, None, 0
        while pair is None and time.monotonic() < deadline:
            publisher.recon(replace(sr_frame(t), depth_nm=DEPTH))
            time.sleep(0.05)
            pair, t = pairs.pair(Selection()), t + 1
        assert pair is not None
        assert pair.depth is not None
        assert pair.measurement is not None
        assert pair.depth.header.t == pair.measurement.header.t
        np.testing.assert_array_equal(pair.depth.pixels, DEPTH)
        header = pair.depth.header
        assert (header.unit, header.axes, header.channels[0].window) == ("nm", "yx", RANGE_NM)
