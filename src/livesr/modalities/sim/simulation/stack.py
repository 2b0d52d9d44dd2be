"""Raw stacks of three-beam SIM, from fluorophores in a volume.

Owns image formation. Computed plane by plane from the light and the point spread function of every
defocus, not from transfer functions in three dimensions, so that a reconstruction is tried on what
it does not assume. Axes (z, y, x), lengths in um.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from livesr.modalities.sim.parameters import SIMParameters
from livesr.modalities.sim.volume import Axial
from livesr.optics.illumination import Pattern, equal_steps

Volume = NDArray[np.float64]

_PHASES = 5


def three_beam_stack(
    density: Volume,
    optics: SIMParameters,
    axial: Axial,
    patterns: Sequence[Pattern],
    shift_um: float = 0.0,
    outer: float = 1.0,
) -> NDArray[np.float32]:
    """Return expected raw frames (z, angles x 5, y, x) of a volume, angle by angle.

    Parameters
    ----------
    density : fluorophores (z, 2y, 2x); what leaves at one edge along y and x comes back at the
        other, so keep its rim dark
    optics : shape, pixel, aperture and emission
    patterns : vector and phase of each angle
    shift_um : of the light along z against the focus
    outer : amplitude a of the two outer beams, that of the middle one is 1

    Notes
    -----
    Three plane waves, one along the axis and two at lateral frequencies +k and -k, make light of
    mean 1 and of the form 1 + m cos(2 pi k.r + phase) cos(2 pi f z) + n cos(2 (2 pi k.r + phase)),
    f the difference of their axial frequencies, m = 4 a / (1 + 2 a^2), n = 2 a^2 / (1 + 2 a^2).
    """
    planes, fine = len(density), density.shape[1:]
    pixel_um = optics.pixel_size_um / 2
    spread = _spread(planes, fine, pixel_um, optics, axial)
    y, x = (np.arange(n) * pixel_um for n in fine)
    stack = np.zeros((planes, len(patterns) * _PHASES, *optics.shape), np.float32)
    mean = 1 + 2 * outer**2
    for angle, pattern in enumerate(patterns):
        ky, kx = pattern.k_um
        wave = np.exp(2j * np.pi * ky * y)[:, None] * np.exp(2j * np.pi * kx * x)
        whole = axial.immersion / axial.excitation_um
        f = whole - np.sqrt(whole**2 - ky**2 - kx**2)
        lit = [[scipy.fft.fft2(plane * wave**m) for plane in density] for m in range(3)]
        for z in range(planes):
            depths = (np.arange(planes) - z) * axial.z_step_um - shift_um
            light = (
                np.ones(planes),
                4 * outer / mean * np.cos(2 * np.pi * f * depths),
                np.full(planes, 2 * outer**2 / mean),
            )
            orders = [
                scipy.fft.ifft2(
                    sum(light[m][at] * lit[m][at] * spread[abs(at - z)] for at in range(planes))
                )[::2, ::2]
                for m in range(3)
            ]
            for phase, step in enumerate(equal_steps(_PHASES)):
                turn = np.exp(1j * (pattern.phase_rad + step))
                seen = orders[0] + orders[1] * turn + orders[2] * turn**2
                stack[z, angle * _PHASES + phase] = seen.real
    return stack


def _spread(
    planes: int,
    fine: tuple[int, ...],
    pixel_um: float,
    optics: SIMParameters,
    axial: Axial,
) -> list[NDArray[np.complex128]]:
    """Return the transfer function (2y, 2x) of every defocus, 1 at zero frequency."""
    ky, kx = (scipy.fft.fftfreq(n, pixel_um) for n in fine)
    radial = np.hypot(ky[:, None], kx)
    pupil = radial <= optics.na / optics.emission_um
    along = np.sqrt(np.maximum((axial.immersion / optics.emission_um) ** 2 - radial**2, 0))
    made = []
    for z in range(planes):
        field = scipy.fft.ifft2(pupil * np.exp(2j * np.pi * along * z * axial.z_step_um))
        transfer = scipy.fft.fft2(np.abs(field) ** 2)
        made.append(np.asarray(transfer / transfer[0, 0]))
    return made
