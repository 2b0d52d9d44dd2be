"""A store for other programs, read by their own readers, pixel by pixel."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import tifffile
import zarr

from contracts import (
    RAW,
    code,
    describe,
    describe_channel,
    feed,
    multicolor_frame,
    raw_stack,
    sr_frame,
)
from livesr.base.errors import ConfigError, RunError, StoreError
from livesr.base.frames import LOCALISATION, LOCALISATION_3D, StagePosition, Stream
from livesr.formats.frames_log import SeriesName
from livesr.formats.localisations import HEADER, header, read_localisations, rows
from livesr.formats.store import RecordedStore
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.live.sources.recordings.recording import open_recording
from livesr.store.exports.export import export
from livesr.store.exports.part import SAID, Part, Region, choose

STREAM = Stream(0, "488")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Four time points, the second of which the network skipped."""
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    sink.open(describe(interval_s=0.5))
    for t in range(4):
        sink.raw(raw_stack(t))
        sink.recon(sr_frame(t))
        if t == 1:
            sink.skipped(STREAM, t, "the network was busy")
        else:
            sink.separated(multicolor_frame(t))
    sink.close({})
    return sink.path


def test_every_kind_of_image_has_a_word() -> None:
    assert set(SAID) == set(get_args(SeriesName))


def pixels(store: Path, name: str) -> np.ndarray:
    return np.asarray(zarr.open_array(store / name / "0", mode="r"))


def test_a_hyperstack_has_colours_scale_and_labels_as_fiji_reads_them(store: Path) -> None:
    done = export(store, "imagej")
    assert done.path == store.parent / "run_imagej"
    assert done.files == ("raw.tif", "recon-measurement.tif", "sr-prediction.tif")
    with tifffile.TiffFile(done.path / "sr-prediction.tif") as tiff:
        about, page = tiff.imagej_metadata, tiff.pages[0]
        assert tiff.series[0].axes == "TCYX"
        np.testing.assert_array_equal(tiff.asarray(), pixels(store, "sr"))
        numerator, denominator = page.tags["XResolution"].value
    assert (about["mode"], about["channels"], about["frames"]) == ("composite", 3, 4)
    assert [lut[:, 255].tolist() for lut in about["LUTs"]] == [
        [0, 255, 0],
        [255, 0, 255],
        [255, 255, 0],
    ]
    assert about["Ranges"] == (10, 200, 20, 300, 30, 400)
    assert about["unit"] == "um"
    assert denominator / numerator == pytest.approx(0.0325, rel=1e-4)
    assert about["finterval"] == 0.5
    assert about["Labels"][:4] == [
        "SR Microtubules (prediction) t 0",
        "SR ER (prediction) t 0",
        "SR Lysosomes (prediction) t 0",
        "SR Microtubules (prediction) t 1 (missing)",
    ]
    assert "not raw data [prediction]" in about["Info"]
    assert "Missing, zeros here: t 1" in about["Info"]
    with tifffile.TiffFile(done.path / "raw.tif") as tiff:
        assert tiff.imagej_metadata["mode"] == "grayscale"  # patterns on top of each other


def test_ome_tiff_says_what_it_is(store: Path) -> None:
    ome_types = pytest.importorskip("ome_types", reason="ome-types is not installed")
    done = export(store, "tiff")
    for name, image, said in (
        ("raw.ome.tif", "raw", "raw exposure"),
        ("recon-measurement.ome.tif", "recon", "measurement"),
        ("sr-prediction.ome.tif", "sr", "prediction"),
    ):
        with tifffile.TiffFile(done.path / name) as tiff:
            assert tiff.is_bigtiff
            np.testing.assert_array_equal(tiff.asarray(), pixels(store, image))
        about = ome_types.from_tiff(done.path / name).images[0]
        assert about.name.endswith(f"[{said}]")
        assert all(c.name.endswith(f"({said})") for c in about.pixels.channels)
        assert about.pixels.time_increment == 0.5
        assert about.pixels.size_t == 4
    assert about.pixels.physical_size_x == 0.0325
    assert [c.color.as_rgb_tuple()[:3] for c in about.pixels.channels] == [
        (0, 255, 0),
        (255, 0, 255),
        (255, 255, 0),
    ]


