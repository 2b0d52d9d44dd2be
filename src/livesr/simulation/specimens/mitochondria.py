"""Mitochondria: tubes and grains, labelled in the outer membrane or inside, that sway and drift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from livesr.simulation.specimens.lines import SwayingLines, worm_like_chains
from livesr.simulation.specimens.noise import LineNoise, log_uniform
from livesr.simulation.specimens.outline import CellOutline
from livesr.simulation.specimens.raster import splat_polylines
from livesr.simulation.specimens.structure import Structure, StructureParameters

Image = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class MitochondriaParameters(StructureParameters):
    """How mitochondria look and behave.

    Parameters
    ----------
    density_per_100_um2 : float
        Number per area of the cell.
    length_um, length_spread : float
        Median length and spread of its logarithm.
    diameter_nm, diameter_spread : float
        Median of the tubes' diameters, 250-500 nm, and spread of their logarithm: some are swollen.
    persistence_um : float
        Of the tubes as worm-like chains.
    filled : float
        Brightness of the inside, seen through the membrane, relative to the walls.
    matrix : float
        0 where the outer membrane is labelled (TOMM20), 1 where what is inside is (MitoTracker), or
        between.
    clumped : float
        Share of them that lies near another one, within a micrometre or so.
    sway_nm, drift_nm, sway_time_s : float
        Standard deviations and correlation time of the motion.
    brightness_spread : float
        Variation of the logarithm of the brightness.
    """

    density_per_100_um2: float = 12.0
    length_um: float = 3.0
    length_spread: float = 0.5
    diameter_nm: float = 350.0
    diameter_spread: float = 0.1
    persistence_um: float = 4.0
    filled: float = 0.35
    matrix: float = 0.0
    clumped: float = 0.0
    sway_nm: float = 60.0
    drift_nm: float = 120.0
    sway_time_s: float = 4.0
    brightness_spread: float = 0.25
    thickness_nm: float = 30.0
    out_of_focus: float = 0.2
    haze: float = 0.8

    def __post_init__(self) -> None:
        StructureParameters.__post_init__(self)
        self._check_positive(
            "density_per_100_um2", "length_um", "diameter_nm", "persistence_um", "sway_time_s"
        )
        self._check_shares("filled", "matrix", "clumped")
        self._check_not_negative(
            "length_spread", "diameter_spread", "sway_nm", "drift_nm", "brightness_spread"
        )

    @classmethod
    def random(cls, rng: np.random.Generator) -> Self:
        """Draw parameters over the wide range that training should see."""
        length_um = log_uniform(rng, 0.5, 6)
        return cls(
            density_per_100_um2=min(100 * log_uniform(rng, 0.15, 2) / length_um, 120),
            length_um=length_um,
            length_spread=rng.uniform(0.2, 0.8),
            diameter_nm=rng.uniform(220, 550),
            diameter_spread=rng.uniform(0.05, 0.35),
            persistence_um=log_uniform(rng, 0.7, 8),
            filled=rng.uniform(0.1, 0.8),
            matrix=rng.choice([0.0, 0.0, rng.uniform(0, 1), 1.0]),
            clumped=rng.uniform(0, 0.9),
            sway_nm=log_uniform(rng, 20, 120),
            drift_nm=log_uniform(rng, 40, 250),
            sway_time_s=rng.uniform(2, 8),
            brightness_spread=rng.uniform(0.1, 0.6),
            thickness_nm=rng.uniform(22, 40),
            out_of_focus=rng.uniform(0, 0.5),
            haze=log_uniform(rng, 0.1, 3),
        )


class Mitochondria(Structure):
    """The mitochondria of one field.

    See `Structure` for the grid and `MitochondriaParameters` for the rest.

    Attributes
    ----------
    length_um, radius_um : (n,), of each tube
    """

    Parameters = MitochondriaParameters
    _SPACING_UM, _CLUMP_UM = 0.1, 0.9
    # Where a tube is painted, in radii from its axis: even angles around it, as a membrane
    # projects.
    _ACROSS = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 13)).astype(np.float32)

    def __init__(
        self,
        shape: tuple[int, int],
        pixel_size_um: float,
        rng: np.random.Generator,
        parameters: MitochondriaParameters | None = None,
        *,
        outline: CellOutline | None = None,
    ) -> None:
        self.parameters = p = parameters or MitochondriaParameters()
        super().__init__(shape, pixel_size_um, rng, p, outline=outline)
        area = float(np.prod(self._high_um - self._low_um))
        count = max(2, round(p.density_per_100_um2 * area / 100))
        spread = np.exp(rng.normal(0, p.diameter_spread, count))
        self.radius_um = (p.diameter_nm / 2000 * spread).astype(np.float32)
        length = p.length_um * np.exp(rng.normal(0, p.length_spread, count))
        self.length_um = np.clip(length, 2.5 * self.radius_um, 3 * p.length_um).astype(np.float32)
        arc = np.arange(0, 3 * p.length_um + self._SPACING_UM, self._SPACING_UM) - 1.5 * p.length_um
        middle = self._places(count)
        rest = worm_like_chains(
            rng, middle, rng.uniform(0, 2 * np.pi, count), arc, p.persistence_um
        )
        self._lines = SwayingLines(rng, rest, p.sway_nm / 1000, p.drift_nm / 1000, p.sway_time_s)
        self._draw_profile(arc, middle)
        self._settle()

    def _places(self, count: int) -> Image:
        """Return the middle of each, (n, 2) um: some near another one (a Thomas process)."""
        places = self._random_points(count)
        if self.parameters.clumped:
            near = self._rng.random(count) < self.parameters.clumped
            beside = places[self._rng.integers(count, size=count)]
            places[near] = (beside + self._rng.normal(0, self._CLUMP_UM, places.shape))[near]
        return places

    def _draw_profile(self, arc: NDArray[np.floating], middle: Image) -> None:
        """Fix how wide and how bright each tube is along its axis: rounded ends, uneven label."""
        p, rng, count = self.parameters, self._rng, len(middle)
        to_end = self.length_um[:, None] / 2 - np.abs(arc)
        cap = np.clip(to_end / self.radius_um[:, None], 0, 1)
        self._width = (self.radius_um[:, None] * np.sqrt(1 - (1 - cap) ** 2)).astype(np.float32)
        uneven = np.exp(0.2 * LineNoise(rng).along(arc / 0.5, count, rng))
        light = np.exp(rng.normal(0, p.brightness_spread, (count, 1))) * uneven * (to_end > 0)
        if self.outline is not None:
            inside = (self.outline.depth_um(middle) > 0.3) & (
                self.outline.nucleus_distance_um(middle) > 0
            )
            light = light * inside[:, None]
        blurred = np.clip(p.out_of_focus * rng.uniform(0, 2, (count, 1)), 0, 1)
        self._light = np.stack([light * (1 - blurred), light * blurred]).astype(np.float32)

    def _step(self, dt_s: float) -> None:
        self._lines.advance(dt_s)

    def _paint(self) -> Image:
        nodes, normals, p = self._lines.nodes_um, self._lines.normals, self.parameters
        painted = np.zeros((2, *self._canvas_shape), np.float32)
        for place in self._ACROSS:
            line = nodes + normals * (place * self._width)[..., None]
            membrane = 1 if abs(place) > 0.99 else p.filled
            # As high as the tube is there; angles are even, so that points are denser at the walls.
            inside = 1 - place**2
            share = np.float32((1 - p.matrix) * membrane + p.matrix * inside)
            painted += splat_polylines(
                self._to_pixels(line), share * self._light, self._canvas_shape
            )
        return painted
