"""What a store consists of.

Which images a run has, what they are called and what they say about themselves.

Owns names and provenance; docs/store-layout.md describes the same for readers. Creates nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from itertools import chain, count
from pathlib import Path
from typing import Any

from livesr.base.documents import read_json, read_text
from livesr.base.errors import DocumentError
from livesr.base.run_description import ChannelDescription, RunDescription
from livesr.base.version import __version__
from livesr.formats.frames_log import SeriesName
from livesr.formats.series_spec import SeriesSpec

LAYOUT_VERSION = 1
# of a position or channel in a folder's name; a path has room for 260 characters on some systems
_LONGEST_NAME = 60
SIDECARS = "livesr"
FRAMES_LOG = f"{SIDECARS}/frames.jsonl"
REPORT = f"{SIDECARS}/report.json"
STRAYS = f"{SIDECARS}/strays"
IMAGES = f"{SIDECARS}/images.json"
RIG = f"{SIDECARS}/rig.yaml"

SR_TITLE = "SR prediction (AI) - not raw data"
MEAN_METHOD = "widefield mean"
"""What the mean of a group's raw frames is called, the measurement beside a network that sees
them."""

VOLUME = "stack"
"""What the method of a reconstruction ends with that was made of a whole stack."""

RAW_TASKS = ("restore", "reconstruct")
"""What engines do that see raw frames."""

SR_WARNING = (
    "Predicted by a neural network from one fluorescence channel. Not a measurement: structures may"
    " be missing, invented or assigned to the wrong channel. Verify against recon and raw before"
    " drawing conclusions."
)


UNCERTAINTY_TITLE = "SR uncertainty (estimate) - neither data nor prediction"
UNCERTAINTY_WARNING = (
    "Estimated standard deviation of the prediction beside it, from how much the network's"
    " prediction differs when its input is flipped. What the network is consistently wrong about"
    " does not show."
)


LIMITS_TITLE = "SR limits (error bars of a prediction) - not raw data"

ERROR_TITLE = "Error map (comparison with widefield) - neither data nor prediction"
ERROR_WARNING = (
    "Difference between a picture, blurred to the resolution of widefield, and the widefield mean"
    " of its exposures. Errors finer than widefield resolves do not show."
)
ERROR_SCALE = 0.1
"""ADU of the exposures for each number of an error map."""

DEPTH_OFFSET_NM = 10_000
"""What a depth image adds to z in nm; its zeros are pixels without a localisation."""
DEPTH_COLORS = ("3C50FF", "00C8FF", "30E070", "FFE030", "FF4030")
"""From the lowest z to the highest."""


def series_name(kind: SeriesName, run: RunDescription, position: int, channel: str) -> str:
    """Return an image's folder.

    `raw`, or `raw_<position>_<channel>` as soon as there are several of either.
    """
    if len(run.positions) == 1 and len(run.channels) == 1:
        return kind
    channels = [c.name for c in run.channels]
    place = _folder_name(run.positions, position)
    return f"{kind}_{place}_{_folder_name(channels, channels.index(channel))}"


def localisations_name(raw: str) -> str:
    """Return the file of what was localised in the frames of image `raw`, relative to the store."""
    return f"localisations{raw.removeprefix('raw')}.csv"


def series_specs(
    run: RunDescription, position: int, channel: ChannelDescription
) -> dict[SeriesName, SeriesSpec]:
    """Describe the images of one position and channel, by kind."""
    specs: dict[SeriesName, SeriesSpec] = {}
    if run.record_raw and not channel.parts:
        specs["raw"] = _raw(run, position, channel)
    if run.record_recon:
        specs["recon"] = _recon(run, position, channel)
        if channel.kept_updates and run.stack(position, channel.name).z_planes == 1:
            specs["rolling"] = _rolling(run, position, channel)
        if channel.depth_range_nm:
            specs["depth"] = _depth(run, position, channel)
    if channel.labels:
        specs["sr"] = _sr(run, position, channel)
    if channel.uncertainty:
        specs["uncertainty"] = _uncertainty(run, position, channel)
    if channel.limits_stored and channel.error_bars:
        specs["limits"] = _limits(run, position, channel)
    if channel.error_map == "planes":
        specs["error"] = _error(run, position, channel)
    return {kind: _placed(kind, spec, channel) for kind, spec in specs.items()}


def root_attributes(run: RunDescription) -> dict[str, Any]:
    """Return the attributes of the store's root group."""
    sums = {c.name: {"channels": c.parts, "weights": c.weights} for c in run.channels if c.parts}
    return {
        "ome": {"version": "0.5", "bioformats2raw.layout": 3},
        "livesr": {
            "version": LAYOUT_VERSION,
            "software": f"livesr {__version__}",
            "stream": run.stream_id,
            "started": datetime.fromtimestamp(run.started_ns / 1e9, UTC).isoformat(),
            "positions": list(run.positions),
            "channels": [c.name for c in run.channels],
            "sidecars": SIDECARS,
            **({"superposed": sums} if sums else {}),
        },
    }