def test_ome_zarr_of_version_0_4(store: Path) -> None:
    import yaozarrs

    done = export(store, "ome-zarr-0.4")
    assert done.path.name == "run_0.4.ome.zarr"
    for name in ("raw", "recon", "sr"):
        yaozarrs.validate_zarr_store(str(done.path / name))
        np.testing.assert_array_equal(pixels(done.path, name), pixels(store, name))
    about = json.loads((done.path / "sr" / ".zattrs").read_text())
    assert about["multiscales"][0]["name"] == "SR prediction (AI) - not raw data"
    assert about["omero"]["channels"][1]["label"] == "SR ER (prediction)"
    assert about["livesr"]["prediction"] is True
    reader = pytest.importorskip("ome_zarr.reader", reason="ome-zarr is not installed")
    from ome_zarr.format import FormatV04
    from ome_zarr.io import parse_url

    (node,) = reader.Reader(parse_url(str(done.path / "sr"), fmt=FormatV04()))()
    assert node.metadata["channel_names"][0] == "SR Microtubules (prediction)"


def test_large_pictures_have_smaller_levels(tmp_path: Path) -> None:
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    sink.open(describe(size=150))
    sink.recon(sr_frame(0, size=150))
    sink.close({})
    done = export(sink.path, "ome-zarr-0.4", part=Part(images=("recon",)))
    levels = [np.asarray(zarr.open_array(done.path / "recon" / n, mode="r")) for n in "01"]
    assert [level.shape for level in levels] == [(1, 300, 300), (1, 150, 150)]
    four = levels[0].reshape(1, 150, 2, 150, 2).astype(float).mean((2, 4))
    np.testing.assert_allclose(levels[1], four, atol=0.5)


def test_a_part_in_version_0_4_lies_where_the_stages_were(tmp_path: Path) -> None:
    """Every position was exported as if the stages stood at 0."""
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    sink.open(describe(positions=("A", "B"), z_planes=2, interval_s=0.5))
    for p in (0, 1):
        for z in (0, 1):
            for t in range(3):
                stage = StagePosition(x_um=100.0 * p, y_um=-50.0 * p, z_um=7 + 0.25 * z)
                stream = Stream(p, "488", z)
                sink.raw(replace(raw_stack(t, stream), stage=stage))
                sink.recon(sr_frame(t, stream))
    sink.close({})
    part = Part(first=1, region=Region(0.13, 0.26, 0.325, 0.65))
    done = export(sink.path, "ome-zarr-0.4", part=part)
    for name, wanted in (
        ("raw_A_488", [0.5, 0, 7, 0.26, 0.13]),
        ("raw_B_488", [0.5, 0, 7, -49.74, 100.13]),
        ("recon_B_488", [0.5, 7, -49.74, 100.13]),
    ):
        about = json.loads((done.path / name / ".zattrs").read_text())
        steps = about["multiscales"][0]["datasets"][0]["coordinateTransformations"]
        assert steps[1]["translation"] == pytest.approx(wanted), name


@pytest.mark.parametrize("mirrored", [(False, False), (True, False), (False, True), (True, True)])
def test_a_part_of_raw_frames_says_where_on_the_chip_it_is(
    tmp_path: Path, mirrored: tuple[bool, bool]
) -> None:
    """SIM's phases count from there; every pixel here is its place on the chip."""
    size, origin = 16, (32, 48)
    chip = np.arange(200, dtype=np.uint16)
    rows_, columns = (chip[first : first + size] for first in origin)
    frame = 200 * rows_[:, None] + columns[None]
    frame = frame[:: -1 if mirrored[0] else 1, :: -1 if mirrored[1] else 1]
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    about = replace(describe_channel(size=size), raw_origin_px=origin, raw_mirrored=mirrored)
    sink.open(replace(describe(interval_s=0.5), channels=(about,)))
    sink.raw(replace(raw_stack(0), frames=(np.ascontiguousarray(frame),) * RAW))
    sink.close({})
    part = Part(images=("raw",), region=Region(0.13, 0.26, 0.325, 0.52))
    done = export(sink.path, "ome-zarr-0.4", part=part)
    opened = open_recording(done.path / "raw")
    got = opened.read((0,) * len(opened.axes)).pixels
    assert got.shape == (8, 5)
    on_chip = got // 200, got % 200
    for axis in (0, 1):
        first, n = opened.origin_px[axis], got.shape[axis]
        u = np.arange(n)
        wanted = first + (n - 1 - u if opened.mirrored[axis] else u)
        np.testing.assert_array_equal(on_chip[axis].max(1 - axis), wanted)
    said = f"First pixel on the chip: y {opened.origin_px[0]:g}, x {opened.origin_px[1]:g}"
    hyperstack = export(sink.path, "imagej", tmp_path / "raw.tif", part)
    with tifffile.TiffFile(hyperstack.path) as tiff:
        assert said in tiff.imagej_metadata["Info"]


