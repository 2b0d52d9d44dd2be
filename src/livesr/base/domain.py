"""What cells, rigs and light are simulated from: the ranges that a network was trained on.

Owns the names and the usual ranges, which training, evaluation and what compares a rig with its
engine share. Draws nothing from them: `livesr.simulation.domain` does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

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
