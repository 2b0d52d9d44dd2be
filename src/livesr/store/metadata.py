"""What the zarr.json files of a store said, put together again where they are empty, cut off, or
rewritten by other software.

Owns the sources, in this order: the copy that the run made when it began (`layout.IMAGES`), and for
stores without one the images that are whole, the copy of rig.yaml, the engines' manifests and the
shards themselves. Changes nothing; `livesr.store.repair` writes what is found here.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any, get_args

from livesr.base.config import RigConfig, Step, load_yaml, parse
from livesr.base.errors import LiveSRError, StoreError
from livesr.base.frames import Stream
from livesr.base.geometry import Geometry
from livesr.base.run_description import ChannelDescription, RunDescription
from livesr.formats import layout
from livesr.formats.attributes import checked_image, checked_root
from livesr.formats.frames_log import Event, SeriesName, interval_s
from livesr.formats.series_spec import UNKNOWN_STEPS_S, group_json, ome_image, translation
from livesr.formats.shard_file import (
    ShardError,
    ShardForm,
    check_encoding,
    first_chunk,
    read_index,
    shard_form,
)
from livesr.formats.store import KINDS, Image, array_shape, read_image, read_json, shape_said
from livesr.live.inference.engine import Manifest, model_facts
from livesr.live.paths import build_path
from livesr.live.sinks.stack_heights import StackHeights
from livesr.modalities.registry import modality
from livesr.store.raw_input import camera_of

_MAX_PER_SHARD = 16
_WARNINGS_UNKNOWN = (
    "What the run warned of when it opened its engines is no longer known: 'livesr repair' wrote"
    " this anew."
)


@dataclass(slots=True)
class Rebuilt:
    """What was found.

    Attributes
    ----------
    files : content to write, by name inside the store
    problems : what could not be found, or is a guess, in sentences
    """

    files: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def image_names(path: Path) -> list[str]:
    """Return the names of the images that lie in the store, or that its copy of the metadata tells
    of.
    """
    there = (p.name for p in path.iterdir() if p.is_dir())
    told = (name for name in _copies(path) if Path(name).name == name)
    return sorted(name for name in {*there, *told} if name.partition("_")[0] in KINDS.values())


def is_described(folder: Path) -> bool:
    """Whether both zarr.json of an image are whole."""
    return _whole_group(folder) and _whole_array(folder)


def rebuild_images(path: Path, events: Sequence[Event]) -> Rebuilt:
    """Find what the zarr.json files of the images said, where they do not say it any more.

    An array found so has no time points: how many it has is for its shards to say. One whose
    zarr.json is whole, and says that its chunks are encoded in another way than livesr's, is left
    as it is.
    """
    found, copies = Rebuilt(), _copies(path)
    names = image_names(path)
    broken = [name for name in names if not is_described(path / name)]
    inferred = _Inferred(path, [n for n in names if n not in broken], events)
    for name in broken:
        kept = copies.get(name)
        try:
            _refuse_another_encoding(path / name / "0" / "zarr.json")
            if not _whole_array(path / name):
                found.files[f"{name}/0/zarr.json"] = kept["array"] if kept else inferred.array(name)
            if not _whole_group(path / name):
                array = found.files.get(f"{name}/0/zarr.json") or read_json(
                    path / name / "0" / "zarr.json"
                )
                group = (
                    _told(kept["group"], events)
                    if kept
                    else inferred.group(name, array, found.problems)
                )
                found.files[f"{name}/zarr.json"] = group
        except (LiveSRError, KeyError, TypeError, ValueError, OSError) as e:
            found.problems.append(
                f"{name} cannot be described any more ({e}): its files are left as they are."
            )
            for file in (f"{name}/0/zarr.json", f"{name}/zarr.json"):
                found.files.pop(file, None)
    if not (path / layout.REPORT).is_file():  # killed, perhaps before an image said when and where
        for name in set(names) - set(broken):
            group = read_json(path / name / "zarr.json")
            if (told := _told(group, events)) != group:
                found.files[f"{name}/zarr.json"] = told
    return found


def rebuild_root(
    path: Path, images: Sequence[Image], events: Sequence[Event]
) -> dict[str, Mapping[str, Any]]:
    """Return the group metadata that the store lacks, or that is not about its images, by file
    name.
    """
    about = _copy_of_root(path) or {"ome": _LAYOUT, "livesr": _about(images, events)}
    series = [image.name for image in images]
    wanted: dict[str, Mapping[str, Any]] = {}
    if not _is_root_of(images, path / "zarr.json"):
        wanted["zarr.json"] = group_json(about)
    if not _is_group(path / layout.SIDECARS / "zarr.json"):
        wanted[f"{layout.SIDECARS}/zarr.json"] = group_json({})
    if sorted(_series(path)) != sorted(series):
        wanted["OME/zarr.json"] = group_json({"ome": {"version": "0.5", "series": series}})
    return wanted


_LAYOUT = {"version": "0.5", "bioformats2raw.layout": 3}


class _Inferred:
    """The images of a store whose run kept no copy of their metadata."""

    def __init__(self, path: Path, whole: Sequence[str], events: Sequence[Event]) -> None:
        self._path, self._events = path, events
        self._whole = [image for name in whole if (image := read_image(path / name))]

    def array(self, name: str) -> dict[str, Any]:
        """Return an array's zarr.json, after another image's that is whole."""
        kind, position, channel = self._place(name)
        other = self._other(kind, position, channel)
        about = copy.deepcopy(read_json(other.array / "zarr.json"))
        file = self._any_shard(name)
        told = first_chunk(file)
        if told is None:
            raise StoreError("its shards hold no chunk that can be read")
        y, x = self._sides(kind, other, told[0] // told[1])
        planes, exposures = self._planes(kind, channel)
        z_planes = self._z_planes(position, channel, other)
        # Axes of the array, not of the other.
        alone = kind in ("recon", "depth") or exposures > 1
        counts = {"t": 0, **({} if alone else {"c": planes})}
        counts |= {**({"z": z_planes} if z_planes > 1 else {}), "y": y, "x": x}
        return self._with_shards(about, counts, file, told[1], exposures)

    def _with_shards(
        self,
        about: dict[str, Any],
        counts: dict[str, int],
        file: Path,
        itemsize: int,
        exposures: int,
    ) -> dict[str, Any]:
        """Fill in the sizes.

        How many time points a shard has follows from the length of its index.
        """
        about["data_type"] = {1: "uint8", 2: "uint16"}[itemsize]
        about["dimension_names"], about["shape"] = list(counts), list(counts.values())
        sharding = about["codecs"][0]["configuration"]
        sharding["chunk_shape"] = [1] * (len(counts) - 2) + [counts["y"], counts["x"]]
        for codec in sharding["codecs"]:
            if codec["name"] == "blosc":
                codec["configuration"]["typesize"] = itemsize
            if codec["name"] == "bytes":
                codec.pop("configuration", None)
                codec |= {"configuration": {"endian": "little"}} if itemsize > 1 else {}
        for per_shard in range(_MAX_PER_SHARD, 0, -1):
            for deep in {counts.get("z", 1), 1}:
                shard = {
                    **counts,
                    "t": per_shard * exposures,
                    **({"z": deep} if "z" in counts else {}),
                }
                about["chunk_grid"]["configuration"]["chunk_shape"] = list(shard.values())
                if _fits(file, shard_form(about)):
                    return about
        raise StoreError("the index of its shards is damaged as well")

    def group(self, name: str, array: Mapping[str, Any], problems: list[str]) -> Mapping[str, Any]:
        """Return an image's zarr.json, with the provenance that its pipeline would have given
        it.
        """
        kind, position, channel = self._place(name)
        length = dict(zip(array["dimension_names"], array["shape"], strict=True))
        description = self._description(
            kind, position, channel, (length["y"], length["x"]), str(array["data_type"])
        )
        run = replace(self._run(position, channel, description), z_planes=length.get("z", 1))
        specs = layout.series_specs(run, position, run.channel(channel))
        if kind not in specs:
            raise StoreError(
                f"rig.yaml and the engines beside it know of no {kind} of channel {channel!r}"
            )
        unknown = modality(self._rig.modality_of(channel)).region_unknown
        if kind == "raw" and unknown:
            problems.append(f"{name}: {unknown}")
        return _told(
            group_json({"ome": ome_image(specs[kind]), "livesr": dict(specs[kind].provenance)}),
            self._events,
        )

    @cached_property
    def _root(self) -> Mapping[str, Any]:
        try:
            file = self._path / "zarr.json"
            return dict(checked_root(read_json(file).get("attributes"), file)["livesr"])
        except StoreError:
            return _about(self._whole, self._events)

    @cached_property
    def _rig(self) -> RigConfig:
        file = self._path / layout.RIG
        rig = parse(
            RigConfig,
            {**load_yaml(file), "folder": file.parent, "micromanager": "rig.cfg"},
            str(file),
        )
        channels = {name: rig.channel(name).without_engines() for name in rig.channels}
        plain = rig.model_copy(update={"channels": channels})
        return plain.with_engine("none").with_engine("none", "upscale")

    @cached_property
    def _manifests(self) -> list[Manifest]:
        files = sorted((self._path / layout.SIDECARS).glob("manifest-*.yaml"))
        found = [parse(Manifest, load_yaml(file), str(file)) for file in files]
        return sorted(found, key=lambda manifest: get_args(Step).index(manifest.task))

    def _place(self, name: str) -> tuple[SeriesName, int, str]:
        """Return of which kind, position and channel the image with this folder is."""
        positions, channels = list(self._root["positions"]), list(self._root["channels"])
        run = RunDescription("", 0, tuple(map(_nameless, channels)), positions=tuple(positions))
        for kind in KINDS.values():
            for position in range(len(positions)):
                for channel in channels:
                    if layout.series_name(kind, run, position, channel) == name:
                        return kind, position, channel
        raise StoreError("the store does not say of which position and channel it is")

    def _other(self, kind: str, position: int, channel: str) -> Image:
        def distance(image: Image) -> tuple[bool, bool, bool]:
            return image.kind != kind, image.channel != channel, image.position != position

        if not self._whole:
            raise StoreError(
                "no other image of the store is whole, and it has no copy of its metadata"
            )
        return min(self._whole, key=distance)

    def _z_planes(self, position: int, channel: str, other: Image) -> int:
        """Return the planes of a stack.

        Of the images of its own position and channel, or what the log tells of it.
        """
        for image in self._whole:
            if (image.position, image.channel) == (position, channel):
                return array_shape(image.array, image.exposures).z_planes
        told = [
            int(e["z"]) + 1
            for e in self._events
            if (e["position"], e["channel"]) == (position, channel)
        ]
        return max(told) if told else array_shape(other.array, other.exposures).z_planes

    def _any_shard(self, name: str) -> Path:
        files = sorted(
            p
            for p in (self._path / name / "0" / "c").rglob("*")
            if p.is_file() and p.name.isdigit()
        )
        if not files:
            raise StoreError("it has no shard")
        return files[0]

    def _planes(self, kind: SeriesName, channel: str) -> tuple[int, int]:
        """Return planes along c and exposures along t of one time point."""
        if kind == "raw":
            n_raw = self._rig.raw_frames(channel)
            film = modality(self._rig.modality_of(channel)).raw_along_t
            return (1, n_raw) if film else (n_raw, 1)
        if kind == "rolling":
            return 1, len(self._rig.section(channel).updates) + 1
        if kind == "error":
            return (2 if self._manifests else 1), 1
        if kind == "limits":
            return 2 * len(self._predicted().channels), 1
        return (1 if kind in ("recon", "depth") else len(self._predicted().channels)), 1

    def _predicted(self) -> Manifest:
        """Return the engine whose output the predictions are."""
        if not self._manifests:
            raise StoreError("the manifest of its engine is not beside it")
        return self._manifests[-1].shown

    def _sides(self, kind: str, other: Image, pixels: int) -> tuple[int, int]:
        """Return (y, x) of an image with so many pixels, whose sides are in the proportion of
        another's.
        """
        length = array_shape(other.array, other.exposures).length
        factor = (pixels / (length["y"] * length["x"])) ** 0.5
        y, x = round(length["y"] * factor), round(length["x"] * factor)
        if y * x != pixels:
            raise StoreError(f"its {pixels} pixels do not have the proportions of {other.name}")
        return y, x

    def _description(
        self, kind: SeriesName, position: int, channel: str, shape: tuple[int, int], dtype: str
    ) -> ChannelDescription:
        """Describe the channel by its rig.

        The camera by its raw image, or by a picture of another kind.
        """
        raw = next((i for i in self._whole if (i.kind, i.channel) == ("raw", channel)), None)
        if raw:
            geometry = camera_of(raw)
        else:
            size_um = (self._rig.optics.pixel_size_nm or 0) / 1e3
            geometry = Geometry(
                shape if kind == "raw" else self._camera(channel, shape), dtype, size_um or 1.0
            )
        path = build_path(self._rig, channel, geometry)
        predicted = kind in ("sr", "uncertainty", "limits")
        return (
            self._with_prediction(path.description, path.doubts, shape)
            if predicted
            else path.description
        )

    def _camera(self, channel: str, shape: tuple[int, int]) -> tuple[int, int]:
        """Return the size of the raw frames whose reconstruction has this shape."""
        for factor in (2, 1, 3, 4, 8):
            camera = shape[0] // factor, shape[1] // factor
            plain = build_path(self._rig, channel, Geometry(camera, "uint16", 0.065)).description
            if plain.recon_shape == shape:
                return camera
        raise StoreError(
            f"no camera frame is known whose reconstruction is {shape[0]} x {shape[1]}"
        )

    def _with_prediction(
        self, plain: ChannelDescription, doubts: Sequence[str], shape: tuple[int, int]
    ) -> ChannelDescription:
        last = self._predicted()
        engines = [{"task": m.task, "model": model_facts(m)} for m in self._manifests]
        ai = {
            "prediction": True,
            "model": engines[-1]["model"],
            "engines": engines,
            "warnings": [*doubts, _WARNINGS_UNKNOWN],
        }
        return replace(
            plain,
            labels=last.channel_names,
            colors=tuple(c.color for c in last.channels),
            sr_shape=shape,
            sr_pixel_size_um=plain.recon_pixel_size_um * plain.recon_shape[0] / shape[0],
            window=last.window,
            ai=ai,
        )

    def _run(self, position: int, channel: str, description: ChannelDescription) -> RunDescription:
        channels = [description if c == channel else _nameless(c) for c in self._root["channels"]]
        own_first = sorted(
            self._whole, key=lambda i: (i.position, i.channel) != (position, channel)
        )
        z_steps = [step for image in own_first if (step := image.scale.get("z"))]
        recon = next((i for i in self._whole if i.kind == "recon"), None)
        run = RunDescription(
            str(self._root.get("stream", "")),
            0,
            tuple(channels),
            positions=tuple(self._root["positions"]),
            z_step_um=next(iter(z_steps), 1.0),
        )
        return (
            replace(run, recon_offset_adu=int(recon.attributes["livesr"]["intensity"]["offset"]))
            if recon
            else run
        )


def _copies(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """Return the copies of zarr.json that the run made, by image, each a group and its array.

    Those that are themselves damaged are left out.
    """
    file = path / layout.IMAGES
    try:
        images = read_json(file).get("images")
    except StoreError:
        return {}
    kept = {}
    for name, image in images.items() if isinstance(images, Mapping) else ():
        try:
            checked_image(image["group"]["attributes"], file)
            if _describes_array(image["array"], file):
                kept[name] = image
        except (StoreError, KeyError, TypeError):
            continue
    return kept


def _copy_of_root(path: Path) -> Mapping[str, Any] | None:
    file = path / layout.IMAGES
    try:
        return checked_root(read_json(file).get("root"), file)
    except StoreError:
        return None


def _whole_group(folder: Path) -> bool:
    image = read_image(folder)
    if image is None or (kept := _copies(folder.parent).get(folder.name)) is None:
        return image is not None
    said = kept["group"]["attributes"]["livesr"]
    return (image.position, image.channel) == (said["position"], said["channel"])


def _whole_array(folder: Path) -> bool:
    file = folder / "0" / "zarr.json"
    try:
        return _describes_array(read_json(file), file)
    except StoreError:
        return False


def _describes_array(about: Mapping[str, Any], file: Path) -> bool:
    try:
        shape_said(about, file)
        shard_form(about)
        return about["node_type"] == "array" and all(
            isinstance(n, int) and n >= 0 for n in about["shape"]
        )
    except (StoreError, KeyError, TypeError):
        return False


def _refuse_another_encoding(file: Path) -> None:
    """Refuse an array that other software has written anew.

    Its shards are not torn, and must not be taken for it.
    """
    try:
        about = read_json(file)
    except StoreError:
        return
    if (
        about.get("node_type") == "array"
        and {"data_type", "chunk_key_encoding", "codecs"} <= about.keys()
    ):
        check_encoding(about, file)


def _fits(file: Path, form: ShardForm) -> bool:
    try:
        return bool(len(read_index(file, form.chunks)))
    except (ShardError, OSError):
        return False


def _is_group(file: Path) -> bool:
    try:
        return read_json(file).get("node_type") == "group"
    except StoreError:
        return False


def _is_root_of(images: Sequence[Image], file: Path) -> bool:
    try:
        about = checked_root(read_json(file).get("attributes"), file)["livesr"]
    except StoreError:
        return False
    return all(
        image.position < len(about["positions"]) and image.channel in about["channels"]
        for image in images
    )


def _series(path: Path) -> list[str]:
    try:
        return list(map(str, read_json(path / "OME" / "zarr.json")["attributes"]["ome"]["series"]))
    except (StoreError, KeyError, TypeError):
        return []


def _about(images: Sequence[Image], events: Sequence[Event]) -> dict[str, Any]:
    """Return the root's attribute, as far as images and log tell."""
    own = [image.attributes["livesr"] for image in images]
    positions = {int(o["position"]): str(o.get("position_name", o["position"])) for o in own}
    last = max([*positions, *(int(e["position"]) for e in events), 0])
    channels = [*(str(o["channel"]) for o in own), *(str(e["channel"]) for e in events)]
    sums = {
        str(o["channel"]): {k: o["superposed"].get(k) for k in ("channels", "weights")}
        for o in own
        if o.get("superposed")
    }
    times = [e["t_acq_ns"] for e in events if e.get("t_acq_ns")]
    started = (
        {"started": datetime.fromtimestamp(min(times) / 1e9, UTC).isoformat()} if times else {}
    )
    return {
        "version": layout.LAYOUT_VERSION,
        "stream": next((o["stream"] for o in own if "stream" in o), ""),
        **started,
        "positions": [positions.get(p, str(p)) for p in range(last + 1)],
        "channels": list(dict.fromkeys(channels)) or [""],
        "sidecars": layout.SIDECARS,
        **({"superposed": sums} if sums else {}),
    }


