from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
import zarr
import zmq

from contracts import (
    DISPLAY,
    LABELS,
    OFFSET_ADU,
    SinkContract,
    code,
    describe,
    multicolor_frame,
    raw_stack,
    sr_frame,
)
from livesr.base.errors import BindError
from livesr.base.frames import Stream
from livesr.formats.wire import Message, decode
from livesr.live.sinks import doorway
from livesr.live.sinks.headers import PictureHeaders
from livesr.live.sinks.zeromq import ZeroMQSink
from waiting import until

STREAM = Stream(0, "488")


class TestContract(SinkContract):
    def sink(self, tmp_path: Path) -> ZeroMQSink:
        return ZeroMQSink("tcp://127.0.0.1:*")

    def broken(self, tmp_path: Path) -> ZeroMQSink:
        return ZeroMQSink("tcp://0.0.0.0:5555")


class Listener:
    """A plain SUB socket, as any program would have it."""

    def __init__(self, endpoint: str, *topics: bytes) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.SUB)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(endpoint)
        for topic in topics:  # connected first: subscriptions then go out in this order
            self.socket.subscribe(topic)

    def receive(self, timeout_s: float = 60.0) -> Message | None:
        return (
            decode(self.socket.recv_multipart())
            if self.socket.poll(int(timeout_s * 1000))
            else None
        )

    def close(self) -> None:
        self.socket.close()
        self.context.term()


@pytest.fixture
def sink() -> Iterator[ZeroMQSink]:
    sink = ZeroMQSink("tcp://127.0.0.1:*")
    sink.open(describe(channels=("488", "561"), positions=("A1", "B2"), z_planes=2))
    yield sink
    sink.close({})


@pytest.fixture
def listen(sink: ZeroMQSink) -> Iterator:
    listeners = []

    def connect(*topics: bytes) -> Listener:
        listener = Listener(sink.endpoint, *topics, *([] if b"sr/" in topics else [b"sr/status"]))
        listeners.append(listener)
        greeting = listener.receive()  # the sink greets whoever joins: from here on nothing is lost
        assert greeting.header.type == "start"
        return listener

    yield connect
    for listener in listeners:
        listener.close()


def test_a_provisional_prediction_is_of_one_view() -> None:
    run = describe()
    ai = {**run.channels[0].ai, "ensemble": "flips"}
    headers = PictureHeaders(replace(run, channels=(replace(run.channels[0], ai=ai),)))
    stream = Stream(0, run.channels[0].name)
    told = [
        headers.prediction(multicolor_frame(3, stream, provisional=provisional), 0).ai
        for provisional in (True, False)
    ]
    assert ["ensemble" in ai for ai in told] == [False, True]


