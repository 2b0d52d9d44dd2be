"""What a plan says before it runs: its streams, and in one sentence what cannot be done."""

from __future__ import annotations

from typing import Any

import pytest
import useq
import useq.v2 as v2
from useq import MDAEvent, MDASequence, Position

from livesr.base.errors import ConfigError
from livesr.live.sources.plan import SIMAxis, sim_sequence
from livesr.live.survey import Survey, survey

RAW = {"488": 9, "561": 1}


def ask(plan: Any, only: str = "") -> Survey:
    return survey(plan, lambda channel: RAW.get(channel, 1), only)


def test_a_plain_plan() -> None:
    plan = MDASequence(
        time_plan=useq.TIntervalLoops(interval=2, loops=500),
        stage_positions=[Position(x=0, y=0, name="A"), (1, 1, 1)],
        z_plan=useq.ZRangeAround(range=4, step=2),
        channels=["561", "640"],
    )
    found = ask(plan)
    assert found == Survey(("561", "640"), ("A", "1"), 3, 2.0, 2.0)


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
            Position(x=0, y=0, z=0, name="A", sequence=MDASequence(z_plan=useq.ZRangeAround(range=2, step=1))),
            Position(
                x=1,
                y=0,
                z=0,
                sequence=MDASequence(channels=["561", "640"], z_plan=useq.ZRangeAround(range=4, step=1)),
            ),
            (2, 0, 0),
        ],
    )
    found = ask(plan)
    assert (found.channels, found.positions, found.z_planes) == (("561", "640"), ("A", "1", "2"), 5)
    second = v2.MDASequence(value=v2.Position(x=1, y=1, name="B"), z_plan=v2.ZRangeAround(range=2, step=1))
    nested = v2.MDASequence(
        time_plan={"interval": 0, "loops": 9}, stage_positions=[v2.Position(x=0, y=0, name="A"), second]
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
                        x=0, y=0, sequence=MDASequence(time_plan=useq.TIntervalLoops(interval=0, loops=2), channels=["561"])
                    )
                ],
            ),
            "acquires time point 0 of p0 561 z0 more than once",
        ),
        (
            MDASequence(
                channels=["561"],
                stage_positions=[
                    Position(x=0, y=0, z=0, sequence=MDASequence(z_plan=useq.ZRangeAround(range=2, step=1))),
                    Position(x=1, y=0, z=0, sequence=MDASequence(z_plan=useq.ZRangeAround(range=2, step=0.5))),
                ],
            ),
            r"steps of 0\.5 and 1 um; a store has one",
        ),
        (MDASequence(channels=["561"], grid_plan=useq.GridRowsColumns(rows=1, columns=2)), "The plan has a grid"),
        (
            MDASequence(
                channels=["561"],
                stage_positions=[
                    Position(x=0, y=0, sequence=MDASequence(grid_plan=useq.GridRowsColumns(rows=1, columns=2)))
                ],
            ),
            "The plan has a grid",
        ),
        (sim_sequence(2, ["488"], 12), r"raw frame 9; rig\.yaml describes 9"),
        (sim_sequence(2, ["488"], 8), "time point 0 of p0 488 z0 with 8 of 9 raw frames"),
        (
            v2.MDASequence(
                axes=(SIMAxis(values=list(range(9))), v2.TIntervalLoops(interval=0, loops=4), v2.ChannelsPlan(values=["488"])),
                axis_order=("sim", "t", "c"),
            ),
            "acquires time point 0 of p0 488 z0 more than once|raw frames before it goes on",
        ),
        (
            MDASequence(channels=["561", "488"], time_plan=useq.TIntervalLoops(interval=0, loops=9)),
            "The plan has no axis 'sim'",
        ),
        (
            MDASequence(channels=["488", "561"], time_plan=useq.TIntervalLoops(interval=0, loops=9)),
            "The plan has no axis 'sim'",
        ),
        ([MDAEvent(index={"t": t}, channel="561") for t in (0, 1, 0)], "more than once"),
    ],
)  # fmt: skip
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
    phases = MDASequence(time_plan=[{"interval": 0, "loops": 2}, {"interval": 0.1, "loops": 3}], channels=["561"])
    assert ask(phases).interval_s is None
    along = MDASequence(time_plan=useq.TIntervalLoops(interval=0.1, loops=28), channels=["488"])
    assert (ask(along).raw_axis, ask(along).interval_s) == (False, 0.1)


def test_a_generator_is_not_used_up() -> None:
    events = iter(sim_sequence(2, ["488"], 9))
    assert ask(events) == Survey()
    assert len(list(events)) == 18


def test_without_any_event() -> None:
    assert ask(MDASequence()).positions == ("0",)
