"""One thread and one bounded queue in front of one sink, so that no sink can slow another one or
the live path.

Owns the hand-over and what happens when a sink fails. Knows no format.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from livesr.base.buffers import BoundedQueue
from livesr.base.errors import LiveSRError, RecordingError, RunError, UsageError
from livesr.base.frames import FrameErrors, MulticolorFrame, RawStack, SRFrame, Stream
from livesr.base.run_description import RunDescription
from livesr.base.threads import called
from livesr.live.sinks.sink import Sink

log = logging.getLogger(__name__)
T = TypeVar("T")

_Call = tuple[str, tuple[Any, ...]]
_CAPACITY = 8  # frames that may wait for a sink which may lose some
# bounded in truth by bytes, `max_bytes` or the run's raw queue, which counts `weight`
_LOSSLESS_CAPACITY = 1 << 20
# A listener or a subscriber that hangs must not hold back a run. What is lossless may have much
# to do yet, but not a single call that takes so long.
_PATIENCE_S, _LOSSLESS_PATIENCE_S = 5.0, 30.0
_LOOK_S = 0.005
_SHARE = 4  # of what may wait in a run, for a sink that the run can go on without


class SinkThread:
    """Runs `sink` in its own thread.

    A lossless sink (a store) gets everything, in order; what waits for it counts in the run's raw
    queue. One that says ``endures`` goes on getting it after an error, keeps what it can and says
    at its end what it kept (`raw_kept`). Any other sink (a publisher, a listener) gives up its
    oldest frame when it falls behind, and counts it.

    A sink that is not essential cannot hold up the run: it is left behind when it does not come
    back in time, or when more than `max_bytes` wait for it.

    Parameters
    ----------
    on_error : called in the sink's thread with its first error, after which nothing is given to a
        sink that does not endure; or in the thread that notices that the sink is left behind
    max_bytes : of frames that may wait for a lossless sink that is not essential

    Attributes
    ----------
    dropped : frames that a sink which is not lossless gave up
    notes : what the sink wants people to know, in sentences, as it last said
    """

    def __init__(
        self,
        sink: Sink,
        *,
        on_error: Callable[[SinkThread, LiveSRError], None],
        max_bytes: int = 256 << 20,
    ) -> None:
        self.sink, self.lossless, self.essential = sink, sink.lossless, sink.essential
        self._on_error, self._max_bytes = on_error, max_bytes
        self._queue: BoundedQueue[_Call] = (
            BoundedQueue(_LOSSLESS_CAPACITY, "block")
            if sink.lossless
            else BoundedQueue(_CAPACITY, "drop_oldest")
        )
        self._thread = threading.Thread(target=self._run, name=f"livesr-{sink.name}", daemon=True)
        self._error: LiveSRError | None = None
        self._raw_given = self._raw_refused = 0
        self._moved_s = time.monotonic()  # when the sink last came back from a call
        self._left_behind = self._keeps_updates = False
        self.dropped = 0
        self.notes: list[str] = []

    def open(self, run: RunDescription) -> None:
        """Open the sink, then start its thread.

        An essential one is opened here, any other in its thread, where it may hang.

        Raises
        ------
        UsageError, RecordingError
            If the sink cannot start; it is closed again.
        """
        self._keeps_updates = any(channel.kept_updates for channel in run.channels)
        if self.essential:
            try:
                self.sink.open(run)
            except BaseException as e:
                _close_unopened(self.sink, e)
                if isinstance(e, LiveSRError) or not isinstance(e, Exception):
                    raise
                raise _error_in(self.sink.name, "open", e) from e
            self._thread.start()
        else:
            self._open_in_thread(run)

    def _open_in_thread(self, run: RunDescription) -> None:
        opening = _Opening(run)
        self._queue.put(("_open", (opening,)))
        self._thread.start()
        if not opening.done.wait(_PATIENCE_S):
            self._leave(f"does not come back{_from_where(self._thread)}")
        elif opening.refusal is not None:
            self._queue.close()
            self._thread.join(_PATIENCE_S)
            raise opening.refusal

    @property
    def raw_lost(self) -> int:
        """Raw frames that were given to the sink and are nowhere.

        Until the sink has counted them, those that it refused.
        """
        if not self.essential:
            return 0
        kept = _said(self.sink, "raw_kept", None)
        return self._raw_refused if kept is None else self._raw_given - kept

    @property
    def accounts(self) -> Mapping[str, Any]:
        """What the sink says of itself, for the report; of one that is not essential, by its name
        under `sinks`.
        """
        nothing: Mapping[str, Any] = {}
        said = _said(self.sink, "accounts", nothing)
        return said if self.essential or not said else {"sinks": {self.sink.name: dict(said)}}

    @property
    def weight(self) -> int:
        """Bytes that wait for a lossless sink."""
        return self._queue.weight if self.lossless else 0

    def raw(self, stack: RawStack) -> None:
        """Hand over a raw group."""
        self._give("raw", stack, weight=stack.nbytes)

    def unplaced(self, stack: RawStack) -> None:
        """Hand over raw frames that have no place in the run."""
        self._give("unplaced", stack, weight=stack.nbytes)

    def recon(self, frame: SRFrame) -> None:
        """Hand over a measurement.

        One of a group under way only to a sink that stores it, or shows it and keeps up: there it
        displaces nothing.
        """
        if not frame.newest:
            self._give("recon", frame, weight=frame.image.nbytes)
        elif self._keeps_updates if self.lossless else len(self._queue) <= 1:
            self._give("updated", frame, weight=frame.image.nbytes)

    def exposed(self, stack: RawStack) -> None:
        """Hand the exposures of a measurement to a sink that asks for them, and gets no other."""
        if not self.lossless and _said(self.sink, "watches_exposures", False):
            self._give("exposed", stack)

    def separated(self, frame: MulticolorFrame) -> None:
        """Hand over a prediction.

        A provisional one only to a sink that shows and keeps up, where it displaces nothing.
        """
        if frame.provisional and (
            self.lossless or len(self._queue) > 1
        ):  # its own measurement may still wait
            return
        self._give("separated", frame, weight=frame.channels.nbytes)

    def errors(self, frame: FrameErrors) -> None:
        """Hand over a comparison with widefield."""
        self._give("errors", frame, weight=frame.planes.nbytes)

    def skipped(self, stream: Stream, t: int, reason: str) -> None:
        """Hand over a note that a time point has no prediction."""
        self._give("skipped", stream, t, reason)

    def status(self, status: Mapping[str, Any]) -> None:
        """Hand over the run's state."""
        self._give("status", status)

    def close(self, report: Mapping[str, Any]) -> None:
        """Let the sink finish what it was given, then close it.

        Waits, for a sink that is not essential only as long as it comes back from its calls.
        Closes it also after an error.
        """
        self._count(self._queue.put(("close", (report,))))
        self._queue.close()
        self._wait(lambda: not self._thread.is_alive())

    def drain(self) -> None:
        """Wait until everything handed over has been taken and is where it stays."""
        done = threading.Event()
        self._queue.put(("finish", ()))
        self._queue.put(("_mark", (done,)))
        self._wait(done.is_set)
        if self._left_behind:
            _empty(self._queue)

    def _wait(self, over: Callable[[], bool]) -> None:
        """Wait until it is `over`, or a sink that is not essential is left behind."""
        patience_s = _LOSSLESS_PATIENCE_S if self.lossless else _PATIENCE_S
        began_s = time.monotonic()
        while not over():
            if not self.essential:
                since_s = max(began_s, self._moved_s) if self.lossless else began_s
                if self._left_behind and self.lossless:
                    return
                if time.monotonic() - since_s > patience_s:
                    self._leave(f"does not come back{_from_where(self._thread)}")
                    return
            time.sleep(_LOOK_S)

    def _leave(self, why: str) -> None:
        """Give the sink nothing more, and wait for it no longer."""
        self._left_behind = True
        self._fail(RunError(f"Sink {self.sink.name!r} {why}."))

    def _give(self, method: str, *arguments: Any, weight: int = 0) -> None:
        """Queue a call; count the frames that are given up for it."""
        if self._left_behind:
            return
        self._count(self._queue.put((method, arguments), weight))
        if self.lossless and not self.essential and self._queue.weight > self._max_bytes:
            self._leave(
                f"is slower than the camera: {self._queue.weight / 1e6:.0f} MB wait for it, at most"
                f" {self._max_bytes / 1e6:.0f} MB may"
            )
            _empty(self._queue)

    def _count(self, given_up: list[_Call]) -> None:
        self.dropped += sum(method in ("recon", "separated") for method, _ in given_up)

    def _run(self) -> None:
        while (call := self._queue.get()) is not None:
            method, arguments = call
            if method == "_mark":
                arguments[0].set()
                continue
            if method == "_open":
                self._open_here(*arguments)
                continue
            taken = self._error is None or method == "close" or self.sink.endures
            if taken:
                taken = self._call(method, arguments)
            if method in ("raw", "unplaced") and self.sink.keeps_raw:
                frames = len(arguments[0].came)
                self._raw_given += frames
                self._raw_refused += 0 if taken else frames

    def _open_here(self, opening: _Opening) -> None:
        """Open the sink in its own thread; one that cannot start is closed again."""
        try:
            self.sink.open(opening.run)
        except UsageError as e:
            opening.refusal = e
            self._error = self._error or e
            self._call("close", ({"error": str(e)},))
        except BaseException as e:  # a sink of others can fail in any way
            self._fail(_error_in(self.sink.name, "open", e))
        finally:
            self._moved_s = time.monotonic()
            opening.done.set()

    def _call(self, method: str, arguments: tuple[Any, ...]) -> bool:
        """Call the sink; return whether it took what it was given."""
        try:
            getattr(self.sink, method)(*arguments)
            return True
        except BaseException as e:  # it would let the run wait for this thread for ever
            self._fail(_error_in(self.sink.name, method, e))
            return False
        finally:
            self._take_notes()
            self._moved_s = time.monotonic()

    def _take_notes(self) -> None:
        """Take down what the sink has to say, here, where it may hang."""
        try:
            if self.sink.notes:
                self.notes = [str(note) for note in self.sink.notes]
        except BaseException as e:  # as in any other call
            self._fail(_error_in(self.sink.name, "notes", e))

    def _fail(self, error: LiveSRError) -> None:
        if self._error is None:
            self._error = error
            self._on_error(self, error)