class TestFrames:
    def test_a_prediction(self, sink: ZeroMQSink, listen) -> None:
        listener = listen(b"sr/frame")
        stream = Stream(1, "561", 1)
        frame = multicolor_frame(3, stream, provisional=True, warnings=("too dim",), offset_adu=5)
        sink.separated(frame)
        message = listener.receive()
        header = message.header
        assert np.array_equal(message.pixels, frame.channels)
        assert list(message.pixels[:, 0, 0]) == [code(stream, 3, c) for c in range(3)]
        assert (header.position, header.position_name, header.channel, header.z, header.t) == (
            1,
            "B2",
            "561",
            1,
            3,
        )
        assert (header.axes, header.shape, header.dtype) == ("cyx", (3, 32, 32), "<u2")
        assert [c.label for c in header.channels] == list(LABELS)
        assert tuple(c.window for c in header.channels) == DISPLAY
        assert header.ai["prediction"] is True
        assert header.ai["model"]["sha256"] == "ab" * 32
        assert (header.residual, header.latency_ms, header.warnings) == (0.0625, 31.5, ("too dim",))
        assert (header.provisional, header.offset_adu, header.pixel_size_um) == (True, 5, 0.0325)
        assert header.raw_seq == (27, 35)
        assert header.t_acq_ns == frame.source.t_acq_ns < header.t_pub_ns

    def test_a_measurement(self, sink: ZeroMQSink, listen) -> None:
        listener = listen(b"sr/input")
        frame = sr_frame(2)
        frame.image[1, :2] = (-5000, 1e6)
        sink.recon(frame)
        message = listener.receive()
        assert message.pixels[0, 0] == code(STREAM, 2)
        low, high = message.header.channels[0].window  # what shows it, not what normalises it
        assert low <= 1050 <= high < 1050 + frame.normalisation.scale
        assert list(message.pixels[1, :3]) == [0, 65535, 50 + OFFSET_ADU]
        assert message.header.offset_adu == OFFSET_ADU
        assert message.header.ai == {"prediction": False}
        assert message.header.normalisation == {"background": 12.5, "headroom": 800.0}

    def test_every_frame_in_order_at_a_pace(self, sink: ZeroMQSink, listen) -> None:
        listener = listen(b"sr/")
        for t in range(50):
            sink.recon(sr_frame(t))
            sink.separated(multicolor_frame(t))
            for expected in ("sr/input", "sr/frame"):
                message = listener.receive()
                assert (message.topic, message.header.t, message.header.seq) == (expected, t, t)
        assert sink.counts == {"sent": 100, "replaced": 0, "unwatched": 0, "refused": 0}

    def test_arrays_are_not_copied_and_not_corrupted(self, sink: ZeroMQSink, listen) -> None:
        listener = listen(b"sr/frame")
        big = [np.full((3, 512, 512), i, np.uint16) for i in range(8)]
        for i, channels in enumerate(big):
            sink.separated(multicolor_frame(i, channels=channels))
            assert (listener.receive().pixels == i).all()

    def test_only_what_is_asked_for(self, sink: ZeroMQSink, listen) -> None:
        listener = listen(b"sr/input")
        sink.separated(multicolor_frame(0))
        sink.recon(sr_frame(0))
        assert listener.receive().topic == "sr/input"
        assert sink.counts["unwatched"] == 1

    def test_widefield_is_computed_for_who_names_it(self, sink: ZeroMQSink, listen) -> None:
        every = listen(b"sr/")
        assert not sink.watches_exposures  # all there is does not mean more than there is
        listener = listen(b"sr/widefield")
        assert sink.watches_exposures
        sink.exposed(raw_stack(3, missing=(8,)))
        message = listener.receive()
        while message.topic != "sr/widefield":
            message = listener.receive()
        header = message.header
        assert (header.t, header.shape, header.dtype, header.raw_seq) == (
            3,
            (16, 16),
            "<u2",
            (27, 35),
        )
        assert int(message.pixels[5, 5]) == 104  # 100 ... 107, rounded to even
        assert header.pixel_size_um == 0.065
        assert [c.label for c in header.channels] == ["widefield"]
        assert header.ai == {"prediction": False}
        assert header.normalisation is None
        assert every.receive().topic in ("sr/status", "sr/widefield")

    def test_one_exposure_is_the_measurement_already(self, sink: ZeroMQSink, listen) -> None:
        listen(b"sr/widefield")
        single = raw_stack(0)
        sink.exposed(replace(single, frames=single.frames[:1]))
        assert sink.counts["sent"] == 0


