"""Calibration against patterns that are known, and on real raw frames where they are at hand."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import tifffile

from livesr.base.config import load_rig
from livesr.base.errors import CalibrationError
from livesr.base.frames import CameraFrame, Stream
from livesr.base.geometry import Geometry
from livesr.evaluation.camera_frames import groups_of
from livesr.modalities.calibrator import CalibrationSettings
from livesr.modalities.sim.calibration.channel import SIMCalibrator
from livesr.modalities.sim.calibration.groups import Optics
from livesr.modalities.sim.calibration.order import detect_order, order_name
from livesr.modalities.sim.calibration.otf import Damping, damping_from_beads
from livesr.modalities.sim.calibration.patterns import FoundPattern, estimate
from livesr.modalities.sim.calibration.sim import calibrate, doubts_about
from livesr.modalities.sim.simulation.microscope import Light, SIMMicroscope
from livesr.optics.illumination import Pattern, angle_major, equal_steps
from livesr.optics.noise import SCMOSNoise

OPTICS = Optics(0.065, 1.49, 0.525, damping=0.6)
ANGLES_RAD = (0.2, 0.2 + np.pi / 3, 0.2 + 2 * np.pi / 3)
PATTERNS = [Pattern((5.1 * np.sin(a), 5.1 * np.cos(a)), 0.5 + a, 0.7) for a in ANGLES_RAD]
THREE_BEAMS = [
    Pattern((2.5 * np.sin(a), 2.5 * np.cos(a)), 0.5 + a, 0.6, ((1.0 - a, 0.4),)) for a in ANGLES_RAD
]
SHAPE = (160, 192)


def microscope(patterns=PATTERNS, phases=3, order=None):
    return SIMMicroscope(
        SHAPE,
        OPTICS.pixel_size_um,
        OPTICS.na,
        OPTICS.emission_um,
        patterns,
        phase_steps_rad=equal_steps(phases),
        order=order,
        damping=OPTICS.damping,
        margin_px=16,
    )


def filaments(shape, seed=0):
    """Crossing lines and points, on the grid of the result."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.full(shape, 0.1)
    for _ in range(60):
        angle, where = rng.uniform(0, np.pi), rng.uniform(-1, 1) * max(shape) / 2
        line = (y - shape[0] / 2) * np.cos(angle) + (x - shape[1] / 2) * np.sin(angle) - where
        image += np.exp(-0.5 * line**2)
    image[rng.integers(0, shape[0], 200), rng.integers(0, shape[1], 200)] += 30
    return image.astype(np.float32)


def raw_groups(patterns=PATTERNS, *, electrons=400.0, groups=1, phases=3, order=None, seed=0):
    """Noisy raw frames (t, n, y, x)."""
    scope = microscope(patterns, phases, order)
    seen = scope.components(filaments(scope.object_shape))
    light = Light(electrons=electrons / seen.peak(), background_e=0.02 * electrons)
    rng, camera = np.random.default_rng(seed), SCMOSNoise()
    return np.stack(
        [
            np.stack([camera.expose(f, rng) for f in scope.raw(seen, light, rng, t)])
            for t in range(groups)
        ]
    )


def assert_alike(found: Pattern, truth: Pattern, length_um=6e-3, phase_rad=0.1, modulation=0.06):
    for wave, expected in zip(found.waves, truth.waves, strict=True):
        centre = [0.5 * n * OPTICS.pixel_size_um for n in SHAPE]
        assert wave.k_um == pytest.approx(expected.k_um, abs=length_um)
        # At the frames' centre: at their corner the phase also takes the error of k.
        off = (
            wave.phase_rad
            - expected.phase_rad
            + 2 * np.pi * np.dot(np.subtract(wave.k_um, expected.k_um), centre)
        )
        assert abs(np.angle(np.exp(1j * off))) < phase_rad
        assert wave.modulation == pytest.approx(expected.modulation, abs=modulation)


