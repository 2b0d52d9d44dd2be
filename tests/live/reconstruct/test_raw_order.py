"""A rotated raw order is seen in the images, at any rotation and down to little light, and never
where the order is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from livesr.base.config import load_rig
from livesr.modalities.sim.config import SIMConfig
from livesr.modalities.sim.parameters import SIMParameters
from livesr.modalities.sim.raw_order import RawOrderCheck
from livesr.modalities.sim.simulation.rig import RawBank
from livesr.optics.illumination import Pattern

RIG = load_rig("virtual_sim")
SIZE = 96
# Of the real stacks, by whitened cross-correlation of their bands 0 and +1.
ER_PATTERNS = [
    Pattern((-0.22614, -5.71270), 0.591, 0.613),
    Pattern((4.81846, -3.05123), 2.012, 0.621),
    Pattern((5.05669, 2.65413), 2.780, 0.642),
]
BEAD_PATTERNS = [
    Pattern((-5.55020, -0.48740), -0.651, 0.577),
    Pattern((-3.20399, 4.45645), 0.922, 0.510),
    Pattern((2.33765, 4.94697), -0.276, 0.537),
]
ANGLE_MAJOR = [(a, p) for a in range(3) for p in range(3)]
PHASE_MAJOR = [(a, p) for p in range(3) for a in range(3)]


def check(order=ANGLE_MAJOR, patterns=None, size=(SIZE, SIZE), **options) -> RawOrderCheck:
    given = (
        [Pattern(p.k_um, p.phase_rad, p.modulation) for p in SIMConfig.of(RIG).patterns]
        if patterns is None
        else patterns
    )
    return RawOrderCheck(SIMParameters(size, 0.065, 1.49, 0.525, order=order, **options), given)


def groups(photons: float, seed: int = 0) -> np.ndarray:
    bank = RawBank(RIG, SIZE, 4, seed=seed, photons=photons, bleaching=0.002, interval_s=0.5)
    return bank.frames


def verdict(watch: RawOrderCheck, raw: np.ndarray) -> int | None:
    for group in raw:
        watch.offer(group)
    return watch.look()


@pytest.fixture(scope="module")
def bright() -> np.ndarray:
    return groups(100)


@pytest.mark.parametrize("order", [ANGLE_MAJOR, PHASE_MAJOR])
def test_every_rotation_is_found(bright: np.ndarray, order: list[tuple[int, int]]) -> None:
    as_acquired = bright[:, [ANGLE_MAJOR.index(place) for place in order]]
    found = [
        verdict(check(order), np.roll(as_acquired, -rotation, axis=1)) for rotation in range(9)
    ]
    assert found == list(range(9))


@pytest.mark.parametrize("photons", [1, 3, 30])
def test_little_light_is_no_rotation(photons: float) -> None:
    watch = check()
    said = [verdict(watch, groups(photons, seed)) for seed in range(2)]
    assert set(said) <= {None, 0}
    assert photons < 30 or said == [0, 0]


def test_light_without_a_pattern_is_no_rotation() -> None:
    rng = np.random.default_rng(0)
    watch = check()
    assert {
        verdict(watch, rng.poisson(60, (4, 9, SIZE, SIZE)).astype(np.uint16)) for _ in range(3)
    } == {None}
    assert verdict(check(), np.full((4, 9, SIZE, SIZE), 100, np.uint16)) is None


def test_phases_that_drifted_are_no_rotation(bright: np.ndarray) -> None:
    for turn in (0.6, 2.1, -2.1, np.pi):
        patterns = [
            Pattern(p.k_um, p.phase_rad + turn, p.modulation) for p in SIMConfig.of(RIG).patterns
        ]
        assert verdict(check(patterns=patterns), bright) in (None, 0)


def test_a_region_of_the_chip_keeps_its_phase(bright: np.ndarray) -> None:
    region = np.roll(bright, -4, axis=1)[:, :, 7:90, 13:92]
    assert verdict(check(size=region.shape[2:], origin_px=(7.0, 13.0)), region) == 4


def test_few_groups_are_looked_at_and_the_verdict_can_change(bright: np.ndarray) -> None:
    watch = check()
    watch.offer(bright[0])
    assert watch.look() is None
    for _ in range(100):
        watch.offer(bright[1])
    assert len(watch._kept) == 4
    assert watch.look() == 0
    turned = np.roll(bright, -2, axis=1)
    said = [verdict(watch, turned) for _ in range(36)]
    assert said[-1] == 2


def test_flicker_and_bleaching_are_no_pattern(bright: np.ndarray) -> None:
    faded = (
        bright * np.linspace(1, 0.4, 9)[:, None, None] + 100 * np.linspace(0, 0.6, 9)[:, None, None]
    ).astype(np.uint16)
    assert verdict(check(), faded) == 0


def test_real_er(microscope_data: Path) -> None:
    raw = tifffile.imread(microscope_data / "sim_raw" / "er_t3_9x112x512.tif").reshape(
        3, 9, 112, 512
    )[[0, 1, 2, 0]]
    rotations = [
        verdict(check(patterns=ER_PATTERNS, size=(112, 512)), np.roll(raw, -r, axis=1))
        for r in range(9)
    ]
    assert rotations == list(range(9))


def test_real_beads(microscope_data: Path) -> None:
    raw = tifffile.imread(microscope_data / "sim_raw" / "beads_9x512x512.tif")[None].repeat(4, 0)
    for rotation in (0, 1, 5):
        watch = RawOrderCheck(SIMParameters((512, 512), 0.0867, 1.49, 0.515), BEAD_PATTERNS)
        assert verdict(watch, np.roll(raw, -rotation, axis=1)) == rotation


def test_a_slow_look_ends_while_groups_keep_coming(
    bright: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, looked = check(), 0
    amplitudes = watch.amplitudes

    def slow(frames: np.ndarray) -> np.ndarray:
        nonlocal looked
        looked += 1
        assert looked < 20, "it looks at what comes while it looks, for ever"
        watch.offer(bright[0])
        return amplitudes(frames)

    monkeypatch.setattr(watch, "amplitudes", slow)
    assert verdict(watch, bright[:4]) == 0
