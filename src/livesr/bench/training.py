"""Training steps of the light network, beside the same steps in the plain loop.

Fp32, default memory format.

Both train the same network on the same patches with the same loss, optimiser and averaging; the
plain loop draws each batch when it needs it. The loader's share of the time is measured on the
subject alone.
"""

from __future__ import annotations

import copy
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from livesr.bench.result import Result, Target, compared
from livesr.bench.timing import interleave
from livesr.training import networks
from livesr.training.batches import augment
from livesr.training.journal import Progress
from livesr.training.recipes import load_recipe
from livesr.training.settings import TrainConfig
from livesr.training.sources import Pairs
from livesr.training.trainer import Trainer

_RECIPE = "imcsr-mt-er-lyso-light"
_SIDE = 256


class _Images:
    """Crops of random images in memory, as cached pairs are cut from a file."""

    def __init__(self, patch: int, frames: int, channels: int) -> None:
        rng = np.random.default_rng(0)
        self._frames = rng.random((32, frames, _SIDE, _SIDE), np.float32)
        self._targets = rng.random((32, channels, _SIDE, _SIDE), np.float32)
        self._patch = patch

    def batch(self, rng: np.random.Generator, size: int, patch: int) -> Pairs:
        chosen, corners = (
            rng.integers(len(self._frames), size=size),
            rng.integers(_SIDE - patch, size=(size, 2)),
        )
        cut = [
            (i, slice(None), slice(y, y + patch), slice(x, x + patch))
            for i, (y, x) in zip(chosen, corners, strict=True)
        ]
        return np.stack([self._frames[c] for c in cut]), np.stack([self._targets[c] for c in cut])

    def validation(self, n: int) -> Pairs:
        return (
            self._frames[:n, :, : self._patch, : self._patch],
            self._targets[:n, :, : self._patch, : self._patch],
        )


class _Plain:
    """The loop that anybody would write first."""

    def __init__(self, config: TrainConfig, images: _Images) -> None:
        self._config, self._images = config, images
        self._network = networks.build(config.architecture, **config.parameters)
        self._average = copy.deepcopy(self._network)
        self._loss = config.loss.make()
        self._optimiser = torch.optim.AdamW(
            self._network.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        self._rng = np.random.default_rng(0)

    def patches_per_s(self, steps: int) -> list[float]:
        start = time.perf_counter()
        for _ in range(steps):
            pairs = augment(
                self._rng, *self._images.batch(self._rng, self._config.batch, self._config.patch)
            )
            frames, targets = (torch.from_numpy(images) for images in pairs)
            self._optimiser.zero_grad()
            self._loss(self._network(frames), targets).total.backward()
            if self._config.clip_norm:
                torch.nn.utils.clip_grad_norm_(self._network.parameters(), self._config.clip_norm)
            self._optimiser.step()
            with torch.no_grad():
                for slow, fast in zip(
                    self._average.parameters(), self._network.parameters(), strict=True
                ):
                    slow.lerp_(fast, 1 - self._config.ema_decay)
        return [self._config.batch * steps / (time.perf_counter() - start)]


class _Trained:
    """livesr's trainer, which goes on for some steps at every call."""

    def __init__(self, config: TrainConfig, images: _Images, folder: Path) -> None:
        self._config, self._images, self._folder, self._steps = config, images, folder, 0
        self.waiting: list[float] = []

    def patches_per_s(self, steps: int) -> list[float]:
        self._steps += steps
        config = self._config.model_copy(update={"steps": self._steps, "log_every": self._steps})
        reports: list[Progress] = []
        Trainer(config, self._images, self._images, self._folder).run(reports.append)
        self.waiting.append(reports[-1].waiting)
        return [reports[-1].patches_per_s]


def measure(quick: bool) -> list[Result]:
    """Return the throughput, with its target of 1.5 times the plain loop, and the time spent
    waiting for batches.
    """
    recipe = load_recipe(_RECIPE).train
    changes = {"minutes": None, "validation_pairs": 1, "schedule": "plateau", "device": "cpu"}
    changes |= {
        "validate_every": 10**9,
        "collapse_check_from": 10**9,
        "patch": 64 if quick else recipe.patch,
    }
    config = recipe.model_copy(update=changes)
    network = networks.build(config.architecture, **config.parameters)
    images = _Images(config.patch, network.frames, network.channels)
    steps, blocks = (2, 2) if quick else (25, 8)
    with tempfile.TemporaryDirectory() as folder:
        trained, plain = _Trained(config, images, Path(folder)), _Plain(config, images)
        comparison = interleave(
            lambda: trained.patches_per_s(steps), lambda: plain.patches_per_s(steps), blocks
        )
    note = f"{_RECIPE}: {config.batch} patches of {config.patch}^2, {config.precision}, two cores"
    waiting = Result(
        "training.waiting",
        max(trained.waiting),
        "of the time",
        targets=(Target(0.05, "most"),),
        note=note,
    )
    throughput = compared(
        "training.throughput",
        comparison,
        "patches/s",
        "the plain loop in fp32",
        (Target(1.5, "least", "ratio"),),
        note,
    )
    return [throughput, waiting]
