"""Batches in their order, drawn and turned ahead of the training step by threads of their own.

Owns augmentation and the read-ahead. A batch depends on its step alone, never on how many threads
there are or how far they have read ahead: every random number of step i comes from a generator
seeded with (seed, attempt, i).
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from livesr.training.settings import TrainConfig
from livesr.training.sources import Pairs, TrainSource, turned

Batch = tuple[Tensor, Tensor]


class Batches:
    """Batches from step `first` of an attempt on; a context, whose threads end with it.

    Attributes
    ----------
    waited_s : how long `next` has waited for batches altogether: what the loader costs the training
    """

    def __init__(
        self, source: TrainSource, config: TrainConfig, attempt: int, first: int, *, pin: bool
    ) -> None:
        self._source, self._config, self._attempt, self._pin = source, config, attempt, pin
        self._step = first
        self._waiting: deque[Future[Batch]] = deque()
        self.waited_s = 0.0

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(self._config.loaders, thread_name_prefix="livesr-batches")
        for _ in range(max(self._config.read_ahead, self._config.loaders)):
            self._submit()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def next(self) -> Batch:
        """Return the next batch; raises what the source raised."""
        before = time.perf_counter()
        batch = self._waiting.popleft().result()
        self.waited_s += time.perf_counter() - before
        self._submit()
        return batch

    def _submit(self) -> None:
        self._waiting.append(self._pool.submit(self._draw, self._step))
        self._step += 1

    def _draw(self, step: int) -> Batch:
        rng = np.random.default_rng([self._config.seed, self._attempt, step])
        pairs = augment(rng, *self._source.batch(rng, self._config.batch, self._config.patch))
        frames, targets = (torch.from_numpy(images) for images in pairs)
        # Pinned pages are copied to a GPU while it computes.
        return (frames.pin_memory(), targets.pin_memory()) if self._pin else (frames, targets)


def augment(
    rng: np.random.Generator, frames: NDArray[np.float32], targets: NDArray[np.float32]
) -> Pairs:
    """Turn and flip each pair, all its frames and targets alike.

    One of the square's eight symmetries by chance.
    """
    symmetries = [
        (int(turns), bool(flip)) for turns, flip in rng.integers((4, 2), size=(len(frames), 2))
    ]
    turned_frames = [turned(f, *symmetry) for f, symmetry in zip(frames, symmetries, strict=True)]
    turned_targets = [turned(t, *symmetry) for t, symmetry in zip(targets, symmetries, strict=True)]
    return np.stack(turned_frames), np.stack(turned_targets)
