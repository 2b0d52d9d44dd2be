"""A camera that gives three frames and then none, as one does whose triggers stop; and its rig."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from livesr.simulation.blinking_rig import VirtualBlinkingCamera

GIVEN = 3
_RIG = Path(__file__).parents[2] / "hardware_configs" / "virtual_fluctuation"


class StandingCamera(VirtualBlinkingCamera):
    """The virtual camera of blinking fluorophores, until it stands; `let_go` ends its thread."""

    let_go: ClassVar[threading.Event] = threading.Event()

    def next_frame(self, i: int) -> tuple[NDArray[np.uint16], Mapping[str, str]]:
        if len(self.shown) >= GIVEN:
            self.let_go.wait()
        return super().next_frame(i)


def standing_rig(folder: Path) -> Path:
    """A copy of the virtual fluctuation rig whose camera stands after `GIVEN` frames."""
    target = folder / "standing"
    shutil.copytree(_RIG, target)
    cfg = (target / "rig.cfg").read_text(encoding="utf-8")
    for before, after in (
        ("livesr.simulation.blinking_rig,VirtualBlinkingCamera", "standing_camera,StandingCamera"),
        ("Property,Camera,Rig,virtual_fluctuation", f"Property,Camera,Rig,{target}"),
        ("SensorSize,256", "SensorSize,32"),
        ("Frames,1000", "Frames,20"),
    ):
        assert before in cfg
        cfg = cfg.replace(before, after)
    (target / "rig.cfg").write_text(cfg, encoding="utf-8")
    return target
