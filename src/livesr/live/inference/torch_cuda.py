"""A network that torch runs where its frames already are, as one CUDA graph.

Owns the memory on the device, the reflection at its edges and the graph. Imports torch, so only
`TorchCudaSession` imports it, when it is opened. On a CPU the same steps run without a graph, which
shows that they are right.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import torch

from livesr.live.inference.engine import Engine
from livesr.live.inference.onnx_graph import OnnxGraph
from livesr.live.inference.padding import padded_shape

log = logging.getLogger(__name__)

_WARM_UPS = 3  # cuDNN tries its algorithms in the first


class ResidentNetwork:
    """Block, network and output on one device, in place: a `Resident`.

    Parameters
    ----------
    network : on `device`
    engine, shape : as of `Runtime.open`
    device : "cuda", or "cpu"

    Attributes
    ----------
    device_input : float32 (window, y, x) view of the block, to be written
    result : float32 (c, scale y, scale x) view of the output
    device_features : float32 (n,), None where the engine has none

    Notes
    -----
    The graph holds every intermediate tensor, so that nothing is allocated per frame. A network
    that cannot be captured (one that reads a tensor's value on the host) runs node by node.
    """

    def __init__(
        self, network: OnnxGraph, engine: Engine, shape: tuple[int, int], device: str
    ) -> None:
        (height, width), scale = shape, engine.manifest.scale
        self._network, self._shape = network, shape
        self._block = torch.zeros(
            (1, engine.manifest.inputs, *padded_shape(engine, shape)), device=device
        )
        self.device_input = self._block[0, :, :height, :width]
        # Planes, as they are read: the network's own order is channels-last.
        self.output = torch.empty_like(
            network.execute(self._block), memory_format=torch.contiguous_format
        )
        self.result = self.output[0, :, : height * scale, : width * scale]
        self.device_features = (
            torch.zeros(engine.manifest.weights.features, device=device)
            if engine.manifest.weights.features
            else None
        )
        self._graph = self._captured() if device == "cuda" else None

    def enqueue(self, stream: int) -> Any:
        """Enqueue the network on the CUDA stream at address `stream`.

        Return `result`, which it will fill.
        """
        with torch.cuda.stream(torch.cuda.ExternalStream(stream)):
            self.step()
        return self.result

    def step(self) -> None:
        """Enqueue the network on torch's current stream."""
        if self._graph is None:
            self._compute()
        else:
            self._graph.replay()

    def infer(self, frames: Any, out: Any, features: Any = None) -> None:
        """Run on frames of the host, (1, window, Y, X), and fill `out` (1, c, Y, X) there.

        And `features` (n,), if given. All page-locked on CUDA.
        """
        self._block.copy_(frames, non_blocking=True)
        self.step()
        out.copy_(self.output, non_blocking=True)
        if features is not None:
            features.copy_(self.device_features, non_blocking=True)

    def settle(self) -> None:
        """Wait until nothing uses its memory, on any stream.

        A device that failed is not waited for.
        """
        if self._block.is_cuda:
            with suppress(RuntimeError):
                torch.cuda.synchronize()

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _compute(self) -> None:
        self._reflect()
        self.output.copy_(self._network.execute(self._block))
        if self.device_features is not None:
            self.device_features.copy_(self._network.features)

    def _reflect(self) -> None:
        """Fill the margin from the frames, as `PaddedBlock.reflect` does.

        Torch has no slices that run backwards.
        """
        (y, x), (height, width) = self._shape, self._block.shape[2:]
        block = self._block[0]
        if height > y:
            block[:, y:, :x] = block[:, 2 * y - height - 1 : y - 1, :x].flip(1)
        if width > x:
            block[:, :, x:] = block[:, :, 2 * x - width - 1 : x - 1].flip(2)

    def _captured(self) -> Any:
        """Return the graph of `_compute`, None if it cannot be captured."""
        before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
        capturing = torch.cuda.Stream()
        capturing.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(capturing):
                for _ in range(_WARM_UPS):
                    self._compute()
            torch.cuda.current_stream().wait_stream(capturing)
            graph = torch.cuda.CUDAGraph()
            # Other threads of a run may allocate meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._compute()
        except RuntimeError as e:
            log.info("the network runs without a CUDA graph: %s", e)
            torch.cuda.synchronize()
            self._compute()
            return None
        finally:
            torch.backends.cudnn.benchmark = before
            torch.cuda.synchronize()
        return graph
