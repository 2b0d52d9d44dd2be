"""A virtual SIM camera whose pattern display runs only while a digital output is high, as a running
order in hardware does."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymmcore_plus import CMMCorePlus

from livesr.modalities.sim.simulation.rig import VirtualSIMCamera
from livesr.simulation.camera import find_virtual_camera
from rig_copies import RIGS
from rigs import core_of

SIZE = 64
TRIGGER = "trigger: {{device: Gate, property: State, start: 1, stop: 0, when: {when}}}"


class GatedSIMCamera(VirtualSIMCamera):
    """Every exposure advances the display.

    Only a falling edge of the gate takes it back. A low gate is darkness.

    With `leads` the display triggers the camera: frames come while the gate is high.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.leads, self.edges, self.dark = False, False, 0, 0

    def set_gate(self, value: str) -> None:
        high = value == "1"
        self.edges += high
        if self.gate and not high:
            self._playback.select(0)
        self.gate = high

    def start_playing(self, n: int | None) -> None:
        """Whatever the camera does, the display stays where it is."""
        if self.leads:
            assert not self.gate, "the display ran before the camera was armed"

    def next_frame(self, i: int) -> tuple[NDArray[np.uint16], Mapping[str, str]]:
        while self.leads and not self.gate:
            pass
        frame, about = super().next_frame(i)
        self.dark += not self.gate
        return (frame if self.gate else np.full_like(frame, 100)), about


def gated_rig(folder: Path, when: str = "before") -> Path:
    """A copy of the virtual SIM rig with a demo state device as the digital output."""
    target = folder / "gated"
    shutil.copytree(RIGS / "virtual_sim", target)
    cfg = (target / "rig.cfg").read_text(encoding="utf-8")
    for before, after in (
        ("livesr.modalities.sim.simulation.rig,VirtualSIMCamera", "gated_display,GatedSIMCamera"),
        ("Property,Camera,Rig,virtual_sim", f"Property,Camera,Rig,{target}"),
        (
            "Device,Laser,DemoCamera,DWheel",
            "Device,Laser,DemoCamera,DWheel\nDevice,Gate,DemoCamera,DWheel",
        ),
        ("Parent,Laser,DHub", "Parent,Laser,DHub\nParent,Gate,DHub"),
    ):
        assert before in cfg
        cfg = cfg.replace(before, after)
    (target / "rig.cfg").write_text(cfg, encoding="utf-8")
    yaml = (target / "rig.yaml").read_text(encoding="utf-8")
    trigger = TRIGGER.format(when=when)
    changed = yaml.replace("pattern_property: [Camera, PatternIndex]", trigger).replace(
        "imcsr-mt-er-lyso-light", "identity"
    )
    assert trigger in changed
    (target / "rig.yaml").write_text(changed, encoding="utf-8")
    return target


@contextmanager
def gated_core(
    rig: Path, exposure_ms: float = 1.0, **properties: Any
) -> Iterator[tuple[CMMCorePlus, GatedSIMCamera]]:
    """A core as `livesr run` loads it, with the gate wired to the camera's display."""
    with core_of(rig, exposure_ms, SensorSize=SIZE, TimePoints=3, **properties) as core:
        camera = find_virtual_camera(core, GatedSIMCamera)
        assert camera is not None
        core.events.devicePropertyChanged("Gate", "State").connect(camera.set_gate)
        yield core, camera
