from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import zmq

from contracts import code, describe, multicolor_frame, raw_stack, sr_frame
from livesr.base.errors import ConfigError
from livesr.base.frames import StagePosition, Stream
from livesr.formats import wire
from livesr.live.sinks.zeromq import ZeroMQSink
from livesr.viewer import subscriber as subscriber_module
from livesr.viewer.frame_pairs import LiveFramePairs
from livesr.viewer.subscriber import Subscriber
from livesr.viewer.successive import SuccessiveSource
from waiting import until


@pytest.fixture
def sink() -> Iterator[ZeroMQSink]:
    sink = ZeroMQSink("tcp://127.0.0.1:*")
    sink.open(describe(channels=("488", "561"), positions=("A", "B"), z_planes=2))
    yield sink
    sink.close({})


@pytest.fixture
def subscriber(sink: ZeroMQSink) -> Iterator[Subscriber]:
    with Subscriber(sink.endpoint) as subscriber:
        until(lambda: subscriber.heard)
        yield subscriber


def test_only_the_newest_is_kept(sink: ZeroMQSink, subscriber: Subscriber) -> None:
    for t in range(30):
        sink.separated(multicolor_frame(t))
        time.sleep(0.001)
    until(lambda: (m := subscriber.newest()) is not None and m.header.t == 29)
    assert subscriber.next_frame(timeout_s=60).header.t == 29
    assert subscriber.next_frame(timeout_s=0.05) is None


def test_whoever_listens_is_told_of_news_through_a_change_of_sources(
    sink: ZeroMQSink, subscriber: Subscriber
) -> None:
    both, news = SuccessiveSource(StillSource()), threading.Event()
    end = both.listen(news.set)
    assert not news.is_set()
    both.follow_with(LiveFramePairs(subscriber))
    assert news.wait(60)
    news.clear()
    sink.separated(multicolor_frame(1))
    assert news.wait(60)
    end()
    end()  # may be told twice
    news.clear()
    sink.separated(multicolor_frame(2))
    until(lambda: (m := subscriber.newest()) is not None and m.header.t == 2)
    assert not news.is_set()


class StillSource(LiveFramePairs):
    """A stream in which nothing happens."""

    def __init__(self) -> None:
        super().__init__(Subscriber("tcp://127.0.0.1:9"))


def test_streams_are_kept_apart(sink: ZeroMQSink, subscriber: Subscriber) -> None:
    streams = [Stream(p, c, z) for p in (0, 1) for c in ("488", "561") for z in (0, 1)]
    for stream in streams:
        sink.separated(multicolor_frame(1, stream))
        sink.recon(sr_frame(1, stream))
        time.sleep(0.01)
    until(lambda: subscriber.newest(channel="561", position=1, z=1) is not None)
    for stream in streams:
        found = subscriber.newest(channel=stream.channel, position=stream.position, z=stream.z)
        assert found.pixels[0, 0, 0] == code(stream, 1)
    until(lambda: subscriber.newest("sr/input", position=1, channel="561", z=1) is not None)
    assert subscriber.newest("sr/input", channel="488", position=0, z=1).pixels[0, 0] == code(
        Stream(0, "488", 1), 1
    )
    taken = {subscriber.next_frame(timeout_s=60).key for _ in streams}
    assert len(taken) == len(streams)


def test_iteration_ends_with_the_stream(sink: ZeroMQSink, subscriber: Subscriber) -> None:
    def run() -> None:
        for t in range(10):
            sink.separated(multicolor_frame(t))
            time.sleep(0.01)
        sink.close({"sr_frames": 10})

    publisher = threading.Thread(target=run, name="livesr-test-run")
    publisher.start()
    times = [message.header.t for message in subscriber]
    publisher.join()
    assert times == sorted(set(times))
    assert times[-1] == 9
    assert subscriber.ended
    until(lambda: subscriber.status == {"sr_frames": 10})


def test_silence_is_an_end(
    sink: ZeroMQSink, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber_module, "SILENCE_S", 0.2)
    until(lambda: subscriber.ended)

    def speaks_again() -> bool:
        sink.status({"sr_fps": 1})
        return not subscriber.ended

    until(speaks_again)


