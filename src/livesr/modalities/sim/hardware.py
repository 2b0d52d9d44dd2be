"""What `livesr check --hardware` says of the patterns that raw groups show.

Owns what is plausible of them. Takes no frame.
"""

from __future__ import annotations

from collections.abc import Iterator

from livesr.base.frames import PatternQuality
from livesr.check.hardware import Looked, Measured
from livesr.modalities.sim.monitors import raw_order_check

GROUPS = 4
"""Raw groups that tell the order of the patterns."""


def check_hardware(looked: Looked) -> Iterator[Measured]:
    """Yield contrast, phase and order of the patterns, where there are any."""
    quality = looked.quality
    if quality and quality.patterns:
        yield from _patterns(quality.patterns, quality.doubt)
        yield _order(looked)


def _patterns(quality: PatternQuality, doubt: str) -> Iterator[Measured]:
    said = (
        f"{quality.contrast_to_noise:.1f} times its noise, {quality.modulation:.0%} of the"
        " calibrated one"
    )
    yield Measured(
        "pattern contrast",
        said,
        "error" if doubt else "ok",
        f"{doubt[:1].upper()}{doubt[1:]}." if doubt else "",
    )
    motion = "" if quality.motion_nm is None else f"; motion {quality.motion_nm:.0f} nm"
    yield Measured("pattern phase", f"{quality.phase_error_rad:.2f} rad from rig.yaml's{motion}")


def _order(looked: Looked) -> Measured:
    check = raw_order_check(looked.rig, looked.channel, looked.camera)
    for stack in looked.stacks:
        check.offer(stack.came)
    rotation = check.look()
    if rotation is None:
        return Measured(
            "pattern order",
            "cannot be told",
            "warning",
            "Too little light or detail to tell; see the picture.",
        )
    if rotation == 0:
        return Measured("pattern order", "right")
    advice = (
        "The display does not begin at its first pattern: see sim.trigger and sim.pattern_property."
    )
    n_raw = looked.rig.raw_frames(looked.channel)
    return Measured("pattern order", f"rotated by {rotation} of {n_raw}", "error", advice)


def no_patterns() -> Measured:
    """Say that nothing can be reconstructed."""
    return Measured(
        "patterns", "none", "warning", "Nothing can be reconstructed yet: run 'livesr calibrate'."
    )
