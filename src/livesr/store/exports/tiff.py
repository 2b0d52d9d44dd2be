"""TIFF: OME-TIFF of any size (BigTIFF), and hyperstacks as ImageJ and Fiji have them.

Owns the metadata of the two. Pixels are written plane by plane.

An OME-TIFF has one image, its planes in the order t, z, c. A hyperstack has what ImageJ shows: a
look-up table and a display range per channel, um, seconds, and a label on every slice. ImageJ
wrote stacks above 4 GiB as one description followed by all pixels; tifffile does the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import StoreError
from livesr.base.words import spans
from livesr.store.exports.part import Chosen

_MAX_LABELLED = 200_000  # slices; ImageJ keeps all labels in memory
_MOST_COMPOSITE = 7  # channels of a composite, in ImageJ
_MOST_IMAGEJ_PIXELS = 2**31 - 1  # of one plane, in Java's arrays


def write_ome_tiff(image: Chosen, file: Path, step: Callable[[], None]) -> None:
    """Write one image as OME-TIFF.

    Parameters
    ----------
    file : to write; its folder exists
    step : called after every plane

    Raises
    ------
    StoreError
        If the image cannot be read.
    OSError
        If the disk refuses.
    """
    import tifffile

    t, z, c, y, x = image.size
    with tifffile.TiffWriter(file, bigtiff=True, ome=True) as tiff:
        tiff.write(
            _planes(image, step),
            shape=(t, z, c, y, x),
            dtype=image.dtype,
            photometric="minisblack",
            metadata=_ome(image),
            resolution=(1e4 / image.pixel_size_um, 1e4 / image.pixel_size_um),
            resolutionunit="CENTIMETER",
        )


def write_imagej(image: Chosen, file: Path, step: Callable[[], None]) -> None:
    """Write one image as a hyperstack that opens in ImageJ and Fiji with its colours.

    Raises
    ------
    StoreError
        If the image cannot be read, or ImageJ has no place for a plane so large.
    OSError
        If the disk refuses.
    """
    import tifffile

    t, z, c, y, x = image.size
    if y * x > _MOST_IMAGEJ_PIXELS:
        raise StoreError(
            f"{image.image.name} has planes of {y} x {x} pixels, more than ImageJ takes: export a"
            " region, or --to tiff."
        )
    with warnings.catch_warnings(), tifffile.TiffWriter(file, imagej=True) as tiff:
        # above 4 GiB, which is how ImageJ has it
        warnings.filterwarnings("ignore", "(?s).*truncating ImageJ file")
        tiff.write(
            _planes(image, step),
            shape=(t, z, c, y, x),
            dtype=image.dtype,
            metadata=_imagej(image),
            resolution=(1 / image.pixel_size_um, 1 / image.pixel_size_um),
        )


def _planes(image: Chosen, step: Callable[[], None]) -> Iterator[NDArray[Any]]:
    """Yield every (y, x), c fastest, then z, then t."""
    for frame, _ in image.frames():
        for z in range(image.shape.z_planes):
            for plane in image.planes(frame, z):
                yield np.ascontiguousarray(plane)
                step()


def _ome(image: Chosen) -> dict[str, Any]:
    labels = image.labels
    about: dict[str, Any] = {
        "axes": "TZCYX",
        "Name": f"{image.title} [{image.said}]",
        "Description": _description(image),
        "PhysicalSizeX": image.pixel_size_um,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": image.pixel_size_um,
        "PhysicalSizeYUnit": "µm",
        "TimeIncrement": image.interval_s,
        "TimeIncrementUnit": "s",
        "Channel": {
            "Name": [label.name for label in labels],
            "Color": [_signed(label.color) for label in labels],
        },
    }
    if image.shape.z_planes > 1:
        about |= {"PhysicalSizeZ": image.z_step_um, "PhysicalSizeZUnit": "µm"}
    return about


def _imagej(image: Chosen) -> dict[str, Any]:
    labels, (t, z, c, *_) = image.labels, image.size
    # Exposures on top of each other show nothing, and ImageJ adds up seven channels at most.
    composite = 1 < c <= _MOST_COMPOSITE and image.image.kind != "raw"
    about: dict[str, Any] = {
        "axes": "TZCYX",
        "mode": "composite" if composite else "grayscale",
        "unit": "um",
        "spacing": image.z_step_um,
        "finterval": image.interval_s,
        "fps": 1 / image.interval_s if image.interval_s > 0 else 1.0,
        "min": min(label.window[0] for label in labels),
        "max": max(label.window[1] for label in labels),
        "Ranges": tuple(value for label in labels for value in label.window),
        "LUTs": [_lut(label.color, image.image.depth_colors) for label in labels],
        "Info": _description(image),
    }
    if t * z * c <= _MAX_LABELLED:
        about["Labels"] = _slice_labels(image)
    return about


def _slice_labels(image: Chosen) -> list[str]:
    names = [label.name for label in image.labels]
    return [
        f"{name} t {at}" + ("" if image.is_stored(at, z) else " (missing)")
        for _, at in image.frames()
        for z in range(image.shape.z_planes)
        for name in names
    ]


def _description(image: Chosen) -> str:
    """Say what the image is, what made it and what of it is missing, in lines."""
    own = image.image.attributes["livesr"]
    lines = [f"{image.title} [{image.said}]", image.warning]
    if isinstance(model := own.get("model"), Mapping):
        lines.append(f"Engine {model.get('id')}, sha256 {model.get('sha256')}")
    if intensity := own.get("intensity"):
        unit = intensity.get("unit") or "intensity"  # nothing else needs it, and it may be gone
        lines.append(f"{unit} = {intensity['scale']:g} x (value - {intensity['offset']:g})")
    gaps = missing_times(image)
    if gaps:
        lines.append(f"Missing, zeros here: t {', '.join(gaps)}")
    if origin := image.origin_px:
        y, x = origin
        lines.append(f"First pixel on the chip: y {y:g}, x {x:g} (--origin {y:g} {x:g})")
    lines.append(f"t 0 here is t {image.times.start} of {image.image.folder.parent.name}")
    return "\n".join(line for line in lines if line)


def missing_times(image: Chosen) -> list[str]:
    """Return the time points without a picture in some plane, as "3" or "5-9"."""
    planes = range(image.shape.z_planes)
    return spans(t for t in image.times if not all(image.is_stored(t, z) for z in planes))


def _lut(color: str, colors: Sequence[str]) -> NDArray[np.uint8]:
    """Ramp from black to a colour, (3, 256); of depth through its own, black where nothing is."""
    if colors:
        stops = np.array([list(bytes.fromhex(each)) for each in colors])
        at = np.linspace(0, len(stops) - 1, 256)
        table = [np.interp(at, np.arange(len(stops)), part) for part in stops.T]
        return np.where(np.arange(256) > 0, np.rint(table), 0).astype(np.uint8)
    rgb = np.frombuffer(bytes.fromhex(color), np.uint8).astype(np.uint16)
    ramp = np.arange(256, dtype=np.uint16)
    return (rgb[:, None] * ramp // 255).astype(np.uint8)


def _signed(color: str) -> int:
    """Return a colour as OME-XML counts it: red, green, blue and alpha in a signed number."""
    number = int(color, 16) << 8 | 255
    return number - (1 << 32) if number >= 1 << 31 else number