def _empty(queue: BoundedQueue[_Call]) -> None:
    while queue.get(0) is not None:
        pass


def _from_where(thread: threading.Thread) -> str:
    where = called(thread)
    return f" from {where}" if where else ""


def _error_in(name: str, method: str, error: BaseException) -> LiveSRError:
    """Return what went wrong in a call of the sink `name` as an error that says what to do."""
    if isinstance(error, LiveSRError):
        return error
    if isinstance(error, MemoryError):
        return RecordingError(
            f"Sink {name!r} needs more memory than this process may have"
            f" ({error or 'none is left'}): raise its limit (ulimit -v, the container's), or"
            " record smaller or slower frames."
        )
    if isinstance(error, OSError):
        return RecordingError(
            f"Sink {name!r} can no longer write: {error}. Free space or choose another place."
        )
    log.error("sink %s failed in %s", name, method, exc_info=error)
    return RecordingError(f"Sink {name!r} failed in {method}: {type(error).__name__}: {error}.")


def _said(sink: Sink, name: str, otherwise: T) -> T:
    """Return what a sink says under `name`, which must not keep a report from being made."""
    try:
        said: T = getattr(sink, name)
        return said
    except Exception:  # a sink of others can fail in any way
        log.exception("sink %s cannot tell its %s", sink.name, name)
        return otherwise


