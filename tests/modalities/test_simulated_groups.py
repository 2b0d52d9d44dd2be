"""A modality shows raw groups of a specimen as the camera of a rig would."""

from __future__ import annotations

import numpy as np
import pytest

from livesr.base.config import load_rig
from livesr.base.errors import ConfigError
from livesr.modalities.registry import modality
from livesr.modalities.storm.config import STORMConfig


@pytest.mark.parametrize("name", ["virtual_sim", "virtual_storm"])
def test_groups_are_those_of_the_rig(name: str) -> None:
    rig = load_rig(name)
    rig = rig.with_section(STORMConfig.of(rig).model_copy(update={"frames": 5}))
    groups = modality(rig.modality).simulate(rig, 64, 2)
    channel = next(iter(rig.channels))
    assert groups.shape == (2, rig.raw_frames(channel), 64, 64)
    assert groups.dtype == np.uint16
    assert groups.mean() > rig.camera.offset_adu + 5
    assert (groups[0] != groups[1]).any()
    np.testing.assert_array_equal(groups, modality(rig.modality).simulate(rig, 64, 2))


def test_what_cannot_be_simulated_says_so() -> None:
    rig = load_rig("demo")
    with pytest.raises(ConfigError, match="widefield cannot be simulated"):
        modality(rig.modality).simulate(rig, 64, 2)