def test_patterns_are_found_in_noise():
    found = estimate(raw_groups(), OPTICS, angle_major(3, 3))
    for f, truth in zip(found, PATTERNS, strict=True):
        assert_alike(f.pattern, truth)
        assert f.peak > 12
        assert f.contrast_to_noise > 10
        assert f.period_nm == pytest.approx(196.1, abs=0.5)


def test_three_beams_have_two_waves():
    raw = raw_groups(THREE_BEAMS, phases=5, electrons=800)
    found = estimate(raw, OPTICS, angle_major(3, 5), harmonics=2)
    for f, truth in zip(found, THREE_BEAMS, strict=True):
        assert_alike(f.pattern, truth, phase_rad=0.15, modulation=0.1)


def test_time_points_are_pooled_and_may_start_anywhere_on_the_chip():
    raw = raw_groups(groups=4, electrons=60)
    origin = (40.0, 24.0)
    whole = estimate(raw, OPTICS, angle_major(3, 3))
    part = estimate(raw[:, :, 40:, 24:], OPTICS, angle_major(3, 3), origin_px=origin)
    one = estimate(raw[:1], OPTICS, angle_major(3, 3))
    for w, p, o in zip(whole, part, one, strict=True):
        assert p.pattern.k_um == pytest.approx(w.pattern.k_um, abs=0.01)
        assert abs(np.angle(np.exp(1j * (p.pattern.phase_rad - w.pattern.phase_rad)))) < 0.5
        assert w.contrast_to_noise > 1.5 * o.contrast_to_noise


def test_no_pattern_is_found_where_there_is_none():
    even = [Pattern(p.k_um, p.phase_rad, 0.0) for p in PATTERNS]
    for raw in (raw_groups(even), raw_groups(electrons=1.0)):
        with pytest.raises(CalibrationError, match="No pattern"):
            estimate(raw, OPTICS, angle_major(3, 3))
        with pytest.raises(CalibrationError, match="directions"):
            detect_order(raw, OPTICS)


@pytest.mark.parametrize(
    "order",
    [
        pytest.param(angle_major(3, 3), marks=pytest.mark.slow),
        pytest.param([(a, p) for p in range(3) for a in range(3)], marks=pytest.mark.slow),
        [(0, 0), (1, 0), (0, 1), (1, 1), (2, 0), (2, 1), (1, 2), (2, 2), (0, 2)],
        pytest.param([*angle_major(3, 3)[1:], (0, 0)], marks=pytest.mark.slow),
    ],
    ids=["angle-major", "phase-major", "mixed", "rotated"],
)
def test_any_order_is_detected(order):
    raw = raw_groups(order=order)
    found = detect_order(raw, OPTICS)
    result = calibrate(raw, OPTICS, fit_damping=False)
    assert result.order == found
    # Names of angles and phases, and with them the sign of k, are free: the light of every raw
    # frame is not.
    for (a, p), (angle, phase) in zip(found, order, strict=True):
        seen = result.patterns[a].stepped(2 * np.pi * p / 3)
        truth = PATTERNS[angle].stepped(2 * np.pi * phase / 3)
        seen = seen if np.dot(seen.k_um, truth.k_um) > 0 else seen.reversed()
        assert_alike(seen, truth)


def test_named_orders_have_their_name():
    assert order_name(angle_major(3, 5)) == "angle-major"
    assert order_name([(a, p) for p in range(3) for a in range(2)]) == "phase-major"
    assert order_name([(0, 1), (0, 0), (0, 2)]) == [(0, 1), (0, 0), (0, 2)]


def test_the_otf_is_found_without_beads():
    guess = Optics(OPTICS.pixel_size_um, OPTICS.na, OPTICS.emission_um)
    result = calibrate(raw_groups(groups=3), guess, order=angle_major(3, 3))
    assert result.damping is not None
    assert result.damping.value == pytest.approx(OPTICS.damping, abs=0.08)
    assert result.doubts == []
    for f, truth in zip(result.found, PATTERNS, strict=True):
        assert_alike(f.pattern, truth)