def _close_unopened(sink: Sink, error: BaseException) -> None:
    """Close a sink that did not open; the first error is the one to tell."""
    try:
        sink.close({"error": str(error)})
    except Exception:  # a sink of others can fail in any way
        log.exception("sink %s cannot be closed", sink.name)


class _Opening:
    """An `open` that takes place in the sink's thread."""

    def __init__(self, run: RunDescription) -> None:
        self.run, self.done = run, threading.Event()
        self.refusal: UsageError | None = None


class SinkThreads:
    """All sinks of a run, each behind its own thread; any thread may hand over.

    All see the same pixels, which the run goes on to compute with: none can write into them.

    Parameters
    ----------
    sinks : in the order in which they are opened
    on_error : as of `SinkThread`
    limit_bytes : of frames that may wait in the run, a quarter of them for one sink that is not
        essential
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        on_error: Callable[[SinkThread, LiveSRError], None],
        limit_bytes: int,
    ) -> None:
        share = limit_bytes // _SHARE
        self._all = [SinkThread(sink, on_error=on_error, max_bytes=share) for sink in sinks]
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
        stack = stack.read_only()
        for sink in self._lossless:
            sink.raw(stack)

    def unplaced(self, stack: RawStack) -> None:
        """Hand raw frames that have no place in the run to the lossless sinks."""
        stack = stack.read_only()
        for sink in self._lossless:
            sink.unplaced(stack)

    def recon(self, frame: SRFrame) -> None:
        """Hand a measurement to all."""
        frame = frame.read_only()
        for sink in self._all:
            sink.recon(frame)

    def exposed(self, stack: RawStack) -> None:
        """Hand the exposures of a measurement to those that ask for them."""
        stack = stack.read_only()
        for sink in self._all:
            sink.exposed(stack)

    def separated(self, frame: MulticolorFrame) -> None:
        """Hand a prediction to all."""
        frame = frame.read_only()
        for sink in self._all:
            sink.separated(frame)

    def errors(self, frame: FrameErrors) -> None:
        """Hand a comparison with widefield to all."""
        frame = frame.read_only()
        for sink in self._all:
            sink.errors(frame)

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
        every = [sink.accounts for sink in self._all]
        others = {k: v for each in every for k, v in each.get("sinks", {}).items()}
        told = {name: value for each in every for name, value in each.items()}
        return {**told, "sinks": others} if others else told

    @property
    def notes(self) -> list[str]:
        """What the sinks want people to know, in sentences."""
        return [note for sink in self._all for note in sink.notes]

    @property
    def free_bytes(self) -> int | None:
        """Bytes left where the run is stored; None without a store."""
        found = (sink.sink.free_bytes for sink in self._all if sink.essential)
        return next((free for free in found if free is not None), None)

    @property
    def dropped(self) -> dict[str, int]:
        """Frames that the sinks which are not lossless gave up, by their names."""
        return {sink.sink.name: sink.dropped for sink in self._all if not sink.lossless}
