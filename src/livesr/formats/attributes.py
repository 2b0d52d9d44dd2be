"""What a store says of itself in the attributes of its groups, by name and type.

Owns the check that they are what livesr writes, so that whoever reads them finds a mapping where
one belongs. Keys that are not named here are left alone: other software, and other versions, add
theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from livesr.base.config import Step, parse
from livesr.base.errors import ConfigError, StoreError

_Count = Annotated[int, Field(ge=1)]
_Index = Annotated[int, Field(ge=0)]
_Positive = Annotated[FiniteFloat, Field(gt=0)]
_Color = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{6}$")]
_Pair = Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)]
_ABSENT: Any = Field(default=None)
"""Of a key that may be missing, and is never null."""
_Names = Annotated[list[str], Field(min_length=1)]


Attributes = Mapping[str, Any]


def checked_root(attributes: object, file: Path) -> Attributes:
    """Return the attributes of a store's root group, which are what livesr writes.

    Raises
    ------
    StoreError
        It says what is wrong in `file`.
    """
    return _checked(_Root, attributes, file)


def checked_image(attributes: object, file: Path) -> Attributes:
    """Return the attributes of an image's group, likewise; errors as `checked_root`."""
    return _checked(_Image, attributes, file)


def _checked(model: type[BaseModel], attributes: object, file: Path) -> Attributes:
    try:
        parse(model, {"attributes": attributes}, str(file))
    except ConfigError as e:
        raise StoreError(str(e)) from e
    assert isinstance(attributes, Mapping)
    return attributes