def copy_of_metadata(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Return what the zarr.json files of a store and its rig.yaml say, for `IMAGES`.

    Whatever becomes of them, `livesr repair` has it again.

    Raises
    ------
    OSError
        If one of them cannot be read.
    """

    def said(file: str) -> Any:
        try:
            return read_json(path / file)
        except DocumentError as e:
            raise OSError(str(e)) from e

    images = {
        name: {"group": said(f"{name}/zarr.json"), "array": said(f"{name}/0/zarr.json")}
        for name in names
    }
    for image in images.values():
        image["array"]["shape"][0] = 0
    try:
        rig = {"rig": read_text(path / RIG)} if (path / RIG).is_file() else {}
    except DocumentError as e:
        raise OSError(str(e)) from e
    root = said("zarr.json")["attributes"]
    return {"version": LAYOUT_VERSION, "root": root, "images": images, **rig}


def _placed(kind: SeriesName, spec: SeriesSpec, channel: ChannelDescription) -> SeriesSpec:
    """Return the image with where its first pixel lies beside the camera's."""
    first_um = 0.0
    if kind != "raw":
        camera_um = channel.recon_pixel_size_um if channel.centred else channel.raw_pixel_size_um
        first_um = round((spec.pixel_size_um - camera_um) / 2, 9)
    about = {**spec.provenance, "first_pixel_um": first_um}
    return replace(spec, first_pixel_um=first_um, provenance=about)


def _raw(run: RunDescription, position: int, channel: ChannelDescription) -> SeriesSpec:
    # The phase of a pattern counts from the chip's origin: without the region's place raw cannot be
    # reconstructed again.
    provenance = {"kind": "raw", "prediction": False, "origin_px": list(channel.raw_origin_px)}
    provenance["bit_depth"] = channel.raw_bit_depth
    provenance["dark_adu"] = channel.raw_dark_adu
    if channel.camera:
        provenance["camera"] = channel.camera
    if channel.camera_drawn:
        provenance["drawn"] = True  # by the device itself: there was no specimen
    if any(channel.raw_mirrored):
        provenance["mirrored"] = list(channel.raw_mirrored)
    # Hundreds of exposures are a film: as channels, a viewer would make hundreds of layers of them.
    film = {"labels": ("raw",), "has_channel_axis": False, "exposures": len(channel.raw_labels)}
    if channel.raw_along_t:
        provenance["exposures"] = len(channel.raw_labels)
    channels = {
        "labels": channel.raw_labels,
        "shown_channels": 1,
    }  # exposures on top of each other show nothing
    axis: dict[str, Any] = film if channel.raw_along_t else channels
    return SeriesSpec(
        name=series_name("raw", run, position, channel.name),
        title="raw exposures",
        shape=channel.raw_shape,
        dtype=channel.raw_dtype,
        z_planes=run.stack(position, channel.name).z_planes,
        colors=("FFFFFF",) * len(axis["labels"]),
        pixel_size_um=channel.raw_pixel_size_um,
        z_step_um=run.stack(position, channel.name).z_step_um,
        interval_s=run.interval_s,
        provenance={**_about(run, position, channel), **provenance},
        **axis,
    )


def _recon(run: RunDescription, position: int, channel: ChannelDescription) -> SeriesSpec:
    provenance = {
        "kind": "reconstruction",
        "prediction": False,
        "method": channel.recon_method,
        "intensity": {
            "unit": channel.recon_unit,
            "scale": channel.recon_unit_scale,
            "offset": run.recon_offset_adu,
        },
    }
    if channel.parts:
        provenance["superposed"] = {
            "channels": channel.parts,
            "weights": channel.weights,
            "note": (
                "Sum of measurements that were taken one after the other; no exposure showed it."
            ),
        }
    return SeriesSpec(
        name=series_name("recon", run, position, channel.name),
        title=f"reconstruction ({channel.recon_method})",
        shape=channel.recon_shape,
        dtype="uint16",
        z_planes=run.stack(position, channel.name).z_planes,
        labels=(channel.name or "reconstruction",),
        colors=("FFFFFF",),
        pixel_size_um=channel.recon_pixel_size_um,
        z_step_um=run.stack(position, channel.name).z_step_um,
        interval_s=run.interval_s,
        has_channel_axis=False,
        provenance={**_about(run, position, channel), **provenance},
    )


def _rolling(run: RunDescription, position: int, channel: ChannelDescription) -> SeriesSpec:
    whole = _recon(run, position, channel)
    exposures = [*channel.kept_updates, len(channel.raw_labels)]
    about = {"kind": "rolling", "exposures": len(exposures), "newest": exposures}
    return replace(
        whole,
        name=series_name("rolling", run, position, channel.name),
        title=f"rolling {whole.title}",
        exposures=len(exposures),
        provenance={**whole.provenance, **about},
    )


def _depth(run: RunDescription, position: int, channel: ChannelDescription) -> SeriesSpec:
    provenance = {
        "kind": "depth",
        "prediction": False,
        "method": channel.recon_method,
        "note": "Mean z of the localisations that the running image draws in a pixel; 0: none.",
        "range_nm": channel.depth_range_nm,
        "colors": DEPTH_COLORS,
        "intensity": {"unit": "nm", "scale": 1.0, "offset": DEPTH_OFFSET_NM},
    }
    return replace(
        _recon(run, position, channel),
        name=series_name("depth", run, position, channel.name),
        title="depth (mean z of localisations)",
        labels=("depth",),
        provenance={**_about(run, position, channel), **provenance},
    )


def _sr(run: RunDescription, position: int, channel: ChannelDescription) -> SeriesSpec:
    provenance = {
        "kind": "prediction",
        "prediction": True,
        "warning": SR_WARNING,
        "input": _input(channel),
        "upscaling": round(channel.recon_pixel_size_um / channel.sr_pixel_size_um, 6),
        "intensity": {"unit": "ADU", "scale": 1.0, "offset": run.sr_offset_adu},
        **channel.ai,
    }
    return SeriesSpec(
        name=series_name("sr", run, position, channel.name),
        title=SR_TITLE,
        shape=channel.sr_shape,
        dtype="uint16",
        z_planes=run.stack(position, channel.name).z_planes,
        labels=tuple(f"SR {label}" for label in channel.labels),
        colors=channel.colors,
        pixel_size_um=channel.sr_pixel_size_um,
        z_step_um=run.stack(position, channel.name).z_step_um,
        interval_s=run.interval_s,
        provenance={**_about(run, position, channel), **provenance},
    )


def _input(channel: ChannelDescription) -> dict[str, Any]:
    """Return what a prediction was made of."""
    frames = "t-1, t, t+1" if channel.window == 3 else "t"
    first: Mapping[str, Any] = next(iter(channel.ai.get("engines", ())), {})
    if first.get("task") in RAW_TASKS:
        labels = list(first.get("raw_frames", channel.raw_labels))
        return {"kind": "raw frames", "labels": labels, "frames": frames}
    return {"kind": "reconstruction", "method": channel.recon_method, "frames": frames}


def _uncertainty(run: RunDescription, position: int, channel: ChannelDescription) -> SeriesSpec:
    provenance = {
        **channel.ai,
        "kind": "uncertainty",
        "prediction": False,
        "measurement": False,
        "warning": UNCERTAINTY_WARNING,
        "uncertainty": dict(channel.uncertainty),
        "intensity": {"unit": "ADU", "scale": 1.0, "offset": 0},
    }
    return replace(
        _sr(run, position, channel),
        name=series_name("uncertainty", run, position, channel.name),
        title=UNCERTAINTY_TITLE,
        labels=tuple(f"uncertainty of {label}" for label in channel.labels),
        provenance={**_about(run, position, channel), **provenance},
    )


def _limits(run: RunDescription, position: int, channel: ChannelDescription) -> SeriesSpec:
    assert channel.error_bars
    provenance = {
        **channel.ai,
        "kind": "limits",
        "prediction": True,
        "warning": channel.error_bars.sentence,
        "error_bars": channel.error_bars.model_dump(
            mode="json", by_alias=True, exclude={"structures"}
        ),
        "intensity": {"unit": "ADU", "scale": 1.0, "offset": run.sr_offset_adu},
    }
    sides = [f"{side} limit of {label}" for side in ("lower", "upper") for label in channel.labels]
    return replace(
        _sr(run, position, channel),
        name=series_name("limits", run, position, channel.name),
        title=LIMITS_TITLE,
        labels=tuple(sides),
        colors=channel.colors * 2,
        provenance={**_about(run, position, channel), **provenance},
    )


def _error(run: RunDescription, position: int, channel: ChannelDescription) -> SeriesSpec:
    provenance = {
        "kind": "error",
        "prediction": False,
        "measurement": False,
        "warning": ERROR_WARNING,
        "intensity": {"unit": "ADU", "scale": ERROR_SCALE, "offset": 0},
    }
    return replace(
        _recon(run, position, channel),
        name=series_name("error", run, position, channel.name),
        title=ERROR_TITLE,
        labels=tuple(f"error of {what}" for what in channel.compared),
        colors=("FFFFFF",) * len(channel.compared),
        has_channel_axis=True,
        provenance={**_about(run, position, channel), **provenance},
    )


def _about(run: RunDescription, position: int, channel: ChannelDescription) -> dict[str, Any]:
    return {
        "version": LAYOUT_VERSION,
        "stream": run.stream_id,
        "position": position,
        "position_name": run.positions[position],
        "channel": channel.name,
    }


def _folder_name(names: Sequence[str], index: int) -> str:
    return folder_names(tuple(names))[index]


@cache
def folder_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return a name for each that every file system takes, and that no other has, small and capital
    letters alike.
    """
    safe = [re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip(".")[:_LONGEST_NAME] for name in names]
    often = Counter(name.lower() for name in safe)
    taken = {name.lower() for name in safe if name and often[name.lower()] == 1}
    made = []
    for index, name in enumerate(safe):
        if not name or often[name.lower()] > 1:
            name = _free(name, index, taken)
            taken.add(name.lower())
        made.append(name)
    return tuple(made)


def _free(name: str, index: int, taken: Collection[str]) -> str:
    """Return the name with its index, and more behind it where another is called so."""
    numbered = f"{name}-{index}".lstrip("-")
    endings = chain([""], (f"-{n}" for n in count(2)))
    return next(free for ending in endings if (free := numbered + ending).lower() not in taken)
