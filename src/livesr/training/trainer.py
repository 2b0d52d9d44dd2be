"""The training loop: from a source of pairs to the weights of a network.

Owns optimisation, schedule, validation and checkpoints. Does not draw or turn batches
(`batches.py`), make pairs (`pair_folder.py`), judge (`scores.py`), write tables and pictures
(`journal.py`) or export (`livesr.export`).

Files of a run's folder: `config.json`, `log.csv`, `curves.png`, `validation.png`, `checkpoint.pt`
(to resume), `best.pt` (averaged weights of the best validation, read by `networks.load`),
`final.pt` (the last ones, when the run is over) and `start.json` (where the first weights came
from, if not from chance).

A run that was killed and resumed equals one that was not: batches depend on their step alone, and a
checkpoint holds all that the next step and the next line of the log depend on. On a GPU this is
exact but for the order of its sums.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from livesr.base.files import replace_file
from livesr.training import networks
from livesr.training.batches import Batch, Batches
from livesr.training.journal import Meter, Progress, Table, draw_curves, draw_validation
from livesr.training.losses import Distillation, LossTerms
from livesr.training.optimisers import make_optimiser
from livesr.training.scores import TrainingCollapsedError, check_collapse, validation_scores
from livesr.training.settings import TrainConfig
from livesr.training.sources import TrainSource, ValidationSource
from livesr.training.start import START_NAME, begin_with

log = logging.getLogger(__name__)

Report = Callable[[Progress], None]

_DRAW_EVERY_S = 15.0  # pictures cost up to half a second


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


def find_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the GPU if there is one.

    Raises
    ------
    ValueError
        If torch does not know it, or sees no such GPU.
    """
    there = torch.cuda.device_count()
    if name == "auto":
        name = "cuda" if there else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as e:
        raise ValueError(f"device {name!r} is not known; choose auto, cpu, cuda or cuda:1") from e
    if device.type == "cuda" and (device.index or 0) >= there:
        raise ValueError(f"device {name!r} is asked for, and torch sees {there} GPUs; choose cpu")
    return device


