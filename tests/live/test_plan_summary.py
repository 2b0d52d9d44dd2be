"""What a plan says before it runs: its streams, and in one sentence what cannot be done."""

from __future__ import annotations

from typing import Any

import pytest
import useq
import useq.v2 as v2
from useq import MDAEvent, MDASequence, Position

from livesr.base.errors import ConfigError
from livesr.base.run_description import Stack
from livesr.live.optical_state import ChannelState
from livesr.live.plan_summary import PlanSummary, summarise
from livesr.live.sources.plan import SIMAxis, sim_sequence

RAW = {"488": 9, "561": 1}


def ask(plan: Any, only: str = "") -> PlanSummary:
    return summarise(plan, lambda channel: RAW.get(channel, 1), only)


def test_a_plain_plan() -> None:
    plan = MDASequence(
        time_plan=useq.TIntervalLoops(interval=2, loops=500),
        stage_positions=[Position(x=0, y=0, name="A"), (1, 1, 1)],
        z_plan=useq.ZRangeAround(range=4, step=2),
        channels=["561", "640"],
    )
    found = ask(plan)
    assert (found.channels, found.positions) == (("561", "640"), ("A", "1"))
    assert (found.z_planes, found.z_step_um, found.interval_s) == (3, 2.0, 2.0)
    assert found.stacks == {(p, c): Stack(3, 2.0) for p in range(2) for c in ("561", "640")}
    assert (found.fields, found.notes, found.states) == (
        {},
        (),
        {c: ChannelState("Channel") for c in ("561", "640")},
    )


@pytest.mark.parametrize("order", ["tpcz", "ztpc", "ptcz", "pzct"])
def test_a_time_axis_that_is_long_hides_nothing(order: str) -> None:
    plan = MDASequence(
        axis_order=order,
        time_plan=useq.TIntervalLoops(interval=0, loops=1_000_000),
        stage_positions=[(0, 0, 0), (1, 1, 1)],
        z_plan=useq.ZRangeAround(range=4, step=1),
        channels=["561", "640"],
    )
    found = ask(plan)
    assert (found.channels, len(found.positions), found.z_planes) == (("561", "640"), 2, 5)
    assert found.z_outside_t == (order.index("z") < order.index("t"))


def test_channels_with_their_own_numbers_of_raw_frames() -> None:
    plan = sim_sequence(2, ["488", "561"], RAW, interval_s=1.0)
    events = [(e.index["t"], e.channel.config, e.index["sim"]) for e in plan]
    one = [("488", i) for i in range(9)] + [("561", 0)]
    assert events == [(t, *e) for t in range(2) for e in one]
    found = ask(plan)
    assert (found.channels, found.raw_axis, found.interval_s) == (("488", "561"), True, 1.0)


