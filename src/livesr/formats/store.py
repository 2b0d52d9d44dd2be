"""A store as its run left it.

Which images there are, what frames.jsonl says about them, with what they were made.

Owns the reading of a store's metadata. Writes nothing; pixels are read by whoever needs them, with
`livesr.formats.zarr_files.open_array`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from livesr.base import contained, documents
from livesr.base.array_limits import check_array
from livesr.base.errors import DocumentError, StoreError
from livesr.base.frames import Normalisation, Stream
from livesr.base.lock import LOCK, Holder, holder
from livesr.base.other_files import STORE, no_folder
from livesr.formats import layout, object_store
from livesr.formats.attributes import checked_image, checked_root, refuse_places
from livesr.formats.frames_log import (
    Event,
    LogContents,
    SeriesName,
    read_log,
    stored_lines,
    stream_of,
)

KINDS: dict[str, SeriesName] = {
    "raw": "raw",
    "reconstruction": "recon",
    "rolling": "rolling",
    "depth": "depth",
    "prediction": "sr",
    "uncertainty": "uncertainty",
    "limits": "limits",
    "error": "error",
}
CHUNKS = ("*", "*", "c")
"""Folders of an array's chunks: their links are looked at when they are read or written."""


@dataclass(frozen=True, slots=True)
class Image:
    """One image of a store.

    Attributes
    ----------
    folder : its group
    attributes : of the group, ``ome`` and ``livesr``
    """

    kind: SeriesName
    folder: Path
    attributes: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Folder inside the store."""
        return self.folder.name

    @property
    def position(self) -> int:
        """Index of its position."""
        return int(self.attributes["livesr"]["position"])

    @property
    def channel(self) -> str:
        """Name of its acquisition channel."""
        return str(self.attributes["livesr"]["channel"])

    @property
    def array(self) -> Path:
        """Folder of the full-size array."""
        return self.folder / "0"

    @property
    def exposures(self) -> int:
        """Planes along t of one time point: more than one in the raw film of a STORM run, and
        where pictures of groups under way are kept.
        """
        return int(self.attributes["livesr"].get("exposures", 1))

    @property
    def depth_colors(self) -> Sequence[str]:
        """Colours of a depth image, RRGGBB from the lowest z to the highest; none of others."""
        if self.kind != "depth":
            return ()
        return tuple(self.attributes["livesr"].get("colors", layout.DEPTH_COLORS))

    @property
    def scale(self) -> dict[str, float]:
        """Seconds or um per index of every axis, by its name."""
        image = self.attributes["ome"]["multiscales"][0]
        scale = image["datasets"][0]["coordinateTransformations"][0]["scale"]
        return {axis["name"]: float(s) for axis, s in zip(image["axes"], scale, strict=True)}

    @property
    def stage_um(self) -> dict[str, float]:
        """Where the stages were in um, by axis; {} where nobody said.

        Stores of before have it alone as translation, all of it; those of now say along which axes
        it is in there, and what else is.
        """
        (image,) = self.attributes["ome"]["multiscales"]
        own = self.attributes["livesr"]
        steps = image["datasets"][0]["coordinateTransformations"][1:]
        axes = [axis["name"] for axis in image["axes"]]
        first_pixel_um = own.get("first_pixel_um")
        said = "zyx" if first_pixel_um is None else own.get("placed", ())
        beside = dict.fromkeys("yx", first_pixel_um or 0.0)
        return {
            a: round(float(v) - beside.get(a, 0.0), 9)
            for step in steps
            for a, v in zip(axes, step.get("translation") or (), strict=False)
            if a in said and v is not None
        }


@dataclass(frozen=True, slots=True)
class ArrayShape:
    """What zarr.json says of an array: length and shard length of every axis, by its name.

    Along t both count time points; in a film each has `exposures` planes.
    """

    length: Mapping[str, int]
    shard: Mapping[str, int]
    dtype: str
    exposures: int = 1

    @property
    def z_planes(self) -> int:
        """Planes of a stack; 1 without a z axis."""
        return self.length.get("z", 1)

    def index(self, t: int, z: int) -> tuple[Any, ...]:
        """Return the index of all planes at (t, z)."""
        film = slice(t * self.exposures, (t + 1) * self.exposures)
        place: dict[str, Any] = {"t": film if self.exposures > 1 else t, "z": z}
        return tuple(place.get(axis, slice(None)) for axis in self.length)

    def shard_of(self, t: int, z: int) -> tuple[int, int]:
        """Return which shard holds (t, z), counted along t and z."""
        return t // self.shard["t"], z // self.shard.get("z", 1)

    def region(self, t_shard: int, z_shard: int) -> dict[str, slice]:
        """Return what of every axis a shard holds: of planes, all."""
        first = {"t": t_shard * self.shard["t"], "z": z_shard * self.shard.get("z", 1)}
        return {
            axis: slice(first[axis], min(first[axis] + self.shard[axis], n))
            if axis in first
            else slice(None)
            for axis, n in self.length.items()
        }

    def shard_key(self, t_shard: int, z_shard: int) -> str:
        """Return the file of a shard inside the array's folder."""
        place = {"t": t_shard, "z": z_shard}
        return "/".join(["c", *(str(place.get(axis, 0)) for axis in self.length)])

    def is_there(self, array: Path, t: int, z: int) -> bool:
        """Whether the file that holds (t, z) is beneath the array's folder: zarr reads one that is
        gone as zeros.
        """
        return object_store.exists(array, self.shard_key(*self.shard_of(t, z)))


