"""Whether emitters can be localised in a raw group.

Owns what is doubtful about it. Their light may change from frame to frame as it likes, and the
background's noise must be a camera's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from livesr.base.frames import FrameQuality, Pixels
from livesr.optics.exposure import MIN_CLIPPED, Exposures, floor_clipped
from livesr.optics.raw_quality import Doubt, group_doubt

CUT_OFF = "the background is cut off at one least value; localise frames as the camera takes them"

_FLOOR_FRAMES = 10  # of a group, in which a background that is cut off is looked for


def quality(exposures: Exposures, frames: Sequence[Pixels | None]) -> FrameQuality | None:
    """Return what is doubtful about a raw group, None if nothing is.

    Parameters
    ----------
    exposures : of the `frames` that came
    frames : in raw order, (y, x) each; None where one is missing
    """
    doubt = group_doubt(exposures, frames, expected={"dark", "another picture"})
    return (doubt or _cut_off(exposures, frames)).quality()


def _cut_off(exposures: Exposures, frames: Sequence[Pixels | None]) -> Doubt:
    """Look for a background that was subtracted and cut off, in a few frames."""
    if np.median(exposures.at_least) <= MIN_CLIPPED:
        return Doubt()
    came = [frame for frame in frames if frame is not None]
    share = floor_clipped(came[:: max(len(came) // _FLOOR_FRAMES, 1)])
    if not share:
        return Doubt()
    return Doubt(
        f"{share:.0%} of the pixels are at one least value ({exposures.least.min():g}): the"
        " background was subtracted and cut off, or the camera's offset is too low. The noise that"
        " is left is not a camera's: emitters are found where there are none, and their"
        " uncertainty is wrong",
        CUT_OFF,
    )
