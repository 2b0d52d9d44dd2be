"""The section `widefield` of rig.yaml.

Owns the model and its defaults. Reads no file.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from livesr.base.config import Positive, Section


class WidefieldConfig(Section):
    """Every exposure is one frame."""

    modality: Literal["widefield"] = "widefield"
    deconvolution: Annotated[int, Field(ge=0, le=100)] = 0
    """Rounds of Richardson-Lucy deconvolution; 0 shows the camera's frames as they are."""
    reweighting: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fourier reweighting instead, which is linear: points' images half as wide, as far as noise
    allows. The number is Wiener's parameter: more raises less noise; begin with 0.1. 0 is off.
    """
    mean_of: Annotated[int, Field(ge=1, le=1000)] = 1
    """With either: exposures whose running mean is sharpened, the last so many."""
    psf_sigma_nm: Positive | None = None
    """With either: width of a point's image, standard deviation; 0.21 wavelength / NA
    without.
    """

    @model_validator(mode="after")
    def _one_of_both(self) -> WidefieldConfig:
        if self.deconvolution and self.reweighting:
            raise ValueError(
                "deconvolution and reweighting both sharpen; set one of them, the other to 0"
            )
        return self
