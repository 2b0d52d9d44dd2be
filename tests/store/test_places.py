"""Every image of a store lies where its light came from, whatever the size of its pixels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts import describe, describe_channel, multicolor_frame, raw_stack, sr_frame
from livesr.base.config import load_rig
from livesr.base.frames import StagePosition
from livesr.base.geometry import Geometry
from livesr.formats import layout
from livesr.formats.store import RecordedStore
from livesr.live.paths import build_path
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.store.exports.export import export
from livesr.store.exports.part import Part, Region
from livesr.store.levels import build_levels
from livesr.store.places import first_pixel_um, place_um
from livesr.store.repair import repair

RAW_UM, RECON_UM, SR_UM = 0.065, 0.0325, 0.01625
STAGE = StagePosition(x_um=100.0, y_um=-50.0, z_um=7.0)
NOWHERE = StagePosition()
METHODS = {True: "sim", False: "fluctuation"}


@pytest.fixture(params=[True, False], ids=["centred", "by corners"])
def centred(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def recorded(folder: Path, centred: bool, stage: StagePosition = STAGE, size: int = 16) -> Path:
    """Write a store whose prediction is twice as fine as its reconstruction."""
    channel = replace(
        describe_channel(size=size),
        recon_method=METHODS[centred],
        centred=centred,
        sr_shape=(4 * size, 4 * size),
        sr_pixel_size_um=SR_UM,
    )
    sink = OMEZarrSink(folder)
    sink.open(replace(describe(interval_s=0.5), channels=(channel,)))
    begun = {
        file: file.read_bytes() for file in folder.rglob("zarr.json") if file.parent.name != "0"
    }
    for t in range(3):
        sink.raw(replace(raw_stack(t, size=size), stage=stage))
        sink.recon(sr_frame(t, size=size))
        sr = multicolor_frame(t, size=size)
        sink.separated(replace(sr, channels=np.zeros((3, 4 * size, 4 * size), np.uint16)))
    sink.close({})
    (folder.parent / "begun.json").write_text(
        json.dumps({str(file): content.decode() for file, content in begun.items()})
    )
    return folder


def datasets(store: Path, name: str, file: str = "zarr.json") -> list[dict[str, Any]]:
    about = json.loads((store / name / file).read_text())
    about = about["attributes"]["ome"] if file == "zarr.json" else about
    return list(about["multiscales"][0]["datasets"])


def first_um(dataset: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Return the middle of the first pixel and its size (y, x), as any reader of NGFF has it."""
    scale, *moved = dataset["coordinateTransformations"]
    at = moved[0]["translation"][-2:] if moved else [0.0, 0.0]
    return at, scale["scale"][-2:]


def outer_corner(dataset: dict[str, Any]) -> list[float]:
    at, size = first_um(dataset)
    return [a - s / 2 for a, s in zip(at, size, strict=True)]


@pytest.mark.parametrize("stage", [STAGE, NOWHERE], ids=["stage", "no stage"])
def test_a_reader_of_ngff_sees_images_on_each_other(
    tmp_path: Path, centred: bool, stage: StagePosition
) -> None:
    store = recorded(tmp_path / "run.ome.zarr", centred, stage)
    raw, recon, sr = (datasets(store, name)[0] for name in ("raw", "recon", "sr"))
    here = [stage.y_um or 0.0, stage.x_um or 0.0]
    assert first_um(raw)[0] == here
    if centred:  # a spectrum that is padded keeps the middle of pixel (0, 0)
        assert first_um(recon)[0] == pytest.approx(here, abs=1e-9)
    else:
        assert outer_corner(recon) == pytest.approx(outer_corner(raw), abs=1e-9)
    assert outer_corner(sr) == pytest.approx(outer_corner(recon), abs=1e-9)
    said = {"y": -50.0, "x": 100.0} if stage is STAGE else {}
    assert {image.name: image.stage_um for image in RecordedStore(store).images.values()} == (
        {name: said for name in ("raw", "recon", "sr")}
    )


def test_smaller_levels_have_the_corner_of_their_image(tmp_path: Path, centred: bool) -> None:
    store = recorded(tmp_path / "run.ome.zarr", centred, size=160)
    assert build_levels(store) == ["recon", "sr"]
    for name, levels in (("recon", 2), ("sr", 3)):
        first, *smaller = map(outer_corner, datasets(store, name))
        assert len(smaller) == levels - 1
        for corner in smaller:
            assert corner == pytest.approx(first, abs=1e-9)


