"""A network that is slow, or never answers, holds up neither measurement nor recording nor the end
of a run."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from livesr.base.compute import Augmentation
from livesr.base.config import RigConfig, load_rig
from livesr.base.run_config import RunConfig
from livesr.live import pipeline as pipeline_module
from livesr.live.ordered_workers import OrderedWorkers
from livesr.live.session import Session
from livesr.live.sinks.signals import SignalSink
from livesr.live.watchdog import PATIENCE_S, Watchdog
from livesr.modalities.storm.config import STORMConfig
from livesr.store.backfill import backfill
from recorded_runs import (
    Live,
    array,
    lines,
    mixing_engine,
    moving_groups,
    sim_rig,
)
from upscaling import edsr_engine

N = 24
DEADLINE_S = 60
AFTER_S = 0.3  # of no answer, a network counts as lost in these tests


class Gate:
    """A network that answers when it is told to.

    Parameters
    ----------
    first : calls that are answered at once
    """

    def __init__(self, first: int = 0) -> None:
        self._session: Any = None
        self._first = first
        self.calls, self.open = 0, threading.Event()

    def before(self, session: Any) -> Gate:
        """Stand in front of the network of a run's only channel."""
        self._session = session
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def infer(self) -> NDArray[np.float32]:
        self.calls += 1
        if self.calls > self._first:
            assert self.open.wait(DEADLINE_S)
        return self._session.infer()


def gated(rig: RigConfig, store: Path, first: int = 0, **how: Any) -> tuple[Live, Gate]:
    """A run with a gate in front of its network."""
    gate = Gate(first)
    return Live(rig, store, network=gate.before, **how), gate


def widefield(engine: str) -> RigConfig:
    rig = load_rig("demo")
    name = next(iter(rig.channels))
    channel = rig.channels[name].model_copy(update={"reconstruct": "widefield", "separate": engine})
    return rig.model_copy(update={"channels": {name: channel}})


def storm(engine: str) -> RigConfig:
    rig = load_rig("virtual_storm").with_engine("none", "upscale").with_engine(engine)
    return rig.with_section(STORMConfig(frames=9))


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "engines").mkdir()
    monkeypatch.setenv("LIVESR_HOME", str(tmp_path))
    return str(mixing_engine(tmp_path / "engines" / "mixing").folder)


RIGS = {"sim": sim_rig, "widefield": widefield, "storm": storm}


@contextmanager
def feeding(live: Live, groups: NDArray[np.uint16]) -> Iterator[dict[str, Any]]:
    """Record in a thread; yields the report, filled when the block was left."""
    report: dict[str, Any] = {}
    thread = threading.Thread(target=lambda: report.update(live.record(groups)))
    thread.start()
    yield report
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def wait_for_recons(live: Live, count: int) -> None:
    looked = threading.Event()
    for _ in range(int(DEADLINE_S / 0.01)):
        if live.pipeline.counts["recon_frames"] >= count:
            return
        looked.wait(0.01)
    raise AssertionError(f"{live.pipeline.counts['recon_frames']} of {count} were measured")


@pytest.mark.parametrize("policy", ["latest", "complete"])
@pytest.mark.parametrize("modality", list(RIGS))
def test_everything_is_measured_while_the_network_works_on_its_first_frame(
    modality: str, policy: str, engine: str, tmp_path: Path
) -> None:
    live, network = gated(RIGS[modality](engine), tmp_path / "run.ome.zarr", policy=policy)
    with feeding(live, moving_groups(N)) as report:
        wait_for_recons(live, 1)
        if policy == "complete":
            wait_for_recons(live, N)
        network.open.set()
    assert report["recon_frames"] + report["groups_dropped"] == N
    assert network.calls == report["sr_frames"]
    if policy == "complete":
        assert (report["recon_frames"], report["sr_frames"]) == (N, N)


