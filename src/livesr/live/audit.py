"""Audit frames: now and then the true channels are taken as well, and the prediction is scored.

Owns when an audit is due (`AuditSchedule`, of the acquisition thread), what was found (`Audits`, of
the threads of the pipeline), and how much wider the error bars have to be after it. The channels
are those of the rig's superposition, in the order of the engine's structures; nothing is added up.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.base.config import AuditConfig, RigConfig
from livesr.base.error_bars import ErrorBars
from livesr.base.frames import MulticolorFrame, SRFrame, Stream
from livesr.live.channel_scores import on_grid_of, scored

_LEAST_SHARE = 0.1  # of `every_s`, between an audit and one that doubts ask for
_REMEMBERED = 3  # audits that error bars are as wide as
_BORDER = 0.06
_Place = tuple[int, int]  # position, z
_NO_AUDITS = (
    "The rig asks for audits, and this run has none: it does not acquire {channels}. Its"
    " predictions are not scored."
)


class AuditSchedule:
    """Says at which time points the true channels are taken.

    `due` is asked in the acquisition thread, as the plan is walked through; `doubt` may be called
    by any thread.

    Parameters
    ----------
    settings : of the rig
    clock : seconds, for tests
    """

    def __init__(self, settings: AuditConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._lock = threading.Lock()
        self._last_s: float | None = None
        self._doubted = False
        self.reasons: dict[int, str] = {}

    def begin(self) -> None:
        """Begin a run: its first time point is an audit."""
        with self._lock:
            self._last_s, self._doubted = None, False
            self.reasons = {}

    def doubt(self) -> None:
        """Take note that warnings rise."""
        with self._lock:
            self._doubted = True

    def due(self, t: int) -> bool:
        """Whether the true channels are taken at time point `t`; asked again, it says the same."""
        with self._lock:
            if t not in self.reasons:
                self.reasons[t] = self._reason()
                if self.reasons[t]:
                    self._last_s, self._doubted = self._clock(), False
            return bool(self.reasons[t])

    def _reason(self) -> str:
        if self._last_s is None:
            return "first"
        since_s = self._clock() - self._last_s
        if since_s >= self._settings.every_s:
            return "time"
        doubted = self._settings.when_doubtful and self._doubted
        return "doubt" if doubted and since_s >= _LEAST_SHARE * self._settings.every_s else ""


@dataclass(frozen=True, slots=True)
class Audit:
    """One prediction beside the truth.

    Attributes
    ----------
    t, position, z : of the frame
    reason : why it was due: "first", "time" or "doubt"
    pcc : of each structure with its true channel
    covered : share of the pixels of each within the error bars; {} without
    widened : what the bars of each are multiplied by from here on
    """

    t: int
    position: int
    z: int
    reason: str
    pcc: Mapping[str, float]
    covered: Mapping[str, float]
    widened: Mapping[str, float]

    def written(self) -> dict[str, Any]:
        """Return what report and stream say of it."""
        return {
            "t": self.t,
            "position": self.position,
            "z": self.z,
            "reason": self.reason,
            **{
                name: {label: round(v, 4) for label, v in getattr(self, name).items()}
                for name in ("pcc", "covered", "widened")
            },
        }


class Audits:
    """Scores predictions whose true channels were taken; any thread, one lock.

    Parameters
    ----------
    rig : whose `audit` and `superpose` say what is done; None does nothing
    schedule : told when warnings rise
    acquired : channels of the run; without the true ones and another, nothing is done

    Attributes
    ----------
    channels : that are exposed to score others; () without audits
    note : says that a run of a rig with audits has none, and why
    """

    def __init__(
        self,
        rig: RigConfig | None,
        schedule: AuditSchedule | None,
        acquired: Collection[str] = (),
    ) -> None:
        true = rig.superpose.channels if rig and rig.audit and rig.superpose else ()
        self.channels = tuple(true) if set(true) < set(acquired) else ()
        lacking = [name for name in true if name not in acquired]
        self.note = _NO_AUDITS.format(channels=", ".join(lacking)) if lacking else ""
        self._schedule = schedule
        self._lock = threading.Lock()
        self._true: dict[tuple[_Place, int], dict[str, SRFrame]] = {}
        self._missed = 0
        self._known_warnings: set[str] | None = None
        self._needed: dict[str, deque[float]] = {}
        self._found: list[Audit] = []

    def measured(self, frame: SRFrame) -> None:
        """Take a measurement; that of a true channel is kept until its prediction came."""
        if frame.stream.channel in self.channels:
            with self._lock:
                self._true.setdefault(_key(frame), {})[frame.stream.channel] = frame

    def taken(self, frame: SRFrame) -> bool:
        """Whether all true channels were taken beside a measurement that is separated."""
        with self._lock:
            return bool(self.channels) and self._parts(_key(frame)) is not None

    def skipped(self, stream: Stream, t: int) -> None:
        """Take note that a time point has no prediction."""
        if self.channels and stream.channel not in self.channels:
            with self._lock:
                self._missed += self._true.pop(((stream.position, stream.z), t), None) is not None

    def predicted(self, frame: MulticolorFrame) -> MulticolorFrame:
        """Return a prediction with its score, if its true channels were taken.

        Its error bars are those from before the audit.
        """
        if not self.channels or frame.stream.channel in self.channels:
            return frame
        with self._lock:
            self._look_at_warnings(frame)
            parts = self._parts(_key(frame))
            self._forget(frame, missed=parts is None)
            if parts is None:
                return frame
        source = replace(frame.source, parts=tuple(parts))
        found = scored(replace(frame, source=source), frame.labels)
        if found.score:
            self._take(found, parts)
        return replace(found, source=frame.source)

    def bars(self, bars: ErrorBars | None) -> ErrorBars | None:
        """Return error bars as wide as the last audits found that they must be."""
        with self._lock:
            factors = {label: max(needed) for label, needed in self._needed.items()}
        return bars.widened(factors) if bars and factors else bars

    @property
    def report(self) -> list[dict[str, Any]]:
        """The audits so far, in their order: the curve of trust."""
        with self._lock:
            return [audit.written() for audit in self._found]

    @property
    def missed(self) -> int:
        """How often true channels were exposed and nothing could be scored with them."""
        with self._lock:
            return self._missed

    def _parts(self, key: tuple[_Place, int]) -> list[SRFrame] | None:
        """Return the true channels of a time point in their order; None if one is not there."""
        there = self._true.get(key, {})
        parts = [there[name] for name in self.channels if name in there]
        return parts if len(parts) == len(self.channels) else None

    def _forget(self, frame: MulticolorFrame, *, missed: bool) -> None:
        """Let go of the true channels of a prediction, and of earlier ones, which never came."""
        place, t = _key(frame)
        gone = [key for key in self._true if key[0] == place and key[1] <= t]
        for key in gone:
            del self._true[key]
            self._missed += missed or key[1] < t

    def _look_at_warnings(self, frame: MulticolorFrame) -> None:
        """Doubt where a warning is said that the last audit did not know."""
        if self._known_warnings is None:
            self._known_warnings = set(frame.warnings)
        elif self._schedule and set(frame.warnings) - self._known_warnings:
            self._schedule.doubt()

    def _take(self, frame: MulticolorFrame, parts: Sequence[SRFrame]) -> None:
        needed, covered = _needed(frame, parts)
        reason = self._schedule.reasons.get(frame.t, "") if self._schedule else ""
        with self._lock:
            self._known_warnings = set(frame.warnings)
            for label, factor in needed.items():
                self._needed.setdefault(label, deque([1.0], _REMEMBERED)).append(factor)
            self._found.append(
                Audit(
                    frame.t,
                    frame.stream.position,
                    frame.stream.z,
                    reason,
                    {score.label: score.pcc for score in frame.score},
                    covered,
                    {label: max(self._needed[label]) for label in needed},
                )
            )


def _key(frame: SRFrame | MulticolorFrame) -> tuple[_Place, int]:
    return (frame.stream.position, frame.stream.z), frame.t


def _needed(
    frame: MulticolorFrame, parts: Sequence[SRFrame]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return by what the error bars of each structure must be multiplied to cover this frame.

    And the share of its pixels that they cover as they are. At least 1: one frame is no reason to
    narrow them.
    """
    bars, scale = frame.error_bars, frame.source.normalisation.scale
    if bars is None:
        return {}, {}
    truth = _in_unit_of(frame, parts)
    factors, covered = {}, {}
    for label, plane, true in zip(frame.labels, frame.channels, truth, strict=True):
        if label not in bars.structures:
            continue
        predicted = on_grid_of(plane, true).astype(np.float64) - frame.offset_adu
        inside = tuple(slice(int(n * _BORDER), n - int(n * _BORDER)) for n in true.shape)
        times = bars.times(label, predicted[inside] / scale, true[inside] / scale)
        factors[label] = max(1.0, float(np.quantile(times, bars.coverage)))
        covered[label] = float(np.mean(times <= 1.0))
    return factors, covered


def _in_unit_of(frame: MulticolorFrame, parts: Sequence[SRFrame]) -> list[NDArray[np.float32]]:
    """Return the true channels as bright as the light of the frame that they are the parts of.

    The dyes are not excited alike: each channel is scaled so that their sum fits the measurement
    best (least squares, none below 0).
    """
    from scipy.optimize import nnls

    images = [part.image - np.float32(part.normalisation.background) for part in parts]
    x = frame.source.image - np.float32(frame.source.normalisation.background)
    sample = (slice(None, None, 4), slice(None, None, 4))
    columns = np.stack([image[sample].ravel() for image in images], axis=1).astype(np.float64)
    factors, _ = nnls(columns, x[sample].ravel().astype(np.float64))
    return [np.float32(factor) * image for factor, image in zip(factors, images, strict=True)]
