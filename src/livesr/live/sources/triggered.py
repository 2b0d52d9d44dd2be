"""Arm, then trigger: an acquisition engine for rigs whose pattern display runs in hardware.

Owns when the digital output that lets the display run is raised and lowered. Chooses no pattern and
takes no frame.

::

    camera leads (when: before)                     display leads (when: armed)
    lowered: display at its first pattern           lowered: display at its first pattern
    raised: display waits for an advance            camera armed: waits for triggers
    camera starts: each exposure advances           raised: display runs, triggers each exposure
    group complete: lowered                         exposures over: lowered

Lowered is the display's first pattern: a run that ended inside a group, cancelled or failed, leaves
nothing to the next.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pymmcore_plus.mda import MDAEngine
from pymmcore_plus.metadata import SummaryMetaV1
from useq import MDAEvent, MDASequence

from livesr.base.config import RigConfig, TriggerConfig
from livesr.base.errors import ConfigError, RunError, suggestion
from livesr.live.sources.mda import place_of
from livesr.modalities.registry import modalities_of

if TYPE_CHECKING:
    from pymmcore_plus import CMMCorePlus
    from pymmcore_plus.core import SequencedEvent

log = logging.getLogger(__name__)


class Trigger(NamedTuple):
    """The trigger of a rig, and where in rig.yaml it stands, as "NAME.trigger"."""

    config: TriggerConfig
    place: str


def trigger_of(rig: RigConfig) -> Trigger | None:
    """Return the trigger that a modality of the rig has, None without."""
    found = ((way.trigger(section), way.name) for way, section in modalities_of(rig))
    return next((Trigger(config, f"{name}.trigger") for config, name in found if config), None)


class Gate:
    """The digital output that lets a pattern display run.

    Its state is not known before the first write.

    Raises
    ------
    ConfigError
        If the core does not have what the rig names.
    """

    def __init__(self, core: CMMCorePlus, trigger: Trigger) -> None:
        self._core, (output, place) = core, trigger
        self._trigger = output
        self.raised: bool | None = None
        if output.device not in (devices := core.getLoadedDevices()):
            raise ConfigError(
                f"{place} names device {output.device!r}, which is not loaded."
                f"{suggestion(output.device, list(devices))}"
            )
        if not core.hasProperty(output.device, output.property):
            raise ConfigError(
                f"{place} names property {output.property!r}, which {output.device!r} does"
                " not have."
                f"{suggestion(output.property, list(core.getDevicePropertyNames(output.device)))}"
            )

    def let_run(self, moment: Literal["before", "armed"]) -> None:
        """Let the display run from its first pattern, if this is the `moment` to do it."""
        if moment == self._trigger.when and not self.raised:
            self._write(self._trigger.start)
            self.raised = True
            time.sleep(self._trigger.settle_ms / 1e3)

    def lower(self) -> None:
        """Take the display back to its first pattern."""
        if self.raised is not False:
            self._write(self._trigger.stop)
            self.raised = False

    def _write(self, value: str) -> None:
        self._core.setProperty(self._trigger.device, self._trigger.property, value)
        self._core.waitForDevice(self._trigger.device)


class TriggeredEngine(MDAEngine):
    """An `MDAEngine` that lets the pattern display run for whole groups of exposures, as the
    trigger in rig.yaml says.

    Set it with ``core.mda.set_engine(TriggeredEngine(core, rig))``; `livesr run` does.

    Parameters
    ----------
    core : with the rig's configuration loaded
    rig : one of its modalities has a trigger
    **options : of `MDAEngine`

    Raises
    ------
    ConfigError
        If the rig has no trigger, or the core not what it names.
    """

    def __init__(self, core: CMMCorePlus, rig: RigConfig, **options: Any) -> None:
        super().__init__(core, **options)
        if (trigger := trigger_of(rig)) is None:
            raise ConfigError(
                f"Rig {rig.name!r} says nothing of a trigger: give {rig.modality}.trigger in"
                " rig.yaml."
            )
        (self._trigger, self._place_in_rig), self._gate = trigger, Gate(core, trigger)
        self._n_raw, self._only = (
            rig.raw_frames,
            next(iter(rig.channels), "") if len(rig.channels) == 1 else "",
        )

    # -- what pymmcore-plus calls ------------------------------------------------------------------

    def setup_sequence(self, sequence: MDASequence) -> SummaryMetaV1 | None:
        """Bring the display to its first pattern, wherever the last run left it."""
        self._gate.raised = None
        self._gate.lower()
        return super().setup_sequence(sequence)

    def setup_event(self, event: MDAEvent) -> None:
        """Move and set everything, then let the display wait at its first pattern if an event
        begins a group.

        Raises
        ------
        RunError
            If the exposures of a group come one by one where the display leads, or begin inside a
            group.
        """
        super().setup_event(event)
        if event.action.type != "acquire_image":
            return
        first, n_raw = self._place(_exposures(event)[0])
        if first == 0:
            self._gate.lower()
        elif not self._gate.raised:
            raise RunError(
                f"An event begins with raw frame {first} of {n_raw}, and the display with its first"
                " pattern: a group was split. Keep whole groups together: nothing but the pattern"
                " may change within one, and sequences of properties must hold a multiple of"
                f" {n_raw}."
            )
        self._gate.let_run("before")
        if self._trigger.when == "armed" and not hasattr(event, "events"):
            raise RunError(
                "An exposure comes by itself, and the camera waits for triggers: with"
                f" {self._place_in_rig}.when 'armed' every group must be one triggered sequence."
                " See which device of the plan cannot be sequenced, or use when: before."
            )

    def post_sequence_started(self, event: SequencedEvent) -> None:
        """Let the display trigger the camera, which is armed now."""
        super().post_sequence_started(event)
        self._gate.let_run("armed")

    def teardown_event(self, event: MDAEvent) -> None:
        """Lower the output behind the last exposure of a group."""
        if event.action.type == "acquire_image":
            last, n_raw = self._place(_exposures(event)[-1])
            if last == n_raw - 1 or self._trigger.when == "armed":
                self._gate.lower()
        super().teardown_event(event)

    def teardown_sequence(self, sequence: MDASequence) -> None:
        """Lower the output however the run ended."""
        self._gate.lower()
        super().teardown_sequence(sequence)

    def _place(self, event: MDAEvent) -> tuple[int, int]:
        """Return which raw frame of its group an exposure is, and how many there are."""
        stream, _, raw = place_of(event, self._n_raw, self._only)
        return raw, self._n_raw(stream.channel)


def follow_trigger(core: CMMCorePlus, rig: RigConfig) -> None:
    """Give `core` the engine that drives the rig's pattern display, if rig.yaml names a trigger.

    Raises
    ------
    ConfigError
        As `TriggeredEngine`.
    """
    if trigger_of(rig):
        core.mda.set_engine(TriggeredEngine(core, rig))


def trigger_unused(core: CMMCorePlus, rig: RigConfig) -> str:
    """Return what is to be said of an MDA whose pattern display nobody drives, an empty string if
    nothing is.
    """
    trigger = trigger_of(rig)
    if trigger is None or isinstance(core.mda.engine, TriggeredEngine):
        return ""
    return (
        f"rig.yaml names {trigger.place}, and nothing of livesr raises it in this run: set "
        "core.mda.set_engine(TriggeredEngine(core, rig)), or the patterns do not run."
    )


def _exposures(event: MDAEvent) -> Sequence[MDAEvent]:
    return getattr(event, "events", None) or (event,)
