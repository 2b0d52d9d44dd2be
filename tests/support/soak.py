"""A long run with everything that listens to one.

Figures for docs/reliability.md, and for whoever doubts them.

``python tests/support/soak.py --minutes 30 --out FOLDER`` acquires on Micro-Manager's demo camera
at 25 frames a second, separates with engines/identity, stores, and publishes to a subscriber, to
one that stalls, and to `livesr view` with a page open in a Chromium. Prints a JSON object a minute
(resident memory in MB of every part, threads, open files and sockets, latency in ms), and one at
the end:
what is left that was not there before, and what went missing. Linux only: it counts in /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import useq

from livesr import LiveSR
from livesr.base.config import load_rig
from livesr.viewer.chromium import Page, chromium
from rigs import core_of

PER_S = 25
SUBSCRIBER = """
import json, sys, time, zmq
stall_s = float(sys.argv[2])
context = zmq.Context()
socket = context.socket(zmq.SUB)
socket.subscribe(b"sr/frame")
socket.subscribe(b"end")
socket.connect(sys.argv[1])
seen, missed, expected, stalled = 0, 0, 0, time.monotonic()
while True:
    topic, header, *_ = socket.recv_multipart()
    if topic == b"end":
        break
    seq = json.loads(header)["seq"]
    seen, missed, expected = seen + 1, missed + seq - expected, seq + 1
    if stall_s and time.monotonic() - stalled > 30:
        time.sleep(stall_s)
        stalled = time.monotonic()