def test_the_otf_is_found_from_beads():
    scope = microscope()
    image = np.zeros(scope.object_shape, np.float32)
    rng = np.random.default_rng(0)
    image[rng.integers(0, image.shape[0], 900), rng.integers(0, image.shape[1], 900)] = 1000
    seen = scope.components(image).widefield
    frame = rng.poisson(np.maximum(500 * seen / seen.max(), 0)).astype(float)
    found = damping_from_beads(frame, OPTICS)
    assert found.value == pytest.approx(OPTICS.damping, abs=0.12)
    with pytest.raises(CalibrationError, match="too large"):
        damping_from_beads(frame, OPTICS, bead_um=0.5)


def test_doubts_are_said():
    tilted = [PATTERNS[0], PATTERNS[1], Pattern((-2.6, 3.4), 0.3, 0.15)]
    result = calibrate(
        raw_groups(tilted, groups=2), OPTICS, order=angle_major(3, 3), fit_damping=False
    )
    assert any("periods differ" in d for d in result.doubts)
    assert any("Modulation of angle 2" in d for d in result.doubts)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (np.full((1, 9, 16, 64), 200, np.uint16), "expected"),
        (np.full((1, 9, 64, 64), 90, np.uint16), "offset"),
        (np.full((1, 8, 64, 64), 200, np.uint16), "8 raw frames"),
    ],
)
def test_unusable_frames_are_refused(raw, message):
    with pytest.raises(CalibrationError, match=message):
        detect_order(raw, OPTICS)


# -- the reason is the true one --------------------------------------------------------------------


def exposed(electrons, seed=0):
    """One noisy raw group of expected light."""
    rng, camera = np.random.default_rng(seed), SCMOSNoise()
    return np.stack([camera.expose(f.astype(np.float32), rng) for f in electrons])[None]


def expected_light(patterns, phases=3, image=None, electrons=600.0):
    """What the frames of a group would show without noise, (n, y, x), in photo-electrons."""
    scope = microscope(patterns, phases)
    seen = scope.components(filaments(scope.object_shape) if image is None else image)
    light = Light(electrons=electrons / seen.peak(), background_e=0.02 * electrons)
    return np.asarray(scope.raw(seen, light, np.random.default_rng(0), 0), np.float64)


@pytest.fixture(scope="module")
def good():
    return raw_groups(groups=2)


def refusal(raw, optics=OPTICS, **how):
    with pytest.raises(CalibrationError) as e:
        calibrate(raw, optics, **{"order": angle_major(3, 3), "fit_damping": False, **how})
    return str(e.value)


@pytest.mark.parametrize(
    "which", [(0, 1, 1), *(pytest.param(w, marks=pytest.mark.slow) for w in ((0, 1, 0), (2, 2, 2)))]
)
def test_angles_in_one_direction_are_refused(which):
    raw = raw_groups([PATTERNS[i] for i in which])
    said = refusal(raw)
    assert "show one direction" in said
    assert "light" not in said
    assert "Check the number of angles" in refusal(raw, order=None) or "one direction" in refusal(
        raw, order=None
    )


def test_planes_after_angles_are_recognised():
    first, later = raw_groups([PATTERNS[0]] * 3, groups=2), raw_groups([PATTERNS[1]] * 3, groups=2)
    raw = np.concatenate([first, later])
    for order in (angle_major(3, 3), None):
        said = refusal(raw, order=order)
        assert "all planes of an angle before the next angle" in said
        assert "time point 2" in said


def test_hexagonal_frames_are_no_single_angle():
    parts = expected_light(PATTERNS, 7).reshape(3, 7, *SHAPE)
    turned = [
        sum(parts[a, (step * p) % 7] for a, step in enumerate((1, 2, 4))) / 3 for p in range(7)
    ]
    said = refusal(exposed(turned), angles=1, order=angle_major(1, 7))
    assert "1 angle" in said
    assert "waves: lattice" in said, "livesr reconstructs them"
    one = calibrate(exposed(expected_light(PATTERNS[:1], 7)), OPTICS, angles=1, fit_damping=False)
    assert len(one.found) == 1


