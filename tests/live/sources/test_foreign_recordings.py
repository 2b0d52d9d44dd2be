"""Recordings that a stranger laid out: they run nothing, and name no file but their own."""

from __future__ import annotations

import json
import lzma
import os
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from livesr.base.errors import DamagedFileError, LiveSRError, StoreError
from livesr.formats.zarr_files import CODECS_V2, CODECS_V3, check_metadata, open_array, open_group
from livesr.live.sources.recordings import tiff_pages
from livesr.live.sources.recordings.recording import open_recording
from livesr.training.images import _read_tiff
from recordings import write_mmstack, write_ndtiff, write_ome_zarr

needs_links = pytest.mark.skipif(os.name == "nt", reason="making links needs rights on Windows")
FRAMES = np.arange(4 * 8 * 8, dtype=np.uint16).reshape(4, 8, 8) + 1


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> Any:
        return open, (self._path, "w")


def attack_v2(path: Path, change: dict[str, Any], payload: bytes) -> None:
    write_ome_zarr(path, FRAMES, "tyx", version="0.4")
    about = json.loads((path / "0" / ".zarray").read_text())
    (path / "0" / ".zarray").write_text(json.dumps(about | change))
    for chunk in (path / "0").rglob("*"):
        if chunk.is_file() and not chunk.name.startswith("."):
            chunk.write_bytes(payload)


PICKLE = {"id": "pickle", "protocol": 5}


@pytest.mark.parametrize(
    "change",
    [
        {"compressor": PICKLE},
        {"filters": [PICKLE]},
        {"dtype": "|O", "filters": [PICKLE]},
        {"compressor": {"id": "msgpack2"}},
        {"compressor": {"id": "json2"}},
        {"filters": [{"id": "categorize", "labels": ["a"], "dtype": "|O"}]},
        {
            "filters": [
                {"id": "fixedscaleoffset", "offset": 0, "scale": 1, "dtype": "|O", "astype": "|O"}
            ]
        },
        {"filters": [{"id": "astype", "encode_dtype": "O", "decode_dtype": "<u2"}]},
        {"filters": [{"id": "delta", "dtype": [["a", "<u2"]]}]},
        {"filters": [{"id": "vlen-utf8"}], "dtype": "|O"},
        {"filters": {"id": "pickle"}},
        {"filters": ["pickle"]},
        {"compressor": "pickle"},
        {"dtype": "<U8"},
        {"dtype": [["a", "<u2"]]},
        {"dtype": "<M8[ns]"},
    ],
    ids=str,
)
def test_no_codec_of_a_stranger_runs(change: dict[str, Any], tmp_path: Path) -> None:
    flag = tmp_path / "ran"
    attack_v2(tmp_path / "a.zarr", change, pickle.dumps(Payload(flag)))
    with pytest.raises(StoreError, match=r"codec|values of type"):
        open_recording(tmp_path / "a.zarr")
    with pytest.raises(StoreError):
        open_array(tmp_path / "a.zarr" / "0")
    assert not flag.exists()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_consolidated_metadata_is_no_way_round(version: str, tmp_path: Path) -> None:
    write_ome_zarr(tmp_path / "a.zarr", FRAMES, "tyx", version=version)
    with pytest.warns(UserWarning, match="onsolidated") if version == "0.5" else _nothing():
        zarr.consolidate_metadata(tmp_path / "a.zarr")
    file = tmp_path / "a.zarr" / ("zarr.json" if version == "0.5" else ".zmetadata")
    text = file.read_text()
    honest = open_group(tmp_path / "a.zarr")["0"][:]
    np.testing.assert_array_equal(honest, FRAMES)
    evil = json.loads(text)
    for node in (evil["consolidated_metadata"] if version == "0.5" else evil)["metadata"].values():
        if "dtype" in node:
            node["compressor"] = PICKLE
        if "codecs" in node:
            node["codecs"].append({"name": "numcodecs.pickle"})
    with pytest.raises(StoreError, match="pickle"):
        check_metadata(json.dumps(evil).encode(), file.name)


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()


