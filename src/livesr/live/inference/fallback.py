"""A backend that outlives its runtime.

When one fails in the middle of a run, the next way to run the engine takes over.

Owns the order in which ways are tried, and what is said of it. Runs no network by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import BackendError
from livesr.live.inference.backend import ResidentBackend
from livesr.live.inference.engine import Engine
from livesr.live.inference.runner import in_order, open_backend, open_named, out_of_memory, tile_of
from livesr.live.inference.tiling import smaller_tile

log = logging.getLogger(__name__)


class FallbackBackend:
    """Opens an engine as `open_backend` does.

    A frame that the runtime fails on is inferred again by what replaces it.

    In this order: the same runtime in ever smaller tiles, if memory ran out and tiles are left to
    livesr; then, if the choice of the runtime is, those that follow. What has failed is not tried
    again.

    Parameters
    ----------
    engine, shape, backend, precision, threads, tile : as of `open_backend`, which see for the
        errors

    Attributes
    ----------
    replacements : a sentence for every runtime that was replaced
    """

    def __init__(
        self,
        engine: Engine,
        shape: tuple[int, int],
        backend: str = "auto",
        precision: str = "auto",
        threads: int = 0,
        tile: int | Literal["auto", "off"] = "off",
    ) -> None:
        self._engine, self._shape, self._choice = engine, shape, backend
        self._precision, self._threads, self._tile = precision, threads, tile
        self._inner = open_backend(engine, shape, backend, precision, threads, tile)
        self._failed: BackendError | None = None
        self.replacements: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the runtime that is in use."""
        return self._inner.name

    @property
    def precision(self) -> str:
        """What it computes in."""
        return self._inner.precision

    @property
    def device(self) -> str:
        """What it runs on."""
        return self._inner.device

    @property
    def tile(self) -> int | None:
        """Side of its tiles, None if it takes frames as a whole."""
        return tile_of(self._inner)

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
            try:
                return self._inner.infer()
            except Exception as e:  # a runtime raises whatever its driver raises
                self._replace(e)

    @property
    def resident(self) -> ResidentBackend | None:
        """The runtime in use if frames that are on the GPU can stay there, else None."""
        inner = self._inner
        try:
            there = None if self._failed else getattr(inner, "device_input", None)
        except BackendError:  # another thread has just closed it, to replace it
            return None
        return None if there is None else cast("ResidentBackend", inner)

    def give_up(self, runtime: ResidentBackend, error: Exception) -> None:
        """Replace a runtime that has failed outside of `infer`, unless it was.

        Whoever used it infers the frame anew.

        Raises
        ------
        BackendError
            If none is left.
        """
        if self._inner is runtime:
            self._replace(error)

    def close(self) -> None:
        """Release the runtime."""
        self._inner.close()

    def _replace(self, error: Exception) -> None:
        """Open the next way to run the engine, with the frames that the last one failed on."""
        failed, frames = self._described(), self._inner.input.copy()
        ways = list(self._ways(error))
        self._inner.close()
        cause = f"{type(error).__name__}: {error}"
        for name, tile in ways:
            try:
                self._inner = open_named(
                    name, self._engine, self._shape, self._precision, self._threads, tile
                )
            except Exception as e:  # as above
                log.info("%s cannot take over: %s", name, e)
                continue
            self._inner.input[...] = frames
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

    def _ways(self, error: Exception) -> Iterator[tuple[str, int | str]]:
        """Yield what is left: (runtime, tile)."""
        if self._tile == "auto" and out_of_memory(error):
            side: int | None = tile_of(self._inner) or max(self._shape)
            while side and (side := smaller_tile(self._engine, side)):
                yield self._inner.name, side
        if self._choice == "auto":
            names = in_order()
            yield from ((name, self._tile) for name in names[names.index(self._inner.name) + 1 :])

    def _described(self) -> str:
        tile = tile_of(self._inner)
        return f"{self._inner.name}{f' in tiles of {tile} pixels' if tile else ''}"
