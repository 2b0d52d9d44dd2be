#!/usr/bin/env python
"""Where moving spots are shown, and where they are: plain SIM beside rolling updates.

Prints the table of docs/guide.md::

    python scripts/rolling_positions.py [pixels a side, 128] [groups, 5]

Spots as large as a small lysosome run straight, each in a direction of its own, under the patterns
of the virtual rig; 10 ms an exposure, one after the other, shot noise and read noise. A picture
shows a spot at the centroid around its brightest point. Its error is the distance from where the
spot was in the middle of what the picture shows, and, on the screen, from where it is while the
picture is the newest; computing takes no time here. Root mean square over spots and pictures.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from livesr.base.config import RigConfig, load_rig
from livesr.base.geometry import Geometry
from livesr.live.reconstruct.reconstructor import NewerFrames
from livesr.modalities.sim.config import SIMConfig
from livesr.modalities.sim.modality import parameters_of
from livesr.modalities.sim.quality import QualityLimits
from livesr.modalities.sim.reconstructor import SIMReconstructor
from livesr.modalities.sim.simulation.microscope import Light, SIMMicroscope
from livesr.optics.exposure import examine
from livesr.optics.noise import SCMOSNoise

SPEEDS_UM_S = (0.0, 0.5, 1.0, 2.0)
EXPOSURE_MS, PHOTONS, RADIUS_UM, APART_UM = 10.0, 400.0, 0.1, 2.2
PX_UM = 0.065
Float = NDArray[np.float64]


class Shown(NamedTuple):
    """A picture, and the time in ms of its middle and from when on it is the newest."""

    image: NDArray[np.float32]
    middle_ms: float
    from_ms: float


class Specimen:
    """Spots on a grid, which run through its places."""

    def __init__(self, size: int, speed_um_s: float, end_ms: float) -> None:
        rng = np.random.default_rng(1)
        places = np.arange(APART_UM, size * PX_UM - APART_UM / 2, APART_UM)
        self._middle = np.stack(np.meshgrid(places, places, indexing="ij"), -1).reshape(-1, 2)
        turns = rng.uniform(0, 2 * np.pi, len(self._middle))
        self._velocity = speed_um_s / 1e3 * np.stack([np.sin(turns), np.cos(turns)], -1)
        self._half_ms = end_ms / 2
        self._grid_um = np.arange(2 * size) * PX_UM / 2

    def at(self, ms: float) -> Float:
        """Return where the spots are, (n, 2) um."""
        return np.asarray(self._middle + self._velocity * (ms - self._half_ms), np.float64)

    def density(self, ms: float) -> NDArray[np.float32]:
        """Return them on the object's grid."""
        y, x = (
            np.exp(-((self._grid_um - p[:, None]) ** 2) / (2 * RADIUS_UM**2)) for p in self.at(ms).T
        )
        return np.asarray(y.T @ x, np.float32)


def exposures(
    rig: RigConfig, specimen: Specimen, size: int, n_t: int, ms: float
) -> list[list[NDArray[np.uint16]]]:
    """Return raw groups, one exposure of `ms` after the other."""
    sim = SIMConfig.of(rig)
    _, patterns = parameters_of(rig, "488", Geometry((size, size), "uint16", PX_UM))
    microscope = SIMMicroscope((size, size), PX_UM, rig.optics.na, 0.525, patterns, damping=0.7)
    light = Light(electrons=PHOTONS * ms / EXPOSURE_MS, background_e=5.0)
    rng, noise = np.random.default_rng(0), SCMOSNoise()
    n = sim.raw_frames

    def one(i: int) -> NDArray[np.uint16]:
        components = microscope.components(specimen.density((i + 0.5) * ms))
        expected = microscope.raw(components, light, rng)[i % n]
        return np.asarray(noise.expose(expected, rng), np.uint16)

    return [[one(n * t + raw) for raw in range(n)] for t in range(n_t)]


