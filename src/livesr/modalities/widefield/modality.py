"""Widefield: every exposure is one frame.

For streams without structured light, and for cameras whose frames are already reconstructed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from livesr.modalities.modality import Modality
from livesr.modalities.widefield.config import WidefieldConfig

if TYPE_CHECKING:
    from livesr.base.config import RigConfig
    from livesr.base.geometry import Geometry
    from livesr.live.arrays import Arrays
    from livesr.live.reconstruct.reconstructor import Reconstructor


class Widefield(Modality[WidefieldConfig]):
    """The camera's frames above its offset."""

    name = "widefield"
    title = "widefield"
    method = "passthrough"
    Section: ClassVar[type[WidefieldConfig]] = WidefieldConfig

    def build(
        self,
        rig: RigConfig,
        channel: str,
        camera: Geometry,
        arrays: Arrays | None = None,
        like: Reconstructor | None = None,
    ) -> Reconstructor:
        """Return what averages the frames of a group, of which there is one, and sharpens them
        where the rig says so.
        """
        from livesr.modalities.widefield.deconvolved import Deconvolved
        from livesr.modalities.widefield.reconstructor import Passthrough
        from livesr.optics.psf import gaussian_sigma

        settings = WidefieldConfig.of(rig)
        if not (settings.deconvolution or settings.reweighting):
            return Passthrough(camera.shape, rig.camera.offset_adu)
        sigma_nm = settings.psf_sigma_nm or gaussian_sigma(rig.optics.na, rig.emission_nm(channel))
        return Deconvolved(
            camera.shape,
            rig.camera.offset_adu,
            sigma_nm / (camera.pixel_size_um * 1e3),
            settings.deconvolution,
            settings.mean_of,
            settings.reweighting,
        )
