"""A model of bioimage.io as an engine.

What a description must say so that livesr can run the network live, and the adapting.

Owns the rules and the sentence with which a model is refused. Fetches nothing: the package lies on
the disk.

Rules: format 0.5, ONNX weights in one file, one image in, one image out, both with the axes batch,
channel, y, x; one channel in; sides that are free, in steps; an output of the same size or a whole
number of times larger. The model must normalise what it gets by the image itself (percentiles, or
mean and variance): livesr's x = (X - b) / s then serves as well as camera counts, and the inverse
of the same normalisation takes the answer back to units of x. Both become part of the graph. A
model that livesr has exported itself comes back as the engine that it was.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from livesr.base import contained
from livesr.base.archives import unpack
from livesr.base.compute import ComputeConfig
from livesr.base.config import load_yaml, parse
from livesr.base.documents import read_text
from livesr.base.errors import BackendError, ConfigError, DocumentError, EngineError
from livesr.base.npy import open_npy
from livesr.export.colors import COLORS
from livesr.export.rdf import CONFIG_KEY
from livesr.live.inference.engine import (
    MANIFEST_NAME,
    MODEL_NAME,
    Citation,
    Engine,
    Manifest,
    OnnxWeights,
    Range,
    Weights,
    check_network,
    load_engine,
    sha256_of,
    write_manifest,
)
from livesr.live.inference.padding import MEAN_DEVIATION
from livesr.live.inference.runner import open_session
from livesr.live.inference.trial import try_out
from livesr.live.normalise import background_and_scale
from livesr.optics.similarity import pcc

_DESCRIPTIONS = ("rdf.yaml", "bioimageio.yaml", "model.yaml")
_AXES = ["batch", "channel", "y", "x"]
_BY_THE_IMAGE = {"scale_range", "zero_mean_unit_variance"}
_BEFORE, _AFTER = _BY_THE_IMAGE | {"scale_linear", "clip"}, {"clip"}
_NM = {"nanometer": 1.0, "micrometer": 1000.0}
_SAMPLING = (0.8, 1.25)  # how far a rig's pixels may be from the model's before that is said
_MIN_PCC = 0.9
_TRIED_PX = 32  # half a side of what a model without a test image is tried with
_LARGEST_TEST = 4096


_Pixels = Annotated[int, Field(ge=1, le=1 << 16)]


class _Sides(BaseModel):
    """Sides that are free in steps."""

    model_config = ConfigDict(extra="forbid")

    min: _Pixels
    step: _Pixels


class _SidesOf(BaseModel):
    """Sides that follow from those of another tensor."""

    model_config = ConfigDict(extra="forbid")

    tensor_id: str
    axis_id: str
    offset: Annotated[float, Field(ge=-(1 << 16), le=1 << 16, allow_inf_nan=False)] = 0


class _Axis(BaseModel):
    type: str
    id: str = ""
    size: _Pixels | _Sides | _SidesOf | dict[str, Any] | None = Field(
        None, union_mode="left_to_right"
    )
    scale: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)] = 1.0
    unit: str | None = None
    halo: Annotated[int, Field(ge=0, le=1 << 16)] = 0
    channel_names: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.id if self.type == "space" else self.type


class _Operation(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str
    numbers: dict[str, Any] = Field(default_factory=dict, validation_alias="kwargs")


class _File(BaseModel):
    source: str
    sha256: str | None = None


class _Tensor(BaseModel):
    id: str
    axes: tuple[_Axis, ...]
    preprocessing: tuple[_Operation, ...] = ()
    postprocessing: tuple[_Operation, ...] = ()
    test_tensor: _File | None = None


class _Onnx(_File):
    opset_version: Annotated[int, Field(ge=1, le=1000)]


class _Weights(BaseModel):
    onnx: _Onnx | None = None


class _Author(BaseModel):
    name: str


class _Description(BaseModel):
    """What livesr reads of rdf.yaml; the rest is not its business."""

    format_version: str
    type: Literal["model"]
    name: str
    description: str = ""
    id: str = ""
    version: str | Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None = None
    license: str = "unknown"
    authors: tuple[_Author, ...] = ()
    cite: tuple[Citation, ...] = ()
    documentation: str | None = None
    inputs: tuple[_Tensor, ...]
    outputs: tuple[_Tensor, ...]
    weights: _Weights
    config: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Imported:
    """An engine made of a model.

    `pcc` is how near it comes to the answer that came with the model, None if none came.
    """

    engine: Engine
    pcc: float | None


def import_model(source: Path, out: Path) -> Imported:
    """Make an engine in `out` from a description, the folder that holds one, or a package (.zip).

    Raises
    ------
    EngineError
        If it is no such model, livesr cannot run it live, or the engine misses the answer that came
        with it; `out` is then as it was.
    BackendError
        If `onnx` is missing, or no runtime takes the network.
    """
    if (out / MANIFEST_NAME).exists():
        raise EngineError(f"{out} holds an engine already. Give another folder with --out.")
    with _unpacked(source) as place, tempfile.TemporaryDirectory() as made:
        path = _description_in(place)
        try:
            model = parse(_Description, load_yaml(path), path.name)
        except ConfigError as e:
            raise EngineError(str(e)) from e
        folder = Path(made)
        if own := model.config.get(CONFIG_KEY):
            manifest = _own(own, _network(path.parent, model), folder)
        else:
            manifest = _foreign(model, _network(path.parent, model), folder)
        contained.write_text(
            folder, manifest.documentation, _card(path.parent, model), error=EngineError
        )
        write_manifest(folder, manifest)
        proven = _proven(load_engine(folder), path.parent, model)
        out.mkdir(parents=True, exist_ok=True)
        names = sorted(file.name for file in folder.iterdir())
        for name in names:
            contained.beneath_to_write(out, name, error=EngineError)  # all or none
        for name in names:
            contained.copy_out(folder, name, out, name, error=EngineError)
    return Imported(load_engine(out), proven)


# -- the package -----------------------------------------------------------------------------------


@contextmanager
def _unpacked(source: Path) -> Iterator[Path]:
    if source.suffix != ".zip":
        yield source
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            unpack(source, Path(folder))
        except DocumentError as e:
            raise EngineError(f"It is no package of bioimage.io that livesr takes: {e}") from e
        yield Path(folder)


def _description_in(place: Path) -> Path:
    if place.is_file():
        return place
    for name in _DESCRIPTIONS:
        if contained.is_file(place, name, error=EngineError):
            return place / name
    raise EngineError(
        f"{place} holds no {' or '.join(_DESCRIPTIONS)}, so it is no model of bioimage.io."
    )


def _card(folder: Path, model: _Description) -> str:
    """Return the card that came with a model, one of our own if none came or it is on the web."""
    name = model.documentation or "README.md"
    if "://" in name or not contained.is_file(folder, name, error=EngineError):
        return f"# {model.name}\n\n{model.description}\n"
    try:
        return read_text(contained.beneath(folder, name, error=EngineError))
    except DocumentError as e:
        raise EngineError(str(e)) from e


def _network(folder: Path, model: _Description) -> bytes:
    if not model.format_version.startswith("0.5."):
        raise EngineError(
            f"{model.name!r} is described in format {model.format_version}; livesr reads 0.5."
            " bioimageio.spec converts it: 'bioimageio update-format'."
        )
    weights = model.weights.onnx
    if weights is None:
        raise EngineError(
            f"{model.name!r} has no ONNX weights. 'bioimageio add-weights' may convert those it"
            " has."
        )
    path = contained.beneath(folder, weights.source, error=EngineError)
    if path.parent != folder or not path.is_file():
        raise EngineError(
            f"{model.name!r} names weights {weights.source!r}, which are not beside its"
            " description."
        )
    if weights.sha256 and sha256_of(path) != weights.sha256:
        raise EngineError(
            f"{path} is not what {model.name!r} describes: its SHA-256 differs. Fetch the package"
            " again."
        )
    data = contained.read_bytes(folder, weights.source, error=EngineError)
    check_network(data, str(path))
    return data


# -- a model of livesr's own -----------------------------------------------------------------------


def _own(config: dict[str, Any], network: bytes, folder: Path) -> Manifest:
    try:
        manifest = parse(Manifest, config, f"config.{CONFIG_KEY}")
    except ConfigError as e:
        raise EngineError(str(e)) from e
    contained.write_bytes(folder, manifest.weights.onnx.source, network, error=EngineError)
    return manifest


# -- a model of somebody else's --------------------------------------------------------------------


def _foreign(model: _Description, network: bytes, folder: Path) -> Manifest:
    given, answer = _one_of_each(model)
    multiple_of = _steps_of_sides(model, given)
    scale = _scale(model, given, answer)
    steps = (
        _steps(model, given.preprocessing, _BEFORE),
        _steps(model, answer.postprocessing, _AFTER),
    )
    if not _BY_THE_IMAGE & {step.id for step in steps[0]}:
        raise EngineError(
            f"{model.name!r} expects the counts of its own camera: it does not normalise by the"
            " image (scale_range with percentiles, or zero_mean_unit_variance), so that livesr"
            " cannot know what to give it."
        )
    names = answer.axes[1].channel_names or ("Prediction",)
    if scale > 1 and len(names) > 1:
        raise EngineError(
            f"{model.name!r} enlarges and separates at once; livesr does one after the other."
        )
    alone = _standardised_alone(steps)
    _write_adapted(network, ([], steps[1]) if alone else steps, folder, len(names))
    halo = max(axis.halo for axis in answer.axes[2:])
    about = dict(
        id=_identifier(model),
        version=str(model.version or "0"),
        description=model.description or model.name,
        task="upscale" if scale > 1 else "separate",
        trained=True,
        window=1,
        scale=scale,
        channels=[{"name": n, "color": COLORS[i % len(COLORS)]} for i, n in enumerate(names)],
        pixel_size_nm=_sampling(given.axes[-1]),
        multiple_of=multiple_of,
        halo=-(-halo // scale),
        normalisation=MEAN_DEVIATION if alone else "background-scale",
        architecture="bioimage.io",
        training={
            "imported_from": {
                "name": model.name,
                "id": model.id,
                "weights_sha256": _sha256_named(model),
            }
        },
        weights=Weights(
            onnx=OnnxWeights(
                sha256=sha256_of(folder / MODEL_NAME), opset_version=_onnx(model).opset_version
            )
        ),
        license=model.license,
        authors=tuple(author.name for author in model.authors),
        cite=model.cite,
    )
    try:
        return parse(Manifest, about, model.name)
    except ConfigError as e:
        raise EngineError(f"{e} Such a model cannot be an engine.") from e


def _standardised_alone(steps: tuple[list[_Operation], list[_Operation]]) -> bool:
    """Whether a model's only step is to give the image mean 0 and deviation 1.

    That is then done to whole frames, also where the network sees them in tiles.
    """
    (before, after) = steps
    return [step.id for step in before] == ["zero_mean_unit_variance"] and not after


def _one_of_each(model: _Description) -> tuple[_Tensor, _Tensor]:
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise EngineError(
            f"{model.name!r} takes {len(model.inputs)} images and gives {len(model.outputs)};"
            " livesr takes one of each."
        )
    for tensor in (model.inputs[0], model.outputs[0]):
        found = [axis.name for axis in tensor.axes]
        if found != _AXES:
            raise EngineError(
                f"{model.name!r} has {tensor.id!r} with the axes {', '.join(found)}; livesr shows"
                f" planes: {', '.join(_AXES)}."
            )
    channels = len(model.inputs[0].axes[1].channel_names)
    if channels > 1:
        raise EngineError(
            f"{model.name!r} takes {channels} channels; livesr gives one fluorophore's image."
        )
    return model.inputs[0], model.outputs[0]


def _steps_of_sides(model: _Description, given: _Tensor) -> int:
    """Return what the sides must be multiples of."""
    steps = set()
    for axis in given.axes[2:]:
        if not isinstance(axis.size, _Sides) or axis.size.min % axis.size.step:
            raise EngineError(
                f"{model.name!r} takes sides of {axis.size}; livesr needs sides that are free in"
                " steps, {min, step} with min a multiple of step."
            )
        steps.add(axis.size.step)
    if len(steps) > 1:
        raise EngineError(
            f"{model.name!r} has other steps along y than along x, which livesr cannot pad to."
        )
    return steps.pop()


def _scale(model: _Description, given: _Tensor, answer: _Tensor) -> int:
    """Output pixels per input pixel."""
    scales = set()
    for before, after in zip(given.axes[2:], answer.axes[2:], strict=True):
        size = after.size if isinstance(after.size, _SidesOf) else None
        if size is None or (size.axis_id, size.tensor_id, size.offset) != (before.id, given.id, 0):
            raise EngineError(
                f"{model.name!r} gives an image of size {after.size} along {after.id}; livesr takes"
                " one that covers its input."
            )
        scales.add(round(before.scale / after.scale, 6))
    scale, *others = scales
    if others or scale not in {1, 2, 3, 4, 5, 6, 7, 8}:
        raise EngineError(
            f"{model.name!r} scales by {sorted(scales)}; livesr takes a whole number from 1 to 8."
        )
    return int(scale)


def _steps(model: _Description, steps: tuple[_Operation, ...], known: set[str]) -> list[_Operation]:
    """Return the steps that do something, if livesr can do all of them."""
    wanted = [step for step in steps if step.id != "ensure_dtype"]
    for step in wanted:
        axes = step.numbers.get("axes")
        vectors = any(isinstance(v, list | tuple) for k, v in step.numbers.items() if k != "axes")
        if (
            step.id not in known
            or vectors
            or (step.id in _BY_THE_IMAGE and axes is not None and not {"y", "x"} <= set(axes))
        ):
            raise EngineError(
                f"{model.name!r} has the step {step.id!r} with {step.numbers}, which livesr cannot"
                f" put into the network. It knows {', '.join(sorted(known))} over whole images."
            )
    return wanted


def _write_adapted(
    network: bytes, steps: tuple[list[_Operation], list[_Operation]], folder: Path, channels: int
) -> None:
    if find_spec("onnx") is None:
        raise BackendError("Importing a model needs onnx: pip install onnx.")
    from livesr.export.adapted_graph import Step, adapted

    before, after = ([Step(s.id, s.numbers) for s in part] for part in steps)
    try:
        network = adapted(network, before, after, channels)
    except EngineError:
        raise
    except Exception as e:  # numbers that are none, a graph that onnx does not take
        raise EngineError(f"The network cannot be given the steps of its description: {e}.") from e
    contained.write_bytes(folder, MODEL_NAME, network, error=EngineError)


def _sampling(axis: _Axis) -> Range | None:
    if axis.unit not in _NM:
        return None
    size_nm = axis.scale * _NM[axis.unit]
    return Range(min=size_nm * _SAMPLING[0], max=size_nm * _SAMPLING[1])


def _identifier(model: _Description) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", (model.id or model.name).lower()).strip("-")
    return slug[:100].strip("-") or "imported"


def _onnx(model: _Description) -> _Onnx:
    assert model.weights.onnx is not None  # _network has refused it
    return model.weights.onnx


def _sha256_named(model: _Description) -> str | None:
    return _onnx(model).sha256


# -- the proof -------------------------------------------------------------------------------------


def _proven(engine: Engine, folder: Path, model: _Description) -> float | None:
    """Give the engine the model's own test image, as livesr gives images.

    The answer may differ by a shift and a factor.

    A model without one must take an image all the same; each is tried out in a process of its own
    first.
    """
    pair = _test_pair(folder, model, engine.manifest)
    side = -(-_TRIED_PX // engine.manifest.multiple_of) * engine.manifest.multiple_of
    given, expected = pair or (
        np.zeros((1, engine.manifest.inputs, 2 * side, 2 * side), np.float32),
        None,
    )
    shape, compute = (
        (int(given.shape[2]), int(given.shape[3])),
        ComputeConfig(precision="f32", tile="off"),
    )
    try_out(engine, shape, compute)
    background, scale = (
        background_and_scale(given[0, engine.manifest.inputs // 2]) if pair else (0.0, 1.0)
    )
    with open_session(engine, shape, compute) as session:
        session.input[:] = (given[0] - background) / scale
        answer = session.infer()
        if expected is None:
            return None
        if answer.shape != expected.shape[1:]:
            raise EngineError(
                f"{model.name!r} came with an answer of {expected.shape[1:]}; livesr's is"
                f" {answer.shape}."
            )
        found = pcc(answer, expected[0])
    if not found >= _MIN_PCC:
        raise EngineError(
            f"{model.name!r} came with a test image and its answer; livesr's correlates with it by"
            f" {found:.3f} only, and {_MIN_PCC} are expected. It was not imported."
        )
    return found


def _test_pair(
    folder: Path, model: _Description, manifest: Manifest
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Return the image and the answer that came with a model, (1, c, y, x) each.

    None if they did not come.
    """
    files = [tensor.test_tensor for tensor in (*model.inputs[:1], *model.outputs[:1])]
    names = [file.source for file in files if file]
    local = [name for name in names if name.endswith(".npy") and "://" not in name]
    if len(local) < 2 or not all(
        contained.is_file(folder, name, error=EngineError) for name in local
    ):
        return None
    given, expected = (_test_tensor(folder, name) for name in local)
    if given.ndim != 4 or expected.ndim != 4 or len(given) != 1 or len(expected) != 1:
        raise EngineError(
            f"{model.name!r} came with test images of {given.shape} and {expected.shape}; expected"
            " (1, c, y, x)."
        )
    if given.shape[1] != manifest.inputs or min(given.shape[2:]) < 2 * manifest.multiple_of:
        raise EngineError(
            f"{model.name!r} came with a test image of {given.shape}, which it does not take"
            " itself."
        )
    return given, expected


def _test_tensor(folder: Path, name: str) -> NDArray[np.float32]:
    """Return a test image (1, c, y, x)."""
    try:
        image = open_npy(contained.beneath(folder, name, error=EngineError))
    except DocumentError as e:
        raise EngineError(f"{folder / name} is no test image: {e}") from e
    if (
        image.ndim != 4
        or image.shape[0] != 1
        or image.dtype.kind not in "biuf"
        or not 0 < max(image.shape) <= _LARGEST_TEST
    ):
        raise EngineError(
            f"{folder / name} is no test image: it holds {image.dtype} {image.shape}; expected"
            f" numbers (1, channel, y, x), at most {_LARGEST_TEST} a side."
        )
    return image.astype(np.float32)
