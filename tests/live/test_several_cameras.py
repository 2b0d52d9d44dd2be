"""Several cameras at once are refused in one sentence, in an MDA and in live mode."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pymmcore_plus import CMMCorePlus

from livesr import LiveSR
from livesr.base.errors import ConfigError
from rigs import core_of

SENTENCE = "The camera delivers 2 images at once; livesr takes one. Select a single camera"


@pytest.fixture
def two_cameras() -> Iterator[CMMCorePlus]:
    """Micro-Manager's demo camera twice, as one by its Multi Camera adapter."""
    with core_of("demo", exposure_ms=2) as core:
        core.loadDevice("Second", "DemoCamera", "DCam")
        core.setParentLabel("Second", "DHub")
        core.initializeDevice("Second")
        core.setProperty("Second", "PixelType", "16bit")
        for side in ("OnCameraCCDXSize", "OnCameraCCDYSize"):
            core.setProperty("Second", side, 512)
        core.loadDevice("Multi", "Utilities", "Multi Camera")
        core.initializeDevice("Multi")
        core.setProperty("Multi", "Physical Camera 1", "Camera")
        core.setProperty("Multi", "Physical Camera 2", "Second")
        core.setCameraDevice("Multi")
        assert core.getNumberOfCameraChannels() == 2
        yield core


@pytest.mark.parametrize("live", ["off", "own"])
def test_several_cameras_are_refused_before_anything_starts(
    two_cameras: CMMCorePlus, live: str
) -> None:
    with (
        pytest.raises(ConfigError, match=SENTENCE),
        LiveSR(two_cameras, rig="demo", engine="none", live=live),
    ):
        pass


def test_a_second_camera_that_is_chosen_later_is_refused(two_cameras: CMMCorePlus) -> None:
    two_cameras.setCameraDevice("Camera")
    session = LiveSR(two_cameras, rig="demo", engine="none", live="own")
    with session:
        two_cameras.setCameraDevice("Multi")
        two_cameras.startContinuousSequenceAcquisition()
        two_cameras.stopSequenceAcquisition()
        error, session.error = session.error, None
    assert isinstance(error, ConfigError)
    assert SENTENCE in str(error)
