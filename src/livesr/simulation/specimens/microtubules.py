"""Microtubules: stiff filaments that grow, shrink, wiggle and slide.

Every filament owns a track, the way it would take if it grew for ever. Growing uncovers the track,
shrinking covers it; a filament that has vanished starts again on a new track.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from livesr.simulation.specimens.noise import LineNoise, log_uniform, mean_reverting
from livesr.simulation.specimens.outline import CellOutline
from livesr.simulation.specimens.raster import splat_polylines
from livesr.simulation.specimens.structure import Structure, StructureParameters

Floats = NDArray[np.floating]
Image = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class MicrotubuleParameters(StructureParameters):
    """How microtubules look and behave; defaults of an adherent mammalian cell in interphase.

    Parameters
    ----------
    density_um_per_um2 : float
        Length of microtubule per area. Real fields: 0.5 (sparse edge) to 4 (dense).
    mean_length_um : float
        Median length.
    persistence_um : float
        Of the worm-like chain, 20-60 um in cells: the heading's variance grows by arc length /
        persistence.
    curvature_per_um : float
        Typical curvature of the slow bends that the cell imposes.
    radial_fraction : float
        Share that radiates from the organising centre; the others follow the cell's axis.
    spread_rad : float
        Spread of the headings about their direction; above 2, no order is left.
    bundle_fraction : float
        Share that runs beside another filament.
    curled_fraction, curl_per_um : float
        Share of filaments that are curled or buckled, and the curvature of their bends.
    buckle_um : float
        Length along a filament from bend to bend of those.
    growth_um_per_min, shrinkage_um_per_min, catastrophe_per_s, rescue_per_s : float
        Dynamic instability.
    dynamic_fraction : float
        Share that grows and shrinks; the others are stable over minutes.
    wiggle_nm, wiggle_time_s : float
        Standard deviation and correlation time of the lateral thermal motion.
    brightness_spread, label_spread : float
        Variation (of the logarithm) between filaments and along each.
    out_of_focus : float
        Mean share of a filament's light that lies out of focus.
    thickness_nm, defocus_nm, haze : float
        See `StructureParameters`.
    """

    density_um_per_um2: float = 3.0
    mean_length_um: float = 20.0
    persistence_um: float = 40.0
    curvature_per_um: float = 0.07
    radial_fraction: float = 0.5
    spread_rad: float = 0.35
    bundle_fraction: float = 0.2
    curled_fraction: float = 0.0
    curl_per_um: float = 1.0
    buckle_um: float = 1.5
    growth_um_per_min: float = 12.0
    shrinkage_um_per_min: float = 20.0
    catastrophe_per_s: float = 0.03
    rescue_per_s: float = 0.05
    dynamic_fraction: float = 0.5
    wiggle_nm: float = 50.0
    wiggle_time_s: float = 3.0
    brightness_spread: float = 0.3
    label_spread: float = 0.15
    out_of_focus: float = 0.25
    thickness_nm: float = 25.0
    defocus_nm: float = 110.0
    haze: float = 1.2

    def __post_init__(self) -> None:
        StructureParameters.__post_init__(self)
        self._check_positive(
            "density_um_per_um2", "mean_length_um", "persistence_um", "wiggle_time_s"
        )
        self._check_positive("buckle_um")
        self._check_not_negative("curl_per_um")
        self._check_shares(
            "radial_fraction", "bundle_fraction", "curled_fraction", "dynamic_fraction"
        )
        self._check_not_negative(
            "growth_um_per_min", "shrinkage_um_per_min", "catastrophe_per_s", "rescue_per_s"
        )
        self._check_not_negative(
            "curvature_per_um", "spread_rad", "wiggle_nm", "brightness_spread", "label_spread"
        )

    @classmethod
    def random(cls, rng: np.random.Generator) -> Self:
        """Draw parameters over the wide range that training should see."""
        return cls(
            density_um_per_um2=log_uniform(rng, 0.6, 9),
            mean_length_um=log_uniform(rng, 1.5, 30),
            persistence_um=log_uniform(rng, 5, 80),
            curvature_per_um=log_uniform(rng, 0.02, 0.6),
            radial_fraction=rng.uniform(0, 1),
            spread_rad=log_uniform(rng, 0.15, 3),
            bundle_fraction=rng.uniform(0, 0.7),
            curled_fraction=rng.choice([0.0, 0.0, 1.0]) * rng.uniform(0, 0.5),
            curl_per_um=log_uniform(rng, 0.4, 2),
            buckle_um=log_uniform(rng, 0.5, 1.5),  # longer bends would close into circles
            growth_um_per_min=rng.uniform(5, 20),
            shrinkage_um_per_min=rng.uniform(10, 30),
            catastrophe_per_s=rng.uniform(0.01, 0.06),
            rescue_per_s=rng.uniform(0.01, 0.1),
            dynamic_fraction=rng.uniform(0.1, 1),
            wiggle_nm=log_uniform(rng, 15, 120),
            wiggle_time_s=rng.uniform(1, 6),
            brightness_spread=rng.uniform(0.1, 0.5),
            label_spread=rng.uniform(0, 0.35),
            out_of_focus=rng.uniform(0, 0.4),
            thickness_nm=rng.uniform(18, 42),
            defocus_nm=rng.uniform(70, 180),
            haze=log_uniform(rng, 0.1, 4),
        )


class Microtubules(Structure):
    """The microtubules of one field.

    See `Structure` for the grid and `MicrotubuleParameters` for the rest.

    Attributes
    ----------
    length_um : (n,) float32
        Present length of each filament.
    births : (n,) int
        How often each filament started on a new track; whoever holds on to it must let go when this
        changes.
    """

    Parameters = MicrotubuleParameters
    NODE_SPACING_UM = 0.2
    _MODES = 6
    _EDGE_UM = 1.5
    """Closer to the cell's edge than this, filaments turn to run along it."""

    def __init__(
        self,
        shape: tuple[int, int],
        pixel_size_um: float,
        rng: np.random.Generator,
        parameters: MicrotubuleParameters | None = None,
        *,
        outline: CellOutline | None = None,
    ) -> None:
        self.parameters = p = parameters or MicrotubuleParameters()
        super().__init__(shape, pixel_size_um, rng, p, outline=outline)
        area = float(np.prod(self._high_um - self._low_um))
        self.count = max(2, round(1.3 * p.density_um_per_um2 * area / p.mean_length_um))
        self._noise = LineNoise(rng)
        self._nodes: Image | None = None
        self._cell_axis = rng.uniform(0, 2 * np.pi)
        self._allocate(self.count, round(2 * p.mean_length_um / self.NODE_SPACING_UM) + 1)
        self._nucleate(np.arange(self.count))
        self._bundle()
        self._settle()

    @property
    def nodes_um(self) -> Image:
        """Nodes of all tracks, wiggle included, (n, m, 2) as (y, x).

        Those beyond `length_um` are not yet grown.
        """
        if self._nodes is None:
            lateral = self._wiggle @ self._modes
            # The tangent, along which it slides, is the normal turned by a right angle.
            tangents = self._normals[..., ::-1] * np.array([-1, 1], np.float32)
            moved = self._normals * lateral[..., None] + tangents * self._slide[:, None, None]
            self._nodes = np.asarray(self._tracks + moved, np.float32)
        return self._nodes

    def position_um(self, filament: NDArray[np.intp], arc_um: Floats) -> Image:
        """Return the points (n, 2) at `arc_um` from the minus end of each `filament`."""
        place = np.clip(arc_um / self.NODE_SPACING_UM, 0, self._tracks.shape[1] - 1.001)
        node = place.astype(np.intp)
        fraction = (place - node).astype(np.float32)[:, None]
        nodes = self.nodes_um
        point: Image = nodes[filament, node] * (1 - fraction) + nodes[filament, node + 1] * fraction
        return point

    def nearest(self, points_um: Floats) -> tuple[NDArray[np.intp], Image, Image]:
        """Find the closest grown place of any filament.

        Returns filament (n,), arc_um (n,) and distance_um (n,) for points (n, 2); infinitely far
        where none has grown.
        """
        grown = (self._arc_um < self.length_um[:, None]) & (self._light > 0)
        filament, node = np.nonzero(grown)
        if not len(filament):
            nowhere = np.zeros(len(points_um), np.intp)
            return nowhere, nowhere.astype(np.float32), np.full(len(points_um), np.inf, np.float32)
        places = self.nodes_um[filament, node]
        nearest = np.array(
            [np.argmin(((places - point) ** 2).sum(axis=1)) for point in points_um], np.intp
        )
        distance = np.linalg.norm(places[nearest] - points_um, axis=1).astype(np.float32)
        return filament[nearest], self._arc_um[node[nearest]], distance

    def _allocate(self, count: int, nodes: int) -> None:
        self._arc_um = (np.arange(nodes) * self.NODE_SPACING_UM).astype(np.float32)
        self._tracks = np.zeros((count, nodes, 2), np.float32)
        self._normals = np.zeros_like(self._tracks)
        self._light = np.zeros((count, nodes), np.float32)
        self._focus = np.zeros((count, nodes), np.float32)
        self.length_um = np.zeros(count, np.float32)
        self.births = np.zeros(count, np.intp)
        self._growing = np.ones(count, bool)
        self._dynamic = np.zeros(count, bool)
        self._speed = np.ones(count, np.float32)
        self._slide = np.zeros(count, np.float32)
        order = np.arange(1, self._MODES + 1)
        phase = np.pi * order[:, None] * self._arc_um / self._arc_um[-1]
        self._modes = np.concatenate([np.sin(phase), np.cos(phase)]).astype(np.float32)
        spread = np.tile(1 / order, 2)
        self._wiggle_spread_um = (
            self.parameters.wiggle_nm / 1000 * spread / np.sqrt((spread**2).sum() / 2)
        )
        self._wiggle_time_s = self.parameters.wiggle_time_s * spread
        self._wiggle = np.zeros((count, 2 * self._MODES), np.float32)
        mean_reverting(self._wiggle, np.inf, 1.0, self._wiggle_spread_um, self._rng)
        mean_reverting(self._slide, np.inf, 1.0, self.parameters.wiggle_nm / 1000, self._rng)

    def _nucleate(self, which: NDArray[np.intp]) -> None:
        """Give the filaments `which` new tracks, at lengths of the steady state."""
        p, rng, count = self.parameters, self._rng, len(which)
        self.births[which] += 1
        length = p.mean_length_um * np.exp(rng.normal(0, 0.45, count))
        self.length_um[which] = np.clip(length, 1, self._arc_um[-1])
        self._tracks[which] = self._draw_tracks(self.length_um[which])
        self._growing[which] = rng.random(count) < 0.6
        self._dynamic[which] = rng.random(count) < p.dynamic_fraction
        self._speed[which] = np.exp(rng.normal(0, 0.25, count))
        self._dress(which)

    def _dress(self, which: NDArray[np.intp]) -> None:
        """Work out normals, brightness and focus along the tracks `which`."""
        p, rng, arc, count = self.parameters, self._rng, self._arc_um, len(which)
        tangent = np.gradient(self._tracks[which], axis=1)
        tangent /= np.linalg.norm(tangent, axis=2, keepdims=True) + 1e-9
        self._normals[which] = tangent[..., ::-1] * np.array([1, -1], np.float32)
        label = self._noise.along(arc / 0.3, count, rng) + self._noise.along(arc / 2, count, rng)
        light = np.exp(
            p.brightness_spread * rng.standard_normal((count, 1)) + p.label_spread * label
        )
        if self.outline is not None:
            light = light * (self.outline.depth_um(self._tracks[which]) > 0)
        self._light[which] = light
        height = 1.4 * self._noise.along(arc / 5, count, rng)
        focus = np.clip(1.2 - p.out_of_focus * (1.3 + height), 0.05, 1)
        # Minus ends lie deeper in the cell.
        self._focus[which] = focus * np.clip(0.1 + arc / rng.uniform(0.5, 3, (count, 1)), 0, 1)

    def _draw_tracks(self, length_um: Floats) -> Image:
        """Draw worm-like chains (n, m, 2) through random points of the cell."""
        rng, count, nodes = self._rng, len(length_um), len(self._arc_um)
        through = self._random_points(count)
        heading, behind_um = self._headings(through)
        behind_um = np.minimum(behind_um, rng.uniform(0, 1, count) * length_um)
        forth = self._walk(through, heading)
        back = self._walk(through, heading + np.pi)
        whole = np.concatenate([back[:, :0:-1], forth], axis=1)
        first = nodes - 1 - (behind_um / self.NODE_SPACING_UM).astype(np.intp)
        rows = np.arange(count)[:, None]
        return np.asarray(whole[rows, first[:, None] + np.arange(nodes)], np.float32)

    def _headings(self, through_um: Image) -> tuple[Floats, Floats]:
        """Return each track's heading (radians from x to y) and how far behind the point it may
        begin.
        """
        p, rng, count = self.parameters, self._rng, len(through_um)
        flip = np.pi * rng.integers(0, 2, count)
        heading = self._cell_axis + flip + rng.normal(0, p.spread_rad, count)
        behind = np.full(count, np.inf)
        if self.outline is not None:
            offset = through_um - np.asarray(self.outline.organising_centre_um, np.float32)
            radial = rng.random(count) < p.radial_fraction
            outward = np.arctan2(offset[:, 0], offset[:, 1]) + rng.normal(
                0, 0.5 * p.spread_rad, count
            )
            heading = np.where(radial, outward, heading)
            behind = np.where(radial, np.hypot(offset[:, 0], offset[:, 1]), behind)
        return heading, behind

    def _walk(self, start_um: Image, heading: Floats) -> Image:
        """Walk one worm-like chain from each start.

        Near the cell's edge it turns to run along it.
        """
        p, rng, step = self.parameters, self._rng, self.NODE_SPACING_UM
        count, nodes = len(start_um), len(self._arc_um)
        bend = p.curvature_per_um * np.exp(rng.normal(0, 0.5, (count, 1)))
        turns = step * bend * self._noise.along(self._arc_um / 5, count, rng)
        turns = turns + np.sqrt(step / p.persistence_um) * rng.standard_normal((count, nodes))
        if p.curled_fraction:
            curled = rng.random((count, 1)) < p.curled_fraction
            turns = turns + step * p.curl_per_um * curled * self._noise.along(
                self._arc_um / p.buckle_um, count, rng
            )
        if self.outline is None:
            angle = heading[:, None] + np.cumsum(turns, axis=1)
            path = np.cumsum(step * np.stack([np.sin(angle), np.cos(angle)], axis=-1), axis=1)
            return np.asarray(start_um[:, None] + path - path[:, :1], np.float32)
        return self._walk_inside(self.outline, start_um, heading, turns)

    def _walk_inside(
        self, outline: CellOutline, start_um: Image, heading: Floats, turns: Floats
    ) -> Image:
        """Walk step by step, turning near the edge."""
        count, nodes, step = *turns.shape, self.NODE_SPACING_UM
        path = np.empty((count, nodes, 2), np.float32)
        place, angle = start_um.astype(float), heading.astype(float)
        centre = np.asarray(outline.centre_um)
        for node in range(nodes):
            path[:, node] = place
            angle = angle + turns[:, node]
            outward = place - centre
            miss = (
                np.mod(angle - np.arctan2(outward[:, 0], outward[:, 1]) + np.pi, 2 * np.pi) - np.pi
            )
            nearness = np.clip(1 - outline.depth_um(place) / self._EDGE_UM, 0, 1)
            angle = (
                angle + np.where(np.abs(miss) < np.pi / 2, np.sign(miss), 0) * 1.5 * step * nearness
            )
            place = place + step * np.stack([np.sin(angle), np.cos(angle)], axis=-1)
        return path

    def _bundle(self) -> None:
        """Lay some filaments beside others, 30-100 nm apart, now and then touching."""
        p, rng = self.parameters, self._rng
        followers = np.flatnonzero(rng.random(self.count) < p.bundle_fraction)
        leaders = rng.integers(0, self.count, len(followers))
        gap = 0.05 * self._noise.along(self._arc_um / 3, len(followers), rng) + rng.normal(
            0, 0.05, (len(followers), 1)
        )
        self._tracks[followers] = self._tracks[leaders] + self._normals[leaders] * gap[..., None]
        self._dress(followers)

    def _step(self, dt_s: float) -> None:
        mean_reverting(self._wiggle, dt_s, self._wiggle_time_s, self._wiggle_spread_um, self._rng)
        mean_reverting(self._slide, dt_s, 10.0, self.parameters.wiggle_nm / 1000, self._rng)
        self._grow_or_shrink(dt_s)
        self._nodes = None

    def _grow_or_shrink(self, dt_s: float) -> None:
        """Dynamic instability; a filament that has vanished starts anew, short."""
        p, chance = self.parameters, self._rng.random(self.count)
        rate = np.where(self._growing, p.catastrophe_per_s, p.rescue_per_s)
        self._growing ^= chance < 1 - np.exp(-rate * dt_s)
        speed = np.where(self._growing, p.growth_um_per_min, -p.shrinkage_um_per_min) / 60
        self.length_um += (self._dynamic * self._speed * speed * dt_s).astype(np.float32)
        np.minimum(self.length_um, self._arc_um[-1], out=self.length_um)
        gone = np.flatnonzero(self.length_um <= 0)
        if len(gone):
            self._nucleate(gone)
            self.length_um[gone] = 0.1
            self._growing[gone] = self._dynamic[gone] = True

    def _paint(self) -> Image:
        focused = self._light * self._focus
        return splat_polylines(
            self._to_pixels(self.nodes_um),
            np.stack([focused, self._light - focused]),
            self._canvas_shape,
            visible=self.length_um / self.NODE_SPACING_UM,
        )
