"""What simulated cells, rigs and light are drawn from, for training and for evaluation.

Owns the ranges and the draws that both share, so that they cannot drift apart. Simulates nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from livesr.base.config import Model

Range = tuple[float, float]


class Domain(Model):
    """What sequences are drawn from. Ranges are uniform unless said otherwise.

    The ranges are those that SIM rigs and live cells show; where the reconstruction assumes a value
    (modulation, phase, OTF), it assumes one that is slightly wrong, as a calibration does.
    """

    renamed: ClassVar[Mapping[str, str]] = {"headroom_spread": "scale_spread"}

    structures: tuple[str, ...] = ("microtubules", "er", "lysosomes")
    brightness_ratio: float = 5.0
    """Largest ratio between two structures; each one's brightness is log-uniform."""
    absent: float = 0.06
    """Probability that a structure is missing."""
    haze: Range = (0.0, 2.0)
    """Factor on the cell's own haze, its light from far out of focus."""
    haze_in_truth: bool = False
    """Whether a structure's haze is to be found with it, as in an image of it alone; otherwise it
    is no structure's."""
    interval_s: Range = (0.05, 2.0)
    """Specimen time from frame to frame, log-uniform."""
    still: float = 0.15
    """Probability that nothing moves."""
    duty: Range = (0.1, 1.0)

    pixel_size_um: float = 0.065
    pixel_size_spread: float = 0.04
    na: Range = (1.40, 1.49)
    emission_um: Range = (0.505, 0.560)
    damping: Range = (0.45, 1.0)
    damping_error: float = 0.2
    """Largest relative error of what the reconstruction assumes; likewise below."""
    damping_assumed: float | None = None
    """What the reconstruction assumes where that is known, as of one rig."""
    k_over_cutoff: Range = (0.8, 1.0)
    modulation: Range = (0.3, 0.95)
    modulation_error: float = 0.15
    phase_offset_error_deg: float = 6.0
    phase_error_deg: Range = (0.0, 6.0)
    """Standard deviation of the raw frames' phases, cut at twice that."""
    jitter: Range = (0.0, 0.05)
    bleaching: Range = (0.0, 0.03)

    photons: Range = (15.0, 6000.0)
    """Photo-electrons of the bright parts in one raw frame, log-uniform."""
    background: Range = (0.01, 0.15)
    """Even background relative to the bright parts."""
    read_noise_e: Range = (0.9, 2.5)
    gain_adu_per_e: Range = (0.45, 2.2)

    wiener: Range = (0.01, 0.3)
    """Log-uniform."""
    attenuation: Range = (0.6, 0.97)
    attenuation_fwhm_um: float = 1.2
    sectioning: bool = False
    apodisation: Range = (0.2, 1.2)
    scale_spread: float = 0.25
    """Largest relative deviation of the scale s: live, it follows the frames slowly."""

    @property
    def resolution_nm(self) -> Range:
        """Wavelength / (2 NA) of its optics: a tenth around the finest and the coarsest."""
        (na_low, na_high), (short_um, long_um) = self.na, self.emission_um
        finest, coarsest = 5000 * short_um / na_high, 5000 * long_um / na_low
        return math.floor(finest) / 10, math.ceil(coarsest) / 10


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
