"""Every layout that a TIFF may have: the camera's pixels come out, or a sentence; never others."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from livesr.base.errors import ConfigError, DamagedFileError
from livesr.live.sources.recordings.recording import Recording, open_recording

N, Y, X = 6, 100, 90
K, ROW, COLUMN = np.ogrid[:N, :Y, :X]
FRAMES = (1000 * K + 10 * ROW + COLUMN).astype(np.uint16)  # a pixel says its frame, row and column
TWELVE = ((300 * K + 2 * ROW + COLUMN) % 4096).astype(np.uint16)


def frames_of(recording: Recording) -> np.ndarray:
    """All frames of a recording whose other axes have one place."""
    places = product(*map(range, recording.lengths))
    return np.array([recording.read(place).pixels for place in places])


def pages(path: Path, frames: np.ndarray, **options: Any) -> None:
    """Write every frame as a page of its own."""
    with tifffile.TiffWriter(
        path, byteorder=options.pop("byteorder", "<"), bigtiff=options.pop("bigtiff", False)
    ) as writer:
        for frame in frames:
            writer.write(
                frame, photometric="minisblack", metadata=None, contiguous=False, **options
            )


def ome(path: Path, frames: np.ndarray, **options: Any) -> None:
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(frames, photometric="minisblack", metadata={"axes": "TYX"}, **options)


def by_hand(
    path: Path,
    strips: list[list[bytes]],
    bits: int,
    *more: tuple[int, int, int, int],
    order: str = "<",
) -> None:
    """A TIFF of pages with these strips, which lie in the file from the last to the first."""
    out = bytearray(struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 0))
    following = 4
    for page in strips:
        offsets = []
        for strip in reversed(page):
            offsets.insert(0, len(out))
            out += strip + b"\0" * (len(strip) % 2)
        lists = len(out)
        out += struct.pack(f"{order}{len(page)}I", *offsets) + struct.pack(
            f"{order}{len(page)}I", *map(len, page)
        )
        directory = len(out)
        struct.pack_into(f"{order}I", out, following, directory)
        many = len(page) > 1
        tags = [
            (256, 4, 1, X),
            (257, 4, 1, Y),
            (258, 3, 1, bits),
            (259, 3, 1, 1),
            (262, 3, 1, 1),
            (273, 4, len(page), lists if many else offsets[0]),
            (277, 3, 1, 1),
            (278, 4, 1, -(-Y // len(page))),
            (279, 4, len(page), lists + 4 * len(page) if many else len(page[0])),
            *more,
        ]
        out += struct.pack(f"{order}H", len(tags))
        for code, kind, count, value in sorted(tags):
            packed = (
                struct.pack(f"{order}HH", value, 0)
                if (kind, count) == (3, 1)
                else struct.pack(f"{order}I", value)
            )
            out += struct.pack(f"{order}HHI", code, kind, count) + packed
        following = len(out)
        out += struct.pack(f"{order}I", 0)
    path.write_bytes(out)


def packed(frame: np.ndarray, bits: int) -> bytes:
    """Rows of values of so many bits, the highest first, each row from a byte of its own."""
    ones = (frame[..., None] >> np.arange(bits)[::-1]) & 1
    return np.packbits(ones.reshape(len(frame), -1).astype(np.uint8), axis=1).tobytes()


REVERSED = bytes(int(f"{i:08b}"[::-1], 2) for i in range(256))


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "contiguous": lambda p: tifffile.imwrite(p, FRAMES, photometric="minisblack"),
    "pages": lambda p: pages(p, FRAMES),
    "a series for every frame": lambda p: _series(p),
    "big endian": lambda p: pages(p, FRAMES, byteorder=">"),
    "BigTIFF": lambda p: pages(p, FRAMES, bigtiff=True),
    "strips": lambda p: pages(p, FRAMES, rowsperstrip=7),
    "strips that lie backwards": lambda p: by_hand(p, [_strips(f) for f in FRAMES], 16),
    "strips that lie backwards, big endian": lambda p: by_hand(
        p, [_strips(f, ">u2") for f in FRAMES], 16, order=">"
    ),
    "strips in another order on one page": lambda p: by_hand(
        p, [_strips(f) if k else [f.tobytes()] for k, f in enumerate(FRAMES)], 16
    ),
    "tiles": lambda p: pages(p, FRAMES, tile=(32, 32)),
    "a tile larger than the frame": lambda p: pages(p, FRAMES, tile=(128, 128)),
    "a tile a little larger": lambda p: pages(p, FRAMES, tile=(112, 96)),
    "a tile larger than the frame, OME": lambda p: ome(p, FRAMES, tile=(128, 128)),
    "deflate": lambda p: pages(p, FRAMES, compression="zlib"),
    "deflate, predictor, big endian": lambda p: pages(
        p, FRAMES, compression="zlib", predictor=True, byteorder=">"
    ),
    "deflate tiles": lambda p: pages(p, FRAMES, compression="zlib", tile=(64, 64)),
    "compressed series": lambda p: tifffile.imwrite(
        p, FRAMES, photometric="minisblack", compression="zlib"
    ),
    "ImageJ": lambda p: tifffile.imwrite(p, FRAMES, imagej=True, metadata={"axes": "TYX"}),
    "ImageJ with one directory": lambda p: _one_directory(p),
    "OME": lambda p: ome(p, FRAMES),
    "OME, compressed": lambda p: ome(p, FRAMES, compression="zlib"),
    "a pyramid": lambda p: _pyramid(p, ome=True),
    "a pyramid that is no OME": lambda p: _pyramid(p, ome=False),
    "a thumbnail first": lambda p: _thumbnail(p),
    "fill order 2": lambda p: by_hand(
        p, [[f.tobytes().translate(REVERSED)] for f in FRAMES], 16, (266, 3, 1, 2)
    ),
}


def _strips(frame: np.ndarray, dtype: str = "<u2") -> list[bytes]:
    return [frame[at : at + 25].astype(dtype).tobytes() for at in range(0, Y, 25)]


def _series(path: Path) -> None:
    with tifffile.TiffWriter(path) as writer:
        for frame in FRAMES:
            writer.write(frame, photometric="minisblack", contiguous=False)


def _one_directory(path: Path) -> None:
    """As ImageJ writes more than 4 GB.

    The first page has a directory, the others follow its pixels.
    """
    tifffile.imwrite(path, FRAMES, imagej=True, metadata={"axes": "TYX"})
    with tifffile.TiffFile(path) as tiff:
        first = tiff.pages.first
        end = first.dataoffsets[0] + FRAMES.nbytes
        following = first.offset + 2 + 12 * len(first.tags)
        order = tiff.byteorder
    data = bytearray(path.read_bytes()[:end])
    data[following : following + 4] = struct.pack(f"{order}I", 0)
    path.write_bytes(data)


def _pyramid(path: Path, *, ome: bool) -> None:
    with tifffile.TiffWriter(path, ome=ome) as writer:
        options = {} if ome else {"metadata": None}
        writer.write(FRAMES, subifds=1, photometric="minisblack", **options)
        writer.write(FRAMES[:, ::2, ::2], subfiletype=1, photometric="minisblack", **options)


def _thumbnail(path: Path) -> None:
    with tifffile.TiffWriter(path) as writer:
        options = {"photometric": "minisblack", "metadata": None, "contiguous": False}
        writer.write(FRAMES[0, ::4, ::4], subfiletype=1, **options)
        for frame in FRAMES:
            writer.write(frame, **options)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_cameras_pixels(tmp_path: Path, layout: str) -> None:
    path = tmp_path / ("a.ome.tif" if "OME" in layout else "a.tif")
    LAYOUTS[layout](path)
    with closing(open_recording(path)) as recording:
        assert (recording.shape, recording.dtype) == ((Y, X), "uint16")
        frames = frames_of(recording)
    np.testing.assert_array_equal(frames, FRAMES)
    assert frames.dtype.isnative


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("backwards", [False, True])
def test_packed_bits_are_unpacked(tmp_path: Path, bits: int, backwards: bool) -> None:
    frames = TWELVE % (1 << bits)
    data = [packed(frame, bits) for frame in frames]
    data = [page.translate(REVERSED) for page in data] if backwards else data
    by_hand(
        tmp_path / "a.tif",
        [[page] for page in data],
        bits,
        *([(266, 3, 1, 2)] if backwards else []),
    )
    with closing(open_recording(tmp_path / "a.tif")) as recording:
        np.testing.assert_array_equal(frames_of(recording), frames)
    lines = len(data[0]) // Y
    by_hand(
        tmp_path / "b.tif",
        [[page[: 50 * lines], page[50 * lines :]] for page in data],
        bits,
        (266, 3, 1, 1 + backwards),
    )
    with closing(open_recording(tmp_path / "b.tif")) as recording:
        np.testing.assert_array_equal(frames_of(recording), frames)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "uint32", "float32", "float64"])
def test_whole_numbers_of_any_type_are_the_cameras(tmp_path: Path, dtype: str) -> None:
    frames = (FRAMES % 200).astype(dtype)
    pages(tmp_path / "a.tif", frames)
    with closing(open_recording(tmp_path / "a.tif")) as recording:
        assert recording.dtype == ("uint8" if dtype == "uint8" else "uint16")
        np.testing.assert_array_equal(frames_of(recording), frames)
        assert any(
            f"holds {dtype}: its values are whole numbers" in note for note in recording.notes
        ) == (dtype != "uint8")


def test_values_that_no_camera_gives_are_refused_wherever_they_come(tmp_path: Path) -> None:
    for wrong in (-1, 0.5, 65536, np.nan, np.inf):
        frames = (FRAMES % 200).astype(np.float32)
        frames[0, 3, 3] = wrong
        pages(tmp_path / "first.tif", frames)
        with pytest.raises(
            ConfigError, match=r"float32 from .* expected the camera's uint8 or uint16"
        ):
            open_recording(tmp_path / "first.tif")
        pages(tmp_path / "third.tif", np.roll(frames, 2, axis=0))
        with closing(open_recording(tmp_path / "third.tif")) as recording:
            assert recording.read((1,)) is not None
            with pytest.raises(DamagedFileError, match=r"float32 from .* at frame 3 of 6"):
                recording.read((2,))
    frames = (FRAMES % 200).astype(np.float16)
    frames[0, 3, 3] = np.inf  # 65535 as float16
    pages(tmp_path / "half.tif", frames)
    with pytest.raises(ConfigError, match=r"float16 from 0 to inf"):
        open_recording(tmp_path / "half.tif")
    pages(tmp_path / "c.tif", FRAMES.astype(np.complex64))
    with pytest.raises(ConfigError, match="complex64; expected"):
        open_recording(tmp_path / "c.tif")


def test_pages_of_several_sizes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for frame in (*FRAMES[:3], *FRAMES[:2, :50]):
            writer.write(frame, photometric="minisblack", metadata=None, contiguous=False)
    words = r"several sizes \(3 of 100 x 90 uint16, 2 of 50 x 90 uint16\)"
    with pytest.raises(ConfigError, match=words):
        open_recording(path)
    with tifffile.TiffWriter(path) as writer:  # tifffile looks at the second, eighth and last page
        for k in range(20):
            writer.write(
                FRAMES[0, : 50 if k == 12 else Y],
                photometric="minisblack",
                metadata=None,
                contiguous=False,
            )
    with closing(open_recording(path)) as recording:
        assert recording.read((11,)) is not None
        with pytest.raises(
            DamagedFileError,
            match=r"a.tif is 50 x 90 uint16 at frame 13 of 20; the others are 100 x 90 uint16",
        ):
            recording.read((12,))


def test_what_is_left_out_or_not_applied_is_said(tmp_path: Path) -> None:
    _thumbnail(tmp_path / "a.tif")
    with tifffile.TiffWriter(tmp_path / "b.tif") as writer:
        for frame in FRAMES:
            writer.write(
                frame,
                photometric="miniswhite",
                metadata=None,
                contiguous=False,
                extratags=[(274, 3, 1, 4, True)],
            )
    fewer = len(FRAMES) - 2
    said_less = f"ImageJ=1.53t\nimages={fewer}\nframes={fewer}\n"
    tifffile.imwrite(
        tmp_path / "c.tif", FRAMES, description=said_less, photometric="minisblack", metadata=None
    )
    with closing(open_recording(tmp_path / "c.tif")) as recording:
        assert recording.notes == (
            "c.tif holds 2 pages more than ImageJ's description counts; they are not read.",
        )
    said = {}
    for name in "ab":
        with closing(open_recording(tmp_path / f"{name}.tif")) as recording:
            said[name] = " ".join(recording.notes)
            np.testing.assert_array_equal(frames_of(recording), FRAMES)
    assert "1 pages are marked as reduced images or masks, and are not read" in said["a"]
    assert "orientation 4" in said["b"]
    assert "MinIsWhite" in said["b"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"photometric": "rgb"}, "colour frames"),
        ({"photometric": "minisblack", "planarconfig": "separate"}, "colour|several frames"),
    ],
)
def test_colour_is_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    shape = (2, 3, Y, X) if "planarconfig" in options else (2, Y, X, 3)
    tifffile.imwrite(tmp_path / "a.tif", np.zeros(shape, np.uint8), metadata=None, **options)
    with pytest.raises(ConfigError, match=words):
        open_recording(tmp_path / "a.tif")


def test_a_codec_that_is_not_installed_is_named_before_anything_begins(tmp_path: Path) -> None:
    strip = FRAMES[0].tobytes()
    by_hand(tmp_path / "a.tif", [[strip]], 16)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    at = data.index(struct.pack("<HHIHH", 259, 3, 1, 1, 0))
    for code in (5, 34712, 50000):  # LZW, JPEG 2000, Zstandard
        data[at : at + 12] = struct.pack("<HHIHH", 259, 3, 1, code, 0)
        (tmp_path / "a.tif").write_bytes(data)
        if _has_imagecodecs():  # what is said to be compressed is not
            with (
                closing(open_recording(tmp_path / "a.tif")) as recording,
                pytest.raises(DamagedFileError),
            ):
                recording.read(())
        else:
            with pytest.raises(ConfigError, match="pip install imagecodecs"):
                open_recording(tmp_path / "a.tif")


def _has_imagecodecs() -> bool:
    from importlib.util import find_spec

    return find_spec("imagecodecs") is not None


# -- numbers that are absurd -----------------------------------------------------------------------


def test_a_small_file_that_announces_a_huge_frame_is_refused(tmp_path: Path) -> None:
    by_hand(tmp_path / "a.tif", [[b"\0" * 600]], 16)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    for size, words in (
        (20_000, "268435456 pixels"),
        (12_000, "holds .* bytes"),
        (0, "0 x 0|no frame|as TIFF"),
    ):
        for tag in (256, 257):
            at = data.index(struct.pack("<HHI", tag, 4, 1))
            data[at + 8 : at + 12] = struct.pack("<I", size)
        (tmp_path / "a.tif").write_bytes(data)
        tracemalloc.start()
        try:
            with pytest.raises(ConfigError, match=words):
                open_recording(tmp_path / "a.tif")
            assert tracemalloc.get_traced_memory()[1] < 20e6
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("gone", ["offsets", "counts"])
def test_a_strip_that_is_not_there_is_no_black_one(tmp_path: Path, gone: str) -> None:
    """tifffile reads zeros there, of any size."""
    by_hand(tmp_path / "a.tif", [_strips(FRAMES[0]), _strips(FRAMES[1])], 16)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        at = tiff.pages[1].tags[{"offsets": 273, "counts": 279}[gone]].valueoffset
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[at + 4 : at + 8] = bytes(4)
    (tmp_path / "a.tif").write_bytes(data)
    with closing(open_recording(tmp_path / "a.tif")) as recording:
        np.testing.assert_array_equal(recording.read((0,)).pixels, FRAMES[0])
        with pytest.raises(DamagedFileError, match="no bytes"):
            recording.read((1,))


@pytest.mark.parametrize(
    "content", [b"", b"II", b"II*\0", b"II*\0junk", b"II*\0\xff\xff\xff\xff", bytes(5000)]
)
def test_what_is_no_tiff_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(ConfigError, match=r"Cannot read .*as TIFF: .*[a-z]{3}"):
        open_recording(tmp_path / "a.tif")


def test_pages_that_run_in_a_circle_are_refused(tmp_path: Path) -> None:
    pages(tmp_path / "a.tif", FRAMES)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        first, last = tiff.pages[1], tiff.pages[5]
        following = last.offset + 2 + 12 * len(last.tags)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[following : following + 4] = struct.pack("<I", first.offset)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(ConfigError, match="run in a circle"):
        open_recording(tmp_path / "a.tif")


def test_an_imagej_stack_of_one_directory_that_was_cut_off_gives_what_is_there(
    tmp_path: Path,
) -> None:
    _one_directory(tmp_path / "a.tif")
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[: -FRAMES[0].nbytes - 100])
    with closing(open_recording(tmp_path / "a.tif")) as recording:
        assert "metadata invalid" in str(recording.damage)
        found = frames_of(recording)
    np.testing.assert_array_equal(found, FRAMES[:4])


def test_frames_of_one_pixel_that_share_a_page_are_not_said_to_be_cut_off(tmp_path: Path) -> None:
    """tifffile writes them as a single page of N x 1."""
    tifffile.imwrite(tmp_path / "a.tif", FRAMES[:, :1, :1])
    with pytest.raises(ConfigError, match="holds several frames in one page"):
        open_recording(tmp_path / "a.tif")
