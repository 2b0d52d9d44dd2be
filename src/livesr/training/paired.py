"""Training pairs of two images of one field: what a network is given, and what it should become.

Owns how a user's two images are laid over each other and cut. Each folder holds `clean/`, and
`noisy/` (one image a time point) or `raw/` (the exposures of each group, one after the other), with
files of the same names. The two may be sampled differently: TIRF to SIM, confocal to STED,
widefield to SIM. By how much follows from their sizes, since both show the same field.

Brightness: two microscopes count differently. The clean image is brought to the unit of the other
one by a regression of both where they are blurred alike, so that a prediction has the unit of what
it was made of.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from livesr.base.errors import ConfigError
from livesr.live.normalise import background_and_scale
from livesr.training.images import OwnImages, image_paths, read_image
from livesr.training.pair_folder import Shape
from livesr.training.raw_groups import covering
from livesr.training.sources import turned

log = logging.getLogger(__name__)

Image = NDArray[np.float32]
Part = Literal["train", "validation", "all"]

LARGEST_SCALE = 8
_ALIKE_PX = 4.0  # blur after which images of different resolution are compared, input pixels
_TRIES, _EMPTY = 8, 0.25
_VALIDATION_SHARE = 6


@dataclass(frozen=True)
class PairedFile:
    """Two images of one field.

    Attributes
    ----------
    given, clean : the files; time point t of `given` is its planes `group` t ... `group` (t + 1)
    shape : (t, y, x) of what is given
    slope, offset : given = slope clean + offset, where both are blurred alike
    """

    given: Path
    clean: Path
    shape: tuple[int, int, int]
    scale: int
    group: int
    slope: float
    offset: float


@dataclass(frozen=True)
class PairedPairs:
    """Crops of images of the same fields.

    Parameters
    ----------
    size : side of the target in its own pixels
    frames : which exposures of a group the network sees; () for images of one exposure
    """

    files: tuple[PairedFile, ...]
    size: int
    frames: tuple[int, ...]
    images: OwnImages

    @classmethod
    def find(cls, images: OwnImages, size: int, frames: tuple[int, ...], part: Part) -> Self:
        """Judge the files and take those of `part`; the last sixth, by name, validates.

        Raises
        ------
        ConfigError
            If a pair is bad and refused, there are fewer than two, or they differ in scale.
        """
        found: list[PairedFile] = []
        for folder in images.folders.values():
            these = _find(Path(folder), size, frames, images)
            if part != "all":
                kept = -(-len(these) // _VALIDATION_SHARE)
                if len(these) < 2:
                    raise ConfigError(
                        f"{folder} holds one usable pair; two are needed, one for validation."
                    )
                these = these[-kept:] if part == "validation" else these[:-kept]
            found += these
        if len(scales := sorted({file.scale for file in found})) > 1:
            raise ConfigError(
                f"Clean images are {' and '.join(map(str, scales))} times as large as their"
                " partners; a network has one scale. Keep those of one kind."
            )
        if size % (2 * found[0].scale):
            raise ConfigError(
                f"size {size} is no multiple of twice the scale {found[0].scale} of these images."
            )
        return cls(tuple(found), size, frames, images)

    @property
    def scale(self) -> int:
        """Pixels of the target per pixel of the input."""
        return self.files[0].scale

    @property
    def shapes(self) -> tuple[Shape, Shape]:
        """See `PairMaker`."""
        side = self.size // self.scale
        return (max(len(self.frames), 1), side, side), (1, self.size, self.size)

    def meta(self) -> dict[str, Any]:
        """See `PairMaker`."""
        return {
            "kind": "reconstruct" if self.frames else "paired",
            "size": self.size,
            "scale": self.scale,
            "frames": self.frames,
            "channels": ["Predicted"],
            "pixel_size_nm": self.images.pixel_size_nm,
            "modality": self.images.modality,
            "images": self.images.model_dump(mode="json"),
            "files": [[str(file.given), str(file.clean)] for file in self.files],
        }

    def make(self, entropy: tuple[int, int]) -> tuple[Image, Image]:
        """See `PairMaker`."""
        rng = np.random.default_rng(entropy)
        for _ in range(_TRIES):
            file = self.files[int(rng.integers(len(self.files)))]
            frames, clean = self._cut(rng, file)
            if clean.mean() > _EMPTY * read_image(file.clean).mean():
                break
        symmetry = int(rng.integers(4)), bool(rng.integers(2))
        frames, clean = turned(frames, *symmetry), turned(clean, *symmetry)
        background, scale = (np.float32(v) for v in background_and_scale(frames.mean(0)))
        truth = np.float32(file.slope) * clean + np.float32(file.offset)
        return (frames - background) / scale, ((truth - background) / scale)[None]

    def _cut(self, rng: np.random.Generator, file: PairedFile) -> tuple[Image, Image]:
        n_t, height, width = file.shape
        side = self.size // file.scale
        t = int(rng.integers(n_t))
        y, x = (int(rng.integers(n - side + 1)) for n in (height, width))
        group = read_image(file.given)[t * file.group : (t + 1) * file.group]
        frames = group[list(self.frames)] if self.frames else group
        clean = read_image(file.clean)[t]
        if self.images.centred and file.scale > 1:
            clean = covering(clean, file.scale)
        rows, columns = (
            slice(start * file.scale, start * file.scale + self.size) for start in (y, x)
        )
        return frames[:, y : y + side, x : x + side], clean[rows, columns]


def _find(folder: Path, size: int, frames: tuple[int, ...], images: OwnImages) -> list[PairedFile]:
    kind = "raw" if frames else "noisy"
    for name in ("clean", kind):
        if not (folder / name).is_dir():
            raise ConfigError(
                f"{folder} has no folder {name!r}: pairs are files of the same names in 'clean'"
                f" and {kind!r}."
            )
    found = []
    for clean in image_paths(folder / "clean"):
        given = folder / kind / clean.relative_to(folder / "clean")
        try:
            found.append(_assess(given, clean, size, frames, images.centred))
        except Exception as e:  # decoders raise whatever they like on a damaged file
            sentence = f"{given} cannot be paired with {clean}: {str(e).rstrip('.')}."
            if images.on_bad_file == "refuse":
                raise ConfigError(
                    f"{sentence} Remove both, or leave bad files out (on_bad_file: skip)."
                ) from e
            log.warning("%s They are left out.", sentence)
    if not found:
        raise ConfigError(f"{folder} holds no usable pair.")
    return found


def _assess(
    given: Path, clean: Path, size: int, frames: tuple[int, ...], centred: bool
) -> PairedFile:
    a, b = read_image(given), read_image(clean)
    scale = _scale(a.shape, b.shape)
    if min(b.shape[1:]) < size:
        raise ValueError(
            f"the clean image is {b.shape[1]} x {b.shape[2]}, and crops of {size} x {size} are"
            " needed"
        )
    group, rest = divmod(len(a), len(b))
    if rest or not group or (not frames and group > 1):
        wanted = "as many for each" if frames else "as many"
        raise ValueError(f"there are {len(a)} images for {len(b)} clean ones, expected {wanted}")
    if frames and max(frames) >= group:
        raise ValueError(f"a group has {group} exposures, and number {max(frames)} is asked for")
    first = covering(b[0], scale) if centred and scale > 1 else b[0]
    slope, offset = _unit(a[:group].mean(0), first, scale)
    return PairedFile(given, clean, (len(b), *a.shape[1:]), scale, group, slope, offset)


def _scale(given: tuple[int, ...], clean: tuple[int, ...]) -> int:
    """Return how many times as large the clean image is.

    Raises
    ------
    ValueError
        If that is no whole number, or not the same along both axes.
    """
    scale = round(clean[-1] / given[-1])
    if not 1 <= scale <= LARGEST_SCALE or clean[-2:] != tuple(scale * n for n in given[-2:]):
        raise ValueError(
            f"it is {given[-2]} x {given[-1]} and the clean image {clean[-2]} x {clean[-1]}, not 1"
            f" to {LARGEST_SCALE} times as large along both axes: cut both to the same field, and"
            " resample one of them"
        )
    return scale


def _unit(given: Image, clean: Image, scale: int) -> tuple[float, float]:
    """Return slope and offset of `given` over `clean`, both blurred until resolution is alike."""
    y, x = given.shape
    coarse = clean.reshape(y, scale, x, scale).mean((1, 3))
    a, b = (gaussian_filter(image.astype(np.float64), _ALIKE_PX) for image in (given, coarse))
    if b.std() == 0:
        raise ValueError("the clean image has no contrast")
    slope = float(np.mean((a - a.mean()) * (b - b.mean())) / b.var())
    if slope <= 0:
        raise ValueError("it does not show the same field")
    return slope, float(a.mean() - slope * b.mean())
