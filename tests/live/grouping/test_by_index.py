"""Grouping under drops, repeats and reorderings: what arrives is never lost and never mixed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livesr.base.frames import CameraFrame, RawStack, Stream
from livesr.live.grouping.by_index import IndexGrouping

N = 9


def exposure(t: int, raw: int, stream: Stream = Stream(), number: int = 0) -> CameraFrame:
    pixels = np.array(
        [[stream.position, int(stream.channel or 0), stream.z, t, raw, number]], np.uint16
    )
    return CameraFrame(pixels, stream, t, raw, t_host_ns=1000 * t + raw)


def coordinates(stack: RawStack) -> list[tuple[int, ...]]:
    return [tuple(int(v) for v in f[0]) for f in stack.frames if f is not None]


def test_frames_in_order_make_complete_stacks() -> None:
    grouping = IndexGrouping(N)
    stacks = [s for t in range(3) for raw in range(N) for s in grouping.push(exposure(t, raw))]
    assert [s.t for s in stacks] == [0, 1, 2]
    assert all(s.complete for s in stacks)
    assert stacks[1].t_acq_ns == 1004
    assert grouping.flush() == []


def test_frames_within_a_group_may_come_in_any_order() -> None:
    grouping = IndexGrouping(N)
    (stack,) = [s for raw in reversed(range(N)) for s in grouping.push(exposure(0, raw))]
    assert [c[4] for c in coordinates(stack)] == list(range(N))


def test_frames_may_swap_places_across_a_border() -> None:
    grouping = IndexGrouping(3)
    arrivals = [(0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (1, 2)]
    stacks = [s for t, raw in arrivals for s in grouping.push(exposure(t, raw))]
    assert [(s.t, s.complete) for s in stacks] == [(0, True), (1, True)]


def test_an_incomplete_group_is_closed_by_the_next_complete_one() -> None:
    grouping = IndexGrouping(3)
    arrivals = [(0, 0), (0, 2), (1, 0), (1, 1), (1, 2)]
    stacks = [s for t, raw in arrivals for s in grouping.push(exposure(t, raw))]
    assert [(s.t, s.complete) for s in stacks] == [(0, False), (1, True)]
    assert (grouping.incomplete, grouping.missing) == (1, 1)


def test_a_repeated_frame_is_kept_beside_the_first() -> None:
    grouping = IndexGrouping(3)
    pushed = [exposure(0, 0, number=1), exposure(0, 0, number=2), exposure(0, 1), exposure(0, 2)]
    stacks = [s for f in pushed for s in grouping.push(f)]
    assert coordinates(stacks[0])[0][5] == 1
    assert coordinates(stacks[1]) == [(0, 0, 0, 0, 0, 2)]
    assert grouping.repeated == 1


def test_a_late_frame_makes_a_stack_of_its_own() -> None:
    grouping = IndexGrouping(2)
    for t, raw in [(0, 0), (1, 0), (1, 1)]:
        grouping.push(exposure(t, raw))
    (late,) = grouping.push(exposure(0, 1))
    assert not late.complete
    assert late.t == 0


def test_a_raw_index_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 0 to 8"):
        IndexGrouping(N).push(exposure(0, 9))


arrivals = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.integers(0, N - 1),
        st.sampled_from([Stream(), Stream(1, "488"), Stream(0, "561", 2)]),
    ),
    max_size=120,
)


@given(arrivals)
def test_everything_that_arrives_leaves_exactly_once_and_unmixed(
    arrived: list[tuple[int, int, Stream]],
) -> None:
    grouping = IndexGrouping(N)
    pushed = [exposure(t, raw, stream, number) for number, (t, raw, stream) in enumerate(arrived)]
    stacks = [s for f in pushed for s in grouping.push(f)] + grouping.flush()
    assert Counter(c for s in stacks for c in coordinates(s)) == Counter(
        tuple(int(v) for v in f.pixels[0]) for f in pushed
    )
    for stack in stacks:
        for raw, frame in enumerate(stack.frames):
            if frame is not None:
                assert tuple(frame[0][:5]) == (
                    *(stack.stream.position, int(stack.stream.channel or 0), stack.stream.z),
                    stack.t,
                    raw,
                )
    assert grouping.flush() == []


@given(arrivals)
def test_complete_stacks_of_a_stream_come_in_time_order(
    arrived: list[tuple[int, int, Stream]],
) -> None:
    grouping = IndexGrouping(N)
    stacks = [
        s for t, raw, stream in arrived for s in grouping.push(exposure(t, raw, stream))
    ] + grouping.flush()
    for stream in {s.stream for s in stacks}:
        times = [s.t for s in stacks if s.stream == stream and s.complete]
        assert times == sorted(set(times))
