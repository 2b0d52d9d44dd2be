"""Lysosomes: wrinkled rings and spots that wait in their cages or run along microtubules.

A lysosome sits at an attachment (a place of its own, or a place on a filament) plus an offset that
returns to zero. Attaching and letting go change both at once, so that nothing ever jumps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from livesr.simulation.specimens.microtubules import Microtubules
from livesr.simulation.specimens.noise import log_uniform, mean_reverting
from livesr.simulation.specimens.outline import CellOutline
from livesr.simulation.specimens.raster import splat, splat_polylines
from livesr.simulation.specimens.structure import Structure, StructureParameters, require

Floats = NDArray[np.floating]
Image = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class LysosomeParameters(StructureParameters):
    """How lysosomes look and behave.

    Parameters
    ----------
    density_per_100_um2 : float
        Number per area of the cell.
    spot_fraction : float
        Share of filled spots of 0.1-0.25 um; the others are rings.
    diameter_um, diameter_spread : float
        Median diameter of the rings and spread of its logarithm.
    largest_um : float
        No ring is larger; vacuoles reach 2.6 um, and none is smaller than 0.22 um.
    filled : float
        Mean brightness of a ring's inside relative to its wall, 0-1.
    grain : float
        Unevenness of a lysosome's inside and wall over 0.1-0.4 um, of the logarithm of the light.
    wrinkle : float
        Relative amplitude of the deviations from a circle.
    clusters, clustered_fraction, cluster_um : int, float, float
        Number of clusters (the first, at the organising centre, is the largest), the share that
        lies in one, and their spread.
    touching_fraction : float
        Share that touches another lysosome.
    brightness_spread : float
        Variation of the logarithm of the brightness between lysosomes.
    dim_cluster : float
        How much darker the lysosomes of clusters are, 0 (not) to 1 (black).
    mobile_fraction : float
        Share that runs along microtubules.
    speed_um_per_s, run_um, pause_s : float
        Mean speed and length of the runs and mean duration of the pauses between them.
    confinement_um, diffusion_um2_per_s : float
        Radius of the cage of the others, and the diffusion coefficient of a ring of median size
        within it.
    out_of_focus : float
        Share that lies out of focus.
    thickness_nm, defocus_nm, haze : float
        See `StructureParameters`.
    """

    density_per_100_um2: float = 40.0
    spot_fraction: float = 0.35
    diameter_um: float = 0.55
    diameter_spread: float = 0.28
    largest_um: float = 1.0
    filled: float = 0.3
    grain: float = 0.0
    wrinkle: float = 0.09
    clusters: int = 8
    clustered_fraction: float = 0.5
    cluster_um: float = 1.1
    touching_fraction: float = 0.3
    brightness_spread: float = 0.55
    dim_cluster: float = 0.35
    mobile_fraction: float = 0.25
    speed_um_per_s: float = 0.8
    run_um: float = 2.0
    pause_s: float = 2.0
    confinement_um: float = 0.12
    diffusion_um2_per_s: float = 0.005
    out_of_focus: float = 0.2
    thickness_nm: float = 34.0
    defocus_nm: float = 110.0
    haze: float = 0.5

    def __post_init__(self) -> None:
        StructureParameters.__post_init__(self)
        self._check_positive(
            "density_per_100_um2",
            "diameter_um",
            "cluster_um",
            "speed_um_per_s",
            "run_um",
            "pause_s",
        )
        require(self.largest_um >= 0.22, f"largest_um must be at least 0.22, got {self.largest_um}")
        self._check_positive("confinement_um", "diffusion_um2_per_s")
        self._check_shares(
            "spot_fraction", "filled", "clustered_fraction", "touching_fraction", "dim_cluster"
        )
        self._check_shares("mobile_fraction")
        self._check_not_negative("diameter_spread", "grain", "wrinkle", "brightness_spread")
        require(self.clusters >= 1, f"clusters must be at least 1, got {self.clusters}")

    @classmethod
    def random(cls, rng: np.random.Generator) -> Self:
        """Draw parameters over the wide range that training should see."""
        diameter = log_uniform(rng, 0.3, 1.3)
        return cls(
            density_per_100_um2=log_uniform(rng, 15, 350) * min(1, (0.6 / diameter) ** 2),
            spot_fraction=rng.uniform(0, 0.8),
            diameter_um=diameter,
            diameter_spread=rng.uniform(0.1, 0.5),
            largest_um=2.6,
            filled=rng.uniform(0, 1),
            grain=rng.uniform(0, 1),
            wrinkle=rng.uniform(0.02, 0.15),
            clusters=int(rng.integers(1, 10)),
            clustered_fraction=rng.uniform(0, 0.9),
            cluster_um=log_uniform(rng, 0.6, 3),
            touching_fraction=rng.uniform(0, 0.7),
            brightness_spread=rng.uniform(0.2, 1.2),
            dim_cluster=rng.uniform(0, 0.9),
            mobile_fraction=rng.uniform(0.1, 0.4),
            speed_um_per_s=rng.uniform(0.4, 1.2),
            run_um=rng.uniform(0.5, 5),
            pause_s=log_uniform(rng, 0.5, 8),
            confinement_um=log_uniform(rng, 0.05, 0.25),
            diffusion_um2_per_s=log_uniform(rng, 0.001, 0.05),
            out_of_focus=rng.uniform(0, 0.7),
            thickness_nm=rng.uniform(22, 60),
            defocus_nm=rng.uniform(70, 180),
            haze=log_uniform(rng, 0.05, 2),
        )


class Lysosomes(Structure):
    """The lysosomes of one field.

    See `Structure` for the grid and `LysosomeParameters` for the rest.

    Parameters
    ----------
    microtubules : Microtubules, optional
        The tracks to run along, on the same grid; advance them before the lysosomes. Without them,
        runs go straight.

    Attributes
    ----------
    positions_um : (n, 2) float32
        Present centres as (y, x).
    running : (n,) bool
        Those that move along a track now.
    """

    Parameters = LysosomeParameters
    _HARMONICS = np.arange(2, 7, dtype=np.float32)
    _RING_NODES = 28
    _REACH_UM = 0.4
    """A lysosome can bind a filament from this far."""
    _CATCH_S = 0.3
    """It takes this long to be drawn onto the filament."""

    def __init__(
        self,
        shape: tuple[int, int],
        pixel_size_um: float,
        rng: np.random.Generator,
        parameters: LysosomeParameters | None = None,
        *,
        outline: CellOutline | None = None,
        microtubules: Microtubules | None = None,
    ) -> None:
        self.parameters = p = parameters or LysosomeParameters()
        super().__init__(shape, pixel_size_um, rng, p, outline=outline)
        self._microtubules = microtubules
        area = float(np.prod(self._high_um - self._low_um))
        self.count = max(1, round(p.density_per_100_um2 * area / 100))
        self._draw_shapes()
        self._scatter_content()
        self._place()
        self._set_off()
        self._settle()

    def _draw_shapes(self) -> None:
        """Radius, wrinkles, wall, filling and focus of each lysosome."""
        p, rng, count = self.parameters, self._rng, self.count
        self._spot = rng.random(count) < p.spot_fraction
        ring = np.clip(
            p.diameter_um / 2 * np.exp(rng.normal(0, p.diameter_spread, count)),
            0.11,
            p.largest_um / 2,
        )
        self.radius_um = np.where(self._spot, rng.uniform(0.03, 0.12, count), ring).astype(
            np.float32
        )
        self._angles = np.linspace(0, 2 * np.pi, self._RING_NODES, dtype=np.float32)
        irregular = np.exp(rng.normal(0, 0.5, (count, 1)))
        self._wrinkle_spread = (irregular * p.wrinkle * np.array([1, 0.7, 0.5, 0.35, 0.2])).astype(
            np.float32
        )
        self._wrinkles = np.zeros((count, len(self._HARMONICS)), np.float32)
        mean_reverting(self._wrinkles, np.inf, 1.0, self._wrinkle_spread, rng)
        self._wrinkle_phase = rng.uniform(0, 2 * np.pi, self._wrinkles.shape).astype(np.float32)
        self._angle = rng.uniform(0, 2 * np.pi, count).astype(np.float32)
        self._brightness = np.exp(
            np.clip(rng.normal(0, p.brightness_spread, count), None, 1)
        ).astype(np.float32)
        filled = rng.gamma(1.5, p.filled / 1.5 + 1e-3, count)
        self._filled = np.where(
            self._spot, rng.uniform(0.8, 1.6, count), np.minimum(filled, 1.2)
        ).astype(np.float32)
        one, three = rng.uniform(0, 2 * np.pi, (2, count, 1))
        self._wall = 1 + rng.uniform(0, 0.7, (count, 1)) * np.cos(self._angles + one)
        self._wall += rng.uniform(0, 0.5, (count, 1)) * np.cos(3 * self._angles + three)
        self._wall = np.maximum(self._wall, 0.05)
        self._wall *= ~self._spot[:, None]

    def _scatter_content(self) -> None:
        """Spread points evenly (sunflower spirals) over each lysosome's inside.

        Clumps make it uneven.
        """
        rng = self._rng
        area_px = np.pi * (self.radius_um / self.pixel_size_um) ** 2
        points = np.maximum(6, np.ceil(1.5 * area_px)).astype(np.intp)
        points[self._filled < 0.03] = 0
        self._owner = owner = np.repeat(np.arange(self.count), points)
        order = np.arange(len(owner)) - (np.cumsum(points) - points)[owner]
        self._content_reach = np.sqrt((order + 0.5) / points[owner]).astype(np.float32)
        self._content_angle = np.mod(
            order * np.float32(np.pi * (3 - np.sqrt(5))), 2 * np.pi
        ).astype(np.float32)
        # As bright, at a filling of 1, as the middle of a wall: 1 / (sqrt(2 pi) sigma) per pixel.
        light = (
            area_px / np.maximum(points, 1) / (np.sqrt(2 * np.pi) * self._sigma_px) * self._filled
        )[owner]
        light = light * np.exp(0.3 * rng.standard_normal(len(owner)))
        inside = self._content_reach * np.exp(1j * self._content_angle)
        clump = (0.5 * rng.random(self.count) * np.exp(2j * np.pi * rng.random(self.count)))[owner]
        excess = np.where(rng.random(self.count) < 0.2, rng.uniform(0.5, 2, self.count), 0)[owner]
        self._content_light = (
            light * (1 + excess * np.exp(-(np.abs(inside - clump) ** 2) / 0.12))
        ).astype(np.float32)
        if self.parameters.grain > 0:
            place = self.radius_um[owner] * inside
            self._content_light *= self._grain(np.stack([place.imag, place.real], axis=1), owner)
            wall = self.radius_um[:, None] * np.exp(1j * self._angles)
            points = np.stack([wall.imag.ravel(), wall.real.ravel()], axis=1)
            self._wall *= self._grain(
                points, np.repeat(np.arange(self.count), self._RING_NODES)
            ).reshape(wall.shape)

    def _grain(self, points_um: Floats, owner: NDArray[np.intp]) -> Image:
        """Return the light's unevenness at points (n, 2) of lysosomes `owner` (n,).

        Three waves of each one's own.
        """
        rng, log_light = self._rng, np.zeros(len(owner))
        for _ in range(3):
            turn, phase = rng.uniform(0, 2 * np.pi, (2, self.count))
            per_um = 2 * np.pi / rng.uniform(0.15, 0.4, self.count)
            along = points_um[:, 0] * np.sin(turn)[owner] + points_um[:, 1] * np.cos(turn)[owner]
            log_light += np.cos(per_um[owner] * along + phase[owner])
        # The waves would be stripes across a vacuole, which is even.
        log_light *= np.minimum(1, (0.4 / self.radius_um[owner]) ** 2)
        return np.asarray(np.exp(self.parameters.grain * log_light), np.float32)

    def _place(self) -> None:
        """Scatter over the cell, gather in clusters, lean some against a neighbour."""
        p, rng, count = self.parameters, self._rng, self.count
        centres, place = self._random_points(p.clusters), self._random_points(count)
        # The first cluster holds as many as all the others: the cloud beside the nucleus.
        cluster = np.where(rng.random(count) < 0.5, 0, rng.integers(0, p.clusters, count))
        spread = np.where(cluster == 0, 2.0, 1.0) * p.cluster_um
        if self.outline is not None:
            centres[0] = self.outline.organising_centre_um
        clustered = rng.random(count) < p.clustered_fraction
        home = centres[cluster] + spread[:, None] * rng.standard_normal((count, 2))
        clustered &= self._allowed(home)
        place[clustered] = home[clustered]
        touching = np.flatnonzero(rng.random(count) < p.touching_fraction)
        neighbour = rng.integers(0, count, len(touching))
        direction = rng.uniform(0, 2 * np.pi, len(touching))
        gap = 0.95 * (self.radius_um[touching] + self.radius_um[neighbour])[:, None]
        place[touching] = place[neighbour] + gap * np.stack(
            [np.sin(direction), np.cos(direction)], axis=1
        )
        self._brightness *= (1 - p.dim_cluster * clustered) * self._allowed(place)
        blurred = rng.random(count) < p.out_of_focus * (1 + clustered)
        self._focus = np.where(blurred, rng.uniform(0, 0.5, count), 1).astype(np.float32)
        self._home = place
        self._offset = np.zeros((count, 2), np.float32)
        self.positions_um = place.copy()

    def _allowed(self, place_um: Floats) -> NDArray[np.bool_]:
        """Return which places lie in the cytoplasm."""
        if self.outline is None:
            return np.ones(len(place_um), bool)
        return (self.outline.depth_um(place_um) > 0.3) & (
            self.outline.nucleus_distance_um(place_um) > -0.5
        )

    def _set_off(self) -> None:
        """Put the mobile ones on their tracks, the others into their cages."""
        p, rng, count = self.parameters, self._rng, self.count
        self._mobile = rng.random(count) < p.mobile_fraction
        self._filament = np.full(count, -1, np.intp)
        self._birth = np.zeros(count, np.intp)
        self._arc_um = np.zeros(count, np.float32)
        self._direction = np.zeros(count, np.float32)
        self._heading = rng.uniform(0, 2 * np.pi, count).astype(np.float32)
        self._speed = np.clip(
            p.speed_um_per_s * np.exp(rng.normal(0, 0.25, count)), 0.3, 1.5
        ).astype(np.float32)
        self.running = np.zeros(count, bool)
        mean_reverting(self._offset, np.inf, 1.0, p.confinement_um, rng)
        mobile = np.flatnonzero(self._mobile)
        self._bind(mobile, reach_um=np.inf)
        # On the filament from the start.
        self._offset[mobile] = 0
        self._home[mobile] = self._attachment()[mobile]
        self.running[mobile] = rng.random(len(mobile)) < 0.5
        self.positions_um = self._attachment() + self._offset

    def _step(self, dt_s: float) -> None:
        p, rng = self.parameters, self._rng
        self._let_go()
        self._start_and_stop(dt_s)
        self._run(dt_s)
        # In a cage of radius r, diffusion D settles within r^2 / D; by Stokes and Einstein, D falls
        # with size.
        diffusion = p.diffusion_um2_per_s * p.diameter_um / (2 * self.radius_um)
        bound = self._filament >= 0
        time = np.where(bound, self._CATCH_S, p.confinement_um**2 / diffusion)[:, None]
        spread = np.where(bound, 0.015, p.confinement_um)[:, None]
        mean_reverting(self._offset, dt_s, time, spread, rng)
        mean_reverting(self._wrinkles, dt_s, 8.0, self._wrinkle_spread, rng)
        self._angle += (0.15 * np.sqrt(dt_s) * rng.standard_normal(self.count)).astype(np.float32)
        self.positions_um = self._attachment() + self._offset

    def _attachment(self) -> Image:
        """Where each lysosome would be without its offset, (n, 2)."""
        place = self._home.copy()
        bound = np.flatnonzero(self._filament >= 0)
        if self._microtubules is not None and len(bound):
            place[bound] = self._microtubules.position_um(
                self._filament[bound], self._arc_um[bound]
            )
        return place

    def _bind(self, which: NDArray[np.intp], reach_um: float) -> None:
        """Bind to the nearest filament within reach, keeping the position."""
        if self._microtubules is None or not len(which):
            return
        filament, arc, distance = self._microtubules.nearest(self.positions_um[which])
        near = (distance <= reach_um) & np.isfinite(distance)
        which = which[near]
        self._filament[which], self._arc_um[which] = filament[near], arc[near]
        self._birth[which] = self._microtubules.births[filament[near]]
        self._direction[which] = self._rng.choice([-1, 1], len(which))
        self._offset[which] = self.positions_um[which] - self._attachment()[which]

    def _let_go(self) -> None:
        """Leave filaments that shrank away beneath; stay where one was."""
        bound = np.flatnonzero(self._filament >= 0)
        if self._microtubules is None or not len(bound):
            return
        filament = self._filament[bound]
        covered = self._arc_um[bound] > self._microtubules.length_um[filament]
        lost = bound[covered | (self._birth[bound] != self._microtubules.births[filament])]
        self._filament[lost] = -1
        self.running[lost] = False
        self._home[lost] = self.positions_um[lost]
        self._offset[lost] = 0

    def _start_and_stop(self, dt_s: float) -> None:
        """End runs after a mean distance and pauses after a mean time; a new run may turn back."""
        p, rng = self.parameters, self._rng
        chance = rng.random(self.count)
        stopping = self.running & (chance < 1 - np.exp(-self._speed * dt_s / p.run_um))
        starting = self._mobile & ~self.running & (chance < 1 - np.exp(-dt_s / p.pause_s))
        self._bind(np.flatnonzero(starting & (self._filament < 0)), self._REACH_UM)
        if self._microtubules is not None:
            starting &= self._filament >= 0
        turning = starting & (rng.random(self.count) < 0.3)
        self._direction[turning] *= -1
        self._heading[turning] += np.float32(np.pi)
        self.running = (self.running | starting) & ~stopping

    def _run(self, dt_s: float) -> None:
        """Move the running ones along their filaments, or straight on where there are none."""
        way = self.running * self._speed * np.float32(dt_s)
        if self._microtubules is None:
            self._heading += np.float32(0.2 * np.sqrt(dt_s)) * self._rng.standard_normal(
                self.count, np.float32
            )
            self._home += way[:, None] * np.stack(
                [np.sin(self._heading), np.cos(self._heading)], axis=1
            )
            return
        self._arc_um += way * self._direction
        bound = np.flatnonzero(self._filament >= 0)
        end = self._microtubules.length_um[self._filament[bound]]
        arrived = (self._arc_um[bound] < 0) | (self._arc_um[bound] > end)
        self._arc_um[bound] = np.clip(self._arc_um[bound], 0, end)
        self._direction[bound[arrived]] *= -1
        self.running[bound[arrived]] = False

    def _paint(self) -> Image:
        centre = self._to_pixels(self.positions_um)
        shape = 1 + (
            self._wrinkles[:, :, None]
            * np.cos(self._HARMONICS[:, None] * self._angles + self._wrinkle_phase[:, :, None])
        ).sum(axis=1)
        radius = np.maximum(shape, 0.3) * (self.radius_um / self.pixel_size_um)[:, None]
        turned = self._angles + self._angle[:, None]
        ring = centre[:, None] + radius[..., None] * np.stack(
            [np.sin(turned), np.cos(turned)], axis=-1
        )
        focused = np.stack([self._focus, 1 - self._focus]) * self._brightness
        painted = splat_polylines(ring, focused[:, :, None] * self._wall, self._canvas_shape)
        owner = self._owner
        node = (self._content_angle / (2 * np.pi) * (self._RING_NODES - 1)).astype(np.intp)
        reach = self._content_reach * radius[owner, node]
        angle = self._content_angle + self._angle[owner]
        content = centre[owner] + reach[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1)
        painted += splat(content, focused[:, owner] * self._content_light, self._canvas_shape)
        return painted
