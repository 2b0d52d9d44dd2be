"""A tool reads a store and a stream without anything that acquires or computes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from contracts import code, describe, feed, multicolor_frame, small_store
from livesr.base.frames import Stream
from livesr.formats.wire import WireHeader, encode
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.live.sinks.zeromq import ZeroMQSink

_ABSENT = """
unwanted = ("livesr.live", "livesr.store", "pymmcore", "openvino", "torch", "useq")
print([m for m in sys.modules if m.startswith(unwanted)])
"""

_STORE = """
import sys
from livesr.formats.frames_log import stored_lines
from livesr.formats.store import RecordedStore, array_shape
from livesr.formats.zarr_files import open_array
store = RecordedStore(sys.argv[1])
print(store.channels, len(store.pictures("raw")), store.problems)
image = store.images["sr", 0, "488"]
index = array_shape(image.array).index(t=2, z=0)
print(open_array(image.array)[index][1, 0, 0])
"""

_STREAM = """
import sys
from livesr.viewer.subscriber import Subscriber
with Subscriber(sys.argv[1]) as subscriber:
    print('ready', flush=True)
    print(subscriber.next_frame(timeout_s=60).pixels[1, 0, 0], flush=True)
"""


def test_a_store_is_read(tmp_path: Path) -> None:
    store = small_store(tmp_path / "run.ome.zarr", 4)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _STORE + _ABSENT, str(store)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "('488',) 4 ()",
        str(code(Stream(0, "488"), 2, 1)),
        "[]",
    ], done.stderr


def test_a_stream_is_read() -> None:
    sink = ZeroMQSink("tcp://127.0.0.1:*")
    sink.open(describe())
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", _STREAM + _ABSENT, sink.endpoint or ""],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        while process.poll() is None and not sink.counts["sent"]:
            sink.separated(multicolor_frame(3))
        out, err = process.communicate(timeout=60)
    sink.close({})
    assert out.splitlines() == [str(code(Stream(0, "488"), 3, 1)), "[]"], err


def test_the_bytes_of_a_message_are_those_of_version_1() -> None:
    header = WireHeader(
        v=1,
        type="frame",
        stream="s",
        seq=3,
        t_pub_ns=1,
        t_acq_ns=2,
        shape=(2, 3),
        axes="yx",
        dtype="<u2",
    )
    topic, head, pixels = encode(b"sr/input", header, np.arange(6, dtype="<u2").reshape(2, 3))
    assert topic == b"sr/input"
    assert head == (
        b'{"v":1,"type":"frame","stream":"s","seq":3,"t_pub_ns":1,"t_acq_ns":2,"dtype":"<u2",'
        b'"shape":[2,3],"axes":"yx"}'
    )
    assert pixels.tobytes() == bytes.fromhex("000001000200030004000500")


def test_the_files_of_a_store_are_those_of_version_1(tmp_path: Path) -> None:
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    sink.open(describe())
    for t in range(3):
        feed(sink, t)
    sink.separated(multicolor_frame(2, ood_score=0.53125, unknown_light=0.09375))
    sink.close({})
    assert {str(p.relative_to(sink.path)) for p in sink.path.rglob("*") if p.is_file()} == {
        "zarr.json",
        "OME/METADATA.ome.xml",
        "OME/zarr.json",
        "livesr/zarr.json",
        "livesr/frames.jsonl",
        "livesr/images.json",
        "livesr/report.json",
        *(f"{name}/zarr.json" for name in ("raw", "recon", "sr")),
        *(f"{name}/0/zarr.json" for name in ("raw", "recon", "sr")),
        "raw/0/c/0/0/0/0",
        "recon/0/c/0/0/0",
        "sr/0/c/0/0/0/0",
    }
    log = (sink.path / "livesr" / "frames.jsonl").read_text(encoding="utf-8").splitlines()
    assert '"novelty": 0.5312, "unknown_light": 0.0938' in log[-1]
    assert log[0] == (
        '{"series": "raw", "state": "raw", "t": 0, "position": 0, "channel": "488", "z": 0,'
        ' "stored": true, "t_acq_ns": 1700000000000000000, "t_camera_ms": 0.0}'
    )
