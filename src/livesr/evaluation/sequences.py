"""Simulated time lapses with truth, for scoring: virtual cells, imaged raw frame by raw frame.

Owns what an evaluation draws its cells, rigs and light from. Reconstructs nothing: the raw frames go through the live path.
Specimens and image formation are `livesr.simulation`.

`Conditions` are the ranges that training draws from (`livesr.training.datasets.Domain`); a test holds the two together. The
cells are others: every seed here is combined with a constant of this module, so no seed of a training run repeats one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from livesr.live.reconstruct.sim import SIMReconstructor
from livesr.optics.illumination import Pattern
from livesr.optics.noise import SCMOSNoise
from livesr.optics.otf import cutoff_um
from livesr.simulation.microscope import Components, Light, SIMMicroscope
from livesr.simulation.specimens import Cell

Image = NDArray[np.float32]
Range = tuple[float, float]

_EVALUATION = 0x6C697665_5372  # sets the seeds of this module apart from all others
_MARGIN_PX = 16  # camera pixels simulated beyond each edge: a cell does not end where the camera does


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What sequences are drawn from; ranges are uniform unless said otherwise.

    Attributes
    ----------
    structures : what the cell contains, names of `livesr.simulation.specimens.STRUCTURES`
    brightness_ratio : largest ratio between two structures; each one's brightness is log-uniform
    absent : probability that a structure is missing
    haze : factor on the cell's own light from far out of focus
    interval_s : specimen time from frame to frame, log-uniform
    duty : part of the interval during which the camera exposes
    pixel_size_um, pixel_size_spread : camera pixel in the sample, and its relative deviation
    na, emission_um, damping : detection, see `livesr.optics.otf`
    k_over_cutoff, modulation : illumination patterns
    damping_error, modulation_error, phase_offset_error_deg : how wrong the reconstruction's calibration is at most
    phase_error_deg, jitter, bleaching : unsteadiness of each raw frame's phase and light, loss per group
    photons : photo-electrons of the bright parts in one raw frame, log-uniform
    background : even background relative to the bright parts
    read_noise_e, gain_adu_per_e : sCMOS camera
    wiener, attenuation, apodisation : the reconstruction's settings, the first log-uniform
    """

    structures: tuple[str, ...] = ("microtubules", "er", "lysosomes")
    brightness_ratio: float = 5.0
    absent: float = 0.06
    haze: Range = (0.0, 1.6)
    interval_s: Range = (0.05, 2.0)
    duty: Range = (0.1, 1.0)
    pixel_size_um: float = 0.065
    pixel_size_spread: float = 0.04
    na: Range = (1.40, 1.49)
    emission_um: Range = (0.505, 0.560)
    damping: Range = (0.45, 1.0)
    damping_error: float = 0.2
    k_over_cutoff: Range = (0.8, 1.0)
    modulation: Range = (0.3, 0.95)
    modulation_error: float = 0.15
    phase_offset_error_deg: float = 6.0
    phase_error_deg: Range = (0.0, 6.0)
    jitter: Range = (0.0, 0.05)
    bleaching: Range = (0.0, 0.03)
    photons: Range = (15.0, 2000.0)
    background: Range = (0.01, 0.15)
    read_noise_e: Range = (0.9, 2.5)
    gain_adu_per_e: Range = (0.45, 2.2)
    wiener: Range = (0.02, 0.3)
    attenuation: Range = (0.6, 0.97)
    apodisation: Range = (0.3, 1.2)