def test_lines_of_the_specimen_are_not_taken_for_a_pattern():
    k = np.array(PATTERNS[0].k_um)
    scope = microscope()
    y, x = np.mgrid[: scope.object_shape[0], : scope.object_shape[1]] * (OPTICS.pixel_size_um / 2)
    lines = (0.05 + np.exp(6 * (np.cos(2 * np.pi * (k[0] * y + k[1] * x)) - 1))).astype(np.float32)
    said = refusal(exposed(expected_light(PATTERNS, image=lines, electrons=2000.0)))
    assert "lines of the specimen" in said


@pytest.mark.parametrize(
    ("pixel_um", "expected"),
    [
        (0.65, "show none below 1300 nm"),
        (0.0065, "periods|hold only"),
        (0.045, "at 1.\\d+ of the cutoff"),
    ],
)
def test_a_wrong_pixel_size_is_said(good, pixel_um, expected):
    wrong = Optics(pixel_um, OPTICS.na, OPTICS.emission_um)
    for order in (angle_major(3, 3), None):
        said = refusal(good, wrong, order=order)
        assert re.search(expected, said), said
        assert "pixel" in said
        assert "more time points or light" not in said


def test_a_pixel_size_that_is_a_little_too_small_is_a_doubt():
    raw = raw_groups(
        [Pattern((4.2 * np.sin(a), 4.2 * np.cos(a)), 0.5 + a, 0.7) for a in ANGLES_RAD],
        electrons=1000.0,
    )
    found = calibrate(
        raw, Optics(0.05, OPTICS.na, OPTICS.emission_um), order=angle_major(3, 3), fit_damping=False
    )
    assert any("detail finer than the 176 nm" in doubt for doubt in found.doubts)


@pytest.mark.parametrize("k_um", [1.9, 2.4])
def test_a_period_outside_the_search_is_said(k_um):
    coarse = [Pattern((k_um * np.sin(a), k_um * np.cos(a)), 0.5 + a, 0.7) for a in ANGLES_RAD]
    raw = raw_groups(coarse)
    for order in (angle_major(3, 3), None):
        said = refusal(raw, order=order)
        period = float(re.search(r"period of (\d+) nm", said).group(1))
        assert period == pytest.approx(1e3 / k_um, rel=0.02)
        assert "Check pixel size" in said
        assert "light" not in said


def test_too_little_light_and_nothing_else_is_called_that():
    even = [Pattern(p.k_um, p.phase_rad, 0.0) for p in PATTERNS]
    for raw in (raw_groups(even), raw_groups(electrons=1.0)):
        said = refusal(raw)
        assert "Give more time points or light" in said
        assert "No pattern is found in angle" in said


def test_saturated_frames_are_not_calibrated_from(good):
    bright = raw_groups(electrons=4000)
    ceiling = int(np.percentile(bright, 85))
    said = refusal(np.minimum(bright, ceiling))
    assert f"at {ceiling}" in said
    assert "expose less" in said
    little = np.minimum(bright, int(np.percentile(bright, 98)))
    found = calibrate(little, OPTICS, order=angle_major(3, 3), fit_damping=False)
    assert any("is saturated" in doubt and "Expose less" in doubt for doubt in found.doubts)
    assert not any("more light" in doubt for doubt in found.doubts)
    hot = good.copy()
    hot[:, :, 40, 50] = 65535
    hot[:, :, 90, 20] = 65535
    found = calibrate(hot, OPTICS, order=angle_major(3, 3), fit_damping=False)
    assert found.doubts == []
    for f, truth in zip(found.found, PATTERNS, strict=True):
        assert_alike(f.pattern, truth)


def test_time_points_without_a_picture_are_left_out(good):
    spoiled = good.copy()
    spoiled[1, 4] = 0
    found = calibrate(spoiled, OPTICS, order=angle_major(3, 3), fit_damping=False)
    assert found.doubts == [
        "1 of 2 time points are left out. Time point 1: raw frame 4 is blank (every pixel is 0). "
        "Check camera, shutter and triggers."
    ]
    assert "raw frame 4 is blank" in refusal(spoiled[1:])