SHARDED = {
    "name": "sharding_indexed",
    "configuration": {"codecs": [{"name": "bytes"}], "index_codecs": [{"name": "crc32c"}]},
}


def v3(**change: Any) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "data_type": "uint16",
        "codecs": [SHARDED],
    } | change


def nested(depth: int) -> Any:
    codec: Any = {"name": "bytes"}
    for _ in range(depth):
        codec = {"name": "sharding_indexed", "configuration": {"codecs": [codec]}}
    return codec


@pytest.mark.parametrize(
    "about",
    [
        v3(codecs=[{"name": "numcodecs.pickle"}]),
        v3(
            codecs=[
                {
                    "name": "sharding_indexed",
                    "configuration": {"codecs": [{"name": "numcodecs.pickle"}]},
                }
            ]
        ),
        v3(
            codecs=[
                {
                    "name": "sharding_indexed",
                    "configuration": {"codecs": [], "index_codecs": [{"name": "x"}]},
                }
            ]
        ),
        v3(codecs=["bytes", "numcodecs.json2"]),
        v3(codecs=[{"name": "vlen-bytes"}]),
        v3(codecs=[{"name": ["bytes"]}]),
        v3(codecs=[None]),
        v3(codecs={"name": "bytes"}),
        v3(codecs=[nested(200)]),
        v3(data_type="string"),
        v3(data_type="variable_length_bytes"),
        v3(data_type={"name": "struct", "configuration": {}}),
        v3(data_type="r16"),
        v3(data_type=None),
        v3(storage_transformers=[{"name": "x"}]),
    ],
    ids=lambda about: str(about)[60:140],
)
def test_metadata_that_needs_more_than_decompression_is_refused(about: dict[str, Any]) -> None:
    with pytest.raises(StoreError):
        check_metadata(json.dumps(about).encode(), "zarr.json")
    with pytest.raises(StoreError):
        check_metadata(
            json.dumps({"consolidated_metadata": {"metadata": {"a": about}}}).encode(), "zarr.json"
        )


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[" * 100_000, b"\xff\xfe{", b'{"a": ' + b"9" * 5000 + b"}"], ids=len
)
def test_metadata_that_cannot_be_looked_at_is_refused(text: bytes) -> None:
    with pytest.raises(StoreError):
        check_metadata(text, "zarr.json")


def test_what_microscopes_write_is_read(tmp_path: Path) -> None:
    import numcodecs

    check_metadata(json.dumps(v3()).encode(), "zarr.json")
    assert not {"pickle", "json2", "msgpack2", "vlen-utf8", "vlen-bytes", "categorize"} & (
        CODECS_V2 | CODECS_V3
    )
    for i, codec in enumerate(
        (
            None,
            numcodecs.Blosc(),
            numcodecs.Zstd(),
            numcodecs.GZip(),
            numcodecs.Zlib(),
            numcodecs.LZ4(),
            numcodecs.LZMA(),
        )
    ):
        place = tmp_path / f"{i}.zarr"
        array = zarr.create_array(
            place,
            shape=FRAMES.shape,
            dtype="u2",
            chunks=(1, 8, 8),
            zarr_format=2,
            compressors=codec,
        )
        array[:] = FRAMES
        np.testing.assert_array_equal(open_array(place)[:], FRAMES)
        np.testing.assert_array_equal(open_array(place)[1:3, 2:, 4], FRAMES[1:3, 2:, 4])
    sharded = zarr.create_array(
        tmp_path / "s.zarr", shape=FRAMES.shape, dtype="u2", chunks=(1, 8, 8), shards=(2, 8, 8)
    )
    sharded[:] = FRAMES
    np.testing.assert_array_equal(open_array(tmp_path / "s.zarr")[3], FRAMES[3])