def test_no_measurement_is_given_up_for_a_network_that_is_slower(
    engine: str, tmp_path: Path
) -> None:
    live, network = gated(sim_rig(engine), tmp_path / "run.ome.zarr", policy="latest")
    live.pipeline.open()
    for t in range(
        N
    ):  # as fast as it is measured: nothing is dropped unless the network is in the way
        feed_one(live, moving_groups(1, seed=t)[0], t)
        wait_for_recons(live, t + 1)
    assert network.calls == 1
    network.open.set()
    report = ended(live)
    assert (report["recon_frames"], report["groups_dropped"]) == (N, 0)
    assert report["sr_frames"] + report["sr_skipped"] == N


def test_an_enlarging_network_is_not_waited_for_either(tmp_path: Path) -> None:
    rig = sim_rig("none").with_engine(str(edsr_engine(tmp_path / "x2").folder), "upscale")
    live, network = gated(rig, tmp_path / "run.ome.zarr", policy="complete")
    with feeding(live, moving_groups(N)) as report:
        wait_for_recons(live, N)
        network.open.set()
    assert (report["recon_frames"], report["sr_frames"]) == (N, N)


def feed_one(live: Live, group: NDArray[np.uint16], t: int) -> None:
    from useq import MDAEvent

    (channel,) = live.paths
    for raw, frame in enumerate(group):
        live.pipeline.hook.frame_ready(
            frame, MDAEvent(index={"t": t, "sim": raw}, channel=channel or None), {}
        )


def join_network() -> None:
    """Wait for the thread of a network that the run has left behind."""
    for thread in threading.enumerate():
        if thread.name == "livesr-separate":
            thread.join(DEADLINE_S)
            assert not thread.is_alive()


def ended(live: Live) -> dict[str, Any]:
    live.pipeline.end()
    report = live.pipeline.join()
    for path in live.paths.values():
        path.close()
    return report


@pytest.mark.parametrize("policy", ["latest", "complete"])
def test_a_network_that_never_returns_ends_neither_the_measurement_nor_the_run(
    policy: str, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_module, "Watchdog", lambda _patience_s: Watchdog(AFTER_S))
    live, network = gated(sim_rig(engine), tmp_path / "run.ome.zarr", first=3, policy=policy)
    groups = moving_groups(N)
    live.pipeline.open()
    for t, group in enumerate(groups):
        feed_one(live, group, t)
        wait_for_recons(live, t + 1)
    live.pipeline.end()
    report = live.pipeline.join()
    assert live.pipeline.network_left
    assert (report["recon_frames"], report["raw_lost"]) == (N, 0)
    assert report["sr_frames"] + report["sr_skipped"] + report["sr_failed"] == N
    assert report["sr_frames"] < N
    assert any("did not answer" in warning for warning in report["warnings"])
    np.testing.assert_array_equal(array(live.sink.path, "raw"), groups)
    assert len(array(live.sink.path, "recon")) == N
    late = array(live.sink.path, "sr").copy()

    network.open.set()  # what it gives now comes too late for a store that is closed
    join_network()
    np.testing.assert_array_equal(array(live.sink.path, "sr"), late)
    for path in live.paths.values():
        path.close()
    backfill(live.sink.path)
    assert {line["state"] for line in lines(live.sink.path, "sr").values()} == {"separated"}


