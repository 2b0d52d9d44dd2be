"""The frames of several channels become one of their sum, in the thread "livesr-reconstruct".

Owns what the sum inherits from its channels. The arithmetic is in
`livesr.live.reconstruct.superpose`.
"""

from __future__ import annotations

from livesr.base.frames import Normalisation, SRFrame, Stream
from livesr.live.normalise import BORDER, background_and_scale
from livesr.live.paths import ChannelPath
from livesr.live.reconstruct.superpose import Gathering, Superposition
from livesr.live.run import Run
from livesr.live.sinks.sink import moments_ns, time_shift_ms
from livesr.live.stream_state import Streams


class Sum:
    """A channel that is the sum of others; one thread.

    Parameters
    ----------
    run : what the stages share
    path : of the sum
    streams : of the run
    """

    def __init__(self, run: Run, path: ChannelPath, streams: Streams) -> None:
        assert isinstance(path.reconstructor, Superposition)
        self._run, self._path, self._streams = run, path, streams
        self._superposition, self._gathering = path.reconstructor, Gathering(path.parts)

    def add(self, frame: SRFrame) -> SRFrame | None:
        """Take a measurement; return the sum of its time point when it is the last part of it."""
        if frame.stream.channel not in self._path.parts:
            return None
        parts = self._gathering.add(frame)
        return self._sum(parts) if parts else None

    def _sum(self, parts: tuple[SRFrame, ...]) -> SRFrame:
        state, first = self._run.state, parts[0]
        with state.steps.measure("superpose"):
            image = self._superposition.add_up(parts)
            stream = Stream(first.stream.position, self._path.name, first.stream.z)
            state.added_up(time_shift_ms(parts) or 0.0)
            recorded = self._run.recorded.normalisation(stream, first.t)
            levels = recorded or Normalisation(*background_and_scale(image, border=BORDER))
            moments = moments_ns(parts)
            doubtful = [p.quality for p in parts if p.quality and p.quality.doubt]
            return SRFrame(
                image,
                stream,
                first.t,
                sum(moments) // max(len(moments), 1),
                max(p.t_last_ns for p in parts),
                self._streams[stream].normalisation(levels, recorded=recorded is not None),
                sum(p.saturated for p in parts),
                quality=doubtful[0] if doubtful else first.quality,
                parts=parts,
                exposure_ms=sum(p.exposure_ms or 0.0 for p in parts) or None,
                stage=first.stage,
            )