CALIBRATED = Conditions(
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

`Conditions()` is the whole range that training draws from, down to 15 photo-electrons, wrong calibrations and 1:5.
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
    conditions
        What is drawn from.

    Attributes
    ----------
    reconstructor : for these raw frames, with a calibration that is as wrong as `conditions` allow
    noise : the camera
    pixel_size_um : of the camera
    photons : photo-electrons of the bright parts in one raw frame

    Raises
    ------
    ValueError
        If `size` is odd or a structure is unknown.
    """

    def __init__(self, seed: int, n_t: int, size: int, conditions: Conditions | None = None) -> None:
        if size % 2:
            raise ValueError(f"size is {size}; a reconstruction has an even number of pixels")
        conditions = conditions or Conditions()
        draw = _Draw(np.random.default_rng((_EVALUATION, seed)))
        self.seed, self.n_t, self.structures = seed, n_t, conditions.structures
        self.pixel_size_um = draw.near(conditions.pixel_size_um, conditions.pixel_size_spread)
        self.noise = SCMOSNoise(
            gain_adu_per_e=draw.uniform(conditions.gain_adu_per_e), read_noise_e=draw.uniform(conditions.read_noise_e)
        )
        self._draw_optics(draw, (size // 2, size // 2), conditions)
        self._light = _draw_light(draw, conditions)
        self.photons = draw.log_uniform(conditions.photons)
        self._background = draw.uniform(conditions.background)
        self._stain = _draw_brightness(draw, conditions)
        self._watch(draw, conditions)
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

    def _draw_optics(self, draw: _Draw, shape: tuple[int, int], conditions: Conditions) -> None:
        na, emission_um = draw.uniform(conditions.na), draw.uniform(conditions.emission_um)
        true, assumed = _draw_patterns(draw, cutoff_um(na, emission_um), conditions)
        damping = draw.uniform(conditions.damping)
        optics = shape, self.pixel_size_um, na, emission_um
        self._microscope = SIMMicroscope(*optics, true, damping=damping, margin_px=_MARGIN_PX)
        self.reconstructor = SIMReconstructor(
            *optics,
            assumed,
            offset_adu=self.noise.offset_adu,
            wiener=draw.log_uniform(conditions.wiener),
            attenuation=draw.uniform(conditions.attenuation),
            apodisation=draw.uniform(conditions.apodisation),
            damping=min(draw.near(damping, conditions.damping_error), 1.0),
        )

    def _watch(self, draw: _Draw, conditions: Conditions) -> None:
        """Let the cell live for `n_t` time points and one on either side, and image each structure alone."""
        microscope = self._microscope
        cell = Cell.random(
            draw.rng, microscope.object_shape, microscope.object_pixel_um, structures=conditions.structures
        )
        interval_s, haze_factor = draw.log_uniform(conditions.interval_s), np.float32(draw.uniform(conditions.haze))
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


class _Draw:
    """Random values in the conditions' terms."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def uniform(self, bounds: Range) -> float:
        return float(self.rng.uniform(*bounds))

    def log_uniform(self, bounds: Range) -> float:
        return float(np.exp(self.rng.uniform(*np.log(bounds))))

    def near(self, value: float, relative_error: float) -> float:
        return value * float(self.rng.uniform(1 - relative_error, 1 + relative_error))


def _draw_light(draw: _Draw, conditions: Conditions) -> Light:
    return Light(
        bleaching=draw.uniform(conditions.bleaching),
        jitter=draw.uniform(conditions.jitter),
        phase_error_rad=float(np.radians(draw.uniform(conditions.phase_error_deg))),
        duty=draw.uniform(conditions.duty),
    )


def _draw_brightness(draw: _Draw, conditions: Conditions) -> dict[str, np.float32]:
    side = float(np.sqrt(conditions.brightness_ratio))
    brightness = [draw.log_uniform((1 / side, side)) for _ in conditions.structures]
    present = draw.rng.random(len(brightness)) >= conditions.absent
    if not present.any():
        present[:] = True
    return {s: np.float32(b * p) for s, b, p in zip(conditions.structures, brightness, present, strict=True)}


def _draw_patterns(
    draw: _Draw, detection_cutoff_um: float, conditions: Conditions
) -> tuple[list[Pattern], list[Pattern]]:
    """Return three patterns about 60 degrees apart, and what a calibration believes they are."""
    true, assumed = [], []
    first, length = draw.uniform((0, np.pi)), detection_cutoff_um * draw.uniform(conditions.k_over_cutoff)
    contrast = draw.uniform(conditions.modulation)
    for angle in range(3):
        direction = first + angle * np.pi / 3 + np.radians(draw.rng.normal(0, 1.0))
        k = draw.near(length, 0.01)
        modulation = min(draw.near(contrast, 0.1), 0.98)
        k_um = (float(k * np.sin(direction)), float(k * np.cos(direction)))
        pattern = Pattern(k_um, draw.uniform((0, 2 * np.pi)), modulation)
        error = float(np.radians(conditions.phase_offset_error_deg)) * draw.uniform((-1, 1))
        believed = min(draw.near(modulation, conditions.modulation_error), 1.0)
        true.append(pattern)
        assumed.append(replace(pattern, phase_rad=pattern.phase_rad + error, modulation=believed))
    return true, assumed
