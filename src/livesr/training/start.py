"""Weights that a network begins with instead of random ones: those of a run or of an engine.

Owns where they come from and which of them fit. EDSR trains x3 and x4 from the weights of x2 (Lim
et al. 2017): what stands before the upsampling is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from livesr.live.inference.engine import load_engine, sha256_of
from livesr.training.networks.imcsr import IMCSR, RCAB

START_NAME = "start.json"
"""File of a run's folder: its `Start`."""

_IN_KNOWN_LIGHT = "network."  # before it where the export wrapped the network in `KnownLight`
_LITTLE_UNKNOWN = -2.0  # logit of unknown light beside those of the structures, at first
_AS_FP16 = ".fp16"  # what the export appends to the name of a kernel that it stores so


@dataclass(frozen=True, slots=True)
class Start:
    """Where a network's first weights come from.

    Attributes
    ----------
    name : of the engine, or of the run that made them
    sha256 : of the file with the weights
    tensors, of : how many of the network's tensors begin with them, and how many it has
    patches : that they had seen, as far as was written down
    """

    name: str
    sha256: str
    tensors: int
    of: int
    patches: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return what the engine's manifest keeps."""
        return asdict(self)


def begin_with(network: nn.Module, start: str) -> Start:
    """Copy the tensors of `start` that `network` has by the same name and shape.

    The others stay as they are.

    IMC-SR that draws unknown light takes the last convolution of one that does not, and begins with
    next to none of it.

    Residual blocks of IMC-SR of which `start` has nothing add nothing at first, so that a deeper
    network begins as the shallower one.

    Parameters
    ----------
    start : a finished run's folder, its best.pt or final.pt, or an engine that livesr exported (its
        name or folder)

    Raises
    ------
    ValueError
        If nothing of it fits.
    EngineError
        If it is neither weights nor an engine.
    """
    name, path, given, patches = _read(start)
    own = network.state_dict()
    if isinstance(network, IMCSR) and network.channels > network.structures:
        given = given | _with_unknown(own, given, network.unshuffle**2)
    fitting = {
        key: given[key] for key in own.keys() & given.keys() if given[key].shape == own[key].shape
    }
    if not fitting:
        raise ValueError(
            f"none of the {len(own)} tensors of this network is in {start}; begin with a network of"
            " its kind"
        )
    network.load_state_dict(fitting, strict=False)
    for block, module in network.named_modules():
        if isinstance(module, RCAB) and not any(key.startswith(f"{block}.") for key in fitting):
            module.silence()
    return Start(name, sha256_of(path), len(fitting), len(own), patches)


def _with_unknown(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor], rows: int
) -> dict[str, Tensor]:
    """Insert the network's own rows for unknown light before the last, "none", of `given`.

    Nothing if these are not just what it lacks.
    """
    made = {}
    for name in ("out.weight", "out.bias"):
        lacking = (len(own[name]) - rows, *own[name].shape[1:])
        if name not in given or given[name].shape != lacking:
            return {}
        fresh = own[name][-2 * rows : -rows]
        if name == "out.bias":
            fresh = torch.full_like(fresh, _LITTLE_UNKNOWN)
        made[name] = torch.cat([given[name][:-rows], fresh, given[name][-rows:]])
    return made


def _read(start: str) -> tuple[str, Path, dict[str, Tensor], int]:
    path = Path(start)
    if (path / "best.pt").is_file():
        path /= "best.pt"
    if path.is_file() and path.suffix == ".pt":
        stored = torch.load(path, map_location="cpu", weights_only=True)
        return f"run {path.resolve().parent.name}", path, stored["state"], stored.get("patches", 0)
    engine = load_engine(start)
    return (
        engine.manifest.id,
        engine.onnx_path,
        _initialisers(engine.read()),
        engine.manifest.training.get("patches", 0),
    )


def _initialisers(model: bytes) -> dict[str, Tensor]:
    import onnx

    tensors = onnx.load_model_from_string(model).graph.initializer
    return {
        tensor.name.removeprefix(_IN_KNOWN_LIGHT).removesuffix(_AS_FP16): torch.from_numpy(
            onnx.numpy_helper.to_array(tensor).astype(np.float32)
        )
        for tensor in tensors
    }
