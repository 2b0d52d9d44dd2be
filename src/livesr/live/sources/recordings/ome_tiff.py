"""OME-TIFF by its own description.

Which page of which file is which plane of which image, as its OME-XML says.

Owns the reading of TiffData, of sets of several files, and of what the XML says of pixels, times
and channels. A set is read once, whichever of its files is named.
https://docs.openmicroscopy.org/ome-model/latest/ome-tiff/specification.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from livesr.base import contained
from livesr.base.errors import ConfigError
from livesr.live.sources.recordings.pixels import check_count, opened
from livesr.live.sources.recordings.placed import Placed, recording_of
from livesr.live.sources.recordings.recording import AXES, Place, Recording
from livesr.live.sources.recordings.tiff_pages import PageAt, TiffPages, complaints, reason
from livesr.live.sources.recordings.units import s_per, um_per

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_AXES = ("p", "t", "z", "c")
_MAX_SEARCHED = 1000  # files beside a set whose identity is looked at where a name leads nowhere


def description_in(path: Path, pages: TiffPages) -> str | None:
    """Return the OME-XML in a TIFF file, None if it has none.

    Raises
    ------
    OSError, ValueError
        If it cannot be read as TIFF.
    """
    text = pages.file(path).pages.first.description
    return text if text.lstrip("\ufeff \n\r\t").startswith("<") and "<OME" in text[:4096] else None


def open_ome_tiff(path: Path, xml: str, pages: TiffPages, *, companion: bool = False) -> Recording:
    """Describe the set that an OME-XML describes.

    Parameters
    ----------
    path : of the file that holds the XML, or names it
    pages : closed with the recording
    companion : whether `path` is a file of XML alone

    Raises
    ------
    ConfigError
        If the XML cannot be read, or describes frames of several sizes.
    """
    found = _Set(path, _parsed(path, xml), pages, has_pages=not companion)
    return found.recording()


def open_companion(path: Path) -> Recording:
    """Describe the set of an OME-XML that is a file of its own.

    Raises
    ------
    ConfigError
        If it cannot be read.
    """
    try:
        with opened(path, None) as file:
            xml = file.read().decode("utf-8")
    except (OSError, ValueError) as e:
        raise ConfigError(f"Cannot read {path} as OME-XML: {e}.") from e
    pages = TiffPages(path)
    try:
        return open_ome_tiff(path, xml, pages, companion=True)
    except BaseException:
        pages.close()
        raise


def files_of(path: Path, xml: str) -> set[str]:
    """Return the names of the files that an OME-XML describes, and its own."""
    root = _parsed(path, xml)
    named = {e.get("FileName", "") for e in root.iter() if _tag(e) == "UUID"}
    master = {e.get("MetadataFile", "") for e in root if _tag(e) == "BinaryOnly"}
    return {path.name, *(_last(name) for name in named | master if name)}


@dataclass(slots=True)
class _Image:
    """One Image of the XML: a position."""

    name: str
    pixels: Element
    order: str  # slowest first, as "TZC"
    sizes: dict[str, int]
    channels: tuple[str, ...]
    modulo: dict[str, tuple[str, int]] = field(
        default_factory=dict
    )  # of "Z": what it also counts, how many
    named: dict[int, int] = field(
        default_factory=dict
    )  # own index of a channel -> that of the recording

    @property
    def count(self) -> int:
        return prod(self.sizes[axis] for axis in self.order)


class _Set:
    """An OME-XML and the files around it."""

    def __init__(self, path: Path, root: Element, pages: TiffPages, *, has_pages: bool) -> None:
        for element in root:
            if _tag(element) == "BinaryOnly":
                root, path, has_pages = self._elsewhere(path, element)
        self._path, self._root, self._pages = path, root, pages
        self._own = path if has_pages else None
        self._uuid = root.get("UUID")
        self._notes: list[str] = []
        self._files: dict[tuple[str | None, str], Path | None] = {}
        self._lengths: dict[Path, int] = {}
        self._lost: dict[str, int] = {}
        self._damage: str | None = None
        self._names = {e.get("FileName", "") for e in root.iter() if _tag(e) == "UUID"}

    def recording(self) -> Recording:
        images = [
            image
            for element in self._root
            if _tag(element) == "Image"
            if (image := self._image(element))
        ]
        if not images:
            raise ConfigError(
                f"{self._path.name} has OME-XML that describes no pixels: its frames have no"
                " places."
            )
        self._check_alike(images)
        channels = self._channels(images)
        placed, outside = self._placed(images)
        announced = sum(image.count for image in images)
        for name, count in self._lost.items():
            self._notes.append(
                f"{name}, which holds {count} of the {announced} frames of the set, is not there."
            )
        gap = announced - sum(self._lost.values()) - len(placed.at)
        if gap > 0:
            self._notes.append(
                f"{self._path.name} announces {announced} frames; {gap} of them are not in its"
                " files."
            )
        if outside:
            self._notes.append(
                f"{self._path.name}: {outside} frames are outside of the sizes that it announces."
            )
        first = images[0].pixels
        length_of_c = 1 + max((place[placed.axes.index("c")] for place in placed.at), default=0)
        found = recording_of(
            self._path,
            "OME-TIFF",
            placed,
            self._pages,
            notes=self._notes,
            damage=self._damage,
            channels=channels[:length_of_c],
            positions=tuple(image.name or str(i) for i, image in enumerate(images)),
            pixel_um=self._pixel_um(images),
            z_step_um=_scaled(first, "PhysicalSizeZ", um_per, "µm"),
            interval_s=_scaled(first, "TimeIncrement", s_per, "s"),
            started_ns=self._path.stat().st_mtime_ns,
        )
        return replace(found, notes=(*found.notes, *self._contradictions(images[0], found)))

    def _contradictions(self, image: _Image, found: Recording) -> Iterator[str]:
        """Say where the XML has another size or type of frames than their pages, which count."""
        kind = image.pixels.get("Type")
        kind = kind if kind in ("uint8", "uint16") else found.dtype  # others become a camera's
        said = image.sizes["Y"], image.sizes["X"], kind
        if said != (*found.shape, found.dtype):
            there = f"{found.shape[0]} x {found.shape[1]} {found.dtype}"
            yield (
                f"{self._path.name} describes frames of {said[0]} x {said[1]} {said[2]}, and its"
                f" pages are {there}: they are read as the pages say."
            )

    def _elsewhere(self, path: Path, element: Element) -> tuple[Element, Path, bool]:
        """Return the XML that a file with pixels alone names, its file, and whether that holds
        pages, too.
        """
        named = _last(element.get("MetadataFile", ""))
        file = _beneath(path.parent, named)
        if file is None:
            raise ConfigError(
                f"{path.name} is described in {named or 'another file'}, which is not beside it:"
                " put it there."
            )
        if file.suffix.lower() not in (".tif", ".tiff"):
            return (
                _parsed(file, contained.read_text(path.parent, named, error=ConfigError)),
                file,
                False,
            )
        found = TiffPages(path)
        try:
            xml = description_in(file, found)
        except Exception as e:  # whatever tifffile raises of bytes that are no TIFF
            raise ConfigError(
                f"{path.name} is described in {named}, which cannot be read as TIFF: {reason(e)}."
            ) from e
        finally:
            found.close()
        root = _parsed(file, xml or "")
        if any(_tag(e) == "BinaryOnly" for e in root):
            raise ConfigError(
                f"{path.name} is described in {named}, which is described elsewhere itself."
            )
        return root, file, True

    def _image(self, element: Element) -> _Image | None:
        pixels = next((e for e in element if _tag(e) == "Pixels"), None)
        if pixels is None:
            return None
        try:
            order = pixels.get("DimensionOrder", "XYZCT")[:1:-1]
            sizes = {axis: int(pixels.get(f"Size{axis}", "1")) for axis in "XYZCT"}
        except ValueError as e:
            raise ConfigError(
                f"{self._path.name} has OME-XML with a size that is no number: {e}."
            ) from e
        if sorted(order) != ["C", "T", "Z"]:
            raise ConfigError(
                f"{self._path.name} has OME-XML with the order {pixels.get('DimensionOrder')!r}."
            )
        channels = [e for e in pixels if _tag(e) == "Channel"]
        if any(e.get("SamplesPerPixel", "1") != "1" for e in channels):
            raise ConfigError(f"{self._path.name} holds colour frames; expected one value a pixel.")
        check_count(self._path, tuple(sizes[axis] for axis in order))
        names = tuple(e.get("Name", "") for e in channels)
        return _Image(
            element.get("Name", ""),
            pixels,
            order,
            sizes,
            names if all(names) and len(set(names)) == len(names) == sizes["C"] else (),
            _modulo(self._root, element),
        )

    def _check_alike(self, images: Sequence[_Image]) -> None:
        kinds = {(i.sizes["Y"], i.sizes["X"], i.pixels.get("Type")): i.name for i in images}
        if len(kinds) > 1:
            said = "; ".join(f"{name!r} {y} x {x} {kind}" for (y, x, kind), name in kinds.items())
            raise ConfigError(
                f"{self._path.name} holds images of several sizes ({said}); expected one: save"
                " those of the camera as a file."
            )
        if len({tuple(sorted(i.modulo.items())) for i in images}) > 1:
            raise ConfigError(
                f"{self._path.name} holds images with different axes: save each as a file."
            )

    def _channels(self, images: Sequence[_Image]) -> tuple[str, ...]:
        """Return the channels of all images, and tell each which of them its own are."""
        if len({image.channels for image in images}) == 1:
            return images[0].channels
        if not all(image.channels for image in images):
            raise ConfigError(
                f"{self._path.name} names the channels of some positions only: save each position"
                " as a file."
            )
        names = list(dict.fromkeys(name for image in images for name in image.channels))
        for image in images:
            image.named = {own: names.index(name) for own, name in enumerate(image.channels)}
        return tuple(names)

    def _placed(self, images: Sequence[_Image]) -> tuple[Placed, int]:
        """Put every plane of every image at its place.

        Return how many were outside of their image, too.
        """
        extra = tuple(images[0].modulo)
        names = tuple(_axis_name(images[0].modulo[axis][0], i) for i, axis in enumerate(extra))
        several = len(images) > 1
        placed, outside = Placed((*(_AXES if several else _AXES[1:]), *names)), 0
        for p, image in enumerate(images):
            for index, page in self._planes(image):
                if index is None:
                    outside += 1
                    continue
                place = _place(image, index)
                placed.put((p, *place) if several else place, page)
        return placed, outside

    def _planes(self, image: _Image) -> Iterator[tuple[int | None, PageAt]]:
        """Give the number of every plane within its image, None if there is no such plane, and its
        page.
        """
        shape = tuple(image.sizes[axis] for axis in image.order)
        blocks = [e for e in image.pixels if _tag(e) == "TiffData"]
        for block in blocks:
            uuid = next((e for e in block if _tag(e) == "UUID"), None)
            try:
                ifd = int(block.get("IFD", "0"))
                corner = [int(block.get(f"First{axis}", "0")) for axis in image.order]
                count = int(
                    block.get(
                        "PlaneCount", block.get("NumPlanes", "1" if "IFD" in block.attrib else "-1")
                    )
                )
            except ValueError as e:
                raise ConfigError(
                    f"{self._path.name} has OME-XML with an index that is no number: {e}."
                ) from e
            inside = all(0 <= i < n for i, n in zip(corner, shape, strict=True)) and ifd >= 0
            start = int(np.ravel_multi_index(corner, shape)) if inside else image.count
            file = self._file(uuid)
            if file is None:
                name, left = self._named(uuid), image.count - start
                self._lost[name] = self._lost.get(name, 0) + (
                    left if count < 0 else min(count, left)
                )
                continue
            there = self._length(file)
            for i in range(there - ifd if count < 0 else min(count, there - ifd)):
                plane = start + i
                yield (plane if plane < image.count else None), PageAt(file, ifd + i)

    def _named(self, uuid: Element | None) -> str:
        return _last(uuid.get("FileName", "")) if uuid is not None else self._path.name

    def _file(self, uuid: Element | None) -> Path | None:
        """Return the file that a block of planes is in, None if it is not there."""
        if uuid is None:
            return self._own
        name, identity = uuid.get("FileName", ""), (uuid.text or "").strip() or None
        if (identity, name) not in self._files:
            self._files[identity, name] = self._found(identity, name)
        return self._files[identity, name]

    def _found(self, identity: str | None, name: str) -> Path | None:
        own = self._own
        if own and (
            (identity and identity == self._uuid) or _last(name).lower() == own.name.lower()
        ):
            return own
        said = _last(name)
        file = _beneath(self._path.parent, said) or (
            _beneath(self._path.parent, name) if said != name else None
        )
        if file is not None and self._is(file, identity):
            return file
        if own and self._uuid is None and len(self._names) == 1:
            return own  # a file that was renamed, and describes itself alone
        return self._renamed(identity) if identity else None

    def _renamed(self, identity: str) -> Path | None:
        """Return the file beside the set that says that it is the one described, whatever its
        name.
        """
        for file in sorted(self._path.parent.glob("[!.]*.tif*"))[:_MAX_SEARCHED]:
            with suppress(Exception):  # one of the many files that may lie beside a set
                if _beneath(file.parent, file.name) and self._identity(file) == identity:
                    return file
        return None

    def _is(self, file: Path, identity: str | None) -> bool:
        try:
            theirs = self._identity(file)
        except Exception as e:  # whatever tifffile raises of bytes that are no TIFF
            self._notes.append(f"{file.name} cannot be read as TIFF: {reason(e)}.")
            return False
        if theirs and identity and theirs != identity:
            self._notes.append(
                f"{file.name} is another file than the one described (its UUID differs), and is not"
                " read."
            )
            return False
        return True

    def _identity(self, file: Path) -> str | None:
        head = (self._pages.file(file).pages.first.description or "")[:4096]
        found = re.search(r"<OME\b[^>]*?\bUUID=\"([^\"]*)\"", head)
        return found[1] if found else None

    def _length(self, file: Path) -> int:
        """Return how many pages a file has, as far as they can be found."""
        if file not in self._lengths:
            tiff = self._pages.file(file)
            with complaints() as found, suppress(Exception):  # a chain that leads nowhere
                self._lengths[file] = len(tiff.pages)
            self._lengths.setdefault(file, 1)
            if found:
                self._damage = (
                    f"{file.name} is damaged ({found[0]}): {self._lengths[file]} frames were found"
                    " in it."
                )
        return self._lengths[file]

    def _pixel_um(self, images: Sequence[_Image]) -> tuple[float, float] | None:
        sizes = {_pixel_um(image.pixels) for image in images}
        if len(sizes) > 1:
            raise ConfigError(
                f"{self._path.name} holds images with several pixel sizes: save each as a file."
            )
        (size,) = sizes
        if size is None and (said := images[0].pixels.get("PhysicalSizeX")):
            unit = images[0].pixels.get("PhysicalSizeXUnit", "µm")
            self._notes.append(
                f"{self._path.name} gives a pixel size of {said} {unit}, which is no length: it is"
                " not used."
            )
        return size


def _place(image: _Image, plane: int) -> Place:
    """Return (t, z, c, what else they count) of a plane."""
    shape = tuple(image.sizes[axis] for axis in image.order)
    index = dict(zip(image.order, map(int, np.unravel_index(plane, shape)), strict=True))
    rest: list[int] = []
    for axis, (_, length) in image.modulo.items():
        index[axis], inner = divmod(index[axis], length)
        rest.append(inner)
    return (index["T"], index["Z"], image.named.get(index["C"], index["C"]), *rest)


def _modulo(root: Element, image: Element) -> dict[str, tuple[str, int]]:
    """Return what T, Z and C count besides themselves, by the annotation that an image refers
    to.
    """
    refers = {e.get("ID") for e in image.iter() if _tag(e) == "AnnotationRef"}
    found: dict[str, tuple[str, int]] = {}
    for note in root.iter():
        if note.get("ID") not in refers or not note.get("Namespace", "").lower().endswith("modulo"):
            continue
        for along in note.iter():
            if (axis := _tag(along).removeprefix("ModuloAlong")) in (
                "T",
                "Z",
                "C",
            ) and axis != _tag(along):
                labels = sum(_tag(e) == "Label" for e in along)
                found[axis] = along.get("Type", "other").lower(), labels or _steps(along)
    return {axis: (kind, length) for axis, (kind, length) in found.items() if length > 1}


def _steps(along: Element) -> int:
    try:
        start, end, step = (
            float(along.get(name, "1" if name == "Step" else "0"))
            for name in ("Start", "End", "Step")
        )
        return round((end - start) / step) + 1
    except (ValueError, ZeroDivisionError, OverflowError):
        return 1


def _axis_name(kind: str, i: int) -> str:
    return kind if kind not in AXES else f"{kind}{i}"


def _pixel_um(pixels: Element) -> tuple[float, float] | None:
    y, x = (_scaled(pixels, f"PhysicalSize{axis}", um_per, "µm") for axis in "YX")
    return (y or x, x or y) if x or y else None  # type: ignore[return-value]


def _scaled(pixels: Element, name: str, factor: Any, default: str) -> float | None:
    try:
        per_unit = factor(pixels.get(f"{name}Unit", default))
        value = float(pixels.get(name, "nan")) * (per_unit or float("nan"))
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None


def _parsed(path: Path, xml: str) -> Element:
    from xml.etree import ElementTree

    try:
        return ElementTree.fromstring(xml.strip("\ufeff\0 \n\r\t"))  # noqa: S314 -- expat bounds entities; nothing external is read
    except (ElementTree.ParseError, ValueError) as e:
        raise ConfigError(
            f"{path.name} has OME-XML that cannot be read ({e}): where its frames belong is not"
            " known. Save it again."
        ) from e


def _tag(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _last(name: str) -> str:
    """Return the last part of a path of any system: the files of a set lie side by side."""
    return PurePosixPath(name.replace("\\", "/")).name


def _beneath(folder: Path, name: str) -> Path | None:
    """Return the file that is called `name` in `folder`, None if there is none.

    Raises
    ------
    ConfigError
        If the name, or a link of that name, leads elsewhere.
    """
    if not name:
        return None
    file = contained.beneath(folder, name, error=ConfigError)
    return file if file.is_file() else None
