"""Recording everything of a run, 9 raw of 256 x 256 and what becomes of them, beside writing the
same bytes to a plain file.

`store.zarr` has the same images in zarr-python for reference: arrays of one chunk per picture, its
own defaults, no metadata.

A block opens a store, appends and closes it: what the operating system still holds back counts for
neither side. On most disks the plain file costs a copy into memory and nothing else, so the ratio
says what format and compression cost, not the disk.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import zarr

from livesr.bench.frames import Frames, description
from livesr.bench.result import Result, compared
from livesr.bench.timing import interleave
from livesr.live.sinks.ome_zarr import OMEZarrSink


def measure(quick: bool) -> list[Result]:
    """Return the time that one time point takes the store's thread."""
    side, n, blocks = (64, 8, 2) if quick else (256, 64, 5)
    frames = Frames(side)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        comparison = interleave(
            lambda: [_zarr(Path(folder), frames, side, n)],
            lambda: [_plain(Path(folder), frames, n)],
            blocks,
        )
        beside = interleave(
            lambda: [_zarr(Path(folder), frames, side, n)],
            lambda: [_zarr_python(Path(folder), frames, n)],
            blocks,
        )
    mib = frames.at(0).nbytes / 2**20
    return [
        compared(
            "store.append",
            comparison,
            "ms per time point",
            "np.ndarray.tofile",
            note=(
                f"{mib:.1f} MiB per time point: raw, recon and sr of {side}^2 raw frames; open and"
                " close included"
            ),
        ),
        compared(
            "store.zarr",
            beside,
            "ms per time point",
            "zarr-python",
            note="the same images, one chunk per picture",
        ),
    ]


def _zarr(folder: Path, frames: Frames, side: int, n: int) -> float:
    sink = OMEZarrSink(folder / "bench.ome.zarr", reserve_bytes=0)
    start = time.perf_counter()
    sink.open(description(side))
    for t in range(n):
        point = frames.at(t)
        sink.raw(point.raw)
        sink.recon(point.recon)
        sink.separated(point.separated)
    sink.close({})
    return (time.perf_counter() - start) / n * 1e3


def _plain(folder: Path, frames: Frames, n: int) -> float:
    path = folder / "bench.raw"
    start = time.perf_counter()
    with path.open("wb") as file:
        for t in range(n):
            for block in frames.at(t).blocks():
                block.tofile(file)
    seconds = time.perf_counter() - start
    path.unlink()
    return seconds / n * 1e3


def _zarr_python(folder: Path, frames: Frames, n: int) -> float:
    path = folder / "plain.zarr"
    start = time.perf_counter()
    group = zarr.create_group(path)
    arrays = [
        group.create_array(
            f"{i}", shape=(n, *b.shape), chunks=(1,) * (b.ndim - 1) + b.shape[-2:], dtype=b.dtype
        )
        for i, b in enumerate(frames.at(0).blocks())
    ]
    for t in range(n):
        for array, block in zip(arrays, frames.at(t).blocks(), strict=True):
            array[t] = block
    seconds = time.perf_counter() - start
    shutil.rmtree(path)
    return seconds / n * 1e3
