"""What every run has, wherever its frames come from: sinks, pipeline, signals, report.

Owns one run at a time and what a script gets back from it. Where frames come from is the matter of
its kinds: `LiveSR` takes them from a core, `livesr.store.replay.Replay` from a recording.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from psygnal import Signal

from livesr.base.config import RigConfig
from livesr.base.errors import ConfigError, LiveSRError, RunError
from livesr.base.frames import MulticolorFrame, Pixels, SRFrame, read_only
from livesr.base.interrupts import interrupted_later
from livesr.base.memory import available_bytes
from livesr.base.run_config import RunConfig
from livesr.base.run_description import RunDescription
from livesr.base.threads import called, wait_for
from livesr.formats.object_store import refuse_to_write
from livesr.live.audit import Audits, AuditSchedule
from livesr.live.keeping_up import KeepingUp
from livesr.live.paths import ChannelPath, close_all
from livesr.live.pipeline import Pipeline
from livesr.live.run_state import Report, Status
from livesr.live.sinks.capacity import (
    bytes_per_hour,
    free_bytes,
    lasting,
    memory_bytes,
    store_bytes,
)
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.live.sinks.signals import SignalSink
from livesr.live.sinks.sink import Sink, checked, made, named_apart

if TYPE_CHECKING:
    from livesr.live.sinks.pairs import PairsSink
    from livesr.live.sinks.raw_door import RawDoor
    from livesr.live.sinks.zeromq import ZeroMQSink

log = logging.getLogger(__name__)

# a listener of `finished` may copy a store; one that hangs must not hold up what comes next
_LISTENER_PATIENCE_S = 30.0

_CTRL_C_WHILE_STORING = 3


class _SettingsSinks(NamedTuple):
    """The sinks that settings ask for, in the order in which they are opened."""

    publisher: ZeroMQSink | None
    raw_door: RawDoor | None
    pairs: PairsSink | None
    writer: OMEZarrSink | None  # last: an address that is taken must not leave an empty store

    @classmethod
    def of(
        cls, settings: RunConfig, store: Callable[[], Path | None] = lambda: None
    ) -> _SettingsSinks:
        """Make them; `store` returns where the run is recorded."""
        publisher = raw_door = pairs = writer = None
        if settings.publish:
            from livesr.live.sinks.zeromq import ZeroMQSink

            publisher = ZeroMQSink(settings.publish, insecure=settings.insecure, keys=settings.keys)
        if settings.publish_raw:
            from livesr.live.sinks.raw_door import RawDoor

            raw_door = RawDoor(
                settings.publish_raw,
                insecure=settings.insecure,
                keys=settings.keys,
                store=store,
            )
        if settings.pairs:
            from livesr.live.sinks.pairs import PairsSink

            pairs = PairsSink(settings.pairs)
        if settings.store:
            writer = OMEZarrSink(settings.store, spare=settings.spare, sync_s=settings.flush_s)
        return cls(publisher, raw_door, pairs, writer)

    def made(self) -> list[Sink]:
        """Return those that there are."""
        return [sink for sink in self if sink is not None]


def check_places(settings: RunConfig, sinks: Sequence[Sink | str] = ()) -> None:
    """Refuse addresses and folders of a run that cannot work, before anything slow is begun.

    Nothing is left of it.

    Raises
    ------
    UsageError
        As `Sink.check` and `made`.
    """
    for sink in (*map(made, sinks), *_SettingsSinks.of(settings).made()):
        sink.check()


class Session:
    """Runs, one after the other.

    Attributes
    ----------
    frame_ready : signal with every final `MulticolorFrame` (a prediction); emitted in a thread of
        its own
    provisional_ready : signal with provisional ones, which the final frame of the same time point
        replaces; likewise
    input_ready : signal with every `SRFrame` (a measurement); likewise
    finished : signal with the report of every run
    report : report of the last run, {} before
    error : the first error that ended a run early, None without one
    newest_error : the last one, or what let none begin
    interrupted : whether Ctrl-C cut short what was left to compute
    store : what the last run writes or wrote, None without a store
    """

    frame_ready = Signal(MulticolorFrame)
    provisional_ready = Signal(MulticolorFrame)
    input_ready = Signal(SRFrame)
    finished = Signal(dict)

    def __init__(
        self, rig: RigConfig, settings: RunConfig, sinks: Sequence[Sink | str] = ()
    ) -> None:
        self.rig, self.settings = rig, settings
        for place in (settings.store, settings.spare, settings.pairs):
            if place is not None:
                refuse_to_write(place)
        self._own_sinks = checked(sinks)
        self._paths: dict[str, ChannelPath] = {}
        self._pipeline: Pipeline | None = None
        self._finishing: tuple[threading.Thread, Pipeline] | None = None
        self._signals = SignalSink(self.frame_ready, self.input_ready, self.provisional_ready)
        self._publisher: ZeroMQSink | None = None
        self._raw_door: RawDoor | None = None
        self._writer: OMEZarrSink | None = None
        self._description: RunDescription | None = None
        self._about = Report()
        self._told_s = math.inf  # when listeners were told that the run has finished
        self._process = os.getpid()
        self.interrupted = False
        self.store: Path | None = None
        self.report = Report()
        self.error: LiveSRError | None = None
        self.newest_error: LiveSRError | None = None

    def wait(self) -> Report:
        """Wait until the run that has ended is processed and stored; return its report.

        Ctrl-C while waiting leaves out what is not computed yet, and still stores everything
        received; who insists three times more, because a disk hangs, leaves it at that.
        """
        if (
            self._finishing and self._finishing[0] is not threading.current_thread()
        ):  # a listener of `finished` may ask
            thread, pipeline = self._finishing
            for insisted in range(_CTRL_C_WHILE_STORING + 1):
                try:
                    wait_for(thread, self._listeners_had_time)
                    break
                except KeyboardInterrupt:
                    self.interrupted = True
                    pipeline.abandon()
                    if insisted == _CTRL_C_WHILE_STORING:
                        raise
            if thread.is_alive():
                self._leave_behind(thread)
        return self.report

    def _listeners_had_time(self) -> bool:
        return time.monotonic() > self._told_s + _LISTENER_PATIENCE_S

    def _leave_behind(self, thread: threading.Thread) -> None:
        """Say which listener of `finished` does not come back; the run is over and stored."""
        sentence = (
            f"A listener of finished does not come back: {called(thread)}. The run is complete"
            " without it."
        )
        if sentence not in self.report["warnings"]:
            log.warning(sentence)
            self.report["warnings"].append(sentence)

    @property
    def _forked(self) -> bool:
        """Whether this is a copy in a child process.

        The run, its threads and its files are the parent's.
        """
        return os.getpid() != self._process

    def status(self) -> Status:
        """State of the run in progress, {} between runs."""
        return self._pipeline.status() if self._pipeline else Status()

    @property
    def camera_pixels(self) -> Pixels | None:
        """The exposure that the run in progress took last, uint8 or uint16 (y, x) in ADU.

        For previews, which find nothing in a buffer that livesr empties: look as often as you draw.
        It is what the store gets, and cannot be written into. None between runs.
        """
        pipeline = self._pipeline
        return read_only(pipeline.hook.newest) if pipeline else None

    def fail(self, error: LiveSRError) -> None:
        """End the run because of `error`, which this object cannot see by itself.

        What was received is kept.
        """
        if self._pipeline:
            self._pipeline.stop(error)
        else:
            self._went_wrong(error)

    def _went_wrong(self, error: LiveSRError) -> None:
        self.error, self.newest_error = self.error or error, error

    def promises(self, frames_per_s: float | None = None) -> list[str]:
        """Return what the armed run will take, in sentences.

        Memory, and the disk when the rate is known.
        """
        if self._pipeline is None or self._description is None:
            return []
        streams = len(self._description.positions) * self._description.z_planes
        buffers = sum(p.memory_bytes(streams) for p in self._paths.values())
        queue = self._pipeline.raw_queue_bytes
        store = memory_bytes(self._description) if self._writer else 0
        lines = [
            f"Memory: at most {queue / 1e9:.1f} GB for waiting frames,"
            f" {(buffers + store) / 1e6:.0f} MB for buffers."
        ]
        hourly = bytes_per_hour(self._description, frames_per_s or 0.0)
        if self._writer and hourly:
            left = lasting(free_bytes(self._writer.path), hourly)
            lines.append(
                f"Disk: up to {hourly / 1e9:.1f} GB/h before compression; {left} are free."
            )
            if spare := self.settings.spare:
                lines.append(f"Spare disk: {lasting(free_bytes(spare), hourly)} more.")
        return lines

    def store_bytes(self, time_points: int) -> int | None:
        """Return the most that the armed run writes in so many time points, uncompressed.

        None without a store.
        """
        return (
            store_bytes(self._description, time_points)
            if self._writer and self._description
            else None
        )

    @property
    def endpoint(self) -> str | None:
        """The address that frames are published on, with its real port."""
        return self._publisher.endpoint if self._publisher else None

    def handed_out(self, timeout_s: float = 0.0) -> bool:
        """Wait until the computers that ask for the raw groups of the last run have all of them.

        Return whether they have. A program that ends before leaves them with what is in the store.
        """
        return self._raw_door is None or self._raw_door.handed_out(timeout_s)

    @property
    def description(self) -> RunDescription | None:
        """What the run that is open consists of, or the last one; None before the first."""
        return self._description

    # -- a run -------------------------------------------------------------------------------------

    def _open_run(self, run: RunDescription, on_stop: Callable[[], None]) -> Pipeline:
        """Open sinks and threads of the run that comes next.

        `on_stop` stops where its frames come from.

        Raises
        ------
        UsageError
            If a sink cannot start, or nothing would go into the store.
        """
        if self.settings.store and not store_bytes(run, 1):
            raise ConfigError(
                "The run is to be stored, and neither raw frames nor reconstructions nor"
                " predictions would be: record one of them, name an engine, or leave out the"
                " store."
            )
        sinks = self._sinks()
        pipeline = Pipeline(
            {channel.name: self._paths[channel.name] for channel in run.channels},
            run,
            sinks,
            KeepingUp(
                self.settings.policy,
                provisional=self.settings.provisional == "auto",
                raw_queue_bytes=self.settings.raw_queue_bytes or available_bytes() // 4,
            ),
            audits=Audits(self.rig, self._audit_schedule, [c.name for c in run.channels]),
            on_stop=on_stop,
        )
        with interrupted_later():  # threads and files that nobody has would stay open
            pipeline.open()
            self.store = self._writer.path if self._writer else None
            self._pipeline, self._description = pipeline, run
        return pipeline

    @property
    def _audit_schedule(self) -> AuditSchedule | None:
        """What says when true channels are taken, of a plan that asks it."""
        return None

    def _sinks(self) -> list[Sink]:
        """Make the sinks of the run that comes next, in the order in which they are opened."""
        self._signals = SignalSink(self.frame_ready, self.input_ready, self.provisional_ready)
        sinks: list[Sink] = [self._signals, *map(made, self._own_sinks), *self._reacting()]
        asked = _SettingsSinks.of(
            self.settings, lambda: self._writer.path if self._writer else None
        )
        self._publisher, self._raw_door, _, self._writer = asked
        return named_apart([*sinks, *asked.made()])

    def _reacting(self) -> list[Sink]:
        """Return what reacts to a run on the instrument that acquires it."""
        return []

    def _release_pipeline(self) -> None:
        """Let the run in progress end by itself; the next one can begin."""
        if (pipeline := self._pipeline) is None:
            return
        self._pipeline = None
        pipeline.end()
        work = (pipeline, self.store, self.endpoint, self._signals)
        thread = threading.Thread(target=self._finish, args=work, name="livesr-finish", daemon=True)
        self._told_s = math.inf
        self._finishing = (thread, pipeline)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is about to end and starts no more threads
            self._finish(*work)

    def _finish(
        self, pipeline: Pipeline, store: Path | None, endpoint: str | None, signals: SignalSink
    ) -> None:
        """Process and store what the run left.

        In a thread of its own, so that a run ends when its acquisition does.
        """
        about = Report(store=str(store) if store else None, publish=endpoint) | self._about
        if self._raw_door:
            about["raw_door"] = self._raw_door.account  # it is filled until the run has ended
        try:
            report = pipeline.join(about)
        except Exception as e:  # nobody waits for this thread's errors
            log.exception("the run did not end as it should")
            pipeline.fail(RunError(f"The run did not end as it should: {type(e).__name__}: {e}."))
            report = pipeline.report() | about
        self.report = report | Report(listener_errors=signals.listener_errors)
        if pipeline.error is not None:
            self._went_wrong(pipeline.error)
        # it is still inside: to close it may crash the process, to use it again would wait for it
        if pipeline.network_left:
            self._paths = {}
        self._told_s = time.monotonic()
        try:
            self.finished.emit(self.report)
        except BaseException as e:  # a listener may raise anything, sys.exit() too
            self.report["listener_errors"] += 1
            log.warning("a listener of finished raised: %r", e.__cause__ or e)

    def _close_paths(self) -> None:
        close_all(self._paths)
        self._paths = {}