class Trainer:
    """Train one network.

    Parameters
    ----------
    config : see `TrainConfig`
    train_source, val_source : batches to learn from and pairs to validate on. `train_source.batch`
        runs in several threads
    out_dir : the run's folder. If it holds a checkpoint of the same config, `run` resumes there;
        one of a different config raises ValueError, but for what does not change a step (budget,
        device, threads, intervals of the log)
    names : of the output channels, that of unknown light included, for the pictures; the structures
        among them are kept with the weights

    Raises
    ------
    ValueError
        If the network cannot be built, its teacher has another input or output, or nothing fits of
        what it should begin with.
    """

    def __init__(
        self,
        config: TrainConfig,
        train_source: TrainSource,
        val_source: ValidationSource,
        out_dir: Path,
        names: Sequence[str] = (),
    ) -> None:
        self.config, self.out_dir, self._names = config, out_dir, tuple(names)
        self._train, self._val = train_source, val_source
        self._device = find_device(config.device)
        self._meter_state: dict[str, Any] | None = None
        self._drawn = -math.inf
        self._start(_State())
        self._check_pairs()

    @property
    def finished(self) -> bool:
        """Whether the budget is used up."""
        return self._fraction() >= 1

    def run(self, on_progress: Report | None = None, *, minutes: float | None = None) -> nn.Module:
        """Train to the end of the budget, or for `minutes`, and return the averaged network, ready
        for inference.

        After `minutes` the run stops with a checkpoint: calling `run` again, in this process or
        another, goes on there. An interrupted run continues from its last checkpoint in the same
        way.

        Raises
        ------
        TrainingCollapsedError
            When a run has collapsed and no restart is left.
        """
        until = time.monotonic() + 60 * minutes if minutes else math.inf
        self.out_dir.mkdir(parents=True, exist_ok=True)
        self._resume()
        (self.out_dir / "config.json").write_text(
            self.config.model_dump_json(indent=2) + "\n", encoding="utf-8"
        )
        if self._begun:
            (self.out_dir / START_NAME).write_text(
                json.dumps(self._begun.to_json(), indent=2) + "\n", encoding="utf-8"
            )
        with _torch_settings(self.config.threads):
            while True:
                try:
                    self._attempt(on_progress or (lambda progress: None), until)
                    break
                except TrainingCollapsedError as error:
                    if self._state.attempt >= self.config.restarts:
                        raise
                    log.warning("%s; starting anew with half the learning rate", error)
                    self._meter_state = None
                    self._start(
                        _State(elapsed_s=self._state.elapsed_s, attempt=self._state.attempt + 1)
                    )
        if self.finished:
            self._write_weights("final.pt")
        return self.average

    # -- beginning ---------------------------------------------------------------------------------

    def _start(self, state: _State) -> None:
        """Make network, average and optimiser anew for the state's attempt."""
        torch.manual_seed(self.config.seed + state.attempt)
        network = networks.build(self.config.architecture, **self.config.parameters)
        drawn = int(getattr(network, "structures", getattr(network, "channels", 1)))
        self._structures = self._names[:drawn]
        self._begun = (
            begin_with(network, self.config.start, self._structures, self.config.begin_as)
            if self.config.start
            else None
        )
        network = network.to(self._device)
        if self.config.channels_last:
            network = network.to(memory_format=torch.channels_last)
        self.network, self.average, self._state = network, copy.deepcopy(network).eval(), state
        self._optimiser = make_optimiser(
            self.config.optimiser, network, self.config.lr, self.config.weight_decay
        )
        self._loss = self._make_loss()

    def _check_pairs(self) -> None:
        """Refuse pairs that the network does not take, or does not make."""
        frames, targets = self._val.validation(1)
        scale = targets.shape[-1] // frames.shape[-1]
        there = {"frames": frames.shape[1], "channels": targets.shape[1], "scale": scale}
        own: dict[str, Any] = {n: getattr(self.network, n, size) for n, size in there.items()}
        if own != there:
            told = [
                f"{name} {there[name]} of the pairs, {own[name]} of the network"
                for name in there
                if own[name] != there[name]
            ]
            enlarges = scale > 1 and own["scale"] == 1
            advice = (
                f"{self.config.architecture} keeps the size of its input: choose one that enlarges,"
                " as edsr, rcan or dfcan"
                if enlarges
                else "correct 'parameters', or make other pairs"
            )
            raise ValueError(
                f"the network {self.config.architecture!r} does not fit the pairs"
                f" ({'; '.join(told)}): {advice}"
            )

    def _make_loss(self) -> nn.Module:
        channels = int(getattr(self.network, "channels", 1))
        loss = self.config.loss.make(channels).to(self._device)
        if self.config.teacher is None:
            return loss
        teacher = networks.load(Path(self.config.teacher)).to(self._device)
        for what in ("frames", "channels", "scale"):
            theirs, ours = getattr(teacher, what), getattr(self.network, what)
            if theirs != ours:
                counted = ", that of unknown light included" if what == "channels" else ""
                raise ValueError(
                    f"the teacher has {what} {theirs}, this network {ours}{counted}; they must be"
                    " alike"
                )
        structures = getattr(self.network, "structures", channels)
        views, seed = self.config.teacher_views, self.config.seed
        share = self.config.teacher_share
        return Distillation(loss, teacher, share, structures, views=views, seed=seed)

    # -- one attempt -------------------------------------------------------------------------------

    def _attempt(self, report: Report, until: float) -> None:
        state, pin = self._state, self._device.type == "cuda"
        meter = Meter(state.elapsed_s, self._meter_state)
        table = Table(self.out_dir / "log.csv", state.attempt, state.step)
        with Batches(self._train, self.config, state.attempt, state.step, pin=pin) as batches:
            if self._begun and not state.step and state.best_pcc == -math.inf:
                self._judge_start(table, report)
            while not self.finished and time.monotonic() < until:
                lr = self._set_learning_rate()
                meter.add(self._step(batches.next()))
                state.step += 1
                state.elapsed_s = meter.elapsed_s()
                self._housekeeping(meter, batches.waited_s, table, report, lr)
        if not self.finished:
            self._write_checkpoint(meter)

    def _judge_start(self, table: Table, report: Report) -> None:
        """Validate what the run begins with: it stays the best until something is better."""
        scores, minutes = self._validate(draw=False), self._state.elapsed_s / 60
        progress = Progress(0, 0.0, {}, 0.0, 0.0, 0.0, minutes, scores, self._patches())
        table.add(progress, self._state.attempt)
        report(progress)

    def _housekeeping(
        self, meter: Meter, waited_s: float, table: Table, report: Report, lr: float
    ) -> None:
        """Validate, report and save when it is time; after the last step, all of it."""
        step, last = self._state.step, self.finished
        validate = last or step % self.config.validate_every == 0
        if validate or step % self.config.log_every == 0:
            losses, rate, waiting = meter.flush(self.config.batch, waited_s)
            self._check_finite(losses["loss"])
            draw = validate and (last or time.monotonic() - self._drawn > _DRAW_EVERY_S)
            scores = self._validate(draw) if validate else {}
            minutes = self._state.elapsed_s / 60
            progress = Progress(
                step,
                min(self._fraction(), 1.0),
                losses,
                lr,
                rate,
                waiting,
                minutes,
                scores,
                self._patches(),
            )
            table.add(progress, self._state.attempt)
            if draw:
                draw_curves(self.out_dir / "log.csv", self.out_dir / "curves.png", self._names)
                self._drawn = time.monotonic()
            report(progress)
        if last or step % self.config.checkpoint_every == 0:
            self._write_checkpoint(meter)

    def _step(self, batch: Batch) -> dict[str, Tensor]:
        frames, targets = (images.to(self._device, non_blocking=True) for images in batch)
        if self.config.channels_last:
            frames = frames.contiguous(memory_format=torch.channels_last)
        with self._mixed_precision():
            terms = self._terms(self.network(frames), targets, frames)
        self._optimiser.zero_grad()
        terms.total.backward()
        if self.config.clip_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        self._optimiser.step()
        self._update_average()
        return {
            "loss": terms.total.detach(),
            **{name: part.detach() for name, part in terms.parts.items()},
        }

    def _terms(self, prediction: Tensor, targets: Tensor, frames: Tensor) -> LossTerms:
        given = (frames,) if self._loss.sees_input else ()
        terms: LossTerms = self._loss(prediction, targets, *given)
        return terms

    def _update_average(self) -> None:
        # The first steps average over few weights, or the random start would linger for thousands
        # of steps.
        decay = min(self.config.ema_decay, (1 + self._state.step) / (10 + self._state.step))
        update = get_ema_multi_avg_fn(decay)
        update(list(self.average.parameters()), list(self.network.parameters()), 0)
        # The statistics of batch normalisation are means already.
        for slow, fast in zip(self.average.buffers(), self.network.buffers(), strict=True):
            slow.copy_(fast)

    def _mixed_precision(self) -> torch.autocast:
        return torch.autocast(
            self._device.type, torch.bfloat16, enabled=self.config.precision == "bf16"
        )

    def _patches(self) -> int:
        """Count the patches that these weights have seen, those of the runs that they began with
        included.
        """
        return (self._begun.patches if self._begun else 0) + self._state.step * self.config.batch

    # -- schedule ----------------------------------------------------------------------------------

    def _fraction(self) -> float:
        """How much of the budget is used; 1 or more when the run is over."""
        by_steps = self._state.step / self.config.steps if self.config.steps else 0.0
        by_clock = (
            self._state.elapsed_s / (60 * self.config.minutes) if self.config.minutes else 0.0
        )
        return max(by_steps, by_clock)

    def _set_learning_rate(self) -> float:
        lr = self.config.lr * 0.5**self._state.attempt
        lr *= min(1.0, (self._state.step + 1) / max(self.config.warmup_steps, 1))
        if self.config.schedule == "cosine":
            lr *= 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(self._fraction(), 1.0)))
        elif self.config.schedule == "plateau":
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

    # -- validation --------------------------------------------------------------------------------

    def _validate(self, draw: bool) -> dict[str, float]:
        frames, targets = self._val.validation(self.config.validation_pairs)
        predictions = np.concatenate([self._predict(frame[None]) for frame in frames])
        if draw:
            draw_validation(
                frames, predictions, targets, self._names, self.out_dir / "validation.png"
            )
        if self._state.step >= self.config.collapse_check_from:
            check_collapse(frames, predictions, targets, self._state.step)
        scores = validation_scores(predictions, targets)
        self._follow_plateau(scores["nrmse"])
        if scores["pcc"] > self._state.best_pcc:
            self._state.best_pcc = scores["pcc"]
            self._write_weights("best.pt")
        return scores

    def _predict(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode(), self._mixed_precision():
            predicted: NDArray[np.float32] = (
                self.average(torch.from_numpy(frames).to(self._device)).cpu().numpy()
            )
        return predicted

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainingCollapsedError(
                f"the loss became {loss} before step {self._state.step}; lower the rate"
            )

    # -- files -------------------------------------------------------------------------------------

    def _write_weights(self, name: str) -> None:
        partial = self.out_dir / f"{name}.part"
        networks.save(
            partial,
            self.average,
            self.config.architecture,
            self.config.parameters,
            self._patches(),
            self._structures,
        )
        replace_file(partial, self.out_dir / name)

    def _write_checkpoint(self, meter: Meter) -> None:
        partial = self.out_dir / "checkpoint.pt.part"
        stored: dict[str, Any] = {
            name: owner.state_dict() for name, owner in self._learning().items()
        }
        stored["state"] = {name: getattr(self._state, name) for name in _State.__slots__}
        self._meter_state = stored["meter"] = meter.state()
        torch.save({**stored, "config": self.config.identity()}, partial)
        replace_file(partial, self.out_dir / "checkpoint.pt")

    def _learning(self) -> dict[str, Any]:
        """Return what a step changes, by its name in the checkpoint."""
        owners = {"network": self.network, "average": self.average, "optimiser": self._optimiser}
        if self.config.loss.kind == "adversarial" or self.config.teacher_views > 1:
            owners["loss"] = self._loss
        return owners

    def _resume(self) -> None:
        path = self.out_dir / "checkpoint.pt"
        if not path.exists():
            return
        try:
            stored = torch.load(path, map_location=self._device, weights_only=True)
        except (RuntimeError, EOFError) as e:
            raise ValueError(
                f"{path} is damaged; delete it, and the run starts anew on the same pairs"
            ) from e
        if stored["config"] != self.config.identity():
            raise ValueError(
                f"{path} belongs to a run with another config; resume with that one or use a new"
                " folder"
            )
        self._start(_State(**stored["state"]))
        self._meter_state = stored["meter"]
        for name, owner in self._learning().items():
            owner.load_state_dict(stored[name])
        log.info("resuming %s at step %d", self.out_dir, self._state.step)


@contextlib.contextmanager
def _torch_settings(threads: int | None) -> Iterator[None]:
    """Give torch `threads` threads and let cuDNN look for the fastest convolutions.

    Give back what it had.
    """
    before = torch.get_num_threads(), torch.backends.cudnn.benchmark
    torch.set_num_threads(threads or before[0])
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.backends.cudnn.benchmark = before[1]
