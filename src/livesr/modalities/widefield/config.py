"""The section `widefield` of rig.yaml.

Owns the model and its defaults. Reads no file.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from livesr.base.config import Positive, Section


class WidefieldConfig(Section):
    """Every exposure is one frame."""

    modality: Literal["widefield"] = "widefield"
    deconvolution: Annotated[int, Field(ge=0, le=100)] = 0
    """Rounds of Richardson-Lucy deconvolution; 0 shows the camera's frames as they are."""
    mean_of: Annotated[int, Field(ge=1, le=1000)] = 1
    """With deconvolution: exposures whose running mean is deconvolved, the last so many."""
    psf_sigma_nm: Positive | None = None
    """With deconvolution: width of a point's image, standard deviation; 0.21 wavelength / NA
    without.
    """
