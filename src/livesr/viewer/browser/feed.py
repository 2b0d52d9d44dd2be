"""Notices that the source has something newer, and draws it once for all pages that look at the
same.

Owns the thread in which pictures are drawn. Knows no connection.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from websockets.exceptions import ConnectionClosed

from livesr.base.errors import RunError, UsageError
from livesr.viewer.browser.line_and_region import measured
from livesr.viewer.browser.messages import Measure, TakeMovie, TakeSnapshot, View
from livesr.viewer.browser.numbers import histograms, probe
from livesr.viewer.browser.pictures import Frame, PictureMaker
from livesr.viewer.browser.snapshot import take_snapshot
from livesr.viewer.frame_pairs import FramePair, FramePairSource
from livesr.viewer.movie import film_of

log = logging.getLogger(__name__)

_REST_S = 0.002  # between two news: at 1000 messages/s pages look 500 times
_LOOK_S = 0.05  # for sources that do not say when there is something newer
_NICENESS = 5
_TOLD = 50  # times that a page hears how far its film is
T = TypeVar("T")


class Feed:
    """What every page of a preview shares; belongs to one event loop.

    Attributes
    ----------
    changed : notified when there may be something newer to see
    """

    def __init__(self, source: FramePairSource) -> None:
        self.source = source
        self.changed = asyncio.Condition()
        self._filming = False
        self._maker = PictureMaker(source)
        # Its own thread: an acknowledgement or a new page never waits for a JPEG.
        self._executor = ThreadPoolExecutor(
            1, thread_name_prefix="livesr-preview-pictures", initializer=_stand_back_for_the_run
        )

    def close(self) -> None:
        """End the thread."""
        self._executor.shutdown()

    async def watch(self) -> None:
        """Notify of what is newer as soon as the source says so, until cancelled.

        If it fails, the pages say so and keep their last picture.
        """
        loop, newer, seen = asyncio.get_running_loop(), asyncio.Event(), -1

        def heard() -> None:
            with suppress(RuntimeError):  # the loop has just ended
                loop.call_soon_threadsafe(newer.set)

        unlisten = self.source.listen(heard)
        try:
            while True:
                newer.clear()
                if (version := self.source.version) != seen:
                    seen = version
                    await self.notify()
                    await asyncio.sleep(_REST_S)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await newer.wait()
        except Exception as e:
            log.exception("the source of the preview failed")
            self._maker.fail(e)
        finally:
            unlisten()

    async def notify(self) -> None:
        """Let every page look whether there is something newer for it."""
        async with self.changed:
            self.changed.notify_all()

    async def make(self, view: View, index: int, frozen: FramePair | None = None) -> Frame | None:
        """Draw the newest pair, or the one at `index` of a store, or one that is `frozen`.

        None if there is nothing to draw.
        """

        def work() -> Frame | None:
            try:
                return self._maker.make(view, index, frozen)
            except Exception as e:  # a store on a disk that is gone
                log.exception("the source of the preview failed")
                self._maker.fail(e)
                return None

        return await self._in_thread(work)

    async def histograms(self, frame: Frame, view: View) -> list[dict[str, Any]]:
        """Count the pixels of a frame."""
        return await self._in_thread(lambda: histograms(frame.pair, view))

    async def snapshot(self, frame: Frame, view: View, wanted: TakeSnapshot) -> tuple[str, bytes]:
        """Draw a PNG of a frame and name it."""
        status = self.status(frame)
        return await self._in_thread(
            lambda: take_snapshot(self._maker, frame.pair, view, wanted, status)
        )

    async def movie(
        self, view: View, wanted: TakeMovie, tell: Callable[[int, int], Awaitable[None]]
    ) -> tuple[str, bytes]:
        """Return a name and the MP4 of the store as a view shows it; one film at a time.

        `tell` is awaited now and then with frames done and in all.

        Raises
        ------
        LiveSRError
            If nothing can be made of it, in a sentence.
        """
        if self.source.length is None:
            raise UsageError("A film is made of a store, and this is a running stream.")
        if self._filming:
            raise UsageError("Another page is having a film made. Wait until that is done.")
        self._filming = True
        stopped = threading.Event()
        loop = asyncio.get_running_loop()

        def step(done: int, total: int) -> None:
            if stopped.is_set():
                raise RunError("Nobody waits for this film any more.")
            if done * _TOLD // total > (done - 1) * _TOLD // total:
                asyncio.run_coroutine_threadsafe(_ended(tell(done, total)), loop)

        try:
            return await asyncio.to_thread(film_of, self.source.endpoint, view, wanted, step)
        finally:
            stopped.set()
            self._filming = False

    @staticmethod
    def probe(frame: Frame, at: tuple[float, ...]) -> dict[str, Any]:
        """Read the intensities at a place of a frame."""
        return probe(frame.pair, at)

    async def measured(self, frame: Frame, view: View, wanted: Measure) -> dict[str, Any]:
        """Read a line or a region of a frame."""
        return await self._in_thread(lambda: measured(frame.pair, view, wanted))

    def status(self, frame: Frame | None) -> dict[str, Any]:
        """Return what a page that shows `frame` says beside the pictures."""
        return self._maker.status(frame.pair.shown.header.channel if frame else "")

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


async def _ended(telling: Awaitable[None]) -> None:
    with suppress(ConnectionClosed):
        await telling


def _stand_back_for_the_run() -> None:
    """Let the network have the processor first; only Linux knows the priority of a thread."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
