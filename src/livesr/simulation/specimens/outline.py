"""The cell's shape: its edge, its nucleus and its organising centre.

Shared by the structures of one cell.

Lengths in um, points as (y, x), origin at the centre of the field's first pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Image = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CellOutline:
    """A lobed, star-shaped adherent cell.

    Parameters
    ----------
    centre_um, nucleus_um, organising_centre_um : (float, float)
        Centres as (y, x). Microtubules radiate from the organising centre.
    radius_um : float
        Mean distance of the edge from `centre_um`.
    nucleus_radius_um : float
        Radius of the (round) nucleus.
    lobes : tuple of (float, float)
        Relative amplitude and phase in radians of the edge's harmonics 1, 2, 3, ...
    """

    centre_um: tuple[float, float]
    radius_um: float
    nucleus_um: tuple[float, float]
    nucleus_radius_um: float
    organising_centre_um: tuple[float, float]
    lobes: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if self.radius_um <= 0 or self.nucleus_radius_um < 0:
            raise ValueError(
                f"a cell needs radius_um > 0 and nucleus_radius_um >= 0, got {self.radius_um} and "
                f"{self.nucleus_radius_um}"
            )

    @classmethod
    def random(cls, rng: np.random.Generator, field_um: tuple[float, float]) -> CellOutline:
        """Draw a cell of 25-70 um of which the field (y, x in um) sees some part."""
        field = np.asarray(field_um)
        radius = float(rng.uniform(12, 35))
        direction = rng.uniform(0, 2 * np.pi)
        away = np.array([np.sin(direction), np.cos(direction)])
        centre = field / 2 + away * rng.uniform(0, radius)
        nucleus_radius = float(rng.uniform(0.25, 0.4) * radius)
        nucleus = centre + rng.normal(0, 0.15 * radius, 2)
        side = rng.uniform(0, 2 * np.pi)
        organiser = nucleus + (nucleus_radius + 1) * np.array([np.sin(side), np.cos(side)])
        lobes = tuple(
            (float(rng.normal(0, 0.2 / k)), float(rng.uniform(0, 2 * np.pi))) for k in range(1, 6)
        )
        return cls(_pair(centre), radius, _pair(nucleus), nucleus_radius, _pair(organiser), lobes)

    @classmethod
    def typical(cls, field_um: tuple[float, float]) -> CellOutline:
        """Return the demo's cell.

        Nucleus towards the lower left, the edge crossing the upper right corner.
        """
        height, width = field_um
        reach = float(np.hypot(height, width))
        nucleus = (height * 0.85, width * 0.1)
        return cls(
            centre_um=nucleus,
            radius_um=0.83 * reach,
            nucleus_um=nucleus,
            nucleus_radius_um=0.2 * reach,
            organising_centre_um=(height * 0.62, width * 0.36),
            lobes=((0.03, 0.4), (0.05, 2.0), (0.04, 5.0), (0.02, 1.0)),
        )

    def depth_um(self, points_um: Floats) -> Floats:
        """Return how far inside the edge points (..., 2) lie, along the line to the centre.

        Negative outside.
        """
        offset = points_um - np.asarray(self.centre_um, np.float32)
        angle = np.arctan2(offset[..., 0], offset[..., 1])
        edge = np.ones_like(angle)
        for harmonic, (amplitude, phase) in enumerate(self.lobes, start=1):
            edge += amplitude * np.cos(harmonic * angle + phase)
        depth: Floats = self.radius_um * np.maximum(edge, 0.1) - np.hypot(
            offset[..., 0], offset[..., 1]
        )
        return depth

    def nucleus_distance_um(self, points_um: Floats) -> Floats:
        """Return the distance of points (..., 2) from the nucleus' surface; negative inside."""
        offset = points_um - np.asarray(self.nucleus_um, np.float32)
        distance: Floats = np.hypot(offset[..., 0], offset[..., 1]) - self.nucleus_radius_um
        return distance

    def mask(self, shape: tuple[int, int], pixel_size_um: float) -> Image:
        """Return a float32 (y, x) picture of the cell.

        1 in the cytoplasm, 0.5 in the nucleus, 0 outside.
        """
        rows, columns = (
            np.arange(size, dtype=np.float32) * np.float32(pixel_size_um) for size in shape
        )
        points = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
        mask = (self.depth_um(points) > 0).astype(np.float32)
        mask[(self.nucleus_distance_um(points) < 0) & (mask > 0)] = 0.5
        return mask


def _pair(point: Floats) -> tuple[float, float]:
    return float(point[0]), float(point[1])
