"""What an MDA announced, and what of it came.

Counted, and fetched where pymmcore-plus left it in the core's buffer.

Owns the count of announced exposures and the last look into the core's buffer. Waits for no camera
and ends no run.

pymmcore-plus asks whether images remain before it asks whether the sequence still runs (0.18.1,
``mda/_engine.py``). An image that comes between the two questions stays in the core's buffer; one
after a cancellation or an overflow does as well. When the next event starts, or the acquisition has
finished, nobody else will take them: the next sequence empties the buffer.

It also takes the frames that it gets for the first ones of a sequence, in their order, whatever the
core numbered them. Where another program takes some of them out of the buffer, those that follow
would stand in the wrong place: here they get the event that is theirs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pymmcore_plus import CMMCorePlus
from pymmcore_plus.mda import MDAEngine

from livesr.live.sources.camera_setting import CameraSetting, setting_now
from livesr.live.sources.mda import MDAHook

if TYPE_CHECKING:
    from useq import MDAEvent

log = logging.getLogger(__name__)

DRAINED = (
    "Frames vanish although Micro-Manager's buffer never was full: another program takes frames"
    " from Micro-Manager's buffer, as the preview of pymmcore-gui does, and they are in no image."
    " Open that program with 'livesr gui', where its preview takes none, or close the preview."
)


class Delivery:
    """Follows the events of an acquisition.

    Attributes
    ----------
    announced : exposures of the events that have started
    skipped : those of them that an acquisition engine of somebody's own left out (`SkipEvent`)
    vanished : exposures that the core numbered and that were not in its buffer any more
    """

    __slots__ = (
        "_before",
        "_core",
        "_event",
        "_exposures",
        "_looked",
        "_metadata",
        "_next",
        "_setting",
        "_thread",
        "announced",
        "skipped",
        "vanished",
    )

    def __init__(self, core: CMMCorePlus) -> None:
        self._core = core
        self.begin()

    def begin(self) -> None:
        """Forget the last acquisition."""
        self.announced = self.skipped = self.vanished = self._next = 0
        self._event: MDAEvent | None = None
        self._exposures: tuple[MDAEvent, ...] = ()
        self._before = self._thread = 0
        self._looked = False
        self._setting: CameraSetting | None = None
        self._metadata: Mapping[str, Any] = {}

    def event_started(self, event: Any, hook: MDAHook) -> None:
        """Take what the last event left, and note what this one announces.

        In the acquisition thread.
        """
        self.settle(hook)
        exposures = _exposures(event)
        self.announced += len(exposures)
        self._event = event
        # A single exposure is no sequence, and nothing of it goes into the buffer.
        self._exposures = exposures if hasattr(event, "events") else ()
        self._before, self._thread, self._metadata = hook.received, threading.get_ident(), {}
        self._next = 0
        self._looked = False

    def setting(self) -> CameraSetting | None:
        """Return how the camera is set, as it was at the first frame of the event.

        While a sequence runs, neither region nor binning can be set otherwise.
        """
        if not self._looked:
            self._looked, self._setting = True, setting_now(self._core)
        return self._setting

    def event_of(self, event: MDAEvent, metadata: Mapping[str, Any]) -> MDAEvent:
        """Return the event of a frame that was delivered.

        The one it came with, or of a sequence that lacks some the one that its number says.
        """
        self._metadata = metadata
        if not self._exposures:
            return event
        camera = metadata.get("camera_metadata") or {}
        place = self._came(camera.get("ImageNumber", None))
        return self._exposures[place] if self.vanished and place < len(self._exposures) else event

    def _came(self, numbered: object) -> int:
        """Return the place of a frame in its sequence, and count what is missing before it."""
        place = _place(numbered, self._next, len(self._exposures))
        self.vanished += place - self._next
        self._next = place + 1
        return place

    def settle(self, hook: MDAHook) -> None:
        """Give `hook` what the last sequence left in the core's buffer.

        Nothing where another thread still acquires.
        """
        delivered = hook.received - self._before
        self._count_skipped(delivered)
        try:
            if delivered < len(self._exposures) and threading.get_ident() == self._thread:
                self._take(hook)
        except (
            Exception
        ) as e:  # whatever a driver raises: what was not delivered is counted by whoever asks
            log.warning("What is left in the core's buffer cannot be fetched: %s", e)
        finally:
            self._exposures = ()

    def _count_skipped(self, delivered: int) -> None:
        """Count the exposures of the last event if the engine skipped it.

        pymmcore-plus (0.18.1) tells nobody. It marks an event before it has it exposed, and an
        engine skips while it sets up; its own engine never does.
        """
        event, self._event = self._event, None
        if event is None or delivered or "runner_t0" in event.metadata:
            return
        if getattr(type(self._core.mda.engine), "setup_event", None) is not MDAEngine.setup_event:
            self.skipped += len(_exposures(event))

    def _take(self, hook: MDAHook) -> None:
        if self._core.isSequenceRunning():  # somebody else's by now
            return
        exposures = self._exposures
        while (remaining := self._core.getRemainingImageCount()) and self._next < len(exposures):
            image, camera = self._core.popNextImageAndMD()
            event = exposures[self._came(camera.get("ImageNumber", None))]
            about = {
                "hardware_triggered": True,
                "images_remaining_in_buffer": remaining - 1,
                "camera_metadata": dict(camera),
                "exposure_ms": self._exposure_ms(event),
                "mda_event": event,
            }
            hook.take(image, event, about, may_wait=lambda: True)
            hook.fetched += 1

    def _exposure_ms(self, event: MDAEvent) -> float:
        """Return the exposure as pymmcore-plus says it of the frames beside.

        The core may have been set back by now.
        """
        said = self._metadata.get("exposure_ms", event.exposure)
        return float(said if said is not None else self._core.getExposure())


def _exposures(event: Any) -> tuple[MDAEvent, ...]:
    """Return the exposures of an event, of which a sequence has several."""
    return tuple(e for e in getattr(event, "events", (event,)) if e.action.type == "acquire_image")


def _place(numbered: object, expected: int, n: int) -> int:
    """Return which exposure of its sequence a frame is.

    As the core numbered it, or the next one.
    """
    number = int(numbered) if isinstance(numbered, str) and numbered.isdigit() else expected
    return number if expected <= number < n else expected
