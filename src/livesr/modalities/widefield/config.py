"""The section `widefield` of rig.yaml.

It has nothing to say.
"""

from __future__ import annotations

from typing import Literal

from livesr.base.config import Section


class WidefieldConfig(Section):
    """Every exposure is one frame."""

    modality: Literal["widefield"] = "widefield"
