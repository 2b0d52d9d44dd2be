"""OME/METADATA.ome.xml: the images of a store as OME-XML, for readers that look for it there.

Owns the text. What it says is in the zarr.json files of the images, of which it is made. Its image
IDs are the images' paths: so napari-ome-zarr finds them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from livesr.base import contained
from livesr.base.documents import read_json
from livesr.base.errors import DocumentError, LiveSRError

FILE = "OME/METADATA.ome.xml"
_SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_PLACE = {
    "xmlns": _SCHEMA,
    "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
    "xsi:schemaLocation": f"{_SCHEMA} {_SCHEMA}/ome.xsd",
}
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def ome_xml(path: Path, names: Iterable[str]) -> str:
    """Return the text about the images `names` of the store at `path`, as their zarr.json say it.

    An image without time points yet has one here: OME-XML knows none without.

    Raises
    ------
    OSError
        If a zarr.json cannot be read, or describes no image.
    """
    root = ElementTree.Element("OME", _PLACE)
    for name in names:
        folder = path / name
        try:
            _add_image(
                root, name, read_json(folder / "zarr.json"), read_json(folder / "0/zarr.json")
            )
        except (DocumentError, KeyError, IndexError, TypeError, ValueError) as e:
            raise OSError(f"{folder} does not say what it is: {type(e).__name__}: {e}") from e
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, "unicode")}\n'


def write_ome_xml(path: Path, names: Iterable[str]) -> bool:
    """Write the text into the store at `path` unless it is there; return whether it was not.

    Raises
    ------
    OSError
        As `ome_xml`, and if the disk refuses.
    """
    text = ome_xml(path, names)
    if _read(path) == text:
        return False
    contained.replace_text(path, FILE, text)
    return True


def names_images(path: Path, names: Iterable[str]) -> bool:
    """Whether the text in the store at `path` is about exactly these images."""
    return sorted(re.findall(r'<Image ID="Image:([^"]*)"', _read(path))) == sorted(names)


def _read(path: Path) -> str:
    try:
        return contained.read_text(path, FILE)
    except (LiveSRError, OSError, UnicodeDecodeError):
        return ""


def _add_image(
    root: ElementTree.Element, name: str, group: Mapping[str, Any], array: Mapping[str, Any]
) -> None:
    (multiscales,) = group["attributes"]["ome"]["multiscales"]
    axes = [axis["name"] for axis in multiscales["axes"]]
    size = dict(zip(axes, array["shape"], strict=True))
    scale = dict(
        zip(
            axes,
            multiscales["datasets"][0]["coordinateTransformations"][0]["scale"],
            strict=True,
        )
    )
    image = ElementTree.SubElement(
        root, "Image", {"ID": f"Image:{name}", "Name": _text(multiscales["name"])}
    )
    about = {"ID": f"Pixels:{name}", "DimensionOrder": "XYZCT", "Type": str(array["data_type"])}
    about |= {f"Size{a}": str(max(1, int(size.get(a.lower(), 1)))) for a in "XYZCT"}
    about |= {
        f"PhysicalSize{a}": repr(float(scale[a.lower()])) for a in "XYZ" if a.lower() in scale
    }
    about["TimeIncrement"] = repr(float(scale["t"]))
    pixels = ElementTree.SubElement(image, "Pixels", about)
    for c, channel in enumerate(group["attributes"]["ome"]["omero"]["channels"]):
        said = {"ID": f"Channel:{name}:{c}", "Name": _text(channel["label"])}
        said |= {"SamplesPerPixel": "1", "Color": str(_color(channel["color"]))}
        ElementTree.SubElement(pixels, "Channel", said)
    ElementTree.SubElement(pixels, "MetadataOnly")


def _text(said: object) -> str:
    """Return what XML can hold of a text."""
    return _NO_XML.sub("\ufffd", str(said))


def _color(rgb: str) -> int:
    """Return a colour as OME-XML counts it: red, green, blue and alpha in a signed number."""
    number = int(rgb, 16) << 8 | 255
    return number - (1 << 32) if number >= 1 << 31 else number