def test_positions_with_their_own_sequences() -> None:
    plan = MDASequence(
        time_plan=useq.TIntervalLoops(interval=0, loops=3),
        channels=["561"],
        stage_positions=[
            Position(
                x=0,
                y=0,
                z=0,
                name="A",
                sequence=MDASequence(z_plan=useq.ZRangeAround(range=2, step=1)),
            ),
            Position(
                x=1,
                y=0,
                z=0,
                sequence=MDASequence(
                    channels=["561", "640"], z_plan=useq.ZRangeAround(range=4, step=1)
                ),
            ),
            (2, 0, 0),
        ],
    )
    found = ask(plan)
    assert (found.channels, found.positions, found.z_planes) == (("561", "640"), ("A", "1", "2"), 5)
    # Only what is acquired, each position with the planes of its own.
    assert found.stacks == {
        (0, "561"): Stack(3, 1.0),
        (1, "561"): Stack(5, 1.0),
        (1, "640"): Stack(5, 1.0),
        (2, "561"): Stack(1, 1.0),
    }
    second = v2.MDASequence(
        value=v2.Position(x=1, y=1, name="B"), z_plan=v2.ZRangeAround(range=2, step=1)
    )
    nested = v2.MDASequence(
        time_plan={"interval": 0, "loops": 9},
        stage_positions=[v2.Position(x=0, y=0, name="A"), second],
    )
    found = ask(nested, "561")
    assert (found.positions, found.z_planes) == (("A", "B"), 3)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (
            MDASequence(
                time_plan=useq.TIntervalLoops(interval=0, loops=2),
                channels=["561"],
                stage_positions=[
                    Position(
                        x=0,
                        y=0,
                        sequence=MDASequence(
                            time_plan=useq.TIntervalLoops(interval=0, loops=2), channels=["561"]
                        ),
                    )
                ],
            ),
            "acquires time point 0 of p0 561 z0 more than once",
        ),
        (
            [MDAEvent(index={"t": t}, channel="561", roi=(0, 0, 32, 16 + t)) for t in (0, 1)],
            "several regions of the camera",
        ),
        (sim_sequence(2, ["488"], 12), r"raw frame 9; rig\.yaml describes 9"),
        (sim_sequence(2, ["488"], 8), "time point 0 of p0 488 z0 with 8 of 9 raw frames"),
        (
            v2.MDASequence(
                axes=(
                    SIMAxis(values=list(range(9))),
                    v2.TIntervalLoops(interval=0, loops=4),
                    v2.ChannelsPlan(values=["488"]),
                ),
                axis_order=("sim", "t", "c"),
            ),
            "acquires time point 0 of p0 488 z0 more than once|raw frames before it goes on",
        ),
        (
            MDASequence(
                channels=["561", "488"], time_plan=useq.TIntervalLoops(interval=0, loops=9)
            ),
            "The plan has no axis 'sim'",
        ),
        (
            MDASequence(
                channels=["488", "561"], time_plan=useq.TIntervalLoops(interval=0, loops=9)
            ),
            "The plan has no axis 'sim'",
        ),
        ([MDAEvent(index={"t": t}, channel="561") for t in (0, 1, 0)], "more than once"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(plan: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        ask(plan)
    assert "\n" not in str(raised.value)


def test_what_is_left_out_at_some_time_points() -> None:
    channels = [useq.Channel(config="561"), useq.Channel(config="640", acquire_every=3)]
    plan = MDASequence(time_plan=useq.TIntervalLoops(interval=0, loops=20), channels=channels)
    assert ask(plan).lone == {"640"}
    once = [MDAEvent(index={"t": t}, channel="561") for t in (0, 1, 4, 5)]
    assert not ask(once).lone


def test_time_in_phases_and_raw_frames_along_time() -> None:
    phases = MDASequence(
        time_plan=[{"interval": 0, "loops": 2}, {"interval": 0.1, "loops": 3}], channels=["561"]
    )
    assert ask(phases).interval_s is None
    along = MDASequence(time_plan=useq.TIntervalLoops(interval=0.1, loops=28), channels=["488"])
    assert (ask(along).raw_axis, ask(along).interval_s) == (False, 0.1)


def test_a_generator_is_not_used_up() -> None:
    events = iter(sim_sequence(2, ["488"], 9))
    assert ask(events) == PlanSummary()
    assert len(list(events)) == 18


def test_without_any_event() -> None:
    assert ask(MDASequence()).positions == ("0",)


def test_fields_of_a_grid_are_positions() -> None:
    grid = useq.GridRowsColumns(rows=1, columns=2)
    found = ask(MDASequence(channels=["561"], grid_plan=grid))
    assert (found.positions, found.fields) == (("g0", "g1"), {(0, 0): 0, (0, 1): 1})
    inside = [Position(x=0, y=0, name="A", sequence=MDASequence(grid_plan=grid)), (9, 9)]
    found = ask(MDASequence(channels=["561"], stage_positions=inside))
    assert found.positions == ("A-g0", "A-g1", "1-g0")
    assert found.fields == {(0, 0): 0, (0, 1): 1, (1, 0): 2}
    assert set(found.stacks) == {(p, "561") for p in range(3)}


def test_a_well_plate_is_a_list_of_positions() -> None:
    plate = useq.WellPlatePlan(plate=12, a1_center_xy=(0, 0), selected_wells=([0, 1], [0, 1]))
    assert ask(MDASequence(channels=["561"], stage_positions=plate)).positions == ("A1", "B2")


def test_planes_that_are_not_even_are_said_and_every_position_has_its_own_step() -> None:
    uneven = MDASequence(
        channels=["561"],
        stage_positions=[(0, 0, 0)],
        z_plan=useq.ZRelativePositions(relative=[0, 1, 3]),
    )
    assert "1 and 2 um apart" in ask(uneven).notes[0]
    own = [
        Position(x=x, y=0, z=0, sequence=MDASequence(z_plan=useq.ZRangeAround(range=2, step=step)))
        for x, step in ((0, 1), (1, 0.5))
    ]
    found = ask(MDASequence(channels=["561"], stage_positions=own))
    assert found.stacks == {(0, "561"): Stack(3, 1.0), (1, "561"): Stack(5, 0.5)}
    assert found.notes == ()


def test_events_without_an_index_are_counted_along_time() -> None:
    found = ask([MDAEvent(channel=c) for c in ("561", "640", "561")])
    assert (found.channels, found.stacks) == (
        ("561", "640"),
        {(0, c): Stack(1, 1.0) for c in ("561", "640")},
    )
    assert not found.lone


@pytest.mark.parametrize("order", ["tpcz", "ptzc"])
def test_what_a_plan_leaves_out_is_known(order: str) -> None:
    plan = MDASequence(
        axis_order=order,
        time_plan=useq.TIntervalLoops(interval=2, loops=500),
        stage_positions=[Position(x=0, y=0, z=0), Position(x=1, y=1, z=0)],
        z_plan=useq.ZRangeAround(range=4, step=2),
        channels=[
            "561",
            useq.Channel(config="640", do_stack=False),
            useq.Channel(config="405", acquire_every=6),
        ],
    )
    stacks = ask(plan).stacks
    for p in range(2):
        assert stacks[p, "561"] == Stack(3, 2.0)
        assert stacks[p, "640"] == Stack(3, 2.0, left_out=(0, 2))
        assert stacks[p, "405"] == Stack(3, 2.0, every=6)
    assert [stacks[0, "405"].never_comes(t, 0) for t in (0, 1, 5, 6)] == [False, True, True, False]
