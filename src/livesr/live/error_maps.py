"""Thread "livesr-errors": pictures are compared with the widefield mean of their exposures.

Owns the raw groups that wait for their prediction, and how much time the comparison may take. The
formulas are in `livesr.optics.error_map`.

A live run gives it a share of one core and the newest frame when it is ready: it says of how many
frames it knows, and no measurement waits for it. Only the mean of a film is taken at once, where
pictures show earlier groups: a hundredth of what localising it takes. A recorded run, which nothing
hurries, waits for it and has every frame compared.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import shift

from livesr.base.buffers import BoundedQueue
from livesr.base.frames import (
    Discrepancy,
    FrameErrors,
    MulticolorFrame,
    RawStack,
    SRFrame,
    Stream,
)
from livesr.live.channel_scores import on_grid_of
from livesr.live.normalise import BORDER
from livesr.live.paths import ChannelPath
from livesr.live.run_state import RunState
from livesr.optics.error_map import error_map

_SHARE = 0.2  # of one core, in a live run
_HELD_BYTES = 256 << 20  # of raw groups that wait for their prediction; a few at least
_FEWEST_HELD = 2
# Measured on simulation (docs/reliability.md): of pictures in order none is below.
_LOWEST_RSP = 0.85
_FEWEST_GROUPS = 4  # that a picture which grows shows before it is judged: of few it is dotted

Image = NDArray[np.float32]
_Key = tuple[Stream, int]


class _Job(NamedTuple):
    frame: SRFrame
    stacks: Mapping[str, RawStack]  # by channel
    prediction: MulticolorFrame | None
    widefield: tuple[Image, int] | None  # of a picture that reaches back, and of how many groups


class ErrorMaps:
    """Compares the pictures of a run with widefield, where `ComputeConfig.error_map` asks for it.

    `measured` is called by "livesr-reconstruct", `predicted` by "livesr-separate"; both return at
    once in a live run. `work` is the thread.

    Parameters
    ----------
    paths : of every channel, by name
    state : of the run
    give : takes what was found
    patient : whether frames wait for it; else those are left out that it has no time for
    """

    def __init__(
        self,
        paths: Mapping[str, ChannelPath],
        state: RunState,
        give: Callable[[FrameErrors], None],
        *,
        patient: bool,
    ) -> None:
        self._paths, self._state, self._give, self._patient = paths, state, give, patient
        self.wanted = any(path.description.error_map for path in paths.values())
        self._jobs: BoundedQueue[_Job] = BoundedQueue(1, "block" if patient else "drop_oldest")
        self._lock = threading.Lock()
        self._newest: dict[str, RawStack] = {}
        self._waiting: OrderedDict[_Key, _Job] = OrderedDict()
        self._widefield: dict[Stream, _Mean] = {}
        self._over = threading.Event()

    def exposed(self, stack: RawStack) -> None:
        """Take a raw group, before `measured`."""
        if self.wanted:
            self._newest[stack.stream.channel] = stack

    def measured(self, frame: SRFrame) -> None:
        """Take a measurement, or the sum of several, right after its raw groups."""
        path = self._paths[frame.stream.channel]
        if not path.description.error_map:
            return
        channels = [part.stream.channel for part in frame.parts] or [frame.stream.channel]
        stacks = {c: self._newest[c] for c in channels if c in self._newest}
        if any(stack.t != frame.t for stack in stacks.values()):
            return
        job = None
        with self._state.survived("Comparing with widefield"):
            widefield = self._reaching_back(frame, path)
            # A film is not held while its frame waits.
            job = _Job(frame, {} if widefield else stacks, None, widefield)
        if job is None:
            return
        if path.networks.engine is None or self._state.ended("separate"):
            self._jobs.put(job)
            return
        with self._lock:
            self._waiting[frame.stream, frame.t] = job
            while not self._patient and self._held_too_much():
                self._waiting.popitem(last=False)

    def predicted(self, frame: MulticolorFrame) -> None:
        """Take a prediction; its measurement came before."""
        with self._lock:
            job = self._waiting.pop((frame.stream, frame.t), None)
            for key in [k for k in self._waiting if k[0] == frame.stream and k[1] < frame.t]:
                del self._waiting[key]  # it was skipped
        if job:
            self._jobs.put(job._replace(prediction=frame))

    def end(self) -> None:
        """Take nothing more; what was taken is still compared."""
        self._over.set()
        self._jobs.close()

    def work(self) -> None:
        """Compare until nothing more comes."""
        try:
            while (job := self._jobs.get()) is not None:
                began_s = time.perf_counter()
                with self._state.survived("Comparing with widefield"):
                    self._compare(job)
                if not self._patient:
                    took_s = time.perf_counter() - began_s
                    self._over.wait(took_s * (1 / _SHARE - 1))
        finally:  # whoever waits for room is not to wait for ever
            self._jobs.close()

    def _held_too_much(self) -> bool:
        held = sum(stack.nbytes for job in self._waiting.values() for stack in job.stacks.values())
        return len(self._waiting) > _FEWEST_HELD and held > _HELD_BYTES

    def _compare(self, job: _Job) -> None:
        widefield, groups = self._reference(job)
        path, frame = self._paths[job.frame.stream.channel], job.frame
        pictures = [frame.image]
        if job.prediction is not None:
            summed = job.prediction.channels.sum(0, dtype=np.float32)
            pictures.append(on_grid_of(summed, frame.image))
        labels = path.description.compared
        planes = np.zeros((len(labels), *frame.image.shape), np.float32)
        span = float(np.subtract(*np.percentile(widefield[::4, ::4], (99.8, 1.0))))
        nm = 1e3 * path.description.recon_pixel_size_um
        numbers = {}
        raw, fine = _inside(widefield.shape, frame.image.shape)
        for label, plane, picture in zip(labels, planes, pictures, strict=False):
            found = error_map(widefield[raw], picture[fine], centred=path.description.centred)
            if found is not None:
                plane[fine] = found.plane
                numbers[label] = Discrepancy(
                    found.rsp, found.rse, found.sigma_px * nm, span, groups
                )
        self._doubt(frame, numbers.get(labels[0]), path)
        errors = FrameErrors(planes, labels, numbers, frame)
        self._state.compared(errors)
        self._give(errors)

    def _doubt(self, frame: SRFrame, found: Discrepancy | None, path: ChannelPath) -> None:
        """Warn of a reconstruction that contradicts its exposures."""
        if found is None or found.rsp >= _LOWEST_RSP:
            return
        if found.groups < min(path.shown + 1, _FEWEST_GROUPS):
            return
        self._state.warn_with_example(
            f"Pictures of channel {path.name or 'default'} contradict the widefield mean of their"
            f" exposures (RSP below {_LOWEST_RSP}): too little light, or emitters that overlap or"
            " are of another width than rig.yaml says. The error map shows where.",
            f"First at time point {frame.t}: {found.rsp:.2f}. frames.jsonl has each.",
        )

    def _reference(self, job: _Job) -> tuple[Image, int]:
        """Return the widefield picture of a frame, and how many groups it is the mean of.

        Of a sum it is added up as the sum was.
        """
        if job.widefield:
            return job.widefield
        if not job.frame.parts:
            return job.stacks[job.frame.stream.channel].mean(), 1
        path = self._paths[job.frame.stream.channel]
        parts, weights = job.frame.parts, path.description.weights
        level = sum(part.normalisation.scale for part in parts) / len(parts)
        added = [
            np.float32(weight * level / part.normalisation.scale)
            * job.stacks[part.stream.channel].mean()
            for weight, part in zip(weights, parts, strict=True)
        ]
        return np.sum(added, axis=0, dtype=np.float32), 1

    def _reaching_back(self, frame: SRFrame, path: ChannelPath) -> tuple[Image, int] | None:
        """Return the widefield picture of a frame that shows earlier groups as well, else None.

        Here, and not in `work`, so that no group is left out of it: light blinks, and a picture of
        eight groups beside the mean of two of them has an RSP of 0.76 instead of 0.95. Groups are
        moved back by their drift, as the picture's were: 200 nm of it make an RSP of 0.76 as well.
        """
        if not path.shown or frame.parts:
            return None
        if frame.stream not in self._widefield:
            self._widefield[frame.stream] = _Mean(path.shown)
        mean = self._newest[frame.stream.channel].mean()
        if frame.drift_nm:
            pixel_nm = 1e3 * path.description.raw_pixel_size_um
            back_px = [-d / pixel_nm for d in frame.drift_nm[:2]]
            mean = shift(mean, back_px, order=1, mode="nearest")
        return self._widefield[frame.stream].add(frame.t, mean)


class _Mean:
    """The widefield mean of the groups that a picture shows.

    Parameters
    ----------
    shown : as `ChannelPath.shown`
    """

    def __init__(self, shown: float) -> None:
        self._shown = shown
        self._sum: NDArray[np.float64] | None = None
        self._kept: deque[tuple[int, Image]] = deque()
        self._n = 0

    def add(self, t: int, mean: Image) -> tuple[Image, int]:
        """Take the mean of a group; return the mean with it, and of how many."""
        self._sum = mean.astype(np.float64) if self._sum is None else self._sum + mean
        self._n += 1
        if math.isfinite(self._shown):
            self._kept.append((t, mean))
        while self._kept and self._kept[0][0] < t - self._shown:
            self._sum -= self._kept.popleft()[1]
            self._n -= 1
        return (self._sum / self._n).astype(np.float32), self._n


def _inside(
    raw: tuple[int, ...], picture: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return what is compared of widefield and picture: a reconstruction fades at its edges."""
    here, there = [], []
    for n, m in zip(raw, picture, strict=True):
        edge = int(n * BORDER)
        while edge and (edge * m) % n:  # only whole pixels of both
            edge -= 1
        here.append(slice(edge, n - edge))
        there.append(slice(edge * m // n, m - edge * m // n))
    return tuple(here), tuple(there)
