"""What livesr costs the acquisition thread, and what it leaves of a camera's frame rate.

Both with the demo rig: every exposure is one frame, no engine, no store. The reference listens to
the same signal of pymmcore-plus and does the least that a listener can do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np
import useq
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.mda.events import MDASignaler

from livesr.base.config import RigConfig, load_rig
from livesr.bench.result import Result, Target, compared
from livesr.bench.timing import Comparison, interleave
from livesr.live.core_end import detach_at_exit
from livesr.live.plugin import LiveSR
from livesr.live.sources.mda import MDAHook

_SIDE = 512
_PERIOD_S = 0.005
_RING = 32
CHANNEL = useq.Channel(config="488")

Deliver = Callable[[Any, useq.MDAEvent, dict[str, Any]], object]


def measure(quick: bool) -> list[Result]:
    """Return the hook's cost per frame (target: 1.3 times a hand-over) and frames/s of a real MDA
    (target: 0.9).
    """
    core, rig = demo_core(_SIDE)
    try:
        return [_body(quick), *_hand_over(core, rig, quick), _triggered(core, rig, quick)]
    finally:
        core.unloadAllDevices()


def demo_core(side: int) -> tuple[CMMCorePlus, RigConfig]:
    """Return Micro-Manager's demo camera at `side` x `side`, 16 bit, as fast as it gets, and its
    rig.
    """
    rig = load_rig("demo")
    core = detach_at_exit(CMMCorePlus())
    core.loadSystemConfiguration(str(rig.cfg_path))
    camera = core.getCameraDevice()
    core.setProperty(camera, "PixelType", "16bit")
    core.setProperty(camera, "OnCameraCCDXSize", side)
    core.setProperty(camera, "OnCameraCCDYSize", side)
    core.setProperty(camera, "FastImage", 1)
    core.setExposure(0.1)
    return core, rig


# -- the function alone ----------------------------------------------------------------------------


def _body(quick: bool) -> Result:
    """Return the cost of the hook's own function, without the signal that every listener pays for.

    No target.
    """
    frames, blocks = (20, 2) if quick else (200, 10)
    hook = MDAHook(lambda: 1 << 20, lambda: None)
    queue: SimpleQueue[Any] = SimpleQueue()
    subject = _Player(hook.frame_ready, False)
    reference = _Player(lambda image, event, metadata: queue.put((image, event, metadata)), False)
    with _drained(hook.get, hook.end), _drained(queue.get, lambda: queue.put(None)):
        comparison = interleave(
            lambda: subject.block(frames), lambda: reference.block(frames), blocks
        )
    note = (
        "the function alone, called directly, with a thread that takes the frames and forgets them"
    )
    return compared("hook.body", comparison, "us", "SimpleQueue.put", note=note)


# -- one hand-over ---------------------------------------------------------------------------------


def _hand_over(core: CMMCorePlus, rig: RigConfig, quick: bool) -> list[Result]:
    """Frames at 200 per second through the signal, alone and with the copy that popping a frame
    makes before.
    """
    frames, blocks = (20, 2) if quick else (200, 15)
    bare = MDASignaler()
    results = []
    with _queue_reader(bare), LiveSR(core, rig=rig) as sr:
        core.mda.events.sequenceStarted.emit(
            useq.MDASequence(channels=[CHANNEL]), {}
        )  # arms a run, as the MDA runner does
        for name, with_copy, note in (
            ("hook.call", False, "the signal alone"),
            ("hook.frame", True, "copy of the pixels, as popping a frame makes it, and the signal"),
        ):
            subject = _Player(core.mda.events.frameReady.emit, with_copy)
            reference = _Player(bare.frameReady.emit, with_copy)
            comparison = interleave(
                partial(subject.block, frames), partial(reference.block, frames), blocks
            )
            results.append(
                compared(
                    name,
                    comparison,
                    "us",
                    "SimpleQueue hand-over",
                    (Target(1.3, "most", "ratio"),),
                    f"{note}; {_SIDE}^2 uint16 at {1 / _PERIOD_S:.0f} frames/s, a pipeline"
                    " that reconstructs nothing behind it",
                )
            )
        core.mda.events.sequenceFinished.emit(useq.MDASequence())
        sr.wait()
    return results


class _Player:
    """Delivers frames at a fixed rate, as the acquisition thread does."""

    def __init__(self, deliver: Deliver, with_copy: bool) -> None:
        self._deliver, self._with_copy = deliver, with_copy
        rng = np.random.default_rng(0)
        self._sources = [rng.integers(100, 4000, (_SIDE, _SIDE), np.uint16) for _ in range(_RING)]
        self._t = 0

    def block(self, n: int) -> list[float]:
        """Deliver `n` frames; return the microseconds that each one took."""
        durations = []
        due = time.perf_counter()
        for _ in range(n):
            due += _PERIOD_S
            time.sleep(max(due - time.perf_counter(), 0))
            source, event = self._sources[self._t % _RING], _event(self._t)
            # Without the copy under the clock a frame of the ring is lent: nobody writes into it.
            metadata = {"hardware_triggered": True}
            start = time.perf_counter_ns()
            self._deliver(source.copy() if self._with_copy else source, event, metadata)
            durations.append((time.perf_counter_ns() - start) / 1e3)
            self._t += 1
        return durations


def _event(t: int) -> useq.MDAEvent:
    return useq.MDAEvent.model_validate({"index": {"t": t}, "channel": {"config": CHANNEL.config}})


@contextmanager
def _queue_reader(signals: MDASignaler) -> Iterator[None]:
    """Connect a listener that puts frames into a SimpleQueue, and a thread that takes them out and
    forgets them.
    """
    queue: SimpleQueue[Any] = SimpleQueue()

    def put(image: Any, event: Any, metadata: Any) -> None:
        queue.put((image, event, metadata))

    with _drained(queue.get, lambda: queue.put(None)):
        signals.frameReady.connect(put)
        yield
        signals.frameReady.disconnect(put)


@contextmanager
def _drained(get: Callable[[], object], end: Callable[[], object]) -> Iterator[None]:
    """Run a thread that takes what comes and forgets it, until `end` makes `get` return None."""

    def take() -> None:
        while get() is not None:
            pass

    thread = threading.Thread(target=take, name="bench-queue-reader", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end()
        thread.join()


# -- a real acquisition ----------------------------------------------------------------------------


def _triggered(core: CMMCorePlus, rig: RigConfig, quick: bool) -> Result:
    """Frames per second of a hardware-sequenced MDA of the demo camera."""
    frames, blocks = (60, 2) if quick else (1500, 7)
    time_plan = useq.TIntervalLoops(interval=timedelta(0), loops=frames)
    plan = useq.MDASequence(time_plan=time_plan, channels=[CHANNEL])

    def alone() -> list[float]:
        return [frames_per_s(core, plan)]

    def with_livesr() -> list[float]:
        with LiveSR(core, rig=rig):
            return [frames_per_s(core, plan)]

    comparison: Comparison = interleave(with_livesr, alone, blocks)
    return compared(
        "hook.mda",
        comparison,
        "frames/s",
        "a listener that only counts",
        (Target(0.9, "least", "ratio"),),
        f"triggered MDA of {frames} frames of the demo camera,"
        f" {core.getImageHeight()}x{core.getImageWidth()}",
    )


def frames_per_s(core: CMMCorePlus, plan: useq.MDASequence) -> float:
    """From the first frame's arrival to the last one's, so that the set-up of neither side
    counts.

    Raises
    ------
    RuntimeError
        If fewer than two frames came.
    """
    arrivals: list[float] = []

    def count(image: Any, event: Any, metadata: Any) -> None:
        arrivals.append(time.perf_counter())

    core.mda.events.frameReady.connect(count)
    try:
        core.mda.run(plan)
    finally:
        core.mda.events.frameReady.disconnect(count)
    if len(arrivals) < 2:
        raise RuntimeError(f"the demo camera delivered {len(arrivals)} frames of {plan.time_plan}")
    return (len(arrivals) - 1) / (arrivals[-1] - arrivals[0])
