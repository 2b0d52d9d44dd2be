"""An engine that separates nothing: each channel is the middle frame divided by their number.

Owns the folder it writes. Needs the `onnx` package; `engines/identity` was written with it.
"""

from __future__ import annotations

from pathlib import Path

from livesr.base.errors import BackendError
from livesr.live.inference.engine import (
    MODEL_NAME,
    Engine,
    Manifest,
    OnnxWeights,
    OutputChannel,
    Weights,
    load_engine,
    sha256_of,
    write_manifest,
)

_COLORS = ("00FF00", "FF00FF", "FFFF00", "00FFFF", "FF0000", "0000FF")
_CARD = """# identity

**Untrained.** Every channel is the middle frame divided by the number of channels: nothing is separated, and the
colours mean nothing. It exists so that the whole path, from camera to store and viewer, can run and be timed where no
trained engine is at hand: what a run costs with it is what livesr costs without a network.

| | |
|---|---|
| input | three consecutive reconstructed frames, any pixel size, any reconstruction |
| output | {channels} |
| network | one 1 x 1 convolution |
| residual | 0 by construction, up to rounding |
| licence | BSD-3-Clause |

Written by `python scripts/make_identity_engine.py`.
"""


def identity_engine(folder: Path, channels: int = 3, window: int = 3) -> Engine:
    """Write the engine into `folder`, which is made if need be, and load it.

    Raises
    ------
    BackendError
        If the `onnx` package is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL_NAME).write_bytes(_network(channels, window))
    manifest = _manifest(folder, channels, window)
    write_manifest(folder, manifest)
    names = ", ".join(manifest.channel_names)
    (folder / "README.md").write_text(_CARD.format(channels=names), encoding="utf-8", newline="\n")
    return load_engine(folder)


def _manifest(folder: Path, channels: int, window: int) -> Manifest:
    return Manifest.model_validate(
        {
            "id": "identity",
            "version": "1",
            "description": (
                "Every channel is the middle frame divided by their number: separates nothing."
            ),
            "task": "separate",
            "trained": False,
            "window": window,
            "channels": [
                OutputChannel(name=f"Structure {i + 1}", color=_COLORS[i % len(_COLORS)])
                for i in range(channels)
            ],
            "architecture": "identity",
            "weights": Weights(onnx=OnnxWeights(sha256=sha256_of(folder / MODEL_NAME))),
            "license": "BSD-3-Clause",
        }
    )


def _network(channels: int, window: int) -> bytes:
    try:
        import onnx
        from onnx import TensorProto, helper
    except ImportError as e:
        raise BackendError("Writing an engine needs onnx: pip install onnx.") from e
    weights = [
        1.0 / channels if w == window // 2 else 0.0 for _ in range(channels) for w in range(window)
    ]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["frames", "weight"], ["channels"], kernel_shape=[1, 1])],
        "identity",
        [helper.make_tensor_value_info("frames", TensorProto.FLOAT, [1, window, "y", "x"])],
        [helper.make_tensor_value_info("channels", TensorProto.FLOAT, [1, channels, "y", "x"])],
        [helper.make_tensor("weight", TensorProto.FLOAT, [channels, window, 1, 1], weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data