class TestLife:
    def test_status_and_greeting(self, sink: ZeroMQSink, listen) -> None:
        first = listen()
        sink.status({"sr_fps": 25.0, "path": Path("x"), "residual": float("nan")})
        message = first.receive()
        assert (message.topic, message.header.type) == ("sr/status", "status")
        assert message.header.status == {"sr_fps": 25.0, "path": "x", "residual": None}
        late = Listener(sink.endpoint, b"sr/status")
        assert late.receive().header.status["sr_fps"] == 25.0
        late.close()

    def test_a_name_that_is_no_unicode_ends_no_stream(self, sink: ZeroMQSink, listen) -> None:
        """The status held the path of a store on an old disk: the second viewer ended the stream,
        and nobody was told of the end.
        """
        path = "M\udcfcller/run.ome.zarr"
        first = listen()
        sink.status({"store": path, "sr_fps": 25.0})
        assert first.receive().header.status == {"store": "M?ller/run.ome.zarr", "sr_fps": 25.0}
        late = listen(b"sr/frame", b"end")
        sink.separated(multicolor_frame(1))
        assert late.receive().header.t == 1
        sink.close({"store": path})
        assert late.receive().header.status == {"store": "M?ller/run.ome.zarr"}

    def test_a_status_that_cannot_be_sent_ends_no_stream(self, sink: ZeroMQSink, listen) -> None:
        class Unsayable:
            def __str__(self) -> str:
                raise ValueError("of another package")

        first = listen(b"sr/frame")
        sink.status({"of a sink of others": Unsayable()})
        late = Listener(sink.endpoint, b"sr/frame", b"sr/status")
        until(lambda: sink.counts["refused"] == 2)
        sink.separated(multicolor_frame(1))
        assert first.receive().header.t == 1
        late.close()

    def test_a_greeting_does_not_overtake_what_waits(self, sink: ZeroMQSink, listen) -> None:
        """Its number is the newest: who had it before an older one counted a message that was
        never missed.
        """
        under_way, go_on, told = threading.Event(), threading.Event(), []

        class Slow:
            def __str__(self) -> str:
                told.append(self)
                if len(told) == 2:
                    under_way.set()
                    go_on.wait(60)
                return "slow"

        first = listen()
        sink.status({"sr_fps": Slow()})
        assert first.receive().header.status == {"sr_fps": "slow"}
        with contextlib.ExitStack() as others:
            for late in (Listener(sink.endpoint, b"sr/status") for _ in range(2)):
                others.callback(late.close)
                assert under_way.wait(60)  # the first one is being greeted
                late.receive(0.5)  # the subscription of the second has come by now
            sink.status({"sr_fps": 25.0})
            go_on.set()
            came = [first.receive().header for _ in range(3)]
        numbers = [header.seq for header in came]
        assert numbers == list(range(numbers[0], numbers[0] + 3))
        assert [header.type for header in came] == ["start", "status", "start"]

    def test_the_end_is_said_more_than_once(self, sink: ZeroMQSink, listen) -> None:
        listener = listen(b"end", b"sr/frame")
        sink.separated(multicolor_frame(0))
        sink.close({"sr_frames": 1})
        assert listener.receive().header.t == 0  # what was under way arrives first
        ends = [listener.receive() for _ in range(3)]
        assert {m.topic for m in ends} == {"end"}
        assert ends[0].header.status == {"sr_frames": 1}

    def test_nothing_is_done_while_nobody_listens(self, sink: ZeroMQSink) -> None:
        for t in range(100):
            sink.separated(multicolor_frame(t))
            sink.recon(sr_frame(t))
        assert sink.counts == {"sent": 0, "replaced": 0, "unwatched": 200, "refused": 0}

    def test_who_leaves_is_no_longer_served(self, sink: ZeroMQSink) -> None:
        listener = Listener(sink.endpoint, b"sr/")
        listener.receive()
        sink.separated(multicolor_frame(0))
        assert listener.receive().header.t == 0
        listener.close()
        deadline = time.monotonic() + 60
        while not sink.counts["unwatched"] and time.monotonic() < deadline:
            sink.separated(multicolor_frame(1))
            time.sleep(0.01)
        assert sink.counts["unwatched"]

    def test_a_slow_subscriber_stops_nobody(self, sink: ZeroMQSink, listen) -> None:
        slow, fast = listen(b"sr/frame"), listen(b"sr/frame")
        assert slow.receive().header.type == "start"  # the greeting of the second
        frames = 60
        for t in range(frames):
            sink.separated(multicolor_frame(t, channels=np.full((3, 512, 512), t, np.uint16)))
            message = fast.receive()
            assert message.header.t == t
            assert (message.pixels == t).all()
        got = []
        while message := slow.receive(0.3):
            assert (message.pixels == message.header.t).all()
            got.append(message.header.seq)
        assert 0 < len(got) <= frames
        assert got == sorted(got)

    def test_a_flood_of_subscriptions_reaches_nobody_else(self, sink: ZeroMQSink, listen) -> None:
        """Different ones of 4,000 bytes at full speed, by another program.

        The connection ends, memory and frames stay.
        """
        code = f"""
            import os, time, zmq
            with zmq.Context() as context, context.socket(zmq.SUB) as flood:
                flood.linger = flood.sndhwm = 0
                flood.connect({sink.endpoint!r})
                over = time.monotonic() + 1.5
                while time.monotonic() < over:
                    flood.subscribe(os.urandom(4000))
            """
        listener = listen(b"sr/frame")
        before = psutil.Process().memory_info().rss
        flooding = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
        t = most = 0
        while flooding.poll() is None:
            sink.separated(multicolor_frame(t % 50))
            assert listener.receive().header.seq == t
            t, most = t + 1, max(most, psutil.Process().memory_info().rss)
            time.sleep(0.02)
        assert flooding.returncode == 0
        assert t > 10  # it was one
        assert most - before < 100 << 20  # it was 400 MiB a second

    def test_a_subscriber_that_hangs_does_not_hold_up_the_end(
        self, sink: ZeroMQSink, listen
    ) -> None:
        listen(b"sr/frame")  # and never reads again
        for t in range(40):
            sink.separated(multicolor_frame(t, channels=np.zeros((3, 1024, 1024), np.uint16)))
            time.sleep(0.002)
        start = time.monotonic()
        sink.close({})
        assert time.monotonic() - start < 60

    def test_a_burst_is_thinned_out_and_counted(self, sink: ZeroMQSink, listen) -> None:
        listener = listen(b"sr/frame")
        for t in range(300):
            sink.separated(multicolor_frame(t))
        got = []
        while message := listener.receive(0.3):
            got.append(message.header.seq)
        assert got
        assert got == sorted(set(got))
        counts = sink.counts
        assert counts["sent"] + counts["replaced"] == 300

    def test_a_frame_that_fits_no_header_is_counted_and_the_stream_goes_on(
        self, sink: ZeroMQSink, listen
    ) -> None:
        listener = listen(b"sr/frame")
        sink.separated(multicolor_frame(0, channels=np.zeros((2, 8, 8), np.uint16)))
        sink.separated(multicolor_frame(1))
        assert listener.receive().header.t == 1
        assert sink.counts["refused"] == 1

    def test_other_programs_on_the_port_are_ignored(self, sink: ZeroMQSink, listen) -> None:
        host, port = sink.endpoint.removeprefix("tcp://").split(":")
        with socket.create_connection((host, int(port))) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
        context = zmq.Context()
        talker = context.socket(zmq.XSUB)
        talker.connect(sink.endpoint)
        talker.send(b"\x07 not a subscription")
        talker.send(b"\x01" + b"x" * 100_000)
        listener = listen(b"sr/frame")
        sink.separated(multicolor_frame(0))
        assert listener.receive().header.t == 0
        talker.close(0)
        context.term()