def test_a_file_for_reading_is_not_written(tmp_path: Path) -> None:
    write_ome_zarr(tmp_path / "a.zarr", FRAMES, "tyx")
    with pytest.raises(ValueError, match="read"):
        open_array(tmp_path / "a.zarr" / "0")[:] = 0


@needs_links
@pytest.mark.parametrize("name", ["0", "0/c", "0/c/1", "0/zarr.json", "zarr.json"])
def test_no_link_of_an_ome_zarr_leads_out(name: str, tmp_path: Path) -> None:
    write_ome_zarr(tmp_path / "theirs.zarr", FRAMES, "tyx")
    write_ome_zarr(tmp_path / "a.zarr", FRAMES, "tyx")
    (tmp_path / "a.zarr" / name).rename(tmp_path / "unplaced")
    (tmp_path / "a.zarr" / name).symlink_to(tmp_path / "theirs.zarr" / name)
    with pytest.raises(LiveSRError, match="leads out of"):
        open_recording(tmp_path / "a.zarr").read((1,))


@pytest.mark.parametrize(
    "path", ["../theirs.zarr/0", "/etc", "..", "../../theirs.zarr/0", "a\\..\\0"]
)
def test_no_dataset_of_an_ome_zarr_is_elsewhere(path: str, tmp_path: Path) -> None:
    write_ome_zarr(tmp_path / "theirs.zarr", FRAMES, "tyx")
    write_ome_zarr(tmp_path / "a.zarr", FRAMES, "tyx")
    file = tmp_path / "a.zarr" / "zarr.json"
    file.write_text(file.read_text().replace('"path": "0"', f'"path": {json.dumps(path)}'))
    with pytest.raises(LiveSRError):
        open_recording(tmp_path / "a.zarr").read((1,))


def renamed_index(folder: Path, name: bytes) -> None:
    index, own = (folder / "NDTiff.index").read_bytes(), b"NDTiffStack.tif"
    new = index.replace(struct.pack("<I", len(own)) + own, struct.pack("<I", len(name)) + name)
    (folder / "NDTiff.index").write_bytes(new)


@pytest.mark.parametrize(
    "name", [b"../secret.tif", b"/etc/passwd", b"..\\secret.tif", b"C:\\secret.tif", b"", b"."]
)
def test_an_ndtiff_index_names_files_of_its_folder(name: bytes, tmp_path: Path) -> None:
    write_ndtiff(tmp_path / "set", FRAMES, [{"time": t} for t in range(4)])
    (tmp_path / "set" / "NDTiffStack.tif").rename(tmp_path / "secret.tif")
    renamed_index(tmp_path / "set", name)
    with pytest.raises(LiveSRError, match="names a file"):
        open_recording(tmp_path / "set")


@needs_links
@pytest.mark.parametrize("name", ["NDTiffStack.tif", "NDTiff.index"])
def test_no_link_of_an_ndtiff_leads_out(name: str, tmp_path: Path) -> None:
    write_ndtiff(tmp_path / "set", FRAMES, [{"time": t} for t in range(4)])
    (tmp_path / "set" / name).rename(tmp_path / "secret")
    (tmp_path / "set" / name).symlink_to(tmp_path / "secret")
    with pytest.raises(LiveSRError, match="leads out of"):
        open_recording(tmp_path / "set")


def ome_set(folder: Path, other: str) -> Path:
    """Two files of an OME-TIFF set: the first names the second `other`."""
    folder.mkdir()
    pixels = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:a"><Image'
        ' ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="8"'
        ' SizeY="8" SizeZ="1" SizeC="1" SizeT="2"><Channel ID="Channel:0:0"'
        ' SamplesPerPixel="1"/><TiffData IFD="0" FirstT="0" PlaneCount="1"><UUID'
        ' FileName="a.ome.tif">urn:uuid:a</UUID></TiffData><TiffData IFD="0" FirstT="1"'
        ' PlaneCount="1"><UUID'
        f' FileName="{other}">urn:uuid:b</UUID></TiffData></Pixels></Image></OME>'
    )
    tifffile.imwrite(folder / "a.ome.tif", FRAMES[0], description=pixels, metadata=None)
    return folder / "a.ome.tif"


