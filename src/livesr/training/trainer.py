"""The training loop: from a source of pairs to the weights of a network.

Owns optimisation, augmentation, validation, the log, checkpoints and the watch for collapse. Does not make pairs
(`sources.py`, `datasets.py`) and does not export (`livesr.export`).

Files of a run's folder: `config.json`, `log.csv`, `checkpoint.pt` (to resume), `best.pt` (averaged weights of the best
validation, read by `networks.load`) and `final.pt` (the last ones).

Every random number of step i comes from a generator seeded with (seed, attempt, i). A batch depends on its step alone,
never on how far the loader has read ahead, so a run that was killed and resumed equals one that was not.
"""

from __future__ import annotations

import contextlib
import copy
import csv
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from livesr.training import networks
from livesr.training.losses import CombinationLoss, L1Loss
from livesr.training.sources import Pairs, TrainSource, ValidationSource

log = logging.getLogger(__name__)


class TrainingCollapsedError(RuntimeError):
    """The network's output no longer depends on the structures in its input, or its loss is not finite."""


class LossConfig(BaseModel):
    """Which loss, and the combination loss's weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["combination", "l1"] = "combination"
    mse: float = 1.0
    structure: float = 0.1
    summation: float = 0.02

    def make(self) -> nn.Module:
        """Return the loss."""
        return L1Loss() if self.kind == "l1" else CombinationLoss(self.mse, self.structure, self.summation)


class TrainConfig(BaseModel):
    """Everything that determines a run besides its data.

    The run ends after `steps` or after `minutes`, whichever comes first. A run limited by steps alone can be repeated
    exactly; under a limit of minutes the cosine schedule follows the clock.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str = "imcsr"
    parameters: dict[str, Any] = {}
    steps: PositiveInt | None = None
    minutes: PositiveFloat | None = None
    batch: PositiveInt = 8
    patch: PositiveInt = 128
    lr: PositiveFloat = 1e-3
    schedule: Literal["cosine", "plateau"] = "cosine"
    warmup_steps: int = Field(200, ge=0)
    patience_steps: PositiveInt = 10_000
    """Steps without a better validation NRMSE before "plateau" halves the rate (the paper's 10,000)."""
    optimiser: Literal["adam", "adamw"] = "adamw"
    weight_decay: float = Field(1e-4, ge=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    precision: Literal["fp32", "bf16"] = "bf16"
    channels_last: bool = True
    clip_norm: PositiveFloat = 1.0
    loss: LossConfig = LossConfig()
    seed: int = Field(0, ge=0)
    threads: PositiveInt | None = None
    device: str = "cpu"
    read_ahead: PositiveInt = 4
    log_every: PositiveInt = 50
    validate_every: PositiveInt = 500
    validation_pairs: PositiveInt = 8
    checkpoint_every: PositiveInt = 500
    collapse_check_from: PositiveInt = 1000
    restarts: int = Field(0, ge=0)
    """How often a collapsed run starts anew, each time with half the learning rate; 0 raises at once."""

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if self.steps is None and self.minutes is None:
            raise ValueError("a run needs an end: give steps, minutes or both")
        return self


@dataclass(frozen=True, slots=True)
class Progress:
    """What a run reports every `log_every` steps and after every validation."""

    step: int
    fraction: float
    losses: dict[str, float]
    """Means since the last report: `loss` and its parts."""
    lr: float
    patches_per_s: float
    minutes: float
    validation: dict[str, float] = field(default_factory=dict)
    """`nrmse` and `pcc_0`, `pcc_1`, ... of the averaged weights; empty between validations."""


@dataclass(slots=True)
class _State:
    """The numbers, besides tensors, that a resumed run needs."""

    step: int = 0
    elapsed_s: float = 0.0
    attempt: int = 0
    best_pcc: float = -math.inf
    plateau_best: float = math.inf
    plateau_step: int = 0
    plateau_factor: float = 1.0


class Trainer:
    """Train one network.

    Parameters
    ----------
    config
        See `TrainConfig`.
    train_source, val_source
        Batches to learn from and pairs to validate on. `train_source.batch` runs in a thread of its own.
    out_dir
        The run's folder. If it holds a checkpoint of the same config, `run` resumes there; one of a different config
        raises ValueError, but for `steps`, `minutes`, `threads` and the reporting intervals, which may change.
    """

    def __init__(
        self, config: TrainConfig, train_source: TrainSource, val_source: ValidationSource, out_dir: Path
    ) -> None:
        self.config, self.out_dir = config, out_dir
        self._train, self._val = train_source, val_source
        self._device = torch.device(config.device)
        self._loss = config.loss.make()
        self._start(_State())

    def _start(self, state: _State) -> None:
        """Make network, average and optimiser anew for the state's attempt."""
        torch.manual_seed(self.config.seed + state.attempt)
        network = networks.build(self.config.architecture, **self.config.parameters).to(self._device)
        if self.config.channels_last:
            network = network.to(memory_format=torch.channels_last)
        self.network, self.average, self._state = network, copy.deepcopy(network).eval(), state
        kind = torch.optim.AdamW if self.config.optimiser == "adamw" else torch.optim.Adam
        self._optimiser = kind(
            network.parameters(), lr=self.config.lr, weight_decay=self.config.weight_decay, fused=True
        )

    def run(self, on_progress: Callable[[Progress], None] | None = None) -> nn.Module:
        """Train to the end of the budget and return the averaged network, ready for inference.

        Raises TrainingCollapsedError when a run has collapsed and no restart is left. An interrupted run continues
        from its last checkpoint when `run` is called on the same folder again.
        """
        self.out_dir.mkdir(parents=True, exist_ok=True)
        self._resume()
        (self.out_dir / "config.json").write_text(self.config.model_dump_json(indent=2) + "\n", encoding="utf-8")
        with _threads(self.config.threads):
            while True:
                try:
                    self._attempt(on_progress or (lambda progress: None))
                    break
                except TrainingCollapsedError as error:
                    if self._state.attempt >= self.config.restarts:
                        raise
                    log.warning("%s; starting anew with half the learning rate", error)
                    self._start(_State(elapsed_s=self._state.elapsed_s, attempt=self._state.attempt + 1))
        self._write_weights("final.pt")
        return self.average

    # -- one attempt -------------------------------------------------------------------------------------------------

    def _attempt(self, report: Callable[[Progress], None]) -> None:
        meter = _Meter(self._state.elapsed_s)
        table = _Table(self.out_dir / "log.csv", self._state)
        with _batches(self._train, self.config, self._state) as batches:
            while self._fraction() < 1:
                lr = self._set_learning_rate()
                meter.add(self._step(*next(batches)))
                self._state.step += 1
                self._state.elapsed_s = meter.elapsed_s()
                self._housekeeping(meter, table, report, lr)

    def _housekeeping(self, meter: _Meter, table: _Table, report: Callable[[Progress], None], lr: float) -> None:
        """Validate, report and save when it is time; after the last step, all of it."""
        step, last = self._state.step, self._fraction() >= 1
        validate = last or step % self.config.validate_every == 0
        if validate or step % self.config.log_every == 0:
            losses, rate = meter.flush(self.config.batch)
            self._check_finite(losses["loss"])
            scores = self._validate() if validate else {}
            minutes = self._state.elapsed_s / 60
            progress = Progress(step, min(self._fraction(), 1.0), losses, lr, rate, minutes, scores)
            table.add(progress, self._state.attempt)
            report(progress)
        if last or step % self.config.checkpoint_every == 0:
            self._write_checkpoint()

    def _step(self, frames: Tensor, targets: Tensor) -> dict[str, Tensor]:
        frames, targets = frames.to(self._device, non_blocking=True), targets.to(self._device, non_blocking=True)
        if self.config.channels_last:
            frames = frames.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            prediction = self.network(frames)
        terms = self._loss(prediction, targets)
        self._optimiser.zero_grad()
        terms.total.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        self._optimiser.step()
        self._update_average()
        return {"loss": terms.total.detach(), **{name: part.detach() for name, part in terms.parts.items()}}

    def _update_average(self) -> None:
        # The first steps average over few weights, or the random start would linger for thousands of steps.
        decay = min(self.config.ema_decay, (1 + self._state.step) / (10 + self._state.step))
        with torch.no_grad():
            for slow, fast in zip(self.average.parameters(), self.network.parameters(), strict=True):
                slow.lerp_(fast, 1 - decay)

    # -- schedule ----------------------------------------------------------------------------------------------------

    def _fraction(self) -> float:
        """How much of the budget is used; 1 or more when the run is over."""
        by_steps = self._state.step / self.config.steps if self.config.steps else 0.0
        by_clock = self._state.elapsed_s / (60 * self.config.minutes) if self.config.minutes else 0.0
        return max(by_steps, by_clock)

    def _set_learning_rate(self) -> float:
        lr = self.config.lr * 0.5**self._state.attempt
        lr *= min(1.0, (self._state.step + 1) / max(self.config.warmup_steps, 1))
        if self.config.schedule == "cosine":
            lr *= 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(self._fraction(), 1.0)))
        else:
            lr *= self._state.plateau_factor
        for group in self._optimiser.param_groups:
            group["lr"] = lr
        return lr

    def _follow_plateau(self, nrmse: float) -> None:
        state = self._state
        if nrmse < state.plateau_best:
            state.plateau_best, state.plateau_step = nrmse, state.step
        elif state.step - state.plateau_step >= self.config.patience_steps:
            state.plateau_factor, state.plateau_step = state.plateau_factor / 2, state.step

    # -- validation --------------------------------------------------------------------------------------------------

    def _validate(self) -> dict[str, float]:
        frames, targets = self._val.validation(self.config.validation_pairs)
        predictions = np.concatenate([self._predict(frame[None]) for frame in frames])
        if self._state.step >= self.config.collapse_check_from:
            _check_collapse(frames, predictions, targets, self._state.step)
        scores = {"nrmse": _nrmse(predictions, targets)}
        scores |= {f"pcc_{c}": _mean_pcc(predictions[:, c], targets[:, c]) for c in range(targets.shape[1])}
        self._follow_plateau(scores["nrmse"])
        mean_pcc = float(np.mean([value for name, value in scores.items() if name.startswith("pcc_")]))
        if mean_pcc > self._state.best_pcc:
            self._state.best_pcc = mean_pcc
            self._write_weights("best.pt")
        return scores

    def _predict(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16()):
            predicted: NDArray[np.float32] = self.average(torch.from_numpy(frames).to(self._device)).cpu().numpy()
        return predicted

    def _bf16(self) -> bool:
        return self.config.precision == "bf16"

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainingCollapsedError(f"the loss became {loss} before step {self._state.step}; lower the rate")

    # -- files -------------------------------------------------------------------------------------------------------

    def _write_weights(self, name: str) -> None:
        partial = self.out_dir / f"{name}.part"
        networks.save(partial, self.average, self.config.architecture, self.config.parameters)
        os.replace(partial, self.out_dir / name)

    def _write_checkpoint(self) -> None:
        state = {name: getattr(self._state, name) for name in _State.__slots__}
        partial = self.out_dir / "checkpoint.pt.part"
        tensors = {"network": self.network, "average": self.average, "optimiser": self._optimiser}
        stored = {name: owner.state_dict() for name, owner in tensors.items()}
        torch.save({**stored, "state": state, "config": _identity(self.config)}, partial)
        os.replace(partial, self.out_dir / "checkpoint.pt")

    def _resume(self) -> None:
        path = self.out_dir / "checkpoint.pt"
        if not path.exists():
            return
        stored = torch.load(path, map_location=self._device, weights_only=True)
        if stored["config"] != _identity(self.config):
            raise ValueError(f"{path} belongs to a run with another config; resume with that one or use a new folder")
        self._start(_State(**stored["state"]))
        self.network.load_state_dict(stored["network"])
        self.average.load_state_dict(stored["average"])
        self._optimiser.load_state_dict(stored["optimiser"])
        log.info("resuming %s at step %d", self.out_dir, self._state.step)


