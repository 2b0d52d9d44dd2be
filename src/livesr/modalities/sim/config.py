"""The section `sim` of rig.yaml.

Owns the model and its defaults. Reads no file.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from livesr.base.config import (
    ChannelSection,
    Model,
    NotNegative,
    Number,
    Positive,
    RawAxes,
    RigConfig,
    Section,
    TriggerConfig,
)

_Tiles = Annotated[int, Field(ge=1, le=12)]
_Step = Annotated[int, Field(ge=0, lt=12)]


# cycles/um, either way; the finest pattern that ultraviolet light can make has about 17
_Frequency = Annotated[float, Field(ge=-50, le=50, allow_inf_nan=False)]


class OvertoneConfig(Model):
    """A wave with a multiple of its pattern's k, or in a lattice one of another direction."""

    k_um: tuple[_Frequency, _Frequency] | None = None
    """(ky, kx) in cycles/um in the sample, in a lattice; 2 k, 3 k ... without."""
    phase_rad: Number
    """At phase step 0, at the centre of the chip's pixel (0, 0)."""
    modulation: Annotated[float, Field(ge=1e-3, le=1)]
    """Amplitude relative to the pattern's mean."""


class PatternConfig(Model):
    """One illumination direction, in units that outlive a change of ROI or binning."""

    k_um: tuple[_Frequency, _Frequency]
    """(ky, kx) in cycles/um in the sample."""
    phase_rad: Number = 0.0
    """At phase step 0, at the centre of the chip's pixel (0, 0)."""
    modulation: Annotated[float, Field(ge=1e-3, le=1)] = 1.0
    """Amplitude relative to the pattern's mean."""
    overtones: list[OvertoneConfig] = Field(default_factory=list)
    """The waves with 2 k, 3 k ... of three beams or more."""


