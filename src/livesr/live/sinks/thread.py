"""One thread and one bounded queue in front of one sink, so that no sink can slow another one or
the live path.

Owns the hand-over and what happens when a sink fails. Knows no format.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from livesr.base.buffers import BoundedQueue, Overflow
from livesr.base.errors import LiveSRError, RecordingError, RunError
from livesr.base.frames import MulticolorFrame, RawStack, SRFrame, Stream
from livesr.base.threads import called
from livesr.live.sinks.sink import RunDescription, Sink

log = logging.getLogger(__name__)

_Call = tuple[str, tuple[Any, ...]]
_PATIENCE_S = 5.0
_LOSSLESS_CAPACITY = (
    1 << 20
)  # bounded in truth by the run's raw queue, in bytes, which counts `weight`


class SinkThread:
    """Runs `sink` in its own thread.

    A lossless sink (a store) gets everything, in order; what waits for it counts in the run's raw
    queue. One that says ``endures`` goes on getting it after an error, keeps what it can and says
    at its end what it kept (`raw_kept`). Any other sink (a publisher, a listener) gives up its
    oldest frame when it falls behind, and counts it.

    Parameters
    ----------
    on_error : called in the sink's thread with its first error, after which nothing is given to a
        sink that does not endure; or from `close`, of a sink that does not come back

    Attributes
    ----------
    dropped : frames that a sink which is not lossless gave up
    """

    def __init__(
        self,
        sink: Sink,
        *,
        lossless: bool,
        on_error: Callable[[SinkThread, LiveSRError], None],
        capacity: int = 8,
    ) -> None:
        self.sink, self.lossless = sink, lossless
        self._on_error = on_error
        overflow: Overflow = "block" if lossless else "drop_oldest"
        self._queue: BoundedQueue[_Call] = BoundedQueue(
            _LOSSLESS_CAPACITY if lossless else capacity, overflow
        )
        self._thread = threading.Thread(target=self._run, name=f"livesr-{sink.name}", daemon=True)
        self._error: LiveSRError | None = None
        self._raw_given = self._raw_refused = 0
        self.dropped = 0

    def open(self, run: RunDescription) -> None:
        """Open the sink here, so that its error reaches the caller, then start the thread."""
        self.sink.open(run)
        self._thread.start()

    @property
    def raw_lost(self) -> int:
        """Raw frames that were given to the sink and are nowhere.

        Until the sink has counted them, those that it refused.
        """
        kept: int | None = getattr(self.sink, "raw_kept", None)
        return self._raw_refused if kept is None else self._raw_given - kept

    @property
    def accounts(self) -> Mapping[str, Any]:
        """What the sink says of what it kept, for the report."""
        return getattr(self.sink, "accounts", {})

    @property
    def notes(self) -> list[str]:
        """What the sink wants people to know, in sentences."""
        return list(getattr(self.sink, "notes", ()))

    @property
    def weight(self) -> int:
        """Bytes that wait for a lossless sink."""
        return self._queue.weight if self.lossless else 0

    def raw(self, stack: RawStack) -> None:
        """Hand over a raw group."""
        self._queue.put(("raw", (stack,)), sum(f.nbytes for f in stack.frames if f is not None))

    def unplaced(self, stack: RawStack) -> None:
        """Hand over raw frames that have no place in the run."""
        self._queue.put(
            ("unplaced", (stack,)), sum(f.nbytes for f in stack.frames if f is not None)
        )

    def recon(self, frame: SRFrame) -> None:
        """Hand over a measurement."""
        self._give("recon", frame, weight=frame.image.nbytes)

    def separated(self, frame: MulticolorFrame) -> None:
        """Hand over a prediction.

        A provisional one only to a sink that shows and keeps up, where it displaces nothing.
        """
        if frame.provisional and (
            self.lossless or len(self._queue) > 1
        ):  # its own measurement may still wait
            return
        self._give("separated", frame, weight=frame.channels.nbytes)

    def skipped(self, stream: Stream, t: int, reason: str) -> None:
        """Hand over a note that a time point has no prediction."""
        self._give("skipped", stream, t, reason)

    def status(self, status: Mapping[str, Any]) -> None:
        """Hand over the run's state."""
        self._give("status", status)

    def close(self, report: Mapping[str, Any]) -> None:
        """Let the sink finish what it was given, then close it.

        waits. Closes it also after an error.
        """
        self._queue.put(("close", (report,)))
        self._queue.close()
        # A listener or a subscriber that hangs must not hold back the end of a run.
        self._thread.join(None if self.lossless else _PATIENCE_S)
        if self._thread.is_alive():
            where = called(self._thread)
            self._on_error(
                self,
                RunError(
                    f"Sink {self.sink.name!r} does not come"
                    f" back{f' from {where}' if where else ''}."
                ),
            )

    def drain(self) -> None:
        """Wait until everything handed over has been taken and, by a sink that can tell, is where
        it stays.
        """
        done = threading.Event()
        if hasattr(self.sink, "finish"):
            self._queue.put(("finish", ()))
        self._queue.put(("_mark", (done,)))
        done.wait()

    def _give(self, method: str, *arguments: Any, weight: int = 0) -> None:
        """Queue a call; count the frames that are given up for it."""
        given_up = self._queue.put((method, arguments), weight)
        self.dropped += sum(m in ("recon", "separated") for m, _ in given_up)

    def _run(self) -> None:
        while (call := self._queue.get()) is not None:
            method, arguments = call
            if method == "_mark":
                arguments[0].set()
                continue
            taken = self._error is None or method == "close" or getattr(self.sink, "endures", False)
            if taken:
                taken = self._call(method, arguments)
            if method in ("raw", "unplaced") and getattr(self.sink, "keeps_raw", True):
                frames = sum(f is not None for f in arguments[0].frames)
                self._raw_given += frames
                self._raw_refused += 0 if taken else frames

    def _call(self, method: str, arguments: tuple[Any, ...]) -> bool:
        """Call the sink; return whether it took what it was given."""
        try:
            getattr(self.sink, method)(*arguments)
            return True
        except LiveSRError as e:
            self._fail(e)
        except MemoryError as e:
            self._fail(
                RecordingError(
                    f"Sink {self.sink.name!r} needs more memory than this process may have"
                    f" ({e or 'none is left'}): raise its limit (ulimit -v, the container's), or"
                    " record smaller or slower frames."
                )
            )
        except OSError as e:
            self._fail(
                RecordingError(
                    f"Sink {self.sink.name!r} can no longer write: {e}. Free space or choose"
                    " another place."
                )
            )
        except (
            BaseException
        ) as e:  # whatever else ended this thread would let the run wait for it for ever
            log.exception("sink %s failed in %s", self.sink.name, method)
            self._fail(
                RecordingError(
                    f"Sink {self.sink.name!r} failed in {method}: {type(e).__name__}: {e}."
                )
            )
        return False

    def _fail(self, error: LiveSRError) -> None:
        if self._error is None:
            self._error = error
            self._on_error(self, error)


