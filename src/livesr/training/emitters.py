"""Training pairs for networks that localise: a frame of single emitters, and where they are.

Owns how emitters, camera and light are drawn, and the density map that is the target: at `SCALE`
times the camera's sampling, every emitter a Gaussian of one fine pixel whose peak is 1 (as Nehme et
al. 2018, Optica 5, 458, Deep-STORM, have it). Image formation is `livesr.optics`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.live.normalise import background_and_scale
from livesr.optics.psf import PointSpread, flat_places
from livesr.simulation.domain import Domain, Draw
from livesr.training.pair_folder import Shape

Image = NDArray[np.float32]

SCALE = 4
"""Fine pixels of the density map per camera pixel."""

_DENSITY_PER_UM2 = (0.2, 8.0)
_PHOTONS, _PHOTONS_SPREAD = (300.0, 5000.0), 0.3
_BACKGROUND = (3.0, 1000.0)
_EM_SHARE, _READ_NOISE_E = 0.5, 3.0
_SHAPES = 8  # spots that are tabulated, over the domain's optics
_MARGIN_PX = 3
_BRIGHTNESS_ERROR = 0.3  # the scale is that of a block of frames, live
_REACH = 3


@dataclass(frozen=True)
class EmitterPairs:
    """One frame of emitters anywhere, as dense as they may come, and their density map.

    Parameters
    ----------
    size : side of the density map, a multiple of `SCALE`
    domain : of which optics and sampling are taken: `na`, `emission_um`, `damping`,
        `pixel_size_um`
    """

    size: int
    domain: Domain = field(default_factory=Domain)

    @property
    def shapes(self) -> tuple[Shape, Shape]:
        """See `PairMaker`."""
        side = self.size // SCALE
        return (1, side, side), (1, self.size, self.size)

    def meta(self) -> dict[str, Any]:
        """See `PairMaker`."""
        return {
            "kind": "localise",
            "size": self.size,
            "channels": ["Density"],
            "pixel_size_nm": self.domain.pixel_size_um * 1e3,
            "domain": self.domain.model_dump(mode="json"),
        }

    def make(self, entropy: tuple[int, int]) -> tuple[Image, Image]:
        """See `PairMaker`."""
        draw = Draw(np.random.default_rng(entropy))
        side = self.size // SCALE
        area_um2 = ((side + 2 * _MARGIN_PX) * self.domain.pixel_size_um) ** 2
        n = int(draw.rng.poisson(draw.log_uniform(_DENSITY_PER_UM2) * area_um2))
        y, x = draw.rng.uniform(-_MARGIN_PX, side + _MARGIN_PX, (2, n)) - 0.5
        photons = draw.log_uniform(_PHOTONS) * np.exp(_PHOTONS_SPREAD * draw.rng.standard_normal(n))
        image = np.full((side, side), draw.log_uniform(_BACKGROUND), np.float32)
        spot = _spot(self.domain, int(draw.rng.integers(_SHAPES)))
        spot.add(image, y, x, photons)
        seen = _camera(draw.rng, image)
        background, scale = background_and_scale(seen)
        scale *= draw.near(1.0, _BRIGHTNESS_ERROR)
        frame = (seen - np.float32(background)) / np.float32(scale)
        return frame[None], density_map((side, side), y, x)[None]


def density_map(shape: tuple[int, int], y: Any, x: Any) -> Image:
    """Return the map of emitters at (y, x), camera pixels from the middle of the first one."""
    fine = np.zeros((shape[0] * SCALE, shape[1] * SCALE), np.float32)
    around = np.arange(-_REACH, _REACH + 1)
    middle = [(np.asarray(v) + 0.5) * SCALE - 0.5 for v in (y, x)]
    rows, columns = (np.rint(v).astype(np.intp)[:, None] + around for v in middle)
    in_y, in_x = (
        np.exp(-0.5 * (places - v[:, None]) ** 2)
        for places, v in zip((rows, columns), middle, strict=True)
    )
    weights = (in_y[:, :, None] * in_x[:, None, :]).astype(np.float32)
    flat, inside = flat_places(fine.shape, rows, columns)
    np.add.at(fine.reshape(-1), flat, weights[inside])
    return fine


def _camera(rng: np.random.Generator, expected: Image) -> Image:
    """Return photo-electrons of an sCMOS, or of an EMCCD, whose noise has twice the variance."""
    seen = rng.poisson(np.maximum(expected, 0)).astype(np.float32)
    if rng.random() < _EM_SHARE:
        seen += np.sqrt(np.maximum(expected, 0)) * rng.standard_normal(seen.shape, np.float32)
        return seen
    return seen + np.float32(_READ_NOISE_E * rng.random()) * rng.standard_normal(
        seen.shape, np.float32
    )


@lru_cache(maxsize=4 * _SHAPES)
def _spot(domain: Domain, number: int) -> PointSpread:
    """Return one of the spots of a domain: a table costs more than many frames."""
    draw = Draw(np.random.default_rng((number, 5)))
    return PointSpread(
        domain.pixel_size_um,
        draw.uniform(domain.na),
        draw.uniform(domain.emission_um),
        damping=draw.uniform(domain.damping),
    )
