"""What camera and illumination add is taken out of raw frames.

What cannot work is one sentence before a device moves.
"""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livesr.base.config import RigConfig, load_rig
from livesr.base.errors import ConfigError, FrameShapeError
from livesr.base.geometry import Geometry
from livesr.live.correct import build_correction, check_maps
from livesr.live.paths import build_path
from livesr.modalities.sim.config import QualityLimitsConfig, SIMConfig
from rig_copies import rig_with

CHIP = (48, 64)


def camera_maps(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: CHIP[0], : CHIP[1]] / max(CHIP)
    flat = 1.2 - (y - 0.4) ** 2 - (x - 0.5) ** 2
    bad = np.zeros(CHIP, np.uint8)
    bad[[0, 5, 6, 20, -1], [0, 7, 7, 31, -1]] = 1
    return {
        "offset": rng.normal(100, 3, CHIP).astype(np.float32),
        "dark": rng.uniform(0, 2, CHIP).astype(np.float32),
        "gain": rng.normal(0.5, 0.01, CHIP).astype(np.float32),
        "flat": (flat / flat.mean()).astype(np.float32),
        "background": rng.uniform(10, 12, CHIP).astype(np.float32),
        "bad": bad,
    }


ALL = {
    "offset": "offset.tif",
    "dark": "dark.tif",
    "gain": "gain.tif",
    "flat": {"488": "flat.tif"},
    "background": {"488": "background.tif"},
    "bad_pixels": "bad.tif",
}


def seen_by_camera(scene: np.ndarray, maps: dict[str, np.ndarray]) -> np.ndarray:
    """The inverse of the correction, rounded as a camera rounds."""
    relative = maps["gain"] / np.median(maps["gain"])
    frame = (scene * maps["flat"] + maps["background"]) / relative + maps["offset"] + maps["dark"]
    frame = np.rint(frame).astype(np.uint16)
    frame[maps["bad"] > 0] = 60000
    return frame


def test_a_scene_is_seen_as_it_is(tmp_path: Path) -> None:
    maps = camera_maps()
    y, x = np.mgrid[: CHIP[0], : CHIP[1]]
    scene = 500 + 4 * y + 3 * x
    correction, left = build_correction(rig_with(tmp_path, maps=maps, **ALL), "488", CHIP)
    assert correction is not None
    seen = correction.apply([seen_by_camera(scene, maps)])[0]
    assert left == 0
    good = maps["bad"] == 0
    # Half an ADU of rounding, divided by the flat.
    assert np.abs(seen - scene)[good].max() < 0.5 / 0.5
    # On a slope the median of all neighbours of a lone pixel is its own value.
    assert abs(seen[20, 31] - scene[20, 31]) < 1.0
    assert np.abs(seen - scene).max() < 8


def test_a_region_takes_its_part_of_the_maps(tmp_path: Path) -> None:
    maps = camera_maps()
    rig = rig_with(tmp_path, maps=maps, **ALL)
    frame = seen_by_camera(np.full(CHIP, 700.0), maps)
    whole, _ = build_correction(rig, "488", CHIP)
    part, _ = build_correction(rig, "488", (20, 30), (9.0, 25.0))
    assert whole is not None
    assert part is not None
    cut = (slice(9, 29), slice(25, 55))
    np.testing.assert_array_equal(part.apply([frame[cut]])[0], whole.apply([frame])[0][cut])


def test_channels_have_their_own_flat_and_background(tmp_path: Path) -> None:
    maps = {"a": np.full(CHIP, 2, np.float32), "b": np.full(CHIP, 4, np.float32)}
    rig = rig_with(
        tmp_path,
        maps=maps,
        flat={"488": "a.tif", "": "b.tif"},
        background={"488": 20},
        offset=100,
        dark=5,
    )
    for channel, value in (("488", (305 - 105 - 20) / 2), ("561", (305 - 105) / 4)):
        correction, _ = build_correction(rig, channel, CHIP)
        assert correction is not None
        np.testing.assert_allclose(
            correction.apply([np.full(CHIP, 305, np.uint16)])[0], value, rtol=1e-6
        )


def test_what_one_number_says_costs_nothing(tmp_path: Path) -> None:
    assert build_correction(load_rig("demo"), "488", CHIP) == (None, 100.0)
    rig = rig_with(tmp_path, offset=90, dark=2, background={"488": 8.5})
    assert build_correction(rig, "488", CHIP) == (None, 100.5)
    assert build_correction(rig, "561", CHIP) == (None, 92.0)
    assert build_path(rig, "488", Geometry(CHIP, "uint16", 0.065)).correction is None


@given(
    st.sets(st.tuples(st.integers(0, 11), st.integers(0, 14)), max_size=60),
    st.integers(0, 2**32 - 1),
)
def test_bad_pixels_become_the_median_of_the_nearest_good_ones(
    bad: set[tuple[int, int]], seed: int
) -> None:
    rig = load_rig("demo")
    pixels = [[*p] for p in sorted(bad)]
    rig = rig.model_copy(
        update={"corrections": rig.corrections.model_validate({"bad_pixels": pixels, "offset": 0})}
    )
    frame = np.random.default_rng(seed).integers(0, 5000, (12, 15), np.uint16)
    correction, _ = build_correction(rig, "488", frame.shape)
    seen = correction.apply([frame])[0] if correction else frame
    for y, x in np.ndindex(frame.shape):
        if (y, x) not in bad:
            assert seen[y, x] == frame[y, x]
            continue
        for r in range(1, 6):
            box = np.ndindex(2 * r + 1, 2 * r + 1)
            near = [(y + j - r, x + i - r) for j, i in box]
            good = [p for p in near if 0 <= p[0] < 12 and 0 <= p[1] < 15 and p not in bad]
            if good:
                assert seen[y, x] == np.float32(np.median([frame[p] for p in good]))
                break


