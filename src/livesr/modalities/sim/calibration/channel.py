"""From raw groups of a rig to the lines of its rig.yaml: the calibration of one channel.

Owns what is taken from rig.yaml, what is written into it, and the picture. The estimation is
`livesr.modalities.sim.calibration`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.base.config import RigConfig
from livesr.base.errors import CalibrationError
from livesr.base.frames import CameraFrame
from livesr.base.geometry import Geometry
from livesr.base.rig_file import write_values
from livesr.evaluation.camera_frames import complete_groups
from livesr.evaluation.contact_sheet import save
from livesr.live.correct import build_correction
from livesr.modalities.calibrator import CalibrationSettings, CalibrationTable
from livesr.modalities.sim.calibration.focus import pattern_strength
from livesr.modalities.sim.calibration.groups import Optics
from livesr.modalities.sim.calibration.order import detect_order, order_name, same_light
from livesr.modalities.sim.calibration.otf import damping_from_beads
from livesr.modalities.sim.calibration.patterns import correlation_maps
from livesr.modalities.sim.calibration.picture import draw
from livesr.modalities.sim.calibration.reasons import usable
from livesr.modalities.sim.calibration.sim import Calibration, calibrate
from livesr.modalities.sim.config import PatternConfig, SIMChannelConfig, SIMConfig
from livesr.modalities.sim.modality import SIM
from livesr.optics.illumination import Pattern, equal_steps


@dataclass(frozen=True, slots=True)
class ChannelCalibration:
    """A calibration and what it was made from.

    Attributes
    ----------
    rig, channel, camera : what it is for
    raw : (t, n, y, x), corrected as the rig says
    offset_adu : level that is left in `raw`
    result : what was found
    steps_rad : phase steps that it was found with
    order_changed : whether rig.yaml names another order
    state : (device, property, value) of objective and camera orientation, where the frames were
        acquired for this
    """

    rig: RigConfig
    channel: str
    camera: Geometry
    raw: NDArray[Any]
    offset_adu: float
    result: Calibration
    steps_rad: list[float]
    order_changed: bool
    state: Sequence[tuple[str, str, str]] = ()

    def values(self) -> dict[str, Any]:
        """Return what rig.yaml is to say, by place.

        Patterns and damping in the channel's section if there are several.
        """
        several = len(self.rig.channels) > 1
        section, optics = (f"channels.{self.channel}",) * 2 if several else ("sim", "optics")
        values: dict[str, Any] = {}
        if self.order_changed:
            name = order_name(self.result.order)
            values["sim.order"] = name if isinstance(name, str) else [list(pair) for pair in name]
            values["sim.phase_steps_rad"] = [round(s, 7) for s in self.steps_rad]
        if self.state:
            values["sim.calibrated_with"] = [list(entry) for entry in self.state]
        values[f"{section}.patterns"] = [_as_config(p) for p in self.result.patterns]
        if self.result.damping:
            values[f"{optics}.damping"] = self.result.optics.damping
        return values

    def calibrated_rig(self) -> RigConfig:
        """Return the rig with what was found, for this channel."""
        patterns = [PatternConfig(**_as_config(p)) for p in self.result.patterns]
        own = SIMChannelConfig.of(self.rig, self.channel).model_copy(update={"patterns": patterns})
        channel = self.rig.channel(self.channel).model_copy(
            update={"section": own, "damping": self.result.optics.damping}
        )
        section = SIMConfig.of(self.rig).model_copy(
            update={"order": self.result.order, "phase_steps_rad": self.steps_rad}
        )
        camera = self.rig.camera.model_copy(update={"offset_adu": self.offset_adu})
        rig = self.rig.with_section(section).model_copy(
            update={"camera": camera, "channels": {**self.rig.channels, self.channel: channel}}
        )
        return SIM().believing(rig)

    def save(self, rig_file: Path) -> None:
        """Write the values into rig.yaml; its comments stay.

        Raises
        ------
        ConfigError
            If it cannot be changed; it stays as it was.
        """
        write_values(rig_file, self.values())

    def draw(self, path: Path) -> None:
        """Write the picture.

        Raises
        ------
        ConfigError
            If it cannot be written.
        """
        rig = self.calibrated_rig()
        method = SIM().build(rig, self.channel, self.camera)
        group = self.raw[len(self.raw) // 2]
        reconstruction = method.reconstruct(group)
        widefield = method.widefield(group)
        maps = correlation_maps(
            self.raw,
            self.result.optics,
            self.result.order,
            steps_rad=self.steps_rad,
            harmonics=len(self.result.patterns[0].waves),
            offset_adu=self.offset_adu,
            lattice=self.result.lattice,
            nonlinear=SIMConfig.of(self.rig).nonlinear,
        )
        found = self.result.found, self.result.optics
        save(draw(maps, *found, widefield, reconstruction), path)

    def table(self) -> CalibrationTable:
        """Return a row for each angle."""
        report = self.report()
        columns = ("angle", "period nm", "direction", "modulation", "phase rad", "peak")
        changed = " (rig.yaml said otherwise)" if self.order_changed else ""
        return CalibrationTable(
            (*columns, "contrast / noise"),
            [_row(i, angle) for i, angle in enumerate(report["angles"])],
            f"order {report['order']}{changed}, OTF damping {report['damping']:.2f}",
        )

    def report(self) -> dict[str, Any]:
        """Return the numbers, for a table and `--json`."""
        damping = self.result.damping
        return {
            "channel": self.channel,
            "time_points": len(self.raw),
            "order": order_name(self.result.order),
            "order_changed": self.order_changed,
            "damping": round(self.result.optics.damping, 3),
            "damping_log_error": round(damping.log_error, 3) if damping else None,
            "angles": [
                {
                    **_as_config(f.pattern),
                    "period_nm": round(f.period_nm, 2),
                    "direction_deg": round(f.direction_deg, 2),
                    "peak": round(f.peak, 1),
                    "contrast_to_noise": round(f.contrast_to_noise, 1),
                    "phase_spread_rad": round(f.phase_spread_rad, 3),
                }
                for f in self.result.found
            ],
            "warnings": list(self.result.doubts),
        }


class SIMCalibrator:
    """Measures what rig.yaml says of the patterns of a rig (`livesr.modalities.calibrator`)."""

    needs_stack = False

    def __init__(self, rig: RigConfig) -> None:
        self._rig, self._section = rig, SIMConfig.of(rig)

    def uncalibrated(self) -> RigConfig:
        """Return the rig without the optical state that the last calibration holds for."""
        return self._rig.with_section(self._section.model_copy(update={"calibrated_with": []}))

    def plane_in_focus(
        self, frames: Iterable[CameraFrame], channel: str, camera: Geometry, planes: int
    ) -> int:
        """Return which of the planes of a stack shows the patterns most strongly, looking at one
        group of each.
        """
        optics = _optics(self._rig, channel, camera)
        strengths: dict[int, float] = {}
        position = None
        for at, group in complete_groups(frames, channel, self._section.raw_frames):
            position = at.position if position is None else position
            if at.position == position and at.z not in strengths:
                try:
                    strengths[at.z] = pattern_strength(group, optics, self._rig.camera.offset_adu)
                except CalibrationError:  # holds no light
                    strengths[at.z] = 0.0
            if len(strengths) == planes:
                break
        return max(strengths, key=lambda z: strengths[z], default=0)

    def calibrate(
        self, channel: str, camera: Geometry, raw: NDArray[Any], settings: CalibrationSettings
    ) -> ChannelCalibration:
        """Find patterns, raw order and damping of a channel.

        Parameters
        ----------
        raw : groups as the camera gave them, (t, n, y, x)
        settings : what is believed of rig.yaml. Its order is believed anyway where the frames are
            too dim to tell; with beads, the damping comes from their picture instead of from the
            bands

        Raises
        ------
        CalibrationError
            If the frames do not show the patterns.
        """
        levels = self._rig.camera
        raw, doubts = usable(raw, levels.offset_adu, 2**levels.bit_depth - 1)
        raw, offset_adu = self._corrected(raw, channel, camera)
        optics = _optics(self._rig, channel, camera)
        order, steps, changed = self._order(raw, optics, offset_adu, settings)
        from_beads = None
        if settings.beads_nm is not None:
            beads_um = settings.beads_nm / 1e3
            from_beads = damping_from_beads(raw.mean((0, 1)) - offset_adu, optics, beads_um)
            optics = replace(optics, damping=round(from_beads.value, 3))
        result = calibrate(
            raw,
            optics,
            angles=self._section.angles,
            harmonics=self._section.harmonics,
            order=order,
            steps_rad=steps,
            offset_adu=offset_adu,
            origin_px=camera.origin_px,
            fit_damping=not settings.keep_otf and settings.beads_nm is None,
            damping=from_beads,
            lattice=self._section.lattice,
            nonlinear=self._section.nonlinear,
        )
        result.doubts[:0] = [said for said in doubts if said not in result.doubts]
        result.doubts.extend(_notes(settings.plane, changed))
        return ChannelCalibration(
            self._rig, channel, camera, raw, offset_adu, result, steps, changed, settings.state
        )

    def _corrected(
        self, raw: NDArray[Any], channel: str, camera: Geometry
    ) -> tuple[NDArray[Any], float]:
        """Return the groups corrected as the rig says, and the dark level that is left in them."""
        correction, offset_adu = build_correction(
            self._rig, channel, camera.shape, camera.origin_px, self._section.raw_frames
        )
        if correction is None:
            return raw, offset_adu
        groups = [[np.array(f) for f in correction.apply(list(group))] for group in raw]
        return np.stack([np.stack(group) for group in groups]), offset_adu

    def _order(
        self,
        raw: NDArray[Any],
        optics: Optics,
        offset_adu: float,
        settings: CalibrationSettings,
    ) -> tuple[list[tuple[int, int]], list[float], bool]:
        """Return the order of the raw frames, their phase steps, and whether rig.yaml names another
        order.
        """
        about = self._section
        order, changed = about.raw_order(), False
        if not settings.keep_order and not about.lattice:
            found = _detected(raw, optics, about.angles, about.harmonics, offset_adu)
            if found is not None and not same_light(found, order):
                order, changed = found, True
        known = None if changed else about.phase_steps_rad
        return order, list(known or equal_steps(about.phases).tolist()), changed


def _notes(plane: tuple[int, int], order_changed: bool) -> Iterator[str]:
    number, planes = plane
    if planes > 1:
        yield f"Plane {number} of {planes} is used: it shows the patterns most strongly."
    if order_changed:
        yield "The raw frames are in another order than rig.yaml says."


def _optics(rig: RigConfig, channel: str, camera: Geometry) -> Optics:
    damping = rig.channel(channel).damping or rig.optics.damping
    emission_um = rig.emission_nm(channel) / 1e3
    return Optics(camera.pixel_size_um, rig.optics.na, emission_um, damping)


def _detected(
    raw: NDArray[Any], optics: Optics, angles: int, harmonics: int, offset_adu: float
) -> list[tuple[int, int]] | None:
    try:
        return detect_order(raw, optics, angles=angles, harmonics=harmonics, offset_adu=offset_adu)
    except CalibrationError:
        return None  # too dim for single frames; the separated bands may still show the patterns


def _row(number: int, angle: Mapping[str, Any]) -> tuple[str, ...]:
    waves = [angle, *angle.get("overtones", [])]
    return (
        str(number),
        f"{angle['period_nm']:.1f}",
        f"{angle['direction_deg']:.1f}°",
        ", ".join(f"{w['modulation']:.2f}" for w in waves),
        ", ".join(f"{w['phase_rad']:.2f}" for w in waves),
        f"{angle['peak']:.0f}",
        f"{angle['contrast_to_noise']:.0f}",
    )


def _as_config(pattern: Pattern) -> dict[str, Any]:
    values: dict[str, Any] = {
        "k_um": [round(k, 5) for k in pattern.k_um],
        "phase_rad": round(pattern.phase_rad, 4),
        "modulation": round(pattern.modulation, 3),
    }
    if pattern.overtones:
        values["overtones"] = [
            {"phase_rad": round(p, 4), "modulation": round(m, 3)} for p, m in pattern.overtones
        ]
        for overtone, k_um in zip(values["overtones"], pattern.directions_um, strict=False):
            overtone["k_um"] = [round(k, 5) for k in k_um]
    return values
