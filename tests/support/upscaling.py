"""A small EDSR that interpolates.

What an upscale engine does, in numbers that a test can work out.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backend_contract import make_engine
from livesr.live.inference.engine import Engine


def edsr_engine(folder: Path, scale: int = 2, **fields: Any) -> Engine:
    """An EDSR of one block whose weights interpolate linearly, called like its folder."""
    defaults: dict[str, Any] = {
        "id": folder.name,
        "task": "upscale",
        "window": 1,
        "scale": scale,
        "channels": [{"name": "upscaled", "color": "FFFFFF"}],
        "multiple_of": 1,
        "halo": 7,
        "architecture": "edsr",
        "parameters": {"scale": scale, "blocks": 1, "width": 4},
    }
    return make_engine(folder, _model(scale), **(defaults | fields))


@cache
def _model(scale: int) -> bytes:
    torch = pytest.importorskip("torch")
    from livesr.export.onnx import export_onnx
    from livesr.training.networks import EDSR

    network = EDSR(scale=scale, blocks=1, width=4)
    step = 3 if scale == 3 else 2  # four times are two steps of two
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.head.weight[0, 0, 1, 1] = network.out.weight[0, 0, 1, 1] = 1
        for convolution in network.upsample[::2]:
            convolution.weight[: step**2, 0] = torch.from_numpy(_linear_kernels(step))
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        export_onnx(network, path, 1, fp16_weights=False)
        return path.read_bytes()


def enlarged(image: NDArray[Any], scale: int = 2) -> NDArray[np.float32]:
    """What the engine makes of an image.

    Each pixel becomes scale x scale, weighed linearly with its neighbours; 0 outside.
    """
    padded = np.pad(np.asarray(image, np.float32), 1)
    y, x = image.shape
    out = np.empty((y * scale, x * scale), np.float32)
    for i, kernel in enumerate(_linear_kernels(scale)):
        views = [
            padded[dy : dy + y, dx : dx + x] * kernel[dy, dx] for dy in range(3) for dx in range(3)
        ]
        out[i // scale :: scale, i % scale :: scale] = np.sum(views, axis=0)
    return out


def _linear_kernels(scale: int) -> NDArray[np.float32]:
    """(scale^2, 3, 3): where within its pixel a finer pixel lies says how much of the neighbours it
    gets."""
    offsets = (np.arange(scale) + 0.5) / scale - 0.5
    line = np.stack([np.maximum(-offsets, 0), 1 - np.abs(offsets), np.maximum(offsets, 0)], 1)
    return np.einsum("ai,bj->abij", line, line).reshape(-1, 3, 3).astype(np.float32)
