"""A store, or a part of it, in the format of another program.

Owns the choice of the writer, names of files, and that nothing is half written or written over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from livesr.base.errors import ConfigError, RunError
from livesr.base.files import NewPlace
from livesr.base.progress import Progress, Steps
from livesr.formats import object_store
from livesr.formats.store import RecordedStore, refuse_in_use
from livesr.store.exports.ome_zarr_04 import write_ome_zarr_04
from livesr.store.exports.part import EVERYTHING, Chosen, Part, choose, name_of
from livesr.store.exports.tables import (
    localisations_of,
    tables_of,
    write_frames,
    write_picasso,
    write_thunderstorm,
)
from livesr.store.exports.tiff import write_imagej, write_ome_tiff

Format: TypeAlias = Literal["tiff", "imagej", "ome-zarr-0.4", "csv", "picasso"]
FORMATS: tuple[Format, ...] = get_args(Format)
_ENDINGS: dict[str, str] = {"tiff": ".ome.tif", "imagej": ".tif"}
_FORMULA = "{store}_{format}"


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes
    ----------
    path : the folder, or the file where a single one was asked for
    files : inside of it, by name
    planes : how many were written
    """

    path: Path
    files: tuple[str, ...]
    planes: int


def export(
    store: str | Path,
    to: Format,
    out: str | Path | None = None,
    part: Part = EVERYTHING,
    on_progress: Progress = lambda done, total: None,
) -> Exported:
    """Write a store, or a part of it, for another program.

    At no moment more than one time point is held in memory, but for tables of localisations. What
    is at `out` already stays: the next free number is taken. Interrupted, it leaves nothing.

    Parameters
    ----------
    store : OME-Zarr of a run
    to : ``tiff``, OME-TIFF of any size; ``imagej``, hyperstacks; ``ome-zarr-0.4``; ``csv``, a
        row per picture, and localisations as ThunderSTORM's; ``picasso``, localisations as HDF5
    out : folder to make; beside the store (of one on object storage, in the working directory),
        named after it and the format, if None. A name that ends in .tif is the file itself, where a
        single image is chosen
    on_progress : called with planes written and in all

    Raises
    ------
    StoreError
        If there is no such store, nothing of it is chosen, or it cannot be read.
    ConfigError
        If a single file is asked for, and there are several.
    RunError
        If the disk refuses.
    """
    path = object_store.local(store)
    refuse_in_use(path)
    if out is not None:
        object_store.refuse_to_write(out)
    recorded = RecordedStore(path)
    images = choose(recorded, part)
    if to not in FORMATS:
        raise ConfigError(f"There is no format {to!r}; there are {', '.join(FORMATS)}.")
    counter = Steps(_total(images) if to not in {"csv", "picasso"} else 1, on_progress)
    place = _place(path, to, out)
    is_file = to in _ENDINGS and place.name.lower().endswith((".tif", ".tiff"))
    if is_file and len(images) > 1:
        raise ConfigError(
            f"{place.name} is one file, and {len(images)} images are chosen"
            f" ({', '.join(i.image.name for i in images)}): choose one with --series, --channels or"
            " --positions, or name a folder."
        )
    new = NewPlace(place)
    try:
        with new as written:
            if is_file:
                files = _write_tiffs(to, images, [written], counter.step)
            else:
                files = _write_folder(to, images, written, counter.step)
    except OSError as e:
        raise RunError(
            f"{place} cannot be written: {e.strerror or e}. Nothing is left of it; make room, or"
            " choose another place with --out."
        ) from e
    return Exported(new.path, (new.path.name,) if is_file else files, counter.done)


def _place(store: Path, to: str, out: str | Path | None) -> Path:
    if out is not None:
        return Path(out)
    if object_store.is_remote(store):
        store = Path.cwd() / store.name
    if to == "ome-zarr-0.4":
        return store.with_name(f"{name_of(store)}_0.4.ome.zarr")
    return store.with_name(_FORMULA.format(store=name_of(store), format=to))


def _write_folder(
    to: str, images: Sequence[Chosen], folder: Path, step: Callable[[], None]
) -> tuple[str, ...]:
    if to == "ome-zarr-0.4":
        write_ome_zarr_04(images, folder, step)
        return tuple(image.image.name for image in images)
    tables = tables_of(images) if to == "picasso" else []
    folder.mkdir()
    if to in _ENDINGS:
        names = [folder / f"{image.file}{_ENDINGS[to]}" for image in images]
        return _write_tiffs(to, images, names, step)
    if to == "csv":
        _write_csv(images, folder)
    for image, found in tables:
        write_picasso(image, found, folder / f"{_localised(image)}.hdf5")
    step()
    return tuple(sorted(file.name for file in folder.iterdir()))


def _write_tiffs(
    to: str, images: Sequence[Chosen], files: Sequence[Path], step: Callable[[], None]
) -> tuple[str, ...]:
    write = write_imagej if to == "imagej" else write_ome_tiff
    for image, file in zip(images, files, strict=True):
        write(image, file, step)
    return tuple(file.name for file in files)


def _write_csv(images: Sequence[Chosen], folder: Path) -> None:
    write_frames(images, folder / "frames.csv")
    for image in images:
        if (found := localisations_of(image)) is not None:
            write_thunderstorm(found, folder / f"{_localised(image)}.csv")


def _localised(image: Chosen) -> str:
    return f"localisations{image.image.name.removeprefix('raw')}"


def _total(images: Sequence[Chosen]) -> int:
    total = 0
    for image in images:
        t, z, c, _, _ = image.size
        total += t * z * c
    return total
