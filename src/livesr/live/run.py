"""One run: what its threads share.

Owns nothing; says by the docstring of each part how that part is locked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from livesr.base.frames import Stream
from livesr.base.run_description import RunDescription
from livesr.formats.skips import of_part
from livesr.live.audit import Audits
from livesr.live.channel import Channel
from livesr.live.dose import DoseLedger
from livesr.live.error_maps import ErrorMaps
from livesr.live.keeping_up import KeepingUp, ProvisionalFrames
from livesr.live.queues import Queues
from livesr.live.recorded import Recorded
from livesr.live.run_state import RunState
from livesr.live.sinks.thread import SinkThreads
from livesr.live.stream_state import DroppedGroups
from livesr.live.watchdog import Watchdog


@dataclass(frozen=True, slots=True)
class Run:
    """What every stage of a run may use.

    Attributes
    ----------
    description, channels, keeping_up, recorded : constant; a channel says whose its parts are
    queues, sinks : between the threads
    errors : compares with widefield, in a thread of its own; its docstring says who calls it
    state, dropped, provisional, watchdog, dose, audits : told by one thread, asked by another
    """

    description: RunDescription
    channels: Mapping[str, Channel]
    keeping_up: KeepingUp
    recorded: Recorded
    queues: Queues
    sinks: SinkThreads
    state: RunState
    dropped: DroppedGroups
    provisional: ProvisionalFrames
    watchdog: Watchdog
    errors: ErrorMaps
    dose: DoseLedger
    audits: Audits

    def skip(self, stream: Stream, t: int, reason: str) -> None:
        """Say that a time point has no prediction, nor has a sum that it is part of."""
        self.sinks.skipped(stream, t, reason)
        self.audits.skipped(stream, t)
        for name, channel in self.channels.items():
            if stream.channel in channel.path.parts:
                sum_of_it = Stream(stream.position, name, stream.z)
                self.skip(sum_of_it, t, of_part(stream.channel, reason))

    def skip_centre(self, stream: Stream, t: int, reason: str) -> None:
        """Leave out the prediction of a frame that was measured."""
        self.state.count("sr_skipped")
        self.skip(stream, t, reason)
