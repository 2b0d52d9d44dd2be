"""The map: the way of a frame from the hook to the sinks.

Only this file knows which threads there are, what each of them works on and how a run begins and
ends.

::

    acquisition thread      hook: time stamp, hand over              (sources/mda.py)
    or "livesr-live"        polls the core's buffer outside MDAs     (sources/continuous.py)
          | hook, bounded in bytes: full -> an untriggered camera waits, a triggered run stops
    "livesr-ingest"         event -> CameraFrame -> grouping -> RawStack (stages/ingest.py)
          |-> sinks.raw
          | queues.stacks: "latest" gives up whole groups in a row, "complete" keeps all
    "livesr-reconstruct"    RawStack -> SRFrame (measurement) -> window of three
          |                                                          (stages/reconstruct.py)
          |     in slots: correct, reconstruct, background           (measurement.py)
          |-> sinks.recon
          |   superposition: the frames of all its channels -> their sum (stages/superpose.py)
          | queues.windows, the newest stack of each place: "latest" skips older centres, never
          |     their neighbours, and while none waits and time allows shows the newest frame
          |     provisionally, before its successor was acquired
    "livesr-separate"       Window -> MulticolorFrame (prediction)   (stages/separate.py)
          |     in slots: enlarge, network, compose                  (separation.py)
          |     of a superposition: its score against the true channels
          |-> sinks.separated, or sinks.skipped for what was given up
    "livesr-<sink>" each    store (lossless), publisher, signals     (sinks/thread.py, sinks)
    "livesr-errors"         pictures beside their widefield mean     (error_maps.py)
    "livesr-monitor"        once a second: status, warnings          (stages/monitor.py)

A slot is what one of several frames in flight has to itself on a GPU, and a thread; with the CPU's
one slot, what is done in slots is done in the thread above. What a thread alone needs is a field of
its stage. What several need is in `run.py`: constant, a queue, or an object with a lock.

Arrays are handed from step to step by reference and never written again. A step that fails ends the
steps behind it, never the recording; a recording that fails ends the run.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from livesr.base.errors import BacklogError, LiveSRError, RecordingError
from livesr.base.frames import StagePosition
from livesr.base.run_description import RunDescription
from livesr.base.threads import one_blas_thread, wait_for
from livesr.live.audit import Audits
from livesr.live.channel import Channel
from livesr.live.dose import DoseLedger
from livesr.live.error_maps import ErrorMaps
from livesr.live.inference.test_time_augmentation import count_of
from livesr.live.keeping_up import LATEST, KeepingUp, ProvisionalFrames
from livesr.live.paths import ChannelPath
from livesr.live.queues import Queues, limit_bytes
from livesr.live.recorded import LIVE, Recorded
from livesr.live.report import report_of, status_of
from livesr.live.run import Run
from livesr.live.run_state import Report, RunState, Status
from livesr.live.sinks.sink import Sink
from livesr.live.sinks.thread import SinkThread, SinkThreads
from livesr.live.sources.mda import MDAHook
from livesr.live.stages.ingest import Ingest
from livesr.live.stages.monitor import RunMonitor
from livesr.live.stages.reconstruct import Reconstruct
from livesr.live.stages.separate import Separate
from livesr.live.stream_state import DroppedGroups
from livesr.live.watchdog import PATIENCE_S, Watchdog

log = logging.getLogger(__name__)


class Pipeline:
    """One run, from the first frame to the report.

    Life: construct -> `open` -> `hook.frame_ready` ... -> `end` -> `join` -> `report`.

    Parameters
    ----------
    paths : what happens to each acquisition channel
    description : what the sinks are told
    sinks : where what is made goes; each says whether it is lossless, and essential
    keeping_up : what is given up where a step is too slow, and how much may wait
    recorded : what is used instead of being measured, of a run that is computed again
    audits : scores predictions whose true channels are taken now and then; None does not
    on_stop : called once, from a thread of the pipeline, when the camera must stop

    Attributes
    ----------
    hook : takes frames, in the acquisition thread
    """

    def __init__(
        self,
        paths: Mapping[str, ChannelPath],
        description: RunDescription,
        sinks: Sequence[Sink],
        keeping_up: KeepingUp = LATEST,
        *,
        recorded: Recorded = LIVE,
        audits: Audits | None = None,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_stop = on_stop
        state = RunState(self._stop_camera)
        limit = limit_bytes(paths, description, keeping_up)
        threads = SinkThreads(sinks, self._sink_failed, limit)
        streams = len(description.positions) * description.z_planes
        views = max((count_of(path.networks.views) for path in paths.values()), default=1)
        self._run = Run(
            description=description,
            channels={n: Channel(p, recorded, state, streams) for n, p in paths.items()},
            keeping_up=keeping_up,
            recorded=recorded,
            queues=Queues(paths, description, keeping_up, threads),
            sinks=threads,
            state=state,
            dropped=DroppedGroups(),
            provisional=ProvisionalFrames(keeping_up),
            watchdog=Watchdog(PATIENCE_S * views),
            errors=ErrorMaps(paths, state, threads.errors, patient=recorded.offline),
            dose=DoseLedger(paths, audits.channels if audits else ()),
            audits=audits or Audits(None, None),
        )
        self.hook = MDAHook(self._run.queues.room_frames, self._cannot_wait)
        self._ingest = Ingest(self._run, self.hook)
        self._reconstruct = Reconstruct(self._run)
        self._separate = Separate(self._run)
        self._monitor = RunMonitor(self._run, self.hook)
        self._threads = {
            name: threading.Thread(
                target=self._guarded, args=(name, work), name=f"livesr-{name}", daemon=True
            )
            for name, work in (
                ("ingest", self._ingest.work),
                ("reconstruct", self._reconstruct.work),
                ("separate", self._separate.work),
                ("monitor", self._monitor.work),
                *([("errors", self._run.errors.work)] if self._run.errors.wanted else []),
            )
        }
        self._blas = ExitStack()

    # -- life --------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the sinks and start the threads.

        Raises
        ------
        UsageError
            If a sink cannot start; those already open are closed again.
        """
        self._run.sinks.open(self._run.description)
        paths = [channel.path for channel in self._run.channels.values()]
        said = [note for path in paths for note in (*path.notes, *path.warnings)]
        for note in dict.fromkeys([*said, *filter(None, [self._run.audits.note])]):
            self.warn(note)
        # The reconstruction's products of small matrices gain nothing from several threads, which
        # turn in place while they wait for a core that the network has: on a busy machine a frame
        # cost 32 ms of CPU instead of 4.5.
        self._blas.enter_context(one_blas_thread())
        for thread in self._threads.values():
            thread.start()

    def begin_at(self, stage: StagePosition) -> None:
        """Take note of where the stages are before the first frame."""
        self._ingest.begin_at(stage)

    def end(self) -> None:
        """Take note that no more frames will come. Returns at once."""
        self.hook.release()
        self.hook.end()

    def join(self, about: Report | None = None) -> Report:
        """Wait until everything received is processed and stored.

        Close the sinks; return the report with `about` in it.
        """
        wait_for(self._threads["ingest"])
        wait_for(self._threads["reconstruct"])
        separate = self._threads["separate"]
        wait_for(separate, lambda: self._run.watchdog.overdue)
        if separate.is_alive():
            self._separate.leave_network()
        self._run.errors.end()
        if errors := self._threads.get("errors"):
            wait_for(errors)
        self._blas.close()
        self._run.sinks.drain()
        self._monitor.end()
        wait_for(self._threads["monitor"])
        self._monitor.take_notes()

        def report() -> Report:
            return self.report() | (about or Report())

        self._run.sinks.close(report)
        return report()

    def abandon(self) -> None:
        """Compute nothing more, and wait for nothing that computes.

        What was received is still stored.
        """
        self._run.watchdog.hurry()
        self._run.state.end_step("reconstruct", "abandoned")
        self._run.state.end_step("separate", "abandoned")

    # -- what is known of it -----------------------------------------------------------------------

    def stop(self, error: LiveSRError) -> None:
        """End the run because of `error`: the camera is stopped, what was received is kept.

        The first error counts.
        """
        self._run.state.stop(error)

    def fail(self, error: LiveSRError) -> None:
        """Take note of an error of a run that has ended; the first counts."""
        self._run.state.fail(error)

    def warn(self, sentence: str) -> None:
        """Add a sentence to the warnings of the run, once."""
        self._run.state.warn(sentence)

    @property
    def error(self) -> LiveSRError | None:
        """The first error, None without one."""
        return self._run.state.error

    @property
    def counts(self) -> Counter[str]:
        """The counts of the report, as they are now."""
        return self._run.state.counts

    @property
    def raw_queue_bytes(self) -> int:
        """Most bytes of frames that may wait anywhere in the run."""
        return self._run.queues.limit_bytes

    @property
    def network_left(self) -> bool:
        """Whether the network was left behind, still in a call that does not return.

        Its path must not be closed.
        """
        return self._separate.network_left

    def status(self) -> Status:
        """State of the running run, for people who look at it."""
        return status_of(self._run, self.hook)

    def report(self) -> Report:
        """Everything that is known about the run, for the table, `--json` and report.json."""
        return report_of(self._run, self.hook)

    # -- what ends it early ------------------------------------------------------------------------

    def _stop_camera(self) -> None:
        self.hook.release()
        self._on_stop()

    def _cannot_wait(self) -> None:
        self.stop(
            BacklogError(
                f"{self.raw_queue_bytes / 2**20:.0f} MiB of frames are waiting for the disk and a"
                " triggered camera cannot wait, nor can a continuous one whose buffer is full. The"
                " run has ended and everything received is kept; record to a faster disk, lower"
                " the frame rate, or raise raw_queue_bytes of LiveSR."
            )
        )

    def _sink_failed(self, sink: SinkThread, error: LiveSRError) -> None:
        if sink.essential:
            self.stop(error)
        else:
            self.warn(f"{error} The run goes on without it.")

    def _guarded(self, name: str, work: Callable[[], None]) -> None:
        """Run the loop of a thread; an error that no step foresaw still ends in a report."""
        try:
            work()
        except BaseException as e:
            log.exception("livesr-%s ended", name)
            self.stop(RecordingError(f"Internal error in {name}: {type(e).__name__}: {e}."))
            self._run.queues.close()