@pytest.mark.parametrize("x_um", [0.1, 0.13, 0.16, 0.49])
def test_a_region_is_the_same_place_in_every_image(store: Path, x_um: float) -> None:
    """Each image rounded for itself, and raw frames lay half a pixel from what was made of them."""
    part = Part(region=Region(x_um, 0.1, 0.3, 0.42))
    raw, *others = choose(RecordedStore(store), part)
    assert {image.image.kind for image in others} == {"recon", "sr"}
    assert raw.columns.start == round(x_um / 0.065)
    for image in others:
        for fine, coarse in ((image.rows, raw.rows), (image.columns, raw.columns)):
            assert (fine.start, fine.stop) == (2 * coarse.start, 2 * coarse.stop)
    small = Part(
        images=("sr",), region=Region(0.1, 0.1, 0.03, 0.03)
    )  # less than one of the camera's
    (image,) = choose(RecordedStore(store), small)
    assert image.size[-2:] == (1, 1)


def test_a_part(tmp_path: Path) -> None:
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    sink.open(describe(positions=("A", "B"), channels=("488", "561"), z_planes=2))
    streams = [Stream(p, c, z) for p in (0, 1) for c in ("488", "561") for z in (0, 1)]
    for t in range(4):
        for stream in streams:
            feed(sink, t, stream)
    sink.close({})
    part = Part(
        images=("sr",),
        channels=("Lysosomes",),
        positions=("B",),
        first=1,
        last=2,
        region=Region(0.0, 0.0, 0.325, 0.65),
    )
    done = export(sink.path, "imagej", part=part)
    assert done.files == ("sr_B_488-prediction.tif", "sr_B_561-prediction.tif")
    for channel in ("488", "561"):
        with tifffile.TiffFile(done.path / f"sr_B_{channel}-prediction.tif") as tiff:
            got = tiff.asarray()
            labels = tiff.imagej_metadata["Labels"]
        assert got.shape == (2, 2, 20, 10)
        wanted = [[code(Stream(1, channel, z), t, 2) for z in (0, 1)] for t in (1, 2)]
        np.testing.assert_array_equal(got[:, :, 0, 0], wanted)
        assert labels[0] == "SR Lysosomes (prediction) t 1"


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (Part(images=("uncertainty",)), "has no image 'uncertainty'; it has raw, recon, sr"),
        (Part(channels=("ER", "Golgi")), "no channel 'Golgi'; it has 488, ER, Lysosomes"),
        (Part(positions=("C",)), "no position 'C'"),
        (Part(first=4), "4 time points"),
        (Part(region=Region(0, 0, 2, 0.1)), "and raw 0 to 1.04 um"),
        (Part(region=Region(0, 0, 0, 0.1)), "of a pixel at least"),
    ],
)
def test_what_is_not_there_is_a_sentence(store: Path, part: Part, words: str) -> None:
    with pytest.raises(StoreError, match=words):
        export(store, "tiff", part=part)
    assert not list(store.parent.glob("*run_*"))


def test_nothing_is_written_over(store: Path) -> None:
    first = export(store, "imagej", part=Part(images=("recon",)))
    before = (first.path / "recon-measurement.tif").read_bytes()
    second = export(store, "imagej", part=Part(images=("sr",)))
    assert second.path.name == "run_imagej_2"
    assert (first.path / "recon-measurement.tif").read_bytes() == before
    one = export(store, "imagej", store.parent / "a.tif", Part(images=("recon",)))
    two = export(store, "imagej", store.parent / "a.tif", Part(images=("recon",)))
    assert (one.path.name, two.path.name) == ("a.tif", "a_2.tif")
    with pytest.raises(ConfigError, match="one file, and 3 images are chosen"):
        export(store, "tiff", store.parent / "b.tif")


