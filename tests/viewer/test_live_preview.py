"""From the camera to the page: a run on the virtual rig, its stream, and what a page is sent."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from websockets.sync.client import connect

from livesr import LiveSR
from livesr.live.sources.plan import sim_sequence
from livesr.viewer.browser.server import PreviewServer
from livesr.viewer.frame_pairs import LiveFramePairs
from livesr.viewer.subscriber import Subscriber
from rigs import virtual_sim


def test_a_run_is_seen_while_it_lasts(tmp_path: Path) -> None:
    with virtual_sim(exposure_ms=8.0, time_points=4) as core:
        plan = sim_sequence(25, channels=["488"], raw=9)
        session = LiveSR(
            core,
            rig="virtual_sim",
            engine="identity",
            plan=plan,
            store=tmp_path / "run.ome.zarr",
            publish="tcp://127.0.0.1:*",
        )
        with (
            session,
            Subscriber(session.endpoint) as subscriber,
            PreviewServer(LiveFramePairs(subscriber)) as server,
        ):
            acquisition = threading.Thread(
                target=core.mda.run, args=(plan,), name="livesr-test-acquisition"
            )
            acquisition.start()
            frames, statuses = watch(server)
            acquisition.join()
    predicted = [frame for frame in frames if frame["prediction"]]
    assert len(predicted) > 3
    assert {tuple(p["name"] for p in frame["pictures"]) for frame in predicted} == {
        ("measurement", "composite")
    }
    # The measurement beside a prediction is the one that it was made from.
    assert all(len({p["t"] for p in frame["pictures"]}) == 1 for frame in predicted)
    times = [frame["t"] for frame in predicted]
    assert times == sorted(times)
    assert predicted[0]["stream"]["channel"] == "488"
    assert statuses[-1]["state"] == "ended"
    assert any(status["disk_free_bytes"] for status in statuses)
    assert {status["engine"] for status in statuses if status["state"] == "live"} <= {
        "identity",
        "",
    }


def watch(server: PreviewServer) -> tuple[list[dict], list[dict]]:
    """Be a page until the stream has ended."""
    frames, statuses = [], []
    origin = f"http://127.0.0.1:{server.port}"
    with connect(
        f"{server.url.replace('http', 'ws')}stream", origin=origin, max_size=None, compression=None
    ) as page:
        while not statuses or statuses[-1]["state"] != "ended":
            message = page.recv(timeout=60)
            if isinstance(message, bytes):
                continue
            said = json.loads(message)
            if said["type"] == "frame":
                frames.append(said)
                page.send(json.dumps({"type": "ack", "id": said["id"]}))
            if said["type"] == "status":
                statuses.append(said)
    return frames, statuses
