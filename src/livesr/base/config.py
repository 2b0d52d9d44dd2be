"""What a rig and a run are.

rig.yaml and the settings of one acquisition, checked once, at the edge.

Owns the models, their defaults and the search for `hardware_configs` and `engines`. Opens no device
and no engine.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import GenericAlias
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Protocol,
    Self,
    TypeGuard,
    TypeVar,
)
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from livesr.base.documents import read_yaml
from livesr.base.errors import ConfigError, DocumentError, LiveSRError, suggestion
from livesr.base.files import path_of
from livesr.base.other_files import RIG, other_than_yaml

log = logging.getLogger(__name__)

_PACKAGE = Path(__file__).resolve().parents[1]
_MAX = 1e9  # of a number that needs no closer limit: beyond it arithmetic in float32 ends
Number = Annotated[float, Field(ge=-_MAX, le=_MAX, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=_MAX, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, le=_MAX, allow_inf_nan=False)]
ExposureMs = Annotated[float, Field(gt=0, le=3.6e6, allow_inf_nan=False)]  # an hour
IntervalMs = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]  # 11 days


def endpoint_of(text: Any) -> str | None:
    """Return a server's address, ``grpc://HOST:PORT`` or ``grpcs://HOST:PORT``, None for none.

    Raises
    ------
    ValueError
        If it is something else. It is not shown: a password may stand in it.
    """
    if text is None or text == "":
        return None
    expected = "expected grpc://HOST:8001, or grpcs://HOST:8001 for TLS"
    if not isinstance(text, str) or not text.isascii() or not text.isprintable():
        raise ValueError(f"no server's address; {expected}")
    try:
        at = urlsplit(text)
        host, port = at.hostname, at.port
    except ValueError:  # a port that is no number
        host, port, at = None, None, urlsplit("")
    if at.scheme not in ("grpc", "grpcs") or not host or len(text) > 300 or " " in text:
        raise ValueError(f"no server's address; {expected}")
    if "@" in at.netloc:
        raise ValueError("an address with a password in it; give LIVESR_ENDPOINT_TOKEN instead")
    if at.path.strip("/") or at.query or at.fragment:
        raise ValueError(f"an address with more than host and port; {expected}")
    shown = f"[{host}]" if ":" in host else host
    return f"{at.scheme}://{shown}:{port or 8001}"


Endpoint = Annotated[str | None, BeforeValidator(endpoint_of)]
"""Address of a server."""
PixelSizeNm = Annotated[float, Field(ge=0.1, le=1e6, allow_inf_nan=False)]
ChipPixel = Annotated[int, Field(ge=0, le=1 << 20)]


_MAX_GROUP = 10_000  # raw frames of one time point
_MAX_NA = 2.0  # without the index of the immersion; solid ones reach it
_OWN_FILES = ("rig.yaml", "error_bars.yaml", "limits.yaml")


class Model(BaseModel):
    """Frozen, and a key that it does not know is an error: a typo must not become a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    renamed: ClassVar[Mapping[str, str]] = {}
    """Old names of keys and their new ones: both are read, the old one with a sentence."""

    dropped: ClassVar[frozenset[str]] = frozenset()
    """Keys of before that say nothing any more: read over, with a sentence."""

    @model_validator(mode="before")
    @classmethod
    def _without_dropped(cls, data: object) -> object:
        if not isinstance(data, dict) or not (gone := cls.dropped & data.keys()):
            return data
        log.warning("%s is read over: it means nothing any more.", ", ".join(sorted(gone)))
        return {name: value for name, value in data.items() if name not in gone}

    @model_validator(mode="before")
    @classmethod
    def _rename(cls, data: object) -> object:
        if not isinstance(data, dict) or not (old := cls.renamed.keys() & data.keys()):
            return data
        for name in sorted(old):
            if cls.renamed[name] in data:
                raise ValueError(
                    f"{name!r} is the old name of {cls.renamed[name]!r}, which is there too:"
                    " remove it"
                )
            log.warning(
                "%r is now called %r: the old name is still read, rename it.",
                name,
                cls.renamed[name],
            )
        return {cls.renamed.get(name, name): value for name, value in data.items()}


class CameraConfig(Model):
    """The camera's levels in ADU, and what one ADU is in electrons."""

    offset_adu: NotNegative = 100.0
    """Level of every pixel without light, ADU."""
    bit_depth: Annotated[int, Field(ge=8, le=16)] = 16
    """Bits of a pixel that the camera fills; its ceiling follows from them."""
    gain_e_per_adu: Positive | None = None
    """Photo-electrons per ADU; of an EMCCD behind its register, as data sheets give it. None: not
    measured.
    """
    read_noise_e: NotNegative | None = None
    """Standard deviation of the read noise in electrons, likewise. None: not measured."""
    em_gain: Annotated[float, Field(ge=1, le=_MAX, allow_inf_nan=False)] | None = None
    """Gain of an EMCCD's multiplication register; None for other cameras."""

    @model_validator(mode="after")
    def _darkness_below_the_ceiling(self) -> CameraConfig:
        ceiling = 2**self.bit_depth - 1
        if self.offset_adu >= ceiling:
            raise ValueError(
                f"offset_adu {self.offset_adu:g} is the level of a pixel without light, and must be"
                f" below {ceiling}, the most that a pixel of {self.bit_depth} bit can have"
            )
        return self


def _map_name(value: str) -> str:
    if any(c in value for c in "/\\:") or not value.lower().endswith((".tif", ".tiff")):
        raise ValueError("a map is a .tif file beside rig.yaml, named without a folder")
    return value


