"""Three-dimensional transfer functions of detection, round about the optical axis.

Owns the scalar model of a focal series. Frequencies are in cycles/um, axes (kz, kr), arrays in FFT
order along kz. Knows nothing about reconstruction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from livesr.optics.otf import cutoff_um

_GRID, _OVERSAMPLING = 512, 1.2  # of the pupil's plane; beyond the Nyquist frequency
_UNIT = 0.25  # of the cutoff: where the function is 1 at kz = 0


@dataclass(frozen=True, slots=True)
class RadialOTF:
    """Transfer functions on a grid of kz, by the length kr of the lateral frequency.

    Attributes
    ----------
    step_um : from one value along kr to the next
    focal : (z, kr), float32, of modulated light complex64; 1 at kz = 0 and a quarter of the cutoff.
        At kr = 0 there is light at kz = 0 alone, the missing cone
    """

    step_um: float
    focal: NDArray[np.float32] | NDArray[np.complex64]

    @classmethod
    def of(
        cls,
        planes: int,
        z_step_um: float,
        na: float,
        emission_um: float,
        index: float,
        damping: float = 1.0,
    ) -> RadialOTF:
        """Return that of a series of `planes` planes through a homogeneous medium.

        Parameters
        ----------
        planes, z_step_um : of the series, which is periodic
        na, emission_um, index : of detection; index of the immersion
        damping : as of `livesr.optics.otf.otf`, along kr

        Notes
        -----
        A pupil of even brightness, exp(2 pi i z sqrt((n / wavelength)^2 - k^2)), gives the point
        spread function of every defocus z; their Fourier transforms along z are the function.
        Gibson & Lanni 1989; Goodman, Introduction to Fourier Optics, 6.4.
        """
        pixel_um = 1 / (2 * _OVERSAMPLING * cutoff_um(na, emission_um))
        f = scipy.fft.fftfreq(_GRID, pixel_um)
        radial = np.hypot(f[:, None], f)
        pupil = radial <= na / emission_um
        axial = np.sqrt(np.maximum((index / emission_um) ** 2 - radial**2, 0))
        depths = np.abs(scipy.fft.fftfreq(planes, 1 / planes)) * z_step_um
        series: dict[float, NDArray[np.float64]] = {}
        for z in np.unique(depths):
            spread = np.abs(scipy.fft.ifft2(pupil * np.exp(2j * np.pi * axial * z))) ** 2
            row = scipy.fft.fft(spread.sum(0))[: _GRID // 2]  # along kx; ky is 0 in the sum
            series[float(z)] = row.real / row[0].real
        along_z = np.stack([series[float(z)] for z in depths])
        focal = scipy.fft.fft(along_z, axis=0).real
        step_um, cutoff = float(f[1]), cutoff_um(na, emission_um)
        focal *= damping ** (np.arange(focal.shape[1]) * step_um / cutoff)
        unit = focal[0, round(_UNIT * cutoff / step_um)]
        return cls(step_um, np.asarray(focal / unit, np.float32))

    def modulated(self, z_step_um: float, frequency_um: float, shift_um: float) -> RadialOTF:
        """Return that of light whose brightness changes along z about the focus, as the first order
        of three interfering beams does: cos(2 pi f (z - shift)), z above the focus.
        """
        n = len(self.focal)
        z_um = scipy.fft.fftfreq(n, 1 / n) * z_step_um
        light = np.cos(2 * np.pi * frequency_um * (z_um + shift_um))[:, None]
        along_z = scipy.fft.ifft(self.focal, axis=0)
        made = scipy.fft.fft(along_z * light, axis=0)
        return RadialOTF(self.step_um, np.asarray(made, np.complex64))

    def at(self, plane: int, kr_um: NDArray[np.float64]) -> NDArray[np.complex64]:
        """Return the values of one kz at lateral frequencies of these lengths."""
        row, where = self.focal[plane], kr_um / self.step_um
        low = np.minimum(where.astype(np.int64), len(row) - 2)
        part = np.minimum(where - low, 1.0)
        return np.asarray(row[low] * (1 - part) + row[low + 1] * part, np.complex64)