def test_a_given_order_that_is_not_the_frames_is_said(good):
    said = refusal(good[:, [3 * a + p for p in range(3) for a in range(3)]])
    assert "not in the order angle-major, but in the order phase-major" in said


def moving(step_px):
    """A group whose object moves by so many camera pixels from frame to frame."""
    image = filaments(microscope().object_shape)
    frames = [
        expected_light(
            PATTERNS,
            image=scipy.ndimage.shift(image, (2 * step_px * (i - 4), 0), order=1, mode="wrap"),
        )[i]
        for i in range(9)
    ]
    return exposed(frames)


@pytest.mark.parametrize("step_px", [0.75, 2.0])
def test_motion_within_a_group_is_said(step_px):
    result = calibrate(moving(step_px), OPTICS, order=angle_major(3, 3), fit_damping=False)
    said = next(doubt for doubt in result.doubts if "specimen moves" in doubt)
    moved = float(re.search(r"about (\d+) nm", said).group(1))
    assert moved == pytest.approx(6 * step_px * 65, rel=0.3)


def test_an_even_specimen_is_said():
    even = np.ones(microscope().object_shape, np.float32)
    said = refusal(exposed(expected_light(PATTERNS, image=even, electrons=1000.0)))
    assert "hardly any detail" in said
    assert "more time points or light" not in said


SURE = FoundPattern(PATTERNS[0], 20.0, 40.0, 0.05, 0.7)


@pytest.mark.parametrize(
    ("changed", "damping", "pixel_um", "said"),
    [
        ({"strongest": 1.4}, None, 0.065, "light cannot have more than 1"),
        ({"contrast_to_noise": 0.9}, None, 0.065, "only 0.9 times its noise"),
        ({"phase_spread_rad": 0.6}, None, 0.065, "the sample or the pattern moves"),
        (
            {"pattern": replace(PATTERNS[0], modulation=0.1)},
            None,
            0.065,
            "check polarisation and focus",
        ),
        ({"pattern": replace(PATTERNS[0], k_um=(3.0, 2.0))}, None, 0.065, "periods differ"),
        ({}, Damping(0.4, 0.5), 0.065, "calibrate with more light"),
        ({}, Damping(0.1, 0.5), 0.065, "less fine detail than these optics pass"),
        ({}, Damping(0.4, 0.5), 0.13, "Pixels of 130 nm are larger"),
        ({}, Damping(0.4, 0.05), 0.065, ""),
    ],
)
def test_a_doubt_is_said_for_its_own_cause_alone(changed, damping, pixel_um, said):
    found = [SURE, replace(SURE, **changed), SURE]
    doubts = doubts_about(found, damping, replace(OPTICS, pixel_size_um=pixel_um))
    assert len(doubts) == bool(said)
    assert all(said in doubt for doubt in doubts)


@pytest.mark.parametrize("kind", ["8 bit", "float", "negative"])
def test_other_pixels_give_the_same(good, kind):
    offset = {"8 bit": 10.0, "float": 0.0, "negative": -900.0}[kind]
    raw = good[:1].astype(np.float64) - 100 + offset
    if kind == "8 bit":
        raw = np.clip(np.rint((raw - 10) * 0.2 + 10), 0, 255).astype(np.uint8)
    else:
        raw = raw.astype(np.float32 if kind == "float" else np.int16)
    found = calibrate(raw, OPTICS, order=angle_major(3, 3), fit_damping=False, offset_adu=offset)
    assert found.doubts == []
    for f, truth in zip(found.found, PATTERNS, strict=True):
        assert_alike(f.pattern, truth)


def test_values_that_are_no_numbers_are_refused(good):
    raw = good[:1].astype(np.float32)
    raw[0, 5, 3, 4] = np.nan
    assert "raw frame 5 holds values that are no numbers" in refusal(raw)


def stack_of(planes):
    """Frames of one group of every plane, in the order in which a stage gives them."""
    return [
        CameraFrame(pixels, Stream(0, "488", z), 0, raw, 0)
        for z, group in enumerate(planes)
        for raw, pixels in enumerate(group)
    ]


