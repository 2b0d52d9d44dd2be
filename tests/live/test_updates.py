"""Pictures of groups under way: marked, shown, never stored, and the first to be given up."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from livesr import load_rig, process, raw_input
from livesr.base.buffers import BoundedQueue
from livesr.base.config import RigConfig
from livesr.base.frames import CameraFrame, SRFrame, Stream
from livesr.formats.store import RecordedStore
from livesr.formats.wire import decode
from livesr.live.grouping.by_index import IndexGrouping
from livesr.live.sinks.sink import Sink
from livesr.live.sinks.zeromq import ZeroMQSink
from recorded_runs import Live, assert_equal, lines, moving_groups, sim_rig
from recorded_runs import array as stored
from waiting import until

N_T = 6


class Shown(Sink):
    """Keeps measurements, and those of groups under way."""

    name = "shown"

    def __init__(self) -> None:
        self.updates: list[SRFrame] = []
        self.whole: list[SRFrame] = []

    def recon(self, frame: SRFrame) -> None:
        self.whole.append(frame)

    def updated(self, frame: SRFrame) -> None:
        self.updates.append(frame)


def rolling_rig(update: str, folder: Path) -> RigConfig:
    """A copy of the rig, whose file says when it updates, as the store will."""
    plain, rig = sim_rig("identity"), folder / f"rig_{update}"
    shutil.copytree(plain.folder, rig)
    text = (rig / "rig.yaml").read_text(encoding="utf-8")
    text = text.replace("\nsim:\n", f"\nsim:\n  update: {update}\n")
    (rig / "rig.yaml").write_text(text, encoding="utf-8")
    return load_rig(rig).with_engine("identity")


def record(store: Path, update: str, **settings: Any) -> tuple[Shown, dict[str, Any]]:
    shown = Shown()
    live = Live(
        rolling_rig(update, store.parent),
        store,
        sinks=[shown, *settings.pop("sinks", [])],
        **settings,
    )
    return shown, live.record(moving_groups(N_T), pace_s=lambda t: calm(live, shown, t))


def calm(live: Live, shown: Shown, t: int) -> float:
    """Wait until the group of `t` was shown, so that nothing is given up."""
    until(lambda: len(shown.whole) > t, every_s=0.001)
    return 0.0


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[Path, Shown, dict[str, Any]]]:
    folder, made = tmp_path_factory.mktemp("updates"), {}
    for update in ("group", "angle"):
        store = folder / f"{update}.ome.zarr"
        made[update] = (store, *record(store, update))
    return made


Runs = dict[str, tuple[Path, Shown, dict[str, Any]]]


def test_whole_groups_are_those_of_a_run_without_updates(runs: Runs) -> None:
    assert_equal(runs["group"][0], runs["angle"][0])
    assert len(runs["group"][1].updates) == 0
    assert runs["group"][2]["recon_updates"] == 0


def test_updates_are_marked_with_what_they_show(runs: Runs) -> None:
    _, shown, report = runs["angle"]
    made = [(f.t, f.newest) for f in shown.updates]
    assert set(made) <= {(t, n) for t in range(1, N_T) for n in (3, 6)}
    assert len(made) > N_T
    assert report["recon_updates"] == 2 * (N_T - 1)
    whole = {f.t: f for f in shown.whole}
    for update in shown.updates:
        assert update.span_ms is not None
        assert update.span_ms > 0
        assert update.t_last_ns < whole[update.t].t_last_ns
        assert update.normalisation == whole[update.t - 1].normalisation
        assert "newest" in repr(update)


def test_the_store_keeps_whole_groups_and_says_their_span(runs: Runs) -> None:
    store = runs["angle"][0]
    said = lines(store, "recon")
    assert len(said) == N_T
    assert all(line["span_ms"] > 0 for line in said.values())
    assert all("span_ms" not in line for line in lines(runs["group"][0], "recon").values())
    assert len(stored(store, "recon")) == N_T


def test_a_run_with_updates_is_computed_again_as_one_without(runs: Runs, tmp_path: Path) -> None:
    for update in runs:
        process(raw_input(runs[update][0]), tmp_path / f"{update}.ome.zarr")
    assert_equal(tmp_path / "group.ome.zarr", tmp_path / "angle.ome.zarr")
    assert_equal(runs["angle"][0], tmp_path / "angle.ome.zarr")
    report = json.loads((tmp_path / "angle.ome.zarr/livesr/report.json").read_text())
    assert report["recon_updates"] == 0
    assert RecordedStore(tmp_path / "angle.ome.zarr")


def test_the_stream_says_that_an_update_is_provisional(tmp_path: Path) -> None:
    publisher = ZeroMQSink("tcp://127.0.0.1:*")
    shown = Shown()
    live = Live(rolling_rig("angle", tmp_path), tmp_path / "run.ome.zarr", sinks=[shown, publisher])
    heard: list[Any] = []
    listening = threading.Event()

    def listen() -> None:
        with zmq.Context() as context, context.socket(zmq.SUB) as socket:
            socket.subscribe(b"sr/input")
            socket.subscribe(b"end")
            listening.wait(30)
            socket.connect(str(publisher.endpoint))
            while socket.poll(10_000):
                message = decode(socket.recv_multipart())
                if message.header.type == "end":
                    return
                heard.append(message.header)

    thread = threading.Thread(target=listen)
    thread.start()

    def pace(t: int) -> float:
        listening.set()
        return calm(live, shown, t) + 0.3 * (t == 0) + 0.05

    live.record(moving_groups(N_T), pace_s=pace)
    thread.join()
    updates = [h for h in heard if h.provisional]
    assert updates
    assert len(heard) > len(updates)
    assert all(h.newest_raw in (3, 6) and h.span_ms > 0 for h in updates)
    whole = [h for h in heard if not h.provisional]
    assert all(h.newest_raw is None and h.span_ms > 0 for h in whole)


def test_a_slow_reconstruction_gives_up_updates_before_groups(tmp_path: Path) -> None:
    shown = Shown()
    live = Live(
        rolling_rig("frame", tmp_path),
        tmp_path / "run.ome.zarr",
        policy="latest",
        sinks=[shown],
        slow={"reconstruct": 0.05},
    )
    report = live.record(moving_groups(N_T), pace_s=lambda t: 0.06)
    assert report["groups_dropped"] == 0
    assert report["recon_frames"] == N_T
    assert report["recon_updates"] < 8 * (N_T - 1)


def test_what_fails_in_an_update_ends_updates_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = Live(rolling_rig("angle", tmp_path), tmp_path / "run.ome.zarr", sinks=[])

    def broken(self: Any, newer: Any) -> Any:
        raise RuntimeError("a bug")

    path = next(iter(live.paths.values()))
    monkeypatch.setattr(type(path.reconstructor), "update", broken)
    report = live.record(moving_groups(N_T))
    assert report["recon_frames"] == N_T
    assert report["recon_updates"] == 0
    assert [w for w in report["warnings"] if "only whole groups" in w and "a bug" in w]


# -- their parts -----------------------------------------------------------------------------------


def exposure(t: int, raw: int, exposure_ms: float = 10.0) -> CameraFrame:
    pixels = np.full((1, 1), 100 * t + raw, np.uint16)
    return CameraFrame(pixels, Stream(), t, raw, 1_000_000 * (9 * t + raw), exposure_ms=exposure_ms)


def pushed(grouping: IndexGrouping, *frames: tuple[int, int]) -> list[tuple[int, int, float]]:
    stacks = [s for t, raw in frames for s in grouping.push(exposure(t, raw))]
    return [(s.t, s.newest, s.span_ms) for s in stacks]


def test_an_update_has_the_exposures_of_the_group_before_in_the_place_of_what_is_missing() -> None:
    grouping = IndexGrouping(9, (3, 6))
    first, second = ([(t, raw) for raw in range(9)] for t in (0, 1))
    assert pushed(grouping, *first) == [(0, 0, 8.0)]
    assert pushed(grouping, *second[:3]) == [(1, 3, 8.0)]
    stacks = [s for t, raw in second[3:6] for s in grouping.push(exposure(t, raw))]
    values = [int(f[0, 0]) for f in stacks[0].frames if f is not None]
    assert values == [100, 101, 102, 103, 104, 105, 6, 7, 8]
    assert [int(f[0, 0]) for f in stacks[0].before if f is not None] == list(range(9))
    assert pushed(grouping, *second[6:]) == [(1, 0, 8.0)]


def test_exposures_that_are_missing_or_differ_make_no_update() -> None:
    grouping = IndexGrouping(3, (1, 2))
    pushed(grouping, (0, 0), (0, 1), (0, 2))
    assert pushed(grouping, (1, 1)) == []  # raw 0 has not come
    assert pushed(grouping, (1, 0)) == []
    assert [s.newest for s in grouping.push(exposure(1, 2))] == [0]
    assert grouping.push(exposure(2, 0, exposure_ms=20.0)) == []
    grouping = IndexGrouping(3, (1, 2))
    pushed(grouping, (0, 0), (0, 1), (0, 2))
    assert pushed(grouping, (2, 0)) == []  # a time point between is missing


def test_streams_that_take_turns_make_no_update() -> None:
    grouping = IndexGrouping(2, (1,))
    seen = []
    for t in range(3):
        for position in range(2):
            for raw in range(2):
                frame = replace(exposure(t, raw), stream=Stream(position))
                seen += [stack.newest for stack in grouping.push(frame)]
    assert seen == [0] * 6


def test_what_is_idle_waits_for_everything_else() -> None:
    queue: BoundedQueue[str] = BoundedQueue(4, "drop_all")
    queue.put_idle("a")
    assert queue.get() == "a"
    queue.put_idle("b")
    queue.put("whole")
    queue.put_idle("c")
    assert queue.get() == "whole"
    assert queue.get(0) is None
    queue.put_idle("d")
    queue.close()
    assert queue.get() is None
