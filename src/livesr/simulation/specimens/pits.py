"""Clathrin-coated pits: small rings that appear, grow, and are gone within a minute or two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from livesr.simulation.specimens.noise import log_uniform
from livesr.simulation.specimens.outline import CellOutline
from livesr.simulation.specimens.raster import splat_polylines
from livesr.simulation.specimens.structure import Structure, StructureParameters

Image = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class PitParameters(StructureParameters):
    """How pits look and behave.

    Parameters
    ----------
    density_per_um2 : float
        Number per area of the membrane, 0.3-1 in fibroblasts.
    diameter_nm, diameter_spread : float
        Median diameter of the grown ring, 60-150 nm, and spread of its logarithm.
    lifetime_s : float
        Median time from appearing to uncoating.
    plaque_fraction : float
        Share that stays for long, larger and brighter.
    diffusion_um2_per_s : float
        Of a pit along the membrane.
    brightness_spread : float
        Variation of the logarithm of the brightness.
    """

    density_per_um2: float = 0.6
    diameter_nm: float = 110.0
    diameter_spread: float = 0.2
    lifetime_s: float = 60.0
    plaque_fraction: float = 0.08
    diffusion_um2_per_s: float = 2e-4
    brightness_spread: float = 0.35
    thickness_nm: float = 25.0
    out_of_focus: float = 0.05
    haze: float = 0.2

    def __post_init__(self) -> None:
        StructureParameters.__post_init__(self)
        self._check_positive("density_per_um2", "diameter_nm", "lifetime_s")
        self._check_shares("plaque_fraction")
        self._check_not_negative("diameter_spread", "diffusion_um2_per_s", "brightness_spread")

    @classmethod
    def random(cls, rng: np.random.Generator) -> Self:
        """Draw parameters over the wide range that training should see."""
        return cls(
            density_per_um2=log_uniform(rng, 0.2, 1.5),
            diameter_nm=rng.uniform(70, 150),
            diameter_spread=rng.uniform(0.05, 0.35),
            lifetime_s=log_uniform(rng, 30, 120),
            plaque_fraction=rng.uniform(0, 0.25),
            diffusion_um2_per_s=log_uniform(rng, 5e-5, 1e-3),
            brightness_spread=rng.uniform(0.1, 0.6),
            thickness_nm=rng.uniform(20, 35),
            out_of_focus=rng.uniform(0, 0.2),
            haze=log_uniform(rng, 0.02, 1),
        )


class CoatedPits(Structure):
    """The pits of one field. See `Structure` for the grid and `PitParameters` for the rest.

    Attributes
    ----------
    positions_um : (n, 2), present centres as (y, x)
    age : (n,), part of each one's life that is over, 0-1
    """

    Parameters = PitParameters
    _NODES = 13
    _RISE, _FALL = 0.4, 0.85  # of a life: grown from here on, gone from there on

    def __init__(
        self,
        shape: tuple[int, int],
        pixel_size_um: float,
        rng: np.random.Generator,
        parameters: PitParameters | None = None,
        *,
        outline: CellOutline | None = None,
    ) -> None:
        self.parameters = p = parameters or PitParameters()
        super().__init__(shape, pixel_size_um, rng, p, outline=outline)
        count = max(2, round(p.density_per_um2 * float(np.prod(self._high_um - self._low_um))))
        self.positions_um = self._random_points(count)
        self.age = rng.random(count).astype(np.float32)
        self._plaque = rng.random(count) < p.plaque_fraction
        self._life_s, self._radius_um, self._brightness = (
            np.ones(count, np.float32) for _ in range(3)
        )
        self._draw(np.arange(count))
        self._settle()

    def _draw(self, which: NDArray[np.intp]) -> None:
        """Draw life, size and brightness of the pits `which`."""
        p, rng, n = self.parameters, self._rng, len(which)
        large = 1 + 0.8 * self._plaque[which]
        self._life_s[which] = (
            p.lifetime_s * np.exp(rng.normal(0, 0.4, n)) * (1 + 9 * self._plaque[which])
        )
        self._radius_um[which] = (
            p.diameter_nm / 2000 * np.exp(rng.normal(0, p.diameter_spread, n)) * large
        )
        self._brightness[which] = np.exp(np.clip(rng.normal(0, p.brightness_spread, n), None, 1))

    def _step(self, dt_s: float) -> None:
        p, rng = self.parameters, self._rng
        self.age += np.float32(dt_s) / self._life_s
        over = np.flatnonzero(self.age >= 1)
        if len(over):
            self.age[over] = 0
            self.positions_um[over] = self._random_points(len(over))
            self._draw(over)
        step = np.sqrt(2 * p.diffusion_um2_per_s * dt_s)
        self.positions_um += (step * rng.standard_normal(self.positions_um.shape)).astype(
            np.float32
        )

    def _paint(self) -> Image:
        grown = np.clip(self.age / self._RISE, 0, 1)
        light = self._brightness * grown * np.clip((1 - self.age) / (1 - self._FALL), 0, 1)
        if self.outline is not None:
            light = light * (self.outline.depth_um(self.positions_um) > 0)
        angle = np.linspace(0, 2 * np.pi, self._NODES, dtype=np.float32)
        radius = self._radius_um * (0.4 + 0.6 * grown)
        circle = np.stack([np.sin(angle), np.cos(angle)], axis=-1)
        rings = self.positions_um[:, None] + radius[:, None, None] * circle
        weights = np.broadcast_to(light[:, None], rings.shape[:2])
        out = self.parameters.out_of_focus
        return splat_polylines(
            self._to_pixels(rings),
            np.stack([(1 - out) * weights, out * weights]),
            self._canvas_shape,
        )
