"""From the last exposure of a group to light on the screen, by stage, through the real page.

Virtual SIM rig, 9 raw frames of 256 x 256 to three structures of 512 x 512; camera, run, publisher,
the page's server and a headless Chromium with a screen of 60 Hz share two cores.

A prediction sees the frame before it and the one behind it, so it cannot be older than one period:
what is measured begins with the last exposure of the frame behind it, the first moment at which all
that it is made of exists.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from pymmcore_plus import CMMCorePlus

from livesr.base.config import RigConfig
from livesr.base.frames import MulticolorFrame, RawStack, SRFrame
from livesr.base.run_description import RunDescription
from livesr.base.timing import now_ns
from livesr.bench.engine import bench_engine
from livesr.bench.pipeline import virtual_rig
from livesr.bench.result import Result, Target
from livesr.bench.runner import SuiteUnavailableError
from livesr.bench.timing import Summary, calls_ms
from livesr.live.plugin import LiveSR
from livesr.live.run_state import Report
from livesr.live.sinks.sink import Sink
from livesr.live.sinks.zeromq import ZeroMQSink
from livesr.live.sources.plan import sim_sequence
from livesr.simulation.camera import KnowsTruth, find_virtual_camera
from livesr.simulation.sequence import simulating_rig
from livesr.viewer.browser.messages import View
from livesr.viewer.browser.pictures import PictureMaker
from livesr.viewer.browser.server import PreviewServer
from livesr.viewer.chromium import Page, chromium, find_chromium
from livesr.viewer.frame_pairs import FramePair, LiveFramePairs, Selection
from livesr.viewer.subscriber import Subscriber

RATES = (8.0, 16.0, 25.0)
"""SR frames a second."""

STAGES = {
    "hook": "from the exposure's end to the acquisition thread's call",
    "grouped": "until the group is complete and a sink has it",
    "reconstructed": "measured, reconstructed and judged",
    "composed": "normalised, waited for the network, inferred and composed",
    "published": "encoded for subscribers",
    "picked": "received, and noticed by the page's server",
    "websocket": "drawn as JPEG, sent, and there as a whole",
    "decoded": "by the browser",
    "drawn": "on the canvas",
    "screen": "until the browser has painted it: waits for its screen's next turn",
}
_COMPUTED = ("reconstruct", "normalise", "window", "infer", "compose")
_MOST_MS = 15.0
_WATCH = """() => {
  window.livesrTimes = new Map();
  const now = () => performance.timeOrigin + performance.now();
  let header = null, pictures = 0, current = null;
  const Native = window.WebSocket;
  window.WebSocket = class extends Native {
    constructor(...given) {
      super(...given);
      this.addEventListener('message', ({data}) => {
        if (typeof data === 'string') {
          const said = JSON.parse(data);
          if (said.type === 'frame') { header = said; pictures = 0; }
        } else if (header && ++pictures === header.pictures.length) {
          current = {websocket: now()};
          window.livesrTimes.set(header.id, current);
          header = null;
        }
      });
    }
  };
  const decode = window.createImageBitmap;
  window.createImageBitmap = async (...given) => {
    const times = current, bitmap = await decode(...given);
    if (times) times.decoded = now();
    return bitmap;
  };
  document.addEventListener('livesr:shown', ({detail}) => {
    const times = window.livesrTimes.get(detail.id);
    if (!times) return;
    const {t_acq_ms, provisional} = detail;
    Object.assign(times, {drawn: now(), t_acq_ms, provisional: Boolean(provisional)});
    requestAnimationFrame(() => {
      const {port1, port2} = new MessageChannel();
      port1.onmessage = () => { times.screen = now(); };
      port2.postMessage(0);
    });
  });
}"""

Times = dict[str, dict[int, float]]
"""Stage -> time point -> ms since the epoch."""


def measure(quick: bool) -> list[Result]:
    """Return p50 and p99 of every stage, and of all together, at each rate.

    Raises
    ------
    SuiteUnavailableError
        Without Chromium.
    """
    if find_chromium() is None:
        raise SuiteUnavailableError("Suite 'latency' needs Chromium, which is not here.")
    seconds, rates = (3.0, RATES[:1]) if quick else (15.0, RATES)
    size, n_t = (64, 3) if quick else (256, 12)
    results = []
    with (
        virtual_rig(simulating_rig(), SensorSize=size, TimePoints=n_t) as (core, rig),
        chromium() as browser,
    ):
        page = browser.open("about:blank")
        page.call("Page.enable")
        page.call("Page.addScriptToEvaluateOnNewDocument", source=f"({_WATCH})()")
        rig = rig.with_engine(str(bench_engine().folder))
        for fps in rates:
            results += _at(core, rig, page, fps, seconds)
    return results


def _at(core: CMMCorePlus, rig: RigConfig, page: Page, fps: float, seconds: float) -> list[Result]:
    """Measure one rate."""
    channel = next(iter(rig.channels))
    n_raw = rig.raw_frames(channel)
    plan = sim_sequence(max(round(fps * seconds), 8), [channel], n_raw)
    core.setExposure(1e3 / fps / n_raw)
    stamps, sink = _Stamps(), ZeroMQSink("tcp://127.0.0.1:*")
    with (
        _handed_over(core) as handed,
        LiveSR(core, rig=rig, plan=plan, sinks=(sink, stamps)) as sr,
    ):
        assert sink.endpoint is not None
        with Subscriber(sink.endpoint) as subscriber:
            pairs = _Watched(subscriber)
            with PreviewServer(pairs) as server:
                page.call("Page.navigate", url=server.url)
                page.wait_for("() => document.querySelector('#modes')")
                page.press("3")  # the composite alone
                core.mda.run(plan)
                report = sr.wait()
                page.wait(0.5)
                shown = page.run("() => [...window.livesrTimes.values()]")
            jpeg_ms = _jpeg_ms(pairs)
    times = stamps.times | {"exposed": _last_exposures(handed, n_raw)} | pairs.times
    for stage in ("websocket", "decoded", "drawn", "screen"):
        times[stage] = {}
    for one in shown:
        t = pairs.moments.get(round(one.get("t_acq_ms", -1)))
        if t is not None and not one["provisional"] and "screen" in one:
            for stage in ("websocket", "decoded", "drawn", "screen"):
                times[stage][t] = one[stage]
    return _results(times, report, jpeg_ms, fps)


def _jpeg_ms(pairs: LiveFramePairs) -> float:
    """Return how long the last prediction takes to be drawn as JPEG, with nothing beside it."""
    view = View(mode="prediction")
    return float(np.median(calls_ms(lambda: PictureMaker(pairs).make(view), 10)))


def _results(times: Times, report: Report, jpeg_ms: float, fps: float) -> list[Result]:
    """Return what took how long, of the predictions that were shown."""
    behind = ("exposed", "hook", "grouped", "reconstructed")  # of the frame behind the shown one
    whole = [
        t
        for t in times["screen"]
        if all((t + 1 if stage in behind else t) in times[stage] for stage in ("exposed", *STAGES))
    ]
    if len(whole) < 2:
        raise RuntimeError(f"the page showed {len(whole)} predictions: {report.get('error')}")

    def at(stage: str, t: int) -> float:
        return times[stage][t + 1 if stage in behind else t]

    names = ["exposed", *STAGES]
    took = {
        stage: [at(stage, t) - at(before, t) for t in whole]
        for before, stage in zip(names, STAGES, strict=False)
    }
    total = [at("screen", t) - at("exposed", t) for t in whole]
    steps = report["steps_ms"]
    computed = {name: steps[name]["p50"] or 0.0 for name in _COMPUTED if name in steps}
    computed["JPEG"] = jpeg_ms
    computed |= {name: float(np.median(took[name])) for name in ("decoded", "drawn")}
    waiting = float(np.median(total)) - sum(computed.values())
    period_ms = 1e3 / fps
    about = (
        f"{len(whole)} of {report['groups']} groups shown, {report['sr_skipped']} skipped,"
        f" {report['groups_dropped']} dropped; ms p50: "
        + ", ".join(f"{name} {ms:.1f}" for name, ms in computed.items())
    )
    made = f"latency.{fps:g}"
    return [
        _result(f"{made}.exposure_to_screen", total, f"from the last exposure of t+1; {about}"),
        _result(
            f"{made}.with_the_window",
            [ms + period_ms for ms in total],
            f"from the last exposure of t itself, {period_ms:.0f} ms more for that of t+1",
        ),
        Result(
            f"{made}.waiting",
            waiting,
            "ms",
            targets=(Target(_MOST_MS, "most"),),
            note="p50 of exposure_to_screen without what is computed, as its note has it",
        ),
        *(_result(f"{made}.{stage}", took[stage], what) for stage, what in STAGES.items()),
    ]


def _result(name: str, ms: Sequence[float], note: str) -> Result:
    summary = Summary.of(ms)
    best = f"; a tenth took {np.percentile(ms, 10):.1f} ms or less"
    return Result(name, summary.median, "ms", samples=summary, note=f"{note}{best}")


def _last_exposures(handed: Sequence[int], n_raw: int) -> dict[int, float]:
    """Return when the last exposure of each group was in the core's buffer."""
    return {n // n_raw: ns / 1e6 for n, ns in enumerate(handed) if n % n_raw == n_raw - 1}


@contextmanager
def _handed_over(core: CMMCorePlus) -> Iterator[list[int]]:
    """Note when each exposure of the virtual camera is over and in the core's buffer."""
    camera = find_virtual_camera(core, KnowsTruth)
    if camera is None:
        raise RuntimeError("the virtual rig has no virtual camera")
    handed: list[int] = []
    play = camera.next_frame

    def noting(i: int) -> tuple[Any, Mapping[str, str]]:
        if i:  # the camera asks for the next as soon as it has handed one over
            handed.append(now_ns())
        return play(i)

    camera.next_frame = noting  # type: ignore[method-assign]
    try:
        yield handed
    finally:
        del camera.next_frame


class _Stamps(Sink):
    """Notes when a sink hears of each frame."""

    name = "latency"
    lossless = True  # others get no raw groups

    def __init__(self) -> None:
        self.times: Times = {s: {} for s in ("hook", "grouped", "reconstructed", "composed")}

    def open(self, run: RunDescription) -> None:
        """Need nothing."""

    def raw(self, stack: RawStack) -> None:
        """Note when the last exposure of a group came, and when the group was complete."""
        self.times["hook"][stack.t] = stack.t_last_ns / 1e6
        self.times["grouped"][stack.t] = now_ns() / 1e6

    def recon(self, frame: SRFrame) -> None:
        """Note when a measurement was made."""
        self.times["reconstructed"][frame.t] = now_ns() / 1e6

    def separated(self, frame: MulticolorFrame) -> None:
        """Note when a final prediction was made."""
        if not frame.provisional:
            self.times["composed"][frame.source.t] = now_ns() / 1e6


class _Watched(LiveFramePairs):
    """The pairs of a running stream, noting when the page's server took each prediction.

    Attributes
    ----------
    times : of stages, ms since the epoch by time point
    moments : time points by the ms that the page knows them by
    """

    def __init__(self, subscriber: Subscriber) -> None:
        super().__init__(subscriber)
        self.times: Times = {"published": {}, "picked": {}}
        self.moments: dict[int, int] = {}

    def pair(
        self,
        selection: Selection,
        index: int = 0,
        *,
        measured: bool = False,
        widefield: bool = False,
    ) -> FramePair | None:
        """Return the newest pair."""
        now_ms = now_ns() / 1e6
        pair = super().pair(selection, index, measured=measured, widefield=widefield)
        if pair is not None and (frame := pair.prediction) is not None:
            header = frame.header
            if not header.provisional and header.t not in self.times["picked"]:
                self.times["picked"][header.t] = now_ms
                self.times["published"][header.t] = header.t_pub_ns / 1e6
                self.moments[round((header.t_acq_ns or 0) / 1e6)] = header.t
        return pair
