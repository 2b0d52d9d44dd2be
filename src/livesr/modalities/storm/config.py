"""The section `storm` of rig.yaml.

Owns the model and its defaults. Reads no file.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from livesr.base.config import PixelSizeNm, Positive, Section


class STORMConfig(Section):
    """How blinking frames become a running image.

    `frames` exposures are localised together and give the next image: of everything since the run
    began or, with `sliding_groups`, of the last so many groups. `psf_sigma_nm` is the width of a
    single emitter's image, 0.21 wavelength / NA without. An emitter counts where its filtered image
    exceeds the noise `threshold` times, and is drawn if it is known to `max_uncertainty_nm`.
    `drift_correction` lays every group onto what the run has shown before.
    """

    modality: Literal["storm"] = "storm"
    frames: Annotated[int, Field(ge=1, le=100_000)] = 100
    sliding_groups: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    pixel_size_nm: PixelSizeNm = 20.0
    psf_sigma_nm: Positive | None = None
    threshold: Positive = 5.0
    max_uncertainty_nm: Positive = 50.0
    render: Literal["histogram", "gaussian"] = "gaussian"
    drift_correction: bool = True
