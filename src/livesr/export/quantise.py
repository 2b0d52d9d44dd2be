"""An engine's network with convolutions in eight bits, beside the one that it was made of.

Owns the choice of what is quantised, the calibration and the proof. NNCF does the arithmetic.
Trains nothing.

Only the inputs and kernels of 3x3 and larger convolutions become integers: they are nearly all of
the work. The last one stays in floating point, as everywhere. The first stays in floating point
too, because frames have a wider range than 255 steps: in integers it cost most of what was lost. So
do attention's two small convolutions, activations and skips, which runtimes fuse into the
convolutions before them: with integers inside the GELU OpenVINO took 41 ms of one core instead of
36.

Scales are symmetric and signed, one for a frame and one per output channel for a kernel: OpenVINO
and TensorRT take both.

References
----------
Nagel et al. 2021, "A white paper on neural network quantization". ONNX opset 17, QuantizeLinear and
DequantizeLinear.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
from numpy.typing import NDArray
from onnx import ModelProto

from livesr.base.compute import ComputeConfig
from livesr.base.errors import EngineError
from livesr.base.files import replace_file
from livesr.evaluation.limits import domain_of
from livesr.export.onnx import with_plain_weights
from livesr.live.inference.engine import (
    INT8_NAME,
    Engine,
    Int8Weights,
    Manifest,
    load_engine,
    sha256_of,
    write_manifest,
)
from livesr.live.inference.fixed_size import drawing_convolutions
from livesr.live.inference.runner import open_session
from livesr.optics.similarity import pcc
from livesr.simulation.sequence import default_modality
from livesr.simulation.specimens import STRUCTURES
from livesr.training.data import DataConfig

Image = NDArray[np.float32]
Pairs = tuple[Image, Image]

MAX_LOSS = 0.005
"""Mean PCC that quantising may cost."""

_IN_FIELD = 1e-6  # contrast of a truth below which it shows nothing


@dataclass(frozen=True, slots=True)
class Quantised:
    """What came of it.

    Attributes
    ----------
    pcc, pcc_int8 : mean over frames and channels against the truth, in f32 and in int8, on OpenVINO
    convolutions : how many compute in integers
    in_float : names of those that had to stay in floating point so that no more than the allowed
        PCC is lost
    """

    manifest: Manifest
    pcc: float
    pcc_int8: float
    convolutions: int
    in_float: tuple[str, ...]


def quantise_engine(
    folder: Path,
    calibration: Image,
    validation: Pairs,
    data: str,
    *,
    max_loss: float = MAX_LOSS,
    threads: int = 0,
) -> Quantised:
    """Write model-int8.onnx into an engine's folder and name it in the manifest.

    Parameters
    ----------
    folder : of the engine
    calibration : (n, window, y, x) float32, normalised as live frames are: the ranges of all
        activations are taken from them
    validation : other frames, and their truths (n, c, sy, sx)
    data : what they are, in words
    max_loss : convolutions are put back into floating point, those that harm most first, until no
        more mean PCC is lost than this
    threads : of the runtime that validates; 0 leaves it the choice

    Raises
    ------
    EngineError
        If more is lost all the same; nothing is written then.
    """
    engine = load_engine(folder)
    shown = validation[1].std((2, 3)).max(1) > _IN_FIELD
    validation = validation[0][shown], validation[1][shown]
    model = with_plain_weights(onnx.load_model_from_string(engine.read()))
    candidates = _candidates(model)
    quantised = _quantise(model, candidates, calibration, validation, max_loss, threads)
    left = {
        node.name
        for node in quantised.graph.node
        if node.op_type == "Conv" and _in_integers(quantised, node)
    }
    partial = folder / f"{INT8_NAME}.part"
    partial.write_bytes(quantised.SerializeToString())
    try:
        before, int8 = (
            engine.manifest,
            {"sha256": sha256_of(partial), "made_of": engine.manifest.sha256, "calibration": data},
        )
        trial = replace(
            engine, manifest=_with_int8(before, **int8, pcc_loss=0.0), int8_path=partial
        )
        exact, found = (
            _mean_pcc(trial, precision, validation, threads) for precision in ("f32", "int8")
        )
        if not exact - found <= max_loss:
            raise EngineError(
                f"In int8 engine {before.id!r} loses {exact - found:.4f} of its mean PCC of"
                f" {exact:.3f}, and at most {max_loss:g} may be lost. Give more frames to calibrate"
                " on, or allow more."
            )
        replace_file(partial, folder / INT8_NAME)
    finally:
        partial.unlink(missing_ok=True)
    manifest = _with_int8(before, **int8, pcc_loss=round(exact - found, 5))
    write_manifest(folder, manifest)
    return Quantised(manifest, exact, found, len(left), tuple(sorted(candidates - left)))


def simulated_pairs(
    engine: Engine,
    n: int,
    seed: int,
    size: int = 256,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[Pairs, str]:
    """Simulate what the engine is for.

    Return `n` pairs as `quantise_engine` takes them, and what they are in words.

    Raises
    ------
    EngineError
        If it separates what cannot be simulated, or sees more than reconstructed frames.
    """
    manifest = engine.manifest
    if manifest.raw_frames or manifest.beside:
        raise EngineError(
            f"Engine {manifest.id!r} sees {', '.join(manifest.raw_frames or manifest.beside)}: give"
            " a folder of pairs, such as a training run's pairs-validation."
        )
    names = tuple(name.casefold() for name in manifest.channel_names)
    if manifest.task == "separate" and (
        unknown := [name for name in names if name not in STRUCTURES]
    ):
        raise EngineError(
            f"Engine {manifest.id!r} separates {', '.join(unknown)}, and what can be simulated is"
            f" {', '.join(STRUCTURES)}. Give a folder of pairs, such as a training run's"
            " pairs-validation."
        )
    config: dict[str, Any] = {
        "size": size - size % (2 * manifest.scale),
        "seed": seed,
        "validation_seed": seed + 1,
    }
    if manifest.task == "separate":
        config["domain"] = domain_of(manifest)
    else:
        config |= {
            "kind": "upscale",
            "scale": manifest.scale,
            "modality": (*manifest.modality, default_modality())[0],
        }
    data = DataConfig(train=n, validation=1, **config)
    maker, made = data.maker("train"), []
    for i in range(n):
        frames, truth = maker.make((seed, i))
        made.append((_window(frames, manifest.window), truth))
        progress(i + 1)
    return (np.stack([f for f, _ in made]), np.stack([t for _, t in made])), data.describe()


def _window(frames: Image, window: int) -> Image:
    """Return the middle `window` of the frames."""
    first = (len(frames) - window) // 2
    return frames[first : first + window]


def _candidates(model: ModelProto) -> set[str]:
    """Names of the convolutions that may compute in integers.

    Kernels of more than one pixel, but the first and the last that draw; what smooths each image
    for itself stays in floating point.
    """
    sizes = {t.name: tuple(t.dims) for t in model.graph.initializer}
    drawing = [model.graph.node[i] for i in drawing_convolutions(model.graph)]
    found = [node for node in drawing if max(sizes[node.input[1]][2:]) > 1]
    mixing = [node for node in found[1:] if sizes[node.input[1]][1] > 1]
    return {node.name for node in mixing[:-1]}


def _quantise(
    model: ModelProto,
    candidates: set[str],
    calibration: Image,
    validation: Pairs,
    max_loss: float,
    threads: int,
) -> ModelProto:
    # NNCF reports its use to its makers over the network, but not from what is marked so.
    os.environ.setdefault("NNCF_CI", "1")
    import nncf

    hints = {
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
        **({"INFERENCE_NUM_THREADS": threads} if threads else {}),
    }
    name = model.graph.input[0].name
    frames = nncf.Dataset([{name: block[None]} for block in calibration])
    pairs = list(zip(*validation, strict=True))
    scope = nncf.IgnoredScope(
        names=[
            n.name for n in model.graph.node if n.op_type == "Conv" and n.name not in candidates
        ],
        types=sorted({n.op_type for n in model.graph.node} - {"Conv"}),
        validate=False,
    )

    def mean_pcc(trial: ModelProto, blocks: Iterable[Pairs]) -> tuple[float, list[float]]:
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(trial.SerializeToString()), "CPU", hints)
        scores = [_score(compiled(block[None])[0][0], truth) for block, truth in blocks]
        return float(np.mean(scores)), scores

    logging.getLogger("nncf").setLevel(
        logging.ERROR
    )  # nncf.set_log_level would change the root's handlers too
    with redirect_stdout(sys.stderr):  # its progress bars: standard output is the command's
        quantised: ModelProto = nncf.quantize_with_accuracy_control(
            model,
            frames,
            nncf.Dataset(pairs),
            mean_pcc,
            max_drop=max_loss,
            subset_size=len(calibration),
            ignored_scope=scope,
            fast_bias_correction=True,
        )
    onnx.checker.check_model(quantised)
    return quantised


def _in_integers(model: ModelProto, node: Any) -> bool:
    kinds = {output: other.op_type for other in model.graph.node for output in other.output}
    return kinds.get(node.input[0]) == "DequantizeLinear"


def _mean_pcc(engine: Engine, precision: str, pairs: Pairs, threads: int) -> float:
    frames, truths = pairs
    compute = ComputeConfig(backend="openvino", precision=precision, threads=threads, tile="off")
    scores = []
    with open_session(engine, frames.shape[2:], compute) as session:
        for block, truth in zip(frames, truths, strict=True):
            session.input[...] = block
            scores.append(_score(session.infer(), truth))
    return float(np.mean(scores))


def _score(output: Image, truth: Image) -> float:
    """Mean PCC over the channels that show something.

    A pair whose truth is empty has been left out.
    """
    shown = [
        pcc(image, wanted)
        for image, wanted in zip(output, truth, strict=True)
        if np.std(wanted) > _IN_FIELD
    ]
    return float(np.mean(shown))


def _with_int8(manifest: Manifest, **fields: Any) -> Manifest:
    weights = manifest.weights.model_copy(update={"int8": Int8Weights(**fields)})
    return manifest.model_copy(update={"weights": weights})
