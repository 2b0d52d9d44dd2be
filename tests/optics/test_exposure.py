"""Raw frames that hold no picture, or a clipped one, are named.

Noise, hot pixels and little light are no fault.
"""

from __future__ import annotations

import numpy as np
import pytest

from livesr.optics.exposure import examine, floor_clipped, saturation, without_picture
from livesr.optics.raw_quality import BELOW_OFFSET, exposure_doubt

SHAPE = (96, 80)


def group(
    photons: float = 300.0, dtype: str = "uint16", offset: float = 100.0, seed: int = 0
) -> np.ndarray:
    """Nine frames of a picture under a pattern that moves, with shot and read noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    light = np.exp(-(((y - 50) / 20.0) ** 2)) + 0.05
    frames = [photons * light * (1 + 0.7 * np.cos(2 * x + y + 2.1 * i)) for i in range(9)]
    seen = rng.poisson(np.stack(frames)) + rng.normal(0, 1.6, (9, *SHAPE)) + offset
    top = 255 if dtype == "uint8" else 65535
    return np.clip(np.rint(seen), -1000 if "float" in dtype else 0, top).astype(dtype)


def said(frames: np.ndarray, offset: float = 100.0, ceiling: float | None = None) -> str:
    exposures = examine(frames, offset, ceiling)
    faults = exposures.faults()
    return without_picture(faults) or saturation(faults, exposures.ceiling)


@pytest.mark.parametrize("photons", [2.0, 10.0, 100.0, 1000.0])
@pytest.mark.parametrize(
    ("dtype", "offset"), [("uint16", 100.0), ("uint8", 10.0), ("uint8", 0.0), ("float32", 0.0)]
)
def test_good_frames_have_no_fault(photons: float, dtype: str, offset: float) -> None:
    if dtype == "uint8":
        photons = min(photons, 60.0)
    frames = group(photons, dtype, offset)
    assert said(frames, offset) == ""
    assert examine(frames, offset).saturated == 0


FAULTS = {
    "zeros": (lambda f: f[8].fill(0), "raw frame 8 is blank (every pixel is 0)"),
    "several": (
        lambda f: f[[0, 3, 4, 5]].fill(0) or f.__setitem__([0, 3, 4, 5], 0),
        "raw frames 0, 3 to 5 are blank",
    ),
    "constant": (lambda f: f[2].fill(777), "raw frame 2 is blank (every pixel is 777)"),
    "ceiling": (lambda f: f[2].fill(65535), "raw frame 2 is blank (every pixel is 65535)"),
    "rows": (lambda f: f[3, 40:60].fill(0), "raw frame 3 lacks a part (21%"),
    "columns": (lambda f: f[3, :, 20:].fill(0), "raw frame 3 lacks a part"),
    "twice": (lambda f: f.__setitem__(5, f[4]), "raw frame 5 repeats raw frame 4"),
    "shutter": (
        lambda f: f.__setitem__(6, np.minimum(f[0], 100 + f[0] % 3)),
        "raw frame 6 is dark",
    ),
    "all": (lambda f: f.fill(0), "raw frames 0 to 8 are blank"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_frame_without_a_picture_is_named(fault: str) -> None:
    frames = group()
    change, expected = FAULTS[fault]
    change(frames)
    assert expected in said(frames)


@pytest.mark.parametrize(("offset", "named"), [(103.0, False), (1500.0, True), (40_000.0, True)])
def test_an_offset_above_all_light_is_named(offset: float, named: bool) -> None:
    """A key of rig.yaml, and no shutter; a camera's dark level wanders by a few ADU."""
    doubt = exposure_doubt(examine(group(photons=0.2), offset))
    assert doubt.cause == (BELOW_OFFSET if named else "")
    assert ("raw frames 0 to 8 are darker than a frame without light" in doubt.sentence) == named


def test_values_that_are_no_numbers_are_named() -> None:
    frames = group(dtype="float32", offset=0.0)
    frames[2, 3, 4] = np.nan
    assert said(frames, 0.0) == "raw frame 2 holds values that are no numbers"


@pytest.mark.parametrize("ceiling", [None, 4095.0, 65535.0])
def test_a_ceiling_is_seen_whether_it_is_known_or_not(ceiling: float | None) -> None:
    frames = group(1500)
    frames[4] = np.minimum(100 + 4 * (frames[4].astype(int) - 100), 65535)
    frames = np.minimum(frames, 4095)
    exposures = examine(frames, 100.0, ceiling)
    assert exposures.ceiling == 4095
    assert exposures.saturated == np.count_nonzero(frames == 4095)
    assert exposures.clipped
    assert said(frames, ceiling=ceiling).startswith("raw frame 4 is saturated (")
    assert said(np.minimum(group(1500), 1500)).startswith("raw frame")