def test_the_files_of_an_ome_tiff_are_read(tmp_path: Path) -> None:
    path = ome_set(tmp_path / "set", "b.ome.tif")
    tifffile.imwrite(tmp_path / "set" / "b.ome.tif", FRAMES[1], ome=False, metadata=None)
    recording = open_recording(path)
    plane = recording.read(recording.place({"t": 1}))
    recording.close()
    assert plane is not None
    np.testing.assert_array_equal(plane.pixels, FRAMES[1])


@pytest.mark.parametrize(
    "name", ["../secret.tif", "&#46;&#46;/secret.tif", "{secret}", "..\\secret.tif"]
)
def test_an_ome_tiff_names_files_of_its_folder(name: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.tif"
    tifffile.imwrite(secret, FRAMES[1], metadata=None)
    path = ome_set(tmp_path / "set", name.format(secret=secret))
    with pytest.raises(LiveSRError, match="names a file"):
        open_recording(path)
    with pytest.raises(LiveSRError, match="names a file"):
        _read_tiff(path)


@needs_links
def test_no_link_of_an_ome_tiff_leads_out(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "secret.tif", FRAMES[1], metadata=None)
    path = ome_set(tmp_path / "set", "b.ome.tif")
    (path.parent / "b.ome.tif").symlink_to(tmp_path / "secret.tif")
    with pytest.raises(LiveSRError, match="leads out of"):
        open_recording(path)


@needs_links
def test_a_file_that_the_user_names_may_be_a_link(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "frames.tif", FRAMES, photometric="minisblack")
    (tmp_path / "desk").mkdir()
    (tmp_path / "desk" / "latest.tif").symlink_to(tmp_path / "frames.tif")
    recording = open_recording(tmp_path / "desk" / "latest.tif")
    plane = recording.read((2,))
    recording.close()
    assert plane is not None
    np.testing.assert_array_equal(plane.pixels, FRAMES[2])


@needs_links
def test_no_link_in_a_folder_of_tiffs_leads_out(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    tifffile.imwrite(tmp_path / "secret.tif", FRAMES[1], metadata=None)
    tifffile.imwrite(tmp_path / "set" / "1.tif", FRAMES[0], metadata=None)
    (tmp_path / "set" / "2.tif").symlink_to(tmp_path / "secret.tif")
    with pytest.raises(LiveSRError, match="leads out of"):
        open_recording(tmp_path / "set")


def mmstack(folder: Path) -> None:
    """Two files of one acquisition, a position each."""
    folder.mkdir()
    for p in range(2):
        summary = {"Frames": 2, "Channels": 1, "Slices": 1, "Positions": 2, "UUID": "u"}
        places = [(0, 0, t, p) for t in range(2)]
        write_mmstack(
            folder / f"run_MMStack_Pos{p}.ome.tif",
            FRAMES[2 * p : 2 * p + 2],
            places,
            summary,
            [{}, {}],
        )


def image_files(folder: Path) -> None:
    folder.mkdir()
    for t in range(2):
        tifffile.imwrite(
            folder / f"img_channel000_position000_time{t:09}_z000.tif",
            FRAMES[t],
            photometric="minisblack",
        )
    (folder / "metadata.txt").write_text("{}")
    (folder / "_useq_MDASequence.json").write_text("{}")


def positions(folder: Path) -> None:
    folder.mkdir()
    image_files(folder / "Pos0")


def pyramid(folder: Path) -> None:
    folder.mkdir()
    write_ndtiff(folder / "Full resolution", FRAMES, [{"time": t} for t in range(4)])


def companion(folder: Path) -> None:
    path = ome_set(folder, "b.ome.tif")
    with tifffile.TiffFile(path) as tiff:
        xml = tiff.pages.first.description
    (folder / "set.companion.ome").write_text(xml)
    only = (
        '<OME UUID="urn:uuid:a"><BinaryOnly MetadataFile="set.companion.ome"'
        ' UUID="urn:uuid:c"/></OME>'
    )
    tifffile.imwrite(path, FRAMES[0], description=only, metadata=None)


@needs_links
@pytest.mark.parametrize(
    ("made", "name", "opened"),
    [
        (mmstack, "run_MMStack_Pos1.ome.tif", "run_MMStack_Pos0.ome.tif"),
        (mmstack, "run_MMStack_Pos1.ome.tif", "."),
        (image_files, "img_channel000_position000_time000000001_z000.tif", "."),
        (image_files, "metadata.txt", "."),
        (positions, "Pos0/img_channel000_position000_time000000001_z000.tif", "."),
        (positions, "Pos0/metadata.txt", "."),
        (positions, "Pos0", "."),
        (pyramid, "Full resolution", "."),
        (companion, "set.companion.ome", "a.ome.tif"),
        (companion, "set.companion.ome", "."),
    ],
)
def test_no_link_of_a_set_leads_out(made: Any, name: str, opened: str, tmp_path: Path) -> None:
    made(tmp_path / "set")
    open_recording(tmp_path / "set" / opened).close()
    (tmp_path / "set" / name).rename(tmp_path / "secret")
    (tmp_path / "set" / name).symlink_to(tmp_path / "secret")
    with pytest.raises(LiveSRError, match="leads out of"):
        open_recording(tmp_path / "set" / opened)


@needs_links
def test_an_acquisition_that_the_user_names_may_be_a_link(tmp_path: Path) -> None:
    mmstack(tmp_path / "set")
    (tmp_path / "desk").mkdir()
    link = tmp_path / "desk" / "run_MMStack_Pos0.ome.tif"
    link.symlink_to(tmp_path / "set" / link.name)
    recording = open_recording(link)
    plane = recording.read(recording.place({"t": 1}))
    recording.close()
    assert plane is not None
    np.testing.assert_array_equal(plane.pixels, FRAMES[1])


def test_tifffile_looks_for_no_files_of_its_own(tmp_path: Path) -> None:
    """A description that only tifffile takes for OME-XML names no file either."""
    tifffile.imwrite(tmp_path / "secret.tif", FRAMES[1], metadata=None)
    path = ome_set(tmp_path / "set", str(tmp_path / "secret.tif"))
    with tifffile.TiffFile(path) as tiff:
        xml = tiff.pages.first.description
    tifffile.imwrite(path, FRAMES[0], description=f"<!--{' ' * 5000}-->{xml}", metadata=None)
    recording = open_recording(path)
    recording.close()
    assert recording.lengths == ()


@pytest.mark.parametrize("compression", ["zlib", "lzma"])
def test_a_strip_unpacks_to_no_more_than_a_frame_has(
    compression: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = zlib.compress if compression == "zlib" else lzma.compress
    monkeypatch.setattr(tiff_pages, "_MAX_UNPACKED", 2**16)
    noise = np.random.default_rng(0).integers(0, 2**16, (64, 64), np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif", noise, compression=compression, metadata=None, photometric="minisblack"
    )
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        start = tiff.pages.first.dataoffsets[0]
        room = tiff.pages.first.databytecounts[0]
    data = bytearray((tmp_path / "a.tif").read_bytes())
    bomb = pack(bytes(2**20))
    assert len(bomb) < room
    data[start : start + len(bomb)] = bomb
    (tmp_path / "a.tif").write_bytes(data)
    recording = open_recording(tmp_path / "a.tif")
    with pytest.raises(DamagedFileError, match="unpacks to more than 65536 bytes"):
        recording.read(())
    recording.close()
