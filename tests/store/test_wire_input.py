"""A run is computed on another computer, which asks for its raw groups."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from livesr import Replay
from livesr.base.config import load_rig
from livesr.base.errors import BindError, ConfigError
from livesr.cli import _run
from livesr.formats.keys import make_keys
from livesr.formats.wire import ASK_ABOUT, ASK_GROUP, END, decode
from livesr.live.inference.engine import Engine
from livesr.live.sinks import doorway, raw_door
from livesr.live.sinks.raw_door import RawDoor
from livesr.store import wire_input
from livesr.store.wire_input import is_address, raw_on_wire
from recorded_runs import Live, assert_equal, lines, moving_groups, sim_rig
from waiting import until

N_T = 12
HOW = {"backend": "openvino", "precision": "f32", "device": "cpu", "threads": 1}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_input, "_ANSWER_S", 2.0)
    monkeypatch.setattr(raw_door, "_AGAIN_S", 0.05)
    monkeypatch.setattr(raw_door, "_SILENT_S", 2.0)


@pytest.fixture
def rig_here(tmp_path: Path, engine: Engine) -> Iterator[Callable[..., Any]]:
    """Start a run that hands out its raw groups; it is joined in the end."""
    begun: list[threading.Thread] = []

    def start(n_t: int = N_T, *, store: bool = True, wait: bool = True, **door: Any) -> Any:
        holder: dict[str, Any] = {}

        def where() -> Path | None:
            return holder["live"].sink.path if store else None

        made = RawDoor("tcp://127.0.0.1:*", store=where, **door)
        live = holder["live"] = Live(sim_rig("mixing"), tmp_path / "rig.ome.zarr", sinks=[made])
        go, report = threading.Event(), {}

        def pace_s(t: int) -> float:
            go.wait(20 if t == 0 else 0)
            return 0.02

        thread = threading.Thread(
            target=lambda: report.update(live.record(moving_groups(n_t), pace_s=pace_s))
        )
        thread.start()
        begun.append(thread)
        while made.endpoint is None:
            time.sleep(0.01)
        if not wait:
            go.set()
        return made, live, go, thread, report

    yield start
    for thread in begun:
        thread.join()


def computed_there(endpoint: str, to: Path, **how: Any) -> dict[str, Any]:
    settings = {**HOW, "policy": "complete", **how}
    with Replay(endpoint, rig=sim_rig("mixing"), store=to, **settings) as replay:
        replay.run()
    return dict(replay.report)


def test_what_is_computed_there_is_what_is_computed_here(
    rig_here: Callable[..., Any], tmp_path: Path
) -> None:
    door, live, go, thread, report = rig_here()
    threading.Timer(0.3, go.set).start()
    there = computed_there(door.endpoint, tmp_path / "there.ome.zarr")
    thread.join()
    assert_equal(live.sink.path, Path(there["store"]))
    for key, line in lines(live.sink.path, "raw").items():
        for name in ("t_camera_ms", "exposure_ms", "missing"):
            assert line.get(name) == lines(Path(there["store"]), "raw")[key].get(name)
    wire = there["replay"]["wire"]
    assert (wire["groups"], wire["lost"]) == (N_T, 0)
    assert wire["bytes"] == N_T * 9 * 32 * 32 * 2
    assert report["raw_lost"] == 0
    assert door.account["groups"] == N_T
    assert (door.account["gone"], door.account["behind"]) == (0, 0)


@pytest.mark.parametrize("store", [True, False])
def test_what_memory_has_lost_comes_from_the_store_or_is_counted(
    rig_here: Callable[..., Any], tmp_path: Path, store: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_door, "_KEPT_BYTES", 1)
    door, live, go, thread, report = rig_here(store=store)
    raw = raw_on_wire(door.endpoint, sim_rig("mixing"))
    go.set()
    while live.pipeline.status()["raw_frames"] < 8 * 9:
        time.sleep(0.05)
    settings: Any = {**HOW, "policy": "complete"}
    with Replay(raw, store=tmp_path / "there.ome.zarr", **settings) as replay:
        replay.run()
    wire = replay.report["replay"]["wire"]
    assert wire["groups"] + wire["lost"] == N_T
    if store:
        assert wire["lost"] == 0
        assert wire["from_behind"] > 0
        assert_equal(live.sink.path, Path(replay.report["store"]))
    else:
        assert wire["lost"] > 0
        (said,) = [w for w in replay.report["warnings"] if "are missing" in w]
        assert said.startswith(f"{wire['lost']} groups")
        thread.join()
        assert report["raw_frames"] == N_T * 9


def test_a_rig_that_falls_silent_ends_the_run_with_what_came(
    rig_here: Callable[..., Any], tmp_path: Path
) -> None:
    context = zmq.Context()
    door, _, go, *_ = rig_here()
    through = _Through(context, door.endpoint)
    settings: Any = {**HOW, "policy": "complete"}
    replay = Replay(through.endpoint, rig=sim_rig("mixing"), **settings)
    through.cut()
    with pytest.raises(Exception, match="silent"), replay:
        replay.run()
    go.set()
    context.term()


class _Through:
    """A way that can be cut: passes messages between a rig and whoever asks."""

    def __init__(self, context: Any, endpoint: str) -> None:
        self._front, self._back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
        self._front.bind("tcp://127.0.0.1:*")
        self._back.connect(endpoint)
        self.endpoint = self._front.getsockopt_string(zmq.LAST_ENDPOINT)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._pass)
        self._thread.start()

    def _pass(self) -> None:
        who = b""
        while not self._over.is_set():
            if self._front.poll(10):
                who, *question = self._front.recv_multipart()
                self._back.send_multipart(question)
            if self._back.poll(0):
                self._front.send_multipart([who, *self._back.recv_multipart()])
        self._front.close(0)
        self._back.close(0)

    def cut(self) -> None:
        self._over.set()
        self._thread.join()


def test_ctrl_c_there_ends_it_there(rig_here: Callable[..., Any], tmp_path: Path) -> None:
    door, _, go, _, _ = rig_here()
    settings: Any = {**HOW, "policy": "complete"}
    with Replay(door.endpoint, rig=sim_rig("mixing"), **settings) as replay:
        threading.Timer(0.3, replay.stop).start()
        replay.run()
    go.set()
    assert replay.report["error"] is None


def test_with_keys_only_who_has_one_gets_frames(
    rig_here: Callable[..., Any], tmp_path: Path
) -> None:
    make_keys(tmp_path / "keys", ["gpu"])
    door, _, go, *_ = rig_here(3, keys=tmp_path / "keys")
    with pytest.raises(ConfigError, match="No run hands out"):
        raw_on_wire(door.endpoint, sim_rig("mixing"))
    raw = raw_on_wire(door.endpoint, sim_rig("mixing"), keys=tmp_path / "keys" / "gpu")
    go.set()
    assert sum(1 for _ in raw.frames()) == 27
    raw.close()


def test_what_cannot_be_is_a_sentence(rig_here: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(BindError, match="not encrypted"):
        RawDoor("tcp://0.0.0.0:5556")
    with pytest.raises(ConfigError, match="No run hands out raw groups"):
        raw_on_wire("tcp://127.0.0.1:1", sim_rig("mixing"))
    door, *_ = rig_here(2, wait=False)
    storm = load_rig("virtual_storm")
    one = storm.channel(next(iter(storm.channels)))
    other = storm.model_copy(update={"channels": {"488": one}})
    with pytest.raises(ConfigError, match="has 9 exposures a group"):
        raw_on_wire(door.endpoint, other)
    assert is_address(Path("tcp://rig:5556"))
    assert not is_address("run.ome.zarr")
    assert not is_address(Path("tcp.tif"))


def test_questions_that_are_none_are_counted_and_others_answered(
    rig_here: Callable[..., Any],
) -> None:
    door, *_ = rig_here(3, wait=False)
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.connect(door.endpoint)
    for question in ([b"what"], [ASK_GROUP], [ASK_GROUP, b"x"], [ASK_GROUP, b"-1"], [b"", b""]):
        socket.send_multipart(question)
    socket.send_multipart([ASK_GROUP, b"7"])
    socket.send_multipart([ASK_ABOUT])
    got = []
    while len(got) < 2:
        assert socket.poll(20_000)
        got.append(decode(socket.recv_multipart()))
    assert [m.topic for m in got] == ["raw/about", END.decode()]
    assert got[1].header.status["groups"] == 3
    socket.close(0)
    context.term()


def test_who_asks_nothing_sensible_is_no_client_that_the_end_waits_for(
    rig_here: Callable[..., Any],
) -> None:
    """It took one of sixteen places, was said to be behind, and held up the end for a minute."""
    door, _, go, thread, _ = rig_here(3)
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.linger = 0
        stranger.connect(door.endpoint)
        stranger.send(b"GET / HTTP/1.1")
        until(lambda: door._desk is not None and door._desk.account()["refused"] == 1)
        go.set()
        thread.join()
        assert door.handed_out(0)
        assert (door.account["refused"], door.account["clients"]) == (1, 0)
        assert door.account["behind"] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit of open files")
def test_connections_are_bounded_and_who_takes_groups_comes_back(
    rig_here: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Idle ones, whose handshake is right, took every file that the recording may open."""
    monkeypatch.setattr(doorway, "_AGAIN_S", 0.2)
    monkeypatch.setattr(wire_input, "_AGAIN_S", 0.3)
    door, live, go, thread, _ = rig_here()
    files = psutil.Process().num_fds()
    crowd = subprocess.Popen(
        [sys.executable, "-c", CROWD, door.endpoint], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with crowd:
        assert crowd.stdout.readline() == b"200\n"
        until(lambda: psutil.Process().num_fds() > files + 20)  # some are there
        most, over_s = 0, time.monotonic() + 2
        while time.monotonic() < over_s:
            most = max(most, psutil.Process().num_fds())
            time.sleep(0.01)
        crowd.communicate(b"over")
    assert most < files + 150
    threading.Timer(0.3, go.set).start()
    there = computed_there(door.endpoint, tmp_path / "there.ome.zarr")
    thread.join()
    assert_equal(live.sink.path, Path(there["store"]))


CROWD = """
import sys, zmq
context = zmq.Context()
sockets = [context.socket(zmq.DEALER) for _ in range(200)]
for one in sockets:
    one.linger = 0
    one.connect(sys.argv[1])
print(len(sockets), flush=True)
sys.stdin.readline()
context.destroy(0)
"""


def test_the_command_line_says_where_it_looked(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["run", "virtual_sim", "--replay", "tcp://127.0.0.1:1", "--json"]) == 2
    assert "No run hands out raw groups at tcp://127.0.0.1:1" in capsys.readouterr().out