@pytest.mark.parametrize("sharp", [0, 2, 3])
def test_the_plane_in_focus_is_chosen(good, sharp):
    blurred = [
        np.stack([scipy.ndimage.gaussian_filter(f.astype(np.float32), s) for f in good[0]])
        for s in (1.5, 3.0, 6.0)
    ]
    rng = np.random.default_rng(0)
    planes = [rng.poisson(np.maximum(b, 0)).astype(np.uint16) for b in blurred]
    planes.insert(sharp, good[0])
    rig = load_rig("virtual_sim").with_engine("none")
    camera = Geometry(SHAPE, "uint16", OPTICS.pixel_size_um)
    frames = stack_of(planes)
    calibrator = SIMCalibrator(rig)
    z = calibrator.plane_in_focus(frames, "488", camera, 4)
    assert z == sharp
    np.testing.assert_array_equal(groups_of(frames, "488", 9, 5, z), good[:1])
    settings = CalibrationSettings(keep_order=True, keep_otf=True, plane=(z, 4))
    found = calibrator.calibrate("488", camera, good[:1], settings)
    assert (
        f"Plane {sharp} of 4 is used: it shows the patterns most strongly."
        in found.report()["warnings"]
    )


def test_good_stacks_have_no_doubts():
    guess = Optics(OPTICS.pixel_size_um, OPTICS.na, OPTICS.emission_um)
    for seed, electrons in enumerate((100.0, 300.0, 1000.0)):
        patterns = [Pattern(p.k_um, p.phase_rad + seed, p.modulation) for p in PATTERNS]
        assert (
            calibrate(raw_groups(patterns, electrons=electrons, groups=2, seed=seed), guess).doubts
            == []
        )


# -- real data -------------------------------------------------------------------------------------


def stack(folder: Path, name: str, n: int):
    raw = tifffile.imread(folder / "sim_raw" / name)
    return raw.reshape(-1, n, *raw.shape[-2:])


def test_real_er(microscope_data: Path):
    result = calibrate(stack(microscope_data, "er_t3_9x112x512.tif", 9), Optics(0.065, 1.49, 0.525))
    assert order_name(result.order) == "angle-major"
    assert result.doubts == []
    directions = [f.direction_deg for f in result.found]
    assert directions == pytest.approx([-177.7, 122.3, 62.3], abs=0.3)
    lengths = [np.hypot(*f.pattern.k_um) * 0.065 for f in result.found]
    assert lengths == pytest.approx([0.371, 0.371, 0.371], abs=1e-3)
    # Under total reflection all three directions were polarised alike: one modulation.
    assert np.ptp([f.pattern.modulation for f in result.found]) < 0.03


def test_real_beads_in_any_order(microscope_data: Path):
    raw = stack(microscope_data, "beads_9x512x512.tif", 9)[:, :, 100:356, 100:356]
    shuffled = [4, 5, 2, 6, 3, 8, 7, 0, 1]
    expected = [(0, 0), (0, 1), (1, 0), (2, 0), (0, 2), (2, 1), (2, 2), (1, 1), (1, 2)]
    optics = Optics(0.0867, 1.49, 0.515)
    assert order_name(detect_order(raw, optics)) == "angle-major"
    assert detect_order(raw[:, shuffled], optics) == expected


def test_real_microtubules_are_found_at_high_light_and_refused_at_low(microscope_data: Path):
    optics = Optics(
        0.03, 1.3, 2 * 1.3 / 4.5
    )  # no pixel size is known: the cutoff is read off at 0.135 cycles/pixel
    high = calibrate(
        stack(microscope_data, "mt_highlight_15x256x256.tif", 15),
        optics,
        harmonics=2,
        offset_adu=90,
        fit_damping=False,
    )
    assert order_name(high.order) == "angle-major"
    assert [f.direction_deg for f in high.found] == pytest.approx([14.0, -45.5, 74.3], abs=1)
    low = stack(microscope_data, "mt_lowlight_15x256x256.tif", 15)
    with pytest.raises(CalibrationError):
        calibrate(low, optics, harmonics=2, offset_adu=90)
