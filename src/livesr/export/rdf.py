"""An engine as a model of bioimage.io.

rdf.yaml of the model specification 0.5, network, card and two test images.

Owns what the description says. Normalisation is written in the specification's own terms, so that
other programs feed the network as livesr does: background from the 5th percentile, 0.55 at the
99.9th. livesr takes the background from means of 2 x 2 pixels and lets both follow slowly from
frame to frame.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from livesr.base import contained
from livesr.base.compute import ComputeConfig
from livesr.base.errors import EngineError
from livesr.live.inference.engine import FEATURES_OUTPUT, Engine, Manifest
from livesr.live.inference.padding import MEAN_DEVIATION
from livesr.live.inference.runner import open_session
from livesr.live.normalise import BACKGROUND_PERCENTILE, BRIGHT_LEVEL, BRIGHT_PERCENTILE

Image = NDArray[np.float32]

RDF_NAME = "rdf.yaml"
CONFIG_KEY = "livesr"
"""Under `config`: the manifest, from which `livesr engine import` makes the same engine again."""

_FORMAT_VERSION = "0.5.4"
_EPSILON = 1e-6
_NEVER_IN_A_NAME = re.compile(r"[^0-9A-Za-z_\-+() ]")
_TAGS = ("super-resolution", "fluorescence-microscopy", "livesr")


def export_rdf(engine: Engine, folder: Path) -> Path:
    """Write rdf.yaml, model.onnx, README.md and two test images into `folder`.

    Return the path of rdf.yaml.

    Raises
    ------
    EngineError
        If `folder` is the engine's own.
    BackendError
        If no runtime can make the test image.
    """
    if folder.resolve() == engine.folder:
        raise EngineError(f"{folder} is the engine itself. Give another folder with --out.")
    manifest = engine.manifest
    if manifest.normalisation == MEAN_DEVIATION:
        raise EngineError(
            f"Engine {manifest.id!r} was imported, and livesr cannot describe its network: pass on"
            " what it was imported from."
        )
    folder.mkdir(parents=True, exist_ok=True)
    contained.write_bytes(folder, manifest.weights.onnx.source, engine.read(), error=EngineError)
    if contained.is_file(engine.folder, manifest.documentation, error=EngineError):
        contained.copy_out(
            engine.folder, manifest.documentation, folder, "README.md", error=EngineError
        )
    else:
        card = f"# {manifest.id}\n\n{manifest.description}\n"
        contained.write_text(folder, "README.md", card, error=EngineError)
    given = _test_image(manifest)
    answer, features = _answer(engine, given)
    tests = {"test-input.npy": given, "test-output.npy": answer}
    if features is not None:
        tests["test-features.npy"] = features
    for name, image in tests.items():
        with contained.open_to_write(folder, name, "w", error=EngineError) as file:
            np.save(file, image)
    text = yaml.safe_dump(description(manifest), sort_keys=False, allow_unicode=True, width=110)
    contained.write_text(folder, RDF_NAME, text, error=EngineError)
    return folder / RDF_NAME


def description(manifest: Manifest) -> dict[str, Any]:
    """Return what rdf.yaml says of an engine."""
    weights = manifest.weights
    packed = manifest.model_copy(
        update={"weights": weights.model_copy(update={"int8": None})}
    )  # bioimage.io knows no network in int8
    name = _NEVER_IN_A_NAME.sub(" ", f"livesr {manifest.id} {manifest.version}")
    return {
        "format_version": _FORMAT_VERSION,
        "type": "model",
        "name": name,
        "description": manifest.description,
        "authors": [{"name": author} for author in manifest.authors] or [{"name": "unknown"}],
        "license": manifest.license,
        "documentation": "README.md",
        "cite": [c.model_dump(exclude_none=True) for c in manifest.cite if c.doi or c.url],
        "tags": [*_TAGS, manifest.task, *manifest.modality],
        "inputs": [_input(manifest)],
        "outputs": [_output(manifest), *_features(weights.features)],
        "weights": {
            "onnx": {
                "source": weights.onnx.source,
                "sha256": weights.onnx.sha256,
                "opset_version": weights.onnx.opset_version,
            }
        },
        "config": {CONFIG_KEY: packed.model_dump(mode="json"), **_tolerances(weights.features)},
    }


def _input(manifest: Manifest) -> dict[str, Any]:
    unit = _pixel(manifest)
    sides = [
        {
            "type": "space",
            "id": axis,
            "size": {"min": _smallest(manifest), "step": manifest.multiple_of},
            **unit,
        }
        for axis in ("y", "x")
    ]
    frames = ["frame"] if manifest.inputs == 1 else ["before", "frame", "after"]
    description = "Consecutive super-resolution frames; the middle one is predicted."
    normalised_over = ["channel", "y", "x"]
    if manifest.raw_frames:
        frames, description = list(manifest.raw_frames), "Raw frames of one time point."
    elif manifest.beside:
        frames, description = ["frame", *manifest.beside], "A picture, and another on its pixels."
        normalised_over = ["y", "x"]
    percentiles = {
        "min_percentile": BACKGROUND_PERCENTILE,
        "max_percentile": BRIGHT_PERCENTILE,
        "eps": _EPSILON,
    }
    return {
        "id": "frames",
        "description": description,
        "axes": [
            {"type": "batch", "size": 1},
            {"type": "channel", "id": "channel", "channel_names": frames},
            *sides,
        ],
        "data": {"type": "float32"},
        "test_tensor": {"source": "test-input.npy"},
        "preprocessing": [
            {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
            {"id": "scale_range", "kwargs": {"axes": normalised_over, **percentiles}},
            {"id": "scale_linear", "kwargs": {"gain": BRIGHT_LEVEL, "offset": 0.0}},
            {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
        ],
    }


def _output(manifest: Manifest) -> dict[str, Any]:
    pixel = _pixel(manifest, manifest.scale)
    # Where every pixel sees the whole image there is no border that could be cut off: a halo of 0
    # is then honest.
    halo = {"halo": manifest.halo * manifest.scale} if manifest.halo else {}
    sides = [
        {
            "type": "space",
            "id": axis,
            "size": {"tensor_id": "frames", "axis_id": axis},
            **halo,
            **pixel,
        }
        for axis in ("y", "x")
    ]
    names = [re.sub(r"\W+", "_", name) for name in manifest.channel_names]
    return {
        "id": "channels",
        "description": "Intensities in units of the normalised input.",
        "axes": [
            {"type": "batch", "size": 1},
            {"type": "channel", "id": "channel", "channel_names": names},
            *sides,
        ],
        "data": {"type": "float32"},
        "test_tensor": {"source": "test-output.npy"},
    }


_TOLD = {
    2: "Means over blocks of u^2 t and t^3; u is unknown light, t all light.",
    3: "Mean squares of details: of unknown light, of all light, and of what is left of the frame.",
    4: "Mean squares: of details of unknown light and of all light; of what is left, and of what is"
    " shown.",
}


def _features(n: int) -> list[dict[str, Any]]:
    """Describe the second output, of `n` numbers.

    bioimageio.core up to 0.9 at least refuses a network that gives more than is described.
    """
    if not n:
        return []
    names = [f"feature_{i}" for i in range(n)]
    return [
        {
            "id": FEATURES_OUTPUT,
            "description": _TOLD.get(n, ""),
            "axes": [
                {"type": "batch", "size": 1},
                {"type": "channel", "id": "channel", "channel_names": names},
                *({"type": "space", "id": axis, "size": 1} for axis in ("y", "x")),
            ],
            "data": {"type": "float32"},
            "test_tensor": {"source": "test-features.npy"},
        }
    ]


def _tolerances(n: int) -> dict[str, Any]:
    """Return how near the test answers are to be met: features are smaller than the default."""
    if not n:
        return {}
    of_features = {"output_ids": [FEATURES_OUTPUT], "relative_tolerance": 0.01}
    found = [{**of_features, "absolute_tolerance": 1e-6}, {"output_ids": ["channels"]}]
    return {"bioimageio": {"reproducibility_tolerance": found}}


def _pixel(manifest: Manifest, finer: int = 1) -> dict[str, Any]:
    """Return unit and scale of a spatial axis.

    A size in pixels where the engine takes any sampling.
    """
    if manifest.pixel_size_nm is None:
        return {"scale": 1 / finer}
    middle = (manifest.pixel_size_nm.min + manifest.pixel_size_nm.max) / 2
    return {"scale": middle / finer, "unit": "nanometer"}


def _smallest(manifest: Manifest) -> int:
    """Smallest side: one pixel that sees no border, and two steps to be padded."""
    step = manifest.multiple_of
    return -(-max(2 * manifest.halo + 1, 2 * step, 32) // step) * step


def _test_image(manifest: Manifest) -> Image:
    """Dots and lines that shift from frame to frame, as a camera may see them.

    ADU, float32 (1, window, y, x).
    """
    side, rng = _smallest(manifest) + manifest.multiple_of, np.random.default_rng(0)
    dots = (rng.random((side, side)) < 0.01) * rng.uniform(0.3, 1, (side, side))
    dots[side // 3] += 0.2
    specimen = 2000 * gaussian_filter(dots, 1.2)
    frames = [
        np.roll(specimen, t, axis=1) + rng.normal(20, 2, (side, side))
        for t in range(manifest.inputs)
    ]
    return np.asarray(frames, np.float32)[None]


def _answer(engine: Engine, given: Image) -> tuple[Image, Image | None]:
    """Return what the network makes of `given`, normalised as the description says.

    Float32 (1, c, y, x), and its features (1, n, 1, 1), None without.
    """
    low, high = np.percentile(given, (BACKGROUND_PERCENTILE, BRIGHT_PERCENTILE))
    x = (given - low) / (high - low + _EPSILON) * BRIGHT_LEVEL
    compute = ComputeConfig(precision="f32", tile="off")
    with open_session(engine, (given.shape[2], given.shape[3]), compute) as session:
        session.input[:] = x[0]
        answer, told = session.infer()[None].copy(), session.features
        return answer, None if told is None else told.reshape(1, -1, 1, 1).copy()
