"""Training pairs read from disk.

Owns the folder format of cached pairs and the drawing of crops. Does not make pairs
(`pair_folder.py` does) and does not augment them (`batches.py` does).

Format
------
A folder with three files; training and validation pairs are two folders:

- `frames.npy`, float16 (N, f, y, x): f consecutive frames, the input of the network;
- `targets.npy`, float16 (N, c, sy, sx): one noise-free image per structure for the middle frame; s
  is 1 for a separation and the scale for upscaling;
- `meta.json`: an object with at least `seed`, `pixel_size_nm` and `channels` (names, in the order
  of the targets), besides whatever made the pairs.

Both arrays are already normalised: frames are (X - b) / s, and targets share s, so that the
targets' sum is the middle frame without its noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from livesr.base.documents import read_json
from livesr.base.errors import ConfigError, DocumentError
from livesr.base.npy import open_npy

Pairs: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]

_REQUIRED = {"seed", "pixel_size_nm", "channels"}
_STRIDE = 8  # of the pixels that an image's mean is estimated from


class TrainSource(Protocol):
    """Anything that draws training batches."""

    def batch(self, rng: np.random.Generator, size: int, patch: int) -> Pairs:
        """Return frames (size, f, patch, patch) and targets (size, c, s patch, s patch), determined
        by `rng` alone.
        """


class ValidationSource(Protocol):
    """Anything that has fixed validation pairs."""

    def validation(self, n: int) -> Pairs:
        """Return the same whole pairs, at most `n`, at every call."""


class CachedPairs:
    """A folder of cached pairs, memory-mapped.

    Parameters
    ----------
    folder : in the format above
    content : a crop holds a structure when its mean there is at least this part of the whole
        image's mean
    tries : crops drawn before the fullest one is taken
    window : frames to give, the middle ones; all if None. 1 is for networks without temporal
        continuity

    Raises
    ------
    FileNotFoundError, ValueError
        If the folder holds no such pairs.

    Notes
    -----
    Sparse structures (lysosomes) cover little of an image, and a network that rarely sees them
    learns to leave them out. Each crop is therefore drawn for one structure in turn of chance, or,
    as often, for any structure at all, and drawn again while it lacks that content. No crop is
    wanted empty, but one in an empty image is kept.
    """

    def __init__(
        self, folder: Path, content: float = 0.25, tries: int = 8, window: int | None = None
    ) -> None:
        self.meta = _read_meta(folder)
        self.frames: NDArray[np.float16] = open_npy(folder / "frames.npy", "r")
        self.targets: NDArray[np.float16] = open_npy(folder / "targets.npy", "r")
        self.scale = _check_shapes(folder, self.frames.shape, self.targets.shape)
        extra = self.frames.shape[1] - (window or self.frames.shape[1])
        if extra < 0 or extra % 2:
            raise ValueError(
                f"{folder} holds {self.frames.shape[1]} frames a pair, of which {window} cannot be"
                " the middle ones"
            )
        self._window = slice(extra // 2, self.frames.shape[1] - extra // 2)
        self._content, self._tries = content, tries
        self._means: dict[int, NDArray[np.float32]] = {}

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.frames)

    def batch(
        self, rng: np.random.Generator, size: int, patch: int, focus: Sequence[int] | None = None
    ) -> Pairs:
        """Return `size` random crops, float32: frames (size, f, patch, patch) and their targets.

        `focus` names the structure that each crop is drawn for, the number of structures meaning
        any; without, chance does.
        """
        if patch > min(self.frames.shape[-2:]):
            raise ValueError(
                f"patch {patch} does not fit into images of {self.frames.shape[-2:]}; use a smaller"
                " patch"
            )
        channels = self.targets.shape[1]
        crops = [
            self._crop(rng, patch, int(rng.integers(channels + 1)) if focus is None else focus[i])
            for i in range(size)
        ]
        frames = np.stack([self.frames[i, self._window, y, x] for i, y, x in crops])
        targets = np.stack(
            [
                self.targets[i, :, _scaled(y, self.scale), _scaled(x, self.scale)]
                for i, y, x in crops
            ]
        )
        return frames.astype(np.float32), targets.astype(np.float32)

    def validation(self, n: int) -> Pairs:
        """Return at most `n` whole pairs, evenly spread over the folder, float32."""
        chosen = np.linspace(0, len(self) - 1, min(n, len(self))).round().astype(int)
        return self.frames[chosen, self._window].astype(np.float32), self.targets[chosen].astype(
            np.float32
        )

    def _crop(self, rng: np.random.Generator, patch: int, focus: int) -> tuple[int, slice, slice]:
        best, best_content = (0, slice(0), slice(0)), -1.0
        for _ in range(self._tries):
            crop = self._random_crop(rng, patch)
            content = self._relative_content(*crop)
            wanted = float(content[focus] if focus < len(content) else content.max())
            if wanted > best_content:
                best, best_content = crop, wanted
            if wanted >= self._content:
                break
        return best

    def _random_crop(self, rng: np.random.Generator, patch: int) -> tuple[int, slice, slice]:
        index = int(rng.integers(len(self)))
        y, x = (int(rng.integers(side - patch + 1)) for side in self.frames.shape[-2:])
        return index, slice(y, y + patch), slice(x, x + patch)

    def _relative_content(self, index: int, y: slice, x: slice) -> NDArray[np.float32]:
        """Mean of each target in the crop over its mean in the whole image.

        0 where the image lacks the structure.
        """
        if index not in self._means:
            coarse = self.targets[index, :, ::_STRIDE, ::_STRIDE]
            self._means[index] = coarse.mean((1, 2), dtype=np.float32)
        whole = self._means[index]
        crop = self.targets[index, :, _scaled(y, self.scale), _scaled(x, self.scale)]
        inside = crop[:, ::2, ::2].mean((1, 2), dtype=np.float32)
        relative: NDArray[np.float32] = np.divide(
            inside, whole, out=np.zeros_like(whole), where=whole > 1e-4
        )
        return relative


def named_pairs(
    folder: Path, window: int | None = None, *, haze: bool | None = None
) -> CachedPairs:
    """Open the folder of pairs that a user named; `window` as of `CachedPairs`.

    Raises
    ------
    ConfigError
        If it holds none, with what to give instead, or simulated ones whose truth has `haze` where
        an engine draws none, or the reverse; None takes either.
    """
    try:
        pairs = CachedPairs(folder, window=window)
    except (OSError, ValueError, DocumentError) as e:
        raise ConfigError(
            f"{str(e).rstrip('.')}. Expected a folder of pairs, as pairs-validation of a training"
            " run of 'livesr train'."
        ) from e
    domain = pairs.meta.get("domain")
    if domain is None or haze is None or bool(domain.get("haze_in_truth")) == haze:
        return pairs
    shown, drawn = ("without", "with") if haze else ("with", "without")
    raise ConfigError(
        f"{folder} holds structures {shown} their haze ('haze_in_truth'), and the engine draws them"
        f" {drawn}: give pairs like those that it was trained on."
    )


def turned(images: NDArray[np.float32], turns: int, flip: bool) -> NDArray[np.float32]:
    """Return a view of `images` (..., y, x), turned by quarters and then flipped."""
    quarters = np.rot90(images, turns, (-2, -1))
    return quarters[..., ::-1] if flip else quarters


def _scaled(span: slice, scale: int) -> slice:
    return slice(span.start * scale, span.stop * scale)


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / "meta.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: {folder} is no folder of pairs")
    meta: dict[str, Any] = read_json(path)
    if missing := _REQUIRED - meta.keys():
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}")
    return meta


def _check_shapes(folder: Path, frames: tuple[int, ...], targets: tuple[int, ...]) -> int:
    """Return the targets' scale; raise ValueError when the arrays are not pairs."""
    problem = (
        f"{folder} holds frames {frames} and targets {targets}; expected (N, f, y, x) and (N, c, s"
        " y, s x)"
    )
    if len(frames) != 4 or len(targets) != 4 or len(frames) == 0 or frames[0] != targets[0]:
        raise ValueError(problem)
    scale = targets[-1] // frames[-1]
    if scale < 1 or targets[-2:] != (frames[-2] * scale, frames[-1] * scale):
        raise ValueError(problem)
    return scale
