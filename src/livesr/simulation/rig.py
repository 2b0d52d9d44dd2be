"""Where a virtual camera was before 0.2: copies of its rig name this module in their rig.cfg."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

log = logging.getLogger(__name__)

_MOVED = "livesr.modalities.sim.simulation.rig"


def __getattr__(name: str) -> Any:
    found = getattr(import_module(_MOVED), name)
    log.warning("rig.cfg names %s, which is now %s: the old name is still read.", __name__, _MOVED)
    return found
