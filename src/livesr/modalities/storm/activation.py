"""The number of emitters that are lit at a time, held by the power of an activation laser.

Owns the last value that was set, and when. Sees what was localised, sets one property of one
device, and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from livesr.base.errors import ConfigError
from livesr.base.frames import SRFrame
from livesr.base.run_description import RunDescription
from livesr.base.timing import now_ns
from livesr.live.sinks.sink import Sink
from livesr.modalities.storm.config import ActivationConfig

log = logging.getLogger(__name__)

_NEAR = 0.1  # share of the goal within which nothing is changed
_PACE = 0.7  # of the step that would reach the goal if density went with power
_MOST, _LEAST_STEP = 2.0, 0.01  # factor of one step; share of the range, from no light at all
_PATIENCE = 10  # groups at a limit before that is said
_COURSE = 1000  # changes that the report has


class Core(Protocol):
    """What is asked of Micro-Manager's core."""

    def getLoadedDevices(self) -> Any:  # noqa: N802
        """Return the labels of all devices."""

    def getDevicePropertyNames(self, device: str) -> Any:  # noqa: N802
        """Return what a device has."""

    def getProperty(self, device: str, name: str) -> Any:  # noqa: N802
        """Return a value."""

    def setProperty(self, device: str, name: str, value: Any) -> None:  # noqa: N802
        """Set a value."""


class Activation(Sink):
    """Sets a laser's power after each group, so that as many emitters are lit as were asked for.

    Fewer than wanted: more light, by at most a factor of two a group; more: less. It never leaves
    the range of its section. Groups that were exposed before the last change say nothing of it and
    are passed over. With the end of the run, and with the first error of the device, which ends the
    control and not the run, the power goes to `ActivationConfig.after`.

    Parameters
    ----------
    core : that has the device
    config : device, property, goal and range
    channels : whose emitters are counted

    Raises
    ------
    ConfigError
        If there is no such device or property.

    Notes
    -----
    As the activation of htSMLM (Deschamps and Ries 2020, BMC Bioinformatics 21, 30), with the
    density of what was localised instead of a count of peaks.
    """

    name = "activation"

    def __init__(self, core: Core, config: ActivationConfig, channels: frozenset[str]) -> None:
        self._core, self._config, self._channels = core, config, channels
        _check(core, config)
        self._value = config.low
        self._since_ns = 0
        self._at_limit = 0
        self._ended = False
        self._course: list[tuple[int, float, float]] = []
        self.notes: list[str] = []

    @property
    def accounts(self) -> Mapping[str, Any]:
        """What was controlled, and its course: (time point, density, power)."""
        c = self._config
        return {
            "device": c.device,
            "property": c.property,
            "density_per_um2": c.density_per_um2,
            "range": [c.low, c.high],
            "after": c.rests_at(),
            "controlled": not self._ended,
            "course": [list(step) for step in self._course],
        }

    def open(self, run: RunDescription) -> None:
        """Begin where the laser is, within the range."""
        self._course, self._at_limit, self._ended, self.notes = [], 0, False, []
        try:
            self._set(float(self._core.getProperty(self._config.device, self._config.property)))
        except Exception as e:  # a device may raise anything
            self._end(e)

    def recon(self, frame: SRFrame) -> None:
        """Set the power that the next groups are exposed with."""
        density = frame.emitters_per_um2
        if self._ended or density is None or frame.stream.channel not in self._channels:
            return
        if 2 * frame.t_acq_ns - frame.t_last_ns < self._since_ns:  # when its exposures began
            return
        value = self._next(density)
        try:
            if value != self._value:
                self._set(value)
        except Exception as e:
            self._end(e)
            return
        self._watch_limits(density)
        if len(self._course) < _COURSE:
            self._course.append((frame.t, round(density, 4), self._value))

    def close(self, report: Mapping[str, Any]) -> None:
        """Leave the laser where it is safe."""
        if not self._ended:
            self._rest()

    def _next(self, density: float) -> float:
        """Return the power that should give the density that is wanted."""
        goal, c = self._config.density_per_um2, self._config
        if abs(density / goal - 1) < _NEAR:
            return self._value
        factor = (goal / density) ** _PACE if density else _MOST
        factor = min(max(factor, 1 / _MOST), _MOST)
        value = self._value * factor
        if factor > 1:
            value = max(value, self._value + 0.1 * _LEAST_STEP * (c.high - c.low), c.low)
            if self._value == 0:
                value = c.low + _LEAST_STEP * (c.high - c.low)
        return min(max(value, c.low), c.high)

    def _set(self, value: float) -> None:
        c = self._config
        value = min(max(value, c.low), c.high)
        self._core.setProperty(c.device, c.property, value)
        self._value, self._since_ns = value, now_ns()

    def _watch_limits(self, density: float) -> None:
        """Say it once if the goal cannot be reached."""
        c, goal = self._config, self._config.density_per_um2
        short = density < goal * (1 - _NEAR) and self._value >= c.high
        over = density > goal * (1 + _NEAR) and self._value <= c.low
        self._at_limit = self._at_limit + 1 if short or over else 0
        if self._at_limit == _PATIENCE:
            self.notes.append(
                f"{c.device}'s {c.property} is at its {'high' if short else 'low'}est,"
                f" {self._value:g}, and {density:.2g} emitters per um^2 are lit, not"
                f" {goal:g}: change storm.activation or the buffer."
            )

    def _end(self, error: Exception) -> None:
        """Give up control; the run goes on."""
        self._ended = True
        c = self._config
        log.error("activation ends", exc_info=error)
        self.notes.append(
            f"{c.device} could not be controlled ({type(error).__name__}: {error}): activation is"
            " not held any more, and the run goes on. Look at the laser: is it on, and is its"
            " power where it should be?"
        )
        self._rest()

    def _rest(self) -> None:
        c = self._config
        try:
            self._core.setProperty(c.device, c.property, c.rests_at())
        except Exception as e:
            self.notes.append(
                f"{c.device}'s {c.property} could not be set to {c.rests_at():g} after the run"
                f" ({type(e).__name__}: {e}): look at the laser."
            )


def _check(core: Core, config: ActivationConfig) -> None:
    device, named = config.device, config.property
    if device not in (there := list(core.getLoadedDevices())):
        raise ConfigError(
            f"storm.activation names device {device!r}, which Micro-Manager has not loaded; there"
            f" are {', '.join(there)}."
        )
    if named not in (has := list(core.getDevicePropertyNames(device))):
        raise ConfigError(
            f"storm.activation names property {named!r} of {device}, which has {', '.join(has)}."
        )
