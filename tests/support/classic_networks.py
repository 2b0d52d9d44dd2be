"""The networks of `livesr.training.networks.classic`, small: architecture, parameters, frames."""

from __future__ import annotations

from typing import Any

CLASSIC: dict[str, tuple[str, dict[str, Any], int]] = {
    "srcnn": ("srcnn", {}, 1),
    "fsrcnn": ("fsrcnn", {}, 1),
    "espcn": ("espcn", {}, 1),
    "vdsr": ("vdsr", {}, 1),
    "drcn": ("drcn", {"width": 16}, 1),
    "drrn": ("drrn", {"width": 16, "units": 5}, 1),
    "srresnet": ("srresnet", {"blocks": 4}, 1),
    "srdensenet": ("srdensenet", {"blocks": 2}, 1),
    "memnet": ("memnet", {"blocks": 2, "recursions": 3}, 1),
    "lapsrn": ("lapsrn", {"depth": 4, "width": 32}, 1),
    "mdsr": ("mdsr", {"blocks": 4}, 1),
    "rdn": ("rdn", {"blocks": 2, "growth": 16}, 1),
}
