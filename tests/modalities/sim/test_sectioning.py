"""Optical sections: light without a pattern leaves the picture, what has one stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from livesr.base.config import RigConfig, load_rig
from livesr.base.geometry import Geometry
from livesr.live.reconstruct.reconstructor import NewerFrames
from livesr.modalities.sim.config import SIMConfig
from livesr.modalities.sim.modality import parameters_of
from livesr.modalities.sim.reconstructor import SIMReconstructor
from livesr.modalities.sim.simulation.microscope import Light, SIMMicroscope
from livesr.optics.exposure import examine
from livesr.optics.illumination import Pattern

RIG = Path(__file__).parents[3] / "hardware_configs" / "virtual_sim"
SIZE, PIXEL_UM = 96, 0.065
Float = NDArray[np.float32]


def rig_with(sectioning: bool) -> RigConfig:
    rig = load_rig(RIG)
    section = SIMConfig.of(rig)
    changed = {"sectioning": sectioning, "equalise": False}
    return rig.with_section(section.model_copy(update=changed))


def made_of(sectioning: bool, patterns: list[Pattern], **changes: object) -> SIMReconstructor:
    geometry = Geometry((SIZE, SIZE), "uint16", PIXEL_UM)
    parameters, _ = parameters_of(rig_with(sectioning), "488", geometry)
    assert parameters.sectioning is sectioning
    return SIMReconstructor(replace(parameters, offset_adu=0.0, **changes), patterns)


def patterns_at(k_um: float) -> list[Pattern]:
    turns = np.radians((14.0, 74.0, 134.0))
    return [Pattern((k_um * np.sin(a), k_um * np.cos(a)), 0.3 + a, 0.7) for a in turns]


def frames_of(scope: SIMMicroscope, points: Float, haze: Float | None) -> Float:
    light = Light(electrons=100.0, background_e=0.0)
    return scope.raw(scope.components(points, haze), light, np.random.default_rng(0))


@pytest.fixture(scope="module")
def points() -> Float:
    """Points on the object's grid, far from the tapered edges."""
    drawn = np.zeros((2 * SIZE, 2 * SIZE), np.float32)
    places = np.random.default_rng(2).integers(40, 2 * SIZE - 40, (60, 2))
    drawn[tuple(places.T)] = 30.0
    return drawn


@pytest.fixture(scope="module")
def haze() -> Float:
    """A wide spot of light without a pattern."""
    y, x = np.mgrid[: 2 * SIZE, : 2 * SIZE] - SIZE
    return np.asarray(20.0 * np.exp(-(y**2 + x**2) / (2 * 60.0**2)), np.float32)


@pytest.mark.parametrize(("k_um", "left"), [(2.84, 0.1), (3.97, 0.25), (5.1, 0.5)])
def test_light_without_a_pattern_leaves_and_points_stay(
    points: Float, haze: Float, k_um: float, left: float
) -> None:
    patterns = patterns_at(k_um)
    scope = SIMMicroscope((SIZE, SIZE), PIXEL_UM, 1.49, 0.525, patterns)
    sharp, both = frames_of(scope, points, None), frames_of(scope, points, haze)
    plain, section = made_of(False, patterns), made_of(True, patterns)
    ideal = np.array(plain.reconstruct(sharp))
    hazy, sectioned = (np.array(r.reconstruct(both)) for r in (plain, section))
    alone = np.array(section.reconstruct(both - sharp))
    middle = (slice(60, -60), slice(60, -60))
    assert abs(alone[middle].mean()) < left * (both - sharp).mean(0)[30:-30, 30:-30].mean()
    pcc = [np.corrcoef(p[middle].ravel(), ideal[middle].ravel())[0, 1] for p in (hazy, sectioned)]
    assert pcc[1] > pcc[0] + 0.05
    brightest = np.unravel_index(ideal[middle].argmax(), ideal[middle].shape)
    kept = np.array(section.reconstruct(sharp))[middle][brightest] / ideal[middle][brightest]
    assert kept == pytest.approx(1, abs=0.15)


def test_the_transfer_function_is_that_of_the_section(points: Float) -> None:
    patterns = patterns_at(3.97)
    scope = SIMMicroscope((SIZE, SIZE), PIXEL_UM, 1.49, 0.525, patterns)
    section = made_of(True, patterns, taper=0.0)
    made = np.array(section.reconstruct(frames_of(scope, points, None)))
    expected = scope.reconstruction_truth(points, section.transfer, 100.0)
    inside = (slice(30, -30), slice(30, -30))
    np.testing.assert_allclose(made[inside], expected[inside], atol=0.02 * expected.max())
    assert section.transfer[0, 0] < 0.8
    assert made_of(False, patterns).transfer[0, 0] == pytest.approx(1)


def test_updates_of_a_group_under_way_are_sections(points: Float, haze: Float) -> None:
    patterns = patterns_at(3.97)
    scope = SIMMicroscope((SIZE, SIZE), PIXEL_UM, 1.49, 0.525, patterns)
    before, now = (list(frames_of(scope, np.roll(points, n, 0), haze)) for n in (0, 2))
    rolling, whole = made_of(True, patterns), made_of(True, patterns)
    rolling.remember(before)
    rolling.reconstruct(before)
    mixed = [*now[:3], *before[3:]]
    newer = NewerFrames(mixed, before, list, lambda frames: frames, lambda f: examine(f, 0.0))
    expected = np.array(whole.reconstruct(mixed))
    np.testing.assert_allclose(rolling.update(newer), expected, atol=1e-4 * expected.max())