class SinkThreads:
    """All sinks of a run, each behind its own thread; any thread may hand over.

    Parameters
    ----------
    sinks : (sink, lossless)
    on_error : as of `SinkThread`
    """

    def __init__(
        self,
        sinks: Sequence[tuple[Sink, bool]],
        on_error: Callable[[SinkThread, LiveSRError], None],
    ) -> None:
        self._all = [SinkThread(sink, lossless=kind, on_error=on_error) for sink, kind in sinks]
        self._lossless = [sink for sink in self._all if sink.lossless]

    def open(self, run: RunDescription) -> None:
        """Open the sinks.

        Raises
        ------
        UsageError
            If one cannot start; those already open are closed again.
        """
        opened: list[SinkThread] = []
        try:
            for sink in self._all:
                sink.open(run)
                opened.append(sink)
        except BaseException:
            for sink in opened:
                sink.close({"error": "another sink could not be opened"})
            raise

    def raw(self, stack: RawStack) -> None:
        """Hand a raw group to the lossless sinks."""
        for sink in self._lossless:
            sink.raw(stack)

    def unplaced(self, stack: RawStack) -> None:
        """Hand raw frames that have no place in the run to the lossless sinks."""
        for sink in self._lossless:
            sink.unplaced(stack)

    def recon(self, frame: SRFrame) -> None:
        """Hand a measurement to all."""
        for sink in self._all:
            sink.recon(frame)

    def separated(self, frame: MulticolorFrame) -> None:
        """Hand a prediction to all."""
        for sink in self._all:
            sink.separated(frame)

    def skipped(self, stream: Stream, t: int, reason: str) -> None:
        """Tell all that a time point has no prediction."""
        for sink in self._all:
            sink.skipped(stream, t, reason)

    def status(self, status: Mapping[str, Any]) -> None:
        """Hand the run's state to all."""
        for sink in self._all:
            sink.status(status)

    def drain(self) -> None:
        """Wait until the lossless sinks have taken what they were given."""
        for sink in self._lossless:
            sink.drain()

    def close(self, report: Callable[[], Mapping[str, Any]]) -> None:
        """Let every sink finish and close it, with the report as it is then."""
        for sink in self._all:
            sink.close(report())

    @property
    def weight(self) -> int:
        """Bytes that wait for lossless sinks."""
        return sum(sink.weight for sink in self._lossless)

    @property
    def raw_lost(self) -> int:
        """Raw frames that were given to sinks and are nowhere."""
        return sum(sink.raw_lost for sink in self._all)

    @property
    def accounts(self) -> dict[str, Any]:
        """What the sinks say of what they kept, for the report."""
        return {name: value for sink in self._all for name, value in sink.accounts.items()}

    @property
    def notes(self) -> list[str]:
        """What the sinks want people to know, in sentences."""
        return [note for sink in self._all for note in sink.notes]

    @property
    def free_bytes(self) -> int | None:
        """Bytes left where the run is stored; None without a store."""
        found = (getattr(sink.sink, "free_bytes", None) for sink in self._lossless)
        return next((free for free in found if free is not None), None)

    @property
    def dropped(self) -> dict[str, int]:
        """Frames that the sinks which are not lossless gave up, by their names."""
        return {sink.sink.name: sink.dropped for sink in self._all if not sink.lossless}