def test_interrupted_it_leaves_nothing(store: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    before = sorted(store.parent.iterdir())
    for to in ("tiff", "imagej", "ome-zarr-0.4"):
        with pytest.raises(KeyboardInterrupt):
            export(store, to, on_progress=stop)
    assert sorted(store.parent.iterdir()) == before


def test_a_disk_that_refuses_is_a_sentence(store: Path) -> None:
    (store.parent / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        export(store, "tiff", store.parent / "file" / "out")


def test_memory_does_not_grow_with_the_run(tmp_path: Path) -> None:
    peaks = []
    for count in (4, 40):
        sink = OMEZarrSink(tmp_path / f"{count}.ome.zarr")
        sink.open(describe(size=64))
        for t in range(count):
            sink.separated(multicolor_frame(t, size=64))
        sink.close({})
        export(sink.path, "imagej", part=Part(images=("sr",)))  # what is imported once
        tracemalloc.start()
        done = export(sink.path, "imagej", part=Part(images=("sr",)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert done.planes == 120
    assert peaks[1] < peaks[0] + 20 * 3 * 128 * 128 * 2  # half of what was written


def test_a_picture_whose_file_is_gone_is_not_written_as_darkness(store: Path) -> None:
    shutil.rmtree(store / "recon" / "0" / "c")
    with pytest.raises(StoreError, match="recon cannot be read at t=0: its file is gone"):
        export(store, "imagej")


def test_the_frames_as_a_table(store: Path) -> None:
    done = export(store, "csv")
    with (done.path / "frames.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 12
    said = {(row["image"], row["t"]): (row["is"], row["state"]) for row in table}
    assert said["recon", "1"] == ("measurement", "recon")
    assert said["sr", "0"] == ("prediction", "separated")
    assert said["sr", "1"] == ("prediction", "missing")
    assert all(row["residual"] for row in table if row["state"] == "separated")


@pytest.fixture
def localised(store: Path) -> Path:
    found = np.zeros(3, LOCALISATION)
    found["frame"] = (0, 1, 3)
    found["x_nm"], found["y_nm"] = (32.5, 97.5, 500), (97.5, 32.5, 500)
    found["sigma_nm"], found["photons"], found["uncertainty_nm"] = 130, 1000, 13
    (store / "localisations.csv").write_text(HEADER + rows(found))
    return store


def test_localisations_as_thunderstorm_has_them(localised: Path) -> None:
    whole = export(localised, "csv")
    table = (whole.path / "localisations.csv").read_text()
    assert table == (localised / "localisations.csv").read_text()
    part = Part(first=1, last=2, region=Region(0.065, 0, 0.13, 0.13))
    some = export(localised, "csv", part=part)
    (one,) = read_localisations(some.path / "localisations.csv")
    assert (one["frame"], one["x_nm"], one["y_nm"]) == (0, 32.5, 32.5)


def test_localisations_as_picasso_has_them(localised: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install 'livesr[export]'")
    import yaml

    done = export(localised, "picasso")
    assert done.files == ("localisations.hdf5", "localisations.yaml")
    with h5py.File(done.path / "localisations.hdf5") as file:
        locs = file["locs"][:]
    assert locs["frame"].tolist() == [0, 1, 3]
    np.testing.assert_allclose(locs["x"][:2], [0, 1], atol=1e-6)  # middles of pixels
    np.testing.assert_allclose(locs["y"][:2], [1, 0], atol=1e-6)
    np.testing.assert_allclose([locs["sx"][0], locs["lpx"][0]], [2, 0.2], rtol=1e-6)
    film, made = yaml.safe_load_all((done.path / "localisations.yaml").read_text())
    assert (film["Frames"], film["Width"], film["Height"]) == (4, 16, 16)
    assert made["Pixelsize"] == 65


def test_height_comes_along(store: Path) -> None:
    found = np.zeros(1, LOCALISATION_3D)
    found["x_nm"], found["sigma_nm"], found["sigma_y_nm"] = 97.5, 130, 195
    found["z_nm"], found["z_uncertainty_nm"] = -250, 30
    (store / "localisations.csv").write_text(header(found.dtype) + rows(found))
    (one,) = read_localisations(export(store, "csv").path / "localisations.csv")
    assert one["z_nm"] == -250
    h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install 'livesr[export]'")
    with h5py.File(export(store, "picasso").path / "localisations.hdf5") as file:
        (loc,) = file["locs"][:]
    assert (loc["z"], loc["lpz"], loc["sx"], loc["sy"]) == (-250, 30, 2, 3)


def test_without_localisations_there_is_no_table(store: Path) -> None:
    with pytest.raises(StoreError, match="Nothing was localised"):
        export(store, "picasso")


def test_the_command(store: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "livesr", "export", str(store)]
    part = ["--series", "recon", "--from", "1", "--to", "2"]
    done = subprocess.run(
        [*command, "--to", "imagej", "--to", "csv", *part, "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    said = json.loads(done.stdout)["exported"]
    assert [one["format"] for one in said] == ["imagej", "csv"]
    read = tifffile.imread(Path(said[0]["path"]) / "recon-measurement.tif")
    np.testing.assert_array_equal(read, pixels(store, "recon")[1:3])
    wrong = subprocess.run([*command], capture_output=True, text=True, timeout=120, check=False)
    assert wrong.returncode == 2
    assert "--to takes tiff, imagej" in wrong.stderr