def test_nothing_heard_is_no_end() -> None:
    with Subscriber("tcp://127.0.0.1:9") as subscriber:
        assert subscriber.next_frame(timeout_s=0.1) is None
        assert not subscriber.ended
        assert not subscriber.heard


def test_a_new_run_on_the_same_address() -> None:
    first = ZeroMQSink("tcp://127.0.0.1:*")
    first.open(describe())
    with Subscriber(first.endpoint) as subscriber:
        until(lambda: subscriber.heard)
        first.close({})
        until(lambda: subscriber.ended)
        second = ZeroMQSink(first.endpoint)
        second.open(describe(stream_id="another"))
        until(lambda: not subscriber.ended)
        second.separated(multicolor_frame(0))
        assert subscriber.next_frame(timeout_s=60).header.stream == "another"
        assert subscriber.missed == 0
        second.close({})


def test_a_slow_viewer_counts_what_it_missed(sink: ZeroMQSink) -> None:
    context = zmq.Context()
    slow = context.socket(zmq.SUB)
    slow.setsockopt(zmq.RCVHWM, 1)
    slow.subscribe(b"")
    slow.connect(sink.endpoint)
    counter = Subscriber("unused")

    def drain() -> None:
        while slow.poll(300):
            counter._take([memoryview(part) for part in slow.recv_multipart()])

    drain()
    for t in range(60):
        sink.separated(multicolor_frame(t, channels=np.zeros((3, 1024, 1024), np.uint16)))
        time.sleep(0.004)
    drain()
    sink.separated(multicolor_frame(60))
    until(lambda: (drain(), counter.newest())[1].header.t == 60)
    assert counter.missed > 0
    assert counter.received - 1 + counter.missed == 61
    slow.close(0)
    context.term()


def test_what_is_no_message_is_counted_and_survived() -> None:
    context = zmq.Context()
    stranger = context.socket(zmq.XPUB)
    port = stranger.bind_to_random_port("tcp://127.0.0.1")
    with Subscriber(f"tcp://127.0.0.1:{port}") as subscriber:
        for _ in range(4):
            assert stranger.poll(60_000)
            stranger.recv()
        head = wire.WireHeader(
            v=1, type="frame", stream="s", seq=0, t_pub_ns=0, t_acq_ns=0, shape=(2, 2), axes="yx"
        )
        good = wire.encode(wire.INPUT, head, np.zeros((2, 2), np.uint16))
        bad = [
            [b"sr/frame", b"not json", b""],
            [b"sr/frame", good[1].replace(b'"v":1', b'"v":2'), bytes(8)],
            [b"sr/frame", good[1], b"short"],
            [b"sr/frame"],
            [b"sr/frame/deeper", good[1], bytes(8)],
        ]
        for parts in bad:
            stranger.send_multipart(parts)
            time.sleep(0.01)
        stranger.send_multipart(good)
        until(lambda: subscriber.newest("sr/input") is not None)
        assert subscriber.rejected == len(bad)
        assert "topic" in subscriber.last_rejection
        assert subscriber.newest("sr/frame") is None
    stranger.close(0)
    context.term()


def test_memory_is_bounded(sink: ZeroMQSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        subscriber_module, "_MAX_BYTES", 64 * 8 * 2
    )  # a measurement is kept for its prediction, too
    subscriber = Subscriber("unused")
    for position in range(200):
        head = wire.WireHeader(
            v=1,
            type="frame",
            stream="s",
            seq=position,
            t_pub_ns=0,
            t_acq_ns=0,
            position=position,
            shape=(2, 2),
            axes="yx",
        )
        subscriber._take(
            [memoryview(p) for p in wire.encode(wire.INPUT, head, np.zeros((2, 2), np.uint16))[:2]]
            + [memoryview(bytes(8))]
        )
    assert len(subscriber._newest) == 64
    assert subscriber._kept_bytes() == 64 * 8 * 2
    assert len(subscriber.streams()) == 200


