"""The section `fluctuation` of rig.yaml.

Owns the model and its defaults. Reads no file.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from livesr.base.config import Positive, Section

Method = Literal["esrrf", "sofi"]
Temporal = Literal["average", "variance", "autocorrelation"]

_FEWEST_FRAMES = 8  # that a cumulant of the fourth order can be estimated from


class FluctuationConfig(Section):
    """How frames whose fluorophores fluctuate become a super-resolution image."""

    modality: Literal["fluctuation"] = "fluctuation"
    method: Method = "esrrf"
    """"esrrf": radial gradient convergence of every frame; "sofi": cumulants of neighbouring
    pixels.
    """
    every: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Exposures that are folded in together and give the next image. Mean and fluctuations are
    measured within them, so that slower changes, such as bleaching, do not count as fluctuations.
    """
    window: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Exposures that an image is made of, a multiple of `every`; None takes everything since the
    run began.
    """
    magnification: Literal[2, 4, 6, 8] = 4
    """Of eSRRF: pixels of the image per camera pixel. That of SOFI is its order."""
    radius: Annotated[float, Field(ge=0.5, le=5)] = 1.5
    """Of eSRRF: how far gradients are asked whether they converge, camera pixels. About the full
    width at half maximum of a single emitter's image.
    """
    sensitivity: Annotated[int, Field(ge=1, le=6)] = 2
    """Of eSRRF: power of the convergence; more is sharper, and noisier."""
    temporal: Temporal = "average"
    """Of eSRRF: what is made of the frames: their mean (published as AVG), the square root of their
    variance (VAR), or that of their covariance with the next frame (TAC2).
    """
    order: Annotated[int, Field(ge=2, le=4)] = 2
    """Of SOFI: of the cumulants, and pixels of the image per camera pixel. A higher order needs
    more frames.
    """
    deconvolution: Annotated[int, Field(ge=0, le=100)] = 10
    """Of SOFI: rounds of Richardson-Lucy deconvolution before the image is made linear in
    brightness by the root of its order; 0 takes the root only.
    """
    psf_sigma_nm: Positive | None = None
    """Width of a single emitter's image, standard deviation; 0.21 wavelength / NA without."""
    drift_correction: bool = True
    """Lay every `every` exposures onto what the run has shown before, to the nearest pixel of the
    image.
    """

    @model_validator(mode="after")
    def _enough(self) -> FluctuationConfig:
        if self.window is not None and self.window % self.every:
            raise ValueError(f"window is {self.window}, expected a multiple of every, {self.every}")
        fewest = self._fewest
        if self.every < fewest:
            raise ValueError(
                f"every is {self.every}, too few exposures to measure fluctuations in; give at"
                f" least {fewest}, better 100, and show a longer time with window"
            )
        return self

    @property
    def _fewest(self) -> int:
        if self.method == "sofi":
            return _FEWEST_FRAMES
        return {"average": 1, "variance": 2, "autocorrelation": 3}[self.temporal]

    @property
    def scale(self) -> int:
        """Pixels of the image per camera pixel."""
        return self.magnification if self.method == "esrrf" else self.order

    @property
    def groups(self) -> int | None:
        """Groups that an image is made of; None for all since the run began."""
        return self.window // self.every if self.window is not None else None
