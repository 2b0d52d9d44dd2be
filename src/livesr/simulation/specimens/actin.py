"""Actin: straight stress fibres over a dense mesh of short filaments that turns over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from livesr.simulation.specimens.lines import SwayingLines, worm_like_chains
from livesr.simulation.specimens.noise import LineNoise, log_uniform, mean_reverting
from livesr.simulation.specimens.outline import CellOutline
from livesr.simulation.specimens.raster import splat_polylines
from livesr.simulation.specimens.structure import Structure, StructureParameters

Image = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActinParameters(StructureParameters):
    """How actin looks and behaves.

    Parameters
    ----------
    fibres_um_per_um2, fibre_um : float
        Length of stress fibres per area, and of each.
    mesh_um_per_um2, mesh_um : float
        The same of the mesh's filaments.
    mesh_brightness : float
        Of the mesh relative to the fibres.
    persistence_um : float
        Of single filaments, 10-17 um; the fibres are bundles and ten times stiffer.
    spread_rad : float
        Of the fibres' headings about the cell's axis.
    turnover_s : float
        In which the mesh's brightness forgets itself.
    sway_nm, sway_time_s : float
        Standard deviation and correlation time of the lateral motion.
    brightness_spread : float
        Variation of the logarithm of the brightness.
    """

    fibres_um_per_um2: float = 0.8
    fibre_um: float = 12.0
    mesh_um_per_um2: float = 4.0
    mesh_um: float = 1.5
    mesh_brightness: float = 0.35
    persistence_um: float = 13.0
    spread_rad: float = 0.25
    turnover_s: float = 15.0
    sway_nm: float = 20.0
    sway_time_s: float = 3.0
    brightness_spread: float = 0.4
    thickness_nm: float = 28.0
    out_of_focus: float = 0.2
    haze: float = 0.8

    def __post_init__(self) -> None:
        StructureParameters.__post_init__(self)
        self._check_positive(
            "fibres_um_per_um2", "fibre_um", "mesh_um_per_um2", "mesh_um", "persistence_um"
        )
        self._check_positive("turnover_s", "sway_time_s")
        self._check_not_negative("mesh_brightness", "spread_rad", "sway_nm", "brightness_spread")

    @classmethod
    def random(cls, rng: np.random.Generator) -> Self:
        """Draw parameters over the wide range that training should see."""
        return cls(
            fibres_um_per_um2=log_uniform(rng, 0.2, 2),
            fibre_um=log_uniform(rng, 5, 20),
            mesh_um_per_um2=log_uniform(rng, 1, 8),
            mesh_um=log_uniform(rng, 0.7, 3),
            mesh_brightness=rng.uniform(0.1, 0.8),
            persistence_um=rng.uniform(10, 17),
            spread_rad=log_uniform(rng, 0.08, 1),
            turnover_s=log_uniform(rng, 5, 40),
            sway_nm=log_uniform(rng, 5, 50),
            sway_time_s=rng.uniform(1, 6),
            brightness_spread=rng.uniform(0.15, 0.6),
            thickness_nm=rng.uniform(20, 40),
            out_of_focus=rng.uniform(0, 0.5),
            haze=log_uniform(rng, 0.1, 3),
        )


class Actin(Structure):
    """The actin of one field. See `Structure` for the grid and `ActinParameters` for the rest."""

    Parameters = ActinParameters
    _NODES = 24
    _STIFFER = 10.0

    def __init__(
        self,
        shape: tuple[int, int],
        pixel_size_um: float,
        rng: np.random.Generator,
        parameters: ActinParameters | None = None,
        *,
        outline: CellOutline | None = None,
    ) -> None:
        self.parameters = p = parameters or ActinParameters()
        super().__init__(shape, pixel_size_um, rng, p, outline=outline)
        self._noise = LineNoise(rng)
        area = float(np.prod(self._high_um - self._low_um))
        fibres = max(2, round(p.fibres_um_per_um2 * area / p.fibre_um))
        mesh = max(2, round(p.mesh_um_per_um2 * area / p.mesh_um))
        axis = rng.uniform(0, 2 * np.pi)
        self._fibres = self._lines(
            axis + rng.normal(0, p.spread_rad, fibres), p.fibre_um, p.persistence_um * self._STIFFER
        )
        self._mesh = self._lines(rng.uniform(0, 2 * np.pi, mesh), p.mesh_um, p.persistence_um)
        self._fibre_light = self._light(self._fibres, p.fibre_um, 1.0)
        self._mesh_light = self._light(self._mesh, p.mesh_um, p.mesh_brightness)
        self._fresh = np.zeros((mesh, 1), np.float32)
        mean_reverting(self._fresh, np.inf, 1.0, 1.0, rng)
        self._settle()

    def _lines(
        self, heading: NDArray[np.floating], length_um: float, persistence_um: float
    ) -> SwayingLines:
        p, rng = self.parameters, self._rng
        arc = np.linspace(0, length_um, self._NODES)
        rest = worm_like_chains(
            rng, self._random_points(len(heading)), heading, arc, persistence_um
        )
        return SwayingLines(rng, rest, p.sway_nm / 1000, p.sway_nm / 1000, p.sway_time_s)

    def _light(self, lines: SwayingLines, length_um: float, brightness: float) -> Image:
        """Return (2, n, m) in focus and out of it.

        Uneven along each line, faint towards its ends.
        """
        p, rng, nodes = self.parameters, self._rng, lines.nodes_um
        count = len(nodes)
        arc = np.linspace(0, length_um, self._NODES)
        light = np.exp(p.brightness_spread * rng.standard_normal((count, 1)))
        light = light * np.exp(0.25 * self._noise.along(arc / 0.8, count, rng))
        light = brightness * light * np.sin(np.pi * np.linspace(0.03, 0.97, self._NODES)) ** 0.5
        if self.outline is not None:
            light = light * (self.outline.depth_um(nodes) > 0.1)
        blurred = np.clip(p.out_of_focus * rng.uniform(0, 2, (count, 1)), 0, 1)
        return np.stack([light * (1 - blurred), light * blurred]).astype(np.float32)

    def _step(self, dt_s: float) -> None:
        self._fibres.advance(dt_s)
        self._mesh.advance(dt_s)
        mean_reverting(self._fresh, dt_s, self.parameters.turnover_s, 1.0, self._rng)

    def _paint(self) -> Image:
        fibres = splat_polylines(
            self._to_pixels(self._fibres.nodes_um), self._fibre_light, self._canvas_shape
        )
        present = np.clip(0.5 + 0.5 * self._fresh, 0, 1)
        mesh = splat_polylines(
            self._to_pixels(self._mesh.nodes_um), present * self._mesh_light, self._canvas_shape
        )
        return np.asarray(fibres + mesh, np.float32)
