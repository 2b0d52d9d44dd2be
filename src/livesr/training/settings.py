"""What determines a training run besides its data.

The defaults are those of livesr's light engines.

Owns the fields and their checks; the papers' own values are in the recipes
(`livesr.training.recipes`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from livesr.evaluation.metrics import PAPER_CONSTANTS

if TYPE_CHECKING:
    from torch import nn

# Changing these does not change what a step makes of the network, so a run may go on with others.
_FREE = {
    "steps",
    "minutes",
    "device",
    "threads",
    "loaders",
    "read_ahead",
    "log_every",
    "checkpoint_every",
    "restarts",
    "ema_decay",
}

_ADVERSARIAL = ("content", "adversarial", "discriminator_width", "discriminator_lr")
_ADDED = ("correlation", "invented")  # to the paper's combination loss


class LossConfig(BaseModel):
    """Which loss, and the combination loss's weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["combination", "l1", "adversarial"] = "combination"
    """"adversarial" adds a discriminator to `content`: sharper, less true, see
    `AdversarialLoss`."""
    content: Literal["combination", "l1"] = "combination"
    """The loss of pixels of an adversarial training."""
    adversarial: PositiveFloat = 0.1
    """Weight of the discriminator's term, and below its width and rate."""
    discriminator_width: PositiveInt = 32
    discriminator_lr: PositiveFloat = 1e-4
    mse: float = 1.0
    structure: float = 0.1
    summation: float = 0.02
    ssim_constants: tuple[PositiveFloat, PositiveFloat] = PAPER_CONSTANTS
    summation_with: Literal["structures", "input"] = "structures"
    """What the channels should sum to: the structures without noise, or the frame as it came."""
    balance: float = Field(0.0, ge=0, le=1)
    """How far a dim structure counts like a bright one; see `CombinationLoss`."""
    correlation: float = Field(0.0, ge=0)
    """Weight of 1 - PCC of each structure that is there."""
    invented: float = Field(0.0, ge=0)
    """Weight of the share of the light that is given to structures that are not there."""

    def make(self, channels: int = 1) -> nn.Module:
        """Return the loss for images of so many channels."""
        # here, so that a recipe is read, and its errors are named, where torch is not installed
        from livesr.training.losses import AdversarialLoss, CombinationLoss, L1Loss

        if self.kind == "adversarial":
            content = self.model_copy(update={"kind": self.content}).make()
            width, lr = self.discriminator_width, self.discriminator_lr
            return AdversarialLoss(content, self.adversarial, channels, width, lr)
        if self.kind == "l1":
            return L1Loss()
        return CombinationLoss(
            self.mse,
            self.structure,
            self.summation,
            self.ssim_constants,
            self.balance,
            self.summation_with,
            self.correlation,
            self.invented,
        )


class TrainConfig(BaseModel):
    """Everything that determines a run besides its data.

    The run ends after `steps` or after `minutes`, whichever comes first. A run limited by steps
    alone can be repeated exactly; under a limit of minutes the cosine schedule follows the clock.
    Under "constant" the budget changes no step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str = "imcsr"
    parameters: dict[str, Any] = {}
    steps: PositiveInt | None = None
    minutes: PositiveFloat | None = None
    batch: PositiveInt = 8
    patch: PositiveInt = 128
    lr: PositiveFloat = 1e-3
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    """"constant" keeps the rate after the warm-up.

    The averaged weights are good at any moment, so a run may end, or go on with a larger budget,
    whenever one likes. The cosine is better when the budget is known beforehand.
    """
    warmup_steps: int = Field(200, ge=0)
    patience_steps: PositiveInt = 10_000
    """Steps without a better validation NRMSE before "plateau" halves the rate (IMC-SR's
    10,000)."""
    optimiser: Literal["adam", "adamw", "muon"] = "adamw"
    """"muon" makes the updates of kernels orthogonal (Jordan et al. 2024); other weights have
    AdamW's."""
    weight_decay: float = Field(1e-4, ge=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    """Of the averaged weights, which are what is validated and exported.

    0 takes the last step's.
    """
    precision: Literal["fp32", "bf16"] = "bf16"
    """bf16 is mixed precision: weights, losses and sums stay fp32."""
    channels_last: bool = True
    clip_norm: PositiveFloat | None = 1.0
    """Longest gradient; None clips nothing."""
    loss: LossConfig = LossConfig()
    start: str | None = None
    """A run's folder or weights, or an engine, whose tensors of the same name and shape the network
    begins with; of the last layer those of the structures that it draws as well."""
    begin_as: dict[str, str] = {}
    """Structure of this network to one of `start` whose output it begins with, where `start` has
    none of its name."""
    teacher: str | None = None
    """Weights (best.pt) of a network with the same input and output that this one also learns
    from."""
    teacher_share: float = Field(0.5, gt=0, le=1)
    """Part of the loss that compares with the teacher instead of the truth."""
    teacher_views: int = Field(1, ge=1, le=8)
    """Views of each batch whose mean is what the teacher says, of the square's eight symmetries."""
    seed: int = Field(0, ge=0)
    device: str = "auto"
    """"cpu", "cuda", or "auto": the GPU if there is one."""
    threads: PositiveInt | None = None
    loaders: PositiveInt = 2
    """Threads that draw batches."""
    read_ahead: PositiveInt = 8
    """Batches that are drawn before they are needed."""
    log_every: PositiveInt = 50
    validate_every: PositiveInt = 500
    validation_pairs: PositiveInt = 8
    checkpoint_every: PositiveInt = 500
    collapse_check_from: PositiveInt = 1000
    restarts: int = Field(0, ge=0)
    """How often a collapsed run starts anew, each time with half the learning rate.

    0 raises at once.
    """

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if self.steps is None and self.minutes is None:
            raise ValueError("a run needs an end: give steps, minutes or both")
        if self.begin_as and not self.start:
            raise ValueError("begin_as is for structures of a start: give start, or leave it out")
        if self.teacher_views > 1 and not self.teacher:
            raise ValueError("teacher_views are of a teacher: give teacher, or leave them out")
        if self.teacher and self.loss.kind == "adversarial":
            raise ValueError("a discriminator and a teacher cannot both be learned from: give one")
        return self

    def identity(self) -> str:
        """Return what must be equal for a checkpoint to be resumed, as text."""
        left_out: dict[str, Any] = dict.fromkeys(_FREE if self.start else _FREE | {"start"}, True)
        # as before there was a choice
        unknown = set(_ADVERSARIAL) if self.loss.kind != "adversarial" else set()
        if self.loss.summation_with == "structures":
            unknown.add("summation_with")
        unknown |= {name for name in _ADDED if not getattr(self.loss, name)}
        left_out["loss"] = unknown
        if not self.begin_as:
            left_out["begin_as"] = True
        if self.teacher_views == 1:
            left_out["teacher_views"] = True
        return self.model_dump_json(exclude=left_out)
