"""How long an acquisition waits for a frame, and what is said of one that ended by itself.

Owns two functions. Waits for nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pymmcore_plus.mda import MDAEngine

from livesr.base.errors import RunError

if TYPE_CHECKING:
    from pymmcore_plus import CMMCorePlus

_EXPOSURES = 5.0  # as many as pymmcore-plus waits for where an event says how long it is exposed


def wait_for_exposures(core: CMMCorePlus, exposure_ms: float) -> None:
    """Let acquisitions of a core wait for exposures of so many ms.

    pymmcore-plus gives a triggered sequence up when no frame came for 5 s, the first for 20 s; it
    knows no exposure that only the core was told.
    """
    engine = core.mda.engine
    if isinstance(engine, MDAEngine):
        least_s = _EXPOSURES * exposure_ms / 1e3
        engine.timeout_base = max(engine.timeout_base, least_s)
        if engine.timeout_first_frame is not None:
            engine.timeout_first_frame = max(engine.timeout_first_frame, least_s)


def ended_by_itself(error: Exception) -> RunError:
    """Return what to say of an acquisition engine that raised `error`, whatever a driver raises."""
    if isinstance(error, TimeoutError):
        return RunError(
            "The camera gave no more frames, and the acquisition has ended: does it wait for"
            " triggers that do not come? See TRIGGER SOURCE in rig.cfg, and trigger in rig.yaml."
        )
    said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return RunError(f"The acquisition ended with an error of the camera or core: {said}.")
