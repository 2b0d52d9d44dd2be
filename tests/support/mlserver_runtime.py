"""What MLServer runs an engine's ONNX file with; imported by MLServer's Python, not by livesr."""

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxRuntime(MLModel):
    """The file that `parameters.uri` of model-settings.json names, in FP32 on the CPU."""

    async def load(self) -> bool:
        self._session = onnxruntime.InferenceSession(
            self.settings.parameters.uri, providers=["CPUExecutionProvider"]
        )
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        given = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        known = [end.name for end in self._session.get_outputs()]
        names = [end.name for end in payload.outputs or ()] or known
        name = self._session.get_inputs()[0].name
        made = self._session.run(names, {name: np.asarray(given, np.float32)})
        outputs = [NumpyCodec.encode_output(*end) for end in zip(names, made, strict=True)]
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=outputs)
