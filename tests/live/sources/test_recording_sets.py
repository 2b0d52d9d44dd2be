"""Recordings of several files.

Read once, by what they say of themselves, every frame at its place, nothing left out unsaid.
"""

from __future__ import annotations

import json
import shutil
import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import useq
from pymmcore_plus import CMMCorePlus

from livesr.base.errors import ConfigError, DamagedFileError
from livesr.live.sources.recordings.recording import Recording, open_recording
from recordings import write_dv, write_mmstack, write_ndtiff

Y, X = 16, 20
NOISE = np.random.default_rng(0).integers(100, 200, (Y, X)).astype(np.uint16)


def frame(**index: int) -> np.ndarray:
    """A frame that says where it belongs: its first pixels are 1 + t, p, c and z."""
    pixels = NOISE.copy()
    pixels[0, :4] = [1 + index.get(axis, 0) for axis in "tpcz"]
    return pixels


def grid(**lengths: int) -> list[dict[str, int]]:
    return [
        dict(zip(lengths, place, strict=True)) for place in product(*map(range, lengths.values()))
    ]


def came(recording: Recording) -> list[dict[str, int]]:
    """Places that have a frame; each frame says that it belongs there."""
    found = []
    for place in product(*map(range, recording.lengths)):
        if (plane := recording.read(place)) is None:
            continue
        index = dict(zip(recording.axes, place, strict=True))
        said = {
            axis: int(value) - 1 for axis, value in zip("tpcz", plane.pixels[0, :4], strict=True)
        }
        assert said == {axis: index.get(axis, 0) for axis in "tpcz"}
        np.testing.assert_array_equal(plane.pixels[1:], NOISE[1:])
        found.append(index)
    return found


def assert_whole(recording: Recording, **lengths: int) -> None:
    """Every place of these axes has its frame; other axes have one place."""
    length = dict(zip(recording.axes, recording.lengths, strict=True))
    assert {axis: n for axis, n in length.items() if n > 1} == {
        axis: n for axis, n in lengths.items() if n > 1
    }
    assert len(came(recording)) == np.prod(list(lengths.values()))
    assert recording.damage is None


# -- pymmcore-plus ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def core() -> Iterator[CMMCorePlus]:
    core = CMMCorePlus()
    core.loadSystemConfiguration()
    core.setProperty("Camera", "OnCameraCCDXSize", 24)
    core.setProperty("Camera", "OnCameraCCDYSize", 16)
    yield core
    core.unloadAllDevices()


PLAN = useq.MDASequence(
    axis_order="tpcz",
    time_plan={"interval": 0, "loops": 2},
    stage_positions=[{"x": 0, "y": 0, "name": "A"}, {"x": 50, "y": 0, "name": "B"}],
    channels=["DAPI", "FITC"],
    z_plan={"range": 1, "step": 1},
)


def acquired(core: CMMCorePlus, output: Any) -> dict[tuple[int, ...], np.ndarray]:
    """Run the plan into a writer of pymmcore-plus; return what the camera gave, by (t, p, c, z)."""
    gave: dict[tuple[int, ...], np.ndarray] = {}

    def keep(image: np.ndarray, event: useq.MDAEvent) -> None:
        gave[tuple(event.index[axis] for axis in "tpcz")] = image.copy()

    core.mda.events.frameReady.connect(keep)
    try:
        core.mda.run(PLAN, output=output)
    finally:
        core.mda.events.frameReady.disconnect(keep)
    assert len({image.tobytes() for image in gave.values()}) > 4
    return gave


def assert_gave(recording: Recording, gave: Mapping[tuple[int, ...], np.ndarray]) -> None:
    axes = dict(zip(recording.axes, recording.lengths, strict=True))
    assert axes == {"t": 2, "p": 2, "c": 2, "z": 2}
    for place in product(*map(range, recording.lengths)):
        index = dict(zip(recording.axes, place, strict=True))
        plane = recording.read(place)
        np.testing.assert_array_equal(plane.pixels, gave[tuple(index[axis] for axis in "tpcz")])
    assert (recording.channels, recording.positions) == (("DAPI", "FITC"), ("A", "B"))


