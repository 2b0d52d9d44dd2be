"""The section `storm` of rig.yaml.

Owns the model and its defaults. Reads no file.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from livesr.base.config import Model, Number, PixelSizeNm, Positive, Section


class AstigmaticPart(Model):
    """A Gaussian that is a part of a single emitter's image, at every z of the table."""

    share: tuple[Annotated[float, Field(ge=0, le=1)], ...]
    """Of the light; all parts together have 1."""
    width_y_nm: tuple[Positive, ...]
    """Standard deviation along y, nm."""
    width_x_nm: tuple[Positive, ...]
    """Standard deviation along x, nm."""


class AstigmatismConfig(Model):
    """A cylindrical lens: the widths of a single emitter's image along y and x, which say its z.

    Between the z of the table all curves are cubic splines; nothing is localised beyond.
    """

    z_nm: Annotated[tuple[Number, ...], Field(min_length=4, max_length=1000)]
    """z from where both widths are equal, in steps of the stage, increasing, nm."""
    width_y_nm: tuple[Positive, ...]
    """Standard deviation along y, from image top to bottom, at each z, nm."""
    width_x_nm: tuple[Positive, ...]
    """Standard deviation along x at each z, nm."""
    parts: Annotated[tuple[AstigmaticPart, ...], Field(max_length=8)] = ()
    """Gaussians that the image is the sum of, which is what is fitted: an objective's rings, and
    the cross in focus. Without, one with these widths.
    """
    z_factor: Annotated[float, Field(gt=0, le=2)] = 1.0
    """What a step of the stage is in the specimen: below 1 where an oil objective looks into
    water (Huang et al. 2008, Science 319, 810, have 0.79).
    """

    @model_validator(mode="before")
    @classmethod
    def _is_of_now(cls, values: Any) -> Any:
        if isinstance(values, dict) and {"halo", "halo_factor"} & set(values):
            raise ValueError(
                "halo and halo_factor are no longer known, 'parts' are what is fitted: measure the"
                " lens again, livesr calibrate RIG --beads STACK.tif --z-step 25"
            )
        return values

    @model_validator(mode="after")
    def _is_table(self) -> Self:
        lengths = [len(c) for c in (self.z_nm, self.width_y_nm, self.width_x_nm)]
        lengths += [len(c) for p in self.parts for c in (p.share, p.width_y_nm, p.width_x_nm)]
        if len(set(lengths)) > 1:
            raise ValueError(
                "z_nm, width_y_nm, width_x_nm and those of the parts have"
                f" {lengths} numbers, expected as many of each"
            )
        shares = [sum(at) for at in zip(*(p.share for p in self.parts), strict=True)]
        if any(abs(share - 1) > 0.01 for share in shares):
            raise ValueError("the shares of the parts do not add up to 1 at every z")
        if any(b <= a for a, b in pairwise(self.z_nm)):
            raise ValueError("the numbers of z_nm do not increase from one to the next")
        return self


class ActivationConfig(Model):
    """A laser whose power is set after each group, so that density stays what was asked for."""

    device: Annotated[str, Field(min_length=1, max_length=200)]
    """Micro-Manager's label of the laser, or of what sets its power."""
    property: Annotated[str, Field(min_length=1, max_length=200)]
    """Its property that is set: a number."""
    density_per_um2: Annotated[float, Field(gt=0, le=10)] = 0.3
    """Localised emitters per square micrometre and frame that are wanted: 0.3 are found where
    0.4 are lit, three quarters of them.
    """
    low: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    """Least value that is ever set."""
    high: Annotated[float, Field(ge=0, le=1e9)]
    """Largest value that is ever set."""
    after: Annotated[float, Field(ge=0, le=1e9)] | None = None
    """Value after the run, and after an error; `low` without."""

    def rests_at(self) -> float:
        """Value after the run."""
        return self.low if self.after is None else self.after

    @model_validator(mode="after")
    def _is_range(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"high is {self.high:g}, expected above low, {self.low:g}")
        if not self.low <= self.rests_at() <= self.high:
            raise ValueError(
                f"after is {self.rests_at():g}, expected within {self.low:g} to {self.high:g}"
            )
        return self


class STORMConfig(Section):
    """How blinking frames become a running image."""

    incidental: ClassVar[frozenset[str]] = frozenset({"activation"})

    modality: Literal["storm"] = "storm"
    frames: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Exposures that are localised together and give the next image."""
    sliding_groups: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Groups that an image is made of; None takes everything since the run began."""
    pixel_size_nm: PixelSizeNm = 20.0
    """Of the image."""
    psf_sigma_nm: Positive | None = None
    """Width of a single emitter's image, standard deviation; 0.21 wavelength / NA without."""
    astigmatism: AstigmatismConfig | None = None
    """Widths of a single emitter's image behind a cylindrical lens, which give its z; written by
    livesr calibrate from a stack of beads. None: the image is round, and z is not measured.
    """
    threshold: Positive = 5.0
    """How many times the noise the filtered image of an emitter must exceed."""
    max_uncertainty_nm: Positive = 50.0
    """An emitter is drawn if it is known to this."""
    localiser: str | None = None
    """Engine of task localise that finds the emitters, its name or folder; what it draws is a
    prediction. None: they are fitted.
    """
    render: Literal["histogram", "gaussian"] = "gaussian"
    """"gaussian" draws each emitter with its uncertainty, "histogram" counts."""
    drift_correction: bool = True
    """Lay every group onto what the run has shown before."""
    activation: ActivationConfig | None = None
    """A laser that holds the density of lit emitters; None: nothing is set."""

    def of_pictures(self) -> dict[str, Any]:
        """Return what decides the numbers of a picture: of a lens, whose table a calibration finds
        anew, whether it is there.
        """
        return {**super().of_pictures(), "astigmatism": self.astigmatism is not None}
