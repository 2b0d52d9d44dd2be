"""A store as layers: what they are called, where they lie, and what their pixels are."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contracts import (
    OFFSET_ADU,
    RAW,
    code,
    describe,
    describe_channel,
    multicolor_frame,
    raw_stack,
    small_store,
    sr_frame,
)
from livesr.base.errors import StoreError
from livesr.base.frames import LOCALISATION, StagePosition, Stream
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.napari.store_layers import _first_s, get_reader, store_layers
from rig_copies import RIGS

pytest.importorskip("dask", reason="dask is not installed: pip install 'livesr[napari]'")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return small_store(tmp_path / "run.ome.zarr", 4, interval_s=0.5)


def named(path: Path) -> dict[str, tuple]:
    return {about["name"]: (data, about, kind) for data, about, kind in store_layers(path)}


def test_every_layer_says_what_kind_of_picture_it_is(store: Path) -> None:
    layers = named(store)
    assert list(layers) == [
        "raw exposures · measurement",
        "wiener · measurement",
        "Microtubules · prediction",
        "ER · prediction",
        "Lysosomes · prediction",
    ]
    assert [about["visible"] for _, about, _ in layers.values()] == [False, False, True, True, True]
    for name, (_, about, _) in layers.items():
        assert about["metadata"]["livesr"]["prediction"] == ("prediction" in name)


@pytest.mark.parametrize("superposed", [True, False])
def test_true_channels_are_there_and_not_seen_among_predictions(
    superposed: bool, tmp_path: Path
) -> None:
    """Parts of a sum, and the channels of audits; a channel of which nothing is predicted is."""
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    true = ("488", "561", "640")
    plain = [replace(describe_channel(name), labels=(), colors=()) for name in (*true, "9")]
    separated = describe_channel("7")
    if superposed:
        separated = replace(separated, parts=true, weights=(1.0,) * 3)
    sink.open(replace(describe(), channels=(*plain, separated)))
    for channel in plain:
        sink.raw(raw_stack(0, Stream(0, channel.name)))
        sink.recon(sr_frame(0, Stream(0, channel.name)))
    sink.recon(sr_frame(0, Stream(0, "7")))
    sink.separated(multicolor_frame(0, Stream(0, "7")))
    sink.close({})
    if not superposed:
        shutil.copy(RIGS / "virtual_audit" / "rig.yaml", sink.path / "livesr" / "rig.yaml")
    seen = [name for name, (_, about, _) in named(sink.path).items() if about["visible"]]
    assert [name for name in seen if "measurement" in name] == ["9 · wiener · measurement"]
    assert len(seen) == 4


def test_a_picture_whose_file_is_gone_is_no_darkness(store: Path) -> None:
    shutil.rmtree(store / "recon" / "0" / "c")
    data, _, _ = named(store)["wiener · measurement"]
    assert np.isnan(np.asarray(data)).all()


def test_what_is_not_there_hides_nothing_that_is(tmp_path: Path) -> None:
    for groups, name in ((1, "wiener · measurement"), (0, "raw exposures · measurement")):
        sink = OMEZarrSink(tmp_path / f"{groups}.ome.zarr")
        sink.open(describe(interval_s=0.5))
        sink.raw(raw_stack(1, missing=() if groups else (2,)))
        if groups:
            sink.recon(sr_frame(1))
        sink.close({})
        layers = named(sink.path)
        seen = [n for n, (_, about, _) in layers.items() if about["visible"]]
        assert [n for n in seen if "prediction" not in n] == [name]
        assert _first_s(str(sink.path)) == 0.5


@pytest.mark.parametrize("kind", ["raw", "recon", "sr"])
def test_a_damaged_plane_is_said_and_the_others_are_shown(kind: str, store: Path) -> None:
    shard = next(p for p in (store / kind / "0" / "c").rglob("*") if p.is_file())
    shard.write_bytes(shard.read_bytes()[:50])
    told: list[str] = []
    for name, (data, _, _) in named(store).items():
        broken = {"raw": "raw exposures", "recon": "wiener", "sr": "prediction"}[kind] in name
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            shown = np.asarray(data[(0,) * (data.ndim - 2)])
        told += [str(warning.message) for warning in said]
        if not broken:
            assert np.nan_to_num(shown).any()
        else:
            assert (shown == 0).all() if kind == "raw" else np.isnan(shown).all()
    (sentence,) = told  # once, whatever else of it is looked at
    assert f"{Path(kind) / '0'} cannot be read" in sentence
    assert f"livesr check {store}" in sentence


def test_a_store_without_a_frame_is_refused_in_a_sentence(tmp_path: Path) -> None:
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    sink.open(describe())
    sink.close({})
    with pytest.raises(StoreError, match="holds no frame yet"):
        store_layers(sink.path)


def test_colours_and_contrast_are_those_of_the_run(store: Path) -> None:
    layers = named(store)
    predicted = [about for name, (_, about, _) in layers.items() if "prediction" in name]
    assert [about["colormap"] for about in predicted] == ["#00FF00", "#FF00FF", "#FFFF00"]
    assert [about["contrast_limits"] for about in predicted] == [(10, 200), (20, 300), (30, 400)]
    low, high = layers["wiener · measurement"][1]["contrast_limits"]
    assert low <= 50 <= high < OFFSET_ADU  # in ADU, as the pixels: without the store's offset


def test_pixels_are_adu_without_the_offset_and_what_is_missing_is_no_number(store: Path) -> None:
    layers = named(store)
    measured = layers["wiener · measurement"][0]
    assert measured.dtype == np.float32
    assert float(measured[2, 0, 0]) == code(Stream(0, "488"), 2) - OFFSET_ADU
    assert float(measured[2, 5, 5]) == 50
    er = layers["ER · prediction"][0]
    assert float(er[1, 0, 0]) == code(Stream(0, "488"), 1, 1)
    # the last measurement has no prediction: its place is none that is black
    assert np.isnan(np.asarray(er[3])).all()


def test_nothing_is_read_before_it_is_shown(store: Path) -> None:
    for data, _, _ in store_layers(store):
        assert all(size == 1 for size in data.chunksize[:-2])
        assert data.chunksize[-2:] == data.shape[-2:]


def test_all_layers_share_time_and_place(store: Path) -> None:
    layers = named(store)
    raw, about, _ = layers["raw exposures · measurement"]
    assert raw.shape == (RAW, 4, 16, 16)
    assert about["axis_labels"] == ["exposure", "t", "y", "x"]
    assert about["scale"] == [1, 0.5, 0.065, 0.065]
    assert int(raw[3, 2, 0, 0]) == code(Stream(0, "488"), 2, 3)
    data, about, _ = layers["ER · prediction"]
    assert data.shape == (4, 32, 32)
    assert about["scale"] == [0.5, 0.0325, 0.0325]
    assert about["units"] == ["second", "micrometer", "micrometer"]


def test_stacks_positions_and_channels_are_told_apart(tmp_path: Path) -> None:
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    sink.open(describe(positions=("A", "B"), channels=("488", "561"), z_planes=2))
    for position, channel, z in np.ndindex(2, 2, 2):
        stream = Stream(position, ("488", "561")[channel], z)
        where = StagePosition(10.0 + 30 * position, 5.0, z)
        sink.raw(replace(raw_stack(0, stream), stage=where))
        sink.recon(sr_frame(0, stream))
    sink.close({})
    layers = named(sink.path)
    data, about, _ = layers["B · 561 · wiener · measurement"]
    assert data.shape == (1, 2, 32, 32)
    assert about["scale"][1:] == [0.25, 0.0325, 0.0325]
    assert about["translate"] == [0, 0, 0, 30]
    assert layers["A · 561 · wiener · measurement"][1]["translate"] == [0, 0, 0, 0]
    assert float(data[0, 1, 0, 0]) == code(Stream(1, "561", 1), 0) - OFFSET_ADU


@pytest.mark.parametrize("film", [True, False])
def test_localisations_lie_on_the_image_that_is_made_of_them(tmp_path: Path, film: bool) -> None:
    storm = {"raw_along_t": True, "localises": True, "recon_method": "storm", "centred": False}
    channel = replace(describe_channel(), labels=(), **storm)
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    sink.open(replace(describe(interval_s=0.9, record_raw=film), channels=(channel,)))
    for t in range(2):
        found = np.zeros(1, LOCALISATION)
        found["frame"], found["y_nm"], found["x_nm"] = t * RAW + 4, 130, 260
        if film:
            sink.raw(raw_stack(t))
        sink.recon(replace(sr_frame(t), localisations=found))
    sink.close({})
    layers = named(sink.path)
    where, about, kind = layers["localisations · measurement"]
    assert kind == "points"
    world = where * about["scale"] + about["translate"]
    # Of the camera's middles, as layers of any other channel: 2 and 4 pixels of 65 nm from a corner
    np.testing.assert_allclose(world[0, -2:], [0.0975, 0.2275], atol=1e-6)
    _, placed, _ = layers["storm · measurement"]
    # (130, 260) nm from the corner is the corner of pixel (4, 8), whose middle lies half a pixel on
    pixel = (world[0, -2:] - placed["translate"][-2:]) / placed["scale"][-2:]
    np.testing.assert_allclose(pixel, [3.5, 7.5], atol=1e-4)
    if film:  # seen with the exposure in which it was, which belongs to its time point
        assert layers["raw exposures · measurement"][0].shape[0] == 2 * RAW
        t = (world[:, 0] - placed["translate"][0]) / placed["scale"][0]
        assert [round(float(value)) for value in t] == [0, 1]
    else:
        assert where.shape == (2, 2)
    assert list(about["features"]["frame"]) == [4, RAW + 4]


def test_localisations_of_another_position_lie_on_its_image(tmp_path: Path) -> None:
    """They lay on those of the first."""
    storm = {"raw_along_t": True, "localises": True, "recon_method": "storm", "centred": False}
    channel = replace(describe_channel(), labels=(), **storm)
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    sink.open(replace(describe(positions=("A", "B")), channels=(channel,)))
    for p in (0, 1):
        found = np.zeros(1, LOCALISATION)
        found["y_nm"], found["x_nm"] = 130, 260
        stream = Stream(p, "488")
        sink.raw(replace(raw_stack(0, stream), stage=StagePosition(100.0 * p, -50.0 * p, 0.0)))
        sink.recon(replace(sr_frame(0, stream), localisations=found))
    sink.close({})
    layers = named(sink.path)
    for name, wanted in (("A", [0.0975, 0.2275]), ("B", [-49.9025, 100.2275])):
        where, about, _ = layers[f"{name} · localisations · measurement"]
        world = where * about["scale"] + about["translate"]
        np.testing.assert_allclose(world[0, -2:], wanted, atol=1e-6)


def test_what_is_no_store_of_livesr_is_left_to_others(tmp_path: Path, store: Path) -> None:
    assert get_reader(str(tmp_path)) is None
    assert get_reader([str(store)]) is None
    reader = get_reader(str(store))
    assert reader is not None
    assert len(reader(str(store))) == 5


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("centred", [True, False])
def test_pictures_of_finer_pixels_lie_on_the_cameras(
    tmp_path: Path, centred: bool, before: bool
) -> None:
    """Of a store of now, whose translations say it, and of one of before."""
    method = "sim" if centred else "fluctuation"
    channel = replace(describe_channel(), recon_method=method, centred=centred)
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    sink.open(replace(describe(), channels=(channel,)))
    sink.raw(replace(raw_stack(0), stage=StagePosition(10.0, 5.0, 0.0)))
    sink.recon(sr_frame(0))
    sink.close({})
    if before:
        for file in (sink.path / name / "zarr.json" for name in ("raw", "recon", "sr")):
            about = json.loads(file.read_text())
            del about["attributes"]["livesr"]["first_pixel_um"]
            del about["attributes"]["livesr"]["placed"]
            (image,) = about["attributes"]["ome"]["multiscales"]
            place = [{"y": 5.0, "x": 10.0}.get(axis["name"], 0.0) for axis in image["axes"]]
            image["datasets"][0]["coordinateTransformations"][1]["translation"] = place
            file.write_text(json.dumps(about))
    layers = named(sink.path)
    assert layers["raw exposures · measurement"][1]["translate"] == [0, 0, 0, 0]
    apart = 0 if centred else (0.0325 - 0.065) / 2
    for name in (f"{method} · measurement", "ER · prediction"):
        assert layers[name][1]["translate"] == pytest.approx([0, apart, apart]), name
