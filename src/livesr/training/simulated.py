"""Training pairs from simulation.

Virtual cells, imaged and reconstructed by the same code as live frames.

Owns how a simulated sequence becomes normalised frames and targets. What is drawn, and image
formation, are `livesr.simulation`'s.

A pair for a separation is three consecutive reconstructions, X at t-1, t, t+1 with their noise and
artefacts, and the reconstruction of each structure alone at t, noise-free: separation and
restoration in one. Both are divided by the same scale s, so the targets sum to x = (X - b) / s
without its noise, haze and background, which belong to no structure; a structure's haze is in its
target where the domain has `haze_in_truth`.

A pair for upscaling is one image, and the same image sampled more coarsely (Hu et al. 2020).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.live.normalise import background_and_scale
from livesr.simulation.domain import Domain
from livesr.simulation.sequence import image_drawing_of, sequences_of
from livesr.training.degradation import Degradation
from livesr.training.pair_folder import Shape

Image = NDArray[np.float32]
Range = tuple[float, float]

WINDOW = 3
_EDGE_PX = 32  # of a reconstruction: it fades out there


@dataclass(frozen=True, slots=True)
class Series:
    """A simulated time lapse and what it should separate into.

    Attributes
    ----------
    frames : float32 (t, y, x), reconstructions in ADU
    truths : float32 (t, c, y, x), noise-free reconstruction of each structure alone in ADU, not
        negative
    normalisation : (background, scale) of every frame in ADU
    """

    frames: Image
    truths: Image
    normalisation: tuple[Range, ...]

    def __len__(self) -> int:
        """Return the number of time points."""
        return len(self.frames)

    def pair(self, t: int, scale_factor: float = 1.0) -> tuple[Image, Image]:
        """Return the network's input (3, y, x) and targets (c, y, x) of time point `t`.

        Edge frames are repeated.
        """
        background, followed = self.normalisation[t]
        scale = np.float32(followed * scale_factor)
        window = np.clip(np.arange(t - 1, t + 2), 0, len(self) - 1)
        return (self.frames[window] - np.float32(background)) / scale, self.truths[t] / scale


def simulate(
    entropy: tuple[int, ...],
    n_t: int,
    *,
    size: int = 512,
    domain: Domain | None = None,
    modality: str = "",
) -> Series:
    """Simulate and reconstruct a time lapse with its truth.

    Parameters
    ----------
    entropy : determines everything. Pairs use (seed, index): any single number is an unseen cell
    n_t : time points
    size : side of the reconstructions in their own pixels, even
    domain : what cell, rig and light are drawn from; narrow its ranges to look at one condition
    modality : how it is imaged; "": as the first modality that can be simulated
    """
    # The margin is cut off with the edges, so none is simulated beyond.
    draw = sequences_of([modality]).draw
    sequence = draw(entropy, n_t, size + 2 * _EDGE_PX, domain, margin_px=0)
    inside = (slice(_EDGE_PX, _EDGE_PX + size),) * 2
    frames = np.stack(
        [sequence.reconstructor.reconstruct(list(raw))[inside] for raw in sequence.raw()]
    )
    truths = np.stack([[image[inside] for image in sequence.truth(t).values()] for t in range(n_t)])
    return Series(frames, truths, tuple(background_and_scale(frame) for frame in frames))


@dataclass(frozen=True)
class SimulatedPairs:
    """Three frames of a moving cell, and its structures at the middle one."""

    size: int
    domain: Domain = field(default_factory=Domain)

    @property
    def shapes(self) -> tuple[Shape, Shape]:
        """See `PairMaker`."""
        return (WINDOW, self.size, self.size), (len(self.domain.structures), self.size, self.size)

    def meta(self) -> dict[str, Any]:
        """See `PairMaker`."""
        return {
            "kind": "separate",
            "size": self.size,
            "channels": self.domain.structures,
            "pixel_size_nm": self.domain.pixel_size_um * 500,
            "modality": sequences_of().modality,
            "domain": self.domain.model_dump(mode="json"),
        }

    def make(self, entropy: tuple[int, int]) -> tuple[Image, Image]:
        """See `PairMaker`."""
        series = simulate(entropy, WINDOW, size=self.size, domain=self.domain)
        spread = self.domain.scale_spread * np.random.default_rng((*entropy, 2)).uniform(-1, 1)
        return series.pair(WINDOW // 2, 1 + spread)


@dataclass(frozen=True)
class UpscalePairs:
    """One image, and the same sampled `scale` times more coarsely.

    Parameters
    ----------
    size : side of the fine image, a multiple of `scale` and even
    scale : 2, 3 or 4
    modality : of the images: drawn as it draws them, else reconstructions of its time lapses, with
        their noise
    domain : what they are drawn from; `pixel_size_um` is the camera's, and the fine image has half
        of it
    degradation : noise that the coarse image gets; None for none but its own
    """

    size: int
    scale: int
    modality: str
    domain: Domain = field(default_factory=Domain)
    degradation: Degradation | None = None

    @property
    def shapes(self) -> tuple[Shape, Shape]:
        """See `PairMaker`."""
        coarse = self.size // self.scale
        return (1, coarse, coarse), (1, self.size, self.size)

    def meta(self) -> dict[str, Any]:
        """See `PairMaker`."""
        return {
            "kind": "upscale",
            "size": self.size,
            "scale": self.scale,
            "channels": [self.modality],
            "pixel_size_nm": self.domain.pixel_size_um * 500 * self.scale,
            "modality": self.modality,
            "domain": self.domain.model_dump(mode="json"),
            **degradation_of(self.degradation),
        }

    def make(self, entropy: tuple[int, int]) -> tuple[Image, Image]:
        """See `PairMaker`."""
        if (draw := image_drawing_of(self.modality)) is not None:
            fine = draw(entropy, self.size, self.domain)
        else:
            series = simulate(
                entropy, 1, size=self.size, domain=self.domain, modality=self.modality
            )
            fine = series.frames[0]
        return coarse_and_fine(fine, self.scale, self.degradation, (*entropy, 4))


def degradation_of(degradation: Degradation | None) -> dict[str, Any]:
    """Return what `PairMaker.meta` says of it; nothing without, as before there was one."""
    return {} if degradation is None else {"degradation": degradation.model_dump(mode="json")}


def coarse_and_fine(
    fine: Image,
    scale: int,
    degradation: Degradation | None,
    entropy: tuple[int, ...],
) -> tuple[Image, Image]:
    """Return `fine` (y, x) sampled `scale` times more coarsely and itself, (1, y, x) each,
    normalised alike.

    With a `degradation`, whose chance is `entropy`, only the coarse one is made of a noisy image.
    """
    bad = degradation(fine, np.random.default_rng(entropy)) if degradation else fine
    coarse = bilinear_downsampled(bad, scale)
    background, level = background_and_scale(coarse)
    return ((coarse - background) / level)[None], ((fine - background) / level)[None]


def bilinear_downsampled(image: Image, scale: int) -> Image:
    """Sample the bilinear interpolation of (y, x) at the middles of blocks of `scale` x `scale`
    pixels (Hu et al. 2020).

    For an even `scale` these are means of the two pixels nearest to the middle along each axis, for
    an odd one the middle pixel. Nothing is blurred first: the coarse image is aliased, which is
    what the method learns to undo.

    Raises
    ------
    ValueError
        If a side is no multiple of `scale`.
    """
    if scale < 1 or image.shape[0] % scale or image.shape[1] % scale:
        raise ValueError(
            f"an image of {image.shape} cannot be sampled {scale} times more coarsely; cut it first"
        )
    low, high = (scale - 1) // 2, scale // 2
    rows = (image[low::scale] + image[high::scale]) * np.float32(0.5)
    return np.asarray((rows[:, low::scale] + rows[:, high::scale]) * np.float32(0.5), np.float32)
