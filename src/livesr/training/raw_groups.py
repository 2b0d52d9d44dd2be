"""Training pairs of raw groups: the exposures of one time point, and what the specimen is.

Owns how a simulated group becomes a normalised input and its target. What is drawn, and image
formation, are `livesr.simulation`'s.

The target is no reconstruction: it is the specimen at the passband of the ideal method, without
haze, background, noise or a filter's artefacts. Both are divided by the scale of the group's mean,
as live (`livesr.live.normalise`). The target lies on pixels that cover those of the camera, so that
a pair stays one when it is flipped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from livesr.base.errors import ConfigError
from livesr.live.normalise import background_and_scale
from livesr.modalities.registry import modality
from livesr.simulation.domain import Domain
from livesr.simulation.sequence import SimulatedSequence, sequences_of
from livesr.training.pair_folder import Shape

Image = NDArray[np.float32]

SCALE = 2
"""Pixels of the target per camera pixel, along each axis."""

LIGHTS = 4
"""Rigs and lights that one cell is seen under: a cell costs more than its raw frames."""

_TOGETHER = 2  # structures in one cell, at most


@dataclass(frozen=True)
class RawGroupPairs:
    """Some raw frames of a group, and the specimen at the passband of the ideal method.

    Parameters
    ----------
    size : side of the target in its own pixels, even; the raw frames have half as many
    frames : which raw frames of the group, by their place in it
    modality : of the raw frames
    domain : what cells, rigs and light are drawn from. A cell has one or two of the structures
    """

    size: int
    frames: tuple[int, ...]
    modality: str
    domain: Domain = field(default_factory=Domain)

    @property
    def shapes(self) -> tuple[Shape, Shape]:
        """See `PairMaker`."""
        side = self.size // SCALE
        return (len(self.frames), side, side), (1, self.size, self.size)

    def meta(self) -> dict[str, Any]:
        """See `PairMaker`."""
        return {
            "kind": "reconstruct",
            "size": self.size,
            "frames": self.frames,
            "channels": ["Reconstructed"],
            "pixel_size_nm": self.domain.pixel_size_um * 1e3,
            "modality": self.modality,
            "lights": LIGHTS,
            "domain": self.domain.model_dump(mode="json"),
        }

    def make(self, entropy: tuple[int, int]) -> tuple[Image, Image]:
        """See `PairMaker`."""
        seed, number = entropy
        cell = _cell(self.modality, (seed, number - number % LIGHTS), self.size, self.domain)
        seen = cell.relit(entropy, self._of(cell)) if number % LIGHTS else cell
        raw, truth = raw_and_truth(seen, self.modality)
        background, scale = background_and_scale(raw[list(self.frames)].mean(0))
        spread = np.random.default_rng((*entropy, 2)).uniform(-1, 1)
        scale *= 1 + self.domain.scale_spread * spread
        frames = (raw[list(self.frames)] - np.float32(background)) / np.float32(scale)
        return frames, (truth / np.float32(scale))[None]

    def _of(self, cell: SimulatedSequence) -> Domain:
        return self.domain.model_copy(update={"structures": cell.structures})


def raw_and_truth(seen: SimulatedSequence, modality_name: str) -> tuple[Image, Image]:
    """Return the raw frames of the first time point, and its truth on the pixels of a network.

    Returns
    -------
    raw : float32 (n, y, x), ADU above the camera's offset
    truth : float32 (2 y, 2 x), ADU, not negative: all structures at the ideal passband, on pixels
        of which four cover one of the camera
    """
    raw = seen.raw(n_t=1)[0].astype(np.float32) - np.float32(seen.offset_adu)
    truth: Image = np.asarray(sum(seen.passband(0).values()), np.float32)
    if modality(modality_name).centred:
        truth = covering(truth)
    return raw, np.maximum(truth, 0)


def covering(picture: Image, scale: int = SCALE) -> Image:
    """Return a picture whose first pixel is centred on the camera's, on pixels that cover those of
    the camera.

    Moved by ``(scale - 1) / 2`` of its own pixels along both axes, in Fourier space.
    """
    shift = (scale - 1) / 2
    y, x = (
        np.exp(-2j * np.pi * shift * np.fft.fftfreq(picture.shape[0]))[:, None],
        np.exp(-2j * np.pi * shift * np.fft.rfftfreq(picture.shape[1])),
    )
    return np.asarray(scipy.fft.irfft2(scipy.fft.rfft2(picture) * y * x, picture.shape), np.float32)


@lru_cache(maxsize=1)
def _cell(name: str, entropy: tuple[int, int], size: int, domain: Domain) -> SimulatedSequence:
    """Return a cell with some of the domain's structures, under a first rig."""
    found = sequences_of([name])
    if found.modality != name:
        raise ConfigError(
            f"Raw frames of {name!r} cannot be simulated; those of {found.modality!r} can."
        )
    rng = np.random.default_rng((*entropy, 3))
    n = int(rng.integers(1, min(_TOGETHER, len(domain.structures)) + 1))
    chosen = tuple(sorted(rng.choice(domain.structures, n, replace=False).tolist()))
    return found.draw(entropy, 1, size, domain.model_copy(update={"structures": chosen}))
