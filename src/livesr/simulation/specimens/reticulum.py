"""Endoplasmic reticulum: a jittering network of tubules with three-way junctions, sheets and loose
ends.

The network is a relaxed Voronoi tessellation. Junctions carry the motion; tubules, branches and
sheets hang on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Voronoi, cKDTree

from livesr.simulation.specimens.noise import AreaNoise, LineNoise, log_uniform, mean_reverting
from livesr.simulation.specimens.outline import CellOutline
from livesr.simulation.specimens.raster import splat, splat_polylines
from livesr.simulation.specimens.structure import Structure, StructureParameters

Floats = NDArray[np.floating]
Indices = NDArray[np.intp]
Image = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReticulumParameters(StructureParameters):
    """How the endoplasmic reticulum looks and behaves.

    Parameters
    ----------
    mesh_um : float
        Typical width of a polygon, 0.3-3 um in cells.
    even : float
        How alike the polygons are, 0-1: from a tessellation of random places to one of places that
        keep their distance.
    uneven : float
        How much denser the mesh is in some regions than in others, 0-1.
    missing_fraction : float
        Share of the tessellation's edges that carry no tubule, which leaves larger, angular
        polygons. At most about a third can be taken out before the network falls apart; more is not
        taken.
    tension : float
        How far the tubules pull each junction towards the middle of its neighbours, 0-1; evens out
        the mesh.
    loose_fraction : float
        Share of the tubules that end in the cytoplasm; these grow and retract.
    branches_per_tubule, loops_per_tubule : float
        Short side branches and rings per tubule.
    loop_um : float
        Diameter of the largest rings; the smallest have 0.2 um.
    long_per_100_um2 : float
        Long, rather straight tubules of 2.5-8 um that cross the network and look like microtubules.
    sheet_fraction : float
        Share of the polygons that are filled by a sheet, side by side and more often near the
        nucleus.
    sheet_brightness : float
        Relative to a tubule in focus.
    sheet_grain_um : float
        Size of a sheet's light and dark parts.
    holes : float
        Share of a sheet that is open: fenestrations of the grain's size.
    cloud : float
        Share of the sheets' light that lies slightly out of focus, as the dense reticulum around a
        nucleus does.
    bend, wrinkle_nm : float
        Bow of a tubule relative to its length, and its irregularity.
    jitter_nm, jitter_time_s : float
        Standard deviation and correlation time of the junctions' motion.
    brightness_spread, texture_spread : float
        Variation (of the logarithm) between tubules and along each.
    shading, shading_um : float
        Variation of brightness over the cell, 0-1, and the size of its bright and dark parts.
    out_of_focus : float
        Mean share of light that lies out of focus.
    thickness_nm, defocus_nm, haze : float
        See `StructureParameters`.
    """

    mesh_um: float = 1.5
    even: float = 0.0
    uneven: float = 0.6
    missing_fraction: float = 0.18
    tension: float = 0.0
    loose_fraction: float = 0.08
    branches_per_tubule: float = 0.08
    loops_per_tubule: float = 0.03
    loop_um: float = 0.4
    long_per_100_um2: float = 2.0
    sheet_fraction: float = 0.06
    sheet_brightness: float = 0.6
    sheet_grain_um: float = 0.14
    holes: float = 0.0
    cloud: float = 0.0
    bend: float = 0.055
    wrinkle_nm: float = 25.0
    jitter_nm: float = 60.0
    jitter_time_s: float = 3.0
    brightness_spread: float = 0.2
    texture_spread: float = 0.4
    shading: float = 0.6
    shading_um: float = 4.0
    out_of_focus: float = 0.08
    thickness_nm: float = 32.0
    defocus_nm: float = 110.0
    haze: float = 0.5

    def __post_init__(self) -> None:
        StructureParameters.__post_init__(self)
        self._check_positive("mesh_um", "jitter_time_s")
        self._check_shares(
            "uneven", "missing_fraction", "tension", "loose_fraction", "sheet_fraction", "shading"
        )
        self._check_shares("even", "holes", "cloud")
        self._check_positive("loop_um", "shading_um", "sheet_grain_um")
        self._check_not_negative(
            "branches_per_tubule", "loops_per_tubule", "long_per_100_um2", "sheet_brightness"
        )
        self._check_not_negative(
            "bend", "wrinkle_nm", "jitter_nm", "brightness_spread", "texture_spread"
        )

    @classmethod
    def random(cls, rng: np.random.Generator) -> Self:
        """Draw parameters over the wide range that training should see."""
        mesh = log_uniform(rng, 0.3, 2.8)
        return cls(
            mesh_um=mesh,
            even=rng.choice([0.0, 1.0]) * rng.uniform(0, 1),
            uneven=rng.uniform(0, 0.9),
            missing_fraction=rng.uniform(0, 0.35),
            tension=rng.uniform(0, 1),
            loose_fraction=rng.uniform(0, 0.3),
            branches_per_tubule=rng.uniform(0, 0.4) * min(mesh, 1),
            loops_per_tubule=log_uniform(rng, 0.003, 0.08) * min(mesh, 1),
            loop_um=rng.uniform(0.3, 0.8),
            long_per_100_um2=rng.choice([0.0, 0.0, 1.0]) * log_uniform(rng, 1, 8),
            sheet_fraction=rng.choice([0.0, 1.0]) * log_uniform(rng, 0.02, 0.8),
            sheet_brightness=rng.uniform(0.2, 1.4),
            sheet_grain_um=log_uniform(rng, 0.12, 0.7),
            holes=rng.choice([0.0, 1.0]) * rng.uniform(0.05, 0.5),
            cloud=rng.choice([0.0, 1.0]) * rng.uniform(0, 1),
            bend=rng.uniform(0.02, 0.2),
            wrinkle_nm=rng.uniform(5, 60) * min(mesh, 1),
            jitter_nm=rng.uniform(30, 140) * min(mesh, 1),
            jitter_time_s=rng.uniform(1, 6),
            brightness_spread=rng.uniform(0.05, 0.5),
            texture_spread=rng.uniform(0.05, 0.7),
            shading=rng.uniform(0, 1),
            shading_um=log_uniform(rng, 0.7, 5),
            out_of_focus=rng.uniform(0, 0.5),
            thickness_nm=rng.uniform(22, 60),
            defocus_nm=rng.uniform(70, 220),
            haze=log_uniform(rng, 0.05, 2),
        )


class EndoplasmicReticulum(Structure):
    """The endoplasmic reticulum of one field.

    See `Structure` for the grid, `ReticulumParameters` for the rest.
    """

    Parameters = ReticulumParameters
    _MAX_NODES, _MIN_NODES = 33, 11
    _LOOP_NODES = 13

    def __init__(
        self,
        shape: tuple[int, int],
        pixel_size_um: float,
        rng: np.random.Generator,
        parameters: ReticulumParameters | None = None,
        *,
        outline: CellOutline | None = None,
    ) -> None:
        self.parameters = p = parameters or ReticulumParameters()
        super().__init__(shape, pixel_size_um, rng, p, outline=outline)
        self._noise = LineNoise(rng)
        # A tubule of a fine mesh is short; no more nodes than it needs are drawn.
        self._nodes = max(self._MIN_NODES, min(self._MAX_NODES, round(22 * p.mesh_um)))
        self._shading = AreaNoise(self._low_um, self._high_um, p.shading_um, rng)
        self._weave()
        self._add_long_tubules()
        self._shape_tubules()
        self._add_branches()
        self._add_loops()
        self._settle()

    def _weave(self) -> None:
        """Tessellate: junctions, the tubules between them, and the polygons that sheets fill."""
        p, rng = self.parameters, self._rng
        seeds = self._seeds()
        tessellation = Voronoi(seeds)
        ridges = np.asarray(tessellation.ridge_vertices, np.intp)
        low, high = self._low_um - 1, self._high_um + 1
        known = np.all((tessellation.vertices > low) & (tessellation.vertices < high), axis=1)
        whole = (ridges >= 0).all(axis=1) & known[ridges].all(axis=1)
        kept = _thin(rng.permutation(ridges[whole]), round(p.missing_fraction * whole.sum()))
        self._junctions = _pulled(tessellation.vertices.astype(np.float32), kept, p.tension)
        # Which end is loose is left to chance.
        self._tubules = rng.permuted(kept, axis=1)
        polygons = [tessellation.regions[region] for region in tessellation.point_region]
        self._fill_sheets(seeds, [np.asarray(q) for q in polygons], known)
        self._drift = np.zeros_like(self._junctions)
        self._jitter = np.zeros_like(self._junctions)
        mean_reverting(self._jitter, np.inf, 1.0, p.jitter_nm / 1000, rng)

    def _seeds(self) -> Floats:
        """Draw the polygons' centres, pushed apart, denser where the cell's mesh is fine."""
        p, rng = self.parameters, self._rng
        area = float(np.prod(self._high_um - self._low_um + 2))
        count = max(16, int(area / (0.8 * p.mesh_um**2)))
        seeds = rng.uniform(self._low_um - 1, self._high_um + 1, (2 * count, 2))
        fine = 1 - p.uneven * AreaNoise(self._low_um, self._high_um, 5.0, rng)(seeds)
        if self.outline is not None:
            fine = fine * np.clip(1.2 - 0.06 * self.outline.nucleus_distance_um(seeds), 0.3, 1.2)
        seeds = seeds[rng.random(len(seeds)) < 0.5 * fine / max(fine.mean(), 1e-3)]
        if len(seeds) < 8:
            seeds = rng.uniform(self._low_um - 1, self._high_um + 1, (8, 2))
        for _ in range(3 + round(9 * p.even)):
            distance, neighbour = (np.asarray(found) for found in cKDTree(seeds).query(seeds, 2))
            push = np.clip(
                (0.7 + 0.3 * p.even) * p.mesh_um - distance[:, 1:], 0, None
            ) / np.maximum(distance[:, 1:], 1e-3)
            seeds = seeds + 0.4 * push * (seeds - seeds[neighbour[:, 1]])
        return seeds

    def _fill_sheets(
        self, seeds: Floats, polygons: list[Indices], known: NDArray[np.bool_]
    ) -> None:
        """Choose the filled polygons and spread points over them, tied to their corners."""
        p, rng = self.parameters, self._rng
        likely = AreaNoise(self._low_um, self._high_um, 3.0, rng)(seeds)
        if self.outline is not None:
            likely = likely - 0.08 * np.clip(self.outline.nucleus_distance_um(seeds), 0, 10)
        whole = np.array([len(q) > 2 and min(q) >= 0 and bool(known[q].all()) for q in polygons])
        chosen = np.argsort(np.where(whole, -likely, np.inf))[
            : round(p.sheet_fraction * whole.sum())
        ]
        # A convex polygon is a fan of triangles around its first corner.
        fans = [
            np.stack([np.full(len(q) - 2, q[0]), q[1:-1], q[2:]], axis=1)
            for q in (polygons[i] for i in chosen)
        ]
        triangles = np.concatenate([np.zeros((0, 3), np.intp), *fans])
        a, b, c = (self._junctions[triangles[:, corner]] for corner in range(3))
        u, v = b - a, c - a
        area_px = 0.5 * np.abs(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]) / self.pixel_size_um**2
        points = np.ceil(2 * area_px).astype(np.intp)
        owner = np.repeat(np.arange(len(triangles)), points)
        self._sheet_corners = triangles[owner]
        # Evenly over each triangle, whatever its shape; chance leaves the grain that sheets have.
        root, second = np.sqrt(rng.random(len(owner))), rng.random(len(owner))
        self._sheet_shares = np.stack(
            [1 - root, root * (1 - second), root * second], axis=1
        ).astype(np.float32)
        texture = AreaNoise(self._low_um, self._high_um, p.sheet_grain_um, rng)
        peak = p.sheet_brightness / (np.sqrt(2 * np.pi) * self._sigma_px)
        light = (area_px / np.maximum(points, 1))[owner] * peak
        place = self._sheet_points(self._junctions)
        grain = texture(place)
        if p.holes > 0 and len(grain):
            light = light * (grain > np.quantile(grain, p.holes))
        self._sheet_light = (light * (0.3 + 1.4 * grain) * self._light_at(place)).astype(np.float32)

    def _sheet_points(self, junctions: Image) -> Image:
        points: Image = np.einsum("nc,ncd->nd", self._sheet_shares, junctions[self._sheet_corners])
        return points

    def _add_long_tubules(self) -> None:
        """Stretch long tubules between distant junctions of the network."""
        rng = self._rng
        area = float(np.prod(self._high_um - self._low_um))
        wanted = rng.poisson(self.parameters.long_per_100_um2 * area / 100)
        pairs = rng.integers(0, len(self._junctions), (100 * wanted, 2))
        ends = self._junctions[pairs]
        inside = np.all((ends > self._low_um) & (ends < self._high_um), axis=(1, 2))
        span = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)
        pairs = pairs[inside & (span > 2.5) & (span < 8)][:wanted]
        self._long = np.repeat([False, True], [len(self._tubules), len(pairs)])
        self._tubules = np.concatenate([self._tubules, pairs])

    def _shape_tubules(self) -> None:
        """Bow, wrinkles, brightness and loose ends of each tubule."""
        p, rng, count = self.parameters, self._rng, len(self._tubules)
        along = np.linspace(0, 1, self._nodes, dtype=np.float32)
        start, stop = (self._junctions[self._tubules[:, end]] for end in range(2))
        length = np.linalg.norm(stop - start, axis=1)[:, None].astype(np.float32)
        arc = along * length
        bow = rng.normal(0, p.bend, (count, 1)) * length * np.where(self._long, 0.5, 1)[:, None]
        # Near a junction all of this fades, so that the tubules still meet.
        fade = np.minimum(1, np.minimum(arc, length - arc) / 0.2)
        wrinkle = self._noise.along(arc / 0.35, count, rng) + 1.5 * self._noise.along(
            arc / 0.7, count, rng
        )
        wrinkle *= np.where(self._long, 0.4, 1)[:, None] * np.minimum(1, length / 1.5)
        self._rest = (bow * np.sin(np.pi * along) + p.wrinkle_nm / 1000 * fade * wrinkle).astype(
            np.float32
        )
        self._modes = np.sin(np.pi * np.arange(1, 4)[:, None] * along).astype(np.float32)
        self._wiggle_spread = (0.025 * np.minimum(1, length) / np.arange(1, 4)).astype(np.float32)
        self._wiggle = np.zeros((count, 3), np.float32)
        mean_reverting(self._wiggle, np.inf, 1.0, self._wiggle_spread, rng)
        spread = p.brightness_spread * rng.standard_normal((count, 1))
        texture = p.texture_spread * self._noise.along(arc / 0.18, count, rng)
        self._along = along
        light = np.exp(spread + texture) * self._light_at(self._tubule_nodes())
        focus = np.clip(
            1.1 - p.out_of_focus * (1.5 + 1.2 * self._noise.along(arc / 3, count, rng)), 0, 1
        )
        self._light = np.stack([light * focus, light * (1 - focus)]).astype(np.float32)
        loose = rng.random(count) < p.loose_fraction
        self._mean_extent = np.where(loose, rng.uniform(0.3, 0.95, count), 2).astype(np.float32)
        self._extent = np.zeros(count, np.float32)
        mean_reverting(self._extent, np.inf, 1.0, 0.12, rng)

    def _light_at(self, points_um: Floats) -> Image:
        """Return how bright the cell is at points (..., 2)."""
        light = 1 - self.parameters.shading * self._shading(points_um)
        if self.outline is not None:
            light = light * (self.outline.depth_um(points_um) > 0.2)
            # The nucleus lifts the reticulum out of focus.
            light = light * np.clip(
                0.8 + 0.5 * self.outline.nucleus_distance_um(points_um), 0.25, 1
            )
        return np.asarray(light, np.float32)

    def _add_branches(self) -> None:
        """Let short branches grow from the middle of some tubules."""
        rng = self._rng
        count = rng.poisson(self.parameters.branches_per_tubule * len(self._tubules))
        self._branch_parent = rng.integers(0, max(1, len(self._tubules)), count)
        self._branch_node = rng.integers(4, self._nodes - 4, count)
        angle, reach = rng.uniform(0, 2 * np.pi, count), rng.uniform(0.2, 0.9, count)
        along = np.linspace(0, 1, self._LOOP_NODES, dtype=np.float32)
        turned = angle[:, None] + rng.normal(0, 0.7, (count, 1)) * along
        self._branch_shape = (reach[:, None, None] * along[:, None]) * np.stack(
            [np.sin(turned), np.cos(turned)], -1
        )
        self._branch_turn = np.zeros(count, np.float32)
        self._branch_light = self._parent_light(self._branch_parent, self._branch_node)

    def _add_loops(self) -> None:
        """Hang small rings on some tubules."""
        rng = self._rng
        count = rng.poisson(self.parameters.loops_per_tubule * len(self._tubules))
        self._loop_parent = rng.integers(0, max(1, len(self._tubules)), count)
        self._loop_node = rng.integers(4, self._nodes - 4, count)
        angle = rng.uniform(0, 2 * np.pi, (count, 1)) + np.linspace(0, 2 * np.pi, self._LOOP_NODES)
        circle = np.stack([np.sin(angle), np.cos(angle)], axis=-1)
        radius = rng.uniform(0.1, self.parameters.loop_um / 2, (count, 1, 1))
        self._loop_shape = (radius * (circle - circle[:, :1])).astype(np.float32)
        self._loop_light = self._parent_light(self._loop_parent, self._loop_node)

    def _parent_light(self, parent: Indices, node: Indices) -> Image:
        """Return the light (2, n, 1) of parts that hang on tubules, none on a part of the tubule
        that may vanish.
        """
        light = self._light[:, parent, node] * (self._mean_extent[parent] > 1)
        return np.asarray(
            light[:, :, None] * self._rng.uniform(0.5, 1, (len(parent), 1)), np.float32
        )

    def _tubule_nodes(self) -> Image:
        """Present nodes of all tubules, (n, m, 2) in um as (y, x)."""
        junctions = self._junctions + self._jitter + self._drift
        start, stop = (junctions[self._tubules[:, end]][:, None] for end in range(2))
        chord = stop - start
        normal = chord[..., ::-1] * np.array([1, -1], np.float32)
        normal /= np.linalg.norm(chord, axis=2, keepdims=True) + np.float32(1e-6)
        lateral = self._rest + self._wiggle @ self._modes
        nodes: Image = start + chord * self._along[:, None] + normal * lateral[..., None]
        return nodes

    def _step(self, dt_s: float) -> None:
        p, rng = self.parameters, self._rng
        mean_reverting(self._jitter, dt_s, p.jitter_time_s, p.jitter_nm / 1000, rng)
        mean_reverting(self._drift, dt_s, 10 * p.jitter_time_s, 2 * p.jitter_nm / 1000, rng)
        mean_reverting(self._wiggle, dt_s, 3.0, self._wiggle_spread, rng)
        mean_reverting(self._extent, dt_s, 6.0, 0.12, rng)
        mean_reverting(self._branch_turn, dt_s, 3.0, 0.25, rng)

    def _paint(self) -> Image:
        shape, nodes = self._canvas_shape, self._tubule_nodes()
        extent = np.clip(self._mean_extent + self._extent, 0, 1) * (self._nodes - 1)
        painted = splat_polylines(self._to_pixels(nodes), self._light, shape, visible=extent)
        cos, sin = np.cos(self._branch_turn), np.sin(self._branch_turn)
        turn = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], axis=-1)
        branches = (
            nodes[self._branch_parent, self._branch_node][:, None] + self._branch_shape @ turn
        )
        loops = nodes[self._loop_parent, self._loop_node][:, None] + self._loop_shape
        extras = np.concatenate([branches, loops])
        light = np.concatenate([self._branch_light, self._loop_light], axis=1)
        light = np.broadcast_to(light, (2, *extras.shape[:2]))
        painted += splat_polylines(self._to_pixels(extras), light, shape)
        sheet = self._sheet_points(self._junctions + self._jitter + self._drift)
        cloud = np.float32(self.parameters.cloud)
        filled = splat(self._to_pixels(sheet), self._sheet_light[None], shape)[0]
        painted += np.stack([(1 - cloud) * filled, cloud * filled])
        return painted


def _pulled(junctions: Image, ridges: Indices, tension: float) -> Image:
    """Let every tubule pull at its two ends (n, 2).

    What hangs on one tubule only, or on none, stays.
    """
    degree = np.bincount(ridges.ravel(), minlength=len(junctions))[:, None]
    pull = np.float32(0.5 * tension) * (degree > 1) / np.maximum(degree, 1)
    for _ in range(4):
        sums = np.zeros_like(junctions)
        for start, stop in (ridges.T, ridges.T[::-1]):
            np.add.at(sums, start, junctions[stop])
        junctions = np.asarray(junctions + pull * (sums - degree * junctions), np.float32)
    return junctions


def _thin(ridges: Indices, surplus: int) -> Indices:
    """Take out up to `surplus` of the ridges (n, 2), the first ones first, where no junction is
    left a dead end.
    """
    degree = np.bincount(ridges.ravel()).tolist()
    kept = []
    for start, stop in ridges.tolist():
        if surplus > 0 and degree[start] > 2 and degree[stop] > 2:
            surplus -= 1
            degree[start] -= 1
            degree[stop] -= 1
        else:
            kept.append((start, stop))
    return np.asarray(kept, np.intp).reshape(-1, 2)
