"""What an engine is: a folder with a network, a manifest and a model card.

Owns the manifest's fields, the search by name, the check of the weights' hash and the question
whether an engine fits a run. Loads no runtime and parses no network. Weights are hashed before
anything reads them as a network.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from livesr.base import contained
from livesr.base.config import Model, Number, Positive, Step, data_folders, load_yaml, parse
from livesr.base.errors import BackendError, ConfigError, EngineError, suggestion
from livesr.base.registry import announced_folders
from livesr.formats.attributes import model_name
from livesr.live.inference.onnx_file import why_refused
from livesr.live.out_of_distribution import FEATURES

log = logging.getLogger(__name__)

Task = Step | Literal["localise"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

MANIFEST_NAME = "manifest.yaml"
MODEL_NAME = "model.onnx"
INT8_NAME = "model-int8.onnx"

FEATURES_OUTPUT = "features"
"""Name of a network's second output, (1, n, 1, 1)."""

TOLD = (4, 3, 2)
"""How many numbers are in it of a network that draws unknown light: now, and in former engines."""

CONFUSED = 0.2
"""Share of a structure's light in another channel from which on the two are too alike for an
engine."""

_PLACES: Mapping[Task, str] = {
    "restore": "'restore'",
    "reconstruct": "'reconstruct: {engine: ...}'",
    "upscale": "'upscale'",
    "separate": "'separate'",
    "localise": "'localiser', where emitters are looked for,",
}

_MAX_CREDIBLE_SCALE = 3  # Hu et al. 2020, EDSR on STORM images of microtubules


class Range(Model):
    """A closed interval."""

    min: Number
    max: Number

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not self.min <= self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self

    def __contains__(self, value: float) -> bool:
        return self.min <= value <= self.max

    def __str__(self) -> str:
        return f"{self.min:g}-{self.max:g}"


