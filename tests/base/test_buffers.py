"""Hand-overs between threads: bounded, counted, fair."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livesr.base.buffers import BoundedQueue, LatestPerKey


def test_drop_oldest_hands_the_oldest_back_and_counts_it() -> None:
    queue: BoundedQueue[int] = BoundedQueue(2, "drop_oldest")
    assert [queue.put(i, weight=10) for i in range(4)] == [[], [], [0], [1]]
    assert (queue.dropped, queue.weight) == (2, 20)
    queue.close()
    assert [queue.get(), queue.get(), queue.get()] == [2, 3, None]
    assert queue.weight == 0


def test_drop_all_keeps_what_is_consecutive() -> None:
    queue: BoundedQueue[int] = BoundedQueue(3, "drop_all")
    assert [queue.put(i) for i in range(5)] == [[], [], [], [0, 1, 2], []]
    assert queue.dropped == 3
    assert [queue.get(), queue.get()] == [3, 4]


def test_block_waits_for_room() -> None:
    queue: BoundedQueue[int] = BoundedQueue(1, "block")
    queue.put(0)
    giver = threading.Thread(target=queue.put, args=(1,))
    giver.start()
    giver.join(0.05)
    assert giver.is_alive()
    assert queue.get() == 0
    giver.join(5)
    assert queue.get() == 1


def test_a_closed_queue_releases_a_waiting_giver_and_gives_the_item_back() -> None:
    queue: BoundedQueue[int] = BoundedQueue(1, "block")
    queue.put(0)
    back: list[int] = []
    giver = threading.Thread(target=lambda: back.extend(queue.put(1)))
    giver.start()
    queue.close()
    giver.join(5)
    assert back == [1]


def test_get_returns_none_after_its_timeout() -> None:
    assert BoundedQueue[int](1, "block").get(timeout_s=0.01) is None


def test_capacity_must_be_positive() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        BoundedQueue[int](0, "block")


def test_only_an_older_item_of_the_same_key_is_displaced() -> None:
    latest: LatestPerKey[str, int] = LatestPerKey()
    assert [latest.put("a", 1), latest.put("b", 2), latest.put("a", 3)] == [[], [], [1]]
    assert [latest.get(), latest.get()] == [3, 2]


def test_what_is_rare_is_displaced_by_its_like_alone() -> None:
    latest: LatestPerKey[str, str] = LatestPerKey()
    assert latest.put("a", "1") == []
    assert latest.put("a", "rare 2", rare=True) == ["1"]
    assert [latest.put("a", item) for item in ("3", "4")] == [[], ["3"]]
    assert latest.put("a", "rare 5", rare=True) == ["rare 2", "4"]
    assert latest.put("a", "6") == []
    assert [latest.get(), latest.get()] == ["rare 5", "6"]


def test_a_group_is_served_to_its_end_or_displaced_as_a_whole() -> None:
    latest: LatestPerKey[str, str] = LatestPerKey()
    for item in ("1a", "1b", "1c"):
        assert latest.put("stack", item, group=item[0]) == []
    assert latest.get() == "1a"
    assert [latest.put("stack", item, group=item[0]) for item in ("2a", "2b", "3a")] == [
        [],
        [],
        ["2a", "2b"],
    ]
    assert [latest.get() for _ in range(3)] == ["1b", "1c", "3a"]
    assert latest.put("stack", "3b", group="3") == []
    assert latest.put("stack", "4a", group="4") == []  # 3 is being served
    assert [latest.get() for _ in range(2)] == ["3b", "4a"]


def test_kept_items_displace_nothing_and_come_in_order() -> None:
    latest: LatestPerKey[str, int] = LatestPerKey()
    for i in range(3):
        latest.put("a", i, keep=True)
    latest.close()
    assert [latest.get() for _ in range(4)] == [0, 1, 2, None]


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60))
def test_what_was_put_is_got_or_displaced_in_order_of_its_key(puts: list[tuple[int, bool]]) -> None:
    latest: LatestPerKey[int, tuple[int, int]] = LatestPerKey()
    displaced = [
        d for n, (key, keep) in enumerate(puts) for d in latest.put(key, (key, n), keep=keep)
    ]
    latest.close()
    got = []
    while (item := latest.get()) is not None:
        got.append(item)
    assert sorted(got + displaced) == [
        (k, n) for k, n in sorted((k, n) for n, (k, _) in enumerate(puts))
    ]
    for key in range(4):
        mine = [n for k, n in got if k == key]
        assert mine == sorted(mine)


def test_an_idle_item_is_served_only_when_nothing_else_waits_and_any_other_displaces_it() -> None:
    latest: LatestPerKey[str, int] = LatestPerKey()
    latest.put_idle(1)
    assert latest.get() == 1
    latest.put("a", 2)
    latest.put_idle(3)
    assert [latest.get(), latest.get()] == [2, 3]
    latest.put_idle(4)
    assert latest.put("a", 5) == []
    latest.close()
    assert [latest.get(), latest.get()] == [5, None]


def test_an_idle_item_is_not_served_after_the_end() -> None:
    latest: LatestPerKey[str, int] = LatestPerKey()
    latest.put_idle(1)
    latest.close()
    assert latest.get() is None
