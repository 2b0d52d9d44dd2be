"""Simulated time lapses of SIM with truth.

Virtual cells under drawn rigs, imaged raw frame by raw frame.

Owns the order in which cell, rig and light are drawn. The ranges are `livesr.simulation.domain`'s.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from livesr.modalities.sim.parameters import SIMParameters
from livesr.modalities.sim.reconstructor import SIMReconstructor
from livesr.modalities.sim.simulation.microscope import (
    Components,
    Light,
    SIMMicroscope,
    without_background,
)
from livesr.optics.illumination import Pattern
from livesr.optics.noise import SCMOSNoise
from livesr.optics.otf import cutoff_um
from livesr.simulation.domain import Domain, Draw, draw_brightness
from livesr.simulation.sequence import MARGIN_PX
from livesr.simulation.specimens import Cell

Image = NDArray[np.float32]


class SIMSequence:
    """One moving cell under one SIM rig.

    Raw frames of all or some of its structures, and the truth of each.

    Parameters
    ----------
    entropy : numbers that determine everything
    n_t : time points
    size : side of the reconstructions in their own pixels, even; the camera frame has half as many
    domain : what is drawn from
    margin_px : camera pixels beyond each edge

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

    def __init__(
        self,
        entropy: Sequence[int],
        n_t: int,
        size: int,
        domain: Domain | None = None,
        *,
        margin_px: int = MARGIN_PX,
    ) -> None:
        if size % 2:
            raise ValueError(f"size is {size}; a reconstruction has an even number of pixels")
        domain = domain or Domain()
        draw = Draw(np.random.default_rng(tuple(entropy)))
        self.n_t, self.structures = n_t, domain.structures
        self._entropy, self._margin_px = tuple(entropy), margin_px
        self.pixel_size_um = draw.near(domain.pixel_size_um, domain.pixel_size_spread)
        self.noise = _drawn_noise(draw, domain)
        self._draw_optics(draw, (size // 2, size // 2), domain)
        self._draw_light(draw, domain)
        self._watch(draw, domain)
        self._look()

    def relit(self, entropy: Sequence[int], domain: Domain | None = None) -> SIMSequence:
        """Return the same cell, as it moves, under another rig, stain and light.

        `domain` has its structures; the pixels stay.
        """
        other = copy.copy(self)
        other._light_anew(entropy, domain or Domain())  # noqa: SLF001 - a copy of this one
        return other

    def _light_anew(self, entropy: Sequence[int], domain: Domain) -> None:
        draw, self._entropy = Draw(np.random.default_rng(tuple(entropy))), tuple(entropy)
        self.noise = _drawn_noise(draw, domain)
        self._draw_optics(draw, self._microscope.shape, domain)
        self._draw_light(draw, domain)
        self._look()

    @property
    def offset_adu(self) -> float:
        """Level of the camera's dark frame."""
        return self.noise.offset_adu

    @property
    def present(self) -> tuple[str, ...]:
        """Structures that the cell was drawn with."""
        return tuple(name for name in self.structures if self._stain[name] > 0)

    @property
    def brightness(self) -> dict[str, float]:
        """Each structure's staining relative to the brightest one's; 0 for one that is missing."""
        most = max(self._stain.values())
        return {name: float(stain / most) for name, stain in self._stain.items()}

    def raw(
        self, visible: Iterable[str] | None = None, n_t: int | None = None
    ) -> NDArray[np.uint16]:
        """Return noisy raw frames (t, n, y, x) in ADU of the structures in `visible`.

        All if None, none if empty.

        A structure is as bright alone as it is beside the others. `n_t` shortens the time lapse.
        """
        shown = self.structures if visible is None else tuple(visible)
        rng = np.random.default_rng((*self._entropy, 1, *(self.structures.index(s) for s in shown)))
        light = replace(
            self._light,
            electrons=self.photons / self._peak,
            background_e=self.photons * self._background,
        )
        mixed = self._mixed(shown)
        frames = []
        for t in range(min(n_t or self.n_t, self.n_t)):
            expected = self._microscope.raw((mixed[t], mixed[t + 1], mixed[t + 2]), light, rng, t)
            frames.append([self.noise.expose(frame, rng) for frame in expected])
        return np.asarray(frames, np.uint16)

    def truth(self, t: int) -> dict[str, Image]:
        """Return the noise-free reconstruction of each structure alone, ADU, not negative.

        The IMC-SR paper's truth, where the domain has `haze_in_truth`; otherwise without the haze.
        """
        adu = self._adu(t)
        truth = {
            name: self._microscope.reconstruction_truth(self._density(name, t), self._transfer, adu)
            for name in self.structures
        }
        if self._haze_in_truth:
            for name, image in truth.items():
                image += self._haze(name, t, adu)
        return {name: np.maximum(image, 0) for name, image in truth.items()}

    def passband(self, t: int) -> dict[str, Image]:
        """Return each structure alone at the passband of ideal SIM, ADU.

        No Wiener filter, no artefact of any kind.
        """
        return {
            name: self._microscope.truth(self._density(name, t), self._adu(t))
            for name in self.structures
        }

    # -- what is drawn -----------------------------------------------------------------------------

    def _draw_optics(self, draw: Draw, shape: tuple[int, int], domain: Domain) -> None:
        na, emission_um = draw.uniform(domain.na), draw.uniform(domain.emission_um)
        true, assumed = draw_patterns(draw, cutoff_um(na, emission_um), domain)
        damping = draw.uniform(domain.damping)
        optics = shape, self.pixel_size_um, na, emission_um
        self._microscope = SIMMicroscope(*optics, true, damping=damping, margin_px=self._margin_px)
        parameters = SIMParameters(
            *optics,
            offset_adu=self.noise.offset_adu,
            wiener=draw.log_uniform(domain.wiener),
            attenuation=draw.uniform(domain.attenuation),
            attenuation_fwhm_um=domain.attenuation_fwhm_um,
            sectioning=domain.sectioning,
            apodisation=draw.uniform(domain.apodisation),
            damping=domain.damping_assumed or min(draw.near(damping, domain.damping_error), 1.0),
        )
        self.reconstructor = SIMReconstructor(parameters, assumed)

    def _draw_light(self, draw: Draw, domain: Domain) -> None:
        self._light = draw_light(draw, domain)
        self.photons = draw.log_uniform(domain.photons)
        self._background = draw.uniform(domain.background)
        self._haze_in_truth = domain.haze_in_truth
        self._stain = draw_brightness(draw, domain)

    def _look(self) -> None:
        """Image the cell with the microscope that was drawn."""
        self._images: dict[tuple[str, ...], list[Components]] = {}
        self._peak = max(self._mixed(self.structures)[1].peak(), 1e-6)
        self._transfer = self.reconstructor.transfer

    def _watch(self, draw: Draw, domain: Domain) -> None:
        """Let the cell live for `n_t` time points and one on either side, and image each structure
        alone.
        """
        microscope = self._microscope
        cell = Cell.random(
            draw.rng,
            microscope.object_shape,
            microscope.object_pixel_um,
            structures=domain.structures,
        )
        interval_s, haze_factor = (
            draw.log_uniform(domain.interval_s),
            np.float32(draw.uniform(domain.haze)),
        )
        still = domain.still > 0 and draw.rng.random() < domain.still
        self._densities: list[dict[str, Image]] = []
        self._hazes: list[dict[str, Image]] = []
        for t in range(self.n_t + 2):
            if t and not still:
                cell.advance(interval_s)
            self._densities.append(cell.render())
            self._hazes.append(
                {name: haze_factor * haze for name, haze in cell.render_haze().items()}
            )

    def _mixed(self, visible: Iterable[str]) -> list[Components]:
        """Image of the visible structures together at every time point."""
        shown = tuple(visible)
        if shown not in self._images:
            self._images[shown] = [
                self._microscope.components(self._sum(density, shown), self._sum(haze, shown))
                for density, haze in zip(self._densities, self._hazes, strict=True)
            ]
        return self._images[shown]

    def _sum(self, images: dict[str, Image], shown: tuple[str, ...]) -> Image:
        total = np.zeros(self._microscope.object_shape, np.float32)
        for name in shown:
            total += self._stain[name] * images[name]
        return total

    def _density(self, name: str, t: int) -> Image:
        return self._stain[name] * self._densities[t + 1][name]

    def _haze(self, name: str, t: int, adu: float) -> Image:
        """Return the reconstruction of a structure's haze alone, without its background, ADU."""
        haze = self._stain[name] * self._hazes[t + 1][name]
        frame = without_background(self._microscope.unmodulated(haze))
        raw = [frame * np.float32(adu) + np.float32(self.offset_adu)] * len(self._microscope.order)
        return np.asarray(self.reconstructor.reconstruct(raw), np.float32)

    def _adu(self, t: int) -> float:
        """ADU of one unit of fluorophore density in the middle of group `t`."""
        return (
            self.photons / self._peak * self._light.remaining(t + 0.5) * self.noise.gain_adu_per_e
        )


def _drawn_noise(draw: Draw, domain: Domain) -> SCMOSNoise:
    return SCMOSNoise(
        gain_adu_per_e=draw.uniform(domain.gain_adu_per_e),
        read_noise_e=draw.uniform(domain.read_noise_e),
    )


def draw_light(draw: Draw, domain: Domain) -> Light:
    """Return bleaching, flicker, phase error and duty; its brightness is set later."""
    return Light(
        bleaching=draw.uniform(domain.bleaching),
        jitter=draw.uniform(domain.jitter),
        phase_error_rad=float(np.radians(draw.uniform(domain.phase_error_deg))),
        duty=draw.uniform(domain.duty),
    )


def draw_patterns(
    draw: Draw, detection_cutoff_um: float, domain: Domain
) -> tuple[list[Pattern], list[Pattern]]:
    """Return three patterns about 60 degrees apart, and what a calibration believes they are."""
    true, assumed = [], []
    first, length = (
        draw.uniform((0, np.pi)),
        detection_cutoff_um * draw.uniform(domain.k_over_cutoff),
    )
    contrast = draw.uniform(domain.modulation)
    for angle in range(3):
        direction = first + angle * np.pi / 3 + np.radians(draw.rng.normal(0, 1.0))
        k = draw.near(length, 0.01)
        modulation = min(draw.near(contrast, 0.1), 0.98)
        k_um = (float(k * np.sin(direction)), float(k * np.cos(direction)))
        pattern = Pattern(k_um, draw.uniform((0, 2 * np.pi)), modulation)
        error = float(np.radians(domain.phase_offset_error_deg)) * draw.uniform((-1, 1))
        believed = min(draw.near(modulation, domain.modulation_error), 1.0)
        true.append(pattern)
        assumed.append(replace(pattern, phase_rad=pattern.phase_rad + error, modulation=believed))
    return true, assumed
