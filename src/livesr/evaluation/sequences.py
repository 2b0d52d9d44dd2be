"""Simulated time lapses with truth, for scoring: virtual cells, imaged raw frame by raw frame.

Owns what an evaluation draws its cells, rigs and light from. Reconstructs nothing: the raw frames go through the live path.
Specimens and image formation are `livesr.simulation`.

The ranges are those that training draws from (`livesr.simulation.domain`). The cells are others: every seed here is combined
with a constant of this module, so no seed of a training run repeats one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from livesr.live.reconstruct.sim import SIMReconstructor
from livesr.optics.noise import SCMOSNoise
from livesr.optics.otf import cutoff_um
from livesr.simulation.domain import Domain, Draw, draw_brightness, draw_light, draw_patterns
from livesr.simulation.microscope import Components, SIMMicroscope
from livesr.simulation.specimens import Cell

Image = NDArray[np.float32]
Range = tuple[float, float]

_EVALUATION = 0x6C697665_5372  # sets the seeds of this module apart from all others
_MARGIN_PX = 16  # camera pixels simulated beyond each edge: a cell does not end where the camera does


CALIBRATED = Domain(
    brightness_ratio=2.5,
    absent=0.0,
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
"""A rig in good order: patterns as calibrated, 100 to 1000 photo-electrons, structures within 1:2.5 of each other.

`Domain()` is the whole range that training draws from, down to 15 photo-electrons, wrong calibrations and 1:5.
"""


class SimulatedSequence:
    """One moving cell under one SIM rig: raw frames of all or some of its structures, and the truth of each.

    Parameters
    ----------
    seed
        Determines everything.
    n_t
        Time points.
    size
        Side of the reconstructions in their own pixels, even; the camera frame has half as many.
    domain
        What is drawn from.

    Attributes
    ----------
    reconstructor : for these raw frames, with a calibration that is as wrong as `domain` allows
    noise : the camera
    pixel_size_um : of the camera
    photons : photo-electrons of the bright parts in one raw frame

    Raises
    ------
    ValueError
        If `size` is odd or a structure is unknown.
    """

    def __init__(self, seed: int, n_t: int, size: int, domain: Domain | None = None) -> None:
        if size % 2:
            raise ValueError(f"size is {size}; a reconstruction has an even number of pixels")
        domain = domain or Domain()
        draw = Draw(np.random.default_rng((_EVALUATION, seed)))
        self.seed, self.n_t, self.structures = seed, n_t, domain.structures
        self.pixel_size_um = draw.near(domain.pixel_size_um, domain.pixel_size_spread)
        self.noise = SCMOSNoise(
            gain_adu_per_e=draw.uniform(domain.gain_adu_per_e), read_noise_e=draw.uniform(domain.read_noise_e)
        )
        self._draw_optics(draw, (size // 2, size // 2), domain)
        self._light = draw_light(draw, domain)
        self.photons = draw.log_uniform(domain.photons)
        self._background = draw.uniform(domain.background)
        self._stain = draw_brightness(draw, domain)
        self._watch(draw, domain)
        self._peak = max(self._mixed(self.structures)[1].peak(), 1e-6)
        self._transfer = self.reconstructor.transfer

    @property
    def present(self) -> tuple[str, ...]:
        """Structures that the cell was drawn with."""
        return tuple(name for name in self.structures if self._stain[name] > 0)

    @property
    def brightness(self) -> dict[str, float]:
        """Each structure's staining relative to the brightest one's; 0 for one that is missing."""
        most = max(self._stain.values())
        return {name: float(stain / most) for name, stain in self._stain.items()}

    def raw(self, visible: Iterable[str] | None = None, n_t: int | None = None) -> NDArray[np.uint16]:
        """Return noisy raw frames (t, n, y, x) in ADU of the structures in `visible`: all if None, none if empty.

        A structure is as bright alone as it is beside the others. `n_t` shortens the time lapse.
        """
        shown = self.structures if visible is None else tuple(visible)
        rng = np.random.default_rng((_EVALUATION, self.seed, 1, *(self.structures.index(s) for s in shown)))
        light = replace(self._light, electrons=self.photons / self._peak, background_e=self.photons * self._background)
        mixed = self._mixed(shown)
        frames = []
        for t in range(min(n_t or self.n_t, self.n_t)):
            expected = self._microscope.raw((mixed[t], mixed[t + 1], mixed[t + 2]), light, rng, t)
            frames.append([self.noise.expose(frame, rng) for frame in expected])
        return np.asarray(frames, np.uint16)

    def truth(self, t: int) -> dict[str, Image]:
        """Return the noise-free reconstruction of each structure alone, ADU, not negative: the IMC-SR paper's truth."""
        return {
            name: np.maximum(
                self._microscope.reconstruction_truth(self._density(name, t), self._transfer, self._adu(t)), 0
            )
            for name in self.structures
        }

    def passband(self, t: int) -> dict[str, Image]:
        """Return each structure alone at the passband of ideal SIM, ADU: no Wiener filter, no artefact of any kind."""
        return {name: self._microscope.truth(self._density(name, t), self._adu(t)) for name in self.structures}

    # -- what is drawn ---------------------------------------------------------------------------------------------

    def _draw_optics(self, draw: Draw, shape: tuple[int, int], domain: Domain) -> None:
        na, emission_um = draw.uniform(domain.na), draw.uniform(domain.emission_um)
        true, assumed = draw_patterns(draw, cutoff_um(na, emission_um), domain)
        damping = draw.uniform(domain.damping)
        optics = shape, self.pixel_size_um, na, emission_um
        self._microscope = SIMMicroscope(*optics, true, damping=damping, margin_px=_MARGIN_PX)
        self.reconstructor = SIMReconstructor(
            *optics,
            assumed,
            offset_adu=self.noise.offset_adu,
            wiener=draw.log_uniform(domain.wiener),
            attenuation=draw.uniform(domain.attenuation),
            apodisation=draw.uniform(domain.apodisation),
            damping=min(draw.near(damping, domain.damping_error), 1.0),
        )

    def _watch(self, draw: Draw, domain: Domain) -> None:
        """Let the cell live for `n_t` time points and one on either side, and image each structure alone."""
        microscope = self._microscope
        cell = Cell.random(draw.rng, microscope.object_shape, microscope.object_pixel_um, structures=domain.structures)
        interval_s, haze_factor = draw.log_uniform(domain.interval_s), np.float32(draw.uniform(domain.haze))
        self._densities: list[dict[str, Image]] = []
        self._components: list[dict[str, Components]] = []
        for t in range(self.n_t + 2):
            if t:
                cell.advance(interval_s)
            densities, hazes = cell.render(), cell.render_haze()
            self._components.append(
                {name: microscope.components(densities[name], haze_factor * hazes[name]) for name in self.structures}
            )
            self._densities.append(densities)

    def _mixed(self, visible: Iterable[str]) -> list[Components]:
        """Sum of the visible structures at every time point; imaging is linear."""
        shown = tuple(visible)
        return [
            Components(
                np.sum(
                    [self._stain[s] * c[s].widefield for s in shown] or [0 * c[self.structures[0]].widefield], axis=0
                ),
                np.sum([self._stain[s] * c[s].waves for s in shown] or [0 * c[self.structures[0]].waves], axis=0),
            )
            for c in self._components
        ]

    def _density(self, name: str, t: int) -> Image:
        return self._stain[name] * self._densities[t + 1][name]

    def _adu(self, t: int) -> float:
        """ADU of one unit of fluorophore density in the middle of group `t`."""
        return self.photons / self._peak * self._light.remaining(t + 0.5) * self.noise.gain_adu_per_e