@pytest.mark.parametrize("endpoint", ["5555", "udp://x", "tcp://127.0.0.1:port"])
def test_what_is_no_address(endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"tcp://127\.0\.0\.1:5555"):
        Subscriber(endpoint).open()


def test_widefield_is_made_for_those_who_ask_and_only_while_they_do(
    sink: ZeroMQSink, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber_module, "_WANTED_S", 0.2)
    sink.recon(sr_frame(1))
    until(lambda: subscriber.newest("sr/input") is not None)
    shown = subscriber.newest("sr/input")
    assert not sink.watches_exposures
    assert subscriber.widefield_of(shown) is None
    until(lambda: subscriber.widefield_of(shown) is None and sink.watches_exposures)
    sink.exposed(raw_stack(1))
    until(lambda: subscriber.widefield_of(shown) is not None)
    found = subscriber.widefield_of(shown)
    assert (found.header.t, found.header.axes, found.pixels.shape) == (1, "yx", (16, 16))
    assert int(found.pixels[3, 3]) == 104  # the mean of 100 ... 108
    assert found.header.ai == {"prediction": False}
    until(lambda: not sink.watches_exposures)  # nobody has asked for a while


def test_what_others_got_while_nobody_asked_here_was_not_missed(
    sink: ZeroMQSink, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber_module, "_WANTED_S", 0.2)
    sink.recon(sr_frame(1))
    until(lambda: subscriber.newest("sr/input") is not None)
    shown = subscriber.newest("sr/input")

    def asked_here() -> bool:
        subscriber.widefield_of(shown)
        return sink.watches_exposures

    def come(t: int) -> bool:
        found = subscriber.widefield_of(shown)
        return found is not None and found.header.t == t

    until(asked_here)
    sink.exposed(raw_stack(1))
    until(lambda: come(1))
    until(lambda: not sink.watches_exposures)
    with Subscriber(sink.endpoint, topics=(b"sr/widefield",)) as other:
        until(lambda: sink.watches_exposures)
        for t in range(2, 7):
            sink.exposed(raw_stack(t))
            until(lambda t=t: (m := other.newest("sr/widefield")) is not None and m.header.t == t)
        until(lambda: _again(sink, subscriber, shown))
    assert subscriber.missed == 0


def _again(sink: ZeroMQSink, subscriber: Subscriber, shown: wire.Message) -> bool:
    """Ask for the widefield picture once more, until it has come."""
    subscriber.widefield_of(shown)
    sink.exposed(raw_stack(7))
    time.sleep(0.05)
    found = subscriber.newest("sr/widefield")
    return found is not None and found.header.t == 7


def test_a_stream_says_where_it_was_taken(sink: ZeroMQSink, subscriber: Subscriber) -> None:
    stage = StagePosition(120.5, -3.25, 7.0)
    sink.recon(replace(sr_frame(0, Stream(1, "488", 1)), stage=stage))
    until(lambda: bool(subscriber.streams()))
    (found,) = subscriber.streams()
    assert found == ("488", 1, "B", 1, 0.25, 120.5, -3.25)


def test_in_another_process(sink: ZeroMQSink) -> None:
    script = (
        "import sys\n"
        "from livesr.viewer.subscriber import Subscriber\n"
        "with Subscriber(sys.argv[1]) as subscriber:\n"
        "    print('ready', flush=True)\n"
        "    for m in subscriber:\n"
        "        print(m.header.t, int(m.pixels[2, 0, 0]), flush=True)\n"
        "print('end', subscriber.status['sr_frames'])\n"
    )
    command = [sys.executable, "-W", "error", "-c", script, sink.endpoint]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        until(lambda: bool(sink._publisher._subscribed))
        for t in range(5):
            sink.separated(multicolor_frame(t))
            time.sleep(0.05)
        sink.close({"sr_frames": 5})
        out, err = process.communicate(timeout=60)
    lines = out.splitlines()
    assert lines[-2:] == [f"4 {code(Stream(0, '488'), 4, 2)}", "end 5"], err
    assert process.returncode == 0
