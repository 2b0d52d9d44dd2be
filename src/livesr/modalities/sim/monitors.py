"""What watches a SIM run: the raw order, and the pattern vectors.

Owns what of a run is shown to the measurements of `raw_order.py` and `vector_drift.py`, and what is
said of what they find.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from livesr.live.reconstruct.monitor import Monitor, Observation
from livesr.modalities.sim.config import SIMConfig
from livesr.modalities.sim.modality import parameters_of
from livesr.modalities.sim.raw_order import RawOrderCheck
from livesr.modalities.sim.vector_drift import MIN_PX, VectorDrift

if TYPE_CHECKING:
    from livesr.base.config import RigConfig
    from livesr.base.frames import FrameQuality, RawStack
    from livesr.base.geometry import Geometry
    from livesr.modalities.sim.reconstructor import SIMReconstructor

VECTORS_CORRECTED = "pattern_vectors_corrected"
"""Key of the run's report: how often a pattern vector was exchanged."""


class RawOrderMonitor(Monitor):
    """Warns of a pattern display that did not begin at its first pattern.

    Parameters
    ----------
    check : of the channel
    channel, n_raw : its name and the exposures of a group, for the sentence
    """

    watches = "the raw order"

    def __init__(self, check: RawOrderCheck, channel: str, n_raw: int) -> None:
        self._check, self._channel, self._n_raw = check, channel, n_raw

    def before(self, stack: RawStack) -> None:
        """Collect a group, also one that will be refused for its order."""
        self._check.offer(stack.came)

    def look(self) -> Observation:
        """Say that the order is rotated, once that is certain."""
        if rotation := self._check.look():
            said = (rotated(self._channel, rotation, self._n_raw),)
            return Observation(said, said)
        return Observation()


class VectorMonitor(Monitor):
    """Lets the next frames be reconstructed with pattern vectors that drifted.

    Parameters
    ----------
    vectors : of the channel
    channel : its name
    """

    watches = "the pattern vectors"

    def __init__(self, vectors: VectorDrift, channel: str) -> None:
        self._vectors, self._channel = vectors, channel

    def after(self, stack: RawStack, quality: FrameQuality) -> None:
        """Take a group, if it is to be trusted and one is wanted."""
        self._vectors.offer(stack.frames, quality)

    def look(self) -> Observation:
        """Exchange vectors that moved; say that one moved too far."""
        counts = {VECTORS_CORRECTED: self._vectors.look()}
        if not self._vectors.lost:
            return Observation(counts=counts)
        return Observation(
            (
                f"Channel {self._channel or 'default'}: the pattern vectors drifted too far to be"
                " followed: 'livesr calibrate'.",
            ),
            counts=counts,
        )


def raw_order_monitor(rig: RigConfig, channel: str, camera: Geometry) -> RawOrderMonitor:
    """Return what watches that the pattern display begins where rig.yaml says."""
    check = raw_order_check(rig, channel, camera)
    return RawOrderMonitor(check, channel, rig.raw_frames(channel))


def raw_order_check(rig: RigConfig, channel: str, camera: Geometry) -> RawOrderCheck:
    """Return a fresh measurement of the raw order of a channel."""
    return RawOrderCheck(*parameters_of(rig, channel, camera))


def vector_monitor(
    rig: RigConfig, channel: str, camera: Geometry, reconstructor: SIMReconstructor
) -> VectorMonitor | None:
    """Return what follows the pattern vectors; None where they are not to be followed, or a frame
    is too small to show them.
    """
    section = SIMConfig.of(rig)
    if (
        not section.follow_drift
        or section.lattice
        or section.nonlinear
        or min(camera.shape) < MIN_PX
    ):
        return None
    vectors = VectorDrift(*parameters_of(rig, channel, camera), reconstructor.drift)
    return VectorMonitor(vectors, channel)


def rotated(channel: str, rotation: int, n_raw: int) -> str:
    """Say that the raw order of a channel is rotated."""
    return (
        f"Channel {channel!r}: the raw order is rotated by {rotation} of {n_raw}: raw frame 0 shows"
        f" pattern {rotation}. The reconstruction is wrong. Stop, set the pattern display to its"
        " first pattern (sim.pattern_property in rig.yaml does it before each run) and start"
        " again."
    )
