"""Channels that different cameras take.

Each has its own region, binning, pixel type and pixel size, before anything runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import useq
import zarr
from pymmcore_plus import CMMCorePlus

from livesr import LiveSR
from livesr.base.config import RigConfig, load_rig
from livesr.base.errors import ConfigError
from livesr.evaluation.camera_frames import CameraFrames
from livesr.live.camera import camera_geometry, channel_cameras
from livesr.live.optical_state import ChannelState
from livesr.store.process import process
from livesr.store.raw_input import raw_input
from rigs import core_of

CHANNELS = {"488": ChannelState(), "561": ChannelState()}


@pytest.fixture
def core() -> Iterator[CMMCorePlus]:
    """The demo rig with a second camera: 8 bit, binned, another size; presets choose."""
    with core_of("demo", exposure_ms=2) as core:
        core.loadDevice("Second", "DemoCamera", "DCam")
        core.setParentLabel("Second", "DHub")
        core.initializeDevice("Second")
        for label, x, y in (("Camera", 96, 64), ("Second", 128, 80)):
            core.setProperty(label, "OnCameraCCDXSize", x)
            core.setProperty(label, "OnCameraCCDYSize", y)
        core.setProperty("Second", "Binning", "2")
        for name, label in (("488", "Camera"), ("561", "Second")):
            core.defineConfig("Channel", name, "Core", "Camera", label)
        core.setROI("Camera", 10, 20, 50, 30)
        yield core


def rig(**optics: Any) -> RigConfig:
    plain = load_rig("demo").with_engine("none")
    return plain.model_copy(update={"optics": plain.optics.model_copy(update=optics)})


def plan(loops: int = 2) -> useq.MDASequence:
    return useq.MDASequence(
        time_plan=useq.TIntervalLoops(interval=0, loops=loops), channels=["488", "561"]
    )


def test_each_channel_has_the_geometry_of_its_camera_and_nothing_is_left_changed(
    core: CMMCorePlus,
) -> None:
    before = core.getCameraDevice(), core.getROI(), core.getROI("Second")
    first, second = channel_cameras(core, rig(), CHANNELS).geometries.values()
    assert (first.shape, first.dtype, first.origin_px, first.camera) == (
        (30, 50),
        "uint16",
        (20, 10),
        "Camera",
    )
    assert (second.shape, second.dtype, second.origin_px, second.camera) == (
        (40, 64),
        "uint8",
        (0.25, 0.25),
        "Second",
    )
    assert (first.bit_depth, second.bit_depth) == (16, 8)
    assert (first.pixel_size_um, second.pixel_size_um) == pytest.approx((0.065, 0.13))
    assert (core.getCameraDevice(), core.getROI(), core.getROI("Second")) == before


@pytest.mark.parametrize("given", [True, False])
def test_the_store_has_images_of_each_size_and_computes_the_same_again(
    core: CMMCorePlus, tmp_path: Path, given: bool
) -> None:
    settings: dict[str, Any] = {"plan": plan()} if given else {}
    core.setCameraDevice("Second")  # whichever was used last
    with LiveSR(core, rig=rig(), store=tmp_path / "r.ome.zarr", **settings) as session:
        core.mda.run(plan())
    report = session.report
    assert (report["error"], report["raw_frames"], report["raw_unplaced"]) == (None, 4, 0)
    store = zarr.open_group(report["store"], mode="r")
    shapes = {
        name: store[f"{name}/0"].shape
        for name in ("raw_0_488", "raw_0_561", "recon_0_488", "recon_0_561")
    }
    assert shapes == {
        "raw_0_488": (2, 1, 30, 50),
        "raw_0_561": (2, 1, 40, 64),
        "recon_0_488": (2, 30, 50),
        "recon_0_561": (2, 40, 64),
    }
    about = {name: store[name].attrs["livesr"] for name in ("raw_0_488", "raw_0_561")}
    assert [a["camera"] for a in about.values()] == ["Camera", "Second"]
    assert [a["origin_px"] for a in about.values()] == [[20, 10], [0.25, 0.25]]
    assert [a["bit_depth"] for a in about.values()] == [16, 8]
    again = process(raw_input(Path(report["store"])), tmp_path / "again.ome.zarr")
    for name in ("recon_0_488", "recon_0_561"):
        np.testing.assert_array_equal(
            zarr.open_array(f"{again['store']}/{name}/0")[:], store[f"{name}/0"][:]
        )


def test_a_preset_that_leaves_the_camera_to_the_last_one_is_refused(core: CMMCorePlus) -> None:
    core.deleteConfig("Channel", "488", "Core", "Camera")
    with pytest.raises(
        ConfigError, match=r"Channel '488' is taken with .* of Camera at first, .* of Second after"
    ):
        channel_cameras(core, rig(), CHANNELS)
    assert core.getCameraDevice() == "Camera"


def test_presets_that_bin_one_camera_differently(core: CMMCorePlus, tmp_path: Path) -> None:
    core.setROI("Camera", 0, 0, 96, 64)
    core.defineConfig("Channel", "561", "Core", "Camera", "Camera")
    for name, binning in (("488", "1"), ("561", "2")):
        core.defineConfig("Channel", name, "Camera", "Binning", binning)
    with LiveSR(core, rig=rig(), plan=plan(), store=tmp_path / "r.ome.zarr") as session:
        core.mda.run(plan())
    assert session.report["error"] is None
    store = zarr.open_group(session.report["store"], mode="r")
    assert [store[f"raw_0_{name}/0"].shape[-2:] for name in ("488", "561")] == [(64, 96), (32, 48)]
    scales = [
        store[f"raw_0_{n}"].attrs["ome"]["multiscales"][0]["datasets"][0][
            "coordinateTransformations"
        ][0]["scale"][-1]
        for n in ("488", "561")
    ]
    assert scales == pytest.approx([0.065, 0.13])


class TestPixelSize:
    """rig.yaml's one number, and what Micro-Manager says of each camera."""

    @pytest.fixture
    def core(self, core: CMMCorePlus) -> CMMCorePlus:
        core.setProperty("Second", "Binning", "1")
        core.definePixelSizeConfig("Far", "Core", "Camera", "Second")
        core.setPixelSizeUm("Far", 0.11)
        return core

    def test_without_rig_yaml_each_channel_has_its_own(self, core: CMMCorePlus) -> None:
        found = channel_cameras(core, rig(pixel_size_nm=None), CHANNELS)
        assert [g.pixel_size_um for g in found.geometries.values()] == pytest.approx([0.065, 0.11])

    def test_rig_yaml_is_about_the_camera_that_it_agrees_with(
        self, core: CMMCorePlus, tmp_path: Path
    ) -> None:
        with LiveSR(core, rig=rig(), plan=plan(), store=tmp_path / "r.ome.zarr") as session:
            core.mda.run(plan())
        assert any("Channel 561: pixels of 110 nm" in w for w in session.report["warnings"])

    def test_a_channel_may_say_its_own(self, core: CMMCorePlus) -> None:
        channels = rig().channels
        own = {**channels, "561": channels["561"].model_copy(update={"pixel_size_nm": 108.0})}
        found = channel_cameras(core, rig().model_copy(update={"channels": own}), CHANNELS)
        assert [g.pixel_size_um for g in found.geometries.values()] == pytest.approx([0.065, 0.108])
        assert found.notes == ()

    def test_a_number_that_fits_no_camera_is_refused(self, core: CMMCorePlus) -> None:
        with pytest.raises(ConfigError, match=r"set channels\.488\.pixel_size_nm"):
            channel_cameras(core, rig(pixel_size_nm=80), CHANNELS)


