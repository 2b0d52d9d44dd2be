"""Bounded hand-overs between the threads of a run, with named overflow policies and counters.

Owns `BoundedQueue` and `LatestPerKey`. Knows nothing of what is handed over. Nothing here is ever
unbounded.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, Literal, TypeVar

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

Overflow = Literal["block", "drop_oldest", "drop_all"]


class BoundedQueue(Generic[T]):
    """First in, first out; a full queue either makes the giver wait or gives up its oldest item.

    Beside the items there is one place for an item that matters only while nothing else waits.

    Parameters
    ----------
    capacity : most items held
    overflow : "block" waits for room; "drop_oldest" hands the oldest back to the giver and counts
        it; "drop_all" does so with everything held, so that what is kept stays consecutive

    Attributes
    ----------
    dropped : items given up so far
    weight : sum of the `weight` of what is held now, in the giver's unit (bytes)

    Raises
    ------
    ValueError
        If `capacity` is below 1.
    """

    def __init__(self, capacity: int, overflow: Overflow) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}, expected at least 1")
        self._items: deque[tuple[T, int]] = deque()
        self._idle: T | None = None
        self._capacity, self._overflow = capacity, overflow
        self._changed = threading.Condition()
        self._closed = False
        self.dropped = self.weight = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T, weight: int = 0) -> list[T]:
        """Add `item`; return the items given up for it. A closed queue gives `item` itself back."""
        with self._changed:
            while (
                self._overflow == "block"
                and len(self._items) >= self._capacity
                and not self._closed
            ):
                self._changed.wait()
            if self._closed:
                return [item]
            full = len(self._items) >= self._capacity
            out = [
                self._take()
                for _ in range(full * (len(self._items) if self._overflow == "drop_all" else 1))
            ]
            self.dropped += len(out)
            self._items.append((item, weight))
            self.weight += weight
            self._idle = None
            self._changed.notify_all()
            return out

    def put_idle(self, item: T) -> None:
        """Add an item that is served only while no other waits.

        Whatever is put after it displaces it, uncounted, and so does the end.
        """
        with self._changed:
            if not self._items:
                self._idle = item
                self._changed.notify_all()

    def get(self, timeout_s: float | None = None) -> T | None:
        """Return the oldest item, or None when closed and empty, or when `timeout_s` has passed."""
        with self._changed:
            if not self._items and not self._closed:
                self._changed.wait_for(
                    lambda: self._items or self._idle is not None or self._closed, timeout_s
                )
            if not self._items:
                idle, self._idle = self._idle, None
                return None if self._closed else idle
            item = self._take()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Take nothing more; what is held can still be got. Waiting threads return."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _take(self) -> T:
        item, weight = self._items.popleft()
        self.weight -= weight
        return item


class LatestPerKey(Generic[K, T]):
    """The newest items of every key, served in the order in which the keys have waited.

    Ten streams that arrive together all get their turn: an item only displaces older ones of its
    own key. Items of one `group` belong together (the planes of a stack): they wait beside each
    other, and a group that has begun to be served is served to its end. Items put with
    ``keep=True`` displace nothing (the end of a run, or a run in which nothing may be skipped).
    Items that are `rare` are displaced by their like alone. Beside them there is one place for an
    item that matters only while nothing else waits.
    """

    def __init__(self) -> None:
        self._items: OrderedDict[K, deque[tuple[Hashable, bool, T]]] = OrderedDict()
        self._served: dict[K, Hashable] = {}
        self._idle: T | None = None
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return sum(map(len, self._items.values()))

    def put(
        self, key: K, item: T, *, group: Hashable = None, keep: bool = False, rare: bool = False
    ) -> list[T]:
        """Add `item`; return the items of the same key, of other groups, that it displaces.

        None is a group of its own.
        """
        with self._changed:
            waiting = self._items.setdefault(key, deque())
            out: list[T] = []
            if not keep:
                stay = {group, self._served.get(key)} - {None}
                goes = [
                    its_group not in stay and (rare or not its_rare)
                    for its_group, its_rare, _ in waiting
                ]
                out = [entry[-1] for entry, gone in zip(waiting, goes, strict=True) if gone]
                waiting = self._items[key] = deque(
                    entry for entry, gone in zip(waiting, goes, strict=True) if not gone
                )
            waiting.append((group, rare, item))
            self._idle = None
            self._changed.notify_all()
            return out

    def put_idle(self, item: T) -> None:
        """Add an item that is served only when no other waits.

        Whatever is put after it displaces it, uncounted.
        """
        with self._changed:
            self._idle = item
            self._changed.notify_all()

    def get(self) -> T | None:
        """Return the oldest item of the key that has waited longest; None when closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._idle is not None or self._closed)
            if not self._items:
                idle, self._idle = self._idle, None
                return None if self._closed else idle
            key, waiting = next(iter(self._items.items()))
            self._served[key], _, item = waiting.popleft()
            # To the back of the line, or out of it.
            del self._items[key]
            if waiting:
                self._items[key] = waiting
            self._changed.notify_all()
            return item

    def wait_below(self, count: int, timeout_s: float | None = None) -> bool:
        """Wait until fewer than `count` items are held; False if `timeout_s` passed first."""
        with self._changed:
            return bool(
                self._changed.wait_for(lambda: len(self) < count or self._closed, timeout_s)
            )

    def close(self) -> None:
        """Take note that nothing more will come; what is held can still be got."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
