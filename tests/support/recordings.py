"""Writers of recordings as other programs leave them, for readers to read."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.unsignedinteger[Any]]


def write_mmstack(
    path: Path,
    frames: Frames,
    places: Sequence[tuple[int, int, int, int]],
    summary: Mapping[str, Any],
    metadata: Sequence[Mapping[str, Any]],
) -> None:
    """A Micro-Manager image file stack.

    Index map of (channel, slice, frame, position), a JSON of metadata per frame.

    https://micro-manager.org/Micro-Manager_File_Formats
    """
    head = json.dumps({"MicroManagerVersion": "2.0.3", **summary}).encode()
    start = 40 + len(head)
    start += start % 2
    height, width = frames.shape[1:]
    texts = [json.dumps(m).encode() + b"\0" for m in metadata]
    body, index = b"", []
    for place, frame, text in zip(places, frames, texts, strict=True):
        at = start + len(body)
        index.append((*place, at))
        pixels = at + 162  # an IFD of 13 tags, then the pixels: what readers of the format count on
        after = pixels + frame.nbytes
        following = after + len(text) + len(text) % 2
        tags = [
            (256, 4, 1, width),
            (257, 4, 1, height),
            (258, 3, 1, 8 * frame.itemsize),
            (259, 3, 1, 1),
            (262, 3, 1, 1),
            (273, 4, 1, pixels),
            (277, 3, 1, 1),
            (278, 4, 1, height),
            (279, 4, 1, frame.nbytes),
            (282, 4, 1, 1),
            (283, 4, 1, 1),
            (296, 3, 1, 3),
            (51123, 2, len(text), after),
        ]
        last = len(index) == len(frames)
        body += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
        body += (
            struct.pack("<I", 0 if last else following)
            + frame.tobytes()
            + text
            + b"\0" * (len(text) % 2)
        )
    at = start + len(body)
    table = struct.pack("<II", 3453623, len(index)) + b"".join(
        struct.pack("<5I", *entry) for entry in index
    )
    header = struct.pack("<2sHI", b"II", 42, start)
    header += struct.pack("<8I", 54773648, at, 483765892, 0, 99384722, 0, 2355492, len(head))
    path.write_bytes((header + head).ljust(start, b"\0") + body + table)


def write_ndtiff(
    folder: Path,
    frames: Frames,
    axes: Sequence[Mapping[str, int | str]],
    metadata: Sequence[Mapping[str, Any]] = (),
    *,
    size: tuple[int, int] | None = None,
) -> None:
    """An NDTiff 3 data set: the pixels and metadata, and where they lie in NDTiff.index.

    Without TIFF directories.

    `size` is the (x, y) that the index says, if not that of the frames.

    https://github.com/micro-manager/NDTiffStorage
    """
    folder.mkdir()
    summary = json.dumps({"StartTime": "2024-05-06 07:08:09.000 +0000", "z-step_um": 0.5}).encode()
    data = (
        struct.pack("<2sHI", b"II", 42, 0)
        + struct.pack("<5I", 483729, 3, 3, 2355492, len(summary))
        + summary
    )
    index = b""
    for i, (frame, place) in enumerate(zip(frames, axes, strict=True)):
        about = json.dumps(metadata[i] if metadata else {}).encode()
        at, name, file = len(data), json.dumps(place).encode(), b"NDTiffStack.tif"
        data += frame.tobytes() + about
        index += struct.pack("<I", len(name)) + name + struct.pack("<I", len(file)) + file
        kind = 1 if frame.itemsize == 2 else 0
        x, y = size or (frame.shape[1], frame.shape[0])
        index += struct.pack("<I4iI2i", at, x, y, kind, 0, at + frame.nbytes, len(about), 0)
    (folder / "NDTiffStack.tif").write_bytes(data)
    (folder / "NDTiff.index").write_bytes(index)


def write_ome_zarr(
    path: Path,
    array: Frames,
    axes: str,
    *,
    version: str = "0.5",
    chunk_t: int = 1,
    units: bool = True,
) -> None:
    """An OME-Zarr image as zarr-python makes it."""
    import zarr

    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    chunks = tuple(
        chunk_t if a == "t" else n if a in "yx" else 1
        for a, n in zip(axes, array.shape, strict=True)
    )
    group.create_array("0", data=array, chunks=chunks)
    unit = {"t": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"} if units else {}
    kinds = {"t": "time", "c": "channel"}
    image = {
        "axes": [
            {"name": a, "type": kinds.get(a, "space"), **({"unit": unit[a]} if a in unit else {})}
            for a in axes
        ],
        "datasets": [
            {
                "path": "0",
                "coordinateTransformations": [
                    {
                        "type": "scale",
                        "scale": [
                            {"t": 0.5, "z": 0.3, "y": 0.065, "x": 0.065}.get(a, 1.0) for a in axes
                        ],
                    }
                ],
            }
        ],
    }
    channels = {"channels": [{"label": label} for label in ("488", "561")]} if "c" in axes else {}
    about = {"multiscales": [image], **({"omero": channels} if channels else {})}
    group.attrs.update({"ome": {"version": "0.5", **about}} if version == "0.5" else about)


def write_mrc(path: Path, frames: Frames, extended: bytes = b"") -> None:
    """An MRC stack as microscopes write it: an extended header of their own, no stamps."""
    header = bytearray(1024)
    height, width = frames.shape[1:]
    mode = {"uint16": 6, "int16": 1, "float32": 2}[frames.dtype.name]
    struct.pack_into("<4i", header, 0, width, height, len(frames), mode)
    struct.pack_into("<i", header, 92, len(extended))
    path.write_bytes(bytes(header) + extended + frames.tobytes())


def write_dv(
    path: Path,
    sections: Sequence[NDArray[Any]],
    *,
    waves: int,
    times: int,
    interleave: int,
    nm: Sequence[int] = (525, 605, 0, 0, 0),
    order: str = "<",
    extended: bytes = b"",
    count: int | None = None,
) -> None:
    """A DeltaVision file.

    `interleave` is 0 for z, t, w from the fastest, 1 for w, z, t, and 2 for z, w, t.
    """
    header = bytearray(1024)
    y, x = sections[0].shape
    mode = {"uint8": 0, "uint16": 6, "int16": 1, "float32": 2}[sections[0].dtype.name]
    struct.pack_into(f"{order}4i", header, 0, x, y, len(sections) if count is None else count, mode)
    struct.pack_into(f"{order}3f", header, 40, 0.065, 0.065, 0.125)
    struct.pack_into(f"{order}i", header, 92, len(extended))
    struct.pack_into(f"{order}h", header, 96, -16224)
    struct.pack_into(f"{order}2h", header, 180, times, interleave)
    struct.pack_into(f"{order}6h", header, 196, waves, *nm)
    pixels = b"".join(s.astype(s.dtype.newbyteorder(order)).tobytes() for s in sections)
    path.write_bytes(bytes(header) + extended + pixels)