class TestAddresses:
    def test_a_free_port(self, sink: ZeroMQSink) -> None:
        assert sink.endpoint.startswith("tcp://127.0.0.1:")
        assert int(sink.endpoint.rpartition(":")[2]) > 0

    def test_a_port_in_use(self, sink: ZeroMQSink) -> None:
        second = ZeroMQSink(sink.endpoint)
        with pytest.raises(BindError, match=r"already in use.*pick a free one"):
            second.open(describe())
        second.close({})

    def test_the_port_is_free_again_after_the_end(self) -> None:
        sink = ZeroMQSink("tcp://127.0.0.1:*")
        sink.open(describe())
        sink.close({})
        again = ZeroMQSink(sink.endpoint)
        again.open(describe())
        again.close({})

    @pytest.mark.parametrize(
        "address",
        [
            "tcp://*:5555",
            "tcp://0.0.0.0:5555",
            "tcp://192.168.1.5:5555",
            "tcp://rig-pc:5555",
            "tcp://[::]:5555",
        ],
    )
    def test_others_are_not_let_in_unasked(self, address: str) -> None:
        with pytest.raises(BindError, match="can be reached from other computers"):
            ZeroMQSink(address)

    def test_others_are_let_in_on_request(self) -> None:
        sink = ZeroMQSink("tcp://0.0.0.0:*", insecure=True)
        sink.open(describe())
        sink.close({})

    @pytest.mark.parametrize(
        "address",
        [
            "5555",
            "127.0.0.1:5555",
            "http://127.0.0.1:5555",
            "tcp://127.0.0.1",
            "tcp://127.0.0.1:99999",
            "tcp://:5555",
            "",
        ],
    )
    def test_what_is_no_address(self, address: str) -> None:
        with pytest.raises(BindError, match=r"expected something like tcp://127\.0\.0\.1:5555"):
            ZeroMQSink(address)

    def test_an_address_that_is_not_ours(self) -> None:
        with pytest.raises(BindError, match="no address of this computer"):
            ZeroMQSink("tcp://192.0.2.1:*", insecure=True).open(describe())

    @pytest.mark.parametrize("address", ["tcp://localhost:*", "tcp://127.0.0.5:*"])
    def test_names_of_this_computer(self, address: str) -> None:
        sink = ZeroMQSink(address)
        try:
            sink.open(describe())
        except BindError:
            pytest.skip("this system has a single loopback address")
        sink.close({})


