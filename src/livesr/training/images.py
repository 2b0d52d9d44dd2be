"""A user's own images: folders of TIFF, MRC and OME-Zarr, each structure in one.

Owns reading and judging of files. A file that cannot serve is named with its reason, and refused or
left out as the user chose.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

from livesr.base.array_limits import check_array
from livesr.base.errors import ConfigError, StoreError
from livesr.simulation.sequence import default_modality

log = logging.getLogger(__name__)

Image = NDArray[np.float32]
OnBadFile = Literal["refuse", "skip"]

_MAX_BYTES = 4 << 30
_PERCENTILES = (0.1, 99.9)
_BIOSR = (
    "SIM_gt*.mrc",
    "GTSIM_level_*.mrc",
)  # of a cell in BioSR, ER last: its other files are raw frames


class OwnImages(BaseModel):
    """The `images` section of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folders: Annotated[dict[str, str], Field(min_length=1)]
    """Structure: folder, in the order of the engine's channels."""
    pixel_size_nm: PositiveFloat
    modality: str = Field(default_factory=default_modality)
    on_bad_file: OnBadFile = "refuse"
    brightness_ratio: Annotated[float, Field(ge=1)] = 5.0
    """Largest ratio between two structures."""
    centred: bool = False
    """Of pairs of different sampling: the first pixels of both have the same middle, as a SIM
    reconstruction lies on the camera's pixels, instead of the same corner.
    """
    photons: tuple[PositiveFloat, PositiveFloat] | None = None
    """Photo-electrons of a bright part, to add a camera's noise to clean images; log-uniform."""


@dataclass(frozen=True)
class ImageFile:
    """One usable file.

    Attributes
    ----------
    shape : (t, y, x)
    low, high : the 0.1st and 99.9th percentile of all its pixels, in its own unit
    noisy : the same field with noise, if there is one
    noisy_scale : slope and offset of the noisy image over the clean one; the noise does not flatten
        this regression
    """

    path: Path
    shape: tuple[int, int, int]
    low: float
    high: float
    noisy: Path | None = None
    noisy_scale: tuple[float, float] = (1.0, 0.0)

    @property
    def field(self) -> Path:
        """What files of one field of view share.

        Of BioSR, whose cells have several images, the cell's folder.
        """
        return (
            self.path.parent if any(self.path.match(pattern) for pattern in _BIOSR) else self.path
        )


def find_images(
    folder: str | os.PathLike[str], smallest: int, on_bad_file: OnBadFile = "refuse"
) -> list[ImageFile]:
    """Read and judge every image below `folder`.

    Parameters
    ----------
    folder : an image, or a folder that holds .tif, .tiff, .mrc or .zarr at any depth. With folders
        `clean` and `noisy` in it, each clean image needs a noisy one of the same name. Of a BioSR
        folder only the SIM images are taken
    smallest : pixels that each side must have
    on_bad_file : "refuse" raises; "skip" leaves it out and logs why

    Raises
    ------
    ConfigError
        If a file is bad and refused, or none is good.
    """
    folder = Path(folder)
    root, noisy = folder, None
    if (folder / "clean").is_dir():
        root, noisy = folder / "clean", folder / "noisy"
    found = []
    for path in image_paths(root):
        partner = noisy / path.relative_to(root) if noisy else None
        try:
            found.append(_assess(path, partner, smallest))
        except Exception as e:  # decoders raise whatever they like on a damaged file
            sentence = f"{path} cannot serve as an image: {str(e).rstrip('.')}."
            if on_bad_file == "refuse":
                raise ConfigError(
                    f"{sentence} Remove it, or leave bad files out (on_bad_file: skip)."
                ) from e
            log.warning("%s It is left out.", sentence)
    if not found:
        raise ConfigError(f"{folder} holds no usable image (.tif, .tiff, .mrc or .zarr).")
    return found


@lru_cache(maxsize=16)
def read_image(path: Path) -> Image:
    """Return an image as float32 (t, y, x); the caller must not write into it.

    Raises
    ------
    ValueError
        If it has axes besides these, or pixels that are not finite.
    """
    kind = next((suffix for suffix in _READERS if path.name.lower().endswith(suffix)), "")
    if not kind:
        raise ValueError(f"its name ends in none of {', '.join(_READERS)}")
    pixels = np.asarray(_READERS[kind](path))
    image = pixels.reshape(tuple(n for n in pixels.shape if n > 1))
    if image.ndim not in {2, 3} or image.dtype.kind not in "uif":
        raise ValueError(
            f"it is {pixels.dtype} {pixels.shape}, expected numbers with the axes (t, y, x) or"
            " (y, x)"
        )
    image = image.reshape((-1, *image.shape[-2:])).astype(np.float32)
    if not np.isfinite(image).all():
        raise ValueError("some of its pixels are no numbers")
    image.flags.writeable = False
    return image