def array_shape(array: Path, exposures: int = 1) -> ArrayShape:
    """Read an array's zarr.json; a film has `exposures` planes along t for each time point.

    Raises
    ------
    StoreError
        If it is missing or damaged, or names codecs or pixel types that are not read.
    """
    store = array.parent.parent
    if not is_store(store):
        return shape_said(read_json(array / "zarr.json"), array / "zarr.json", exposures)
    with _advised(store):
        return shape_said(read_json(array / "zarr.json"), array / "zarr.json", exposures)


def shape_said(about: Mapping[str, Any], file: Path, exposures: int = 1) -> ArrayShape:
    """Return the shape that the zarr.json of an array says, which was read from `file`.

    Raises
    ------
    StoreError
        If it is damaged, or names codecs or pixel types that are not read.
    """
    from livesr.formats.zarr_files import check_codecs

    check_codecs(about, str(file))
    try:
        names = about["dimension_names"]
        shards = about["chunk_grid"]["configuration"]["chunk_shape"]
        check_array(str(file), about["shape"], _chunk_of(about) or shards, shards)
        if exposures < 1:
            raise ValueError(f"{exposures} exposures")
        length, shard = (
            dict(zip(names, about["shape"], strict=True)),
            dict(zip(names, shards, strict=True)),
        )
        length["t"], shard["t"] = -(-length["t"] // exposures), max(shard["t"] // exposures, 1)
        return ArrayShape(length, shard, str(about["data_type"]), exposures)
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise StoreError(f"{file} does not describe an array that livesr wrote: {e}.") from e


def _chunk_of(about: Mapping[str, Any]) -> Any:
    """Shape of what is decoded at once: of the chunks inside a shard, where there are shards."""
    sharding = (c for c in about["codecs"] if c.get("name") == "sharding_indexed")
    return next((c["configuration"]["chunk_shape"] for c in sharding), None)


class RecordedStore:
    """The metadata of a store.

    Attributes
    ----------
    path : root folder
    about : the root's attribute ``livesr``
    images : by kind, position and channel

    Raises
    ------
    StoreError
        If `path` is no store of livesr.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path).absolute()
        if not self.path.is_dir():
            raise StoreError(why_no_store(Path(path)))
        contained.refuse_links(self.path, but=CHUNKS)
        try:
            root = read_json(self.path / "zarr.json")["attributes"]
            self.about: Mapping[str, Any] = root["livesr"]
            names = read_json(self.path / "OME" / "zarr.json")["attributes"]["ome"]["series"]
        except StoreError as e:
            raise StoreError(f"{path} is no complete store of livesr: {e} {advice(path)}") from e
        except (KeyError, TypeError) as e:
            raise StoreError(
                f"{path} is no complete store of livesr: zarr.json or OME/zarr.json lacks what a"
                f" run writes there. {advice(path)}"
            ) from e
        with _advised(self.path):
            checked_root(root, self.path / "zarr.json")
        if not isinstance(names, list):
            raise StoreError(
                f"{self.path / 'OME' / 'zarr.json'} names {type(names).__name__}, expected a list"
                f" of images. {advice(self.path)}"
            )
        folders = [contained.beneath(self.path, name) for name in names]
        if deeper := [name for name in names if "/" in name]:
            raise StoreError(
                f"{self.path} names an image {deeper[0]!r}; livesr's images are folders of the"
                " store itself."
            )
        with _advised(self.path):
            found = [image for folder in folders if (image := _image_or_other(folder))]
            refuse_places(
                [(i.folder, i.kind, i.position, i.channel) for i in found],
                len(self.positions),
                self.channels,
            )
        self.images = {(image.kind, image.position, image.channel): image for image in found}

    @property
    def positions(self) -> tuple[str, ...]:
        """Names of the positions, by index."""
        return tuple(self.about["positions"])

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the acquisition channels."""
        return tuple(self.about["channels"])

    @property
    def superposed(self) -> Mapping[str, Mapping[str, Any]]:
        """What no camera exposed: `channels` and `weights` of every sum, by its name."""
        return dict(self.about.get("superposed", {}))

    @property
    def camera_channels(self) -> tuple[str, ...]:
        """Names of the channels that were exposed."""
        return tuple(name for name in self.channels if name not in self.superposed)

    @cached_property
    def log(self) -> LogContents:
        """What frames.jsonl says, and what in it is not understood.

        Nothing where there is no such file.
        """
        log = contained.beneath(self.path, layout.FRAMES_LOG)
        return read_log(log) if log.is_file() else LogContents([])

    @property
    def events(self) -> list[Event]:
        """Every line of frames.jsonl that is understood."""
        return self.log.events

    @property
    def problems(self) -> tuple[str, ...]:
        """What this store cannot say of its run, in sentences."""
        missing = not (self.path / layout.FRAMES_LOG).is_file()
        gone = (
            f"{layout.FRAMES_LOG} is missing, so which pictures were taken and how is not known."
            if missing
            else ""
        )
        return tuple(sentence for sentence in (gone, self.log.problem) if sentence)

    def pictures(self, kind: SeriesName) -> dict[tuple[Stream, int], Event]:
        """Return the last line about every picture that the arrays of a kind hold, by stream and
        time point.
        """
        return stored_lines(e for e in self.events if e["series"] == kind)

    def measured(self, *, live: bool = False) -> dict[tuple[Stream, int], Event]:
        """Return the last line about every time point that was reconstructed, whether or not it is
        kept as an image.

        With `live`, lines that a backfill has written do not count; nor do, in any case, those of a
        repair, which know only that there is a picture.
        """
        made = (e for e in self.events if e["state"] == "recon" and not e.get("repaired"))
        lines = (e for e in made if not (live and e.get("backfilled")))
        return {(stream_of(e), e["t"]): e for e in lines}

    def normalisations(self) -> dict[tuple[Stream, int], Normalisation]:
        """Return what every reconstructed frame was normalised with."""
        return {
            key: Normalisation.read(e["normalisation"])
            for key, e in self.measured().items()
            if "normalisation" in e
        }

    def pattern_drifts(
        self,
    ) -> dict[tuple[Stream, int], tuple[tuple[float, ...], tuple[float, ...]]]:
        """Return what the pattern phases and vectors of every SIM frame were corrected by.

        Empty if nothing had drifted.
        """
        names = "pattern_drift_rad", "vector_drift_per_um"
        frames = ((k, e) for k, e in self.measured().items() if "quality" in e)
        return {k: (tuple(e.get(names[0], ())), tuple(e.get(names[1], ()))) for k, e in frames}

    def models(self, channel: str) -> dict[str, Mapping[str, Any]]:
        """Return the engines that the predictions of a channel went through, by task, in order."""
        about = self.provenance(channel)
        # Stores of version 0.1 name a separation only.
        engines = about.get("engines") or (
            [{"task": "separate", "model": about["model"]}] if "model" in about else []
        )
        return {engine["task"]: engine["model"] for engine in engines}

    def uncertainty(self, channel: str) -> str | None:
        """Return by which views the uncertainty of a channel was estimated, None if it was not."""
        images = (
            i
            for (kind, _, name), i in self.images.items()
            if (kind, name) == ("uncertainty", channel)
        )
        return next((i.attributes["livesr"]["uncertainty"]["views"] for i in images), None)

    def provenance(self, channel: str) -> Mapping[str, Any]:
        """Return what the predictions of a channel say of themselves, {} if there are none."""
        sr = [
            image
            for (kind, _, name), image in self.images.items()
            if kind == "sr" and name == channel
        ]
        return sr[0].attributes["livesr"] if sr else {}


def why_no_store(path: Path) -> str:
    """Return why what is at `path`, if anything is, is no store of livesr."""
    if not path.exists():
        return f"There is no store {path}: expected an OME-Zarr folder that livesr has written."
    return (
        no_folder(path, STORE)
        or f"{path} is no store of livesr: it has no folder '{layout.SIDECARS}'."
    )


def advice(path: Path) -> str:
    """Say what to do about a store that is not whole.

    To wait, where somebody is at work in it, or to repair it.
    """
    # Of a command that holds the lock itself, what it reads is not under way.
    if (at_work := _at_work(path)) and at_work.pid != os.getpid():
        return f"It is being {at_work.does} by {at_work}: wait until that has ended."
    return f"If its run was killed, 'livesr repair {path}' may help."


def refuse_in_use(path: Path) -> None:
    """Refuse a store that a run or a repair is changing.

    Raises
    ------
    StoreError
        It says who is at work.
    """
    at_work = _at_work(path)
    if at_work and at_work.what != "backfill":  # which leaves raw alone
        raise StoreError(f"{path} is being {at_work.does} by {at_work}. Wait until that has ended.")


def _at_work(path: Path) -> Holder | None:
    contained.beneath(
        path, f"{layout.SIDECARS}/{LOCK}"
    )  # whose folder may be a link: the age of a lock is found beside it
    return holder(path / layout.SIDECARS)


def is_store(path: Path) -> bool:
    """Whether `path` is a folder that a run of livesr left, complete or not."""
    return (path / layout.SIDECARS).is_dir()


def read_image(folder: Path) -> Image | None:
    """Return the image in `folder`, None if there is none of livesr's, or it is damaged."""
    try:
        return _image(folder)
    except StoreError:
        return None


def _image_or_other(folder: Path) -> Image | None:
    """Return the image in `folder`, None if its name is none of livesr's, or it was taken away.

    Raises
    ------
    StoreError
        If it is damaged.
    """
    if not folder.is_dir() or _is_empty(folder):
        return None
    return _image(folder) if folder.name.partition("_")[0] in KINDS.values() else read_image(folder)


def _is_empty(folder: Path) -> bool:
    """Whether an image was taken away and folders are left; files of a desktop are no image."""
    if (folder / "zarr.json").exists():
        return False
    return all(name.startswith(".") for _, _, names in os.walk(folder) for name in names)


def _image(folder: Path) -> Image:
    file = folder / "zarr.json"
    attributes = checked_image(read_json(file).get("attributes"), file)
    kind = KINDS.get(said := attributes["livesr"]["kind"])
    if kind is None or folder.name.partition("_")[0] != kind:
        raise StoreError(f"{file} says that {folder.name} is {said!r}.")
    image = Image(kind, folder, attributes)
    _check_planes(image)
    return image


def _check_planes(image: Image) -> None:
    """Refuse other labels than one for each plane along c, and exposures of which a shard does not
    hold whole time points, where the array says how many there are.
    """
    try:
        shape = array_shape(image.array)
    except StoreError:  # its own damage, which whoever reads the pixels tells
        return
    file = image.folder / "zarr.json"
    labels = len(image.attributes["ome"]["omero"]["channels"])
    planes, per_shard = shape.length.get("c", 1), shape.shard["t"]
    if labels != planes:
        raise StoreError(f"{file} names {labels} channels of {planes} planes along c.")
    if per_shard % image.exposures:
        raise StoreError(
            f"{file} says {image.exposures} exposures of a time point, and its shards hold"
            f" {per_shard} planes along t."
        )


@contextmanager
def _advised(store: Path) -> Iterator[None]:
    """Add what to do to what is wrong with the metadata of a store."""
    try:
        yield
    except StoreError as e:
        raise StoreError(
            f"{e} 'livesr repair {store}' writes it as the run did, where the store has a copy."
        ) from e


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    StoreError
        If the file is missing or damaged.
    """
    try:
        value = documents.read_json(contained.beneath(path.parent, path.name))
    except DocumentError as e:
        raise StoreError(str(e)) from e
    if not isinstance(value, dict):
        raise StoreError(f"{path} holds {type(value).__name__}, expected an object.")
    return value
