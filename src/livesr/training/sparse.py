"""Training pairs for networks that complete a sparse picture with the help of a widefield one.

Owns how a picture of few localisations, and a blurred one, are made of a specimen (Ouyang et al.
2018, Nature Biotechnology 36, 460, ANNA-PALM). The target is the specimen's density itself, which
is what endless localisations would show.

The network sees two planes on one grid: few localisations, and widefield. Each has a background and
a scale of its own, as two channels of a run have; the target has those of the dense picture, since
how many emitters there are in all cannot be seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from livesr.live.beside import on_pixels
from livesr.live.normalise import background_and_scale
from livesr.optics.psf import gaussian_sigma
from livesr.simulation.domain import Domain, Draw, draw_brightness
from livesr.simulation.specimens import Cell
from livesr.training.pair_folder import Shape

Image = NDArray[np.float32]

PLANES = ("localisations", "widefield")
"""What the network sees, in this order."""

_LOCALISATIONS = (0.01, 0.5)  # in a pixel of a bright part
_DRAWN_PX = 0.7
_BRIGHT_PERCENTILE, _TRIES, _FILLED = 99.5, 8, 0.05
_UNIT = 100.0  # hundredths of a localisation, as running images have it
_FINER = 5  # pixels of a picture, side by side in one of the camera's
_UNCERTAINTY_PX = (0.4, 1.2)
_PHOTONS = (50.0, 2000.0)  # of bright parts in widefield
_BACKGROUND = (0.02, 0.3)


@dataclass(frozen=True)
class SparsePairs:
    """Few localisations with a widefield picture, and the specimen.

    Parameters
    ----------
    size : side of the pictures
    modality : which the pictures are said to be of
    domain : what cells are drawn from, and the optics of widefield; `pixel_size_um` is the
        camera's, and the pictures have a fifth of it
    """

    size: int
    modality: str
    domain: Domain = field(default_factory=Domain)

    @property
    def shapes(self) -> tuple[Shape, Shape]:
        """See `PairMaker`."""
        return (len(PLANES), self.size, self.size), (1, self.size, self.size)

    def meta(self) -> dict[str, Any]:
        """See `PairMaker`."""
        return {
            "kind": "sparse",
            "size": self.size,
            "planes": PLANES,
            "channels": ["Completed"],
            "pixel_size_nm": self.domain.pixel_size_um * 1e3 / _FINER,
            "modality": self.modality,
            "domain": self.domain.model_dump(mode="json"),
        }

    def make(self, entropy: tuple[int, int]) -> tuple[Image, Image]:
        """See `PairMaker`."""
        draw = Draw(np.random.default_rng(entropy))
        density = self._specimen(draw)
        dense = gaussian_filter(density, _DRAWN_PX)
        planes = self._few(draw, density), self._widefield(draw, density)
        return np.stack([_normalised(plane) for plane in planes]), _normalised(dense)[None]

    def _specimen(self, draw: Draw) -> Image:
        """Return a density of emitters of which bright parts are about 1, in a filled field."""
        pixel_um = self.domain.pixel_size_um / _FINER
        for _ in range(_TRIES):
            side = (self.size, self.size)
            cell = Cell.random(draw.rng, side, pixel_um, structures=self.domain.structures)
            brightness = draw_brightness(draw, self.domain)
            parts = (brightness[name] * part for name, part in cell.render().items())
            density = np.maximum(np.sum(list(parts), axis=0), 0)
            bright = float(np.percentile(density, _BRIGHT_PERCENTILE))
            if bright > 0 and np.mean(density > 0.1 * bright) > _FILLED:
                break
        return np.asarray(density / np.float32(max(bright, 1e-6)), np.float32)

    @staticmethod
    def _few(draw: Draw, density: Image) -> Image:
        """Return a picture of few localisations."""
        places = draw.rng.poisson(draw.log_uniform(_LOCALISATIONS) * density).astype(np.float32)
        drawn = gaussian_filter(places, draw.uniform(_UNCERTAINTY_PX))
        return np.asarray(_UNIT * drawn, np.float32)

    def _widefield(self, draw: Draw, density: Image) -> Image:
        """Return what the camera sees of them all, on the pixels of the picture."""
        sigma_um = gaussian_sigma(
            draw.uniform(self.domain.na), draw.uniform(self.domain.emission_um)
        )
        blurred = gaussian_filter(density, _FINER * sigma_um / self.domain.pixel_size_um)
        n = self.size // _FINER
        inside = blurred[: n * _FINER, : n * _FINER]
        blurred = inside.reshape(n, _FINER, n, _FINER).mean((1, 3))
        bright = max(float(np.percentile(blurred, _BRIGHT_PERCENTILE)), 1e-6)
        expected = draw.log_uniform(_PHOTONS) * (blurred / bright + draw.uniform(_BACKGROUND))
        seen = draw.rng.poisson(expected).astype(np.float32)
        return on_pixels(seen, (self.size, self.size), _FINER)


def _normalised(plane: Image) -> Image:
    background, scale = background_and_scale(plane)
    return np.asarray((plane - np.float32(background)) / np.float32(scale), np.float32)
