"""Simulated frames behind a cylindrical lens, whose truth is known: stacks of beads, and emitters
that stand alone.

Owns where the points lie. The light of a point is `livesr.optics.vectorial`'s.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from livesr.optics.noise import EMCCDNoise, SCMOSNoise
from livesr.optics.vectorial import VectorialSpread

_BEAD_LIGHT, _BEAD_BACKGROUND = 20_000.0, 20.0
_BEADS_A_SIDE, _BEADS_APART_PX, _EMITTERS_APART_PX = 4, 36, 24


def bead_stack(
    spread: VectorialSpread,
    noise: EMCCDNoise | SCMOSNoise,
    *,
    planes: int = 61,
    step_nm: float = 25.0,
) -> NDArray[np.uint16]:
    """Return a z stack (plane, y, x), ADU, of 4 x 4 beads on a coverslip that is not quite flat.

    Parameters
    ----------
    spread, noise : of microscope and camera
    planes, step_nm : from below focus to above it
    """
    rng = np.random.default_rng(1)
    places = _apart(_BEADS_A_SIDE, _BEADS_APART_PX)
    places = places + rng.uniform(-4, 4, places.shape)
    side = _BEADS_A_SIDE * _BEADS_APART_PX + _BEADS_APART_PX // 3
    height_um = rng.normal(0, 0.02, len(places))
    stack = np.empty((planes, side, side), np.uint16)
    for k, plane in enumerate(stack):
        light = np.full((side, side), _BEAD_BACKGROUND, np.float32)
        z_um = (k - (planes - 1) / 2) * step_nm / 1e3 + height_um
        spread.add(light, places[:, 0], places[:, 1], np.full(len(places), _BEAD_LIGHT), z_um)
        noise.expose(light, rng, out=plane)
    return stack


def emitters(
    spread: VectorialSpread,
    noise: EMCCDNoise | SCMOSNoise,
    photons: float,
    frames: int,
    *,
    background: float = 10.0,
    z_nm: tuple[float, float] = (-280.0, 280.0),
) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
    """Return frames (frame, y, x), ADU, of 16 emitters far apart, and (frame, y, x, z) of each.

    y and x in pixels from the centre of pixel (0, 0), z in nm; `background` in photo-electrons per
    pixel.
    """
    rng = np.random.default_rng(2)
    grid = _apart(4, _EMITTERS_APART_PX)
    side = 4 * _EMITTERS_APART_PX + _EMITTERS_APART_PX // 3
    stack, truth = np.empty((frames, side, side), np.uint16), []
    for k, frame in enumerate(stack):
        places, z = grid + rng.uniform(-2, 2, grid.shape), rng.uniform(*z_nm, len(grid))
        light = np.full((side, side), background, np.float32)
        spread.add(light, places[:, 0], places[:, 1], np.full(len(grid), photons), z / 1e3)
        noise.expose(light, rng, out=frame)
        truth.append(np.column_stack([np.full(len(grid), k), places, z]))
    return stack, np.concatenate(truth)


def cramer_rao_nm(
    spread: VectorialSpread,
    pixel_nm: float,
    photons: float,
    background: float,
    read_variance: float,
    z_nm: float,
) -> tuple[float, float]:
    """Return the least standard deviation (lateral, axial) with which an emitter can be localised.

    From the spot itself, by differences; photons, background and all three coordinates unknown.

    Notes
    -----
    Ober et al. 2004, Biophysical J. 86, 1185; read noise as in Huang et al. 2013.
    """
    side = 2 * spread.radius_px + 7
    at = np.array([side // 2, side // 2, photons, z_nm / 1e3, background], float)
    steps = np.diag([0.02, 0.02, photons / 100, 0.01, 0.1])

    def expected(p: NDArray[np.float64]) -> NDArray[np.float64]:
        image = np.full((side, side), p[4], np.float32)
        spread.add(image, p[:1], p[1:2], p[2:3], p[3:4])
        return image.astype(np.float64)

    slopes = [(expected(at + h) - expected(at - h)) / (2 * h.sum()) for h in steps]
    weight = 1 / (expected(at) + read_variance)
    fisher = np.array([[(a * b * weight).sum() for a in slopes] for b in slopes])
    variance = np.linalg.inv(fisher).diagonal()
    return float(np.sqrt(variance[:2].mean()) * pixel_nm), float(np.sqrt(variance[3]) * 1e3)


def _apart(side: int, px: int) -> NDArray[np.float64]:
    line = np.arange(side) * px + 2 * px / 3
    return np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