def test_the_header_is_plain_json(sink: ZeroMQSink, listen) -> None:
    listener = listen(b"sr/frame")
    sink.separated(multicolor_frame(0))
    assert listener.socket.poll(5000)
    topic, header, pixels = listener.socket.recv_multipart()
    fields = json.loads(header)
    assert (topic, fields["v"], fields["type"], fields["encoding"]) == (
        b"sr/frame",
        1,
        "frame",
        "raw",
    )
    assert np.frombuffer(pixels, fields["dtype"]).reshape(fields["shape"]).shape == (3, 32, 32)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit of open files")
class TestConnections:
    """Idle connections take file descriptors; those that a recording needs must be left."""

    def test_they_are_bounded_and_a_viewer_comes_back(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(doorway, "_AGAIN_S", 0.2)
        monkeypatch.setattr(
            doorway, "_HANDSHAKE_MS", 600_000
        )  # nobody is hung up on for being silent
        sink = ZeroMQSink("tcp://127.0.0.1:*")
        sink.open(describe(channels=("488",)))
        with contextlib.ExitStack() as stack:
            stack.callback(sink.close, {})
            listener = Listener(sink.endpoint, b"sr/input", b"sr/status")
            stack.callback(listener.close)
            assert listener.receive().header.type == "start"
            address = ("127.0.0.1", int(sink.endpoint.rpartition(":")[2]))
            before, opened = psutil.Process().num_fds(), 0
            while opened < 300:
                with contextlib.suppress(ConnectionError):  # the door is closed
                    stack.enter_context(socket.create_connection(address, timeout=60))
                    opened += 1
            # those of the sink
            until(lambda: psutil.Process().num_fds() - opened <= before + 100)
            assert listener.receive().header.type == "start"  # it was closed too, and came back
            sink.recon(sr_frame(3))
            assert listener.receive().pixels[0, 0] == code(STREAM, 3)

    def test_whoever_says_nothing_is_hung_up_on(self, sink: ZeroMQSink) -> None:
        address = ("127.0.0.1", int(sink.endpoint.rpartition(":")[2]))
        with socket.create_connection(address, timeout=60) as idle:
            greeting = b""
            while more := idle.recv(4096):  # ZeroMQ's greeting, then the end
                greeting += more
        assert greeting[:1] == b"\xff"

    def test_a_recording_goes_on_while_somebody_takes_all_connections(self, tmp_path: Path) -> None:
        moving = np.random.default_rng(0).integers(100, 4000, (40 * 9, 32, 32), np.uint16)
        tifffile.imwrite(tmp_path / "raw.tif", moving)
        with contextlib.ExitStack() as crowd, subprocess.Popen(
            [sys.executable, "-c", CROWDED, tmp_path / "raw.tif", tmp_path / "run.ome.zarr"],
            stdout=subprocess.PIPE, text=True,
        ) as run:  # fmt: skip
            port, opened = int(run.stdout.readline()), 0
            while run.poll() is None:
                if opened < 1000:
                    with contextlib.suppress(OSError):
                        crowd.enter_context(
                            socket.create_connection(("127.0.0.1", port), timeout=1)
                        )
                        opened += 1
            said = run.stdout.read()
        assert said.split() == ["360", "0", "None"]
        stored = zarr.open_array(tmp_path / "run.ome.zarr/raw/0", mode="r")[:]
        assert np.array_equal(stored.reshape(moving.shape), moving)


CROWDED = """
import sys, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))
from livesr.store.replay import Replay
how = {"rig": "virtual_sim", "engine": "none", "rate": 240.0, "publish": "tcp://127.0.0.1:*"}
with Replay(sys.argv[1], store=sys.argv[2], **how) as replay:
    print(replay.endpoint.rpartition(":")[2], flush=True)
    replay.run()
print(replay.report["raw_frames"], replay.report["raw_lost"], replay.report["error"])
"""