def pictures(
    rig: RigConfig, groups: list[list[NDArray[np.uint16]]], update: str, ms: float
) -> Iterator[Shown]:
    """Yield every picture of a run, in order of time, from the second group on."""
    size, n = groups[0][0].shape[0], len(groups[0])
    sim = SIMConfig.of(rig).model_copy(update={"update": update})
    parameters, patterns = parameters_of(rig, "488", Geometry((size, size), "uint16", PX_UM))
    limits = QualityLimits(then="reconstruct")
    reconstructor = SIMReconstructor(parameters, patterns, limits)
    for t, group in enumerate(groups):
        for came in sim.updates if t else ():
            frames, before = [*group[:came], *groups[t - 1][came:]], groups[t - 1]
            newer = NewerFrames(frames, before, list, lambda f: f, lambda f: examine(f, 100.0))
            now = (n * t + came) * ms
            yield Shown(reconstructor.update(newer), now - n * ms / 2, now)
        reconstructor.remember(group)
        image, now = reconstructor.reconstruct(group), n * (t + 1) * ms
        if t:
            yield Shown(image, now - n * ms / 2, now)


def found(image: NDArray[np.float32], near: Float) -> Float:
    """Return the centroid of every spot, (n, 2) um, looked for near where it is."""
    places, half = [], 6
    for y, x in np.rint(near / PX_UM * 2).astype(int):
        for _ in range(2):  # around its own brightest point
            part = image[y - half : y + half + 1, x - half : x + half + 1]
            dy, dx = np.unravel_index(part.argmax(), part.shape)
            y, x = y + dy - half, x + dx - half
        part = image[y - 4 : y + 5, x - 4 : x + 5]
        weight = np.maximum(part - 0.3 * part.max(), 0)
        along = np.arange(-4, 5)
        moved = (weight.sum(1) @ along, weight.sum(0) @ along) / weight.sum()
        places.append((y + moved[0], x + moved[1]))
    return np.asarray(places) * PX_UM / 2


def errors(shown: list[Shown], specimen: Specimen) -> tuple[float, float, float]:
    """Return the error in the middle and on the screen, nm, and pictures a second."""
    middle, screen = [], []
    for picture, following in itertools.pairwise(shown):
        places = found(picture.image, specimen.at(picture.middle_ms))
        middle.append(np.sum((places - specimen.at(picture.middle_ms)) ** 2, axis=1))
        screen.extend(
            np.sum((places - specimen.at(when)) ** 2, axis=1)
            for when in np.linspace(picture.from_ms, following.from_ms, 9)
        )
    rate = 1e3 * (len(shown) - 1) / (shown[-1].from_ms - shown[0].from_ms)
    return 1e3 * np.sqrt(np.mean(middle)), 1e3 * np.sqrt(np.mean(screen)), rate


def main() -> None:
    """Print the table."""
    size, n_t = (int(a) for a in (*sys.argv[1:], *("128", "5")[len(sys.argv) - 1 :]))
    rig = load_rig("virtual_sim")
    ways = [("group", EXPOSURE_MS), ("angle", EXPOSURE_MS), ("frame", EXPOSURE_MS)]
    ways.append(("group", EXPOSURE_MS / 3))
    rows: dict[tuple[str, float], list[str]] = {way: [] for way in ways}
    rates = {}
    for speed in SPEEDS_UM_S:
        for update, ms in ways:
            groups = n_t if ms == EXPOSURE_MS else 3 * n_t
            specimen = Specimen(size, speed, 9 * ms * groups)
            raw = exposures(rig, specimen, size, groups, ms)
            *error, rates[update, ms] = errors([*pictures(rig, raw, update, ms)], specimen)
            rows[update, ms].append(f"{error[0]:.0f}, {error[1]:.0f}")
    speeds = " | ".join(f"{speed:g} um/s" for speed in SPEEDS_UM_S)
    print(
        f"| sim.update | exposure, ms | pictures/s | {speeds} |\n|{'---|' * (3 + len(SPEEDS_UM_S))}"
    )
    for (update, ms), cells in rows.items():
        print(f"| {update} | {ms:.1f} | {rates[update, ms]:.1f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
