"""A session that outlives its runtime.

When one fails in the middle of a run, the next way to run the engine takes over.

Owns the order in which ways are tried, and what is said of it. Runs no network by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from livesr.base.compute import ComputeConfig
from livesr.base.errors import BackendError
from livesr.live.inference.engine import Engine
from livesr.live.inference.runner import in_order, open_on, open_session, out_of_memory
from livesr.live.inference.session import InferenceSession, Resident
from livesr.live.inference.tiling import smaller_tile

log = logging.getLogger(__name__)


class FallbackSession(InferenceSession):
    """Opens an engine as `open_session` does.

    A frame that the runtime fails on is inferred again by what replaces it.

    In this order: the same runtime in ever smaller tiles, if memory ran out and tiles are left to
    livesr; then, if the choice of the runtime is, those that follow. What has failed is not tried
    again.

    Parameters
    ----------
    engine, shape, compute : as of `open_session`, which see for the errors
    """

    def __init__(self, engine: Engine, shape: tuple[int, int], compute: ComputeConfig) -> None:
        self._engine, self._shape, self._compute = engine, shape, compute
        self._failed: BackendError | None = None
        self._adopt(open_session(engine, shape, compute))

    @property
    def input(self) -> NDArray[np.float32]:
        """The (window, y, x) block that `infer` reads.

        Another one after `infer` had to replace the runtime.
        """
        if self._failed:
            raise self._failed
        return self._inner.input

    def infer(self) -> NDArray[np.float32]:
        """Return (c, scale y, scale x) for the current `input`, from the first way that does not
        fail.

        Raises
        ------
        BackendError
            If none is left.
        """
        while True:
            if self._failed:
                raise self._failed
            try:
                return self._inner.infer()
            except Exception as e:  # a runtime raises whatever its driver raises
                self._replace(e)

    @property
    def features(self) -> NDArray[np.float32] | None:
        """Those of the runtime in use."""
        return self._inner.features

    @property
    def resident(self) -> Resident | None:
        """That of the runtime in use, None also while another thread replaces it."""
        return None if self._failed else self._inner.resident

    def give_up(self, resident: Resident, error: Exception) -> None:
        """Replace a runtime that has failed outside of `infer`, unless it was.

        Raises
        ------
        BackendError
            If none is left.
        """
        if self._inner.resident is resident:
            self._replace(error)

    def close(self) -> None:
        """Release the runtime."""
        self._inner.close()

    def _adopt(self, inner: InferenceSession) -> None:
        """Go on with another session of the engine."""
        self._inner = inner
        self.like(inner)

    def _replace(self, error: Exception) -> None:
        """Open the next way to run the engine, with the frames that the last one failed on."""
        failed, frames = self._described(), self._inner.input.copy()
        ways = list(self._ways(error))
        self._inner.close()
        cause = f"{type(error).__name__}: {error}"
        for name, compute in ways:
            try:
                inner = open_on(name, self._engine, self._shape, compute)
            except Exception as e:  # as above
                log.info("%s cannot take over: %s", name, e)
                continue
            inner.input[...] = frames
            self._adopt(inner)
            sentence = (
                f"Engine {self._engine.manifest.id!r} runs on {self._described()} since {failed}"
                f" failed ({cause}); what it makes of a frame differs a little."
            )
            log.warning("%s", sentence)
            self.replacements = (*self.replacements, sentence)
            return
        self._failed = BackendError(
            f"{failed} failed on engine {self._engine.manifest.id!r}: {cause}"
        )
        raise self._failed from error

    def _ways(self, error: Exception) -> Iterator[tuple[str, ComputeConfig]]:
        """Yield what is left: a runtime's name, and how it is to compute."""
        if self._compute.tile == "auto" and out_of_memory(error):
            side: int | None = self.tile or max(self._shape)
            while side and (side := smaller_tile(self._engine, side)):
                yield self.name, self._compute.model_copy(update={"tile": side})
        if self._compute.backend == "auto":
            names = in_order()
            for name in names[names.index(self.name) + 1 :]:
                yield name, self._compute

    def _described(self) -> str:
        return f"{self.name}{f' in tiles of {self.tile} pixels' if self.tile else ''}"