class OutputChannel(Model):
    """A structure that the network draws. `color` is RRGGBB, as OME-Zarr writes it."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    color: Annotated[str, Field(pattern=r"^[0-9A-F]{6}$")]

    @field_validator("color", mode="before")
    @classmethod
    def _without_hash(cls, value: object) -> object:
        return value.removeprefix("#").upper() if isinstance(value, str) else value


class Citation(Model):
    """What to cite (bioimage.io's `cite`)."""

    text: str
    doi: str | None = None
    url: str | None = None


class Metrics(Model):
    """How well it did on its validation data.

    Attributes
    ----------
    measured_with : hash of the network that was measured; None in manifests of before, which are
        believed
    data : which data
    residual : range of the summation residual seen there; a live frame outside it is flagged
    channels : ``{structure: {metric: value}}``
    other : anything else that is one number
    """

    measured_with: Sha256 | None = None
    data: str = ""
    residual: Range | None = None
    channels: dict[str, dict[str, float]] = Field(default_factory=dict)
    other: dict[str, float] = Field(default_factory=dict)


def _feature(value: str) -> str:
    if value not in FEATURES:
        raise ValueError(f"expected one of {', '.join(FEATURES)}")
    return value


class TrainingDistribution(Model):
    """Where the frames of training lie, as `livesr.live.out_of_distribution` measures them.

    The distance of a frame is ``|whitening (features - mean)|``; 1 in 40 frames of training exceeds
    `limit`.
    """

    features: tuple[str, ...]
    mean: tuple[Number, ...]
    whitening: tuple[tuple[Number, ...], ...]
    limit: Positive

    @model_validator(mode="after")
    def _measured_as_here(self) -> TrainingDistribution:
        n = len(FEATURES)
        if self.features != FEATURES:
            raise ValueError(
                "'features' are not those of this version: measure them anew with 'livesr limits'"
            )
        if len(self.mean) != n or [len(row) for row in self.whitening] != [n] * n:
            raise ValueError(f"'mean' needs {n} numbers and 'whitening' {n} rows of {n}")
        return self


class UsualUnknownLight(Model):
    """The unknown light that 1 in 40 frames like this one exceed.

    In dim and in noisy frames more of the light seems unknown. With the numbers f of a frame
    (`livesr.live.out_of_distribution.FEATURES`) the limit is exp(offset + sum of slopes f), not
    below `least` nor above `most`: those of the frames that it was fitted on.
    """

    offset: Number
    slopes: dict[Annotated[str, AfterValidator(_feature)], Number]
    least: Positive
    most: Positive


class Uncertain(Model):
    """What the spread of predictions from several views is worth, measured on simulated sequences.

    Attributes
    ----------
    augmentation : which views were compared, as in `livesr.base.compute`
    scale : standard deviations of the views that the error is, root mean square
    correlation : of the absolute error of single pixels with it, by rank (Spearman)
    """

    augmentation: str
    scale: Positive
    correlation: Number | None = None


class ChannelMixing(Model):
    """What the brightness of a structure in the prediction says of its true one.

    Brightness over that of the brightest other structure, `livesr.live.mixing`; logarithms are
    natural: log true = offset + slope log found, with a standard deviation of `sd` between cells.

    Attributes
    ----------
    weak : ratio found below which a structure is weak
    absent : ratio found that one which is not there has at most, as a rule
    """

    slope: Positive
    offset: Number
    sd: Positive
    weak: Annotated[float, Field(ge=0, lt=10)]
    absent: Annotated[float, Field(ge=0, lt=10)]


class Limits(Model):
    """Beyond which values its predictions are not those of validation.

    `livesr limits` measures them.

    Attributes
    ----------
    measured_with : hash of the network that was measured; None in manifests of before, which are
        believed
    data : on which frames
    training_distribution : where the frames of training lie; None is not judged
    weak : share of the light below which a structure is not to be trusted, by channel; others have
        0.04
    unknown_light : share of light of no known structure that 1 in 40 frames of the rigs exceed that
        engines are scored on (`livesr.live.unknown_light`); None where the network does not tell it
    usual_unknown_light : the same for each frame by itself; None goes by the one limit
    mixing : how bright a structure is beside the others, by channel; then `weak` is not asked
    confusion : share of a structure's light, alone in the field of a rig in good order, that is
        shown as each other one, median
    uncertainty : None was not measured
    """

    dropped: ClassVar[frozenset[str]] = frozenset({"familiarity"})

    measured_with: Sha256 | None = None
    data: str = ""
    training_distribution: TrainingDistribution | None = None
    weak: dict[str, Annotated[float, Field(ge=0, lt=1)]] = Field(default_factory=dict)
    unknown_light: Positive | None = None
    usual_unknown_light: UsualUnknownLight | None = None
    mixing: dict[str, ChannelMixing] = Field(default_factory=dict)
    confusion: dict[str, dict[str, Number]] = Field(default_factory=dict)
    uncertainty: Uncertain | None = None


def _beside(value: str) -> str:
    if not value or value in (".", "..") or any(c in value for c in "/\\:\0"):
        raise ValueError("expected a file beside the manifest, named without a folder")
    return value


FileBeside = Annotated[str, AfterValidator(_beside)]
"""Name of a file in the engine's own folder."""


class OnnxWeights(Model):
    """The network's file, beside the manifest."""

    source: FileBeside = MODEL_NAME
    sha256: Sha256
    opset_version: Annotated[int, Field(ge=1, le=1000)] = 17


class Int8Weights(OnnxWeights):
    """The same network with Q/DQ nodes before its convolutions; `livesr quantise` writes it.

    Attributes
    ----------
    made_of : hash of the network that it was quantised from
    calibration : on what, in words
    pcc_loss : mean PCC on other frames of the same kind that quantising cost, on OpenVINO
    """

    source: FileBeside = INT8_NAME
    made_of: Sha256
    calibration: str
    pcc_loss: Number


class Weights(Model):
    """The formats that the network comes in.

    `onnx` is the source of truth, `int8` is made of it.

    Attributes
    ----------
    features : numbers of the second output of both, means over blocks of the frame
        (`livesr.live.unknown_light`); 0 without one
    """

    dropped: ClassVar[frozenset[str]] = frozenset({"features_drawn"})

    onnx: OnnxWeights
    int8: Int8Weights | None = None
    features: Annotated[int, Field(ge=0, le=4096)] = 0


def _renamed(value: object) -> object:
    if value == "background-headroom":
        log.warning(
            "'background-headroom' is now called 'background-scale': the old name is still read,"
            " rename it."
        )
        return "background-scale"
    return value


Normalised = Annotated[
    Literal["background-scale", "mean-deviation", "none"], BeforeValidator(_renamed)
]


class Manifest(Model):
    """manifest.yaml. Names that the bioimage.io model specification has are used as it has them.

    Attributes
    ----------
    window : consecutive frames in; the middle one is predicted
    raw_frames : of an engine that sees the raw frames of one time point: what each is, in its order
        ("angle 0 phase 0", or "raw 0" for whatever the rig exposes there); else empty
    beside : what the network sees after the frames of its stream, on their pixels: [widefield] is
        the newest frame of a channel of that modality
    scale : output pixels per input pixel along each axis
    normalisation : "background-scale" is x = (X - b) / s of `livesr.live.normalise`; behind
        "mean-deviation" the whole frame has mean 0 and standard deviation 1, also where it is seen
        in tiles, and the answer is taken back; "none" takes ADU
    pixel_size_nm : sampling of the input that it was trained for; None is any
    resolution_nm : wavelength / (2 NA) of the optics that it was trained for; None is any
    modality : reconstructions that it was trained for; empty is any
    multiple_of : sides that the network takes; others are padded by reflection
    halo : pixels from a frame's edge that see beyond it, the receptive field's radius
    architecture, parameters : what `livesr.training.networks.build` needs to make the network again
    trained : False marks weights that mean nothing: for tests and for measuring overheads
    haze : of an engine that separates: whether its channels hold their structures' light from far
        out of focus, as an image of the structure alone does; otherwise no channel has it
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=100)]
    version: str
    description: str
    task: Task
    trained: bool
    window: Literal[1, 3] = 3
    raw_frames: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    scale: Annotated[int, Field(ge=1, le=8)] = 1
    channels: Annotated[tuple[OutputChannel, ...], Field(min_length=1)]
    normalisation: Normalised = "background-scale"
    pixel_size_nm: Range | None = None
    resolution_nm: Range | None = None
    modality: tuple[str, ...] = ()
    multiple_of: Annotated[int, Field(ge=1, le=256)] = 1
    halo: Annotated[int, Field(ge=0, le=4096)] = 0
    haze: bool = False
    architecture: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    metrics: Metrics = Metrics()
    limits: Limits = Limits()
    weights: Weights
    license: str
    authors: tuple[str, ...] = ()
    cite: tuple[Citation, ...] = ()
    documentation: FileBeside = "README.md"

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        names = [c.name for c in self.channels]
        if len(set(names)) != len(names):
            raise ValueError(f"channel names must differ, got {', '.join(names)}")
        self._check_inputs()
        made = len(self.raw_frames) or 1 if self.task == "restore" else 1
        if self.task not in ("separate", "localise") and len(names) != made:
            raise ValueError(
                f"an engine that does {self.task!r} has {made if made > 1 else 'one'}"
                f" output channel{'s' if made > 1 else ''}, got {len(names)}"
            )
        if self.limits.unknown_light is not None and self.weights.features not in TOLD:
            raise ValueError(
                f"'limits: unknown_light' needs a network that returns {TOLD[0]} features, and this"
                f" one returns {self.weights.features}: take it out, and run 'livesr limits'"
            )
        return self

    def _check_inputs(self) -> None:
        if self.beside and (self.task, self.window, len(self.beside)) != ("upscale", 1, 1):
            raise ValueError(
                f"'beside' names one modality and goes with task upscale and window 1, got"
                f" {', '.join(self.beside)}, {self.task!r} and window {self.window}"
            )
        if self.task == "reconstruct" and not self.raw_frames:
            raise ValueError(
                "an engine that does 'reconstruct' names its 'raw_frames', as [angle 0 phase 0,"
                " ...], or [raw 0, ...] in the rig's order"
            )
        if not self.raw_frames:
            return
        if self.task not in ("reconstruct", "restore") or self.window != 1:
            raise ValueError(
                f"'raw_frames' are of a single time point: they go with task reconstruct or restore"
                f" and window 1, got {self.task!r} and window {self.window}"
            )
        if len(set(self.raw_frames)) < len(self.raw_frames):
            raise ValueError(f"raw_frames must differ, got {', '.join(self.raw_frames)}")

    @property
    def shown(self) -> Manifest:
        """As what follows sees it: behind one that restores raw frames stands one picture of them,
        as large as the measurement.
        """
        if self.task != "restore":
            return self
        picture = (OutputChannel(name="Restored", color="FFFFFF"),)
        return self.model_copy(update={"channels": picture, "raw_frames": ()})

    @property
    def inputs(self) -> int:
        """Planes of the network's input."""
        return (len(self.raw_frames) or self.window) + len(self.beside)

    @property
    def sees_raw(self) -> bool:
        """Whether it sees raw frames, not those that were reconstructed."""
        return self.task in ("restore", "reconstruct")

    @property
    def sha256(self) -> str:
        """Hash of the network's file, 64 lower-case hexadecimal digits."""
        return self.weights.onnx.sha256

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The structures, in output order."""
        return tuple(c.name for c in self.channels)


def model_facts(manifest: Manifest) -> dict[str, Any]:
    """Return what a prediction says of its engine, in the store and on the wire."""
    return {
        "id": manifest.id,
        "version": str(manifest.version),
        "sha256": manifest.sha256,
        "trained": manifest.trained,
        "training_data": manifest.training,
    }


def manifest_files(engines: Iterable[Engine]) -> dict[str, Path]:
    """Return the manifests to keep beside a store, by the name that they get there.

    Of two engines of one id the second is called by its weights as well.
    """
    files: dict[str, Path] = {}
    by_name: dict[str, str] = {}
    for engine in engines:
        manifest = engine.manifest
        name = f"manifest-{manifest.id}.yaml"
        if by_name.setdefault(name, manifest.sha256) != manifest.sha256:
            name = f"manifest-{manifest.id}-{manifest.sha256[:12]}.yaml"
        files[name] = engine.folder / MANIFEST_NAME
    return files


@dataclass(frozen=True, slots=True)
class Engine:
    """A folder whose manifest parses and whose weights are the ones that it names.

    Attributes
    ----------
    manifest : without what its file says of another network
    notes : what was left out of it, in sentences
    """

    folder: Path
    manifest: Manifest
    onnx_path: Path
    int8_path: Path | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        manifest = self.manifest
        return model_name(
            {"id": manifest.id, "version": manifest.version, "sha256": manifest.sha256}
        )

    def read(self) -> bytes:
        """Return the network's file, hashed once more: what a backend parses is what was verified.

        Runtimes parse these bytes, not the path.

        Raises
        ------
        EngineError
            If the file changed since the engine was loaded, or as of `check_network`.
        """
        return _verified(self.onnx_path, self.manifest.sha256)

    def read_int8(self) -> bytes:
        """Return the file with Q/DQ nodes (opset 17, int8, symmetric), verified like that of
        `read`.

        Raises
        ------
        BackendError
            If the engine has none.
        EngineError
            As of `read`.
        """
        if self.int8_path is None or self.manifest.weights.int8 is None:
            raise BackendError(
                f"Engine {self.manifest.id!r} has no int8 weights. Make them with 'livesr quantise"
                f" {self.folder}', or use --precision auto."
            )
        return _verified(self.int8_path, self.manifest.weights.int8.sha256)

    def output_shape(self, shape: tuple[int, int]) -> tuple[int, int, int]:
        """Return (c, y, x) of what it makes of a frame of `shape` (y, x)."""
        scale = self.manifest.scale
        return len(self.manifest.channels), shape[0] * scale, shape[1] * scale

    def check_fits(
        self,
        task: Task,
        *,
        shape: tuple[int, int] | None = None,
        pixel_size_nm: float | None = None,
        modality: str | None = None,
        resolution_nm: float | None = None,
        raw_labels: tuple[str, ...] | None = None,
    ) -> list[str]:
        """Compare with a run; what is None is not compared.

        Parameters
        ----------
        shape, pixel_size_nm, modality : of the frames that go in: (y, x), their sampling in the
            sample, how they were reconstructed
        resolution_nm : of the optics: wavelength / (2 NA)
        raw_labels : what each raw frame of a group is, for an engine that sees them

        Returns
        -------
        list of str
            Sentences to show with every frame: it works, but was not trained for this.

        Raises
        ------
        EngineError
            If it cannot work: another task, other raw frames, or a frame too small to pad.
        """
        if task != self.manifest.task:
            raise EngineError(
                f"Engine {self.manifest.id!r} does {self.manifest.task!r}, and the run needs one"
                f" that does {task!r}. Name it under {_PLACES[self.manifest.task]} in rig.yaml, or"
                " choose another engine."
            )
        if raw_labels is not None and self.manifest.sees_raw:
            self._check_restores()
            self.raw_order(raw_labels)
        warnings = list(self.notes)
        if not self.manifest.trained:
            warnings.append(f"Engine {self.manifest.id!r} is untrained: its channels mean nothing.")
        warnings += self._confused()
        if task == "upscale" and self.manifest.scale > _MAX_CREDIBLE_SCALE:
            warnings.append(
                f"Engine {self.manifest.id!r} enlarges {self.manifest.scale} times: beyond"
                f" {_MAX_CREDIBLE_SCALE} times, thin structures break and specks appear that are"
                " not there."
            )
        if shape is not None:
            warnings += self._check_shape(shape)
        if pixel_size_nm is not None:
            warnings += self._check_pixel_size(pixel_size_nm)
        if resolution_nm is not None:
            warnings += self._check_resolution(resolution_nm)
        if (
            modality is not None
            and self.manifest.modality
            and modality not in self.manifest.modality
        ):
            trained_for = " or ".join(self.manifest.modality)
            warnings.append(
                f"Engine {self.manifest.id!r} was trained on {trained_for} frames; these are"
                f" {modality}."
            )
        return warnings

    def _check_restores(self) -> None:
        manifest = self.manifest
        if manifest.task == "restore" and (manifest.inputs == 3 and not manifest.raw_frames):
            raise EngineError(
                f"Engine {manifest.id!r} restores the middle one of three consecutive frames; raw"
                " frames are restored one by one (window 1), or as a group (raw_frames)."
            )
        if manifest.task == "restore" and manifest.scale != 1:
            raise EngineError(
                f"Engine {manifest.id!r} restores raw frames and enlarges them {manifest.scale}"
                " times: what is restored keeps its pixels. Name it under 'upscale', if it was"
                " trained on reconstructions."
            )

    def raw_order(self, labels: tuple[str, ...]) -> tuple[int, ...]:
        """Return the places of the raw frames that it sees, in its order.

        Parameters
        ----------
        labels : what each exposure of a group is, in the rig's order

        Raises
        ------
        EngineError
            If the rig does not expose them.
        """
        wanted = self.manifest.raw_frames
        if not wanted:  # each for itself
            return tuple(range(len(labels)))
        if set(wanted) <= set(labels):
            return tuple(labels.index(label) for label in wanted)
        unnamed = all(label == f"raw {i}" for i, label in enumerate(wanted))
        if unnamed and len(wanted) == len(labels):
            return tuple(range(len(labels)))
        named = f"{len(wanted)}" if unnamed else f"{len(wanted)}, {', '.join(wanted)}"
        raise EngineError(
            f"Engine {self.manifest.id!r} sees raw frames of one time point: {named}. The rig"
            f" exposes {len(labels)}, {', '.join(labels)}: set reconstruct.frames in rig.yaml, or"
            " choose another engine."
        )

    def _check_shape(self, shape: tuple[int, int]) -> list[str]:
        smallest = 2 * self.manifest.multiple_of
        if min(shape) < smallest:
            raise EngineError(
                f"Frames of {shape[0]} x {shape[1]} are too small for engine {self.manifest.id!r},"
                f" which needs {smallest} x {smallest} or more. Use a larger ROI or less binning."
            )
        if min(shape) <= 2 * self.manifest.halo:
            return [
                f"Every pixel of a {shape[0]} x {shape[1]} frame is nearer to its edge than the"
                f" {self.manifest.halo} pixels that engine {self.manifest.id!r} looks around:"
                " expect edge effects everywhere."
            ]
        return []

    def _confused(self) -> list[str]:
        return [
            f"{name} and {other} are too alike for engine {self.manifest.id!r}: {share:.0%} of the"
            f" light of {name} alone is shown as {other}."
            for name, others in self.manifest.limits.confusion.items()
            for other, share in others.items()
            if share >= CONFUSED
        ]

    def wrong_pixels(self, pixel_size_nm: float) -> bool:
        """Return whether pixels of a size are none that it was trained for."""
        wanted = self.manifest.pixel_size_nm
        # A rig's calibration is rarely better than a per mille: a limit hit exactly is none.
        return not (wanted is None or wanted.min * 0.999 <= pixel_size_nm <= wanted.max * 1.001)

    def _check_pixel_size(self, pixel_size_nm: float) -> list[str]:
        if not self.wrong_pixels(pixel_size_nm):
            return []
        return [
            f"Pixels of {pixel_size_nm:.4g} nm are outside the {self.manifest.pixel_size_nm} nm "
            f"that engine {self.manifest.id!r} was trained for."
        ]

    def _check_resolution(self, resolution_nm: float) -> list[str]:
        wanted = self.manifest.resolution_nm
        if wanted is None or wanted.min * 0.999 <= resolution_nm <= wanted.max * 1.001:
            return []
        return [
            f"The optics resolve {resolution_nm:.0f} nm (wavelength / 2 NA), outside the {wanted}"
            f" nm that engine {self.manifest.id!r} was trained for."
        ]


def engine_folders() -> dict[str, Path]:
    """Return every name under which an engine is looked for, and its folder.

    Those of other packages come last: their entry points of the group ``livesr.engines`` name
    folders that hold engine folders. Nothing is opened, checked or imported.
    """
    known: dict[str, Path] = {}
    for folder in data_folders("engines"):
        for manifest in sorted(folder.glob(f"*/{MANIFEST_NAME}")):
            known.setdefault(manifest.parent.name, manifest.parent)
    for package, folder in announced_folders("livesr.engines"):
        for manifest in sorted(folder.glob(f"*/{MANIFEST_NAME}")):
            if known.setdefault(manifest.parent.name, manifest.parent) != manifest.parent:
                _say_hidden(package, manifest.parent.name, known[manifest.parent.name])
    return known


@cache
def _say_hidden(package: str, name: str, taken: Path) -> None:
    log.warning("%s has an engine %r, and that of %s is taken instead.", package, name, taken)


def load_engine(engine: str | os.PathLike[str]) -> Engine:
    """Read an engine: its folder, its manifest.yaml, or the name of a folder in `engines`.

    Raises
    ------
    EngineError
        If there is none, its manifest does not parse, or its weights are not those that the
        manifest names.
    """
    folder = _folder_of(engine)
    contained.refuse_links(
        folder, error=EngineError
    )  # whoever adds to the folder must not write through one
    path = folder / MANIFEST_NAME
    try:
        manifest = parse(Manifest, load_yaml(path), str(path))
    except ConfigError as e:
        raise EngineError(str(e)) from e
    manifest, notes = _of_its_weights(manifest, folder)
    onnx, int8 = manifest.weights.onnx, manifest.weights.int8
    return Engine(
        folder,
        manifest,
        _weights_inside(folder, onnx),
        _weights_inside(folder, int8) if int8 else None,
        notes,
    )


def _of_its_weights(manifest: Manifest, folder: Path) -> tuple[Manifest, tuple[str, ...]]:
    """Return a manifest without what was made of, or measured with, another network than its own,
    and sentences that say so.

    Who puts other weights into a folder leaves these behind: they would pass for the network's. It
    works without them.
    """
    changes: dict[str, Any] = {}
    notes: list[str] = []

    def leave_out(what: str, other: str, anew: str, **change: Any) -> None:
        changes.update(change)
        notes.append(
            f"Engine {manifest.id!r}: {what} ({other[:12]}..., not"
            f" {manifest.sha256[:12]}...), and are not used. {anew}"
        )

    limits, metrics, int8 = manifest.limits, manifest.metrics, manifest.weights.int8
    if limits.measured_with not in (None, manifest.sha256):
        anew = f"'livesr limits {folder}' measures them."
        leave_out(
            "its limits were measured with another network",
            str(limits.measured_with),
            anew,
            limits=Limits(),
        )
    if metrics.measured_with not in (None, manifest.sha256):
        anew = f"'livesr limits {folder} --pairs FOLDER' measures what residual is usual."
        leave_out(
            "its scores were measured with another network",
            str(metrics.measured_with),
            anew,
            metrics=Metrics(),
        )
    if int8 and int8.made_of != manifest.sha256:
        anew = f"'livesr quantise {folder}' makes them."
        weights = manifest.weights.model_copy(update={"int8": None})
        leave_out(
            "its int8 weights were made of another network", int8.made_of, anew, weights=weights
        )
    return (manifest.model_copy(update=changes), tuple(notes)) if notes else (manifest, ())


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Write manifest.yaml into `folder` and return its path."""
    text = yaml.safe_dump(
        manifest.model_dump(mode="json"),
        sort_keys=False,
        allow_unicode=True,
        width=110,
        default_flow_style=None,
    )
    contained.write_text(folder, MANIFEST_NAME, text, error=EngineError)
    return folder / MANIFEST_NAME


def sha256_of(path: Path) -> str:
    """Hash a file piece by piece."""
    with contained.open_to_read(path.parent, path.name, error=EngineError) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder_of(engine: str | os.PathLike[str]) -> Path:
    path = Path(engine)
    if path.name == MANIFEST_NAME and path.is_file():
        return path.resolve().parent
    if (path / MANIFEST_NAME).is_file():
        return path.resolve()
    name, known = str(engine), engine_folders()
    if name in known:
        return known[name].resolve()
    if path.is_dir():
        raise EngineError(
            f"Folder {path} holds no {MANIFEST_NAME}, so it is no engine. `livesr export` writes"
            " one."
        )
    raise EngineError(
        f"No engine {name!r}: neither a folder nor a known name.{suggestion(name, list(known))}"
    )


def _weights_inside(folder: Path, weights: OnnxWeights) -> Path:
    """Path of a network, which must be a file of this folder, a link to elsewhere is refused, and
    the one that is named.
    """
    path = contained.beneath(folder, weights.source, error=EngineError)
    if not path.is_file():
        raise EngineError(
            f"{folder / MANIFEST_NAME} names {weights.source!r}, which is not beside it."
        )
    _compare_hashes(path, sha256_of(path), weights.sha256)
    return path


def _verified(path: Path, sha256: str) -> bytes:
    data = contained.read_bytes(path.parent, path.name, error=EngineError)
    _compare_hashes(path, hashlib.sha256(data).hexdigest(), sha256)
    check_network(data, str(path))
    return data


def check_network(data: bytes, name: str) -> None:
    """Refuse a network that no runtime shall parse.

    Raises
    ------
    EngineError
        If it is no ONNX file, names other files, or uses operators that livesr does not run.
    """
    try:
        reason = why_refused(data)
    except ValueError as e:
        raise EngineError(f"{name} is no ONNX file: {e}. Export the engine anew.") from e
    if reason:
        raise EngineError(f"{name} is not run. {reason}")


def _compare_hashes(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise EngineError(
            f"{path} has SHA-256 {found[:12]}..., and its manifest names {expected[:12]}...: the"
            " weights are damaged or of another version, and were not loaded. Fetch the engine"
            " folder again, or export it anew."
        )
