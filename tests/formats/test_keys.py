from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from contracts import describe, multicolor_frame
from livesr.base.errors import ConfigError
from livesr.formats.keys import LOCAL, PublisherKeys, ViewerKeys, make_keys
from livesr.live.sinks.zeromq import ZeroMQSink
from livesr.viewer.subscriber import Subscriber


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_keys(tmp_path / "keys", ["office"])
    return tmp_path / "keys"


@pytest.fixture
def sink(folder: Path) -> Iterator[ZeroMQSink]:
    sink = ZeroMQSink("tcp://127.0.0.1:*", keys=folder)
    sink.open(describe())
    yield sink
    sink.close({})


def received(sink: ZeroMQSink, keys: Path | None, timeout_s: float) -> bool:
    with Subscriber(sink.endpoint, keys=keys) as subscriber:
        for t in range(int(timeout_s / 0.1)):
            sink.separated(multicolor_frame(t))
            if subscriber.next_frame(timeout_s=0.1) is not None:
                return True
    return False


@pytest.mark.parametrize("viewer", ["office", LOCAL])
def test_a_named_viewer_receives(sink: ZeroMQSink, folder: Path, viewer: str) -> None:
    assert received(sink, folder / viewer, 5)


def test_nobody_without_keys_receives(sink: ZeroMQSink, folder: Path) -> None:
    assert not received(sink, None, 1)
    assert received(sink, folder / "office", 5)  # and it was not just dead


def test_a_viewer_that_is_not_authorised_any_more(
    sink: ZeroMQSink, folder: Path, tmp_path: Path
) -> None:
    make_keys(tmp_path / "other", ["office"])
    stranger = tmp_path / "other" / "office"
    (stranger / "publisher.key").write_bytes((folder / "publisher.key").read_bytes())
    assert not received(sink, stranger, 1)


def test_a_viewer_refuses_a_publisher_that_it_does_not_know(folder: Path, tmp_path: Path) -> None:
    make_keys(tmp_path / "impostor")
    for key in (folder / "authorized").iterdir():
        (tmp_path / "impostor" / "authorized" / key.name).write_bytes(key.read_bytes())
    sink = ZeroMQSink("tcp://127.0.0.1:*", keys=tmp_path / "impostor")
    sink.open(describe())
    try:
        assert not received(sink, folder / "office", 1)
    finally:
        sink.close({})


def test_frames_do_not_cross_the_wire_in_the_clear(sink: ZeroMQSink, folder: Path) -> None:
    """A man in the middle sees neither a header nor a topic."""
    context = zmq.Context()
    listener, out = context.socket(zmq.STREAM), context.socket(zmq.STREAM)
    port = listener.bind_to_random_port("tcp://127.0.0.1")
    out.connect(sink.endpoint)
    seen = b""
    server, _ = out.recv_multipart()
    with Subscriber(f"tcp://127.0.0.1:{port}", keys=folder / "office") as subscriber:
        client, _ = listener.recv_multipart()
        poller = zmq.Poller()
        poller.register(listener, zmq.POLLIN)
        poller.register(out, zmq.POLLIN)
        for t in range(200):
            sink.separated(multicolor_frame(t))
            ready = dict(poller.poll(20))
            if listener in ready:
                out.send_multipart([server, listener.recv_multipart()[1]])
            if out in ready:
                data = out.recv_multipart()[1]
                seen += data
                listener.send_multipart([client, data])
            if (message := subscriber.newest()) is not None:
                break
    listener.close(0)
    out.close(0)
    context.term()
    assert message is not None
    assert b"CURVE" in seen
    assert b"sr/frame" not in seen
    assert b"prediction" not in seen


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_secrets_are_readable_by_their_owner_only(folder: Path) -> None:
    for secret in folder.rglob("*.key_secret"):
        assert stat.S_IMODE(os.stat(secret).st_mode) == 0o600
        assert stat.S_IMODE(os.stat(secret.parent).st_mode) == 0o700
    assert len(list(folder.rglob("*.key_secret"))) == 3


def test_more_viewers_later_keep_the_publisher(folder: Path) -> None:
    before = PublisherKeys.read(folder)
    (made,) = make_keys(folder, ["tablet"])
    assert PublisherKeys.read(folder) == before
    assert ViewerKeys.read(made).publisher == before.public
    assert sorted(p.stem for p in (folder / "authorized").iterdir()) == ["office", "tablet", LOCAL]


def test_keys_do_not_show_in_logs(folder: Path) -> None:
    keys = PublisherKeys.read(folder)
    assert keys.secret.decode() not in repr(keys)


@pytest.mark.parametrize("name", ["../x", "a/b", "", "publisher", LOCAL, "office"])
def test_names_that_cannot_be(folder: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot name a viewer|has keys already"):
        make_keys(folder, [name])


def test_a_folder_without_keys(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="livesr keys"):
        ZeroMQSink("tcp://0.0.0.0:*", keys=tmp_path)
    (tmp_path / "viewer.key_secret").write_bytes(b"\xff\x00nonsense")
    with pytest.raises(ConfigError, match="no key file"):
        ViewerKeys.read(tmp_path)