def _nameless(channel: str) -> ChannelDescription:
    """Return a channel of which only the name counts."""
    return ChannelDescription(channel, (), (0, 0), "uint16", 1.0, (0, 0), 1.0, "")


def _told(group: Mapping[str, Any], events: Sequence[Event]) -> Mapping[str, Any]:
    """Return the image with what the log shows of when and where, where it does not say it."""
    return _placed(_timed(group, events), events)


def _timed(group: Mapping[str, Any], events: Sequence[Event]) -> dict[str, Any]:
    """Return the image with the interval that the log shows, where it does not say one."""
    about = copy.deepcopy(dict(group))
    own = about["attributes"]["livesr"]
    exposures = int(own.get("exposures", 1))
    scale = about["attributes"]["ome"]["multiscales"][0]["datasets"][0][
        "coordinateTransformations"
    ][0]["scale"]
    if scale[0] in UNKNOWN_STEPS_S and (
        group_s := interval_s(events, own.get("position"), own.get("channel"))
    ):
        scale[0] = group_s / exposures
    return about


def _placed(group: Mapping[str, Any], events: Sequence[Event]) -> Mapping[str, Any]:
    """Return the image with the stages' place that the log shows, where it does not say one."""
    own = group["attributes"]["livesr"]
    position, channel = own.get("position"), own.get("channel")
    raw = [e for e in events if e["series"] == "raw" and e["position"] == position]
    taken = [e for e in raw if e["channel"] == channel]
    image = group["attributes"]["ome"]["multiscales"][0]
    moved = len(image["datasets"][0]["coordinateTransformations"]) > 1
    if not taken or own.get("placed") or (moved and "first_pixel_um" not in own):
        return group
    heights = StackHeights()
    for event in sorted(raw, key=itemgetter("t")):
        heights.note(Stream(event["position"], event["channel"], event["z"]), event.get("z_um"))
    first = min(taken, key=itemgetter("t", "z"))
    known = {
        "x": first.get("x_um"),
        "y": first.get("y_um"),
        "z": heights.first_plane_um(first["position"], first["channel"]),
    }
    axes = [axis["name"] for axis in image["axes"]]
    stage_um = {axis: um for axis in axes if (um := known.get(axis)) is not None}
    if not stage_um:
        return group
    about = copy.deepcopy(dict(group))
    dataset = about["attributes"]["ome"]["multiscales"][0]["datasets"][0]
    place = translation(axes, own.get("first_pixel_um") or 0.0, stage_um)
    dataset["coordinateTransformations"][1:] = [{"type": "translation", "translation": place}]
    if "first_pixel_um" in own:
        about["attributes"]["livesr"]["placed"] = list(stage_um)
    return about