def test_saturation_is_counted_at_the_depth_that_the_core_says(tmp_path: Path) -> None:
    with core_of("demo", exposure_ms=800) as core:
        core.setProperty("Camera", "BitDepth", "12")
        core.setProperty("Camera", "Mode", "Noise")
        core.setProperty("Camera", "Photon Flux", "5")
        for side in ("OnCameraCCDXSize", "OnCameraCCDYSize"):
            core.setProperty("Camera", side, 64)
        assert camera_geometry(core, rig()).bit_depth == 12
        single = useq.MDASequence(
            channels=["488"], time_plan=useq.TIntervalLoops(interval=0, loops=2)
        )
        with LiveSR(core, rig=rig(), plan=single, store=tmp_path / "r.ome.zarr") as session:
            core.mda.run(single)
    raw = zarr.open_array(f"{session.report['store']}/raw/0", mode="r")[:]
    lines = [
        json.loads(x)
        for x in (tmp_path / "r.ome.zarr/livesr/frames.jsonl").read_text().splitlines()
    ]
    counted = {x["t"]: x.get("saturated", 0) for x in lines if x["series"] == "recon"}
    assert raw.max() == 4095 > raw.min()
    assert counted == {t: int(np.count_nonzero(raw[t] >= 4095)) for t in range(2)}


def test_the_frames_of_a_characterisation_are_of_the_camera_of_their_channel(
    core: CMMCorePlus,
) -> None:
    core.setProperty("Second", "Binning", "1")
    frames = CameraFrames(core, rig(), "561")
    assert (frames.dark(2).shape, frames.light(2, "561").dtype) == ((2, 80, 128), np.uint8)
    with pytest.raises(
        ConfigError, match="Preset '488' chooses camera 'Camera', and the frames are of 'Second'"
    ):
        frames.light(2, "488")


def test_pixels_above_the_ceiling_that_was_said(core: CMMCorePlus) -> None:
    plain = rig()
    short = plain.model_copy(update={"camera": plain.camera.model_copy(update={"bit_depth": 8})})
    single = useq.MDASequence(channels=["488"])
    with LiveSR(core, rig=short, plan=single) as session:
        core.mda.run(single)
    assert [w for w in session.report["warnings"] if "exceed 255" in w]


def test_a_value_that_a_camera_refuses_is_named(core: CMMCorePlus) -> None:
    core.defineConfig("Channel", "488", "Camera", "Binning", "3")
    with pytest.raises(ConfigError, match=r"Camera-Binning = '3' was refused by its device: .+"):
        channel_cameras(core, rig(), CHANNELS)


def test_a_value_that_a_camera_written_in_python_refuses_is_named() -> None:
    with core_of("virtual_dyes", SensorSize=64, TimePoints=1) as core:
        core.defineConfig("Channel", "488", "Camera", "Channel", "all")
        with pytest.raises(ConfigError, match=r"Camera-Channel = 'all' was refused.*'all' was"):
            channel_cameras(core, load_rig("virtual_dyes").with_engine("none"), CHANNELS)
