"""Training pairs from a user's own images.

A patch of each structure, turned, brightened differently, added.

Owns how patches are drawn and mixed (Wang et al. 2021: one patch of each structure added together
is the input, the patches are the truth). Reading and judging of files is `images.py`.

Noise: where a structure comes with noisy images, their patches make the input and the clean ones
the truth, so that the network restores as well; otherwise `photons` adds the noise of a camera to
the sum. Without either, the input is the sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import ConfigError
from livesr.live.normalise import background_and_scale
from livesr.simulation.domain import Draw
from livesr.training.degradation import Degradation
from livesr.training.images import ImageFile, OwnImages, find_images, read_image
from livesr.training.pair_folder import Shape
from livesr.training.simulated import WINDOW, coarse_and_fine, degradation_of
from livesr.training.sources import turned

Image = NDArray[np.float32]

_ADU = 1000.0  # of the bright parts: what normalisation takes for a camera's
_READ_NOISE_E = 1.5
_TRIES, _FAINT, _FILLED = 16, 0.02, 0.1  # patches drawn for one of which a tenth is not dark
_VALIDATION_SHARE = 6  # one file in six validates, as in Hu et al. 2020


@dataclass(frozen=True)
class CompositePairs:
    """See the module. `files` are those of each structure that these pairs may use."""

    files: dict[str, tuple[ImageFile, ...]]
    size: int
    images: OwnImages

    @classmethod
    def find(
        cls, images: OwnImages, size: int, part: Literal["train", "validation", "all"]
    ) -> Self:
        """Judge the files and take those of `part`.

        The last sixth of each structure's fields, by name, validates.

        Raises
        ------
        ConfigError
            If a structure has usable files of fewer than two fields, or a bad one that is refused.
        """
        files = {}
        for name, folder in images.folders.items():
            found = find_images(folder, size, images.on_bad_file)
            if part == "all":
                files[name] = tuple(found)
                continue
            fields = list(dict.fromkeys(f.field for f in found))
            if len(fields) < 2:
                raise ConfigError(
                    f"{folder} holds one usable image; {name} needs two, one for validation."
                )
            kept = -(-len(fields) // _VALIDATION_SHARE)
            validating = set(fields[-kept:])
            files[name] = tuple(
                f for f in found if (f.field in validating) == (part == "validation")
            )
        return cls(files, size, images)

    @property
    def shapes(self) -> tuple[Shape, Shape]:
        """See `PairMaker`."""
        return (WINDOW, self.size, self.size), (len(self.files), self.size, self.size)

    def meta(self) -> dict[str, Any]:
        """See `PairMaker`."""
        return {
            "kind": "separate",
            "size": self.size,
            "channels": list(self.files),
            "pixel_size_nm": self.images.pixel_size_nm,
            "modality": self.images.modality,
            "images": self.images.model_dump(mode="json"),
            "files": {name: [str(f.path) for f in files] for name, files in self.files.items()},
        }

    def make(self, entropy: tuple[int, int]) -> tuple[Image, Image]:
        """See `PairMaker`."""
        draw = Draw(np.random.default_rng(entropy))
        side = float(np.sqrt(self.images.brightness_ratio))
        total, targets = np.zeros((WINDOW, self.size, self.size), np.float32), []
        for files in self.files.values():
            clean, given = _patch(draw.rng, files, self.size)
            brightness = np.float32(_ADU * draw.log_uniform((1 / side, side)))
            total += brightness * given
            targets.append(brightness * clean[WINDOW // 2])
        if self.images.photons is not None:
            total = _camera(draw, total, self.images.photons)
        background, scale = background_and_scale(total[WINDOW // 2])
        frames = (total - np.float32(background)) / np.float32(scale)
        return frames, np.asarray(np.stack(targets) / np.float32(scale), np.float32)


@dataclass(frozen=True)
class CoarsePairs:
    """Own images for upscaling: a patch, and the same sampled `scale` times more coarsely."""

    files: tuple[ImageFile, ...]
    size: int
    scale: int
    images: OwnImages
    degradation: Degradation | None = None

    @classmethod
    def find(
        cls,
        images: OwnImages,
        size: int,
        scale: int,
        part: Literal["train", "validation", "all"],
        degradation: Degradation | None = None,
    ) -> Self:
        """As `CompositePairs.find`, all folders together."""
        files = CompositePairs.find(images, size, part).files
        together = tuple(f for several in files.values() for f in several)
        return cls(together, size, scale, images, degradation)

    @classmethod
    def of(cls, images: Path, size: int, scale: int, modality: str) -> Self:
        """Take an image, or every image of a folder: to evaluate on, whatever their sampling is."""
        return cls.find(
            OwnImages(folders={modality: str(images)}, pixel_size_nm=1, modality=modality),
            size,
            scale,
            "all",
        )

    @property
    def shapes(self) -> tuple[Shape, Shape]:
        """See `PairMaker`."""
        return (1, self.size // self.scale, self.size // self.scale), (1, self.size, self.size)

    def meta(self) -> dict[str, Any]:
        """See `PairMaker`."""
        return {
            "kind": "upscale",
            "size": self.size,
            "scale": self.scale,
            "channels": [self.images.modality],
            "pixel_size_nm": self.images.pixel_size_nm * self.scale,
            "modality": self.images.modality,
            "images": self.images.model_dump(mode="json"),
            "files": [str(f.path) for f in self.files],
            **degradation_of(self.degradation),
        }

    def make(self, entropy: tuple[int, int]) -> tuple[Image, Image]:
        """See `PairMaker`."""
        rng = np.random.default_rng(entropy)
        for _ in range(_TRIES):
            clean = _patch(rng, self.files, self.size)[0][WINDOW // 2]
            if np.count_nonzero(clean > _FAINT) > _FILLED * clean.size:
                break
        fine = clean * np.float32(_ADU)
        return coarse_and_fine(fine, self.scale, self.degradation, (*entropy, 4))


def _patch(
    rng: np.random.Generator, files: tuple[ImageFile, ...], size: int
) -> tuple[Image, Image]:
    """Draw the same patch (3, y, x) of three consecutive frames, clean and as given.

    Bright parts are about 1.

    A still image gives the same frame three times.
    """
    file = files[int(rng.integers(len(files)))]
    t, height, width = file.shape
    middle = int(rng.integers(1, t - 1)) if t >= WINDOW else 0
    window = np.arange(middle - 1, middle + 2) if t >= WINDOW else np.zeros(WINDOW, int)
    y, x = (int(rng.integers(n - size + 1)) for n in (height, width))
    symmetry = int(rng.integers(4)), bool(rng.integers(2))

    def cut(image: Image) -> Image:
        patch = image[window, y : y + size, x : x + size]
        return turned(patch, *symmetry)

    clean = (cut(read_image(file.path)) - np.float32(file.low)) / np.float32(file.high - file.low)
    clean = np.maximum(clean, 0)
    if file.noisy is None:
        return clean, clean
    slope, offset = file.noisy_scale
    noisy = (cut(read_image(file.noisy)) - np.float32(offset)) / np.float32(slope)
    return clean, (noisy - np.float32(file.low)) / np.float32(file.high - file.low)


def _camera(draw: Draw, total: Image, photons: tuple[float, float]) -> Image:
    """Add shot and read noise; `photons` is how many a bright part gives."""
    per_adu = draw.log_uniform(photons) / _ADU
    electrons = draw.rng.poisson(np.maximum(total, 0) * per_adu) + draw.rng.normal(
        0, _READ_NOISE_E, total.shape
    )
    return np.asarray(electrons / per_adu, np.float32)
