"""The section `storm` of rig.yaml.

Owns the model and its defaults. Reads no file.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from livesr.base.config import PixelSizeNm, Positive, Section


class STORMConfig(Section):
    """How blinking frames become a running image."""

    modality: Literal["storm"] = "storm"
    frames: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Exposures that are localised together and give the next image."""
    sliding_groups: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Groups that an image is made of; None takes everything since the run began."""
    pixel_size_nm: PixelSizeNm = 20.0
    """Of the image."""
    psf_sigma_nm: Positive | None = None
    """Width of a single emitter's image, standard deviation; 0.21 wavelength / NA without."""
    threshold: Positive = 5.0
    """How many times the noise the filtered image of an emitter must exceed."""
    max_uncertainty_nm: Positive = 50.0
    """An emitter is drawn if it is known to this."""
    render: Literal["histogram", "gaussian"] = "gaussian"
    """"gaussian" draws each emitter with its uncertainty, "histogram" counts."""
    drift_correction: bool = True
    """Lay every group onto what the run has shown before."""
