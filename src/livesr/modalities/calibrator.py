"""What `livesr calibrate` asks of a modality that has something to calibrate.

Owns the two protocols and the settings of one calibration. Measures nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from livesr.base.config import RigConfig
from livesr.base.frames import CameraFrame
from livesr.base.geometry import Geometry


@dataclass(frozen=True, slots=True)
class CalibrationSettings:
    """What is known and what is asked for.

    Attributes
    ----------
    keep_order : believe rig.yaml's order of the raw frames instead of looking for it
    keep_otf : believe rig.yaml's damping of the OTF
    beads_nm : the specimen is beads of that diameter
    z_step_nm : the time points are planes of one stack, so far apart: above 0 where the specimen
        rises against focus from one to the next, below 0 where focus rises
    state : (device, property, value) of objective and camera orientation, where the frames were
        acquired for this
    plane : which plane the groups are of, and how many there are
    """

    keep_order: bool = False
    keep_otf: bool = False
    beads_nm: float | None = None
    z_step_nm: float | None = None
    state: Sequence[tuple[str, str, str]] = ()
    plane: tuple[int, int] = (0, 1)


class CalibrationTable(NamedTuple):
    """What a terminal shows of a calibration: one row for each thing that was measured."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    summary: str
    """A sentence below it."""


class Calibrated(Protocol):
    """What was measured of one channel."""

    def report(self) -> dict[str, Any]:
        """Return the numbers for ``--json``, among them channel, time_points and warnings."""

    def table(self) -> CalibrationTable:
        """Return the numbers for a terminal."""

    def save(self, rig_file: Path) -> None:
        """Write them into rig.yaml; its comments stay.

        Raises
        ------
        ConfigError
            If it cannot be changed; it stays as it was.
        """

    def draw(self, path: Path) -> None:
        """Write the picture that a person checks them by.

        Raises
        ------
        ConfigError
            If it cannot be written.
        """


class Calibrator(Protocol):
    """Measures what rig.yaml says of one rig's modality, from raw frames.

    Attributes
    ----------
    needs_stack : whether it measures a z stack of beads, which is recorded beforehand
    """

    needs_stack: bool

    def uncalibrated(self) -> RigConfig:
        """Return the rig without what the last calibration holds for: its camera is asked with
        that.
        """

    def plane_in_focus(
        self, frames: Iterable[CameraFrame], channel: str, camera: Geometry, planes: int
    ) -> int:
        """Return which of the planes of a stack is the best to calibrate with."""

    def calibrate(
        self, channel: str, camera: Geometry, raw: NDArray[Any], settings: CalibrationSettings
    ) -> Calibrated:
        """Measure a channel in raw groups (t, n, y, x) as the camera gave them.

        Raises
        ------
        CalibrationError
            If the frames do not show what is to be measured.
        """
