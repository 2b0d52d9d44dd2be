"""The preview page in a real Chromium.

Composites shown a second, and how old the picture is, end to end.

The page, its server and the browser share the suite's cores, without a GPU. What is shown is
counted in the page, once per turn of its screen: a picture that the next one overtakes counts for
nothing.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from livesr.base.timing import now_ns
from livesr.bench.frames import Frames, description
from livesr.bench.result import Result, Target, compared
from livesr.bench.runner import SuiteUnavailableError
from livesr.bench.timing import interleave
from livesr.formats.wire import Message, WireChannel, WireHeader
from livesr.live.sinks.zeromq import ZeroMQSink
from livesr.viewer.browser.messages import View
from livesr.viewer.browser.pictures import PictureMaker
from livesr.viewer.browser.server import PreviewServer
from livesr.viewer.chromium import Browser, Page, chromium, find_chromium
from livesr.viewer.frame_pairs import FramePair, LiveFramePairs, Selection
from livesr.viewer.subscriber import StreamName, Subscriber

_PERIOD_S = 0.05
_NO_LIMIT = (
    "--disable-frame-rate-limit",
    "--disable-gpu-vsync",
)  # a screen of 60 Hz would be the only thing measured

_COUNT = """() => {
  window.ages = []; window.shown = 0;
  let waiting = false;
  document.addEventListener('livesr:shown', ({detail}) => {
    window.ages.push(Date.now() - detail.t_acq_ms);
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; window.shown++; });
  });
}"""
_BARE = """async (jpeg, seconds) => {
  const blob = new Blob([Uint8Array.from(atob(jpeg), (c) => c.charCodeAt(0))], {type: 'image/jpeg'});
  const canvas = document.body.appendChild(document.createElement('canvas'));
  const context = canvas.getContext('2d', {alpha: false});
  const end = performance.now() + 1000 * seconds;
  let shown = 0;
  for (; performance.now() < end; shown++) {
    const bitmap = await createImageBitmap(blob);
    Object.assign(canvas, {width: bitmap.width, height: bitmap.height});
    context.drawImage(bitmap, 0, 0);
    bitmap.close();
    await new Promise(requestAnimationFrame);
  }
  return shown / seconds;
}"""


def measure(quick: bool) -> list[Result]:
    """Return composites a second at 512 and 1024 pixels a side, and the age of the picture at 20
    frames/s.

    Raises
    ------
    SuiteUnavailableError
        Without Chromium.
    """
    seconds, blocks = (0.5, 1) if quick else (3.0, 5)
    if find_chromium() is None:
        raise SuiteUnavailableError("Suite 'view' needs Chromium, which is not on this computer.")
    with chromium(*_NO_LIMIT) as browser:
        rates = [
            _rate(browser, side, least, seconds, blocks) for side, least in ((512, 60), (1024, 25))
        ]
        return [*rates, _age(browser, 5 if quick else 60, blocks)]


def _rate(browser: Browser, side: int, least: float, seconds: float, blocks: int) -> Result:
    pairs = _Endless(side)
    frame = PictureMaker(pairs).make(View(mode="prediction"))
    assert frame is not None
    jpeg = base64.b64encode(frame.pictures[0]).decode()
    bare = browser.open("about:blank")
    with PreviewServer(pairs) as server, _preview_page(browser, server.url) as page:
        comparison = interleave(
            lambda: [_shown_per_s(page, pairs, seconds)],
            lambda: [float(bare.run(_BARE, jpeg, seconds))],
            blocks,
        )
    bare.close()
    return compared(
        f"view.composites_{side}",
        comparison,
        "frames/s",
        "Chromium drawing one JPEG again and again",
        targets=(Target(least, "least"),),
        note=(
            f"3 x {side}^2 uint16 of shot noise: composed, encoded, sent, decoded and drawn by the"
            " page"
        ),
    )


def _age(browser: Browser, n: int, blocks: int) -> Result:
    frames, side = Frames(512), 512
    sink = ZeroMQSink("tcp://127.0.0.1:*")
    sink.open(description(side))
    assert sink.endpoint is not None
    try:
        with (
            Subscriber(sink.endpoint) as subscriber,
            PreviewServer(LiveFramePairs(subscriber)) as server,
            _preview_page(browser, server.url) as page,
        ):
            comparison = interleave(
                lambda: _ages_on_screen(page, lambda: _play(frames, n, sink)),
                lambda: _ages_received(subscriber, lambda: _play(frames, n, sink)),
                blocks,
            )
    finally:
        sink.close({})
    return compared(
        "view.age",
        comparison,
        "ms",
        "the same frames when the subscriber has them",
        targets=(Target(100, "most"),),
        note=(
            f"3 x 1024^2 at {1 / _PERIOD_S:.0f} frames/s, from the moment that is shown to the"
            " screen"
        ),
    )


def _shown_per_s(page: Page, pairs: _Endless, seconds: float) -> float:
    pairs.running, pairs.version = True, pairs.version + 1
    page.wait(0.2)
    before, start = page.run("() => window.shown"), time.perf_counter()
    page.wait(seconds)
    shown = float((page.run("() => window.shown") - before) / (time.perf_counter() - start))
    pairs.running = False  # the reference has the cores for itself
    page.wait(0.2)
    return shown


def _ages_on_screen(page: Page, play: Callable[[], None]) -> list[float]:
    page.run("() => { window.ages = [] }")
    worker = threading.Thread(target=play, name="bench-publisher")
    worker.start()
    while worker.is_alive():
        page.wait(0.05)
    worker.join()
    page.wait(0.3)
    ages: list[float] = page.run("() => window.ages")
    if not ages:
        raise RuntimeError("the page showed nothing")
    return ages


def _ages_received(subscriber: Subscriber, play: Callable[[], None]) -> list[float]:
    worker = threading.Thread(target=play, name="bench-publisher")
    worker.start()
    ages = []
    while worker.is_alive():
        if (message := subscriber.next_frame(timeout_s=0.1)) is not None:
            ages.append(time.time() * 1e3 - (message.header.t_acq_ns or 0) / 1e6)
    worker.join()
    return ages


def _play(frames: Frames, n: int, sink: ZeroMQSink) -> None:
    due = time.perf_counter()
    for t in range(n):
        due += _PERIOD_S
        time.sleep(max(due - time.perf_counter(), 0))
        point = frames.at(t)
        sink.recon(point.recon)
        sink.separated(point.separated)


class _Endless:
    """FramePairs without end, while `running`: whoever asks gets a new one."""

    length, endpoint, state, problem = None, "tcp://bench", "live", ""

    def __init__(self, side: int) -> None:
        frames, channel = Frames(side // 2), description(side // 2).channels[0]
        named = zip(channel.labels, channel.colors, strict=True)
        self._header = WireHeader(
            type="frame",
            stream="bench",
            seq=0,
            t_pub_ns=now_ns(),
            t_acq_ns=now_ns(),
            shape=(len(channel.labels), side, side),
            axes="cyx",
            pixel_size_um=channel.sr_pixel_size_um,
            channels=tuple(
                WireChannel(label=label, color=color, window=(0, 1000)) for label, color in named
            ),
        )
        self._pixels = [frames.at(t).separated.channels for t in range(4)]
        self.status: dict[str, Any] = {}
        self.running, self.version = True, 0

    def streams(self) -> tuple[StreamName, ...]:
        """Return nothing to select."""
        return ()

    def listen(self, call: Callable[[], None]) -> Callable[[], None]:
        """Call nothing: whoever asks gets a new one."""
        return lambda: None

    def pair(
        self,
        selection: Selection,
        index: int = 0,
        *,
        measured: bool = False,
        widefield: bool = False,
    ) -> FramePair:
        """Return the next pair; the last one again when not `running`."""
        self.version += self.running
        header = self._header.model_copy(update={"seq": self.version})
        return FramePair(
            Message("sr/frame", header, self._pixels[self.version % len(self._pixels)]), None
        )


@contextmanager
def _preview_page(browser: Browser, url: str) -> Iterator[Page]:
    page = browser.open(url)
    page.wait_for("() => document.querySelector('#modes')")
    page.wait_for("() => document.getElementById('state-text').textContent !== 'Connecting'")
    page.press("3")  # the composite alone
    page.run(_COUNT)
    yield page
    page.close()
