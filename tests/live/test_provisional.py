"""Frames shown before their successor came.

Marked, replaced, never stored, and never in the way of those that stay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from psygnal import Signal

from livesr.base.frames import MulticolorFrame, SRFrame
from livesr.formats.wire import decode
from livesr.live.inference.engine import Engine
from livesr.live.separation import Separation
from livesr.live.sinks.signals import SignalSink
from livesr.live.sinks.sink import Sink
from livesr.live.sinks.zeromq import ZeroMQSink
from recorded_runs import Live, array, assert_equal, lines, mixing_engine, moving_groups, sim_rig
from waiting import until

PERIOD_S = 0.06  # of super-resolution frames: the small network needs some ms


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return mixing_engine(tmp_path_factory.mktemp("engines") / "mixing")


class Shown(Sink):
    """Keeps every prediction, in the order in which it came."""

    name = "shown"

    def __init__(self) -> None:
        self.frames: list[MulticolorFrame] = []

    def separated(self, frame: MulticolorFrame) -> None:
        self.frames.append(frame)

    @property
    def provisional(self) -> list[MulticolorFrame]:
        return [f for f in self.frames if f.provisional]

    @property
    def final(self) -> list[MulticolorFrame]:
        return [f for f in self.frames if not f.provisional]


def record(
    engine: Engine, store: Path, n_t: int = 14, **settings: Any
) -> tuple[Shown, dict[str, Any]]:
    shown = Shown()
    live = Live(
        sim_rig(str(engine.folder)), store, **{"policy": "latest", "sinks": [shown], **settings}
    )
    return shown, live.record(moving_groups(n_t), pace_s=lambda t: calm_period(live, t))


def calm_period(live: Live, t: int) -> float:
    """Wait until every complete window is separated, however busy this computer is.

    Return the pause that follows.
    """
    until(lambda: live.pipeline.counts["sr_frames"] >= t, every_s=0.001)
    return PERIOD_S


@pytest.fixture(scope="module")
def calm(
    engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Shown, dict[str, Any]]:
    """A run that leaves the network time."""
    store = tmp_path_factory.mktemp("calm") / "run.ome.zarr"
    return store, *record(engine, store, provisional=True)


def test_a_frame_is_shown_before_its_successor_came_and_then_replaced(
    calm: tuple[Path, Shown, dict[str, Any]],
) -> None:
    _, shown, report = calm
    assert report["sr_provisional"] >= len(shown.provisional) > 0
    order: dict[int, list[bool]] = defaultdict(list)
    for frame in shown.frames:
        order[frame.t].append(frame.provisional)
    assert all(kinds in ([False], [True, False]) for kinds in order.values())
    assert [f.t for f in shown.final] == list(range(14))
    early, late = report["latency_provisional_ms"]["p50"], report["latency_ms"]["p50"]
    assert 0 < early < late  # the final one waits for a whole period more


def test_what_it_shows_is_the_newest_frame_twice(calm: tuple[Path, Shown, dict[str, Any]]) -> None:
    _, shown, _ = calm
    final = {f.t: f for f in shown.final}
    for frame in shown.provisional:
        assert np.shares_memory(frame.source.image, final[frame.t].source.image)
        # The engine looks at its neighbours; the last frame has no other than itself, then as well
        # as finally.
        assert np.array_equal(frame.channels, final[frame.t].channels) == (frame.t == 13)


def test_store_and_final_frames_are_those_of_a_run_without(
    calm: tuple[Path, Shown, dict[str, Any]], engine: Engine, tmp_path: Path
) -> None:
    store, shown, report = calm
    plain, without = record(engine, tmp_path / "off.ome.zarr", provisional=False)
    assert without["sr_provisional"] == 0 == len(plain.provisional)
    assert_equal(store, tmp_path / "off.ome.zarr")
    for one, other in zip(shown.final, plain.final, strict=True):
        np.testing.assert_array_equal(one.channels, other.channels)
        assert (one.t, one.display, one.residual, one.edge, one.warnings) == (
            other.t,
            other.display,
            other.residual,
            other.edge,
            other.warnings,
        )
    same = ("raw_frames", "recon_frames", "sr_frames", "sr_skipped", "tc_complete", "warnings")
    assert {k: report[k] for k in same} == {k: without[k] for k in same}
    assert len(lines(store, "sr")) == len(array(store, "sr")) == 14


def test_none_is_made_when_the_network_has_no_time_left(engine: Engine, tmp_path: Path) -> None:
    live = Live(
        sim_rig(str(engine.folder)),
        tmp_path / "b.ome.zarr",
        policy="latest",
        provisional=True,
        slow={"infer": 0.2},
    )
    report = live.record(moving_groups(16), pace_s=lambda t: 0.02)
    assert report["sr_provisional"] == 0
    assert report["sr_skipped"] > 0
    assert report["sr_frames"] + report["sr_skipped"] + report["groups_dropped"] == 16


def test_none_is_made_where_nothing_may_be_skipped(engine: Engine, tmp_path: Path) -> None:
    _, report = record(
        engine, tmp_path / "all.ome.zarr", n_t=8, policy="complete", provisional=True
    )
    assert report["sr_provisional"] == 0


def test_a_provisional_frame_that_fails_ends_only_the_provisional_ones(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Separation, slot: int, window: Any) -> Any:
        if window.provisional:
            raise RuntimeError("out of memory")
        return predict(self, slot, window)

    predict = Separation.predict
    monkeypatch.setattr(Separation, "predict", failing)
    _, report = record(engine, tmp_path / "f.ome.zarr", provisional=True)
    assert (report["sr_frames"], report["sr_failed"], report["sr_provisional"]) == (14, 0, 0)
    assert any("out of memory" in w for w in report["warnings"])


@pytest.fixture
def subscriber() -> Iterator[zmq.Socket[bytes]]:
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.subscribe(b"sr/frame")
    yield socket
    socket.close(0)
    context.term()


def test_on_the_wire_provisional_comes_before_final(
    engine: Engine, tmp_path: Path, subscriber: zmq.Socket[bytes]
) -> None:
    sink = ZeroMQSink("tcp://127.0.0.1:*")
    live = Live(
        sim_rig(str(engine.folder)),
        tmp_path / "w.ome.zarr",
        policy="latest",
        provisional=True,
        sinks=[sink],
    )
    received: list[tuple[int, bool]] = []

    def pace(t: int) -> float:
        if t == 0:
            assert sink.endpoint
            subscriber.connect(sink.endpoint)
            until(lambda: b"sr/frame" in sink._publisher._subscribed)
        while subscriber.poll(0):
            received.append(_what(subscriber))
        return calm_period(live, t)

    report = live.record(moving_groups(14), pace_s=pace)
    while subscriber.poll(200):
        received.append(_what(subscriber))
    assert report["sr_provisional"] >= sum(provisional for _, provisional in received) > 0
    assert [t for t, provisional in received if not provisional] == list(range(14))
    for t in range(14):
        assert [provisional for at, provisional in received if at == t] in ([False], [True, False])


def _what(socket: zmq.Socket[bytes]) -> tuple[int, bool]:
    message = decode(socket.recv_multipart())
    return message.header.t, message.header.provisional


def test_a_script_gets_final_frames_on_one_signal_and_provisional_ones_on_another(
    engine: Engine, tmp_path: Path
) -> None:
    class Session:
        frame_ready = Signal(MulticolorFrame)
        input_ready = Signal(SRFrame)
        provisional_ready = Signal(MulticolorFrame)

    session = Session()
    final: list[MulticolorFrame] = []
    early: list[MulticolorFrame] = []
    session.frame_ready.connect(final.append)
    session.provisional_ready.connect(early.append)
    sink = SignalSink(session.frame_ready, session.input_ready, session.provisional_ready)
    _, report = record(engine, tmp_path / "s.ome.zarr", provisional=True, sinks=[sink])
    assert [f.t for f in final] == list(range(14))
    assert not any(f.provisional for f in final)
    assert all(f.provisional for f in early)
    assert report["sr_provisional"] >= len(early) > 0