# Changing these does not change what a step computes.
_FREE = {"steps", "minutes", "threads", "read_ahead", "log_every", "checkpoint_every", "restarts"}


def _identity(config: TrainConfig) -> str:
    return config.model_dump_json(exclude=_FREE)


@contextlib.contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Give torch `number` threads, and back what it had."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# -- batches -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _batches(source: TrainSource, config: TrainConfig, state: _State) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
    """Batches from the state's step on, in order, read ahead by one thread that ends with the context."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="livesr-batches")

    def draw(step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([config.seed, state.attempt, step])
        frames, targets = augment(rng, *source.batch(rng, config.batch, config.patch))
        return torch.from_numpy(frames), torch.from_numpy(targets)

    def in_order() -> Iterator[tuple[Tensor, Tensor]]:
        first = state.step
        waiting: deque[Future[tuple[Tensor, Tensor]]] = deque()
        for step in range(first, first + config.read_ahead):
            waiting.append(pool.submit(draw, step))
        while True:
            step += 1
            batch = waiting.popleft().result()
            waiting.append(pool.submit(draw, step))
            yield batch

    try:
        yield in_order()
    finally:
        pool.shutdown(cancel_futures=True)


def augment(rng: np.random.Generator, frames: NDArray[np.float32], targets: NDArray[np.float32]) -> Pairs:
    """Turn and flip each pair, all its frames and targets alike; one of the square's eight symmetries by chance."""
    symmetries = [(int(turns), bool(flip)) for turns, flip in rng.integers((4, 2), size=(len(frames), 2))]
    turned_frames = [_symmetry(f, *symmetry) for f, symmetry in zip(frames, symmetries, strict=True)]
    turned_targets = [_symmetry(t, *symmetry) for t, symmetry in zip(targets, symmetries, strict=True)]
    return np.stack(turned_frames), np.stack(turned_targets)