def as_before(store: Path, stage: StagePosition) -> None:
    """Let images say what they did before: the stages' place alone."""
    for name in ("raw", "recon", "sr"):
        file = store / name / "zarr.json"
        about = json.loads(file.read_text())
        for key in ("first_pixel_um", "placed"):
            about["attributes"]["livesr"].pop(key, None)
        (image,) = about["attributes"]["ome"]["multiscales"]
        scale, *_ = image["datasets"][0]["coordinateTransformations"]
        known = {"y": stage.y_um, "x": stage.x_um}
        place = [known.get(axis["name"]) or 0.0 for axis in image["axes"]]
        moved = [] if stage is NOWHERE else [{"type": "translation", "translation": place}]
        image["datasets"][0]["coordinateTransformations"] = [scale, *moved]
        file.write_text(json.dumps(about))


@pytest.mark.parametrize("stage", [STAGE, NOWHERE], ids=["stage", "no stage"])
def test_stores_of_before_are_read_as_those_of_now(
    tmp_path: Path, centred: bool, stage: StagePosition
) -> None:
    path = recorded(tmp_path / "run.ome.zarr", centred, stage)

    def read() -> dict[str, Any]:
        store = RecordedStore(path)
        return {
            i.name: (i.stage_um, place_um(store, i), first_pixel_um(store, i))
            for i in store.images.values()
        }

    now = read()
    as_before(path, stage)
    assert read() == now
    # Nothing is told of a place that was right.
    assert repair(path).metadata == ()
    assert read() == now


@pytest.mark.parametrize("before", [True, False])
def test_an_export_keeps_the_places(tmp_path: Path, centred: bool, before: bool) -> None:
    store = recorded(tmp_path / "run.ome.zarr", centred)
    wanted = {name: first_um(datasets(store, name)[0])[0] for name in ("raw", "recon", "sr")}
    if before:
        as_before(store, STAGE)
    part = Part(region=Region(0.13, 0.26, 0.52, 0.52))
    for region, moved in ((None, (0, 0)), (part, (0.26, 0.13))):
        to = tmp_path / f"{moved[0]}.ome.zarr"
        done = export(store, "ome-zarr-0.4", to, region or Part())
        for name, (y, x) in wanted.items():
            at = first_um(datasets(done.path, name, ".zattrs")[0])[0]
            assert at == pytest.approx([y + moved[0], x + moved[1]], abs=1e-9), name


def test_repair_of_a_run_that_was_killed_early_places_every_image(
    tmp_path: Path, centred: bool
) -> None:
    store = recorded(tmp_path / "run.ome.zarr", centred)
    names = ("raw", "recon", "sr")
    wanted = {name: first_um(datasets(store, name)[0])[0] for name in names}
    for file, content in json.loads((tmp_path / "begun.json").read_text()).items():
        Path(file).write_text(content)
    (store / layout.REPORT).unlink()
    assert first_um(datasets(store, "raw")[0])[0] == [0, 0]
    repair(store)
    for name in names:
        assert first_um(datasets(store, name)[0])[0] == pytest.approx(wanted[name], abs=1e-9)
    assert {i.name: i.stage_um for i in RecordedStore(store).images.values()} == (
        {name: {"y": -50.0, "x": 100.0} for name in names}
    )
    assert repair(store).metadata == ()


@pytest.mark.parametrize(
    ("rig", "centred"),
    [("virtual_sim", True), ("virtual_storm", False), ("virtual_fluctuation", False)],
)
def test_a_rig_says_where_the_pixels_of_its_pictures_are(rig: str, centred: bool) -> None:
    config = load_rig(rig).with_engine("none").with_engine("none", "upscale")
    channel = next(iter(config.channels))
    path = build_path(config, channel, Geometry((64, 64), "uint16", 0.1))
    path.close()
    about = path.description
    assert about.centred == centred
    run = replace(describe(), channels=(about,))
    recon = layout.series_specs(run, 0, about)["recon"]
    apart = (about.recon_pixel_size_um - 0.1) / 2
    assert apart < 0
    assert recon.first_pixel_um == pytest.approx(0.0 if centred else apart, abs=1e-9)