def test_a_network_that_sees_a_frame_in_several_views_has_as_many_times_as_long(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience_s: list[float] = []

    def watch(seconds: float) -> Watchdog:
        patience_s.append(seconds)
        return Watchdog(seconds)

    monkeypatch.setattr(pipeline_module, "Watchdog", watch)
    views: tuple[Augmentation | None, ...] = (None, "flips")
    for ensemble in views:
        Live(sim_rig(engine), tmp_path / f"{ensemble}", ensemble=ensemble).record(moving_groups(3))
    assert patience_s == [PATIENCE_S, 4 * PATIENCE_S]


def test_a_network_that_comes_back_goes_on(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watchdog = Watchdog(AFTER_S)
    monkeypatch.setattr(pipeline_module, "Watchdog", lambda _patience_s: watchdog)
    live, network = gated(sim_rig(engine), tmp_path / "run.ome.zarr", first=2, policy="latest")
    live.pipeline.open()
    for t in range(N):
        feed_one(live, moving_groups(1, seed=t)[0], t)
        wait_for_recons(live, t + 1)
    while not watchdog.overdue:
        threading.Event().wait(0.01)
    network.open.set()
    while watchdog.overdue:  # until the call that hung has returned
        threading.Event().wait(0.01)
    report = ended(live)
    assert report["sr_frames"] >= 4  # two before, the one that hung, and the last
    assert report["sr_failed"] == 0


def test_whoever_wants_the_end_does_not_wait_for_a_network_that_hangs(
    engine: str, tmp_path: Path
) -> None:
    live, network = gated(sim_rig(engine), tmp_path / "run.ome.zarr", policy="complete")
    live.pipeline.open()
    feed_one(live, moving_groups(1)[0], 0)
    wait_for_recons(live, 1)
    live.pipeline.end()
    live.pipeline.abandon()
    report = (
        live.pipeline.join()
    )  # hangs, but for the abandonment, until the usual patience is over
    assert (report["recon_frames"], report["sr_failed"]) == (1, 1)
    network.open.set()
    join_network()
    for path in live.paths.values():
        path.close()


def test_what_is_under_way_is_known() -> None:
    from livesr.base.buffers import BoundedQueue

    queue: BoundedQueue[int] = BoundedQueue(10, "block")
    for item in range(4):
        queue.put(item)
    queue.close()
    flight: OrderedWorkers[int, int] = OrderedWorkers(lambda slot, item: item, 2)
    seen = []
    for item, result in flight.over(queue):
        assert result() == item
        assert flight.under_way()[0] == item
        seen.append(item)
    assert (seen, flight.under_way()) == ([0, 1, 2, 3], [])


@pytest.mark.parametrize(
    "ending", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), ValueError("bad")]
)
def test_a_listener_that_exits_is_counted_and_the_next_frames_come(
    ending: BaseException, engine: str, tmp_path: Path
) -> None:
    session = Session(load_rig("virtual_sim"), RunConfig())
    sink = SignalSink(session.frame_ready, session.input_ready, session.provisional_ready)
    seen: list[int] = []

    def listener(frame: Any) -> None:
        seen.append(frame.t)
        if frame.t == 2:
            raise ending

    session.frame_ready.connect(listener)
    live = Live(sim_rig(engine), tmp_path / "run.ome.zarr", sinks=[sink])

    def wait(t: int) -> float:
        """Until the one before was seen: a listener that is slow misses frames."""
        deadline = time.monotonic() + 60
        while len(seen) < t and time.monotonic() < deadline:
            time.sleep(0.005)
        return 0.0

    report = live.record(moving_groups(6), pace_s=wait)
    assert seen == list(range(6))
    assert sink.listener_errors == 1
    assert (report["sr_frames"], report["error"]) == (6, None)


LEAVES_IN_A_CHILD = """
import os, sys, time
from pathlib import Path
from livesr.store.replay import Replay
with Replay(sys.argv[1], rate="max", store=sys.argv[2]) as replay:
    child = os.fork()
    if child == 0:
        replay.__exit__(None, None, None)   # as a child that falls out of the block
        os._exit(7)
    until = time.monotonic() + 60
    while not (done := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < until:
        time.sleep(0.01)
    print("child", os.waitstatus_to_exitcode(done[1]) if done[0] else "hangs")
    replay.run()
report = replay.report
print("raw", report["raw_frames"], "lost", report["raw_lost"], "error", report["error"])
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork on this system")
def test_a_forked_child_leaves_the_run_to_its_parent(engine: str, tmp_path: Path) -> None:
    live = Live(sim_rig(engine), tmp_path / "first.ome.zarr")
    live.record(moving_groups(3))
    told = subprocess.run(
        [sys.executable, "-c", LEAVES_IN_A_CHILD, live.sink.path, tmp_path / "second.ome.zarr"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert told.stdout.splitlines() == ["child 7", "raw 27 lost 0 error None"], told.stderr
