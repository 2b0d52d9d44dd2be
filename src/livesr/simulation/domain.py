"""What simulated cells, rigs and light are drawn from, for training and for evaluation.

Owns the domains with a name and the draws that both share, so that they cannot drift apart; the
ranges are `livesr.base.domain`'s. Simulates nothing.
"""

from __future__ import annotations

import numpy as np

from livesr.base.domain import Domain, Range

__all__ = [
    "CALIBRATED",
    "SNR",
    "Domain",
    "Draw",
    "Range",
    "calibrated_like",
    "draw_brightness",
    "usual_like",
]


CALIBRATED = Domain(
    brightness_ratio=2.5,
    absent=0.0,
    still=0.0,
    haze=(0.0, 1.0),
    interval_s=(0.05, 1.0),
    duty=(0.1, 0.5),
    damping_error=0.1,
    modulation=(0.5, 0.95),
    modulation_error=0.1,
    phase_offset_error_deg=3.0,
    phase_error_deg=(0.0, 3.0),
    photons=(100.0, 1000.0),
    wiener=(0.05, 0.2),
    attenuation=(0.8, 0.95),
    apodisation=(0.8, 1.2),
)
"""A rig in good order.

Patterns as calibrated, 100 to 1000 photo-electrons, structures within 1:2.5 of each other.

`Domain()` is the whole range that training draws from, down to 15 photo-electrons, wrong
calibrations and 1:5.
"""


def calibrated_like(domain: Domain) -> Domain:
    """Return the rig in good order, as far as `domain` has it.

    With its structures, its truth, pixels and filter; where the two ranges do not meet, that of
    `domain`: a rig of its own.
    """
    return _like(domain, CALIBRATED)


def usual_like(domain: Domain) -> Domain:
    """Return the whole range that training usually draws from, likewise as far as `domain` has
    it.
    """
    return _like(domain, Domain())


def _like(domain: Domain, other: Domain) -> Domain:
    return domain.model_copy(
        update={
            name: _common(getattr(domain, name), value)
            for name, value in other
            if isinstance(value, tuple) and name != "structures"
        }
        | {name: getattr(other, name) for name in _NO_RIGS}
    )


_NO_RIGS = (  # what is no range, and no microscope's own
    "brightness_ratio",
    "absent",
    "still",
    "damping_error",
    "modulation_error",
    "phase_offset_error_deg",
    "scale_spread",
)


def _common(own: Range, other: Range) -> Range:
    low, high = max(own[0], other[0]), min(own[1], other[1])
    return (low, high) if low <= high else own


SNR = {
    name: CALIBRATED.model_copy(update={"photons": photons})
    for name, photons in (
        ("medium", (50.0, 150.0)),
        ("high", (150.0, 500.0)),
        ("very high", (500.0, 2000.0)),
    )
}
"""The calibrated rig at three levels of light, as the IMC-SR paper names three levels of signal to
noise."""


class Draw:
    """Random values in the domain's terms, from `rng` alone."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def uniform(self, bounds: Range) -> float:
        """Return a value between `bounds`."""
        return float(self.rng.uniform(*bounds))

    def log_uniform(self, bounds: Range) -> float:
        """Return a value between `bounds`, every ratio equally likely."""
        return float(np.exp(self.rng.uniform(*np.log(bounds))))

    def near(self, value: float, relative_error: float) -> float:
        """Return `value`, off by at most `relative_error` of it."""
        return value * float(self.rng.uniform(1 - relative_error, 1 + relative_error))


def draw_brightness(draw: Draw, domain: Domain) -> dict[str, np.float32]:
    """Return each structure's staining, 0 for one that is missing; at least one is there."""
    side = float(np.sqrt(domain.brightness_ratio))
    brightness = [draw.log_uniform((1 / side, side)) for _ in domain.structures]
    present = draw.rng.random(len(brightness)) >= domain.absent
    if not present.any():
        present[:] = True
    return {
        s: np.float32(b * p) for s, b, p in zip(domain.structures, brightness, present, strict=True)
    }
