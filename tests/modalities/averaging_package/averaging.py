"""A modality of another package: the mean of a few exposures, with every hook of the desk."""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image

from livesr.base.config import ChannelSection, Section
from livesr.base.errors import CalibrationError
from livesr.base.rig_file import write_values
from livesr.bench.result import Result
from livesr.check.hardware import Measured
from livesr.modalities.calibrator import CalibrationTable
from livesr.modalities.modality import Benchmark, Modality


class AveragingConfig(Section):
    modality: Literal["averaging"] = "averaging"
    frames: int = 4
    level_adu: float = 0.0


class AveragingChannel(ChannelSection):
    weight: float = 1.0


class Averaging(Modality[AveragingConfig]):
    name = "averaging"
    Section = AveragingConfig
    ChannelSection = AveragingChannel

    def raw_frames(self, section):
        return section.frames

    def build(self, rig, channel, camera, arrays=None, like=None):
        from livesr.modalities.widefield.reconstructor import Passthrough

        return Passthrough(camera.shape, rig.camera.offset_adu)

    def check(self, rig, found):
        if not rig.section_of(self.name).level_adu:
            yield found("warning", "no-level", "averaging.frames", "No level.", "Calibrate.")

    def check_beside(self, rig, cfg, found):
        if "Laser" not in cfg.devices:
            yield found("note", "no-laser", "averaging", "No laser.", "Add one.")

    def hardware_groups(self, section):
        return 2

    def check_hardware(self, looked):
        level = np.mean([frame.mean() for stack in looked.stacks for frame in stack.frames])
        yield Measured("level", f"{level:.0f} ADU in {len(looked.stacks)} groups")

    def calibrator(self, rig):
        return Calibrator(rig)

    @property
    def draw_image(self):
        return lambda entropy, size, domain: np.full((size, size), sum(entropy), np.float32)

    @property
    def benchmarks(self):
        return {"averaging": Benchmark("averaging", cores=1)}


class Calibrator:
    needs_stack = False

    def __init__(self, rig):
        self._rig = rig

    def uncalibrated(self):
        return self._rig

    def plane_in_focus(self, frames, channel, camera, planes):
        return 0

    def calibrate(self, channel, camera, raw, settings):
        if not raw.any():
            raise CalibrationError("There is no light.")
        return Level(channel, len(raw), float(raw.mean()))


class Level:
    def __init__(self, channel, groups, level_adu):
        self._channel, self._groups, self._level_adu = channel, groups, level_adu

    def report(self):
        about = {"channel": self._channel, "time_points": self._groups}
        return {**about, "level_adu": self._level_adu, "warnings": []}

    def table(self):
        return CalibrationTable(("level",), [(f"{self._level_adu:.1f}",)], "one level")

    def save(self, rig_file):
        write_values(rig_file, {"averaging.level_adu": round(self._level_adu, 1)})

    def draw(self, path):
        Image.new("L", (8, 8)).save(path)


def measure(quick):
    return [Result("averaging.mean", 1.0, "ms", note="a number")]
