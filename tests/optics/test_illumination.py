import numpy as np
import pytest

from livesr.optics.illumination import Pattern
from pattern_light import illumination

PATTERN = Pattern(k_um=(3.1, -4.2), phase_rad=0.7, modulation=0.6)
PIXEL_UM = 0.065


def test_phase_steps_of_one_turn_add_up_to_uniform_light():
    steps = [illumination((32, 32), PIXEL_UM, PATTERN, 2 * np.pi * j / 5) for j in range(5)]
    np.testing.assert_allclose(np.mean(steps, axis=0), 1, atol=1e-6)


def test_region_of_interest_sees_the_same_light():
    chip = illumination((300, 400), PIXEL_UM, PATTERN, 1.1)
    roi = illumination((64, 80), PIXEL_UM, PATTERN, 1.1, origin_px=(217, 133))
    np.testing.assert_allclose(roi, chip[217:281, 133:213], atol=1e-5)


def test_finer_grid_agrees_on_shared_points():
    camera = illumination((32, 32), PIXEL_UM, PATTERN, origin_px=(5, 9))
    fine = illumination((64, 64), PIXEL_UM / 2, PATTERN, origin_px=(10, 18))
    np.testing.assert_allclose(fine[::2, ::2], camera, atol=1e-5)


def test_one_pixel_turns_the_phase_by_k_times_pixel():
    moved = PATTERN.seen_from((1, 0), PIXEL_UM)
    assert moved.phase_rad - PATTERN.phase_rad == pytest.approx(2 * np.pi * 3.1 * PIXEL_UM)
    assert (moved.k_um, moved.modulation) == (PATTERN.k_um, PATTERN.modulation)


def test_pattern_is_a_value():
    assert Pattern((1.0, 2.0), 0.1, 0.5) == Pattern((1.0, 2.0), 0.1, 0.5)
    with pytest.raises(AttributeError):
        PATTERN.phase_rad = 0.0