def test_one_file_for_each_position_as_pymmcore_plus_writes(
    tmp_path: Path, core: CMMCorePlus
) -> None:
    gave = acquired(core, tmp_path / "run.ome.tiff")
    (folder,) = (f for f in tmp_path.iterdir() if f.is_dir())
    files = sorted(folder.iterdir())
    assert len(files) == 2
    for path in (folder, *files):
        with closing(open_recording(path)) as recording:
            assert_gave(recording, gave)
            assert recording.notes == ()
    files[1].rename(folder / "renamed.ome.tiff")  # found by its identity
    with closing(open_recording(folder)) as recording:
        assert_gave(recording, gave)
    shutil.move(folder / "renamed.ome.tiff", tmp_path / "elsewhere.ome.tiff")
    with closing(open_recording(folder)) as recording:
        assert (recording.positions, recording.lengths[recording.axes.index("p")]) == (("A",), 1)
        assert any(
            "run_p001.ome.tiff, which holds 8 of the 16 frames of the set, is not there" in n
            for n in recording.notes
        )


def test_an_image_for_each_frame_as_pymmcore_plus_writes(tmp_path: Path, core: CMMCorePlus) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        from pymmcore_plus.mda.handlers import ImageSequenceWriter
    for prefix in ("", "cell"):
        gave = acquired(core, ImageSequenceWriter(tmp_path / f"seq{prefix}", prefix=prefix))
        with closing(open_recording(tmp_path / f"seq{prefix}")) as recording:
            assert_gave(recording, gave)
    next(iter((tmp_path / "seq").glob("*_t0001_p001_c01_z001.tif"))).unlink()
    with closing(open_recording(tmp_path / "seq")) as recording:
        assert "1 of 16 frames are not there (position B has 7 of 8)" in " ".join(recording.notes)


# -- OME-TIFF --------------------------------------------------------------------------------------


def ome_xml(images: list[str], *, uuid: str = "") -> str:
    own = f' UUID="urn:uuid:{uuid}"' if uuid else ""
    space = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{space}"{own}>{"".join(images)}</OME>'
    )


def image(
    name: str,
    blocks: str,
    *,
    t: int = 1,
    c: int = 1,
    z: int = 1,
    order: str = "XYCZT",
    more: str = "",
) -> str:
    sizes = f'SizeX="{X}" SizeY="{Y}" SizeZ="{z}" SizeC="{c}" SizeT="{t}"'
    return (
        f'<Image ID="Image:{name}" Name="{name}"><Pixels ID="Pixels:{name}"'
        f' DimensionOrder="{order}" Type="uint16" {sizes} {more}>{blocks}</Pixels></Image>'
    )


def block(ifd: int = 0, count: int = 1, file: str = "", uuid: str = "", **first: int) -> str:
    at = " ".join(f'First{axis.upper()}="{i}"' for axis, i in first.items())
    where = f'<UUID FileName="{file}">urn:uuid:{uuid}</UUID>' if file else ""
    return f'<TiffData IFD="{ifd}" PlaneCount="{count}" {at}>{where}</TiffData>'


def described(path: Path, frames: list[np.ndarray], xml: str) -> None:
    with tifffile.TiffWriter(path) as writer:
        for i, pixels in enumerate(frames):
            about = {"description": xml.encode()} if i == 0 else {}
            writer.write(pixels, photometric="minisblack", metadata=None, contiguous=False, **about)


@pytest.mark.parametrize("order", ["XYCZT", "XYCTZ", "XYZCT", "XYZTC", "XYTCZ", "XYTZC"])
def test_planes_run_in_the_order_that_the_xml_says(tmp_path: Path, order: str) -> None:
    lengths = {"t": 2, "c": 3, "z": 2}
    slowest = {letter.lower(): lengths[letter.lower()] for letter in reversed(order[2:])}
    xml = ome_xml([image("A", block(count=12), **lengths, order=order)])
    described(tmp_path / "a.ome.tif", [frame(**index) for index in grid(**slowest)], xml)
    with closing(open_recording(tmp_path / "a.ome.tif")) as recording:
        assert_whole(recording, **lengths)


def test_planes_in_any_order_of_a_set_of_any_files(tmp_path: Path) -> None:
    """A file for every time point, its pages backwards; whichever file is named."""
    blocks = {
        p: "".join(
            block(5 - (2 * p + c), 1, f"s_{t}.ome.tif", f"f{t}", t=t, c=c)
            for t, c in product(range(3), range(2))
        )
        for p in range(2)
    }
    for t in range(3):
        xml = ome_xml([image(f"pos{p}", blocks[p], t=3, c=2) for p in range(2)], uuid=f"f{t}")
        frames = [
            NOISE,
            NOISE,
            *reversed([frame(t=t, p=p, c=c) for p, c in product(range(2), range(2))]),
        ]
        described(tmp_path / f"s_{t}.ome.tif", frames, xml)
    for path in (tmp_path, tmp_path / "s_0.ome.tif", tmp_path / "s_2.ome.tif"):
        with closing(open_recording(path)) as recording:
            assert_whole(recording, t=3, p=2, c=2)
            assert recording.positions == ("pos0", "pos1")


