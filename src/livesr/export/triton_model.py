"""What Triton's python backend runs: an ONNX file on the CPU, by onnxruntime or OpenVINO.

`livesr serve` copies this file beside a network as `model.py`, for servers that have no backend for
ONNX. It runs in the server's Python, and imports nothing of livesr.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One model, as the backend calls it."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the network that the configuration names by its hash.

        Raises
        ------
        TritonModelException
            If it is another one, or nothing here runs it.
        """
        config = json.loads(args["model_config"])
        network = Path(args["model_repository"], args["model_version"], "model.onnx").read_bytes()
        if (
            hashlib.sha256(network).hexdigest()
            != config["parameters"]["file_sha256"]["string_value"]
        ):
            raise pb_utils.TritonModelException(
                "model.onnx is not the file that config.pbtxt names"
            )
        self._input = config["input"][0]["name"]
        self._outputs = [
            (end["name"], np.float16 if end["data_type"] == "TYPE_FP16" else np.float32)
            for end in config["output"]
        ]
        self._run = _loaded(network)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests, one after the other."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        frames = pb_utils.get_input_tensor_by_name(request, self._input).as_numpy()
        try:
            found = self._run(np.ascontiguousarray(frames, np.float32))
        except Exception as e:  # whatever the runtime raises; whoever asked is told
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(e)))
        tensors = [
            pb_utils.Tensor(name, pixels.astype(dtype))
            for (name, dtype), pixels in zip(self._outputs, found)  # noqa: B905 - Python 3.8 serves
        ]
        return pb_utils.InferenceResponse(output_tensors=tensors)


def _loaded(network: bytes) -> Callable[[Any], Any]:
    try:
        import onnxruntime
    except ImportError:
        return _loaded_in_openvino(network)
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda frames: session.run(None, {name: frames})


def _loaded_in_openvino(network: bytes) -> Callable[[Any], Any]:
    try:
        import openvino
    except ImportError:
        raise pb_utils.TritonModelException(
            "the server's Python has neither onnxruntime nor openvino: install one of them"
        ) from None
    core = openvino.Core()
    # Not pinned: the first thread of every process would be on the first core.
    hints = {"ENABLE_CPU_PINNING": False}
    request = core.compile_model(core.read_model(network), "CPU", hints).create_infer_request()
    return lambda frames: list(request.infer({0: frames}).values())