def image_paths(root: Path) -> list[Path]:
    """Return every image below a folder in the order of names; of BioSR the SIM images alone."""
    if root.is_file() or root.suffix.lower() == ".zarr":
        return [root]
    if biosr := sorted(path for pattern in _BIOSR for path in root.rglob(pattern)):
        return biosr
    everything = sorted(p for p in root.rglob("*") if p.name.lower().endswith(tuple(_READERS)))
    stores = {p for p in everything if p.suffix.lower() == ".zarr"}
    return [p for p in everything if not stores & set(p.parents)]


def _assess(path: Path, noisy: Path | None, smallest: int) -> ImageFile:
    image = read_image(path)
    t, y, x = image.shape
    if min(y, x) < smallest:
        raise ValueError(f"it is {y} x {x}, and crops of {smallest} x {smallest} are needed")
    low, high = (float(v) for v in np.percentile(image, _PERCENTILES))
    if not high > low:
        raise ValueError("it has no contrast")
    if noisy is None:
        return ImageFile(path, (t, y, x), low, high)
    return ImageFile(path, (t, y, x), low, high, noisy, _scale_of(noisy, image))


def _scale_of(noisy: Path, clean: Image) -> tuple[float, float]:
    image = read_image(noisy)
    if image.shape != clean.shape:
        raise ValueError(f"{noisy} is {image.shape}, the clean image {clean.shape}")
    middle = float(clean.mean(dtype=np.float64)), float(image.mean(dtype=np.float64))
    slope = float(
        np.mean((clean - middle[0]) * (image - middle[1]), dtype=np.float64)
        / clean.var(dtype=np.float64)
    )
    if slope <= 0:
        raise ValueError(f"{noisy} does not show the same field")
    return slope, middle[1] - slope * middle[0]


def _check_size(shape: Sequence[int], itemsize: int) -> None:
    """Refuse an image that says it is larger than any that can be trained on, before memory is
    taken for it.
    """
    if min(shape, default=1) < 0 or math.prod(shape) * itemsize > _MAX_BYTES:
        raise ValueError(
            f"it says that it is {' x '.join(map(str, shape))}; at most {_MAX_BYTES:,} bytes are"
            " read"
        )


def _read_tiff(path: Path) -> NDArray[Any]:
    import tifffile

    from livesr.live.sources.recordings.companions import refuse_strangers

    with tifffile.TiffFile(path) as file:
        if not len(file.pages):
            raise ValueError("no image is in it")
        refuse_strangers(file)
        _check_size(file.series[0].shape, file.series[0].dtype.itemsize)
        return np.asarray(file.asarray())


def _read_mrc(path: Path) -> NDArray[Any]:
    import mrcfile

    with mrcfile.open(path, permissive=False, header_only=True) as file:
        header = file.header
        _check_size((int(header.nx), int(header.ny), int(header.nz)), 1)
        if (
            int(header.nx) * int(header.ny) * int(header.nz) > path.stat().st_size * 2
        ):  # the smallest type has half a byte
            raise ValueError("it is cut off")
    with mrcfile.open(path, permissive=False) as file:
        return np.array(file.data)


def _read_zarr(path: Path) -> NDArray[Any]:
    from livesr.formats.zarr_files import open_group

    group = open_group(path)
    attributes: dict[str, Any] = dict(group.attrs)
    multiscales = dict(attributes.get("ome", attributes)).get("multiscales")
    if not multiscales:
        raise ValueError("its attributes name no multiscales: it is no OME-Zarr image")
    array: Any = group[multiscales[0]["datasets"][0]["path"]]
    try:
        check_array(
            "it", array.shape, array.chunks, getattr(array, "shards", None), array.dtype.itemsize
        )
    except StoreError as e:
        raise ValueError(str(e)) from e
    _check_size(array.shape, array.dtype.itemsize)
    return np.asarray(array[...])


_READERS: dict[str, Callable[[Path], NDArray[Any]]] = {
    ".tif": _read_tiff,
    ".tiff": _read_tiff,
    ".mrc": _read_mrc,
    ".zarr": _read_zarr,
}