class QualityLimitsConfig(Model):
    """When a SIM frame is doubtful, and what is shown then.

    Frame, store and stream say why in each case.
    """

    when_doubtful: Literal["widefield", "refuse", "reconstruct"] = "widefield"
    """"widefield" shows the mean of the raw frames, "refuse" nothing, "reconstruct" the
    reconstruction all the same.
    """
    contrast_to_noise: NotNegative = 3.0
    """What the weakest wave must have."""
    modulation: NotNegative = 0.4
    """What the weakest wave must have, relative to the calibrated one."""
    phase_error_rad: Positive = 0.8
    """What the phase of a wave may be off."""
    motion_nm: Positive = 150.0
    """How far the sample may move between the first and the last raw frame."""
    saturated: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Share of a raw frame's pixels that may be at the camera's ceiling."""


class SIMConfig(Section):
    """How raw frames are ordered, what pattern each one saw, and how they are reconstructed."""

    incidental: ClassVar[frozenset[str]] = frozenset(
        {"order", "mosaic", "update", "phase_steps_rad", "patterns", "quality_limits"}
        | {"follow_drift", "calibrated_with", "pattern_property", "trigger"}
    )

    modality: Literal["sim"] = "sim"
    angles: Annotated[int, Field(ge=1, le=12)] = 3
    """Directions of the pattern."""
    phases: Annotated[int, Field(ge=3, le=12)] = 3
    """Raw frames of each direction, at least two for each wave and one more."""
    harmonics: Annotated[int, Field(ge=1, le=4)] = 1
    """Waves of each direction: 1 for two interfering beams, 2 for three."""
    waves: Literal["overtones", "lattice", "nonlinear"] = "overtones"
    """What the waves beyond the first are: "overtones" of three beams; in a "lattice" other
    directions, all in every raw frame, each turned by 1, 2, 3 ... phase steps: hexagonal SIM
    (angles: 1, phases: 7, harmonics: 3), a square lattice (1, 5, 2); "nonlinear" overtones reach
    beyond the optics (5, 5, 2), and the result has a pixel more for each.
    """
    order: Literal["angle-major", "phase-major"] | list[tuple[_Step, _Step]] = "angle-major"
    """Of the raw frames: "angle-major" (0,0 0,1 0,2 1,0 ...), "phase-major", or the [angle, phase]
    of every raw index.
    """
    mosaic: tuple[_Tiles, _Tiles] | None = None
    """(rows, columns) of raw frames in every image of a recording that holds a whole group side by
    side, as Nikon's N-SIM writes it: [3, 3]. Raw frame 0 is the upper left one, 1 the next to the
    right.
    """
    update: Literal["group", "angle", "frame"] = "group"
    """When a new picture is shown: "group" when all exposures came, "angle" (order angle-major) and
    "frame" also after every angle or exposure, from the newest of all patterns. Such updates are
    shown and published, stored with `store.rolling`, never separated.
    """
    phase_steps_rad: list[Number] | None = None
    """Phase of each step against the first; equal parts of a turn without."""
    patterns: list[PatternConfig] = Field(default_factory=list)
    """One for each angle; missing until `livesr calibrate` has found them."""
    wiener: Positive = 0.1
    """Wiener parameter w: more is smoother, less sharp. 0.1 suits good light, 0.2 dim samples."""
    attenuation: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """How much the centre of every band is suppressed, where light out of focus lies."""
    attenuation_fwhm_um: Positive = 1.2
    """Width of that, cycles/um."""
    sectioning: bool = False
    """Optical sections: the low frequencies, which light out of focus has without the pattern, come
    from the waves alone. The finer the pattern, the fewer there are.
    """
    apodisation: NotNegative = 1.0
    """Exponent of the cosine that closes the spectrum at the extended cutoff; 0 leaves it out."""
    quality_limits: QualityLimitsConfig = QualityLimitsConfig()
    """When a frame is doubtful, and what is shown then."""
    follow_drift: bool = True
    """Correct phases and pattern vectors that drift slowly during a run."""
    calibrated_with: list[tuple[str, str, str]] = Field(default_factory=list)
    """(device, property, value) of objective and camera orientation that the patterns hold for."""
    equalise: bool = True
    """Scale the raw frames of a group to one mean, against bleaching and flicker."""
    pattern_property: tuple[str, str] | None = None
    """(device, property) that is set to 0 before a run, so that raw frame 0 sees pattern 0 even if
    the last run ended inside a group.
    """
    trigger: TriggerConfig | None = None
    """The output that lets a display run in hardware; None without."""

    @property
    def raw_frames(self) -> int:
        """Exposures in one super-resolution frame."""
        return self.angles * self.phases

    @property
    def updates(self) -> tuple[int, ...]:
        """Exposures of a group after which a picture is made of the newest of all patterns."""
        order = self.raw_order()
        if self.update == "group":
            return ()
        every = range(1, len(order))
        if self.update == "frame":
            return tuple(every)
        return tuple(n for n in every if order[n][0] != order[n - 1][0])

    @property
    def tiles(self) -> tuple[int, int] | None:
        """(rows, columns) of raw frames in an image of a recording."""
        return self.mosaic

    @property
    def raw_axes(self) -> RawAxes:
        """Angles and phases, which planes may stand between."""
        return RawAxes(("angle", "phase"), tuple(self.raw_order()))

    @property
    def lattice(self) -> bool:
        """Whether every raw frame shows all directions at once."""
        return self.waves == "lattice"

    @property
    def nonlinear(self) -> bool:
        """Whether overtones reach beyond the optics."""
        return self.waves == "nonlinear"

    @property
    def scale(self) -> int:
        """Pixels of the result per camera pixel, along each side."""
        return 1 + self.harmonics if self.nonlinear else 2

    def raw_order(self) -> list[tuple[int, int]]:
        """(angle, phase) of every raw index."""
        if isinstance(self.order, list):
            return self.order
        if self.order == "angle-major":
            return [(a, p) for a in range(self.angles) for p in range(self.phases)]
        return [(a, p) for p in range(self.phases) for a in range(self.angles)]

    @model_validator(mode="after")
    def _consistent(self) -> SIMConfig:
        if self.lattice and (self.angles > 1 or self.harmonics < 2):
            raise ValueError(
                f"waves: lattice: all directions stand in every raw frame, so that angles is 1 and"
                f" harmonics counts them; got angles: {self.angles}, harmonics: {self.harmonics}."
                " Hexagonal SIM has angles: 1, phases: 7, harmonics: 3"
            )
        if self.nonlinear and self.harmonics < 2:
            raise ValueError(
                "waves: nonlinear: overtones reach beyond the optics, so that harmonics counts at"
                f" least 2, got {self.harmonics}"
            )
        check_patterns(self.patterns, self.angles, self.harmonics, self.lattice)
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
        if self.mosaic and self.mosaic[0] * self.mosaic[1] != self.raw_frames:
            raise ValueError(
                f"a mosaic of {self.mosaic[0]} x {self.mosaic[1]} does not hold {self.raw_frames}"
                f" raw frames ({self.angles} angles x {self.phases} phases)"
            )
        if self.update == "angle" and len(self.updates) != self.angles - 1:
            raise ValueError(
                "update: angle needs all exposures of an angle in a row (order: angle-major), got"
                f" {order}; use update: frame, or group"
            )
        if self.phase_steps_rad is not None and len(self.phase_steps_rad) != self.phases:
            raise ValueError(
                f"{len(self.phase_steps_rad)} phase steps came for {self.phases} phases"
            )
        return self


class SIMChannelConfig(ChannelSection):
    """What differs from channel to channel; what is left out is that of `sim`."""

    wiener: Positive | None = None
    """As `sim.wiener`."""
    excitation_nm: Annotated[float, Field(gt=300, lt=1200)] | None = None
    """Wavelength of the light that makes the pattern; `livesr process --volume` asks for it."""
    patterns: list[PatternConfig] | None = None
    """As `sim.patterns`."""


def patterns_of(rig: RigConfig, channel: str) -> list[PatternConfig]:
    """Return the patterns of a channel: its own, or those of the rig; [] before a calibration."""
    return SIMChannelConfig.of(rig, channel).patterns or SIMConfig.of(rig).patterns


def check_patterns(
    patterns: list[PatternConfig], angles: int, harmonics: int, lattice: bool
) -> None:
    """Refuse patterns that are not one for each angle, with an overtone for each further wave,
    which has a vector of its own in a `lattice` and none elsewhere.

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
        if any((o.k_um is not None) != lattice for o in pattern.overtones):
            raise ValueError(
                "every overtone of a lattice needs its own k_um, and no other has one: calibrate"
                " again"
            )
