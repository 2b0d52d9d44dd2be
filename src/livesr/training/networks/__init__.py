"""The networks: IMC-SR separates structures, EDSR upscales, a U-Net reconstructs raw frames.

RCAN, U-Net and DFCAN are what they are compared with, and do any of it; `classic` holds what came
before them.

Owns the registry of architectures and the file that weights are kept in; one file per paper. Knows
nothing of losses, data or runtimes.

Every network says what a run must know of it: `frames` in, `channels` out, `scale` (output pixels
per input pixel), `multiple_of` (what the input's sides must be multiples of) and `halo` (radius of
the receptive field in input pixels, the means of channel attention left out).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from livesr.training.networks.classic import (
    DRCN,
    DRRN,
    ESPCN,
    FSRCNN,
    MDSR,
    RDN,
    SRCNN,
    VDSR,
    LapSRN,
    MemNet,
    SRDenseNet,
    SRResNet,
)
from livesr.training.networks.dfcan import DFCAN
from livesr.training.networks.edsr import EDSR
from livesr.training.networks.imcsr import IMCSR, IMCSRSingle
from livesr.training.networks.raw_unet import RawUNet
from livesr.training.networks.rcan import RCAN
from livesr.training.networks.unet import UNet

__all__ = [
    "DFCAN",
    "DRCN",
    "DRRN",
    "EDSR",
    "ESPCN",
    "FSRCNN",
    "IMCSR",
    "MDSR",
    "NETWORKS",
    "RCAN",
    "RDN",
    "SRCNN",
    "VDSR",
    "IMCSRSingle",
    "LapSRN",
    "MemNet",
    "RawUNet",
    "SRDenseNet",
    "SRResNet",
    "UNet",
    "build",
    "load",
    "patches_seen",
    "save",
]

NETWORKS: dict[str, type[nn.Module]] = {
    "imcsr": IMCSR,
    "imcsr-single": IMCSRSingle,
    "edsr": EDSR,
    "rcan": RCAN,
    "unet": UNet,
    "raw-unet": RawUNet,
    "dfcan": DFCAN,
    "srcnn": SRCNN,
    "fsrcnn": FSRCNN,
    "espcn": ESPCN,
    "vdsr": VDSR,
    "drcn": DRCN,
    "drrn": DRRN,
    "srresnet": SRResNet,
    "srdensenet": SRDenseNet,
    "memnet": MemNet,
    "lapsrn": LapSRN,
    "mdsr": MDSR,
    "rdn": RDN,
}


def build(architecture: str, **parameters: Any) -> nn.Module:
    """Make a freshly initialised network by its registered name.

    Raises
    ------
    ValueError
        For a name not in `NETWORKS`, or parameters that the network does not have or cannot take.
    """
    if architecture not in NETWORKS:
        raise ValueError(
            f"architecture {architecture!r} is not known; choose one of {', '.join(NETWORKS)}"
        )
    known = inspect.signature(NETWORKS[architecture]).parameters
    takes_more = any(p.kind is p.VAR_KEYWORD for p in known.values())
    if not takes_more and (strange := [name for name in parameters if name not in known]):
        raise ValueError(
            f"architecture {architecture!r} has no parameter {', '.join(map(repr, strange))}; it"
            f" has {', '.join(known)}"
        )
    try:
        return NETWORKS[architecture](**parameters)
    except (TypeError, RuntimeError, ArithmeticError) as e:  # whatever torch raises of no size
        raise ValueError(
            f"architecture {architecture!r} cannot be built with {parameters}: {e}"
        ) from e


def save(
    path: Path,
    network: nn.Module,
    architecture: str,
    parameters: dict[str, Any],
    patches: int = 0,
    structures: Sequence[str] = (),
) -> None:
    """Write weights together with what `build` needs to make the network again, how many patches
    they have seen, and which structures they draw.
    """
    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    torch.save(
        {
            "architecture": architecture,
            "parameters": parameters,
            "patches": patches,
            "structures": list(structures),
            "state": state,
        },
        path,
    )


def patches_seen(path: Path) -> int:
    """Return how many patches the weights in a file written by `save` have seen.

    0 if nobody wrote it down.
    """
    return int(torch.load(path, map_location="cpu", weights_only=True).get("patches", 0))


def load(path: Path) -> nn.Module:
    """Read a network written by `save`, on the CPU and ready for inference."""
    stored = torch.load(path, map_location="cpu", weights_only=True)
    network = build(stored["architecture"], **stored["parameters"])
    network.load_state_dict(stored["state"])
    return network.eval()
