"""The other files that a TIFF names.

OME-TIFF in its XML, Micro-Manager by their names or in NDTiff.index.

Owns the refusal of those that are not beside it. tifffile opens what it is told to, wherever that
is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from livesr.base import contained
from livesr.base.errors import ConfigError
from livesr.live.sources.recordings.ndtiff import index_entries

if TYPE_CHECKING:
    from tifffile import TiffFile


def refuse_strangers(tiff: TiffFile) -> None:
    """Refuse files that `tiff` names and that are not beneath its folder.

    Before its series are asked for.

    Raises
    ------
    ConfigError
        With the name.
    """
    path = Path(tiff.filehandle.path)
    for name in (*_in_ome(tiff), *_in_index(tiff, path.parent)):
        if name != path.name:
            contained.beneath(path.parent, name, error=ConfigError)
    # Micro-Manager's further files are found by their names; what a link among them leads to is
    # none of them.
    if tiff.is_micromanager:
        for file in path.parent.glob("*_MMStack*.tif"):
            if file.is_symlink() and file.name != path.name:
                contained.beneath(path.parent, file.name, error=ConfigError)


def _in_ome(tiff: TiffFile) -> Iterator[str]:
    text = tiff.ome_metadata
    if text is None:
        return
    try:
        root = ET.fromstring(text)  # noqa: S314 - as tifffile parses it; expat bounds what entities grow to
    except ET.ParseError:  # tifffile then takes it for no OME-TIFF
        return
    for element in root.iter():
        if (name := element.attrib.get("FileName")) is not None:
            yield name


def _in_index(tiff: TiffFile, folder: Path) -> Iterator[str]:
    if tiff.is_ndtiff:
        for _, name, _ in index_entries(folder):
            yield name
