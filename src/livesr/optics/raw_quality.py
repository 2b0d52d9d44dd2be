"""What is wrong with raw frames, whatever is reconstructed from them.

Owns the sentences and their causes; the measures are in `livesr.optics.exposure`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from livesr.base.frames import FrameQuality, Pixels
from livesr.optics.exposure import MAX_SATURATED, Exposures, Fault, saturation, without_picture

NO_PICTURE = (
    "raw frames are blank, dark, cut off, torn or repeated; check camera, shutter and triggers"
)
BELOW_OFFSET = (
    "raw frames are darker than camera.offset_adu in rig.yaml, as if light were negative: correct"
    " it; livesr characterise measures it"
)
SATURATED = "raw frames are saturated; expose less"


class Doubt(NamedTuple):
    """What is wrong with a frame, in its numbers, and the same without them.

    Both empty, and false, if nothing is.
    """

    sentence: str = ""
    cause: str = ""

    def __bool__(self) -> bool:
        return bool(self.sentence)

    def quality(self) -> FrameQuality | None:
        """Return the quality of a frame of which nothing else is known, None without a doubt."""
        return FrameQuality(None, self.sentence, cause=self.cause) if self else None


def exposure_doubt(exposures: Exposures, max_saturated: float = MAX_SATURATED) -> Doubt:
    """Return what is wrong with the raw frames themselves, an empty doubt if nothing is."""
    return _named(exposures.faults(max_saturated), exposures.ceiling)


def group_doubt(
    exposures: Exposures,
    frames: Sequence[Pixels | None],
    expected: Collection[str] = (),
    max_saturated: float = MAX_SATURATED,
) -> Doubt:
    """Return what is wrong with a raw group, some of whose frames may be missing.

    Parameters
    ----------
    exposures : of the `frames` that came
    frames : in raw order, None where one is missing
    expected : kinds of faults that are none here (`livesr.optics.exposure.Fault`)
    max_saturated : share of a frame's pixels that may be at the ceiling
    """
    came = [raw for raw, frame in enumerate(frames) if frame is not None]
    found = exposures.faults(max_saturated)
    faults = [f._replace(raw=came[f.raw]) for f in found if f.kind not in expected]
    return _named(faults, exposures.ceiling)


def exposure_quality(exposures: Exposures, frames: Sequence[Pixels | None]) -> FrameQuality | None:
    """Return what is doubtful about a raw group, None if nothing is; as `group_doubt`."""
    return group_doubt(exposures, frames).quality()


def repeated_quality(quality: FrameQuality | None, frames: Sequence[Pixels | None]) -> FrameQuality:
    """Return the quality of a group whose first frame is the last of the group before it.

    Parameters
    ----------
    quality : of the group otherwise, None if nothing else is known; its own doubt is said as well
    frames : in raw order, None where one is missing
    """
    first = next(raw for raw, frame in enumerate(frames) if frame is not None)
    said = f"raw frame {first} repeats the last one of the time point before pixel by pixel"
    seen = quality or FrameQuality(None)
    doubt = f"{said}; {seen.doubt}" if seen.doubt else said
    return seen._replace(doubt=doubt, cause=NO_PICTURE)


def _named(faults: Sequence[Fault], ceiling: float | None) -> Doubt:
    if missing := without_picture(faults):
        below = any(fault.kind == "below the offset" for fault in faults)
        return Doubt(missing, BELOW_OFFSET if below else NO_PICTURE)
    if clipped := saturation(faults, ceiling):
        return Doubt(clipped, SATURATED)
    return Doubt()