class _Said(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Model(_Said):
    id: str
    sha256: str


class _Runtime(_Said):
    backend: str
    precision: str
    tile: _Count | None = None
    pixel_size_nm: _Positive | None = None


class _Engine(_Said):
    task: Step
    model: _Model
    runtime: _Runtime = _ABSENT
    raw_frames: list[str] = []


class _Intensity(_Said):
    unit: str = ""
    scale: _Positive
    offset: FiniteFloat


class _Sum(_Said):
    channels: _Names
    weights: list[FiniteFloat] | None = None


class _Views(_Said):
    views: str


_NEEDED = {
    "reconstruction": "method",
    "rolling": "newest",
    "depth": "range_nm",
    "uncertainty": "uncertainty",
}
"""What no image of a kind can be shown or computed with again without."""


class _ImageSaid(_Said):
    """The attribute ``livesr`` of an image."""

    kind: str
    position: _Index
    channel: str
    position_name: str = ""
    stream: str = ""
    prediction: bool = False
    exposures: _Count = 1
    newest: list[_Count] = _ABSENT
    method: str = ""
    warning: str = ""
    warnings: list[str] = []
    intensity: _Intensity = _ABSENT
    superposed: _Sum = _ABSENT
    origin_px: _Pair = [0.0, 0.0]
    mirrored: Annotated[list[bool], Field(min_length=2, max_length=2)] = [False, False]
    bit_depth: Annotated[int, Field(ge=1, le=64)] = 16
    dark_adu: FiniteFloat = 0.0
    first_pixel_um: FiniteFloat | None = None
    placed: Annotated[list[str], Field(max_length=3)] = []
    camera: str = ""
    drawn: bool = False
    range_nm: _Pair = _ABSENT
    colors: Annotated[list[_Color], Field(min_length=2)] = _ABSENT
    input: dict[str, Any] = {}
    model: _Model = _ABSENT
    runtime: _Runtime = _ABSENT
    engines: list[_Engine] = []
    ensemble: str | None = None
    uncertainty: _Views = _ABSENT

    @model_validator(mode="after")
    def _measured(self) -> Self:
        if self.kind != "raw" and self.intensity is None:
            raise ValueError("'intensity' is missing")
        if (needed := _NEEDED.get(self.kind)) and not getattr(self, needed):
            raise ValueError(f"{needed!r} is missing")
        return self

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.kind == "rolling" and len(self.newest) != self.exposures:
            raise ValueError(
                f"'newest' names {len(self.newest)} pictures of a time point, and 'exposures' says"
                f" {self.exposures}"
            )
        if self.kind == "depth" and self.range_nm[0] >= self.range_nm[1]:
            raise ValueError(f"'range_nm' is {self.range_nm}, expected the lower z first")
        return self


class _Axis(_Said):
    name: str


class _Transformation(_Said):
    scale: list[FiniteFloat] | None = None
    translation: list[FiniteFloat | None] | None = None  # null: a stage that said no number


class _Dataset(_Said):
    path: str
    coordinateTransformations: Annotated[list[_Transformation], Field(min_length=1)]  # noqa: N815


class _Multiscale(_Said):
    name: str
    axes: Annotated[list[_Axis], Field(min_length=2, max_length=5)]
    datasets: Annotated[list[_Dataset], Field(min_length=1)]

    @model_validator(mode="after")
    def _scaled(self) -> Self:
        names = [axis.name for axis in self.axes]
        if len(set(names)) < len(names) or not {"y", "x"} <= set(names) <= set("tczyx"):
            raise ValueError(
                f"axes {', '.join(names)!r}, expected some of t, c, z, y, x, each once"
            )
        for dataset in self.datasets:
            scale = dataset.coordinateTransformations[0].scale
            if scale is None or len(scale) != len(names):
                raise ValueError("the first transformation is no scale of every axis")
            # Planes of a stack may lie in one place: a plan that takes each several times.
            if any(s <= 0 for name, s in zip(names, scale, strict=True) if name in "yx"):
                raise ValueError("a pixel of no size")
        return self


class _Window(_Said):
    start: FiniteFloat
    end: FiniteFloat


class _Channel(_Said):
    label: str
    color: _Color
    active: bool = True
    window: _Window


class _Omero(_Said):
    channels: Annotated[list[_Channel], Field(min_length=1)]


class _Ome(_Said):
    multiscales: Annotated[list[_Multiscale], Field(min_length=1, max_length=1)]
    omero: _Omero


class _ImageAttributes(_Said):
    livesr: _ImageSaid
    ome: _Ome

    @model_validator(mode="after")
    def _film(self) -> Self:
        axes = (axis.name for axis in self.ome.multiscales[0].axes)
        said = "exposures" in self.livesr.model_fields_set
        if self.livesr.kind == "raw" and "c" not in axes and not said:
            raise ValueError("raw has no axis c, and 'exposures' of a time point is missing")
        return self


class _Image(_Said):
    attributes: _ImageAttributes


class _RootSaid(_Said):
    """The attribute ``livesr`` of the store itself."""

    positions: _Names
    channels: _Names
    stream: str = ""
    superposed: dict[str, _Sum] = {}


class _RootAttributes(_Said):
    livesr: _RootSaid


class _Root(_Said):
    attributes: _RootAttributes


def refuse_places(
    images: Sequence[tuple[Path, str, int, str]], positions: int, channels: Sequence[str]
) -> None:
    """Refuse images of a position or channel that the store does not have, and two of one place.

    Parameters
    ----------
    images : folder, kind, position and channel of each

    Raises
    ------
    StoreError
        It names the image.
    """
    taken: dict[tuple[str, int, str], Path] = {}
    for folder, kind, position, channel in images:
        if position >= positions or channel not in channels:
            raise StoreError(
                f"{folder / 'zarr.json'} says position {position} and channel {channel!r}, and the"
                f" store has {positions} positions and the channels {', '.join(channels)}."
            )
        if other := taken.get((kind, position, channel)):
            raise StoreError(
                f"{folder.name} and {other.name} both say that they are the {kind} of position"
                f" {position}, channel {channel!r}, of {folder.parent}."
            )
        taken[kind, position, channel] = folder


def model_name(model: Mapping[str, Any]) -> str:
    """Name the network of a `model` as stores and streams have it: id, version, weights.

    The weights by the beginning of their hash: copies of an engine share everything else.
    """
    said = (model.get("id"), model.get("version"))
    weights = f"({sha256[:12]})" if (sha256 := str(model.get("sha256") or "")) else ""
    return " ".join([*(str(word) for word in said if word), *filter(None, [weights])])
