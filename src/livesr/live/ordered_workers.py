"""Frames that are being worked on.

Several at once where there is a device to fill; their results come in the order of the frames.

Owns the threads of the slots. Knows neither what is done to a frame nor what comes of it; what may
be skipped is decided by the queue that frames come from, until a slot takes them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Generic, Protocol, TypeVar

from livesr.base.threads import wait_for

T = TypeVar("T")
R = TypeVar("R")
Source = TypeVar("Source", covariant=True)


class Queue(Protocol[Source]):
    """Where items wait for a slot."""

    def get(self) -> Source | None:
        """Wait for the next item; None when there will be no more."""


class OrderedWorkers(Generic[T, R]):
    """Works on at most as many items at once as there are slots.

    Parameters
    ----------
    work : what is done to an item, given the number of its slot; items of one slot follow each
        other
    slots : with one, the thread that asks for a result works on it; with several, each slot has its
        own
    name : of the threads
    wanted : asked of an item when a slot could take it; one that is not wanted is let go. It has no
        result, and holds no place among those that have

    Notes
    -----
    A free slot takes the next item as soon as there is one, unless as many results as there are
    slots have not been taken. A queue that replaces older items by newer ones goes on doing so
    until then.
    """

    def __init__(
        self,
        work: Callable[[int, T], R],
        slots: int = 1,
        name: str = "slot",
        wanted: Callable[[T], bool] = lambda item: True,
    ) -> None:
        self._work, self._slots, self._name, self._wanted = work, slots, name, wanted
        self._results: SimpleQueue[tuple[T, Callable[[], R]] | None] = SimpleQueue()
        self._taking = threading.Lock()
        self._room = threading.Semaphore(slots)
        self._abandoned = False
        self._under_way: deque[T] = deque()

    def under_way(self) -> list[T]:
        """Return the items whose results have not been taken, oldest first."""
        return list(self._under_way)

    def over(self, queue: Queue[T]) -> Iterator[tuple[T, Callable[[], R]]]:
        """Take a queue to its end.

        Yield every item, in order, with what returns its result or raises its error.

        The slots' threads end with the queue. If nobody takes the rest, they end when the queue has
        ended.
        """
        if self._slots == 1:
            while (item := self._next(queue)) is not None:
                self._under_way.append(item)
                yield item, partial(self._work, 0, item)
                self._under_way.popleft()
            return
        threads = [self._thread(slot, queue) for slot in range(self._slots)]
        for thread in threads:
            thread.start()
        try:
            for _ in threads:  # each says once that there is no more
                while (result := self._results.get()) is not None:
                    yield result
                    self._under_way.popleft()
                    self._room.release()
        except GeneratorExit:
            self._abandoned = True
            self._room.release(self._slots)
            raise
        for thread in threads:
            wait_for(thread)

    def _thread(self, slot: int, queue: Queue[T]) -> threading.Thread:
        name = f"livesr-{self._name}-{slot}"
        return threading.Thread(target=self._run, args=(slot, queue), name=name, daemon=True)

    def _run(self, slot: int, queue: Queue[T]) -> None:
        while (taken := self._take(queue)) is not None:
            item, future = taken
            try:
                future.set_result(self._work(slot, item))
            except BaseException as e:  # whoever takes the result gets it
                future.set_exception(e)

    def _take(self, queue: Queue[T]) -> tuple[T, Future[R]] | None:
        """Take the next item and its place in the order of results."""
        with self._taking:
            self._room.acquire()
            item = self._next(queue)
            if item is None or self._abandoned:
                self._room.release()
                self._results.put(None)
                return None
            future: Future[R] = Future()
            self._under_way.append(item)
            self._results.put((item, future.result))
            return item, future

    def _next(self, queue: Queue[T]) -> T | None:
        """Wait for the next item that is wanted; None when there will be no more."""
        while (item := queue.get()) is not None and not self._wanted(item):
            pass
        return item