def test_the_reconstruction_sees_corrected_frames_and_raw_counts_saturation(tmp_path: Path) -> None:
    maps = {"flat": np.full((32, 32), 2, np.float32), "bad": np.zeros((32, 32), np.uint8)}
    maps["bad"][3, 4] = 255
    rig = rig_with(
        tmp_path, "virtual_sim", maps, flat="flat.tif", bad_pixels="bad.tif"
    ).with_engine("none")
    camera = Geometry((32, 32), "uint16", 0.065)
    plain = build_path(_trusting(load_rig("virtual_sim").with_engine("none")), "488", camera)
    corrected = build_path(_trusting(rig), "488", camera)
    rng = np.random.default_rng(1)
    frames = list(rng.integers(500, 900, (9, 32, 32), np.uint16))
    halved = [np.rint((f - 100.0) / 2) + 100 for f in frames]
    assert corrected.correction is not None
    there = corrected.reconstructor.reconstruct(corrected.correction.apply(frames))
    inside = (slice(24, 64), slice(24, 64))  # away from the mended pixel
    expected = plain.reconstructor.reconstruct([f.astype(np.uint16) for f in halved])
    np.testing.assert_allclose(
        there[inside], expected[inside], atol=8
    )  # of about 300: halves are rounded
    assert corrected.memory_bytes(1) > plain.memory_bytes(1)


def _trusting(rig: RigConfig) -> RigConfig:
    """A rig whose frames are reconstructed whatever they show: noise shows no pattern."""
    limits = {"quality_limits": QualityLimitsConfig(when_doubtful="reconstruct")}
    return rig.with_section(SIMConfig.of(rig).model_copy(update=limits))


def test_nothing_is_allocated_per_frame(tmp_path: Path) -> None:
    shape = (256, 256)
    maps = {"flat": np.full(shape, 2, np.float32), "bad": np.zeros(shape, np.uint8)}
    maps["bad"][::40, ::40] = 1
    rig = rig_with(tmp_path, maps=maps, flat="flat.tif", bad_pixels="bad.tif")
    correction, _ = build_correction(rig, "488", shape, n_raw=9)
    assert correction is not None
    frames = list(np.zeros((9, *shape), np.uint16))
    correction.apply(frames)
    tracemalloc.start()
    for _ in range(5):
        correction.apply(frames)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < np.prod(shape) * 4 / 2  # numpy's casting buffer, never a frame


@pytest.mark.parametrize(
    ("maps", "corrections", "words"),
    [
        (
            {},
            {"offset": "offset.tif"},
            r"corrections\.offset names 'offset.tif', which is not beside it",
        ),
        (
            {},
            {"flat": {"48": "flat.tif"}},
            "corrections are given for channel '48'.*Did you mean '488'",
        ),
        (
            {},
            {"offset": "maps/offset.tif"},
            "corrections.offset: a map is a .tif file beside rig.yaml",
        ),
        (
            {},
            {"offset": [1]},
            r"corrections.offset: expected a number of ADU or the name of a .tif",
        ),
        ({}, {"bad_pixels": [[1, 2, 3]]}, r"corrections.bad_pixels: expected a list of \[y, x\]"),
        ({}, {"flatt": 1}, "unknown key 'corrections.flatt'. Did you mean 'flat'"),
        (
            {"offset": np.zeros((3, 8, 8), np.uint16)},
            {"offset": "offset.tif"},
            "holds 3 x 8 x 8 uint16; expected one",
        ),
        (
            {"offset": np.full((8, 8), np.nan, np.float32)},
            {"offset": "offset.tif"},
            "pixels that are no numbers",
        ),
        (
            {"flat": np.zeros((8, 8), np.float32)},
            {"flat": "flat.tif"},
            r"flat.tif is 0 at \[0, 0\]: expected about 1",
        ),
        (
            {"offset": np.ones((8, 8), np.uint16), "flat": np.ones((8, 9), np.float32)},
            {"offset": "offset.tif", "flat": "flat.tif"},
            "flat.tif is 8x9, and offset.tif is 8x8",
        ),
        (
            {"bad": np.ones((20, 20), np.uint8)},
            {"bad_pixels": "bad.tif"},
            "no good pixel within 5 pixels",
        ),
    ],
)
def test_what_cannot_work_is_one_sentence(
    tmp_path: Path, maps: dict[str, np.ndarray], corrections: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as failure:
        check_maps(rig_with(tmp_path, maps=maps, **corrections))
    assert "\n" not in str(failure.value)


def test_a_map_that_is_no_tiff(tmp_path: Path) -> None:
    rig = rig_with(tmp_path, maps={"offset": np.zeros((8, 8), np.uint16)}, offset="offset.tif")
    (rig.folder / "offset.tif").write_text("hello", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"cannot read .*offset.tif as TIFF"):
        check_maps(rig)


def test_a_region_beyond_the_map(tmp_path: Path) -> None:
    rig = rig_with(tmp_path, maps={"offset": np.zeros((8, 8), np.uint16)}, offset="offset.tif")
    with pytest.raises(
        ConfigError, match=r"offset.tif is 8x8, and the camera's region is 6x6 at \[4, 0\]"
    ):
        build_correction(rig, "488", (6, 6), (4.0, 0.0))


def test_frames_of_another_size(tmp_path: Path) -> None:
    correction, _ = build_correction(rig_with(tmp_path, bad_pixels=[[1, 1]]), "488", (8, 8))
    assert correction is not None
    with pytest.raises(FrameShapeError, match="1 frames of 8x9 came"):
        correction.apply([np.zeros((8, 9), np.uint16)])