def _number_or_map(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(
            f"expected a number of ADU or the name of a .tif beside rig.yaml, got {value!r}"
        )
    return _map_name(value) if isinstance(value, str) else value


def _by_channel(value: object) -> object:
    """One entry is for every channel; else one for each, by name."""
    return {str(k): v for k, v in value.items()} if isinstance(value, dict) else {"": value}


def _mask_or_pixels(value: object) -> object:
    if isinstance(value, str):
        return _map_name(value)
    pairs = isinstance(value, list) and all(
        isinstance(p, list | tuple) and len(p) == 2 for p in value
    )
    if not pairs:
        raise ValueError(
            "expected a list of [y, x], or the name of a .tif that is not 0 at bad pixels"
        )
    return value


MapName = Annotated[str, AfterValidator(_map_name)]
NumberOrMap = Annotated[Number | str, BeforeValidator(_number_or_map)]


class CorrectionsConfig(Model):
    """What is taken out of every raw frame before it is reconstructed.

    What is left out is not corrected.

    In this order, with x a pixel of the camera in ADU::

        ((x - offset - dark) gain / median(gain) - background) / flat, then bad pixels

    Maps are TIFFs (y, x) of the whole chip beside rig.yaml. `flat` and `background` may differ from
    channel to channel; the key "" stands for all channels that are not named.
    """

    offset: NumberOrMap | None = None
    """Level of every pixel without light, ADU; instead of `camera.offset_adu`."""
    dark: NumberOrMap | None = None
    """What dark current adds to it at the rig's exposure, ADU."""
    gain: MapName | None = None
    """Photo-electrons per ADU of every pixel; only its differences count, the result stays in ADU.
    """
    background: Annotated[dict[str, NumberOrMap], BeforeValidator(_by_channel)] = Field(
        default_factory=dict
    )
    """What the camera sees of everything but the specimen, ADU above the offset."""
    flat: Annotated[dict[str, MapName], BeforeValidator(_by_channel)] = Field(default_factory=dict)
    """Illumination and sensitivity, mean about 1."""
    bad_pixels: (
        Annotated[str | list[tuple[ChipPixel, ChipPixel]], BeforeValidator(_mask_or_pixels)] | None
    ) = None
    """[y, x] on the chip, or a map that is not 0 there; they become the median of their good
    neighbours.
    """

    @property
    def per_pixel(self) -> bool:
        """Whether anything belongs to single pixels of the chip."""
        return bool(self.maps() or self.bad_pixels)

    def of_every_channel(self) -> list[str]:
        """Places in rig.yaml of what belongs to single pixels and holds for every channel."""
        shared = ("offset", "dark", "gain", "bad_pixels", "flat", "background")
        return [place for place in self.maps() if place in shared] + (
            ["bad_pixels"] if self.bad_pixels else []
        )

    def maps(self) -> dict[str, str]:
        """File names of the maps, by their place in rig.yaml."""
        single = {name: getattr(self, name) for name in ("offset", "dark", "gain", "bad_pixels")}
        nested = {
            f"{name}.{channel}" if channel else name: value
            for name in ("background", "flat")
            for channel, value in getattr(self, name).items()
        }
        return {
            name: value for name, value in {**single, **nested}.items() if isinstance(value, str)
        }


class OpticsConfig(Model):
    """Objective and emission."""

    na: Annotated[float, Field(gt=0, lt=5, allow_inf_nan=False)]
    """Numerical aperture: at most `immersion_index` where that is given, else at most 2."""
    immersion_index: Annotated[float, Field(ge=1, lt=5)] | None = None
    """Refractive index between objective and specimen: oil 1.518, some immersions 1.78, solid ones
    about 2.
    """
    emission_nm: Annotated[float, Field(gt=300, lt=1200)] = 525.0
    """Wavelength of what the camera sees."""
    pixel_size_nm: PixelSizeNm | None = None
    """Of an unbinned pixel, in the sample; None takes Micro-Manager's."""
    damping: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the OTF at its cutoff against the ideal one, 1; `livesr calibrate` finds it."""

    @model_validator(mode="after")
    def _possible(self) -> OpticsConfig:
        if self.immersion_index is None and self.na > _MAX_NA:
            raise ValueError(
                f"na is {self.na:g}; above {_MAX_NA:g}, give optics.immersion_index, which no"
                " numerical aperture exceeds"
            )
        if self.immersion_index is not None and self.na > self.immersion_index:
            raise ValueError(
                f"na is {self.na:g} and immersion_index {self.immersion_index:g}: no numerical"
                " aperture exceeds the refractive index. Check both"
            )
        return self


def _as_micromanager_says(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(
            "YAML reads an unquoted On or Off as a truth value: quote it as Micro-Manager spells it"
        )
    return str(value) if isinstance(value, int | float) else value


class TriggerConfig(Model):
    """The digital output that lets the pattern display run.

    `stop` also takes the display back to its first pattern.
    """

    device: str
    """Of Micro-Manager, as an NI-DAQ port."""
    property: str
    """Of that device, as its State."""
    start: Annotated[str, BeforeValidator(_as_micromanager_says)] = "1"
    """Value that raises the output."""
    stop: Annotated[str, BeforeValidator(_as_micromanager_says)] = "0"
    """Value that lowers it."""
    when: Literal["before", "armed"] = "before"
    """"before": the camera exposes by itself and every exposure advances the display, which must
    wait at its first pattern before the camera starts; "armed": the display triggers the camera,
    which must be armed first.
    """
    settle_ms: Annotated[float, Field(ge=0, le=10_000)] = 0.0
    """What the display needs from `start` to its first pattern."""


def _registry() -> Any:
    """Return the module that finds modalities by name.

    They are built on this one, so it knows none of them, and loads what a rig names.
    """
    return import_module("livesr.modalities.registry")


class RigModality(Protocol):
    """What a rig asks of a modality (`livesr.modalities.modality.Modality`)."""

    Section: Any  # a class, whose default instance is the section of a rig that has none
    ChannelSection: Any  # likewise, of a channel

    def validate(self, rig: RigConfig) -> None:
        """Raise a ValueError if the rig lacks what it needs."""

    def raw_frames(self, section: Any) -> int:
        """Return how many exposures make one super-resolution frame."""

    def raw_labels(self, section: Any) -> tuple[str, ...]:
        """Return what each of them is."""

    def exposed(self, section: Any, frames: int) -> Sequence[int]:
        """Return which of them are exposed where only `frames` are."""


def _modality(name: str) -> RigModality:
    """Return the modality called `name`.

    Raises
    ------
    ConfigError
        If there is none, or the package that brings it cannot be loaded.
    """
    found: RigModality = _registry().modality(name)
    return found


def _validate(name: str, rig: RigConfig) -> None:
    """Let modality `name` say what the rig lacks.

    Raises
    ------
    ValueError
        With what it says.
    """
    way = _modality(name)
    try:
        way.validate(rig)
    except (ValueError, LiveSRError):
        raise
    except Exception as e:  # not what it wants to say: its package is broken
        with _registry().MODALITIES.blamed(name, "cannot look at a rig"):
            raise e


def _section(name: str, data: object) -> Section:
    """Return the section of modality `name`; an error in `data` says in which section it is."""
    one: Any = GenericAlias(dict, (str, _modality(name).Section))
    adapter: TypeAdapter[dict[str, Section]] = TypeAdapter(one)
    if isinstance(data, dict):
        data = {"modality": name, **data}
    return adapter.validate_python({name: data})[name]


def _with_section(name: str, channel: object, used: Sequence[object]) -> object:
    """Return what is said of a channel, with the keys of its modality in a section.

    A rig that was tried with another modality may still hold those of that one: of what the rig
    has besides, `used`, or of any.
    """
    if not isinstance(channel, dict):
        return channel
    known = ChannelConfig.model_fields
    own = {key: value for key, value in channel.items() if key not in known}
    rest = {key: value for key, value in channel.items() if key in known}
    if isinstance(rest.get("section"), dict):  # of a rig that was dumped
        own |= rest.pop("section")
    how = channel.get("reconstruct")
    how = how.get("modality") if isinstance(how, dict) else how
    names = [n for n in (how, *used) if _is_modality(n)]
    if not own or not names:  # what is no modality is said of that key
        return rest
    models = [_modality(n).ChannelSection for n in names]
    if not any(own.keys() <= model.model_fields.keys() for model in models):
        models += [way.ChannelSection for way in _registry().installed()]
    model = max(models, key=lambda model: len(own.keys() & model.model_fields.keys()))
    one: Any = GenericAlias(dict, (str, GenericAlias(dict, (str, model))))
    adapter: TypeAdapter[dict[str, dict[str, ChannelSection]]] = TypeAdapter(one)
    section = adapter.validate_python({"channels": {name: own}})["channels"][name]
    return {**rest, "section": section}


def _is_modality(name: object) -> TypeGuard[str]:
    registry = _registry()
    return isinstance(name, str) and (name in registry.OLD_NAMES or name in registry.MODALITIES)


def _modality_name(value: str) -> str:
    registry = _registry()
    if (new := registry.OLD_NAMES.get(value)) is not None:
        log.warning("%r is now called %r: the old name is still read, rename it.", value, new)
        return str(new)
    if value not in registry.MODALITIES:
        known = registry.MODALITIES.names
        guess = suggestion(value, known) or f" Known are {', '.join(known)}."
        raise ValueError(f"there is no such modality.{guess}".rstrip(".?"))
    return value


ModalityName = Annotated[str, AfterValidator(_modality_name)]


class RawAxes(NamedTuple):
    """Axes that count the raw frames of a group together: their names, and where along them each
    raw frame is, by raw index.
    """

    names: tuple[str, ...]
    places: tuple[tuple[int, ...], ...]

    @property
    def lengths(self) -> dict[str, int]:
        """How many places each has."""
        return {
            name: 1 + max(along)
            for name, along in zip(self.names, zip(*self.places, strict=True), strict=True)
        }


class Section(Model):
    """The section of a modality in rig.yaml.

    A subclass gives `modality` its name, as a literal and as the default.
    """

    modality: str
    """Its name."""

    incidental: ClassVar[frozenset[str]] = frozenset()
    """Keys that decide no numbers of a picture, or that a calibration finds anew."""

    def of_pictures(self) -> dict[str, Any]:
        """Return what decides the numbers of a picture, as JSON has it.

        Limits and error bars hold for pictures in which it is the same; a key of the channel's own
        takes the place of one here.
        """
        return self.model_dump(mode="json", exclude={"modality", *self.incidental})

    @classmethod
    def of(cls, rig: RigConfig) -> Self:
        """Return this section of a rig, with its defaults where rig.yaml has none."""
        section = rig.section_of(cls.model_fields["modality"].default)
        assert isinstance(section, cls)
        return section

    @property
    def updates(self) -> tuple[int, ...]:
        """After how many exposures of a group a picture is made of the newest exposure of every raw
        index; () if only of whole groups.

        What the modality builds then has `livesr.live.reconstruct.reconstructor.Updates`.
        """
        return ()

    @property
    def tiles(self) -> tuple[int, int] | None:
        """How many raw frames, (down, across), stand side by side in one image of a recording; None
        where each is an image of its own.
        """
        return None

    @property
    def raw_axes(self) -> RawAxes | None:
        """Axes of a recording that may count the raw frames of a group together, and in any order
        with others; None where there are none.
        """
        return None


class ChannelSection(Model):
    """Keys of a channel that only its modality knows; in rig.yaml they stand beside the others.

    A modality without such keys has none.
    """

    @classmethod
    def of(cls, rig: RigConfig, channel: str) -> Self:
        """Return these keys of a channel, with their defaults where rig.yaml has none."""
        section = rig.channel(channel).section
        return section if isinstance(section, cls) else cls()


Step = Literal["restore", "reconstruct", "upscale", "separate"]
"""What an engine does to the frames of a channel; a frame goes through them in this order."""


def _count_or_places(value: object) -> object:
    whole = isinstance(value, int) and not isinstance(value, bool)
    places = isinstance(value, list) and all(type(place) is int and place >= 0 for place in value)
    if value is not None and not places and not (whole and 0 < value <= _MAX_GROUP):  # type: ignore[operator]
        raise ValueError(
            "expected how many raw frames are exposed, or a list of their places, as [0, 3, 6]"
        )
    return value


_RawCount = Annotated[int, Field(ge=1, le=1000)]
_RawPlace = Annotated[int, Field(ge=0, le=999)]


class ReconstructConfig(Model):
    """An engine in the place of a channel's reconstruction: its picture is a prediction.

    The measurement beside it is the mean of the raw frames.
    """

    engine: str | None = None
    """Engine that makes a frame of the raw frames: a name, or a folder; without, there is the mean
    alone.
    """
    frames: Annotated[_RawCount | list[_RawPlace] | None, BeforeValidator(_count_or_places)] = None
    """Raw frames that are exposed for one time point: how many, or which of the modality's, by
    their place in its order; all without.
    """
    modality: ModalityName | None = None
    """Modality that the raw frames are of; the rig's without."""


def _reconstruction(value: object) -> object:
    """Take a name for a modality, and keys for an engine in its place."""
    if value is None or isinstance(value, ReconstructConfig):
        return value
    if isinstance(value, dict):
        return ReconstructConfig.model_validate(value)
    return TypeAdapter(ModalityName).validate_python(value)


class ChannelConfig(Model):
    """What happens to one acquisition channel: None leaves a step out, or takes the rig's value."""

    restore: str | None = None
    """Engine that takes the noise out of raw frames before they are reconstructed: a name, or a
    folder. What is made of them is a prediction; raw frames are stored as they came.
    """
    reconstruct: Annotated[str | ReconstructConfig | None, BeforeValidator(_reconstruction)] = None
    """Modality of this channel: sim, storm, fluctuation, widefield, or that of another package; or
    an engine in its place, with the keys below.
    """
    upscale: str | None = None
    """Engine that samples its reconstruction more finely, or completes it: a name, or a folder."""
    beside: str | None = None
    """Channel whose newest frame an engine of two inputs sees as well; without, the only other one
    of the modality that the engine asks for.
    """
    separate: str | None = None
    """Engine that takes it apart into structures: a name, or a folder."""
    emission_nm: Annotated[float, Field(gt=300, lt=1200)] | None = None
    """Wavelength of what the camera sees."""
    pixel_size_nm: Positive | None = None
    """Of an unbinned pixel, in the sample."""
    damping: Annotated[float, Field(gt=0, le=1)] | None = None
    """As `optics.damping`."""
    power_mw: Positive | None = None
    """Power of the light at the specimen while a raw frame is exposed, for the dose."""
    section: SerializeAsAny[ChannelSection] = ChannelSection()
    """Its keys that only its modality knows."""

    @property
    def modality(self) -> str | None:
        """Name of its modality, None for that of the rig."""
        return self.learned.modality if self.learned else self.reconstruct  # type: ignore[return-value]

    @property
    def learned(self) -> ReconstructConfig | None:
        """What stands in the place of the modality's reconstruction."""
        return self.reconstruct if isinstance(self.reconstruct, ReconstructConfig) else None

    @property
    def engines(self) -> dict[Step, str]:
        """The engines that a frame goes through, in order."""
        learned = self.learned.engine if self.learned else None
        named = {
            "restore": self.restore,
            "reconstruct": learned,
            "upscale": self.upscale,
            "separate": self.separate,
        }
        return {step: engine for step, engine in named.items() if engine}  # type: ignore[misc]

    def with_step(self, step: Step, engine: str | None) -> ChannelConfig:
        """Return a copy in which `engine` does `step`, or nothing does.

        Raw frames that are not exposed stay so.
        """
        if step != "reconstruct":
            return self.model_copy(update={step: engine})
        if self.learned is None and engine is None:
            return self
        learned = self.learned or ReconstructConfig(modality=self.modality)
        return self.model_copy(
            update={"reconstruct": learned.model_copy(update={"engine": engine})}
        )

    def without_engines(self) -> ChannelConfig:
        """Return a copy that no engine touches."""
        channel = self
        for step in self.engines:
            channel = channel.with_step(step, None)
        return channel

    def with_modality(self, name: str) -> ChannelConfig:
        """Return a copy of this modality."""
        learned = self.learned
        value = learned.model_copy(update={"modality": name}) if learned else name
        return self.model_copy(update={"reconstruct": value})


def _superposed(value: object) -> object:
    """Take a list for the channels alone. YAML reads an unquoted 488 as a number."""
    value = {"channels": value} if isinstance(value, list) else value
    if isinstance(value, dict) and isinstance(channels := value.get("channels"), list):
        return {**value, "channels": [str(c) for c in channels]}
    return value


_OF_SUMS: tuple[Step, ...] = ("separate", "upscale")


class SuperposeConfig(Model):
    """True channels that are acquired one after the other and added, so that what an engine makes
    of the sum can be scored.
    """

    channels: Annotated[list[str], Field(min_length=2)]
    """In the order of the engine's structures."""
    weights: list[Positive] | None = None
    """Their brightness in the sum; equal without."""
    separate: str | None = None
    """Engine for the sum; without, the one that the channels name."""
    upscale: str | None = None
    """Likewise."""

    @model_validator(mode="after")
    def _consistent(self) -> SuperposeConfig:
        if len(set(self.channels)) < len(self.channels):
            raise ValueError(f"a channel is superposed twice in {self.channels}")
        if self.weights is not None and len(self.weights) != len(self.channels):
            raise ValueError(f"{len(self.weights)} weights came for {len(self.channels)} channels")
        return self

    @property
    def name(self) -> str:
        """What the sum is called: the name of its stream."""
        return "+".join(self.channels)


class AuditConfig(Model):
    """When the true channels of a superposition are taken beside the channel that is separated, so
    that its predictions are scored.
    """

    every_s: Annotated[float, Field(gt=0, le=1e6)] = 300.0
    """Seconds from one audit to the next."""
    when_doubtful: bool = True
    """Also as soon as a prediction has a warning that the last audit did not know; not more often
    than ten times in `every_s`.
    """


class StoreConfig(Model):
    """What a store keeps beside raw frames, measurements and predictions."""

    rolling: bool = False
    """Keep every picture of a group under way, with the whole ones, in an image `rolling`; for a
    modality whose `update` makes such pictures.
    """


class RigConfig(Model):
    """rig.yaml: a microscope, and what is computed of what its camera sees."""

    name: str
    """What the rig is called, in stores and sentences."""
    description: str = ""
    """In words."""
    core: Literal["mmcore", "unicore"] = "mmcore"
    """mmcore, or unicore for devices in Python."""
    micromanager: str = "rig.cfg"
    """Micro-Manager's configuration, relative to the folder."""
    modality: ModalityName
    """What reconstructs the channels that name no other: sim, storm, widefield, or that of another
    package.
    """
    camera: CameraConfig = CameraConfig()
    """Levels and noise of the camera."""
    corrections: CorrectionsConfig = CorrectionsConfig()
    """What is taken out of every raw frame."""
    optics: OpticsConfig
    """Objective and emission."""
    sections: dict[str, SerializeAsAny[Section]] = Field(default_factory=dict)
    """Of the modalities, by their names; in rig.yaml each stands under its name."""
    exposure_ms: ExposureMs = 10.0
    """Of one raw frame."""
    interval_ms: IntervalMs = 0.0
    """Between the starts of two time points; 0 is as fast as the camera can."""
    channels: dict[str, ChannelConfig] = Field(default_factory=dict)
    """By the names of their presets in `channel_group`."""
    audit: AuditConfig | None = None
    """Take the channels of `superpose` now and then only, and score the others with them."""
    superpose: Annotated[SuperposeConfig | None, BeforeValidator(_superposed)] = None
    """Channels that are added, to test an engine on their sum; a list is of the channels alone."""
    store: StoreConfig = StoreConfig()
    """What stores of this rig keep."""
    channel_group: str = "Channel"
    """Micro-Manager's group of channel presets."""
    endpoint: Endpoint = None
    """Server that computes the engines where a run names backend kserve: grpc://HOST:8001, or
    grpcs:// for TLS.
    """
    folder: Path = Path()
    """Where it was read from; relative names in it are relative to that."""

    @field_validator("channels", mode="before")
    @classmethod
    def _names_are_text(cls, value: object) -> object:
        # YAML reads an unquoted 488 as a number; Micro-Manager knows the preset as text.
        return {str(k): v or {} for k, v in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="before")
    @classmethod
    def _gather_sections(cls, data: object) -> object:
        """Take what stands under the name of a modality for its section."""
        if not isinstance(data, dict):
            return data
        known = _registry().MODALITIES
        named = [key for key in data if key not in cls.model_fields and key in known]
        said = {name: data[name] for name in named if data[name] is not None}
        said |= data.get("sections", {})  # of a rig, or of one that was dumped
        rest = {key: value for key, value in data.items() if key not in named}
        sections = {name: _section(name, about) for name, about in said.items()}
        if isinstance(channels := data.get("channels"), dict):
            used = [data.get("modality"), *said]
            rest["channels"] = {str(n): _with_section(str(n), c, used) for n, c in channels.items()}
        return {**rest, "sections": sections}

    @model_validator(mode="after")
    def _consistent(self) -> RigConfig:
        for name in self.modalities:
            _validate(name, self)
        for name in self.channels:
            self._check_exposed(name)
        for name in {*self.corrections.flat, *self.corrections.background} - {"", *self.channels}:
            raise ValueError(
                f"corrections are given for channel {name!r}, which is not among 'channels'."
                f"{suggestion(name, list(self.channels))}".rstrip(".?")
            )
        if self.store.rolling and not any(self.section_of(m).updates for m in self.modalities):
            raise ValueError(
                "store.rolling keeps pictures of groups under way, and there are none: say in the"
                " section of the modality when they are made (update: angle, or frame)"
            )
        if self.audit and not self.superpose:
            raise ValueError(
                "audit needs superpose: its channels are the truth that predictions are scored with"
            )
        if self.audit and self.superpose and set(self.channels) <= set(self.superpose.channels):
            raise ValueError(
                "audit needs a channel beside those of superpose, which shows all structures at"
                " once and is separated"
            )
        for name in self.superpose.channels if self.superpose else ():
            if name not in self.channels:
                raise ValueError(
                    f"channel {name!r} is superposed, and is not among 'channels'."
                    f"{suggestion(name, list(self.channels))}".rstrip(".?")
                )
        return self

    @property
    def cfg_path(self) -> Path:
        """The Micro-Manager configuration."""
        return self.folder / self.micromanager

    def files(self) -> dict[str, Path]:
        """Everything that describes the rig and exists, by the name that a store keeps it under."""
        maps = {name: self.folder / name for name in self.corrections.maps().values()}
        own = {name: self.folder / name for name in _OWN_FILES}
        files = {**own, "rig.cfg": self.cfg_path, **maps}
        return {name: file for name, file in files.items() if file.is_file()}

    def channel(self, name: str) -> ChannelConfig:
        """Return the settings of channel `name`.

        A rig with one nameless channel uses its only entry.

        A channel that is superposed has no engine of its own: it is the truth.

        Raises
        ------
        ConfigError
            If the rig describes other channels only.
        """
        if self.superpose and name in self.superpose.channels and name in self.channels:
            return self._with_default(self.channels[name].without_engines())
        if name in self.channels:
            return self._with_default(self.channels[name])
        if len(self.channels) == 1 and not name:
            return self._with_default(next(iter(self.channels.values())))
        if self.channels and not name:
            raise ConfigError(
                f"The plan names no channel, and rig {self.name!r} describes"
                f" {', '.join(self.channels)}: say in the plan which of them are acquired."
            )
        if self.channels:
            raise ConfigError(
                f"The run acquires channel {name!r}, which rig {self.name!r} does not describe."
                f"{suggestion(name, list(self.channels))}"
            )
        return self._with_default(ChannelConfig())

    def superposing(self, channels: list[str], weights: list[float] | None = None) -> RigConfig:
        """Return a copy that superposes `channels`, and has no audits beside.

        Raises
        ------
        ConfigError
            If one of them is unknown, or named twice.
        """
        behind = self.superpose
        if behind and self.audit:  # what audits score is the engine of another channel
            own = [c for name, c in self.channels.items() if name not in behind.channels]
            scored = next((c for c in own if c.separate), ChannelConfig())
            behind = behind.model_copy(update={s: getattr(scored, s) for s in _OF_SUMS})
        engines: dict[str, Any] = {step: getattr(behind, step) for step in _OF_SUMS if behind}
        asked = parse(
            SuperposeConfig, {**engines, "channels": channels, "weights": weights}, "superpose"
        )
        for name in channels:
            self.channel(name)  # a typo
        return self.model_copy(update={"superpose": asked, "audit": None})

    @property
    def sums(self) -> tuple[str, ...]:
        """Names of what no plan acquires, because it is made of channels that it does."""
        return (self.superpose.name,) if self.superpose and not self.audit else ()

    @property
    def superposed(self) -> ChannelConfig:
        """What happens to the sum.

        The engines of `superpose`, else those of the first of its channels that names one.
        """
        assert self.superpose is not None
        own = {"separate": self.superpose.separate, "upscale": self.superpose.upscale}
        named = [self.channels[name] for name in self.superpose.channels if name in self.channels]
        for step in own:
            own[step] = own[step] or next((e for c in named if (e := getattr(c, step))), None)
        return ChannelConfig(**own)

    def _with_default(self, channel: ChannelConfig) -> ChannelConfig:
        return channel if channel.modality else channel.with_modality(self.modality)

    @property
    def modalities(self) -> list[str]:
        """Names of the modalities that the rig uses, or has a section of."""
        used = [self.modality, *(c.modality for c in self.channels.values() if c.modality)]
        return list(dict.fromkeys([*used, *self.sections]))

    def modality_of(self, name: str) -> str:
        """Return the name of the modality that reconstructs channel `name`."""
        return self.channel(name).modality or self.modality

    def beside(self, name: str, modality: str) -> str:
        """Return the channel of `modality` that an engine sees beside channel `name`.

        Raises
        ------
        ConfigError
            If there is none, or several and it is not said which.
        """
        fit = [n for n in self.channels if n != name and self.modality_of(n) == modality]
        said = self.channel(name).beside
        if said in fit or (said is None and len(fit) == 1):
            return said or fit[0]
        came = (
            f"channels.{name}.beside is {said!r}" if said else f"channels.{name}.beside is not set"
        )
        raise ConfigError(
            f"The engine of channel {name!r} sees a {modality} channel beside it: {came}, and rig"
            f" {self.name!r} has {', '.join(fit) or 'none'}. Name one, add one, or leave"
            " out the engine."
        )

    def channels_of(self, modality: str) -> list[str]:
        """Return the channels that `modality` reconstructs; "" stands for the only one of a rig
        that names none.
        """
        return [name for name in self.channels or [""] if self.modality_of(name) == modality]

    def section(self, name: str) -> Section:
        """Return the section of the modality that reconstructs channel `name`."""
        return self.section_of(self.modality_of(name))

    def section_of(self, modality: str) -> Section:
        """Return the section of `modality`, with its defaults where rig.yaml has none."""
        return self.sections.get(modality) or _section(modality, {})

    def with_section(self, section: Section) -> RigConfig:
        """Return a copy with this section of its modality."""
        return self.model_copy(update={"sections": {**self.sections, section.modality: section}})

    def with_localiser(self, engine: str) -> RigConfig:
        """Return a copy in which `engine` finds the emitters; "none": they are fitted.

        Raises
        ------
        ConfigError
            If no channel is localised.
        """
        used = {self.modality_of(name) for name in self.channels or [""]}
        sections = [self.section_of(modality) for modality in sorted(used)]
        able = [section for section in sections if "localiser" in type(section).model_fields]
        if not able:
            raise ConfigError(
                f"--localiser {engine!r} finds single emitters, and no channel of rig"
                f" {self.name!r} is localised."
            )
        value = None if engine == "none" else engine
        rig = self
        for section in able:
            rig = rig.with_section(section.model_copy(update={"localiser": value}))
        return rig

    def raw_frames(self, name: str) -> int:
        """Exposures that make one super-resolution frame of channel `name`."""
        return len(self.exposed(name))

    def exposed(self, name: str) -> tuple[int, ...]:
        """Return which raw frames of its modality's group channel `name` exposes, by their places.

        Raises
        ------
        ValueError
            If there are none such, with what there is.
        """
        way, section, learned = (
            _modality(self.modality_of(name)),
            self.section(name),
            self.channel(name).learned,
        )
        asked = learned.frames if learned else None
        if isinstance(asked, int):
            return tuple(way.exposed(section, asked))
        return tuple(range(way.raw_frames(section)) if asked is None else asked)

    def exposes_all(self, name: str) -> bool:
        """Whether channel `name` exposes all raw frames that its modality reconstructs."""
        way, section = _modality(self.modality_of(name)), self.section(name)
        return self.exposed(name) == tuple(range(way.raw_frames(section)))

    def raw_labels(self, name: str) -> tuple[str, ...]:
        """Return what each exposure of a group of channel `name` is."""
        labels = _modality(self.modality_of(name)).raw_labels(self.section(name))
        return tuple(labels[i] if i < len(labels) else f"raw {i}" for i in self.exposed(name))

    def _check_exposed(self, name: str) -> None:
        if not (learned := self.channels[name].learned):
            return
        way, section = _modality(self.modality_of(name)), self.section(name)
        try:
            exposed = self.exposed(name)
        except ValueError as e:
            raise ValueError(f"channels.{name}.reconstruct.frames: {e}") from None
        known = way.raw_frames(section)
        if isinstance(learned.frames, list) and (
            not exposed or list(exposed) != sorted(set(exposed)) or exposed[-1] >= known
        ):
            raise ValueError(
                f"channels.{name}.reconstruct.frames: expected places of raw frames in ascending"
                f" order, 0 to {known - 1}, got {learned.frames}"
            )

    def resolution_nm(self, name: str) -> float:
        """Return what the objective resolves of channel `name`: wavelength / (2 NA)."""
        return self.emission_nm(name) / (2 * self.optics.na)

    def emission_nm(self, name: str) -> float:
        """Return at which wavelength channel `name` emits: its own, or that of the optics."""
        return self.channel(name).emission_nm or self.optics.emission_nm

    @property
    def max_raw_frames(self) -> int:
        """Exposures per super-resolution frame of the channel that needs most."""
        return max(self.raw_frames(name) for name in self.channels or [""])

    def with_engine(self, engine: str | None, step: Step = "separate") -> RigConfig:
        """Return a copy in which `engine` does `step` for the only channel that has that step (or
        the only channel).

        "none", or None, leaves the step out, of every channel. ``488=NAME`` and ``488=none`` are
        for that channel.

        Raises
        ------
        ConfigError
            If it is not clear which channel is meant, or there is no such channel.
        """
        engine = engine or "none"
        named, channel_engine = self._named_channel(engine)
        if named is not None:
            return self._with_engine_of(named, channel_engine, step)
        if engine == "none":
            plain = {name: self._stepped(name, step, None) for name in self.channels}
            summed = self.superpose
            if summed and step in SuperposeConfig.model_fields:
                summed = summed.model_copy(update={step: None})
            return self.model_copy(update={"channels": plain, "superpose": summed})
        if self.superpose and self.sums and step in SuperposeConfig.model_fields:
            return self.model_copy(
                update={"superpose": self.superpose.model_copy(update={step: engine})}
            )
        # True channels are measured, not predicted.
        true = self.superpose.channels if self.superpose else ()
        own = [name for name in self.channels if name not in true] or list(self.channels)
        meant = [name for name in own if step in self.channels[name].engines] or own
        if len(meant) > 1:
            flag = FLAGS[step]
            raise ConfigError(
                f"{flag} {engine!r} does not say which of the channels {', '.join(meant)} it is"
                f" for: give {flag} {meant[0]}={engine}, acquire one channel, or set {step!r} in"
                " rig.yaml."
            )
        return self._with_engine_of(meant[0] if meant else "", engine, step)

    def with_engines(self, engines: Mapping[Step, str | None]) -> RigConfig:
        """Return a copy with engines by step, as of `with_engine`; a step with None stays.

        Raises
        ------
        ConfigError
            As of `with_engine`.
        """
        rig = self
        for step, engine in engines.items():
            rig = rig.with_engine(engine, step) if engine else rig
        return rig

    def _with_engine_of(self, name: str, engine: str, step: Step) -> RigConfig:
        value = None if engine == "none" else engine
        if self.superpose and name in self.sums:
            return self.model_copy(
                update={"superpose": self.superpose.model_copy(update={step: value})}
            )
        if self.superpose and name in self.superpose.channels:
            others = [one for one in self.channels if one not in self.superpose.channels]
            what, instead = (
                ("superposed, and engines are for the sum", self.superpose.name)
                if self.sums
                else ("the truth of audits, which no engine touches", others[0])
            )
            raise ConfigError(f"Channel {name!r} is {what}: give {instead}={engine}.")
        channel = self._stepped(name, step, value)
        return self.model_copy(update={"channels": {**self.channels, name: channel}})

    def _stepped(self, name: str, step: Step, engine: str | None) -> ChannelConfig:
        """Return a channel in which `engine` does `step`; without one, its modality reconstructs
        what it can.
        """
        channel = self.channels.get(name, ChannelConfig()).with_step(step, engine)
        if step == "reconstruct" and engine is None and self.exposes_all(name):
            return channel.model_copy(update={"reconstruct": channel.modality})
        return channel

    def _named_channel(self, engine: str) -> tuple[str | None, str]:
        """Take ``CHANNEL=ENGINE`` apart.

        None where `engine` names no channel, as a folder whose name has such a sign.

        Raises
        ------
        ConfigError
            If it names a channel that the rig does not have.
        """
        name, sign, rest = engine.partition("=")
        known = [*self.channels, *self.sums]
        if not sign or Path(engine).exists():
            return None, engine
        if name not in known:
            raise ConfigError(
                f"Engine {engine!r} is for channel {name!r}, which rig {self.name!r} does not"
                f" describe.{suggestion(name, known)}"
            )
        return name, rest

    def for_channel(self, engine: str | None, acquired: list[str]) -> str | None:
        """Return ``CHANNEL=ENGINE`` for an `engine` that names no channel where a run acquires a
        single one.
        """
        if (
            engine is None
            or engine == "none"
            or self.sums
            or len(acquired) != 1
            or len(self.channels) < 2
        ):
            return engine
        return engine if self._named_channel(engine)[0] is not None else f"{acquired[0]}={engine}"


FLAGS: Mapping[Step, str] = {
    "restore": "--restore",
    "reconstruct": "--reconstruct",
    "upscale": "--upscale",
    "separate": "--engine",
}
"""Of the command line, for the engine of a step."""

M = TypeVar("M", bound=BaseModel)
_SHOWN = 200  # characters
_BEFORE_AT = re.compile(r"//[^/@]*@")


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping: plain values, within the limits of `livesr.base.documents`.

    Raises
    ------
    ConfigError
        If the file is missing, no YAML, or no mapping.
    """
    try:
        data = read_yaml(path)
    except DocumentError as e:
        raise ConfigError(str(e)) from e
    if not isinstance(data, dict):
        came = "is empty" if data is None else f"holds a {type(data).__name__}"
        raise ConfigError(f"{path} {came}, expected 'key: value' lines.")
    return data


def parse(model: type[M], data: Mapping[str, Any], source: str) -> M:
    """Validate `data`; the first thing that is wrong becomes one sentence.

    Raises
    ------
    ConfigError
        With the place, what came and what was expected.
    """
    try:
        return model.model_validate(data)
    except ValidationError as e:
        raise ConfigError(f"{source}: {_first_problem(model, e)}") from e


def _first_problem(model: type[BaseModel], error: ValidationError) -> str:
    # A misspelt key also makes the right one missing: name the spelling, it is the cause.
    problem = min(error.errors(), key=lambda p: p["type"] != "extra_forbidden")
    where = ".".join(str(p) for p in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _fields_at(model, problem["loc"][:-1])
        return f"unknown key {where!r}.{suggestion(str(problem['loc'][-1]), known)}"
    if problem["type"] == "missing":
        return f"{where!r} is missing."
    message = problem["msg"].removeprefix("Value error, ").removesuffix(".")
    came = problem.get("input")
    shown = f" (got {_short(came)})" if isinstance(came, str | int | float) else ""
    return f"{_short(where, quoted=False) + ': ' if where else ''}{message}{shown}."


def _short(value: object, *, quoted: bool = True) -> str:
    """Return a value as a sentence can hold it.

    A file may have a name or a text of a million letters, and an address a password.
    """
    text = _BEFORE_AT.sub("//...@", repr(value) if quoted else str(value))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _fields_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Names that the model nested at `loc` accepts."""
    for part in loc:
        if model is RigConfig and part in _registry().MODALITIES:
            model = _modality(str(part)).Section
            continue
        if model is ChannelConfig and (own := _fields_of_channels().get(str(part))):
            model = _nested_model(own.annotation) or model
            continue
        field = model.model_fields.get(str(part))
        candidates = [field.annotation] if field else []
        nested = _nested_model(candidates[0]) if candidates else None
        model = nested or model
    if model is RigConfig:
        return [*(n for n in model.model_fields if n != "sections"), *_registry().MODALITIES.names]
    if model is ChannelConfig:
        return [*(n for n in model.model_fields if n != "section"), *_fields_of_channels()]
    return list(model.model_fields)


def _fields_of_channels() -> dict[str, FieldInfo]:
    """Return the keys of a channel that some modality knows."""
    models = [modality.ChannelSection for modality in _registry().installed()]
    return {name: field for model in models for name, field in model.model_fields.items()}


def _nested_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        if found := _nested_model(inner):
            return found
    return None


def data_folders(kind: Literal["engines", "hardware_configs"]) -> list[Path]:
    """Folders in which named engines or rigs are looked for.

    Here, $LIVESR_HOME, then what came with the package.
    """
    home = os.environ.get("LIVESR_HOME")
    places = [
        Path.cwd() / kind,
        *([Path(home) / kind] if home else []),
        _PACKAGE / "_data" / kind,
        _PACKAGE.parents[1] / kind,
    ]
    return [p for p in dict.fromkeys(places) if p.is_dir()]


def load_rig(rig: str | os.PathLike[str]) -> RigConfig:
    """Read a rig: a rig.yaml, the folder that holds one, or the name of a folder in
    `hardware_configs`.

    Micro-Manager's configuration need not be there: recordings do without.

    Raises
    ------
    ConfigError
        If there is no such rig, it does not parse, or a correction map that it names is not there.
    """
    path = rig_file(rig)
    source = str(path)
    config = parse(RigConfig, {**load_yaml(path), "folder": path.resolve().parent}, source)
    for place, name in config.corrections.maps().items():
        if not (config.folder / name).is_file():
            raise ConfigError(
                f"{source}: corrections.{place} names {name!r}, which is not beside it. Put the map"
                " there, or remove the line: 'livesr characterise' measures it anew."
            )
    return config


def rig_file(rig: str | os.PathLike[str]) -> Path:
    """Return the rig.yaml that `rig` means, as in `load_rig`; what it says is not looked at.

    Raises
    ------
    ConfigError
        If there is none, or a file of another kind.
    """
    named = path_of(rig, "The rig", "a rig.yaml, its folder, or a name that 'livesr info' lists")
    if not str(rig).strip():
        raise ConfigError(
            "No rig is named; expected a rig.yaml, the folder that holds one, or a name that"
            " 'livesr info' lists."
        )
    path = named
    if path.is_dir():
        path /= "rig.yaml"
    if path.is_file():
        if other := other_than_yaml(path, RIG):
            raise ConfigError(other)
        return path
    try:
        return _named_rig(str(rig))
    except ConfigError:
        if not path.parent.is_dir() or path.name != "rig.yaml":
            raise
        raise ConfigError(
            f"The folder {path.parent} has no rig.yaml: copy hardware_configs/_template/rig.yaml"
            " into it, and describe the rig."
        ) from None


def _named_rig(name: str) -> Path:
    known: dict[str, Path] = {}
    for folder in data_folders("hardware_configs"):
        for candidate in sorted(folder.glob("[!_]*/rig.yaml")):
            known.setdefault(candidate.parent.name, candidate)
    if name not in known:
        raise ConfigError(
            f"No rig {name!r}: neither a file nor a folder, nor a known"
            f" name.{suggestion(name, list(known))}"
        )
    return known[name]