def _symmetry(images: NDArray[np.float32], turns: int, flip: bool) -> NDArray[np.float32]:
    turned = np.rot90(images, turns, (-2, -1))
    return turned[..., ::-1] if flip else turned


# -- scores --------------------------------------------------------------------------------------------------------


def _nrmse(predictions: NDArray[np.float32], targets: NDArray[np.float32]) -> float:
    """Root mean square error over the targets' range."""
    rmse = np.sqrt(np.mean((predictions - targets) ** 2))
    return float(rmse / max(np.ptp(targets), 1e-6))


def _mean_pcc(predictions: NDArray[np.float32], targets: NDArray[np.float32]) -> float:
    """Mean over images of Pearson's correlation; images whose target is empty have none and are left out."""
    values = [_pcc(p, t) for p, t in zip(predictions, targets, strict=True) if np.std(t) > 1e-6]
    return float(np.mean(values)) if values else 0.0


def _pcc(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Pearson's correlation; 0 when either is constant."""
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(np.vdot(a, b)) / norm if norm > 1e-12 else 0.0


def _check_collapse(
    frames: NDArray[np.float32], predictions: NDArray[np.float32], targets: NDArray[np.float32], step: int
) -> None:
    """Raise TrainingCollapsedError when every channel is constant, darkened or the input times a constant.

    A sigmoid head collapses to a constant; a partition head to the input times a constant, or to "none" everywhere.
    The input itself is the yardstick: a network that has begun to learn follows the structures better than it does, and
    a target that is the input (as in restoration) may be copied.
    """
    contrast = predictions.std((0, 2, 3)) / (targets.std((0, 2, 3)) + 1e-6)
    middle = frames[:, frames.shape[1] // 2]
    what = ""
    if np.all(contrast < 1e-3):
        what = "constant"
    elif middle.shape == predictions[:, 0].shape:
        channels = range(targets.shape[1])
        learned = np.array([_mean_pcc(predictions[:, c], targets[:, c]) for c in channels])
        given = np.array([_mean_pcc(middle, targets[:, c]) for c in channels])
        copied = np.array([_mean_pcc(predictions[:, c], middle) for c in channels])
        if np.all((copied > 0.9999) & (given < 0.999)):
            what = "its input times a constant in every channel"
        elif np.all(learned < 0.2 * given):
            what = "less like the structures than its input is"
    if what:
        raise TrainingCollapsedError(f"at step {step} the network's output is {what}; lower lr or lengthen the warm-up")


# -- the log -------------------------------------------------------------------------------------------------------


class _Meter:
    """Sums of loss terms since the last report, and the clock."""

    def __init__(self, elapsed_s: float) -> None:
        self._origin = time.monotonic() - elapsed_s
        self._since, self._steps = time.monotonic(), 0
        self._sums: dict[str, Tensor] = {}

    def elapsed_s(self) -> float:
        return time.monotonic() - self._origin

    def add(self, terms: dict[str, Tensor]) -> None:
        self._steps += 1
        for name, value in terms.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def flush(self, batch: int) -> tuple[dict[str, float], float]:
        """Return the means of the terms and the patches a second since the last call."""
        means = {name: float(value) / self._steps for name, value in self._sums.items()}
        rate = batch * self._steps / max(time.monotonic() - self._since, 1e-9)
        self._since, self._steps, self._sums = time.monotonic(), 0, {}
        return means, rate


class _Table:
    """`log.csv`: one row a report; validation columns are empty in between."""

    def __init__(self, path: Path, state: _State) -> None:
        self._path = path
        self._rows = [row for row in self._read() if self._is_past(row, state)]

    def _read(self) -> list[dict[str, str]]:
        if not self._path.exists():
            return []
        with self._path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    @staticmethod
    def _is_past(row: dict[str, str], state: _State) -> bool:
        """Rows written after the checkpoint that a run resumes from will be written again."""
        attempt, step = int(row["attempt"]), int(row["step"])
        return attempt < state.attempt or (attempt == state.attempt and step <= state.step)

    def add(self, progress: Progress, attempt: int) -> None:
        numbers = {"lr": progress.lr, "patches_per_s": progress.patches_per_s, "minutes": progress.minutes}
        floats = {**progress.losses, **numbers, **{f"val_{k}": v for k, v in progress.validation.items()}}
        row = {"attempt": str(attempt), "step": str(progress.step), **{k: f"{v:.6g}" for k, v in floats.items()}}
        self._rows.append(row)
        self._write()

    def _write(self) -> None:
        columns = list(dict.fromkeys(name for row in self._rows for name in row))
        with self._path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self._rows)