def test_one_page_for_several_places_is_refused(tmp_path: Path) -> None:
    """Frames would be multiplied: on a SIM rig, groups of one exposure."""
    blocks = "".join(block(0, 1, t=t) for t in range(9))
    described(
        tmp_path / "a.ome.tif", [frame(t=t) for t in range(9)], ome_xml([image("A", blocks, t=9)])
    )
    with pytest.raises(ConfigError, match="describes 9 frames, and has 1 for them"):
        open_recording(tmp_path / "a.ome.tif")


def two_files(folder: Path) -> None:
    blocks = [block(0, 4, f"s_{p}.ome.tif", f"f{p}") for p in range(2)]
    for p in range(2):
        xml = ome_xml([image("AB"[i], blocks[i], t=4) for i in range(2)], uuid=f"f{p}")
        described(folder / f"s_{p}.ome.tif", [frame(t=t, p=p) for t in range(4)], xml)


def test_a_file_that_is_missing_empty_or_another_is_named(tmp_path: Path) -> None:
    two_files(tmp_path)
    other = tmp_path / "s_1.ome.tif"
    whole = other.read_bytes()
    described(other, [NOISE] * 4, ome_xml([image("A", block(0, 4), t=4)], uuid="other"))
    for content, words in (
        (other.read_bytes(), "s_1.ome.tif is another file than the one described"),
        (b"", "s_1.ome.tif cannot be read as TIFF"),
        (None, "s_1.ome.tif, which holds 4 of the 8 frames of the set, is not there"),
    ):
        other.unlink()
        if content is not None:
            other.write_bytes(content)
        with closing(open_recording(tmp_path / "s_0.ome.tif")) as recording:
            assert words in " ".join(recording.notes)
            assert "holds 4 of the 8 frames" in " ".join(recording.notes)
            assert (recording.positions, len(came(recording))) == (("A",), 4)
    other.write_bytes(whole[: len(whole) // 2])
    with closing(open_recording(tmp_path / "s_0.ome.tif")) as recording:
        assert (recording.damage is not None) or "not in its files" in " ".join(recording.notes)


def test_positions_that_ended_at_different_times(tmp_path: Path) -> None:
    frames = [frame(t=t, p=p) for p, n in ((0, 3), (1, 1), (2, 2)) for t in range(n)]
    images = [
        image("A", block(0, 3), t=3),
        image("B", block(3, 1), t=1),
        image("C", block(4, 2), t=2),
    ]
    described(tmp_path / "a.ome.tif", frames, ome_xml(images))
    with closing(open_recording(tmp_path / "a.ome.tif")) as recording:
        assert dict(zip(recording.axes, recording.lengths, strict=True)) == {
            "p": 3,
            "t": 3,
            "z": 1,
            "c": 1,
        }
        assert [(i["p"], i["t"]) for i in came(recording)] == [
            (0, 0),
            (0, 1),
            (0, 2),
            (1, 0),
            (2, 0),
            (2, 1),
        ]
        assert "3 of 9 frames are not there (position B has 1 of 3)" in " ".join(recording.notes)


def test_channels_of_positions_are_found_by_their_names(tmp_path: Path) -> None:
    named = [[("488", 0), ("561", 1)], [("561", 1), ("640", 2)]]
    images, frames = [], []
    for p, channels in enumerate(named):
        about = "".join(
            f'<Channel ID="Channel:{p}:{i}" Name="{name}"/>' for i, (name, _) in enumerate(channels)
        )
        images.append(image(f"P{p}", about + block(2 * p, 2), c=2))
        frames += [frame(p=p, c=c) for _, c in channels]
    described(tmp_path / "a.ome.tif", frames, ome_xml(images))
    with closing(open_recording(tmp_path / "a.ome.tif")) as recording:
        assert recording.channels == ("488", "561", "640")
        assert [(i["p"], i["c"]) for i in came(recording)] == [(0, 0), (0, 1), (1, 1), (1, 2)]


def test_more_or_fewer_planes_than_announced_are_counted(tmp_path: Path) -> None:
    described(
        tmp_path / "a.ome.tif",
        [frame(t=t) for t in range(3)],
        ome_xml([image("A", block(0, 8), t=8)]),
    )
    with closing(open_recording(tmp_path / "a.ome.tif")) as recording:
        assert_whole(recording, t=3)
        assert "announces 8 frames; 5 of them are not in its files" in " ".join(recording.notes)
    described(
        tmp_path / "b.ome.tif",
        [frame(t=t) for t in range(5)],
        ome_xml([image("A", block(0, 5), t=3)]),
    )
    with closing(open_recording(tmp_path / "b.ome.tif")) as recording:
        assert_whole(recording, t=3)
        assert "2 frames are outside of the sizes that it announces" in " ".join(recording.notes)
    twice = block(0, 2) + block(2, 1, t=1)
    described(
        tmp_path / "c.ome.tif", [frame(t=0), frame(t=1), NOISE], ome_xml([image("A", twice, t=2)])
    )
    with closing(open_recording(tmp_path / "c.ome.tif")) as recording:
        assert_whole(recording, t=2)
        assert "1 frames are described at a place that has one" in " ".join(recording.notes)


@pytest.mark.parametrize("companion", [True, False])
def test_a_description_that_is_elsewhere(tmp_path: Path, companion: bool) -> None:
    """BinaryOnly: the XML is in a companion, or in the first file of the set, whatever folder it
    was written in."""
    master = "set.companion.ome" if companion else "s_0.ome.tif"
    xml = ome_xml(
        [image("AB"[p], block(0, 2, f"s_{p}.ome.tif", f"f{p}"), t=2) for p in range(2)], uuid="f0"
    )
    only = f'<BinaryOnly MetadataFile="/somewhere/else/{master}" UUID="urn:uuid:f0"/>'
    for p in range(2):
        own = xml if p == 0 and not companion else ome_xml([only], uuid=f"f{p}")
        described(tmp_path / f"s_{p}.ome.tif", [frame(t=t, p=p) for t in range(2)], own)
    if companion:
        (tmp_path / master).write_text(xml)
    for path in (tmp_path, tmp_path / "s_1.ome.tif", tmp_path / master):
        with closing(open_recording(path)) as recording:
            assert_whole(recording, t=2, p=2)
    (tmp_path / master).unlink()
    with pytest.raises(
        ConfigError, match=rf"s_1.ome.tif is described in {master}, which is not beside it"
    ):
        open_recording(tmp_path / "s_1.ome.tif")


def test_a_set_reads_no_file_outside_of_its_folder(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "secret.ome.tif"
    inside.mkdir()
    described(outside, [frame(t=1)], ome_xml([image("A", block())], uuid="s"))
    (inside / "link.ome.tif").symlink_to(outside)
    for name, words in (
        (str(outside), "names a file"),
        ("../secret.ome.tif", "names a file"),
        ("link.ome.tif", "leads out of"),
    ):
        xml = ome_xml(
            [image("A", block(0, 1, "a.ome.tif", "a") + block(0, 1, name, "s", t=1), t=2)], uuid="a"
        )
        described(inside / "a.ome.tif", [frame()], xml)
        with pytest.raises(ConfigError, match=words):
            open_recording(inside / "a.ome.tif")


def test_a_set_that_was_moved_is_read_where_it_is(tmp_path: Path) -> None:
    """Names with the folder that the set was written in mean the files beside, if their identities
    agree."""
    for name in ("C:\\data\\b.ome.tif", "/data/run/b.ome.tif"):
        xml = ome_xml(
            [image("A", block(0, 1, "a.ome.tif", "a") + block(0, 1, name, "b", t=1), t=2)], uuid="a"
        )
        described(tmp_path / "a.ome.tif", [frame()], xml)
        described(tmp_path / "b.ome.tif", [frame(t=1)], ome_xml([image("A", block())], uuid="b"))
        with closing(open_recording(tmp_path / "a.ome.tif")) as recording:
            assert_whole(recording, t=2)


def test_images_that_are_no_positions_of_one_another_are_refused(tmp_path: Path) -> None:
    small = image("label", block(1)).replace(f'SizeX="{X}"', 'SizeX="8"')
    for images, words in {
        "sizes": (
            [image("A", block()), small],
            r"several sizes \('A' 16 x 20 uint16; 'label' 16 x 8",
        ),
        "pixels": (
            [
                image("A", block(), more='PhysicalSizeX="0.1"'),
                image("B", block(1), more='PhysicalSizeX="0.2"'),
            ],
            "several pixel sizes",
        ),
        "broken": ([image("A", block())[:-9]], "OME-XML that cannot be read"),
        "none": ([], "describes no pixels"),
        "colour": ([image("A", '<Channel ID="C" SamplesPerPixel="3"/>' + block(), c=3)], "colour"),
        "huge": ([image("A", block(), t=10**12)], "expected 1 to 10000000 frames"),
    }.values():
        described(tmp_path / "a.ome.tif", [NOISE, NOISE], ome_xml(images))
        with pytest.raises(ConfigError, match=words):
            open_recording(tmp_path / "a.ome.tif")


def test_what_planes_count_beside_z(tmp_path: Path) -> None:
    """Structured light as OME's 6D extension has it."""
    note = (
        '<StructuredAnnotations><XMLAnnotation ID="Annotation:0"'
        ' Namespace="openmicroscopy.org/omero/dimension/modulo"><Value><Modulo><ModuloAlongZ'
        ' Type="phase" Start="0" End="2"/></Modulo></Value></XMLAnnotation></StructuredAnnotations>'
    )
    about = image("A", block(0, 6), z=6).replace(
        "</Image>", '<AnnotationRef ID="Annotation:0"/></Image>'
    )
    described(
        tmp_path / "a.ome.tif",
        [frame(z=z) for z in range(2) for _ in range(3)],
        ome_xml([about, note]),
    )
    with closing(open_recording(tmp_path / "a.ome.tif")) as recording:
        assert dict(zip(recording.axes, recording.lengths, strict=True)) == {
            "t": 1,
            "z": 2,
            "c": 1,
            "phase": 3,
        }
        assert len(came(recording)) == 6


@pytest.mark.parametrize(
    ("unit", "value", "um"),
    [
        ("m", 65e-9, 0.065),
        ("cm", 65e-7, 0.065),
        ("mm", 65e-6, 0.065),
        ("µm", 0.065, 0.065),
        ("nm", 65, 0.065),
        ("pm", 65000, 0.065),
        ("Å", 650, 0.065),
        ("pixel", 1, None),
        ("reference frame", 1, None),
    ],
)
def test_every_unit_of_length(tmp_path: Path, unit: str, value: float, um: float | None) -> None:
    more = (
        f'PhysicalSizeX="{value}" PhysicalSizeXUnit="{unit}" PhysicalSizeY="{2 * value}"'
        f' PhysicalSizeYUnit="{unit}"'
    )
    described(tmp_path / "a.ome.tif", [NOISE], ome_xml([image("A", block(), more=more)]))
    with closing(open_recording(tmp_path / "a.ome.tif")) as recording:
        assert recording.pixel_um == (None if um is None else pytest.approx((2 * um, um)))
        assert any("which is no length" in note for note in recording.notes) == (um is None)


# -- Micro-Manager ---------------------------------------------------------------------------------


SUMMARY = {
    "Frames": 2,
    "Channels": 2,
    "Slices": 1,
    "Positions": 2,
    "ChNames": ["488", "561"],
    "Prefix": "run",
}


def mmstack(folder: Path, **summary: Any) -> None:
    """A file for each position, as Micro-Manager writes it."""
    for p in range(2):
        at = grid(t=2, c=2)
        frames = np.array([frame(p=p, **index) for index in at])
        places = [(index["c"], 0, index["t"], p) for index in at]
        write_mmstack(
            folder / f"run_MMStack_Pos{p}.ome.tif", frames, places, {**SUMMARY, **summary}, [{}] * 4
        )


def test_an_mmstack_of_several_files(tmp_path: Path) -> None:
    mmstack(tmp_path)
    for path in (
        tmp_path,
        tmp_path / "run_MMStack_Pos0.ome.tif",
        tmp_path / "run_MMStack_Pos1.ome.tif",
    ):
        with closing(open_recording(path)) as recording:
            assert_whole(recording, t=2, p=2, c=2)
            assert recording.notes == ()
    (tmp_path / "run_MMStack_Pos1.ome.tif").unlink()
    with closing(open_recording(tmp_path)) as recording:
        assert_whole(recording, t=2, c=2)
        assert "announces more than there is: 1 of 2 along p" in " ".join(recording.notes)


def test_an_mmstack_that_announces_more_or_stands_beside_another(tmp_path: Path) -> None:
    mmstack(tmp_path, Frames=50)
    at = grid(t=2, c=2)
    frames = np.array([frame(**index) for index in at])
    other = tmp_path / "run_MMStack_Pos7.ome.tif"
    write_mmstack(
        other,
        frames,
        [(i["c"], 0, i["t"], 7) for i in at],
        {**SUMMARY, "Prefix": "other"},
        [{}] * 4,
    )
    with closing(open_recording(tmp_path / "run_MMStack_Pos0.ome.tif")) as recording:
        assert_whole(recording, t=2, p=2, c=2)
        said = " ".join(recording.notes)
    assert "2 of 50 along t" in said
    assert "run_MMStack_Pos7.ome.tif is of another acquisition" in said


def test_an_absurd_mmstack_allocates_nothing(tmp_path: Path) -> None:
    mmstack(tmp_path)
    file = tmp_path / "run_MMStack_Pos0.ome.tif"
    data = bytearray(file.read_bytes())
    (index,) = struct.unpack_from("<I", data, 12)
    struct.pack_into("<I", data, index + 4, 2**32 - 1)
    struct.pack_into("<I", data, 36, 2**32 - 1)
    file.write_bytes(data)
    with pytest.raises(ConfigError, match=r"has no index|no frame"):
        open_recording(file)
    mmstack(tmp_path)
    data = bytearray(file.read_bytes())
    struct.pack_into("<I", data, index + 8 + 8, 2**31)  # a frame at t = 2147483648
    file.write_bytes(data)
    with pytest.raises(ConfigError, match="expected 1 to 10000000 frames"):
        open_recording(file)


def image_files(
    folder: Path, form: str, places: list[dict[str, int]], *, metadata: bool = True
) -> None:
    """Separate image files as Micro-Manager 2.0 and 1.4 write them, channels not in the order of
    their names."""
    folder.mkdir()
    about: dict[str, Any] = {
        "Summary": {**SUMMARY, "ChNames": ["red", "blue"], "PixelSize_um": 0.1}
    }
    for index in places:
        t, p, c, z = (index.get(axis, 0) for axis in "tpcz")
        if form == "2.0":
            name = f"img_channel{c:03}_position{p:03}_time{t:09}_z{z:03}.tif"
            about[f"Coords-Default/{name}"] = {
                "FrameIndex": t,
                "PositionIndex": p,
                "ChannelIndex": c,
                "SliceIndex": z,
            }
        else:
            name = f"img_{t:09}_{['red', 'blue'][c]}_{z:03}.tif"
            about[f"FrameKey-{t}-{c}-{z}"] = {
                "FileName": name,
                "PositionIndex": p,
                "ElapsedTime-ms": 5,
            }
        tifffile.imwrite(folder / name, frame(**index), photometric="minisblack")
    if metadata:
        (folder / "metadata.txt").write_text(json.dumps(about))


@pytest.mark.parametrize("form", ["2.0", "1.4"])
@pytest.mark.parametrize("metadata", [True, False])
def test_separate_image_files(tmp_path: Path, form: str, metadata: bool) -> None:
    image_files(tmp_path / "f", form, grid(t=3, c=2, z=2), metadata=metadata)
    (tmp_path / "f" / "._img_000000000_red_000.tif").write_bytes(b"of macOS")
    (tmp_path / "f" / "notes.txt").write_text("of mine")
    with closing(open_recording(tmp_path / "f")) as recording:
        if metadata:
            assert_whole(recording, t=3, c=2, z=2)
            assert (recording.channels, recording.pixel_size_um) == (("red", "blue"), 0.1)
        elif form == "2.0":
            assert_whole(recording, t=3, c=2, z=2)
        else:  # names alone do not say which channel is first, but which is which
            assert recording.channels == ("blue", "red")
            for place in product(*map(range, recording.lengths)):
                index = dict(zip(recording.axes, place, strict=True))
                expected = frame(**{**index, "c": 1 - index["c"]})
                np.testing.assert_array_equal(recording.read(place).pixels, expected)
        assert recording.notes == ()


def test_separate_image_files_in_a_folder_for_each_position(tmp_path: Path) -> None:
    for p in range(2):
        image_files(tmp_path / f"Pos{p}", "2.0", [{**index, "p": p} for index in grid(t=2, c=2)])
    with closing(open_recording(tmp_path)) as recording:
        assert_whole(recording, t=2, p=2, c=2)
        assert recording.positions == ("Pos0", "Pos1")
    with closing(open_recording(tmp_path / "Pos1")) as recording:
        assert len(recording.positions) <= 1
        assert recording.lengths[recording.axes.index("t")] == 2


def test_image_files_that_are_missing_or_unknown_are_said(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    image_files(folder, "2.0", grid(t=3, c=2))
    (folder / "img_channel001_position000_time000000001_z000.tif").unlink()
    tifffile.imwrite(folder / "snap.tif", NOISE, photometric="minisblack")
    tifffile.imwrite(
        folder / "img_channel000_position000_time000000003_z000.tif",
        frame(t=3),
        photometric="minisblack",
    )
    with closing(open_recording(folder)) as recording:
        assert [(i["t"], i["c"]) for i in came(recording)] == [
            (0, 0),
            (0, 1),
            (1, 0),
            (2, 0),
            (2, 1),
            (3, 0),
        ]
        said = " ".join(recording.notes)
    assert (
        "lists 1 frames whose files are not there"
        " (img_channel001_position000_time000000001_z000.tif)" in said
    )
    assert "snap.tif does not say where it belongs" in said
    assert "does not list 1 of its files" in said
    assert "2 of 8 frames are not there (the first is t=1, p=0, z=0, c=1)" in said


@pytest.mark.parametrize("text", ["{", "[]", "nonsense", "[" * 100_000])
def test_metadata_that_cannot_be_read_leaves_the_names(tmp_path: Path, text: str) -> None:
    image_files(tmp_path / "f", "2.0", grid(t=2, c=2))
    (tmp_path / "f" / "metadata.txt").write_text(text)
    with closing(open_recording(tmp_path / "f")) as recording:
        assert_whole(recording, t=2, c=2)
        assert "metadata.txt" in " ".join(recording.notes)


def test_metadata_that_micromanager_did_not_close(tmp_path: Path) -> None:
    image_files(tmp_path / "f", "1.4", grid(t=2, c=2))
    whole = (tmp_path / "f" / "metadata.txt").read_text()
    (tmp_path / "f" / "metadata.txt").write_text(whole[:-1] + ",\n")
    with closing(open_recording(tmp_path / "f")) as recording:
        assert_whole(recording, t=2, c=2)
        assert recording.channels == ("red", "blue")


def test_an_image_file_of_another_size_or_that_is_gone_ends_the_reading(tmp_path: Path) -> None:
    image_files(tmp_path / "f", "2.0", grid(t=4))
    name = "img_channel000_position000_time00000000{}_z000.tif"
    tifffile.imwrite(tmp_path / "f" / name.format(1), NOISE[:8], photometric="minisblack")
    with closing(open_recording(tmp_path / "f")) as recording:
        assert recording.read((0, 0, 0, 0)) is not None
        with pytest.raises(
            DamagedFileError, match=r"is 8 x 20 uint16 at frame t=1.*the others are 16 x 20"
        ):
            recording.read((1, 0, 0, 0))
        (tmp_path / "f" / name.format(2)).unlink()
        with pytest.raises(DamagedFileError, match="is gone"):
            recording.read((2, 0, 0, 0))


# -- folders ---------------------------------------------------------------------------------------


def stack(path: Path, first: int, count: int, **options: Any) -> None:
    frames = np.array([frame(t=t) for t in range(first, first + count)])
    tifffile.imwrite(path, frames, photometric="minisblack", **options)


def test_stacks_whose_names_count_follow_one_another(tmp_path: Path) -> None:
    for i, (first, count) in enumerate(((0, 3), (3, 3), (6, 2))):
        stack(tmp_path / f"raw_{i + 8}.tif", first, count)
    with closing(open_recording(tmp_path)) as recording:
        assert recording.lengths == (8,)
        assert [int(recording.read((t,)).pixels[0, 0]) for t in range(8)] == list(range(1, 9))
    (tmp_path / "raw_9.tif").unlink()
    with pytest.raises(
        ConfigError, match=r"raw_8.tif to raw_10.tif, and number 9 of them is not there"
    ):
        open_recording(tmp_path)


def test_a_stack_that_was_cut_off_ends_the_row(tmp_path: Path) -> None:
    """What follows would be at other places than it was recorded at."""
    for i in range(3):
        with tifffile.TiffWriter(tmp_path / f"raw_{i}.tif") as writer:
            for t in range(3 * i, 3 * i + 3):
                writer.write(frame(t=t), photometric="minisblack", metadata=None, contiguous=False)
    whole = (tmp_path / "raw_1.tif").read_bytes()
    (tmp_path / "raw_1.tif").write_bytes(whole[: len(whole) // 2])
    with closing(open_recording(tmp_path)) as recording:
        assert recording.lengths[0] in (4, 5)
        assert "The 1 files behind it are not read" in recording.damage


@pytest.mark.parametrize(
    "names", [("a.tif", "b.tif"), ("cell_488.tif", "cell_561.tif"), ("a1_2.tif", "a2_1.tif")]
)
def test_files_of_which_nothing_says_how_they_belong_together_are_refused(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    for name in names:
        stack(tmp_path / name, 0, 2)
    with pytest.raises(ConfigError, match="one file at a time"):
        open_recording(tmp_path)


def test_stacks_with_channels_are_not_joined(tmp_path: Path) -> None:
    for i in range(2):
        frames = np.array([[frame(t=t, c=c) for c in range(2)] for t in range(2)])
        tifffile.imwrite(tmp_path / f"a_{i}.tif", frames, imagej=True, metadata={"axes": "TCYX"})
    with pytest.raises(ConfigError, match="one file at a time"):
        open_recording(tmp_path)


def test_a_folder_that_holds_several_recordings_is_refused(tmp_path: Path) -> None:
    for name in "ab":
        described(
            tmp_path / f"{name}.ome.tif", [frame()], ome_xml([image("A", block())], uuid=name)
        )
    with pytest.raises(
        ConfigError,
        match=r"holds 2 recordings that describe themselves, beginning with a.ome.tif, b.ome.tif",
    ):
        open_recording(tmp_path)
    (tmp_path / "b.ome.tif").unlink()
    stack(tmp_path / "snap.tif", 0, 1)
    with closing(open_recording(tmp_path)) as recording:
        assert_whole(recording, t=1)
        assert "snap.tif is not described by a.ome.tif, and is not read" in " ".join(
            recording.notes
        )
    write_dv(tmp_path / "c.dv", [frame()], waves=1, times=1, interleave=0)
    with pytest.raises(ConfigError, match="holds 3 recordings"):
        open_recording(tmp_path)


def test_a_folder_with_one_file_is_that_file(tmp_path: Path) -> None:
    write_dv(tmp_path / "c.dv", [frame(t=t) for t in range(2)], waves=1, times=2, interleave=0)
    (tmp_path / ".hidden.tif").write_bytes(b"")
    (tmp_path / "rig.yaml").write_text("")
    with closing(open_recording(tmp_path)) as recording:
        assert_whole(recording, t=2)


def test_a_described_set_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    """By a companion and by each of its files."""
    two_files(tmp_path)
    blocks = [block(0, 4, f"s_{p}.ome.tif", f"f{p}") for p in range(2)]
    (tmp_path / "set.companion.ome").write_text(
        ome_xml([image("AB"[i], blocks[i], t=4) for i in range(2)], uuid="c")
    )
    with closing(open_recording(tmp_path)) as recording:
        assert_whole(recording, t=4, p=2)


# -- NDTiff ----------------------------------------------------------------------------------------


def test_ndtiff_with_a_pyramid(tmp_path: Path) -> None:
    """As Micro-Manager's Magellan and pycro-manager's tiled acquisitions are kept."""
    at = [{"time": t, "position": p} for t, p in product(range(2), range(2))]
    folder = tmp_path / "explore_1"
    folder.mkdir()
    write_ndtiff(
        folder / "Full resolution", np.array([frame(t=i["time"], p=i["position"]) for i in at]), at
    )
    write_ndtiff(folder / "Downsampled_x2", np.array([NOISE[::2, ::2]] * 4), at)
    for path in (
        folder,
        folder / "Full resolution",
        folder / "Full resolution" / "NDTiffStack.tif",
    ):
        with closing(open_recording(path)) as recording:
            assert_whole(recording, t=2, p=2)


def test_ndtiff_says_what_is_missing_and_what_came_twice(tmp_path: Path) -> None:
    at = [{"time": 0}, {"time": 1}, {"time": 1}, {"time": 4}]
    write_ndtiff(tmp_path / "n", np.array([frame(t=0), NOISE, frame(t=1), frame(t=4)]), at)
    with closing(open_recording(tmp_path / "n")) as recording:
        assert [i["t"] for i in came(recording)] == [0, 1, 4]
        said = " ".join(recording.notes)
    assert "1 frames were written again" in said
    assert "2 of 5 frames are not there (the first is t=2)" in said


@pytest.mark.parametrize(
    ("at", "size", "words"),
    [
        ([{"time": 0}, {"time": 10**12}], (X, Y), "expected 1 to 10000000 frames"),
        (
            [{"time": 0, "z": 0}, {"time": 10**5, "z": 10**5}],
            (X, Y),
            "expected 1 to 10000000 frames",
        ),
        ([{"time": 0}], (2**31 - 1, 2**31 - 1), "268435456 pixels"),
        ([{"time": 0}], (16000, 16000), "holds .* bytes"),
        ([{"time": 0}], (-5, 7), "268435456 pixels"),
        ([{"time": [1]}], (X, Y), "expected names with a number or a text each"),
        ([{"time": 0.5}], (X, Y), "expected names with a number or a text each"),
    ],
)
def test_absurd_ndtiff_numbers_are_refused(
    tmp_path: Path, at: list[Any], size: tuple[int, int], words: str
) -> None:
    write_ndtiff(tmp_path / "n", np.array([NOISE] * len(at)), at, size=size)
    with pytest.raises(ConfigError, match=words):
        open_recording(tmp_path / "n")
