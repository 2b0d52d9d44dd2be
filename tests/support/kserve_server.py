"""A small server that speaks KServe v2 over gRPC, and does what a real one cannot be made to do."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from livesr.live.inference.engine import FEATURES_OUTPUT, Engine
from livesr.live.inference.kserve import name_that_says_it

_TYPES = {"FP32": np.float32, "FP16": np.float16}


class KServeServer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Serves an identity engine: the middle of three frames, divided by the channels.

    Attributes
    ----------
    does : "right", or what it does instead with a frame
    said : the parameters of the model's configuration
    datatype, size, ends : of the pixels; (y, x) that it takes; how many inputs it says that it has
    slow_s : seconds that a frame takes
    most_at_once, answered : frames that were under way at the same time; that were answered
    headers : those of the last call
    features : numbers of a second output, () has none
    plain : whether it is of those that hand out no configuration, and know models by a name that
        says which network they are
    """

    def __init__(self, engine: Engine, tls: tuple[bytes, bytes] | None = None) -> None:
        manifest = engine.manifest
        self._id, self._channels, self._tls = manifest.id, len(manifest.channels), tls
        self.said = {"sha256": manifest.sha256, "version": manifest.version}
        self.does, self.datatype, self.ends, self.slow_s = "right", "FP32", 1, 0.0
        self.size, self.features = (-1, -1), ()
        self.most_at_once = self.answered = self._now = 0
        self.headers: dict[str, Any] = {}
        self.plain, self._named = False, name_that_says_it(manifest)
        self._lock = threading.Lock()
        self.port = 0
        self.start()

    @property
    def endpoint(self) -> str:
        return f"{'grpcs' if self._tls else 'grpc'}://localhost:{self.port}"

    def start(self) -> None:
        """Listen, on the port that it had."""
        self._server = grpc.server(
            ThreadPoolExecutor(8),
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)],
        )
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        address = f"localhost:{self.port}"
        if self._tls:
            credentials = grpc.ssl_server_credentials([self._tls])
            self.port = self._server.add_secure_port(address, credentials)
        else:
            self.port = self._server.add_insecure_port(address)
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()

    def ModelConfig(self, request: Any, context: Any) -> Any:
        if self.plain:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "")
        self._check(request.name, context)
        answer = service_pb2.ModelConfigResponse()
        for key, value in self.said.items():
            answer.config.parameters[key].string_value = value
        return answer

    def ModelMetadata(self, request: Any, context: Any) -> Any:
        self._check(request.name, context)
        answer = service_pb2.ModelMetadataResponse(name=request.name)
        for i in range(self.ends):
            answer.inputs.add(
                name=f"frames{i or ''}", datatype=self.datatype, shape=[1, 3, *self.size]
            )
        answer.outputs.add(name="channels", datatype=self.datatype, shape=[1, 3, *self.size])
        if self.features:
            shape = [1, len(self.features), 1, 1]
            answer.outputs.add(name=FEATURES_OUTPUT, datatype="FP32", shape=shape)
        return answer

    def ModelStatistics(self, request: Any, context: Any) -> Any:
        answer = service_pb2.ModelStatisticsResponse()
        success = answer.model_stats.add(name=self._id).inference_stats.success
        success.count, success.ns = self.answered, int(self.answered * self.slow_s * 1e9)
        return answer

    def ModelInfer(self, request: Any, context: Any) -> Any:
        self._check(request.model_name, context)
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            time.sleep(self.slow_s)
            return self._answer(request, context)
        finally:
            with self._lock:
                self._now -= 1
                self.answered += 1

    def _answer(self, request: Any, context: Any) -> Any:
        sent, dtype = request.inputs[0], _TYPES[self.datatype]
        assert sent.datatype == self.datatype
        frames = np.frombuffer(request.raw_input_contents[0], dtype).reshape(list(sent.shape))
        pixels = np.repeat(frames[:, 1:2] / self._channels, self._channels, 1).astype(dtype)
        if self.does == "error":
            context.abort(grpc.StatusCode.INTERNAL, "the network\x1b[31m is broken")
        if self.does == "numbers that are none":
            pixels[0, 0, 3, 3] = np.nan
        if self.does == "other pixels":
            pixels = pixels[:, ::-1, ::-1] * 2 + dtype(0.1)
        if self.does == "another shape":
            pixels = pixels[..., 1:]
        if self.does == "more than was asked for":
            pixels = np.tile(pixels, (1, 1, 60, 60))
        if self.does == "another name":
            return self._response("pixels", self.datatype, pixels.shape, pixels.tobytes())
        if self.does == "another type":
            found = pixels.astype(np.int32)
            return self._response("channels", "INT32", pixels.shape, found.tobytes())
        content = pixels.tobytes()
        if self.does == "fewer bytes":
            content = content[:-7]
        answer = self._response("channels", self.datatype, pixels.shape, content)
        if FEATURES_OUTPUT in {wanted.name for wanted in request.outputs}:
            numbers = np.array(self.features, np.float32)
            answer.outputs.add(name=FEATURES_OUTPUT, datatype="FP32", shape=[1, len(numbers), 1, 1])
            answer.raw_output_contents.append(numbers.tobytes())
        return answer

    def _response(self, name: str, datatype: str, shape: Any, content: bytes) -> Any:
        answer = service_pb2.ModelInferResponse(model_name=self._id)
        answer.outputs.add(name=name, datatype=datatype, shape=list(shape))
        answer.raw_output_contents.append(content)
        return answer

    def _check(self, name: str, context: Any) -> None:
        self.headers = dict(context.invocation_metadata())
        if name != (self._named if self.plain else self._id):
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no {name}")
