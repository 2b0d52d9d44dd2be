"""Frames as psygnal signals, for scripts that react to what they see.

Owns the emission, in this sink's own thread: a slow listener delays other listeners and nothing
else, one that never comes back is left behind a few seconds after the run has ended.
"""

from __future__ import annotations

import logging

from psygnal import SignalInstance

from livesr.base.frames import MulticolorFrame, SRFrame
from livesr.live.sinks.sink import Sink

log = logging.getLogger(__name__)


class SignalSink(Sink):
    """Emits `frame_ready` (a final `MulticolorFrame`, prediction) and `input_ready` (an `SRFrame`,
    measurement).

    Provisional frames have a signal of their own, `provisional_ready`: a script that moves a stage
    or counts cells must act once per time point, on the frame that stays.
    """

    name = "signals"

    def __init__(
        self,
        frame_ready: SignalInstance,
        input_ready: SignalInstance,
        provisional_ready: SignalInstance,
    ) -> None:
        self._frame_ready, self._input_ready, self._provisional_ready = (
            frame_ready,
            input_ready,
            provisional_ready,
        )
        self.listener_errors = 0

    def recon(self, frame: SRFrame) -> None:
        """Emit `input_ready`."""
        self._emit(self._input_ready, frame)

    def separated(self, frame: MulticolorFrame) -> None:
        """Emit `frame_ready`, or `provisional_ready`."""
        self._emit(self._provisional_ready if frame.provisional else self._frame_ready, frame)

    def _emit(self, signal: SignalInstance, frame: object) -> None:
        try:
            signal.emit(frame)
        except BaseException as e:  # a listener may raise, or call sys.exit(): it is reported
            self.listener_errors += 1
            log.warning("a listener of %s raised: %r", signal.name, e.__cause__ or e)