socket.close(0)
context.term()
print(json.dumps({"seen": seen, "missed": missed}), flush=True)
"""
COUNT_DRAWN = """() => {
    window.drawn = 0;
    for (const kind of [CanvasRenderingContext2D, WebGL2RenderingContext]) {
        for (const name of ["drawImage", "putImageData", "drawArrays"]) {
            const draw = kind.prototype[name];
            if (draw) kind.prototype[name] = function (...a) {
                window.drawn++;
                return draw.apply(this, a);
            };
        }
    }
}"""


def held() -> Counter[str]:
    """Return what this process holds: threads by name, and open files by kind or path."""
    counts = Counter(
        f"thread {(task / 'comm').read_text().strip()}"
        for task in Path("/proc/self/task").iterdir()
    )
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(link)
        except FileNotFoundError:  # the folder that is being listed
            continue
        counts["socket" if target.startswith("socket:") else target] += 1
    return counts


def resident_mb(process: psutil.Process) -> float:
    """Memory of a process and its children in MB.

    What several share counts once (proportional set size).
    """
    total = 0
    for one in (process, *process.children(recursive=True)):
        try:
            total += one.memory_full_info().pss
        except psutil.Error:  # it ended meanwhile
            continue
    return round(total / 1e6, 1)


@contextmanager
def livesr_view(endpoint: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `livesr view` while the block runs; gives the process and the address of its page."""
    command = [sys.executable, "-m", "livesr", "view", endpoint, "--json", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            text = ""
            while not text.rstrip().endswith("}"):
                text += process.stdout.readline()
            yield process, json.loads(text)["url"]
        finally:
            process.terminate()
            process.communicate(timeout=60)


class Minutes:
    """Prints what a minute was like; `latencies_ms` is filled by the run's `frame_ready`."""

    def __init__(self, page: Page | None, processes: dict[str, psutil.Process]) -> None:
        self._page, self._processes = page, processes
        self.latencies_ms: list[float] = []
        self.rows: list[dict[str, Any]] = []
        self._drawn, self._since = 0, time.monotonic()

    def add(self, session: LiveSR) -> None:
        latencies, self.latencies_ms = self.latencies_ms, []
        seconds, self._since = time.monotonic() - self._since, time.monotonic()
        row: dict[str, Any] = {
            "minute": len(self.rows) + 1,
            "sr_fps": round(len(latencies) / seconds, 2),
            "latency_ms": [round(float(q), 1) for q in np.percentile(latencies or [0], (50, 99))],
            "load": round(os.getloadavg()[0], 1),
            "sr_skipped": session.status().get("sr_skipped"),
            "raw_queue": session.status().get("raw_queue"),
            **{f"{name}_mb": resident_mb(process) for name, process in self._processes.items()},
            "run_mb": round(psutil.Process().memory_info().rss / 1e6, 1),
            "threads": len(list(Path("/proc/self/task").iterdir())),
            "open": len(list(Path("/proc/self/fd").iterdir())),
        }
        if self._page:
            drawn = int(self._page.run("() => window.drawn"))
            row["drawn_per_s"], self._drawn = round((drawn - self._drawn) / seconds, 1), drawn
        self.rows.append(row)
        print(json.dumps(row), flush=True)


def acquire(
    core: Any, frames: int, store: Path, publish: str | None, minutes: Minutes | None = None
) -> dict[str, Any]:
    """Run so many frames at `PER_S`; return the report."""
    plan = useq.MDASequence(
        time_plan=useq.TIntervalLoops(interval=1 / PER_S, loops=frames),
        channels=["488"],
        axis_order="tc",
    )
    rig = load_rig("demo")
    rig = rig.model_copy(update={"channels": {"488": rig.channels["488"]}})
    with LiveSR(
        core, rig=rig, engine="identity", store=store, publish=publish, plan=plan, threads=1
    ) as session:
        if minutes:
            session.frame_ready.connect(lambda frame: minutes.latencies_ms.append(frame.latency_ms))
        acquisition = threading.Thread(target=core.mda.run, args=(plan,))
        acquisition.start()
        while acquisition.is_alive():
            acquisition.join(60)
            if minutes and acquisition.is_alive():
                minutes.add(session)
    return session.report


def soak(core: Any, minutes: float, folder: Path, address: str) -> dict[str, Any]:
    """Run with all that listens; return what became of it."""
    with ExitStack() as stack:
        listeners = {
            name: subprocess.Popen(
                [sys.executable, "-c", SUBSCRIBER, address, stall_s],
                stdout=subprocess.PIPE,
                text=True,
            )
            for name, stall_s in (("fast", "0"), ("stalls", "5"))
        }
        view, url = stack.enter_context(livesr_view(address))
        browser = stack.enter_context(chromium())
        page = browser.open(url)
        page.wait_for("() => document.querySelector('#modes')")
        page.run(COUNT_DRAWN)
        chromiums = [p for p in psutil.Process().children() if "chrom" in p.name()]
        processes = {"view": psutil.Process(view.pid), "browser": chromiums[0]}
        watched = Minutes(page, processes)
        report = acquire(
            core, round(minutes * 60 * PER_S), folder / "soak.ome.zarr", address, watched
        )
        seen = {
            name: json.loads(process.communicate(timeout=120)[0])
            for name, process in listeners.items()
        }
    return {"report": report, "subscribers": seen}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--size", type=int, default=128, help="Pixels of a frame's side.")
    parser.add_argument("--out", type=Path, help="Folder for the store; a passing one without.")
    parser.add_argument("--port", type=int, default=25655)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as passing, core_of("demo", exposure_ms=5) as core:
        folder = args.out or Path(passing)
        for axis in "XY":
            core.setProperty("Camera", f"OnCameraCCD{axis}Size", args.size)
        address = f"tcp://127.0.0.1:{args.port}"
        soak(
            core, 0.05, folder, address
        )  # libraries start threads with first use that they keep for good
        before = held()
        result = soak(core, args.minutes, folder, address)
        deadline = time.monotonic() + 30
        while (
            left := held() - before
        ) and time.monotonic() < deadline:  # a thread may take a moment to go
            time.sleep(0.5)
        names = [thread.name for thread in threading.enumerate()]
    print(json.dumps({**result, "left": dict(left), "python_threads": names}), flush=True)


if __name__ == "__main__":
    main()
