"""10,000 super-resolution frames through a whole run.

Store, publisher, and a subscriber in a process of its own.

Run by tests/live/test_recording.py; prints the resident memory in bytes, after every 500th frame.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from useq import MDAEvent

from livesr.base.compute import ComputeConfig
from livesr.base.config import load_rig
from livesr.base.geometry import Geometry
from livesr.base.run_description import RunDescription
from livesr.live.keeping_up import COMPLETE
from livesr.live.paths import build_path
from livesr.live.pipeline import Pipeline
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.live.sinks.zeromq import ZeroMQSink

FRAMES, SIZE, EVERY = 10_000, 32, 500
SUBSCRIBER = """
import sys, zmq
context = zmq.Context()
socket = context.socket(zmq.SUB)
socket.subscribe(b"")
socket.connect(sys.argv[1])
seen = {}
while True:
    topic = socket.recv_multipart()[0]
    seen[topic] = seen.get(topic, 0) + 1
    if topic == b"end":
        break
socket.close(0)
context.term()
print(seen.get(b"sr/frame", 0), flush=True)
"""


def main(folder: Path) -> None:
    rig = load_rig("demo").with_engine("none")
    rig = rig.model_copy(update={"channels": {"488": rig.channels["488"]}}).with_engine("identity")
    path = build_path(
        rig, "488", Geometry((SIZE, SIZE), "uint16", 0.065), ComputeConfig(device="cpu", threads=1)
    )
    publisher, store = ZeroMQSink("tcp://127.0.0.1:*"), OMEZarrSink(folder / "run.ome.zarr")
    run = RunDescription(stream_id="flat", started_ns=time.time_ns(), channels=(path.description,))
    pipeline = Pipeline({"488": path}, run, [publisher, store], COMPLETE)
    frames = np.random.default_rng(0).integers(100, 4000, (64, SIZE, SIZE), np.uint16)
    pipeline.open()
    subscriber = subprocess.Popen(
        [sys.executable, "-c", SUBSCRIBER, publisher.endpoint], stdout=subprocess.PIPE
    )
    process, sizes = psutil.Process(), []
    for t in range(FRAMES):
        pipeline.hook.frame_ready(
            frames[t % 64].copy(), MDAEvent(index={"t": t}, channel="488"), {}
        )
        if (t + 1) % 50 == 0:
            while (
                pipeline.counts["sr_frames"] < t or pipeline.status()["raw_queue"]
            ):  # what waits is not what grows
                time.sleep(0.0005)
        if (t + 1) % EVERY == 0:
            sizes.append(process.memory_info().rss)
    pipeline.end()
    report = pipeline.join()
    path.close()
    seen = int(subscriber.communicate(timeout=120)[0])
    json.dump(
        {
            "rss": sizes,
            "sr_frames": report["sr_frames"],
            "raw_lost": report["raw_lost"],
            "seen": seen,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