@pytest.mark.parametrize("value", [4095, 65535])
def test_hot_pixels_are_no_fault(value: int) -> None:
    frames = group()
    frames[:, 20, 30:33] = value
    exposures = examine(frames, 100.0, value)
    assert (exposures.faults(), exposures.clipped, exposures.saturated) == ([], False, 27)


def blinking(background: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:48, :48]
    light = np.full((10, 48, 48), background)
    for frame in light:
        for cy, cx in rng.uniform(0, 48, (6, 2)):
            frame += 60 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 3.4)
    return rng.poisson(light)


@pytest.mark.parametrize("background", [4.0, 20.0, 100.0])
def test_a_background_that_was_cut_off_is_seen(background: float) -> None:
    seen = blinking(background)
    assert floor_clipped((seen + 100).astype(np.uint16)) == 0
    assert floor_clipped(np.maximum(seen - background, 0).astype(np.uint16)) > 0.4
    assert floor_clipped(np.maximum(seen - background, 0).astype(np.float32)) > 0.4


@pytest.mark.parametrize("background", [0.2, 0.5, 1.0, 3.0])
def test_light_that_is_counted_one_by_one_is_not_cut_off(background: float) -> None:
    assert floor_clipped(blinking(background).astype(np.uint16)) == 0


@pytest.mark.parametrize("amplitude", [60, 200, 484])
def test_the_crest_of_a_wave_without_noise_is_no_ceiling(amplitude: int) -> None:
    y, x = np.mgrid[:128, :128]
    waves = [
        (100 + amplitude * (1 + np.sin(0.1 * x + 0.02 * y + k)) / 2).astype(np.uint16)
        for k in range(3)
    ]
    assert examine(waves, 100.0).saturated == 0


@pytest.mark.parametrize("ceiling", [1023, 3000, 4095])
def test_a_ceiling_that_cuts_noisy_light_off_is_one(ceiling: int) -> None:
    rng = np.random.default_rng(ceiling)
    light = 0.2 * ceiling * rng.gamma(1.5, 1.0, (3, 128, 128))
    frames = np.minimum(rng.poisson(light), ceiling).astype(np.uint16)
    found = examine(list(frames), 0.0)
    assert found.ceiling == ceiling
    assert found.saturated == np.count_nonzero(frames == ceiling)


@pytest.mark.parametrize("strange", ["noise", "nearly constant", "random"])
def test_a_frame_of_something_else_is_named(strange: str) -> None:
    rng = np.random.default_rng(3)
    frames = list(group())
    mean = float(frames[4].mean())
    replaced = {
        "noise": rng.poisson(mean, SHAPE),
        "nearly constant": np.pad(
            [[int(mean) + 1]], ((0, SHAPE[0] - 1), (0, SHAPE[1] - 1)), constant_values=int(mean)
        ),
        "random": rng.integers(0, 2 * int(mean), SHAPE),
    }[strange]
    frames[4] = replaced.astype(np.uint16)
    found = [f for f in examine(frames, 100.0).faults() if f.raw == 4]
    assert [f.kind for f in found] == ["another picture"]
    assert "raw frame 4 shows another picture than the others" in without_picture(found)


@pytest.mark.parametrize("rows", [slice(0, 40), slice(40, None)])
def test_a_frame_with_rows_of_another_is_torn(rows: slice) -> None:
    frames = group()
    frames[5, rows] = frames[4, rows]
    share = 42 if rows.start == 0 else 58
    assert (
        said(frames) == f"raw frame 5 is torn ({share}% of its rows are those of another raw frame)"
    )


def test_rows_without_light_are_in_every_frame() -> None:
    frames = group()
    frames[:, :40] = 100
    assert "torn" not in said(frames)


@pytest.mark.parametrize("share", [0.02, 0.05, 0.2])
def test_a_frame_that_is_cut_off_alone_is_saturated(share: float) -> None:
    frames = group()
    ceiling = np.quantile(frames[4], 1 - share).astype(frames.dtype)
    frames[4] = np.minimum(frames[4], ceiling)
    assert said(frames, ceiling=65535).startswith("raw frame 4 is saturated")
    assert examine(frames, 100.0, 65535).ceiling == ceiling
