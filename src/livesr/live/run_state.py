"""What is known about a run while it goes on: counts, warnings, failures, times.

Owns the first error and what follows from it, and the types of what is told. Every thread of the
run writes here. `livesr.live.report` puts together what is told of a run.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypedDict

from livesr.base.errors import LiveSRError
from livesr.base.frames import FrameErrors, MulticolorFrame, Window
from livesr.base.timing import Histogram, StepTimes, now_ns
from livesr.live.channel_scores import MeanErrors, MeanScore

log = logging.getLogger(__name__)

Step = Literal["reconstruct", "separate"]
"""A step that may fail for good while what comes before it goes on."""

STEPS = (
    "group",
    "reconstruct",
    "update",
    "normalise",
    "superpose",
    "window",
    "upscale",
    "infer",
    "compose",
    "score",
    "hand_over",
)


class Trust(TypedDict, total=False):
    """What a run knows of how far it can be trusted, and what that cost.

    `error_map` says of each channel and of what was compared with widefield {frames, rsp,
    rsp_lowest, rsp_last, rse}, `audits` what each audit found (`livesr.live.audit.Audit`),
    `audits_missed` how often true channels were exposed and scored nothing, `dose` what the run
    spent of the specimen (`livesr.live.dose.DoseReport`), `dose_line` the same in words.
    """

    error_map: dict[str, dict[str, dict[str, float]]]
    audits: list[dict[str, Any]]
    audits_missed: int
    dose: Mapping[str, Any]
    dose_line: str


class UnderWay(TypedDict, total=False):
    """What was shown of groups under way: `recon_updates` pictures; `updates_refused` were not
    shown for a doubt.
    """

    recon_updates: int
    updates_refused: int


class ComputedBy(TypedDict, total=False):
    """What makes the pictures of each channel.

    `networks` are all engines that its pixels go through, in order, each with version and the
    beginning of its weights' hash: copies of an engine share its id. `engine` is the id of the
    last, `computes` a line about it. `remote`, where a server computes, has of each engine on the
    way {backend, endpoint, frames, frames_here, outages, latency_ms, server_ms, network_share}.
    """

    engine: dict[str, str]
    networks: dict[str, list[str]]
    upscale: dict[str, str]
    backend: dict[str, str]
    computes: dict[str, str]
    remote: dict[str, list[dict[str, Any]]]


class Status(Trust, UnderWay, ComputedBy, total=False):
    """State of a run in progress, about once a second.

    `raw_missing` never came: of live mode at once, of an MDA those that the core had numbered,
    the others at its end. Times are summaries of histograms, {p50, p99, mean} in ms.
    `raw_queue` is the share of the bytes that may wait, `score` and `time_shift_ms` are those
    of a superposition.
    """

    raw_frames: int
    raw_missing: int
    recon_frames: int
    sr_frames: int
    sr_skipped: int
    sr_provisional: int
    groups_dropped: int
    sr_fps: float
    latency_ms: dict[str, float | None]
    latency_provisional_ms: dict[str, float | None]
    raw_queue: float
    disk_free_bytes: int | None
    warnings: list[str]
    score: dict[str, dict[str, float]]
    time_shift_ms: float


class RawAccount(TypedDict, total=False):
    """Where the raw frames of a run are.

    `raw_lost` were received and are nowhere. A store says what is `raw_stored`, `raw_elsewhere` and
    `lost`, by place. `raw_fetched` were taken from the core's buffer, `raw_repeated` and
    `raw_unplaced` are in no image.
    """

    raw_lost: int
    raw_stored: int
    raw_elsewhere: int
    lost: dict[str, Any]
    raw_fetched: int
    raw_repeated: int
    raw_unplaced: int


class Surroundings(TypedDict, total=False):
    """What whoever made a run adds to its report: where it came from, and where it went."""

    store: str | None
    publish: str | None
    offline: bool
    replay: dict[str, Any]
    raw_door: dict[str, Any]
    listener_errors: int


class Report(Status, RawAccount, Surroundings, total=False):
    """Everything that is known about a run, as in report.json and with `--json`.

    `device` and `channels` go by channel, `steps_ms` by step, `sink_dropped` by sink. `sinks` goes
    by sink: what it says of itself. `time_left`, where the network saw every frame alone and had
    time for several views of it: {interval_ms, network_ms, ensemble}.
    """

    groups: int
    groups_incomplete: int
    recon_failed: int
    recon_doubtful: int
    recon_refused: int
    pattern_vectors_corrected: int
    sr_failed: int
    tc_complete: float
    device: dict[str, str]
    steps_ms: dict[str, dict[str, float | None]]
    time_left: dict[str, Any]
    acquisition_waits: int
    channels: dict[str, dict[str, Any]]
    sink_dropped: dict[str, int]
    sinks: dict[str, dict[str, Any]]
    error: str | None


class RunState:
    """What the threads of a run tell each other about it.

    Any thread may call any method: one lock guards all of it, and is not held while something else
    is called.

    Parameters
    ----------
    on_stop : called once, in the thread that met the first error, when the camera must stop

    Attributes
    ----------
    steps : how long each step takes; locks itself
    latency, latency_provisional : age of what a frame shows when it is handed over, in ms; written
        by "livesr-separate" alone
    interval : from one measurement to the next, of whatever stream, in ms
    """

    def __init__(self, on_stop: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._on_stop = on_stop
        self._error: LiveSRError | None = None
        self._ended: dict[Step, str] = {}
        self._counts: Counter[str] = Counter()
        self._warnings: Counter[str] = Counter()
        self._with_example: dict[str, str] = {}
        self._score, self._time_shift_ms = MeanScore(), 0.0
        self._compared = MeanErrors()
        self._first_ns = self._last_ns = self._measured_ns = 0
        self.steps = StepTimes(STEPS)
        self.latency, self.latency_provisional = Histogram(), Histogram()
        self.interval = Histogram()

    # -- counts ------------------------------------------------------------------------------------

    def count(self, name: str, n: int = 1) -> None:
        """Add to a count of the report."""
        with self._lock:
            self._counts[name] += n

    @property
    def counts(self) -> Counter[str]:
        """A copy of the counts."""
        with self._lock:
            return self._counts.copy()

    # -- warnings ----------------------------------------------------------------------------------

    def warn(self, sentence: str) -> None:
        """Add a sentence to the warnings of the run, once."""
        with self._lock:
            self._warnings[sentence] += 1
            known = self._warnings[sentence] > 1
        if not known:
            log.warning("%s", sentence)

    def warn_with_example(self, sentence: str, example: str) -> None:
        """Warn of what may be said of many frames; the first of them is the `example`."""
        with self._lock:
            said = self._with_example.setdefault(sentence, f"{sentence} {example}")
        self.warn(said)

    @property
    def warnings(self) -> list[str]:
        """The sentences, in the order in which they were first said."""
        with self._lock:
            return list(self._warnings)

    @contextmanager
    def survived(self, what: str) -> Iterator[None]:
        """Let an error in what only watches over the run become a warning."""
        try:
            yield
        except Exception as e:  # a driver, a file system or a check may raise anything
            self.warn(f"{what} failed: {type(e).__name__}: {e}. Recording went on.")

    # -- failures ----------------------------------------------------------------------------------

    @property
    def error(self) -> LiveSRError | None:
        """The first error, which ended the run; None without one."""
        with self._lock:
            return self._error

    def fail(self, error: LiveSRError) -> bool:
        """Take note of an error; the first counts.

        Returns whether this is the first.
        """
        with self._lock:
            first = self._error is None
            self._error = self._error or error
        return first

    def stop(self, error: LiveSRError) -> None:
        """End the run because of `error`: the camera is stopped, what was received is kept.

        The first error counts.
        """
        if self.fail(error):
            log.error("%s", error)
            with self.survived("Stopping the camera"):  # it may be what failed
                self._on_stop()

    def end_step(self, step: Step, reason: str) -> None:
        """Compute nothing more in a step."""
        with self._lock:
            self._ended[step] = reason

    def step_failed(self, step: Step, error: BaseException) -> None:
        """End a step; what comes before it goes on."""
        sentence = f"{step} failed: {type(error).__name__}: {error}"
        log.error("%s; recording goes on without it", sentence, exc_info=error)
        self.end_step(step, sentence)
        self.warn(f"{sentence}. Recording went on without it.")

    def ended(self, step: Step) -> str:
        """Return why a step has ended, "" if it has not."""
        with self._lock:
            return self._ended.get(step, "")

    # -- frames ------------------------------------------------------------------------------------

    def placed(self, t_ns: int) -> None:
        """Take note of a raw frame that came at `t_ns`."""
        with self._lock:
            self._first_ns = self._first_ns or t_ns

    def added_up(self, time_shift_ms: float) -> None:
        """Take note of how far apart in time the channels of a sum were."""
        with self._lock:
            self._time_shift_ms = max(self._time_shift_ms, time_shift_ms)

    def measured(self) -> None:
        """Take note of a measurement that is handed on now."""
        with self._lock:
            before, self._measured_ns = self._measured_ns, now_ns()
            self._counts["recon_frames"] += 1
            if before:
                self.interval.add((self._measured_ns - before) / 1e6)

    def separated(self, frame: MulticolorFrame, window: Window) -> None:
        """Take note of a prediction that is handed over now."""
        self.latency.add(frame.latency_ms)
        with self._lock:
            self._last_ns = now_ns()
            self._counts["sr_frames"] += 1
            self._counts["sr_edges"] += window.edge
            self._counts["sr_true_neighbours"] += window.true_neighbours and not window.edge
        for warning in frame.warnings:
            self.warn(warning)

    def scored(self, frame: MulticolorFrame) -> None:
        """Take note of the score of a superposition."""
        with self._lock:
            self._score.add(frame)

    def shown(self, frame: MulticolorFrame) -> None:
        """Take note of a provisional prediction."""
        self.latency_provisional.add(frame.latency_ms)
        self.count("sr_provisional")

    def compared(self, errors: FrameErrors) -> None:
        """Take note of a comparison with widefield."""
        with self._lock:
            self._compared.add(errors)

    # -- what is told ------------------------------------------------------------------------------

    @property
    def sr_fps(self) -> float:
        """Predictions per second since the first raw frame, 0 for fewer than two."""
        with self._lock:
            frames, seconds = self._counts["sr_frames"], (self._last_ns - self._first_ns) / 1e9
        return round(frames / max(seconds, 1e-9), 2) if frames > 1 else 0.0

    @property
    def tc_complete(self) -> float:
        """Share of predictions within their series that had their true neighbours in time."""
        counts = self.counts
        inner = counts["sr_frames"] - counts["sr_edges"]
        return round(counts["sr_true_neighbours"] / inner, 4) if inner > 0 else 1.0

    @property
    def error_map(self) -> dict[str, dict[str, dict[str, float]]]:
        """What the comparison with widefield found, by channel; {} where nothing was compared."""
        with self._lock:
            return self._compared.summary()

    @property
    def superposition(self) -> Status:
        """The mean score of a superposition, and the longest time between its channels, in ms."""
        with self._lock:
            return Status(score=self._score.summary(), time_shift_ms=round(self._time_shift_ms, 3))
