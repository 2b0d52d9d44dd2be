"""A network without a description as an engine: what its file says, and what its user says.

Owns the probing of shapes and the sentence with which a network is refused. Fetches nothing.

How many planes a network takes and gives stands in its file, or follows from it: the shapes of what
it makes of a frame are inferred for sides of several lengths, without running it. What the user
says of it is compared with that. The engine is tried out before it is written.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from livesr.base import contained
from livesr.base.compute import ComputeConfig
from livesr.base.config import parse
from livesr.base.errors import BackendError, ConfigError, EngineError
from livesr.export.colors import COLORS
from livesr.live.inference.engine import (
    MANIFEST_NAME,
    MODEL_NAME,
    Engine,
    Manifest,
    Normalised,
    OnnxWeights,
    Task,
    Weights,
    check_network,
    load_engine,
    sha256_of,
    write_manifest,
)
from livesr.live.inference.runner import open_session
from livesr.live.inference.trial import try_out

if TYPE_CHECKING:
    from onnx import ModelProto

_PLAIN = ComputeConfig(precision="f32", tile="off")
_FELT = 1e-3
_SIDE = 128  # of the frames that shapes are probed with; a multiple of every step
_STEPS = (1, 2, 4, 8, 16, 32, 64)
_DEFAULT_NAMES: dict[str, str] = {"upscale": "Upscaled", "reconstruct": "Reconstructed"}


@dataclass(frozen=True, slots=True)
class Said:
    """What its user says of a network; None is found in its file.

    Attributes
    ----------
    task : what it does
    scale : output pixels per input pixel
    channels : names of what it gives, in its order
    raw_frames : of one that sees raw frames: what each of its planes is; () numbers them
    normalisation : what it expects, as in a manifest
    pixel_size_nm : (smallest, largest) sampling that it is for
    modality : reconstructions, or raw frames, that it is for
    licence : of its weights
    """

    task: Task
    scale: int | None = None
    channels: tuple[str, ...] = ()
    raw_frames: tuple[str, ...] = ()
    normalisation: Normalised = "background-scale"
    pixel_size_nm: tuple[float, float] | None = None
    modality: tuple[str, ...] = ()
    licence: str = "unknown"


@dataclass(frozen=True, slots=True)
class Shapes:
    """What a network takes and gives.

    Attributes
    ----------
    planes, channels : of a frame, and of what is made of it
    scale : output pixels per input pixel
    multiple_of : sides that it takes, as far as its shapes say
    """

    planes: int
    channels: int
    scale: int
    multiple_of: int


def import_network(source: Path, out: Path, said: Said) -> Engine:
    """Make an engine in `out` of a network's file (.onnx).

    Raises
    ------
    EngineError
        If it is no such network, is not what is said of it, or no runtime takes it; `out` is then
        as it was.
    BackendError
        If `onnx` is missing.
    """
    if (out / MANIFEST_NAME).exists():
        raise EngineError(f"{out} holds an engine already. Give another folder with --out.")
    network = contained.read_bytes(source.parent, source.name, error=EngineError)
    check_network(network, str(source))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        manifest = _written(network, source.stem, said, folder)
        side = -(-_SIDE // manifest.multiple_of) * manifest.multiple_of
        try_out(load_engine(folder), (side, side), _PLAIN)
        try:
            halo = _halo(load_engine(folder), 2 * side)
        except BackendError as e:
            raise EngineError(f"{source.name} cannot be run as it is said to be: {e}") from e
        write_manifest(folder, manifest.model_copy(update={"halo": halo}))
        out.mkdir(parents=True, exist_ok=True)
        for name in sorted(file.name for file in folder.iterdir()):
            contained.copy_out(folder, name, out, name, error=EngineError)
    return load_engine(out)


def shapes_of(network: bytes, planes: int | None = None) -> Shapes:
    """Return what a network takes and gives, as its file says or as follows from it.

    `planes` is what the user says of its input.

    Raises
    ------
    EngineError
        If it takes or gives more than one image, no planes, sides that are fixed, or its shapes do
        not follow from its file.
    """
    import onnx

    from livesr.export.adapted_graph import check_ports, ports

    model = onnx.load_model_from_string(network)
    check_ports(model)
    given, _ = ports(model)
    seen = given.type.tensor_type.shape.dim[1].dim_value or planes
    if not seen:
        raise EngineError(
            "The network does not say how many planes it takes: say what they are with"
            " --raw-frames, or export it with that axis fixed."
        )
    if planes and seen != planes:
        raise EngineError(f"The network takes {seen} planes, and {planes} were named.")
    whole = _answer(model, seen, _SIDE)
    if whole is None:
        raise EngineError(
            f"The shapes of the network do not follow from its file for {seen} planes of {_SIDE} x"
            f" {_SIDE}. Run onnxsim over it, or export it anew."
        )
    channels, height, width = whole
    if height != width or height % _SIDE:
        raise EngineError(
            f"The network makes {height} x {width} of {_SIDE} x {_SIDE}; livesr takes what covers"
            " its frame, a whole number of times larger: pad within the network."
        )
    scale = height // _SIDE
    step = next(s for s in _STEPS if _takes(model, seen, s, (channels, scale)))
    return Shapes(seen, channels, scale, step)


def _takes(model: ModelProto, planes: int, step: int, expected: tuple[int, int]) -> bool:
    """Whether the shapes of a network fit for sides that are an odd multiple of `step`."""
    side = _SIDE + step
    channels, scale = expected
    return step == _STEPS[-1] or _answer(model, planes, side) == (
        channels,
        side * scale,
        side * scale,
    )


def _halo(engine: Engine, side: int) -> int:
    """Return how far a pixel of the input is felt: beyond it, less than a thousandth as much."""
    scale, middle = engine.manifest.scale, side // 2
    noise = np.random.default_rng(0).normal(0.2, 0.05, (engine.manifest.inputs, side, side))
    with open_session(engine, (side, side), _PLAIN) as session:
        session.input[...] = noise
        before = session.infer().copy()
        session.input[:, middle, middle] += 1
        felt = np.abs(session.infer() - before).max(0)
    rows, columns = np.nonzero(felt > _FELT * max(float(felt.max()), 1e-12))
    if not rows.size:
        return 0
    reach = max(np.abs(along - scale * middle).max() for along in (rows, columns))
    return min(int(reach) // scale + 1, middle)


def _answer(model: ModelProto, planes: int, side: int) -> tuple[int, int, int] | None:
    """Return (c, y, x) of what a network makes of frames of `side`; None if that is not known."""
    import onnx

    tried = onnx.ModelProto()
    tried.CopyFrom(model)
    from livesr.export.adapted_graph import ports

    given, answer = ports(tried)
    for dim, value in zip(given.type.tensor_type.shape.dim, (1, planes, side, side), strict=True):
        dim.dim_value = value
    name = answer.name
    del answer.type.tensor_type.shape.dim[:]
    answer.type.tensor_type.ClearField("shape")
    del tried.graph.value_info[:]
    try:
        inferred = onnx.shape_inference.infer_shapes(tried, data_prop=True)
    except Exception:  # onnx raises errors of several kinds where shapes do not fit
        return None
    found = next(port for port in inferred.graph.output if port.name == name)
    sides = [dim.dim_value for dim in found.type.tensor_type.shape.dim]
    if len(sides) != 4 or not all(sides[1:]):
        return None
    return sides[1], sides[2], sides[3]


def _written(network: bytes, stem: str, said: Said, folder: Path) -> Manifest:
    if find_spec("onnx") is None:
        raise BackendError("Importing a network needs onnx: pip install onnx.")
    from livesr.export.adapted_graph import renamed

    found = shapes_of(network, len(said.raw_frames) or None)
    names = _names(said, found)
    window = _window(said, found)
    contained.write_bytes(
        folder, MODEL_NAME, renamed(network, found.planes, found.channels), error=EngineError
    )
    title = stem.replace("_", " ")
    about = dict(
        id=re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:100] or "imported",
        version="0",
        description=f"{title}, imported without a description.",
        task=said.task,
        trained=True,
        window=window,
        raw_frames=_raw_frames(said, found),
        scale=found.scale,
        channels=[{"name": n, "color": COLORS[i % len(COLORS)]} for i, n in enumerate(names)],
        normalisation=said.normalisation,
        pixel_size_nm=said.pixel_size_nm
        and dict(zip(("min", "max"), said.pixel_size_nm, strict=True)),
        modality=said.modality,
        multiple_of=found.multiple_of,
        halo=0,
        architecture="onnx",
        weights=Weights(onnx=OnnxWeights(sha256=sha256_of(folder / MODEL_NAME))),
        license=said.licence,
    )
    try:
        manifest = parse(Manifest, about, stem)
    except ConfigError as e:
        raise EngineError(f"{e} Such a network cannot be an engine.") from e
    card = f"# {title}\n\nImported without a description: nothing is known of its training.\n"
    contained.write_text(folder, manifest.documentation, card, error=EngineError)
    write_manifest(folder, manifest)
    return manifest


def _names(said: Said, found: Shapes) -> Sequence[str]:
    """Return what each output channel is called; refuse what is said otherwise than it is."""
    if said.scale is not None and said.scale != found.scale:
        raise EngineError(
            f"The network enlarges {found.scale} times, and --scale {said.scale} says {said.scale}."
        )
    if said.channels and len(said.channels) != found.channels:
        raise EngineError(
            f"The network gives {found.channels} channels, and {len(said.channels)} were named:"
            f" {', '.join(said.channels)}. Name each with --channels A,B,..."
        )
    if said.channels:
        return said.channels
    if found.channels > 1 and said.task == "separate":
        raise EngineError(
            f"The network gives {found.channels} channels: name the structures, in its order, with"
            " --channels A,B,..."
        )
    one = _DEFAULT_NAMES.get(said.task, "Prediction")
    return [one] if found.channels == 1 else [f"frame {i}" for i in range(found.channels)]


def _raw_frames(said: Said, found: Shapes) -> tuple[str, ...]:
    alone = said.task == "restore" and found.planes == 1
    if said.task not in ("restore", "reconstruct") or alone:
        return ()
    return said.raw_frames or tuple(f"raw {i}" for i in range(found.planes))


def _window(said: Said, found: Shapes) -> Literal[1, 3]:
    """Return how many consecutive frames it sees.

    Raises
    ------
    EngineError
        If its planes are no such frames.
    """
    if said.task in ("restore", "reconstruct"):
        return 1
    if said.task == "upscale" and found.planes == 1:
        return 1
    if said.task == "separate" and found.planes in (1, 3):
        return 3 if found.planes == 3 else 1
    wanted = "one frame" if said.task == "upscale" else "one frame, or three consecutive ones"
    raise EngineError(
        f"The network takes {found.planes} planes, and an engine that does {said.task!r} sees"
        f" {wanted}. One that sees raw frames of one time point is imported with --task reconstruct"
        " or restore."
    )


def described(engine: Engine) -> dict[str, Any]:
    """Return what was found, for ``--json``."""
    manifest = engine.manifest
    return {
        "engine": str(engine.folder),
        "id": manifest.id,
        "task": manifest.task,
        "planes": manifest.inputs,
        "channels": list(manifest.channel_names),
        "scale": manifest.scale,
        "multiple_of": manifest.multiple_of,
    }
