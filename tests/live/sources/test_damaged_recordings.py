"""Recordings with any bytes in them: read, or refused in a sentence.

Never a traceback, never gigabytes.
"""

from __future__ import annotations

import shutil
from contextlib import closing
from itertools import islice, product
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import examples
from livesr.base.errors import LiveSRError
from livesr.live.sources.recordings.recording import open_recording
from recordings import write_dv, write_mmstack, write_mrc, write_ndtiff

FRAMES = np.random.default_rng(0).integers(90, 900, (6, 16, 20)).astype(np.uint16)
_ODD = st.sampled_from(
    [b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4), b"\0\0\0\1", b"\0", b"\xff", b"\x80"]
)
_DAMAGE = st.lists(
    st.tuples(
        st.sampled_from(["over", "in", "out", "cut"]),
        st.integers(0, 10**6),
        _ODD | st.binary(max_size=6),
    ),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each format."""
    root = tmp_path_factory.mktemp("valid")
    for name, options in {
        "plain": {"photometric": "minisblack"},
        "imagej": {"imagej": True, "metadata": {"axes": "TYX", "unit": "um"}},
        "ome": {"ome": True, "photometric": "minisblack", "metadata": {"axes": "TYX"}},
        "deflate": {
            "photometric": "minisblack",
            "compression": "zlib",
            "predictor": True,
            "metadata": None,
        },
        "tiles": {"photometric": "minisblack", "tile": (32, 32), "metadata": None},
        "strips": {
            "photometric": "minisblack",
            "rowsperstrip": 5,
            "bigtiff": True,
            "byteorder": ">",
            "metadata": None,
        },
    }.items():
        (root / name).mkdir()
        tifffile.imwrite(
            root / name / ("a.ome.tif" if name == "ome" else "a.tif"), FRAMES, **options
        )
    for name in ("mmstack", "dv", "mrc"):
        (root / name).mkdir()
    summary = {"Frames": 6, "Channels": 1, "Slices": 1, "Positions": 1}
    write_mmstack(
        root / "mmstack" / "a_MMStack.tif",
        FRAMES,
        [(0, 0, t, 0) for t in range(6)],
        summary,
        [{}] * 6,
    )
    write_dv(root / "dv" / "a.dv", list(FRAMES), waves=2, times=3, interleave=1)
    write_mrc(root / "mrc" / "a.mrc", FRAMES)
    write_ndtiff(root / "ndtiff", FRAMES, [{"time": t} for t in range(6)])
    return root


def in_a_sentence(error: LiveSRError) -> None:
    assert 10 < len(str(error)) < 3000


@examples(150, shrink=False)
@given(which=st.integers(0, 100), near=st.booleans(), damage=_DAMAGE)
def test_any_bytes(
    valid: Path, which: int, near: bool, damage: list[tuple[str, int, bytes]]
) -> None:
    files = sorted(file for file in valid.rglob("*") if file.is_file() and "case" not in file.parts)
    file = files[which % len(files)]
    case = valid / "case"
    shutil.rmtree(case, ignore_errors=True)
    shutil.copytree(file.parent, case)
    data = bytearray(file.read_bytes())
    for how, at, some in damage:
        at %= max(min(len(data), 1400 if near else len(data)), 1)
        length = {"over": len(some), "in": 0, "out": 4 * len(some), "cut": len(data)}[how]
        data[at : at + length] = some if how in ("over", "in") else b""
    (case / file.name).write_bytes(data)
    try:
        with closing(open_recording(case if which % 2 else case / file.name)) as recording:
            for place in islice(product(*map(range, recording.lengths)), 20):
                try:
                    plane = recording.read(place)
                except LiveSRError as e:
                    in_a_sentence(e)
                else:
                    assert plane is None or (plane.pixels.shape, plane.pixels.dtype) == (
                        recording.shape,
                        recording.dtype,
                    )
    except LiveSRError as e:
        in_a_sentence(e)
