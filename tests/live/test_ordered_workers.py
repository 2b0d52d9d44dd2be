"""Several frames are worked on at once.

Results come in order, never from more at once than there are slots, and the queue goes on skipping.
"""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest

from livesr.base.buffers import BoundedQueue, LatestPerKey
from livesr.live.ordered_workers import OrderedWorkers

DEADLINE_S = 60


class Watched:
    """Work that notes how many items are worked on at once, and waits for what a test tells it
    to."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.begun: list[tuple[int, int]] = []  # (slot, item)
        self.at_once = self.most = 0
        self.held: set[int] = set()

    def __call__(self, slot: int, item: int) -> str:
        with self.changed:
            self.begun.append((slot, item))
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: item not in self.held, DEADLINE_S)
            self.at_once -= 1
        if item < 0:
            raise ValueError(f"item {item}")
        return f"result {item}"

    def release(self, item: int) -> None:
        with self.changed:
            self.held.discard(item)
            self.changed.notify_all()

    def wait_until_begun(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.begun) >= count, DEADLINE_S)


def queue_of(*items: int) -> BoundedQueue[int]:
    queue: BoundedQueue[int] = BoundedQueue(100, "block")
    for item in items:
        queue.put(item)
    queue.close()
    return queue


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_results_come_in_order_and_never_from_more_than_there_are_slots(slots: int) -> None:
    work = Watched()
    landed = [
        (item, result()) for item, result in OrderedWorkers(work, slots).over(queue_of(*range(50)))
    ]
    assert landed == [(i, f"result {i}") for i in range(50)]
    assert work.most <= slots
    by_slot = {slot: [item for at, item in work.begun if at == slot] for slot in range(slots)}
    assert all(a < b for items in by_slot.values() for a, b in pairwise(items))
    assert sorted(item for items in by_slot.values() for item in items) == list(range(50))


def test_a_second_item_is_worked_on_while_the_first_is() -> None:
    work = Watched()
    work.held = {0}
    landed: list[int] = []

    def take() -> None:
        for item, result in OrderedWorkers(work, 2).over(queue_of(0, 1, 2)):
            result()
            landed.append(item)

    thread = threading.Thread(target=take)
    thread.start()
    work.wait_until_begun(2)  # 1 as well, though 0 has not ended
    assert landed == []
    assert [item for _, item in work.begun] == [0, 1]  # 2 waits for a slot
    work.release(0)
    thread.join(DEADLINE_S)
    assert landed == [0, 1, 2]


def test_nothing_waits_for_an_item_that_has_not_come() -> None:
    work, queue = Watched(), BoundedQueue[int](10, "block")
    results = OrderedWorkers(work, 2).over(queue)
    for item in range(3):
        queue.put(item)
        came, result = next(results)
        assert (came, result()) == (item, f"result {item}")
    queue.close()
    assert list(results) == []


def test_what_waits_for_a_slot_can_still_be_skipped() -> None:
    work: Watched = Watched()
    work.held = {0, 1}
    queue: LatestPerKey[str, int] = LatestPerKey()
    landed: list[int] = []

    def take() -> None:
        for item, result in OrderedWorkers(work, 2).over(queue):
            result()
            landed.append(item)

    queue.put("stream", 0, keep=True)
    queue.put("stream", 1, keep=True)
    thread = threading.Thread(target=take)
    thread.start()
    work.wait_until_begun(2)
    assert queue.put("stream", 2) == []
    assert queue.put("stream", 3) == [2]
    queue.close()
    work.release(0)
    work.release(1)
    thread.join(DEADLINE_S)
    assert landed == [0, 1, 3]


@pytest.mark.parametrize("slots", [1, 2])
def test_what_is_not_wanted_has_no_result(slots: int) -> None:
    work = Watched()
    workers = OrderedWorkers(work, slots, wanted=lambda item: item % 2 == 0)
    assert [item for item, _ in workers.over(queue_of(*range(9)))] == [0, 2, 4, 6, 8]
    assert {item for _, item in work.begun} <= {0, 2, 4, 6, 8}


def test_what_is_not_wanted_keeps_no_slot_from_what_is() -> None:
    work = Watched()
    work.held = {0}
    landed: list[int] = []

    def take() -> None:
        workers = OrderedWorkers(work, 2, wanted=lambda item: item != 1)
        landed.extend(item for item, result in workers.over(queue_of(0, 1, 2)) if result())

    thread = threading.Thread(target=take)
    thread.start()
    work.wait_until_begun(2)  # 2 as well, while 0 has not ended and its result holds a place
    work.release(0)
    thread.join(DEADLINE_S)
    assert landed == [0, 2]
    assert sorted(item for _, item in work.begun) == [0, 2]


@pytest.mark.parametrize("slots", [1, 2])
def test_an_error_lands_with_its_item_and_ends_no_other(slots: int) -> None:
    landed: list[tuple[int, str]] = []
    for item, result in OrderedWorkers(Watched(), slots).over(queue_of(1, -2, 3)):
        try:
            landed.append((item, result()))
        except ValueError as e:
            landed.append((item, str(e)))
    assert landed == [(1, "result 1"), (-2, "item -2"), (3, "result 3")]


def test_threads_end_when_nobody_takes_the_rest() -> None:
    work = Watched()
    results = OrderedWorkers(work, 2, "left").over(queue_of(*range(9)))
    assert next(results)[0] == 0
    running = [t for t in threading.enumerate() if t.name.startswith("livesr-left-")]
    assert running
    results.close()
    for thread in running:
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
    assert {item for _, item in work.begun} <= {0, 1}  # what waited for a slot is not begun
