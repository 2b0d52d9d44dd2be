"""Pictures of a group under way: those of the same exposures, at the cost of what is new."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from livesr.base.config import RigConfig, load_rig
from livesr.base.errors import ConfigError
from livesr.base.geometry import Geometry
from livesr.live.reconstruct.reconstructor import DoubtfulFrameError, NewerFrames
from livesr.modalities.sim.config import SIMConfig
from livesr.modalities.sim.modality import parameters_of
from livesr.modalities.sim.quality import QualityLimits
from livesr.modalities.sim.reconstructor import SIMReconstructor
from livesr.modalities.sim.simulation.rig import RawBank
from livesr.optics.exposure import examine

RIG = Path(__file__).parents[3] / "hardware_configs" / "virtual_sim"
SIZE = 128
JUDGED = QualityLimits()
ANGLES, FRAMES = (3, 6), (1, 2, 3, 4, 5, 6, 7, 8)


@pytest.fixture(scope="module")
def rig() -> RigConfig:
    return load_rig(RIG)


@pytest.fixture(scope="module")
def groups(rig: RigConfig) -> list[list[NDArray[np.uint16]]]:
    """Two groups of a living cell that bleaches by a tenth in between, and one of another cell."""
    kinds = {"photons": 300.0, "bleaching": 0.1, "interval_s": 0.3}
    bank, other = (RawBank(rig, SIZE, 2, seed=seed, **kinds) for seed in (0, 1))
    return [list(group) for group in (*bank.frames, other.frames[0])]


def reconstructor(
    rig: RigConfig, limits: QualityLimits | None = JUDGED, **settings: object
) -> SIMReconstructor:
    parameters, patterns = parameters_of(rig, "488", Geometry((SIZE, SIZE), "uint16", 0.065))
    return SIMReconstructor(parameters, patterns, limits, **settings)


def newer(
    before: list[NDArray[np.uint16]], now: list[NDArray[np.uint16]], came: int
) -> NewerFrames:
    return NewerFrames(
        [*now[:came], *before[came:]],
        before,
        upload=list,
        correct=lambda frames: frames,
        examine=lambda frames: examine(frames, 100.0),
    )


@pytest.mark.parametrize("updates", [ANGLES, FRAMES, (6,), (2, 8)])
def test_an_update_is_the_picture_of_its_exposures(
    rig: RigConfig, groups: list[list[NDArray[np.uint16]]], updates: tuple[int, ...]
) -> None:
    before, now, _ = groups
    rolling, plain = reconstructor(rig), reconstructor(rig)
    rolling.remember(before)
    rolling.reconstruct(before)
    for came in updates:
        mixed = newer(before, now, came)
        update, whole = rolling.update(mixed), plain.reconstruct(mixed.frames)
        np.testing.assert_allclose(update, whole, atol=2e-6 * whole.max())
        assert rolling.quality
        assert rolling.quality.patterns
        assert plain.quality
        assert plain.quality.patterns is not None
        assert rolling.quality.patterns[:3] == pytest.approx(plain.quality.patterns[:3], rel=1e-4)


def test_whole_groups_are_the_same_bit_for_bit(
    rig: RigConfig, groups: list[list[NDArray[np.uint16]]]
) -> None:
    before, now, _ = groups
    rolling, plain = reconstructor(rig, follow=True), reconstructor(rig, follow=True)
    rolling.remember(before)
    np.testing.assert_array_equal(rolling.reconstruct(before), plain.reconstruct(before))
    for came in ANGLES:
        rolling.update(newer(before, now, came))
    rolling.remember(now)
    np.testing.assert_array_equal(rolling.reconstruct(now), plain.reconstruct(now))
    assert rolling.quality == plain.quality


def test_an_update_of_another_stream_begins_with_its_own_group(
    rig: RigConfig, groups: list[list[NDArray[np.uint16]]]
) -> None:
    before, now, other = groups
    rolling, plain = reconstructor(rig), reconstructor(rig)
    rolling.remember(other)
    rolling.reconstruct(other)
    mixed = newer(before, now, 3)
    np.testing.assert_allclose(
        rolling.update(mixed), plain.reconstruct(mixed.frames), rtol=0, atol=0.01
    )


def test_without_equalising_an_update_keeps_the_brightness_of_each_exposure(
    rig: RigConfig, groups: list[list[NDArray[np.uint16]]]
) -> None:
    section = SIMConfig.of(rig).model_copy(update={"equalise": False})
    before, now, _ = groups
    rolling, plain = (reconstructor(rig.with_section(section), None) for _ in range(2))
    rolling.remember(before)
    rolling.reconstruct(before)
    mixed = newer(before, now, 6)
    np.testing.assert_allclose(
        rolling.update(mixed), plain.reconstruct(mixed.frames), rtol=0, atol=0.01
    )


def test_motion_is_measured_between_the_exposures_that_take_each_others_place(
    rig: RigConfig, groups: list[list[NDArray[np.uint16]]]
) -> None:
    before, now, _ = groups
    moved = [np.roll(frame, 2, axis=1) for frame in before]  # the patterns move with it, bands not
    rolling = reconstructor(rig, QualityLimits(then="reconstruct"))
    rolling.remember(before)
    rolling.reconstruct(before)
    rolling.update(newer(before, moved, 3))
    assert rolling.quality
    assert rolling.quality.patterns
    assert rolling.quality.patterns.motion_nm == pytest.approx(130, abs=30)
    rolling = reconstructor(rig)
    rolling.remember(before)
    rolling.reconstruct(before)
    rolling.update(newer(before, now, 3))
    assert rolling.quality
    assert rolling.quality.patterns
    assert (rolling.quality.patterns.motion_nm or 0) < 40


def test_doubtful_exposures_make_no_update(
    rig: RigConfig, groups: list[list[NDArray[np.uint16]]]
) -> None:
    before, now, _ = groups
    rolling = reconstructor(rig)
    rolling.remember(before)
    rolling.reconstruct(before)
    black = [*now[:4], np.zeros_like(now[4]), *now[5:]]
    for came in ANGLES[1:] * 2:  # it stays doubtful
        with pytest.raises(DoubtfulFrameError, match=r"raw frame 4|frame 4"):
            rolling.update(newer(before, black, came))
    rolling.remember(black)
    rolling.reconstruct(black)
    with pytest.raises(DoubtfulFrameError, match="the group before is doubtful"):
        rolling.update(newer(black, now, 3))


def test_updates_follow_the_order_of_the_exposures(rig: RigConfig) -> None:
    def updates(**changes: object) -> tuple[int, ...]:
        section = SIMConfig.of(rig)
        return SIMConfig.model_validate({**section.model_dump(), **changes}).updates

    assert updates() == ()
    assert updates(update="angle") == ANGLES
    assert updates(update="frame") == FRAMES
    assert updates(update="frame", order="phase-major") == FRAMES
    with pytest.raises(ValueError, match="update: frame"):
        updates(update="angle", order="phase-major")


def test_a_superposition_has_no_updates(tmp_path: Path) -> None:
    text = (RIG / "rig.yaml").read_text(encoding="utf-8")
    text = text.replace("\nsim:\n", "\nsim:\n  update: angle\n")
    lines = text.split("\nchannels:\n")[0] + "\nchannels:\n"
    for name in ("ER", "MT"):
        lines += f"  {name}: {{reconstruct: sim}}\n"
    lines += "superpose: {channels: [ER, MT]}\n"
    (tmp_path / "rig.yaml").write_text(lines, encoding="utf-8")
    (tmp_path / "rig.cfg").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"Leave update at group\.$"):
        load_rig(tmp_path)
