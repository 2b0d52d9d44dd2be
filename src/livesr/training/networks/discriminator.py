"""What tells predictions from true images while a network is trained against it.

It is no engine: it is not in the registry, and nothing of it is exported.

References
----------
Ledig et al. 2017 (SRGAN); Qiao et al. 2021, Nature Methods 18, 194 (DFGAN), whose discriminator has
convolutions in pairs, leaky ReLU and a mean over the image.
"""

from __future__ import annotations

from torch import Tensor, nn

from livesr.training.networks.layers import convolution, he_init, spatial_mean

_SLOPE = 0.1


class Discriminator(nn.Module):  # type: ignore[misc]
    """Four pairs of convolutions, each of which halves the size and doubles the features.

    Parameters
    ----------
    channels : of the images
    width : features of the first pair
    """

    def __init__(self, channels: int, width: int = 32) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(4)]
        self.features = nn.Sequential(
            *(
                m
                for before, after in zip([channels, *widths], widths, strict=False)
                for m in (
                    convolution(before, after, 3),
                    nn.LeakyReLU(_SLOPE),
                    _halving(after),
                    nn.LeakyReLU(_SLOPE),
                )
            )
        )
        self.verdict = nn.Linear(widths[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return one number an image, (n, 1): above 0 it is taken for a true one."""
        return self.verdict(spatial_mean(self.features(images)).flatten(1)).float()


def _halving(width: int) -> nn.Conv2d:
    conv = nn.Conv2d(width, width, 3, stride=2, padding=1)
    he_init(conv)
    return conv
