"""Recordings of other programs.

Every frame is at its place, whatever the format, and what the file says is believed.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from livesr.base.config import RawAxes
from livesr.base.errors import ConfigError, DamagedFileError
from livesr.live.sources.recordings.recording import (
    Recording,
    open_recording,
    parse_axes,
    places,
    with_axes,
    with_sections,
)
from recordings import write_dv, write_mmstack, write_mrc, write_ndtiff, write_ome_zarr

Y, X = 6, 8


def stamped(*lengths: int, dtype: str = "uint16") -> np.ndarray:
    """Frames (..., y, x) whose first pixel is their number, from 1, on noise."""
    frames = np.random.default_rng(0).integers(1, 250, (*lengths, Y, X)).astype(dtype)
    frames[..., 0, 0] = 1 + np.arange(np.prod(lengths)).reshape(lengths)
    return frames


@contextmanager
def opened(
    path: Path, axes: str | None = None, n_raw: int = 9, parts: RawAxes | None = None
) -> Iterator[Recording]:
    found = open_recording(path)
    with closing(found):
        yield with_axes(found, axes, n_raw, parts)


def assert_holds(recording: Recording, frames: np.ndarray, axes: str) -> None:
    """`frames` (*axes, y, x) are read, each from its place."""
    names = tuple("raw" if a == "r" else a for a in axes)
    assert dict(zip(recording.axes, recording.lengths, strict=True)) == dict(
        zip(names, frames.shape, strict=False)
    )
    assert (recording.shape, recording.dtype) == (frames.shape[-2:], frames.dtype.name)
    for place in product(*map(range, frames.shape[:-2])):
        plane = recording.read(recording.place(dict(zip(names, place, strict=True))))
        assert plane is not None
        np.testing.assert_array_equal(plane.pixels, frames[place])
        assert plane.pixels.dtype.isnative
        assert plane.pixels.flags.owndata or plane.pixels.base is not None


# -- TIFF ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["contiguous", "compressed", "pages", "imagej", "big", "uint8"])
def test_a_plain_stack_counts_frames(tmp_path: Path, kind: str) -> None:
    frames = stamped(18, dtype="uint8" if kind == "uint8" else "uint16")
    options = {
        "compressed": {"compression": "zlib"},
        "pages": {"metadata": None},
        "imagej": {"imagej": True, "metadata": {"axes": "TYX"}},
        "big": {"bigtiff": True, "byteorder": ">"},
    }
    tifffile.imwrite(tmp_path / "a.tif", frames, photometric="minisblack", **options.get(kind, {}))
    with opened(tmp_path / "a.tif") as recording:
        assert_holds(recording, frames, "t")


def test_a_stack_of_groups(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", stamped(2, 9), photometric="minisblack")
    with opened(tmp_path / "a.tif") as recording:
        assert_holds(recording, stamped(2, 9), "tr")
    with (
        pytest.raises(ConfigError, match=r"Say what the axes are with --axes"),
        opened(tmp_path / "a.tif", n_raw=5),
    ):
        pass


def test_an_imagej_hyperstack_says_its_axes(tmp_path: Path) -> None:
    frames = stamped(3, 2, 2)
    about = {"axes": "TZCYX", "unit": "um", "spacing": 0.4, "finterval": 0.25}
    tifffile.imwrite(
        tmp_path / "a.tif", frames, imagej=True, resolution=(1 / 0.065, 1 / 0.065), metadata=about
    )
    with opened(tmp_path / "a.tif", n_raw=1) as recording:
        assert_holds(recording, frames, "tzc")
        assert recording.pixel_size_um == pytest.approx(0.065, rel=1e-4)
        assert (recording.z_step_um, recording.interval_s) == (0.4, 0.25)
    words = "not clear which axis counts the 2 raw frames"
    with pytest.raises(ConfigError, match=words), opened(tmp_path / "a.tif", n_raw=2):
        pass
    with opened(tmp_path / "a.tif", "t,raw,c,y,x", n_raw=2) as recording:
        assert_holds(recording, frames, "trc")


@pytest.mark.parametrize("compressed", [False, True])
def test_signed_numbers_that_imagej_saved_are_those_of_the_camera(
    tmp_path: Path, compressed: bool
) -> None:
    """As of a DeltaVision file that was opened and saved: ImageJ adds 32768, and says so."""
    frames, signed = stamped(3, 2), {"axes": "TZYX", "cf": 0, "c0": -32768.0, "c1": 1.0}
    kept = (frames + np.uint16(32768)).astype(">u2")
    tifffile.imwrite(
        tmp_path / "a.tif",
        kept,
        imagej=True,
        metadata=signed,
        compression="zlib" if compressed else None,
    )
    with opened(tmp_path / "a.tif", n_raw=1) as recording:
        assert_holds(recording, frames, "tz")
        assert recording.dtype == "uint16"
        assert "32768 is taken off every value" in recording.notes[0]
    kept[2, 1, 0, 0] = 32767
    tifffile.imwrite(tmp_path / "b.tif", kept, imagej=True, metadata=signed)
    with opened(tmp_path / "b.tif", n_raw=1) as recording:
        recording.read((0, 0))
        with pytest.raises(DamagedFileError, match="from -1 to"):
            recording.read((2, 1))
    other = {**signed, "c0": 0.0, "c1": 0.45}  # photons, which no camera gives
    tifffile.imwrite(tmp_path / "c.tif", frames, imagej=True, metadata=other)
    with opened(tmp_path / "c.tif", n_raw=1) as recording:
        assert_holds(recording, frames, "tz")
        assert "has a calibration of its grey values" in recording.notes[0]


@pytest.mark.parametrize(
    ("said", "interval_s", "z_um"),
    [
        ({"finterval": 2.0, "tunit": "min"}, 120, None),
        ({"finterval": 2.0, "tunit": "frames"}, None, None),
        ({"spacing": 300.0, "zunit": "nm"}, None, 0.3),
        ({"spacing": 300.0, "zunit": "steps"}, None, None),
    ],
)
def test_units_that_imagej_gives_to_an_axis(
    tmp_path: Path, said: dict[str, Any], interval_s: float | None, z_um: float | None
) -> None:
    """A unit that nobody knows is not taken for seconds or um."""
    frames, about = stamped(3, 2), {"axes": "TZYX", "unit": "micron", **said}
    tifffile.imwrite(tmp_path / "a.tif", frames, imagej=True, resolution=(10, 10), metadata=about)
    with opened(tmp_path / "a.tif", n_raw=1) as recording:
        assert recording.interval_s == interval_s
        assert recording.z_step_um == (None if z_um is None else pytest.approx(z_um))
        assert recording.pixel_size_um == pytest.approx(0.1)


def test_ome_tiff_says_its_axes_channels_and_positions(tmp_path: Path) -> None:
    frames = stamped(2, 3, 2, 2)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        for i, position in enumerate(frames):
            about = {
                "axes": "TCZYX",
                "Channel": {"Name": ["488", "561"]},
                "Name": f"well {i}",
                "PhysicalSizeX": 65.0,
                "PhysicalSizeXUnit": "nm",
                "PhysicalSizeZ": 0.3,
                "TimeIncrement": 100.0,
                "TimeIncrementUnit": "ms",
            }
            writer.write(position, metadata=about, photometric="minisblack")
    with opened(tmp_path / "a.ome.tif", n_raw=1) as recording:
        assert_holds(recording, frames, "ptcz")
        assert (recording.channels, recording.positions) == (("488", "561"), ("well 0", "well 1"))
        assert recording.pixel_size_um == pytest.approx(0.065)
        assert (recording.z_step_um, recording.interval_s) == (0.3, pytest.approx(0.1))


@pytest.mark.parametrize(
    ("said", "instead", "words"),
    [
        ('SizeX="8"', 'SizeX="9"', "describes frames of 6 x 9 uint16, and its pages are 6 x 8"),
        ('Type="uint16"', 'Type="uint8"', "describes frames of 6 x 8 uint8"),
    ],
)
def test_ome_xml_that_contradicts_its_pages_is_named(
    tmp_path: Path, said: str, instead: str, words: str
) -> None:
    frames = stamped(2)
    tifffile.imwrite(tmp_path / "a.ome.tif", frames, metadata={"axes": "TYX"})
    data = (tmp_path / "a.ome.tif").read_bytes()
    assert said.encode() in data
    changed = instead.ljust(len(said)).encode()
    (tmp_path / "a.ome.tif").write_bytes(data.replace(said.encode(), changed))
    with opened(tmp_path / "a.ome.tif", n_raw=1) as recording:
        assert_holds(recording, frames[:, None, None], "tzc")
        assert any(words in note for note in recording.notes), recording.notes


SUMMARY = {
    "Frames": 3,
    "Channels": 2,
    "Slices": 1,
    "Positions": 1,
    "ChNames": ["488", "561"],
    "PixelSize_um": 0.1,
    "StartTime": "2024-05-06 07:08:09.000 +0000",
    "TimeFirst": True,
    "SlicesFirst": False,
    "StagePositions": [{"Label": "cell 7"}],
    "Interval_ms": 50,
    "z-step_um": 0.25,
}


def mmstack(path: Path) -> np.ndarray:
    frames = stamped(3, 2)
    at = list(product(range(3), range(2)))
    metadata = [
        {
            "ElapsedTime-ms": 100 * t + 10 * c, "PixelSizeUm": 0.065, "ROI": "12-34-8-6",
            "FrameIndex": t, "ChannelIndex": c, "SliceIndex": 0, "PositionIndex": 0,
        }
        for t, c in at
    ]  # fmt: skip
    write_mmstack(path, frames.reshape(-1, Y, X), [(c, 0, t, 0) for t, c in at], SUMMARY, metadata)
    return frames


def test_a_micromanager_stack_says_everything(tmp_path: Path) -> None:
    frames = mmstack(tmp_path / "x_MMStack.ome.tif")
    with opened(tmp_path / "x_MMStack.ome.tif", n_raw=1) as recording:
        assert recording.format == "Micro-Manager TIFF"
        length = dict(zip(recording.axes, recording.lengths, strict=True))
        assert {a: n for a, n in length.items() if n > 1} == {"t": 3, "c": 2}
        for t, c in product(range(3), range(2)):
            plane = recording.read(recording.place({"t": t, "c": c}))
            np.testing.assert_array_equal(plane.pixels, frames[t, c])
            assert plane.t_camera_ms == 100 * t + 10 * c
        assert (recording.channels, recording.positions) == (("488", "561"), ("cell 7",))
        assert (recording.pixel_size_um, recording.origin_px, recording.timed) == (
            0.065,
            (34.0, 12.0),
            True,
        )
        assert (recording.interval_s, recording.z_step_um) == (0.05, 0.25)
        assert recording.started_ns == 1714979289 * 10**9


def test_a_micromanager_stack_without_some_frames(tmp_path: Path) -> None:
    frames = stamped(2)
    write_mmstack(tmp_path / "a.tif", frames, [(0, 0, 0, 0), (1, 0, 2, 0)], SUMMARY, [{}, {}])
    with opened(tmp_path / "a.tif", n_raw=1) as recording:
        came = {}
        for place in places(dict(zip(recording.axes, recording.lengths, strict=True))):
            if plane := recording.read(recording.place(place)):
                came[place["t"], place["c"]] = plane.pixels[0, 0]
    assert came == {(0, 0): 1, (2, 1): 2}


def test_a_folder_of_stacks_is_one_recording(tmp_path: Path) -> None:
    frames = stamped(23)
    for name, part in (
        ("s_8.tif", frames[:9]),
        ("s_9.tif", frames[9:20]),
        ("s_10.tif", frames[20:]),
    ):
        tifffile.imwrite(tmp_path / name, part, photometric="minisblack")
    with opened(tmp_path) as recording:
        assert_holds(recording, frames, "t")
    tifffile.imwrite(
        tmp_path / "s_11.tif", np.zeros((2, 4, 4), np.uint16), photometric="minisblack"
    )
    with pytest.raises(ConfigError, match=r"s_11.tif is .* s_8.tif is"):
        open_recording(tmp_path)


@pytest.mark.parametrize(
    ("frames", "options", "words"),
    [
        (stamped(9) + np.float32(0.5), {}, "float32 from .* expected the camera's uint8 or uint16"),
        (
            stamped(9).astype(np.int16) - 300,
            {},
            "int16 from -.* expected the camera's uint8 or uint16",
        ),
        (np.zeros((9, Y, X, 3), np.uint8), {"photometric": "rgb"}, "colour"),
    ],
)
def test_pixels_of_no_camera_are_refused(
    tmp_path: Path, frames: np.ndarray, options: dict, words: str
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", frames, **{"photometric": "minisblack", **options})
    with pytest.raises(ConfigError, match=words):
        open_recording(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", ["contiguous", "pages", "compressed", "mmstack"])
def test_a_tiff_that_was_cut_off_gives_what_is_there(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.tif"
    if kind == "mmstack":
        mmstack(path)
    elif kind == "pages":
        with tifffile.TiffWriter(path) as writer:
            for frame in stamped(18):
                writer.write(frame, metadata=None, contiguous=False, photometric="minisblack")
    else:
        tifffile.imwrite(
            path,
            stamped(18),
            photometric="minisblack",
            compression="zlib" if kind == "compressed" else None,
        )
    whole = path.read_bytes()
    path.write_bytes(whole[: int(0.6 * len(whole))])
    with opened(path, n_raw=1) as recording:
        came, damage = read_all(recording)
    assert damage is not None
    assert "a.tif" in damage
    assert came == list(range(1, len(came) + 1))
    # The second page of a stack that tifffile compressed is found through the last bytes of the
    # file.
    assert len(came) >= (1 if kind == "compressed" else 3)
    assert kind != "mmstack" or dict(zip(recording.axes, recording.lengths, strict=True))["c"] == 2


def read_all(recording: Recording) -> tuple[list[int], str | None]:
    """Numbers of the frames that can be read, and what ended it."""
    came = []
    for place in places(dict(zip(recording.axes, recording.lengths, strict=True))):
        try:
            plane = recording.read(recording.place(place))
        except DamagedFileError as e:
            return came, str(e)
        came += [int(plane.pixels[0, 0])] if plane else []
    return came, recording.damage


# -- the other formats -----------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("chunk_t", [1, 4])
def test_ome_zarr(tmp_path: Path, version: str, chunk_t: int) -> None:
    frames = stamped(5, 2, 3)
    write_ome_zarr(tmp_path / "a.zarr", frames, "tczyx", version=version, chunk_t=chunk_t)
    with opened(tmp_path / "a.zarr", n_raw=1) as recording:
        assert_holds(recording, frames, "tcz")
        assert recording.channels == ("488", "561")
        assert (recording.pixel_size_um, recording.z_step_um, recording.interval_s) == (
            0.065,
            0.3,
            0.5,
        )


@pytest.mark.parametrize("scale", [math.nan, -0.065, 0.0, math.inf])
def test_a_scale_of_an_ome_zarr_that_is_no_length_is_not_used(tmp_path: Path, scale: float) -> None:
    frames = stamped(2)
    write_ome_zarr(tmp_path / "a.zarr", frames, "tyx")
    group = zarr.open_group(tmp_path / "a.zarr", mode="r+")
    about = dict(group.attrs)
    image = about.get("ome", about)["multiscales"][0]
    image["datasets"][0]["coordinateTransformations"][0]["scale"][-2:] = [scale, scale]
    group.attrs.update(about)
    with opened(tmp_path / "a.zarr", n_raw=1) as recording:
        assert_holds(recording, frames, "t")
        assert recording.pixel_um is None
        assert any("along x: it is not used" in note for note in recording.notes)


def test_ome_zarr_positions_of_a_bioformats2raw_layout(tmp_path: Path) -> None:
    import zarr

    frames = stamped(2, 4)
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    for i in range(2):
        write_ome_zarr(tmp_path / "a.zarr" / str(i), frames[i], "tyx", version="0.4", units=False)
    with opened(tmp_path / "a.zarr", n_raw=1) as recording:
        assert_holds(recording, frames, "pt")
        assert (recording.positions, recording.pixel_size_um) == (("0", "1"), None)


def test_an_ome_zarr_chunk_that_is_torn_or_was_never_written(tmp_path: Path) -> None:
    write_ome_zarr(tmp_path / "a.zarr", stamped(5), "tyx")
    chunks = tmp_path / "a.zarr" / "0" / "c"
    (chunks / "1" / "0" / "0").unlink()
    (chunks / "3" / "0" / "0").write_bytes(b"torn")
    with opened(tmp_path / "a.zarr", n_raw=1) as recording:
        came, damage = read_all(recording)
    assert came == [1, 3]
    assert "a.zarr cannot be read at (3,)" in damage


def test_an_ome_zarr_frame_of_zeros_is_a_frame_if_it_was_written(tmp_path: Path) -> None:
    import zarr

    frames = stamped(4)
    frames[1] = 0
    with zarr.config.set({"array.write_empty_chunks": True}):
        write_ome_zarr(tmp_path / "a.zarr", frames, "tyx")
    with opened(tmp_path / "a.zarr", n_raw=1) as recording:
        assert_holds(recording, frames, "t")
    write_ome_zarr(tmp_path / "b.zarr", frames, "tyx")  # zarr leaves it out
    with opened(tmp_path / "b.zarr", n_raw=1) as recording:
        assert recording.read((1,)) is None
        assert not recording.counted


def test_ome_zarr_positions_that_ended_at_different_times(tmp_path: Path) -> None:
    import zarr

    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    for i, n in enumerate((4, 2)):
        write_ome_zarr(tmp_path / "a.zarr" / str(i), stamped(4)[:n], "tyx", version="0.4")
    with opened(tmp_path / "a.zarr", n_raw=1) as recording:
        assert recording.lengths == (2, 4)
        assert [recording.read((1, t)) is None for t in range(4)] == [False, False, True, True]


def test_mrc(tmp_path: Path) -> None:
    frames = stamped(18)
    write_mrc(tmp_path / "a.mrc", frames, b"camera's own words".ljust(80))
    with opened(tmp_path / "a.mrc") as recording:
        assert_holds(recording, frames, "t")
    with opened(tmp_path / "a.mrc", "raw,y,x", n_raw=18) as recording:
        assert_holds(recording, frames, "r")
    whole = (tmp_path / "a.mrc").read_bytes()
    (tmp_path / "a.mrc").write_bytes(whole[:-100])
    with opened(tmp_path / "a.mrc") as recording:
        came, damage = read_all(recording)
    assert came == list(range(1, 17))
    assert "a.mrc ends within frame 17 of 18" in damage


@pytest.mark.parametrize("name", ["a.mrc", "a.mrcs", "a.st", "A.MRC"])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_mrc_of_any_name_and_type(tmp_path: Path, name: str, dtype: str) -> None:
    """Values that are whole are the camera's, whatever type they are kept in.

    Others were made of them.
    """
    write_mrc(tmp_path / name, stamped(18).astype(dtype))
    with opened(tmp_path / name) as recording:
        assert_holds(recording, stamped(18), "t")
        assert (f"holds {dtype}: its values are whole numbers" in " ".join(recording.notes)) == (
            dtype != "uint16"
        )
    if dtype == "uint16":
        return
    for frame in (0, 7):
        wrong = stamped(18).astype(dtype)
        wrong[frame, 2, 2] = 7.5 if dtype == "float32" else -3
        write_mrc(tmp_path / name, wrong)
        if frame == 0:
            with pytest.raises(
                ConfigError,
                match=rf"{dtype} from .* at frame 1 of 18; expected the camera's uint8 or uint16",
            ):
                open_recording(tmp_path / name)
        else:
            with opened(tmp_path / name) as recording:
                came, damage = read_all(recording)
            assert (came, f"{dtype} from" in str(damage)) == (list(range(1, 8)), True)


ORDERS = {0: "ctz", 1: "tzc", 2: "tcz"}  # of DeltaVision's interleaves, slowest first


@pytest.mark.parametrize("interleave", ORDERS)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "uint8"])
def test_deltavision_says_how_its_sections_run(
    tmp_path: Path, interleave: int, order: str, dtype: str
) -> None:
    lengths = {"c": 2, "t": 3, "z": 4}
    axes = ORDERS[interleave]
    frames = stamped(*(lengths[axis] for axis in axes))
    sections = list(frames.reshape(-1, Y, X).astype(dtype))
    write_dv(
        tmp_path / "a.dv",
        sections,
        waves=2,
        times=3,
        interleave=interleave,
        order=order,
        extended=b"of an OMX".ljust(96),
    )
    with closing(open_recording(tmp_path / "a.dv")) as found:
        recording = with_axes(with_sections(found, 1), None, 1)
        assert_holds(recording, frames.astype(recording.dtype), axes)
        assert recording.channels == ("525", "605")
        assert recording.pixel_um == pytest.approx((0.065, 0.065))
        assert recording.z_step_um == pytest.approx(0.125)
        assert "raw" in with_sections(found, 4).axes
        with pytest.raises(ConfigError, match=r"4 sections; this rig needs 9 raw frames.*--axes"):
            with_sections(found, 9)
        with pytest.raises(ConfigError, match="or angle,z,phase,y,x if all planes of one angle"):
            with_sections(found, 6, TURNED)


def test_absurd_mrc_numbers_are_refused(tmp_path: Path) -> None:
    for x, y, n, extended, words in (
        (20_000, 20_000, 9, 0, "268435456 pixels"),
        (16_000, 16_000, 9, 0, "holds .* bytes"),
        (X, Y, -1, 0, "says -1 frames"),
        (0, Y, 9, 0, "of 6 x 0"),
        (X, Y, 9, -5, "expected an MRC"),
        (X, Y, 9, 2**31 - 1, "holds .* bytes|no whole frame"),
    ):
        write_mrc(tmp_path / "a.mrc", stamped(9))
        data = bytearray((tmp_path / "a.mrc").read_bytes())
        struct.pack_into("<3i", data, 0, x, y, n)
        struct.pack_into("<i", data, 92, extended)
        (tmp_path / "a.mrc").write_bytes(data)
        with pytest.raises(ConfigError, match=words):
            open_recording(tmp_path / "a.mrc")
    struct.pack_into("<3i", data, 64, 2, 1, 3)
    struct.pack_into("<3i", data, 0, X, Y, 9)
    struct.pack_into("<i", data, 92, 0)
    (tmp_path / "a.mrc").write_bytes(data)
    with pytest.raises(ConfigError, match="columns, rows and sections run along y, x, z"):
        open_recording(tmp_path / "a.mrc")
    struct.pack_into("<3i", data, 64, 0, 0, 0)
    struct.pack_into("<3i", data, 0, X, Y, 2**31 - 1)
    struct.pack_into("<i", data, 92, 0)
    (tmp_path / "a.mrc").write_bytes(data)
    with opened(tmp_path / "a.mrc") as recording:
        assert (recording.lengths, "ends within frame 10 of 2147483647" in recording.damage) == (
            (9,),
            True,
        )
    write_dv(tmp_path / "a.dv", list(stamped(9)), waves=2, times=1, interleave=0)
    with pytest.raises(ConfigError, match="9 sections, which are not 1 times of 2 wavelengths"):
        open_recording(tmp_path / "a.dv")


def test_ndtiff(tmp_path: Path) -> None:
    frames = stamped(3, 2, 2)
    at = [
        {"time": t, "channel": c, "z": z} for t, c, z in product(range(3), ("488", "561"), range(2))
    ]
    metadata = [
        {"ElapsedTime-ms": 10.0 * i, "PixelSizeUm": 0.065, "ROI": "1-2-8-6"} for i in range(12)
    ]
    write_ndtiff(tmp_path / "n", frames.reshape(-1, Y, X), at, metadata)
    with opened(tmp_path / "n", n_raw=1) as recording:
        assert_holds(recording, frames, "tcz")
        assert recording.channels == ("488", "561")
        assert (recording.pixel_size_um, recording.origin_px, recording.timed) == (
            0.065,
            (2.0, 1.0),
            True,
        )
        assert recording.read(recording.place({"t": 1}))[1] == 40.0
        assert recording.started_ns == 1714979289 * 10**9


def test_ndtiff_with_a_raw_axis_that_lacks_frames_and_was_cut_off(tmp_path: Path) -> None:
    at = [{"time": t, "sim": r} for t, r in product(range(2), range(9)) if (t, r) != (0, 4)]
    write_ndtiff(tmp_path / "n", stamped(17), at)
    with opened(tmp_path / "n" / "NDTiffStack.tif") as recording:
        assert dict(zip(recording.axes, recording.lengths, strict=True)) == {"t": 2, "raw": 9}
        assert recording.read(recording.place({"raw": 4})) is None
        assert read_all(recording) == (list(range(1, 18)), None)
    index, data = tmp_path / "n" / "NDTiff.index", tmp_path / "n" / "NDTiffStack.tif"
    data.write_bytes(data.read_bytes()[:-50])
    with opened(tmp_path / "n") as recording:
        came, damage = read_all(recording)
    assert (len(came), "NDTiffStack.tif ends within frame" in damage) == (16, True)
    index.write_bytes(index.read_bytes()[:-10])
    with opened(tmp_path / "n") as recording:
        assert len(read_all(recording)[0]) == 16


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mrc").write_bytes(b"short")
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "zarr.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    for name, words in {
        "a.mrc": "as MRC",
        "z": "no OME-Zarr image",
        "empty": "holds no recording",
        "no": "There is no",
    }.items():
        with pytest.raises(ConfigError, match=words):
            open_recording(tmp_path / name)


# -- axes ------------------------------------------------------------------------------------------


def test_axes_are_said_in_letters_or_words() -> None:
    assert parse_axes("tcyx") == ("t", "c")
    assert parse_axes("t, raw, y, x") == ("t", "raw")
    assert parse_axes("time,sim") == ("t", "raw")
    for wrong in ("tqyx", "t,t,y,x", "frames"):
        with pytest.raises(ConfigError, match="expected each of t, p, c, z and raw"):
            parse_axes(wrong)


def test_an_axis_that_counts_groups_and_raw_frames_is_both(tmp_path: Path) -> None:
    """As a time axis of a pattern display does, beside channels."""
    frames = stamped(18, 2)
    tifffile.imwrite(tmp_path / "a.tif", frames, imagej=True, metadata={"axes": "TCYX"})
    with opened(tmp_path / "a.tif", "t,raw,c,y,x") as recording:
        assert_holds(recording, frames.reshape(2, 9, 2, Y, X), "trc")
    with opened(tmp_path / "a.tif", "raw,z,c,y,x") as recording:
        assert_holds(recording, frames.reshape(9, 2, 2, Y, X), "rzc")
    for axes, n_raw in (("t,raw,c,y,x", 5), ("t,c,raw,y,x", 9), ("t,p,raw,c,y,x", 9)):
        with (
            pytest.raises(ConfigError, match=r"a.tif is t=18 x c=2"),
            opened(tmp_path / "a.tif", axes, n_raw),
        ):
            pass


TURNED = RawAxes(("angle", "phase"), tuple((a, p) for p in range(3) for a in range(2)))
"""Raw frame 1 is the first phase of the second angle."""


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((24,), "angle,z,phase,y,x"),
        ((8, 3), "angle,z,phase"),
        ((2, 4, 3), "angle, z, phase"),
        ((2, 12), "angle,phase,z,y,x"),
        ((4, 6), "z,phase,angle"),
        ((24,), "phase,z,angle"),
    ],
)
def test_planes_may_stand_between_the_parts_of_a_group(
    tmp_path: Path, shape: tuple[int, ...], axes: str
) -> None:
    names = [name.strip() for name in axes.split(",")][:3]
    length = {"angle": 2, "z": 4, "phase": 3}
    frames = stamped(*shape)
    tifffile.imwrite(tmp_path / "a.tif", frames, photometric="minisblack")
    expected = frames.reshape(*(length[name] for name in names), Y, X).transpose(
        *(names.index(name) for name in ("z", "phase", "angle")), 3, 4
    )
    with opened(tmp_path / "a.tif", axes, 6, TURNED) as recording:
        assert_holds(recording, expected.reshape(4, 6, Y, X), "zr")


@pytest.mark.parametrize(
    ("axes", "says"),
    [
        ("angle,z,y,x", "Angle and phase may stand instead of raw"),
        ("angle,phase,raw,y,x", "Angle and phase may stand instead of raw"),
        ("angle,phase,z,t", r"names 4 axes before y, x; a.tif is 2 x 4 x 4"),
        ("angle,z,phase", "axis phase has 4 places, the rig has 3"),
    ],
)
def test_parts_of_a_group_that_do_not_fit_are_refused(tmp_path: Path, axes: str, says: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", stamped(2, 4, 4), photometric="minisblack")
    with pytest.raises(ConfigError, match=says), opened(tmp_path / "a.tif", axes, 6, TURNED):
        pass


def test_axes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", stamped(2, 9), photometric="minisblack")
    words = r"names 1 axes before y, x; a.tif is 2 x 9 x 6 x 8"
    with pytest.raises(ConfigError, match=words), opened(tmp_path / "a.tif", "tyx"):
        pass
    with (
        pytest.raises(ConfigError, match="axis raw has 2 places"),
        opened(tmp_path / "a.tif", "raw,t,y,x"),
    ):
        pass
