"""What a linear SIM reconstruction is told: camera, optics, raw order and filter.

Owns the values and their meaning. Computes nothing for a frame; `plan.py` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import ConfigError
from livesr.optics.illumination import angle_major, equal_steps
from livesr.optics.otf import cutoff_um


@dataclass(frozen=True, slots=True)
class SIMParameters:
    """Everything but the patterns that decides what becomes of a raw stack.

    Attributes
    ----------
    shape : raw frame (y, x)
    pixel_size_um : camera pixel in the sample, at most wavelength / (4 NA) or the raw frames alias.
        Pixel (2i, 2j) of the result lies on the centre of raw pixel (i, j)
    na, emission_um : detection: numerical aperture and emission wavelength
    phase_steps_rad : what each exposure adds to its pattern's phase: `phases` values for all
        angles, or one such sequence per angle. Equal parts of a turn if None. At least three
        phases, five with one overtone; more are used by least squares
    order : (angle, phase) of each raw index; angle-major with three phases if None
    offset_adu : level of a dark camera frame
    wiener : regularisation w in sum |a OTF|^2 + w^2, where a is 1 for band 0 of an angle and m/2
        for a wave's band: more is smoother and less sharp. 0.1 suits good light, 0.2 dim samples
        (real beads: 106 and 121 nm, widefield 214 nm)
    attenuation, attenuation_fwhm_um : strength (0 to < 1) and width in cycles/um with which the
        centre of every band is suppressed, where out-of-focus light and the pattern's residue sit
    sectioning : leave the low frequencies, which light out of focus has in band 0 alone, to the
        bands of the waves: an optical section
    apodisation : exponent of the cosine that closes the spectrum at the extended cutoff
    taper : fraction of each side over which the raw frames fade to 0, against the periodicity of
        the Fourier transform. The result fades likewise
    origin_px : first pixel (y, x) of the frames on the chip, in pixels of `pixel_size_um`
    equalise : scale every raw frame by one number so that all have the same mean above the offset,
        which takes out bleaching and flicker within a group. Right for live pictures; the method is
        then no longer linear in the frames, so switch it off for tests of linearity and for
        computing training targets
    damping : factor of the OTF at its cutoff, see `livesr.optics.otf.otf`
    scale : pixels of the result per camera pixel, along each side: 2 in linear SIM; in nonlinear
        SIM, whose overtones reach further, one more for each
    """

    shape: tuple[int, int]
    pixel_size_um: float
    na: float
    emission_um: float
    _: KW_ONLY
    phase_steps_rad: Sequence[float] | Sequence[Sequence[float]] | None = None
    order: Sequence[tuple[int, int]] | None = None
    offset_adu: float = 100.0
    wiener: float = 0.1
    attenuation: float = 0.9
    attenuation_fwhm_um: float = 1.2
    sectioning: bool = False
    apodisation: float = 1.0
    taper: float = 0.06
    origin_px: tuple[float, float] = (0.0, 0.0)
    equalise: bool = True
    damping: float = 1.0
    scale: int = 2

    @property
    def cutoff_um(self) -> float:
        """Highest frequency that the objective passes, cycles/um."""
        return cutoff_um(self.na, self.emission_um)

    @property
    def support(self) -> tuple[int, int]:
        """Largest frequency index (y, x) of a raw frame at which the OTF is not 0."""
        y, x = (min(int(self.cutoff_um * n * self.pixel_size_um), (n - 1) // 2) for n in self.shape)
        return y, x

    def raw_order(self, angles: int) -> list[tuple[int, int]]:
        """Return (angle, phase) of each raw index."""
        return angle_major(angles, 3) if self.order is None else [(a, p) for a, p in self.order]

    def steps_rad(self, angles: int, phases: int) -> NDArray[np.float64]:
        """Return what each exposure adds to its pattern's phase, float64 (angles, phases).

        Raises
        ------
        ConfigError
            If `phase_steps_rad` has another number of values.
        """
        given = self.phase_steps_rad
        steps = equal_steps(phases) if given is None else np.asarray(given, np.float64)
        if steps.shape not in {(phases,), (angles, phases)}:
            raise ConfigError(
                f"phase_steps_rad has shape {steps.shape}, expected ({phases},) or"
                f" ({angles}, {phases})"
            )
        return np.broadcast_to(steps, (angles, phases))
