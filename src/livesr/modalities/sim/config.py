"""The section `sim` of rig.yaml.

Owns the model and its defaults. Reads no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from livesr.base.config import (
    Model,
    NotNegative,
    Number,
    PatternConfig,
    Positive,
    Section,
    TriggerConfig,
)

_Step = Annotated[int, Field(ge=0, lt=12)]


class QualityLimitsConfig(Model):
    """When a SIM frame is doubtful, and what is shown then.

    `when_doubtful` "widefield" shows the mean of the raw frames, "refuse" nothing, "reconstruct"
    the reconstruction all the same; the frame, the store and the stream say why in each case.
    `contrast_to_noise` and `modulation` (relative to the calibrated one) are the least that the
    weakest wave must have, `phase_error_rad` and `motion_nm` the most there may be; `saturated` is
    the share of a raw frame's pixels that may be at the camera's ceiling.
    """

    when_doubtful: Literal["widefield", "refuse", "reconstruct"] = "widefield"
    contrast_to_noise: NotNegative = 3.0
    modulation: NotNegative = 0.4
    phase_error_rad: Positive = 0.8
    motion_nm: Positive = 150.0
    saturated: Annotated[float, Field(gt=0, le=1)] = 0.01


class SIMConfig(Section):
    """How raw frames are ordered and what pattern each one saw.

    `pattern_property` names the (device, property) that is set to 0 before a run, so that raw frame
    0 sees pattern 0 even if the last run ended inside a group; `trigger` is the output that lets a
    display run in hardware.

    `order` is "angle-major" (0,0 0,1 0,2 1,0 ...), "phase-major", or the list of [angle, phase] of
    every raw index. `patterns` may be missing until `livesr calibrate` has found them. `harmonics`
    is the number of waves per angle: 1 for two interfering beams, 2 for three. `follow_drift`
    corrects phases that drift slowly during a run. `calibrated_with` lists (device, property,
    value) of objective and camera orientation that the patterns hold for.
    """

    renamed: ClassVar[Mapping[str, str]] = {"trust": "quality_limits"}

    modality: Literal["sim"] = "sim"
    angles: Annotated[int, Field(ge=1, le=12)] = 3
    phases: Annotated[int, Field(ge=3, le=12)] = 3
    harmonics: Annotated[int, Field(ge=1, le=4)] = 1
    order: Literal["angle-major", "phase-major"] | list[tuple[_Step, _Step]] = "angle-major"
    phase_steps_rad: list[Number] | None = None
    patterns: list[PatternConfig] = Field(default_factory=list)
    wiener: Positive = 0.1
    attenuation: Annotated[float, Field(ge=0, lt=1)] = 0.9
    attenuation_fwhm_um: Positive = 1.2
    apodisation: NotNegative = 1.0
    quality_limits: QualityLimitsConfig = QualityLimitsConfig()
    follow_drift: bool = True
    calibrated_with: list[tuple[str, str, str]] = Field(default_factory=list)
    equalise: bool = True
    pattern_property: tuple[str, str] | None = None
    trigger: TriggerConfig | None = None

    @property
    def raw_frames(self) -> int:
        """Exposures in one super-resolution frame."""
        return self.angles * self.phases

    def raw_order(self) -> list[tuple[int, int]]:
        """(angle, phase) of every raw index."""
        if isinstance(self.order, list):
            return self.order
        if self.order == "angle-major":
            return [(a, p) for a in range(self.angles) for p in range(self.phases)]
        return [(a, p) for p in range(self.phases) for a in range(self.angles)]

    @model_validator(mode="after")
    def _consistent(self) -> SIMConfig:
        check_patterns(self.patterns, self.angles, self.harmonics)
        if self.phases < 2 * self.harmonics + 1:
            raise ValueError(
                f"{self.phases} phases do not separate {self.harmonics} waves; give at least"
                f" {2 * self.harmonics + 1}"
            )
        expected = {(a, p) for a in range(self.angles) for p in range(self.phases)}
        order = self.raw_order()
        if len(order) != len(expected) or set(order) != expected:
            raise ValueError(
                f"order must name each of the {len(expected)} (angle, phase) pairs once, got"
                f" {order}"
            )
        if self.phase_steps_rad is not None and len(self.phase_steps_rad) != self.phases:
            raise ValueError(
                f"{len(self.phase_steps_rad)} phase steps came for {self.phases} phases"
            )
        return self


def check_patterns(patterns: list[PatternConfig], angles: int, harmonics: int) -> None:
    """Refuse patterns that are not one for each angle, with an overtone for each further wave.

    Raises
    ------
    ValueError
        If they are not; none at all are right, until a calibration has found them.
    """
    if not patterns:
        return
    if len(patterns) != angles:
        raise ValueError(
            f"{len(patterns)} patterns came for {angles} angles; give one pattern per angle"
        )
    for pattern in patterns:
        if len(pattern.overtones) != harmonics - 1:
            raise ValueError(
                f"a pattern has {len(pattern.overtones)} overtones, {harmonics - 1} are expected"
                f" with harmonics: {harmonics}"
            )
